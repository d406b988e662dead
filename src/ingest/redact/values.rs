//! Whether a text looks like a secret, and secrets within URLs.

use std::ops::Range;

use super::{
    REDACTED,
    names::{Name, Names},
};

/// What well-known tokens begin with, and how long they are at least.
#[rustfmt::skip]
const PREFIXES: &[(&str, usize)] = &[
    ("sk-", 16), ("sk_live_", 16), ("sk_test_", 16), ("rk_live_", 16), ("whsec_", 16),
    ("ghp_", 16), ("gho_", 16), ("ghu_", 16), ("ghs_", 16), ("ghr_", 16), ("github_pat_", 20), ("glpat-", 16),
    ("xoxb-", 12), ("xoxp-", 12), ("xoxa-", 12), ("xoxr-", 12), ("xoxs-", 12), ("xoxe-", 12), ("xapp-", 12),
    ("AKIA", 20), ("ASIA", 20), ("AIza", 30), ("ya29.", 20), ("eyJ", 20), ("SG.", 20), ("hf_", 16), ("npm_", 20),
    ("pypi-", 20), ("dop_v1_", 20), ("shpat_", 20), ("AGE-SECRET-KEY-", 20), ("hvs.", 16), ("sq0", 16),
    ("lin_api_", 16),
];

/// What the credentials of HTTP begin with.
const SCHEMES: [&str; 2] = ["bearer ", "basic "];

/// The shortest run of letters and digits that may be a random one.
const RUN: usize = 16;

/// Longer texts are no tokens.
const LONGEST: usize = 8192;

/// Whether `text`, which stands under `name`, looks like a secret: by a known beginning, or as letters and digits in no
/// order that a word or an id has.
pub(super) fn looks_secret(text: &str, name: Name) -> bool {
    let text = text.trim();
    if text.len() > LONGEST {
        return false;
    }
    if text.starts_with("-----BEGIN") {
        return text.contains("PRIVATE KEY");
    }
    for scheme in SCHEMES {
        if let (Some(head), Some(rest)) = (text.get(..scheme.len()), text.get(scheme.len()..))
            && head.eq_ignore_ascii_case(scheme)
        {
            let is_word = rest.bytes().all(|byte| byte.is_ascii_lowercase());
            return rest.len() >= 8 && !rest.contains(' ') && !is_word;
        }
    }
    if text.contains(char::is_whitespace) {
        return false;
    }
    let begins =
        |(prefix, length): &(&str, usize)| text.starts_with(prefix) && text.len() >= *length;
    PREFIXES.iter().any(begins) || looks_random(text) || (name != Name::Key && is_uuid(text))
}

/// Whether `text` has a long run of letters and digits that change often, or is all base64 of much entropy.
fn looks_random(text: &str) -> bool {
    let runs = text.split(|c: char| !c.is_ascii_alphanumeric());
    let mut long = runs.filter(|run| run.len() >= RUN);
    long.any(is_mixed) || is_base64(text)
}

/// Whether letters and digits alternate, and small and capital ones other than in camel case, at every fourth place
/// or more.
fn is_mixed(run: &str) -> bool {
    let changes = run.as_bytes().windows(2).filter(|pair| {
        let classes = (class(pair[0]), class(pair[1]));
        classes.0 != classes.1 && classes != (Class::Upper, Class::Lower)
    });
    let has = |wanted| run.bytes().any(|byte| class(byte) == wanted);
    has(Class::Digit)
        && (has(Class::Lower) || has(Class::Upper))
        && changes.count() * 4 >= run.len()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Upper,
    Lower,
    Digit,
}

fn class(byte: u8) -> Class {
    match byte {
        b'A'..=b'Z' => Class::Upper,
        b'0'..=b'9' => Class::Digit,
        _ => Class::Lower,
    }
}

/// Whether `text` is base64 of at least 32 characters with 4.6 bits or more in each: a path of as many has less.
fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=').as_bytes();
    let alphabet = |b: &u8| b.is_ascii_alphanumeric() || b"+/_-".contains(b);
    let has = |is: fn(&u8) -> bool| body.iter().any(is);
    let is_varied =
        has(u8::is_ascii_digit) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
    if body.len() < 32 || !is_varied || !body.iter().all(alphabet) {
        return false;
    }
    let mut counts = [0_u32; 256];
    for byte in body {
        counts[usize::from(*byte)] += 1;
    }
    let length = body.len() as f64;
    let bits: f64 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / length)
        .map(|share| -share * share.log2())
        .sum();
    bits >= 4.6
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

/// `text` with the passwords and secret parameters of the URLs in it replaced; `None`: it has none.
pub(super) fn redact_urls(text: &str, names: &Names) -> Option<String> {
    let mut out = String::new();
    let (mut at, mut copied) = (0, 0);
    while let Some(found) = text.get(at..).and_then(|rest| rest.find("://")) {
        let begin = at + found + 3;
        let length = text[begin..].find(|c: char| c.is_whitespace() || "\"'<>`".contains(c));
        let end = length.map_or(text.len(), |length| begin + length);
        for secret in secrets(&text[begin..end], names) {
            out.push_str(&text[copied..begin + secret.start]);
            out.push_str(REDACTED);
            copied = begin + secret.end;
        }
        at = end;
    }
    if copied == 0 {
        return None;
    }
    out.push_str(&text[copied..]);
    Some(out)
}

/// Where secrets stand in what follows the `://` of a URL, in order.
fn secrets(rest: &str, names: &Names) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    if let Some(userinfo) = rest[..authority].rfind('@') {
        match rest[..userinfo].find(':') {
            Some(colon) if colon + 1 < userinfo => found.push(colon + 1..userinfo),
            None if looks_secret(&rest[..userinfo], Name::Ambiguous) => found.push(0..userinfo),
            _ => {}
        }
    }
    let Some(query) = rest.find('?') else {
        return found;
    };
    let mut at = query + 1;
    for pair in rest[at..].split(['&', ';', '#']) {
        if let Some((key, value)) = pair.split_once('=') {
            let begin = at + key.len() + 1;
            let is_secret = match names.of(key) {
                Name::Secret => !value.is_empty(),
                Name::Plain => false,
                name => looks_secret(value, name),
            };
            if is_secret {
                found.push(begin..begin + value.len());
            }
        }
        at += pair.len() + 1;
    }
    found
}
