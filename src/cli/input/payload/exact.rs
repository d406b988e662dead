//! JSON as a protobuf `Value`, whose numbers are doubles: only what a double holds exactly is taken.

use std::collections::BTreeMap;

use prost_types::{ListValue, Struct, Value, value::Kind};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// How deep objects and arrays may nest here. The service takes less; this only bounds the stack.
const DEPTH: usize = 64;

/// The value of the JSON `text`.
pub(super) fn value(text: &str) -> Result<Value, String> {
    value_at(text, DEPTH)
}

/// The fields of the JSON object `text`.
pub(super) fn structure(text: &str) -> Result<Struct, String> {
    structure_at(text, DEPTH)
}

fn value_at(text: &str, depth: usize) -> Result<Value, String> {
    let kind = match text.as_bytes().first() {
        Some(b'{') => Kind::StructValue(structure_at(text, depth)?),
        Some(b'[') => {
            let depth = deeper(depth)?;
            let items: Vec<Box<RawValue>> = parse(text)?;
            let values = items.iter().map(|item| value_at(item.get(), depth));
            Kind::ListValue(ListValue {
                values: values.collect::<Result<_, _>>()?,
            })
        }
        Some(b'"') => Kind::StringValue(parse(text)?),
        Some(b't' | b'f') => Kind::BoolValue(parse(text)?),
        Some(b'n') => Kind::NullValue(0),
        _ => Kind::NumberValue(number(text)?),
    };
    Ok(Value { kind: Some(kind) })
}

fn structure_at(text: &str, depth: usize) -> Result<Struct, String> {
    let depth = deeper(depth)?;
    let fields: BTreeMap<String, Box<RawValue>> = parse(text)?;
    let fields = fields
        .into_iter()
        .map(|(name, json)| Ok((name, value_at(json.get(), depth)?)));
    Ok(Struct {
        fields: fields.collect::<Result<_, String>>()?,
    })
}

fn deeper(depth: usize) -> Result<usize, String> {
    depth
        .checked_sub(1)
        .ok_or_else(|| format!("nests deeper than {DEPTH}"))
}

/// The number as a double. An integer that no double holds is an error; of a fraction the nearest double is meant.
fn number(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text} is no number"))?;
    let is_integer = !text.contains(['.', 'e', 'E']);
    if !number.is_finite() || is_integer && format!("{number:.0}") != text {
        return Err(format!("{text} would lose digits here; send it as a text"));
    }
    Ok(number)
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_that_a_double_holds_is_taken_exactly() {
        for (text, want) in [
            ("0", 0.0),
            ("-7", -7.0),
            ("9007199254740992", 9_007_199_254_740_992.0),
            ("9007199254740994", 9_007_199_254_740_994.0),
            ("1000000000000000000", 1e18),
            ("123456789012345680", 123_456_789_012_345_680.0),
            ("1e19", 1e19),
            ("0.1", 0.1),
            ("2.2250738585072011e-308", 2.225_073_858_507_201e-308),
            ("1.7976931348623157e308", f64::MAX),
            ("8.988465674311582e307", 8.988_465_674_311_582e307),
        ] {
            assert_eq!(number(text), Ok(want), "{text}");
        }
        for text in [
            "9007199254740993",
            "18446744073709551615",
            "123456789012345678901",
            "1e999",
        ] {
            let error = number(text).unwrap_err();
            assert_eq!(
                error,
                format!("{text} would lose digits here; send it as a text")
            );
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(value(&nested(64)).is_ok());
        assert!(value(&nested(65)).is_err());
        assert!(value(&nested(100_000)).is_err());
    }
}
