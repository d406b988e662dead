//! The form in which JSON text is stored.

use super::{skip_space, string_end};

/// What stands in the place of a surrogate without its pair.
const REPLACEMENT: char = '\u{fffd}';

/// The valid JSON `text` on one line: without space between tokens, and with U+FFFD for each escaped surrogate that
/// lacks its pair, since no UTF-8 can carry one. Numbers and all other strings keep their text. `None`: `text` has
/// that form already. The result is never longer.
pub(crate) fn normalised(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let (mut at, mut copied) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        let (end, mended) = match byte {
            b'"' => {
                let end = string_end(bytes, at);
                (end, paired(&text[at..end]))
            }
            b' ' | b'\t' | b'\n' | b'\r' => (skip_space(bytes, at), Some(String::new())),
            _ => (at + 1, None),
        };
        if let Some(mended) = mended {
            out.push_str(&text[copied..at]);
            out.push_str(&mended);
            copied = end;
        }
        at = end;
    }
    if copied == 0 {
        return None;
    }
    out.push_str(&text[copied..]);
    Some(out)
}

/// A string, quotes included, without lone surrogates; `None`: it has none.
fn paired(quoted: &str) -> Option<String> {
    let bytes = quoted.as_bytes();
    let mut out = String::new();
    let (mut at, mut copied) = (0, 0);
    while let Some(escape) = bytes
        .get(at..)
        .and_then(|rest| rest.iter().position(|b| *b == b'\\'))
    {
        at += escape;
        at += match (escaped_unit(bytes, at), escaped_unit(bytes, at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                out.push_str(&quoted[copied..at]);
                out.push(REPLACEMENT);
                copied = at + 6;
                6
            }
            (Some(_), _) => 6,
            (None, _) => 2,
        };
    }
    if copied == 0 {
        return None;
    }
    out.push_str(&quoted[copied..]);
    Some(out)
}

/// The UTF-16 unit that is escaped at `at`, if one is.
fn escaped_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some((unit << 4) | digit as u16)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_between_tokens_goes_and_everything_else_stays() {
        for (text, want) in [
            ("\n{\r\n\t\"a\" : [ 1 , 2.0 ] }\n", r#"{"a":[1,2.0]}"#),
            (r#"{"a": "x  y\n\" \\"}"#, r#"{"a":"x  y\n\" \\"}"#),
            (" 1e999 ", "1e999"),
            (
                "[12345678901234567890, -0, 1.50, 1E+5]",
                "[12345678901234567890,-0,1.50,1E+5]",
            ),
            (" null", "null"),
        ] {
            assert_eq!(normalised(text).as_deref(), Some(want), "{text}");
            assert_eq!(normalised(want), None, "{want}");
        }
    }

    #[test]
    fn a_surrogate_without_its_pair_becomes_the_replacement_character() {
        for (text, want) in [
            (r#""\ud83d""#, "\"\u{fffd}\""),
            (r#""a\ude00b""#, "\"a\u{fffd}b\""),
            (r#"{"\ude00":1}"#, "{\"\u{fffd}\":1}"),
            (r#""\ud83d\u0041""#, "\"\u{fffd}\\u0041\""),
            (r#""\ud83d\ud83d\ude00""#, "\"\u{fffd}\\ud83d\\ude00\""),
            (r#""\uD83D\n\uDE00""#, "\"\u{fffd}\\n\u{fffd}\""),
        ] {
            assert_eq!(normalised(text).as_deref(), Some(want), "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(want).is_ok());
        }
        for text in [r#""\ud83d\ude00""#, r#""\\ud83d""#, r#""\u00e9\"\\""#] {
            assert_eq!(normalised(text), None, "{text}");
        }
    }

    #[test]
    fn text_that_is_no_json_does_no_harm() {
        for text in ["\"", "\"\\", "\"\\u", "\"\\ud8", "\\", "\"\\é", " ", ""] {
            let _any = normalised(text);
        }
    }
}
