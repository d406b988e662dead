//! What models cost, as it is set.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use crate::usage::{self, Model, PriceTable, parse_dollars};

/// What a million tokens of a model cost, in billionths of a US dollar.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as in [[prices]]")]
pub struct Price {
    /// The model's provider, as events state it.
    pub provider: String,
    /// The model, as events state it.
    pub model: String,
    /// Input that is neither read from the provider's cache nor written to it.
    #[serde(deserialize_with = "dollars")]
    pub input: u64,
    /// Output that is not reasoning.
    #[serde(deserialize_with = "dollars")]
    pub output: u64,
    /// Input from the provider's cache; `None`: like other input.
    #[serde(default, deserialize_with = "some_dollars")]
    pub cached_input: Option<u64>,
    /// Input written to the provider's cache; `None`: like other input.
    #[serde(default, deserialize_with = "some_dollars")]
    pub cache_write: Option<u64>,
    /// Input written to the provider's cache for one hour; `None`: like what is written for another lifetime.
    #[serde(default, deserialize_with = "some_dollars")]
    pub cache_write_1h: Option<u64>,
    /// Output spent on reasoning; `None`: like other output.
    #[serde(default, deserialize_with = "some_dollars")]
    pub reasoning: Option<u64>,
}

/// What models cost by `prices`.
pub(super) fn table(prices: &[Price]) -> PriceTable {
    PriceTable::new(prices.iter().map(|price| {
        let model = Model {
            provider: price.provider.as_str().into(),
            model: price.model.as_str().into(),
        };
        let cache_write = price.cache_write.unwrap_or(price.input);
        let price = usage::Price {
            input: price.input,
            output: price.output,
            cached_input: price.cached_input.unwrap_or(price.input),
            cache_write,
            cache_write_1h: price.cache_write_1h.unwrap_or(cache_write),
            reasoning: price.reasoning.unwrap_or(price.output),
        };
        (model, price)
    }))
}

fn some_dollars<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    dollars(deserializer).map(Some)
}

/// Dollars as a text, in billionths. A number would have to go through a float, and not be what was written.
fn dollars<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Visitor;

    impl de::Visitor<'_> for Visitor {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("dollars as a text such as \"1.25\", with at most 9 decimals")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
            parse_dollars(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }

    deserializer.deserialize_any(Visitor)
}
