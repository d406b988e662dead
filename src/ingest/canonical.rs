//! JSON values in one form each: two texts that mean the same value come to the same bytes.
//!
//! Names are sorted and the last of equal names counts. Numbers are exact decimals: digits without outer zeros and a
//! power of ten, which is never expanded.

use std::collections::BTreeMap;

use prost_types::{Struct, Value, value::Kind};
use serde_json::value::RawValue;

/// Writes the canonical form of `text`, which was found to be JSON of bounded depth.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    let text = text.trim_ascii();
    let written = match text.as_bytes().first() {
        Some(b'{') => object(out, text),
        Some(b'[') => array(out, text),
        Some(b'"') => string(out, text),
        Some(b'-' | b'0'..=b'9') => {
            number(out, text);
            Some(())
        }
        _ => None,
    };
    if written.is_none() {
        out.extend_from_slice(text.as_bytes());
    }
}

/// Writes the canonical form of an object that came as a Struct.
pub(super) fn structure(out: &mut Vec<u8>, structure: &Struct) {
    out.push(b'{');
    for (name, field) in &structure.fields {
        quoted(out, name);
        value(out, field);
    }
    out.push(b'}');
}

fn value(out: &mut Vec<u8>, value: &Value) {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => out.extend_from_slice(b"null"),
        Some(Kind::BoolValue(true)) => out.extend_from_slice(b"true"),
        Some(Kind::BoolValue(false)) => out.extend_from_slice(b"false"),
        Some(Kind::NumberValue(double)) => match double.is_finite() {
            true => number(out, &format!("{double:e}")),
            false => out.extend_from_slice(b"null"),
        },
        Some(Kind::StringValue(string)) => quoted(out, string),
        Some(Kind::StructValue(fields)) => structure(out, fields),
        Some(Kind::ListValue(list)) => {
            out.push(b'[');
            for item in &list.values {
                self::value(out, item);
                out.push(b',');
            }
            out.push(b']');
        }
    }
}

fn object(out: &mut Vec<u8>, text: &str) -> Option<()> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    out.push(b'{');
    for (name, field) in fields {
        quoted(out, &name);
        self::text(out, field.get());
    }
    out.push(b'}');
    Some(())
}

fn array(out: &mut Vec<u8>, text: &str) -> Option<()> {
    let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    out.push(b'[');
    for item in items {
        self::text(out, item.get());
        out.push(b',');
    }
    out.push(b']');
    Some(())
}

fn string(out: &mut Vec<u8>, text: &str) -> Option<()> {
    let unescaped: String = serde_json::from_str(text).ok()?;
    quoted(out, &unescaped);
    Some(())
}

/// A text with its length before it, so that no text can look like another one and what follows it.
fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    out.extend_from_slice(&(text.len() as u64).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A decimal as its digits and a power of ten: `1`, `1.0` and `10e-1` are all `1e0`.
fn number(out: &mut Vec<u8>, text: &str) {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return out.extend_from_slice(b"0");
    }
    // An exponent beyond 128 bits does not fit into an event otherwise than as itself.
    let Ok(exponent) = exponent.parse::<i128>() else {
        return out.extend_from_slice(text.as_bytes());
    };
    let trailing = digits.len() - digits.trim_end_matches('0').len();
    let shift = trailing as i128 - fraction.len() as i128;
    let power = exponent.saturating_add(shift);
    let sign = if negative { "-" } else { "" };
    out.extend_from_slice(format!("{sign}{significant}e{power}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Vec<u8> {
        let mut out = Vec::new();
        text(&mut out, json);
        out
    }

    #[test]
    fn equal_values_have_equal_forms() {
        let groups = [
            &["1", "1.0", "10e-1", "0.1E1", " 1.00e+0 "][..],
            &["0", "-0", "0.0", "0e7"],
            &["-120", "-1.2e2", "-0.12e3"],
            &["1e999", "10e998", "0.1e1000"],
            &["18446744073709551617", "1.8446744073709551617e19"],
            &["\"é\"", r#""\u00e9""#],
            &[
                r#"{"a":1,"b":[true,null]}"#,
                "{ \"b\" : [ true,\n null ],\"a\":1.0 }",
            ],
            &[
                r#"{"a":2}"#,
                r#"{"a":1,"a":2}"#,
                r#"{"a":{"x":[2]},"\u0061":2}"#,
            ],
            &["1e-999999999999999999", "10e-1000000000000000000"],
            &["[]", "[ ]"],
        ];
        let mut forms = Vec::new();
        for group in groups {
            let form = of(group[0]);
            for text in group {
                assert_eq!(of(text), form, "{text}");
            }
            assert!(!forms.contains(&form), "{group:?}");
            forms.push(form);
        }
    }

    #[test]
    fn other_values_have_other_forms() {
        for (one, other) in [
            ("1", "\"1\""),
            ("1", "-1"),
            ("1", "10"),
            ("[1,2]", "[12]"),
            ("[[1],2]", "[[1,2]]"),
            ("null", "\"null\""),
            (r#"{"a":"b"}"#, r#"{"ab":""}"#),
            ("9007199254740993", "9007199254740992"),
            ("1e999", "1e998"),
            ("[1,2]", "[2,1]"),
            (r#"["a","b"]"#, r#"["a\",\"b"]"#),
            (r#"{"a":{}}"#, r#"{"a":[]}"#),
        ] {
            assert_ne!(of(one), of(other), "{one} {other}");
        }
    }

    #[test]
    fn the_largest_texts_take_little_room() {
        let nested = "{\"b\":1,\"a\":".repeat(31) + &"1".repeat(60_000) + &"}".repeat(31);
        let many: Vec<String> = (0..5_000)
            .rev()
            .map(|n| format!("\"k{n}\":1e{n}"))
            .collect();
        let digits = "1e".to_owned() + &"9".repeat(60_000);
        for text in [nested, format!("{{{}}}", many.join(",")), digits] {
            let length = of(&text).len();
            assert!(length < text.len() * 4, "{length} bytes for {}", text.len());
        }
    }

    #[test]
    fn a_struct_is_what_its_json_is() {
        let list = Value::from(vec![Value::from(true), Value { kind: None }]);
        let fields = [
            ("n".to_owned(), Value::from(2.5)),
            ("l".to_owned(), list),
            ("s".to_owned(), Value::from("x")),
            ("big".to_owned(), Value::from(1e21)),
        ];
        let mut out = Vec::new();
        structure(
            &mut out,
            &Struct {
                fields: fields.into(),
            },
        );
        let json = r#"{"s":"x","l":[true,null],"n":25e-1,"big":1000000000000000000000}"#;
        assert_eq!(out, of(json));
    }
}
