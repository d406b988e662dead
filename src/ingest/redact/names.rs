//! What a name says of the value that stands under it.

use std::{collections::HashSet, iter};

use super::super::Redaction;

/// The words that mark a key unless others are configured. Plurals that count things, as in `max_tokens` and `keys`,
/// are left out on purpose.
#[rustfmt::skip]
pub(in crate::ingest) const WORDS: &[&str] = &[
    "password", "passwords", "passwd", "passphrase", "passcode", "pass", "pwd",
    "adminpass", "dbpass", "mailpass", "rootpass", "smtppass", "sshpass", "userpass",
    "secret", "secrets", "clientsecret", "secretkey",
    "accesstoken", "apitoken", "authtoken", "bearertoken", "idtoken", "refreshtoken", "sessiontoken",
    "accesskey", "accountkey", "apikey", "apikeys", "encryptionkey", "masterkey", "privatekey", "signingkey", "sshkey",
    "authorization", "bearer", "jwt", "otp", "connectionstring",
    "credential", "credentials", "creds", "cookie", "cookies", "setcookie", "sessioncookie",
    "cvc", "cvv", "pincode", "totp", "mnemonic",
];

/// Words that name secrets as often as something else: their values are redacted if they look like a secret.
const AMBIGUOUS: &[&str] = &[
    "token",
    "key",
    "auth",
    "oauth",
    "authentication",
    "signature",
    "sig",
];

/// Names with an ambiguous word whose values are random and still no secrets.
#[rustfmt::skip]
const HARMLESS: &[&str] = &[
    "cachekey", "continuationtoken", "foreignkey", "idempotencykey", "nexttoken", "pagetoken", "partitionkey",
    "primarykey", "publickey", "sortkey",
];

/// Last words of a key that tells something about a secret, such as `password_length`, and not the secret.
#[rustfmt::skip]
const ABOUT: &[&str] = &[
    "age", "arn", "attempts", "consent", "count", "domain", "enabled", "expires", "expiry", "field", "file", "format",
    "hint", "id", "ids", "length", "limit", "method", "name", "path", "policy", "provider", "rate", "required", "reset",
    "scheme", "size", "status", "strength", "ttl", "type", "url",
];

/// What a name says of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// Nothing.
    Plain,
    /// It is a secret if it looks like one; a UUID does not, since keys are often ids.
    Key,
    /// It is a secret if it looks like one.
    Ambiguous,
    /// It is a secret.
    Secret,
}

/// Knows which names are secrets'.
pub(super) struct Names {
    /// Lower-case, letters and digits only.
    words: HashSet<String>,
}

impl Names {
    pub(super) fn new(settings: &Redaction) -> Self {
        let normal = |word: &String| {
            word.chars()
                .filter(|c| c.is_alphanumeric())
                .flat_map(char::to_lowercase)
                .collect()
        };
        Self {
            words: settings.words.iter().map(normal).collect(),
        }
    }

    /// What `key` says of its value: by its words, and by each two neighbours together.
    pub(super) fn of(&self, key: &str) -> Name {
        let mut found = Name::Plain;
        let mut pair = String::with_capacity(key.len());
        let mut second = 0;
        for word in words(key) {
            pair.drain(..second);
            second = pair.len();
            push_lower(&mut pair, word);
            found = found.max(self.of_word(&pair[second..]));
            if second > 0 {
                found = found.max(self.of_word(&pair));
                if found < Name::Secret && HARMLESS.contains(&pair.as_str()) {
                    found = Name::Plain;
                }
            }
        }
        // A pass is as often a ticket or a round, unless it stands alone or is somebody's.
        if found == Name::Secret && second > 0 && self.only_pass(key) {
            found = Name::Ambiguous;
        }
        // What an operator lists is a secret, whatever follows.
        match found {
            Name::Secret if is_about(&pair[second..]) && !self.is_own(key) => Name::Ambiguous,
            found => found,
        }
    }

    fn of_word(&self, word: &str) -> Name {
        match word {
            _ if self.words.contains(word) => Name::Secret,
            "key" => Name::Key,
            _ if AMBIGUOUS.contains(&word) => Name::Ambiguous,
            _ => Name::Plain,
        }
    }

    /// Whether nothing but the word `pass` makes `key` the name of a secret.
    fn only_pass(&self, key: &str) -> bool {
        self.listed(key).all(|word| word == "pass")
    }

    /// Whether a word of `key` is listed that is not in the list that comes with the service.
    fn is_own(&self, key: &str) -> bool {
        self.listed(key).any(|word| !WORDS.contains(&&*word))
    }

    /// The words of `key`, and its pairs of neighbours, that are listed.
    fn listed(&self, key: &str) -> impl Iterator<Item = String> {
        let lower: Vec<String> = words(key).map(str::to_lowercase).collect();
        let mut all: Vec<String> = lower.windows(2).map(<[String]>::concat).collect();
        all.extend(lower);
        all.into_iter().filter(|word| self.words.contains(word))
    }
}

fn is_about(last: &str) -> bool {
    ABOUT.contains(&last)
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
pub(super) fn words(key: &str) -> impl Iterator<Item = &str> {
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
