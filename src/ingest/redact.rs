//! Hides the values of secrets in the parameters of a tool call.
//!
//! A value is hidden by the name that it stands under: always where the name is a secret's, and where the name is
//! ambiguous (`key`, `token`) only if the value looks like a secret. The name of a value is its key, or what stands
//! beside it in a name/value pair. Texts that are JSON are looked into, and passwords in URLs are hidden anywhere.

mod names;
mod values;

use std::{borrow::Cow, ops::Range};

use prost_types::{Struct, Value, value::Kind};

pub(super) use self::names::WORDS;
use self::{
    names::{Name, Names},
    values::{looks_secret, redact_urls},
};
use super::{Redaction, json};

/// What stands in a secret's place.
const REDACTED: &str = "[redacted]";

/// How many texts that are JSON may stand in each other and are looked into.
const NESTED: usize = 4;

/// How deep a text that is JSON may nest for being looked into, as the stack is bounded.
const DEPTH: usize = 32;

/// The keys of a pair that hold the name, and those that hold the value.
const NAME_KEYS: [&str; 5] = ["name", "key", "header", "field", "param"];
const VALUE_KEYS: [&str; 2] = ["value", "val"];

/// Knows which values are secrets.
pub(super) struct Redactor {
    names: Names,
}

/// What replaces a part of a JSON text.
type Edit = (Range<usize>, String);

/// A member of an object in a JSON text: its key, and where its value stands.
type Member<'a> = (Cow<'a, str>, Range<usize>);

impl Redactor {
    /// The redactor by `settings`; none if it is switched off.
    pub(super) fn new(settings: &Redaction) -> Option<Self> {
        settings.enabled.then(|| Self {
            names: Names::new(settings),
        })
    }

    /// Replaces every secret in `fields`, however deep.
    pub(super) fn redact_struct(&self, fields: &mut Struct) {
        let names = fields
            .fields
            .iter()
            .filter(|(key, _)| is_one_of(key, &NAME_KEYS));
        let texts = names.filter_map(|(_, value)| match &value.kind {
            Some(Kind::StringValue(text)) => Some(&**text),
            _ => None,
        });
        let paired = self.paired(texts);
        for (key, value) in &mut fields.fields {
            self.redact_value(value, self.name_of(key, paired), NESTED);
        }
    }

    fn redact_value(&self, value: &mut Value, name: Name, nested: usize) {
        if name == Name::Secret {
            value.kind = Some(Kind::StringValue(REDACTED.into()));
            return;
        }
        match &mut value.kind {
            Some(Kind::StructValue(fields)) => self.redact_struct(fields),
            Some(Kind::ListValue(list)) => {
                let of_pair = match &list.values[..] {
                    [
                        Value {
                            kind: Some(Kind::StringValue(first)),
                        },
                        _,
                    ] => self.ambiguous(first),
                    _ => Name::Plain,
                };
                for value in &mut list.values {
                    self.redact_value(value, name.max(of_pair), nested);
                }
            }
            Some(Kind::StringValue(text)) => {
                if let Some(redacted) = self.redact_text(text, name, nested) {
                    *text = redacted;
                }
            }
            _ => {}
        }
    }

    /// The same for `text`, which is valid JSON. Every byte outside the replaced values stays as it is; without any,
    /// the answer is `None`.
    pub(super) fn redact_json(&self, text: &str) -> Option<String> {
        self.redact_nested(text, NESTED)
    }

    fn redact_nested(&self, text: &str, nested: usize) -> Option<String> {
        let start = json::skip_space(text.as_bytes(), 0);
        let mut edits = Vec::new();
        self.find(text, start, Name::Plain, nested, &mut edits);
        if edits.is_empty() {
            return None;
        }
        let mut out = String::with_capacity(text.len());
        let mut copied = 0;
        for (range, replacement) in edits {
            out.push_str(&text[copied..range.start]);
            out.push_str(&replacement);
            copied = range.end;
        }
        out.push_str(&text[copied..]);
        Some(out)
    }

    /// Notes in `edits` what is to be replaced of the value that begins at `at`, in order. Returns where it ends.
    fn find(
        &self,
        text: &str,
        at: usize,
        name: Name,
        nested: usize,
        edits: &mut Vec<Edit>,
    ) -> usize {
        let bytes = text.as_bytes();
        let end = json::value_end(bytes, at);
        if name == Name::Secret {
            edits.push((at..end, format!("\"{REDACTED}\"")));
            return end;
        }
        match bytes.get(at) {
            Some(b'{') => {
                let members = members(text, at);
                let names = members.iter().filter(|(key, _)| is_one_of(key, &NAME_KEYS));
                let texts = names.filter_map(|(_, value)| string_at(text, value));
                let texts: Vec<_> = texts.collect();
                let paired = self.paired(texts.iter().map(|text| &**text));
                for (key, value) in members {
                    let name = self.name_of(&key, paired);
                    self.find(text, value.start, name, nested, edits);
                }
            }
            Some(b'[') => {
                let mut values = Vec::new();
                json::items(text, at, |at| {
                    let end = json::value_end(bytes, at);
                    values.push(at..end);
                    end
                });
                let of_pair = match &values[..] {
                    [first, _] => {
                        string_at(text, first).map_or(Name::Plain, |first| self.ambiguous(&first))
                    }
                    _ => Name::Plain,
                };
                for value in values {
                    self.find(text, value.start, name.max(of_pair), nested, edits);
                }
            }
            Some(b'"') => {
                let said = json::unescaped(text.get(at..end).unwrap_or_default());
                if let Some(redacted) = self.redact_text(&said, name, nested) {
                    edits.push((at..end, serde_json::Value::from(redacted).to_string()));
                }
            }
            _ => {}
        }
        end
    }

    /// The text of a value under `name`, redacted; `None`: nothing is to be hidden.
    fn redact_text(&self, text: &str, name: Name, nested: usize) -> Option<String> {
        if name != Name::Plain && looks_secret(text, name) {
            return Some(REDACTED.to_owned());
        }
        let inner = text.trim_start();
        if nested > 0 && inner.starts_with(['{', '[']) && json::problem(text, DEPTH).is_none() {
            return self.redact_nested(text, nested - 1);
        }
        redact_urls(text, &self.names)
    }

    /// What the value of a pair is, by the texts under the keys that hold the name.
    fn paired<'a>(&self, names: impl Iterator<Item = &'a str>) -> Name {
        names
            .map(|name| self.names.of(name))
            .max()
            .unwrap_or(Name::Plain)
    }

    /// What the value under `key` is, in an object whose pair, if it is one, says `paired`.
    fn name_of(&self, key: &str, paired: Name) -> Name {
        let own = self.names.of(key);
        match is_one_of(key, &VALUE_KEYS) {
            true => own.max(paired),
            false => own,
        }
    }

    /// What stands beside `first` in a list of two. Such a list may be any two texts, so a secret has to look like one.
    fn ambiguous(&self, first: &str) -> Name {
        self.names.of(first).min(Name::Ambiguous)
    }
}

fn is_one_of(key: &str, keys: &[&str]) -> bool {
    keys.iter().any(|one| one.eq_ignore_ascii_case(key))
}

/// The members of the object that opens at `open`, in the order of the text.
fn members(text: &str, open: usize) -> Vec<Member<'_>> {
    let bytes = text.as_bytes();
    let mut members = Vec::new();
    json::items(text, open, |at| {
        let key_end = json::string_end(bytes, at);
        let key = json::unescaped(text.get(at..key_end).unwrap_or_default());
        let Some(value) = json::value_of_key(bytes, key_end) else {
            return key_end;
        };
        let end = json::value_end(bytes, value);
        members.push((key, value..end));
        end
    });
    members
}

/// What the string in `range` says, if it is one.
fn string_at<'a>(text: &'a str, range: &Range<usize>) -> Option<Cow<'a, str>> {
    let quoted = text.get(range.clone())?;
    quoted.starts_with('"').then(|| json::unescaped(quoted))
}

#[cfg(test)]
mod tests;
