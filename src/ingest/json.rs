//! Exact JSON text: checked and walked as bytes, so that no number passes through a double.

mod normal;

pub(crate) use normal::normalised;

use std::borrow::Cow;

use serde::de::IgnoredAny;

/// What is wrong with `text` as one JSON value nested at most `depth` deep, if anything.
pub(super) fn problem(text: &str, depth: usize) -> Option<String> {
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return Some(format!("is not JSON: {error}"));
    }
    let bytes = text.as_bytes();
    let (mut at, mut level) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b'{' | b'[' => level += 1,
            b'}' | b']' => level -= 1,
            _ => {}
        }
        if level > depth {
            return Some(format!("nests deeper than {depth}"));
        }
        at += 1;
    }
    None
}

/// Whether `text`, which is JSON, is an object.
pub(super) fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// Just behind the string that opens at `quote`, a position of valid JSON.
pub(super) fn string_end(bytes: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Where the value begins, if the string that ends before `end` is the key of one.
pub(super) fn value_of_key(bytes: &[u8], end: usize) -> Option<usize> {
    let colon = skip_space(bytes, end);
    (bytes.get(colon) == Some(&b':')).then(|| skip_space(bytes, colon + 1))
}

/// Just behind the value that begins at `start`, a position of valid JSON.
pub(super) fn value_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut level) = (start, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b'{' | b'[' => {
                level += 1;
                at += 1;
            }
            // What closes at level 0 is the container of a number or literal.
            b'}' | b']' if level > 0 => {
                level -= 1;
                at += 1;
            }
            b'}' | b']' | b',' | b' ' | b'\t' | b'\n' | b'\r' if level == 0 => return at,
            _ => {
                at += 1;
                continue;
            }
        }
        if level == 0 {
            return at;
        }
    }
    bytes.len()
}

/// Goes through the items of the array or object that opens at `open`: `item` gets where one begins and says where it
/// ends. Returns where the whole ends.
pub(super) fn items(text: &str, open: usize, mut item: impl FnMut(usize) -> usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = skip_space(bytes, open + 1);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'}' | b']' => return at + 1,
            b',' => at = skip_space(bytes, at + 1),
            _ => {
                let end = item(at);
                at = skip_space(bytes, end.max(at + 1));
            }
        }
    }
    bytes.len()
}

pub(super) fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

/// What a string of valid JSON, quotes included, says.
pub(super) fn unescaped(quoted: &str) -> Cow<'_, str> {
    if quoted.contains('\\')
        && let Ok(text) = serde_json::from_str(quoted)
    {
        return Cow::Owned(text);
    }
    Cow::Borrowed(quoted.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_json_value_of_bounded_depth_is_accepted() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let mixed = |depth: usize| "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
        let in_strings = format!("\"{}\"", "[{".repeat(500));
        for text in [
            "0",
            " null\n",
            "\"\"",
            "{}",
            "[1,2]",
            "12345678901234567890",
            "1e999",
            r#"{"a":[true,"\ud83d\ude00","\\ud83d"]}"#,
            r#"["\ud83d",{"\ude00":1}]"#,
            &nested(32),
            &mixed(32),
            &in_strings,
        ] {
            assert_eq!(problem(text, 32), None, "{text}");
        }
        for (text, want) in [
            ("", "is not JSON"),
            ("{", "is not JSON"),
            ("{} {}", "is not JSON"),
            ("NaN", "is not JSON"),
            ("'a'", "is not JSON"),
            ("01", "is not JSON"),
            ("\"\u{1}\"", "is not JSON"),
            ("\u{feff}1", "is not JSON"),
            (&nested(33), "deeper than 32"),
            (&mixed(33), "deeper than 32"),
            (&nested(30_000), "deeper than 32"),
        ] {
            let got = problem(text, 32).unwrap_or_default();
            assert!(got.contains(want), "{text:.40}: {got}");
        }
    }

    #[test]
    fn a_value_ends_where_the_next_thing_begins() {
        for (text, want) in [
            ("1,2", "1"),
            ("-1.5e3}", "-1.5e3"),
            ("true ]", "true"),
            ("null", "null"),
            (r#""a\"]b" , 1"#, r#""a\"]b""#),
            ("{} }", "{}"),
            (r#"{"a":[1,{"b":"}"}]}]"#, r#"{"a":[1,{"b":"}"}]}"#),
            ("[[],[]],1", "[[],[]]"),
        ] {
            assert_eq!(&text[..value_end(text.as_bytes(), 0)], want);
        }
    }
}
