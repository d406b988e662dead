//! Writes JSON straight into bytes. Fields keep the order in which they are written.

use std::{fmt::Display, io::Write};

use prost_types::{Struct, Value, value::Kind};
use serde::Serialize;

/// An object under way. `end` closes it.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    /// Opens an object at the end of `out`.
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// Closes it.
    pub(super) fn end(self) {
        self.out.push(b'}');
    }

    /// Writes the name of a field, whose value the caller writes next. `name` needs no escapes.
    pub(super) fn field(&mut self, name: &str) -> &mut Vec<u8> {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// A field whose name comes from outside.
    pub(super) fn entry(&mut self, name: &str) -> &mut Vec<u8> {
        self.separate();
        text(self.out, name);
        self.out.push(b':');
        self.out
    }

    fn separate(&mut self) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
    }

    /// A text; left out when empty.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            text(self.field(name), value);
        }
    }

    /// A text that needs no escapes.
    pub(super) fn plain(&mut self, name: &str, value: impl Display) {
        quoted(self.field(name), value);
    }

    /// A whole number.
    pub(super) fn integer(&mut self, name: &str, value: u64) {
        scalar(self.field(name), &value);
    }

    /// A whole number; left out when zero.
    pub(super) fn count(&mut self, name: &str, value: u64) {
        if value > 0 {
            self.integer(name, value);
        }
    }

    /// A double; left out when absent.
    pub(super) fn double(&mut self, name: &str, value: Option<f64>) {
        if let Some(value) = value {
            double(self.field(name), value);
        }
    }

    /// A truth value.
    pub(super) fn boolean(&mut self, name: &str, value: bool) {
        scalar(self.field(name), &value);
    }

    /// Milliseconds; left out when absent.
    pub(super) fn millis(&mut self, name: &str, value: Option<&prost_types::Duration>) {
        if let Some(value) = value {
            millis(self.field(name), value);
        }
    }
}

/// A text, escaped.
pub(super) fn text(out: &mut Vec<u8>, value: &str) {
    scalar(out, value);
}

/// A text that needs no escapes.
pub(super) fn quoted(out: &mut Vec<u8>, value: impl Display) {
    out.push(b'"');
    let _never_fails = write!(out, "{value}");
    out.push(b'"');
}

/// A scalar: writing one into memory cannot fail.
fn scalar<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let _never_fails = serde_json::to_writer(out, value);
}

/// Integral doubles up to this are written in full. Beyond, the shortest form has an exponent and no fraction.
const INTEGRAL: f64 = 1e18;

/// A double: an integral one without a fraction, others in the shortest form that reads back as the same double. What
/// is not finite becomes `null`.
pub(super) fn double(out: &mut Vec<u8>, value: f64) {
    if value.fract() == 0.0 && value.abs() <= INTEGRAL {
        scalar(out, &(value as i64));
    } else {
        scalar(out, &value);
    }
}

/// A duration in milliseconds: integral where it is whole, else with up to six decimals, exactly.
pub(super) fn millis(out: &mut Vec<u8>, value: &prost_types::Duration) {
    const NANOS_PER_MILLI: u128 = 1_000_000;
    let nanos = i128::from(value.seconds) * 1_000_000_000 + i128::from(value.nanos);
    if nanos < 0 {
        out.push(b'-');
    }
    let nanos = nanos.unsigned_abs();
    let (whole, part) = (nanos / NANOS_PER_MILLI, nanos % NANOS_PER_MILLI);
    let _never_fails = write!(out, "{whole}");
    if part > 0 {
        let _never_fails = write!(out, ".{part:06}");
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// Items between brackets.
pub(super) fn array<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (n, item) in items.into_iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// A protobuf Struct as an object. Its depth was bounded when it came in.
pub(super) fn structure(out: &mut Vec<u8>, value: &Struct) {
    let mut object = Object::begin(out);
    for (name, value) in &value.fields {
        self::value(object.entry(name), value);
    }
    object.end();
}

/// A protobuf Value.
pub(super) fn value(out: &mut Vec<u8>, value: &Value) {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => out.extend_from_slice(b"null"),
        Some(Kind::NumberValue(number)) => double(out, *number),
        Some(Kind::StringValue(string)) => text(out, string),
        Some(Kind::BoolValue(truth)) => scalar(out, truth),
        Some(Kind::StructValue(object)) => structure(out, object),
        Some(Kind::ListValue(list)) => array(out, &list.values, self::value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn doubles_have_no_needless_fraction() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-1.0, "-1"),
            (3.5, "3.5"),
            (0.1, "0.1"),
            (-2.25, "-2.25"),
            (1e-7, "1e-7"),
            (9_007_199_254_740_991.0, "9007199254740991"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (1e17, "100000000000000000"),
            (1e18, "1000000000000000000"),
            (-1e18, "-1000000000000000000"),
            (123_456_789_012_345_680.0, "123456789012345680"),
            (f64::NAN, "null"),
            (f64::INFINITY, "null"),
        ];
        for (number, want) in cases {
            assert_eq!(written(|out| double(out, number)), want, "{number:?}");
        }
    }

    #[test]
    fn doubles_read_back_as_they_were() {
        for number in [
            1e19,
            1.5e300,
            f64::MAX,
            f64::MIN_POSITIVE,
            5e-324,
            1.0 / 3.0,
            1e18 + 256.0,
        ] {
            let text = written(|out| double(out, number));
            assert_eq!(text.parse::<f64>(), Ok(number), "{text}");
            assert!(!text.ends_with(".0"), "{text}");
        }
    }

    #[test]
    fn durations_are_exact_milliseconds() {
        let cases = [
            ((0, 0), "0"),
            ((0, 118_000_000), "118"),
            ((1, 500_000), "1000.5"),
            ((0, 1), "0.000001"),
            ((0, 10_000), "0.01"),
            ((315_576_000_000, 999_999_999), "315576000000999.999999"),
            ((-1, -500_000), "-1000.5"),
        ];
        for ((seconds, nanos), want) in cases {
            let duration = prost_types::Duration { seconds, nanos };
            assert_eq!(written(|out| millis(out, &duration)), want);
        }
    }

    #[test]
    fn texts_and_names_from_outside_are_escaped() {
        let tricky = Struct {
            fields: [(
                "a\"\n".to_owned(),
                Value::from("\u{0}\u{1f600}\\</script>\u{2028}"),
            )]
            .into(),
        };
        let text = written(|out| structure(out, &tricky));
        assert_eq!(
            text,
            "{\"a\\\"\\n\":\"\\u0000\u{1f600}\\\\</script>\u{2028}\"}"
        );
        let _reads_back: serde_json::Value = serde_json::from_str(&text).unwrap();
    }

    #[test]
    fn values_of_every_kind() {
        let list = Value::from(vec![
            Value { kind: None },
            Value::from(true),
            Value::from(2.0),
            Value::from("x"),
            Value::from(Vec::<Value>::new()),
        ]);
        assert_eq!(written(|out| value(out, &list)), r#"[null,true,2,"x",[]]"#);
    }
}
