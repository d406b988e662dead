//! Hides the values of secrets in the parameters of a tool call.

use std::{collections::HashSet, iter};

use prost_types::{Struct, Value, value::Kind};

use super::{Redaction, json};

/// What stands in a secret's place.
const REDACTED: &str = "[redacted]";

/// The words that mark a key unless others are configured. Plurals that count things, as in `max_tokens` and `keys`,
/// are left out on purpose.
#[rustfmt::skip]
pub(super) const WORDS: [&str; 43] = [
    "password", "passwords", "passwd", "passphrase", "passcode", "pwd",
    "secret", "secrets", "clientsecret", "secretkey",
    "token", "accesstoken", "apitoken", "authtoken", "bearertoken", "idtoken", "refreshtoken", "sessiontoken",
    "key", "accesskey", "apikey", "apikeys", "encryptionkey", "privatekey", "signingkey", "sshkey",
    "authorization", "authentication", "auth", "oauth", "bearer", "jwt", "otp",
    "credential", "credentials", "creds", "cookie", "cookies", "setcookie", "signature", "sessioncookie",
    "cvc", "cvv",
];

/// Knows which keys name secrets.
pub(super) struct Redactor {
    /// Lower-case, letters and digits only.
    words: HashSet<String>,
}

impl Redactor {
    /// The redactor by `settings`; none if it is switched off.
    pub(super) fn new(settings: &Redaction) -> Option<Self> {
        let normal = |word: &String| {
            word.chars()
                .filter(|c| c.is_alphanumeric())
                .flat_map(char::to_lowercase)
                .collect()
        };
        settings.enabled.then(|| Self {
            words: settings.words.iter().map(normal).collect(),
        })
    }

    /// Replaces every value in `fields`, however deep, that stands under the name of a secret.
    pub(super) fn redact_struct(&self, fields: &mut Struct) {
        for (key, value) in &mut fields.fields {
            if self.is_secret(key) {
                value.kind = Some(Kind::StringValue(REDACTED.into()));
            } else {
                self.redact_value(value);
            }
        }
    }

    fn redact_value(&self, value: &mut Value) {
        match &mut value.kind {
            Some(Kind::StructValue(fields)) => self.redact_struct(fields),
            Some(Kind::ListValue(list)) => {
                for value in &mut list.values {
                    self.redact_value(value);
                }
            }
            _ => {}
        }
    }

    /// The same for `text`, which is valid JSON. Every byte outside the replaced values stays as it is; without any,
    /// the answer is `None`.
    pub(super) fn redact_json(&self, text: &str) -> Option<String> {
        let bytes = text.as_bytes();
        let mut out = String::new();
        let (mut at, mut copied) = (0, 0);
        while let Some(byte) = bytes.get(at) {
            if *byte != b'"' {
                at += 1;
                continue;
            }
            let key = &text[at..json::string_end(bytes, at)];
            at += key.len();
            let Some(value) = json::value_of_key(bytes, at) else {
                continue;
            };
            at = value;
            if self.is_secret(&json::unescaped(key)) {
                at = json::value_end(bytes, value);
                out.push_str(&text[copied..value]);
                out.push('"');
                out.push_str(REDACTED);
                out.push('"');
                copied = at;
            }
        }
        if copied == 0 {
            return None;
        }
        out.push_str(&text[copied..]);
        Some(out)
    }

    /// Whether a word of `key`, or two neighbours together, are listed.
    fn is_secret(&self, key: &str) -> bool {
        let mut pair = String::with_capacity(key.len());
        let mut second = 0;
        for word in words(key) {
            pair.drain(..second);
            second = pair.len();
            push_lower(&mut pair, word);
            let listed = self.words.contains(&pair[second..]);
            if listed || (second > 0 && self.words.contains(&pair)) {
                return true;
            }
        }
        false
    }
}

fn push_lower(out: &mut String, word: &str) {
    if word.is_ascii() {
        let start = out.len();
        out.push_str(word);
        out[start..].make_ascii_lowercase();
    } else {
        out.extend(word.chars().flat_map(char::to_lowercase));
    }
}

/// The words of a key: runs of letters or of digits, split at the humps of camel case.
fn words(key: &str) -> impl Iterator<Item = &str> {
    let mut rest = key;
    iter::from_fn(move || {
        rest = rest.trim_start_matches(|c: char| !c.is_alphanumeric());
        let (word, after) = rest.split_at(word_end(rest));
        rest = after;
        (!word.is_empty()).then_some(word)
    })
}

/// Where the first word of `text`, which begins with one, ends.
fn word_end(text: &str) -> usize {
    let mut chars = text.char_indices().peekable();
    let mut before = match chars.next() {
        Some((_, first)) => Class::of(first),
        None => return 0,
    };
    while let Some((at, c)) = chars.next() {
        let class = Class::of(c);
        let ends = match (before, class) {
            (Class::Digit, Class::Digit) | (Class::Upper | Class::Lower, Class::Lower) => false,
            // The last capital of `HTTPAuthorization`'s five begins the next word.
            (Class::Upper, Class::Upper) => chars
                .peek()
                .is_some_and(|(_, next)| Class::of(*next) == Class::Lower),
            _ => true,
        };
        if ends {
            return at;
        }
        before = class;
    }
    text.len()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Upper,
    /// Every letter that is no capital.
    Lower,
    Digit,
    Other,
}

impl Class {
    fn of(c: char) -> Self {
        match c {
            _ if c.is_uppercase() => Self::Upper,
            _ if c.is_alphabetic() => Self::Lower,
            _ if c.is_alphanumeric() => Self::Digit,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests;
