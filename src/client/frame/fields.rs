//! The fields of a JSON object, read no further than needed.

use std::{collections::BTreeMap, str::FromStr};

use serde_json::value::RawValue;

/// The fields of a JSON object as texts. A parsed value would not do: 64-bit integers and long decimals lose digits in a
/// double, and `1e999` does not fit into one.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    text: &'a str,
    fields: BTreeMap<String, &'a RawValue>,
}

impl<'a> Fields<'a> {
    /// The fields of the object `text`; none, if it is no object.
    pub fn of(text: &'a str) -> Self {
        let fields = serde_json::from_str(text).unwrap_or_default();
        Self { text, fields }
    }

    /// The whole object as it is written.
    pub fn json(&self) -> &'a str {
        self.text
    }

    /// The value of a field as it is written.
    pub fn value(&self, name: &str) -> Option<&'a str> {
        self.fields.get(name).map(|value| value.get())
    }

    /// A text; empty, if there is none.
    pub fn text(&self, name: &str) -> String {
        let value = self.value(name).map(serde_json::from_str);
        value.and_then(Result::ok).unwrap_or_default()
    }

    /// A number, if there is one that a `T` can hold.
    pub fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.value(name)?.parse().ok()
    }

    /// The fields of the object in a field; none, if there is none.
    pub fn object(&self, name: &str) -> Self {
        Self::of(self.value(name).unwrap_or("{}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_text() {
        let text = r#"{"n":1e999,"id":12345678901234567890123,"t":"é\n","o":{"n":7,"x":[1.10]},"n\u0032":2}"#;
        let fields = Fields::of(text);
        assert_eq!(fields.json(), text);
        assert_eq!(fields.value("n"), Some("1e999"));
        assert_eq!(fields.value("id"), Some("12345678901234567890123"));
        assert_eq!(fields.text("t"), "é\n");
        assert_eq!(fields.object("o").number::<u64>("n"), Some(7));
        assert_eq!(fields.object("o").value("x"), Some("[1.10]"));
        assert_eq!(fields.number::<u64>("n2"), Some(2));
    }

    #[test]
    fn what_is_not_there_is_empty() {
        for text in ["null", "[]", "", "{", r#"{"t":1,"n":"x","o":[]}"#] {
            let fields = Fields::of(text);
            assert_eq!(
                (fields.text("t"), fields.number::<u64>("n")),
                (String::new(), None)
            );
            assert_eq!(fields.object("o").value("x"), None, "{text}");
        }
    }
}
