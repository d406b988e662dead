//! JSON text as the value that it stands for: the same bytes for the same value, however it is spelled.

use std::{borrow::Cow, ops::Range};

use super::{skip_space, string_end, unescaped, value_end};

/// Appends the value that the valid JSON `text` stands for. Equal values give equal bytes, others do not: space,
/// escapes and the order of keys do not count, of equal keys the last one holds, and numbers are compared as exact
/// decimals (`1.0`, `1` and `10e-1` are equal). No exponent is expanded.
pub(in crate::ingest) fn canonical(text: &str, out: &mut Vec<u8>) {
    let start = skip_space(text.as_bytes(), 0);
    value(text, start, out);
}

/// Appends the value that begins at `at`, and returns where it ends. Its depth was bounded before.
fn value(text: &str, at: usize, out: &mut Vec<u8>) -> usize {
    let bytes = text.as_bytes();
    match bytes.get(at) {
        Some(b'{') => object(text, at, out),
        Some(b'[') => array(text, at, out),
        Some(b'"') => {
            let end = string_end(bytes, at);
            string(&unescaped(text.get(at..end).unwrap_or_default()), out);
            end
        }
        _ => {
            let end = value_end(bytes, at);
            match text.get(at..end).unwrap_or_default() {
                literal @ ("null" | "true" | "false") => out.extend_from_slice(literal.as_bytes()),
                spelled => number(spelled, out),
            }
            end
        }
    }
}

/// A string with its length before it, so that none is the beginning of another.
fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(&text.len().to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn array(text: &str, at: usize, out: &mut Vec<u8>) -> usize {
    out.push(b'[');
    let end = items(text, at, |at| value(text, at, out));
    out.push(b']');
    end
}

fn object(text: &str, at: usize, out: &mut Vec<u8>) -> usize {
    let bytes = text.as_bytes();
    let mut members: Vec<(Cow<'_, str>, Range<usize>)> = Vec::new();
    out.push(b'{');
    let first = out.len();
    let end = items(text, at, |at| {
        let key_end = string_end(bytes, at);
        let key = unescaped(text.get(at..key_end).unwrap_or_default());
        let begin = out.len();
        string(&key, out);
        let colon = skip_space(bytes, key_end);
        let end = value(text, skip_space(bytes, colon + 1), out);
        members.push((key, begin..out.len()));
        end
    });
    if !members.is_sorted_by(|one, next| one.0 < next.0) {
        let written = out.split_off(first);
        // Stable: of equal keys the last one in the text stays last.
        members.sort_by(|one, other| one.0.cmp(&other.0));
        for (n, (key, range)) in members.iter().enumerate() {
            let is_overridden = members.get(n + 1).is_some_and(|(next, _)| next == key);
            if let Some(member) = written.get(range.start - first..range.end - first)
                && !is_overridden
            {
                out.extend_from_slice(member);
            }
        }
    }
    out.push(b'}');
    end
}

/// Goes through the items of the array or object that opens at `open`: `item` gets where one begins and says where it
/// ends. Returns where the whole ends.
fn items(text: &str, open: usize, mut item: impl FnMut(usize) -> usize) -> usize {
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

/// A number as its significant digits and a power of ten.
fn number(spelled: &str, out: &mut Vec<u8>) {
    out.push(b'#');
    match decimal(spelled) {
        Some((negative, digits, exponent)) => {
            if negative {
                out.push(b'-');
            }
            out.extend_from_slice(digits.as_bytes());
            out.extend_from_slice(format!("e{exponent}").as_bytes());
        }
        // An exponent of more than 38 digits: compared as it is spelled.
        None => out.extend_from_slice(spelled.as_bytes()),
    }
    out.push(b'#');
}

/// Sign, digits without outer zeros, and the exponent of the last digit. Zero has neither sign nor digits.
fn decimal(spelled: &str) -> Option<(bool, String, i128)> {
    let (mantissa, exponent) = match spelled.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i128>().ok()?),
        None => (spelled, 0),
    };
    let negative = mantissa.starts_with('-');
    let mantissa = mantissa.trim_start_matches('-');
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Some((false, String::new(), 0));
    }
    let zeros = i128::try_from(digits.len() - significant.len()).ok()?;
    let fraction = i128::try_from(fraction.len()).ok()?;
    let exponent = exponent.checked_sub(fraction)?.checked_add(zeros)?;
    Some((negative, significant.to_owned(), exponent))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        canonical(text, &mut out);
        out
    }

    #[test]
    fn equal_values_are_equal_however_they_are_spelled() {
        let groups: [&[&str]; 10] = [
            &["1", "1.0", "10e-1", "0.1E+1", "1e0", "100e-2", " 1\n"],
            &["0", "-0", "0.000", "0e99", "-0.0e-5"],
            &["-12.50", "-125e-1", "-1.25E1"],
            &["1e999", "10e998", "0.1e1000", "1000000e993"],
            &["1e-999999999999999999", "10e-1000000000000000000"],
            &["12345678901234567890", "12345678901234567890.0"],
            &[r#""é\n""#, r#""\u00e9\u000a""#, r#" "\u00E9\n" "#],
            &[
                r#"{"a":1,"b":[true,null]}"#,
                "{ \"b\" : [ true , null ],\n\"a\" : 1.0 }",
            ],
            &[
                r#"{"a":1}"#,
                r#"{"a":{"x":[2]},"\u0061":1}"#,
                r#"{"a":3,"a":2,"a":1}"#,
            ],
            &[r#"{}"#, "{ }"],
        ];
        for (n, group) in groups.iter().enumerate() {
            for text in *group {
                assert_eq!(bytes(text), bytes(group[0]), "{text} and {}", group[0]);
                for other in groups[n + 1..].concat() {
                    assert_ne!(bytes(text), bytes(other), "{text} and {other}");
                }
            }
        }
    }

    #[test]
    fn other_values_are_not() {
        for (one, other) in [
            ("1", "1.0000000000000000000001"),
            ("9007199254740993", "9007199254740992"),
            ("1e999", "1e998"),
            ("1", "-1"),
            ("1", "\"1\""),
            ("null", "\"null\""),
            ("[1,2]", "[2,1]"),
            ("[1,2]", "[12]"),
            ("[[1],2]", "[[1,2]]"),
            (r#"["a","b"]"#, r#"["a\",\"b"]"#),
            (r#"{"a":1,"a":2}"#, r#"{"a":1}"#),
            (r#"{"a":{}}"#, r#"{"a":[]}"#),
            ("{}", "[]"),
            (r#"{"a":1,"b":2}"#, r#"{"a":2,"b":1}"#),
        ] {
            assert_ne!(bytes(one), bytes(other), "{one} and {other}");
        }
    }

    #[test]
    fn the_largest_texts_take_little_time_and_room() {
        let nested = "{\"b\":1,\"a\":".repeat(31) + &"1".repeat(60_000) + &"}".repeat(31);
        let many: Vec<String> = (0..5_000)
            .rev()
            .map(|n| format!("\"k{n}\":1e{n}"))
            .collect();
        let digits = "1e".to_owned() + &"9".repeat(60_000);
        for text in [nested, format!("{{{}}}", many.join(",")), digits] {
            let begun = Instant::now();
            let length = bytes(&text).len();
            assert!(length < text.len() * 4, "{length} bytes for {}", text.len());
            assert!(begun.elapsed().as_secs() < 1, "{:?}", begun.elapsed());
        }
    }

    #[test]
    fn text_that_is_no_json_does_no_harm() {
        for text in [
            "", "{", "[", "\"", "{\"a\"", "{\"a\":", "{,}", "[1", "-", "}", "{:}", "{1:2}", "\"\\",
        ] {
            let _any = bytes(text);
        }
    }
}
