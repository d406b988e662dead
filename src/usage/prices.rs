//! What models cost.

use std::collections::HashMap;

use super::{Model, RUN_MOST};
use crate::event::{Cost, CostBasis, Tokens, Usage};

/// What a million tokens of a model cost, in billionths of a US dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// Input that is neither read from the provider's cache nor written to it.
    pub input: u64,
    /// Output that is not reasoning.
    pub output: u64,
    /// Input from the provider's cache.
    pub cached_input: u64,
    /// Input written to the provider's cache with a lifetime other than one hour.
    pub cache_write: u64,
    /// Input written to the provider's cache with a lifetime of one hour.
    pub cache_write_1h: u64,
    /// Output spent on reasoning.
    pub reasoning: u64,
}

/// What models cost. A model is looked up by its provider and name, exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceTable(HashMap<Model, Price>);

/// A price is of so many tokens.
const PER: u128 = 1_000_000;

impl PriceTable {
    /// A table of `prices`.
    pub fn new(prices: impl IntoIterator<Item = (Model, Price)>) -> Self {
        Self(prices.into_iter().collect())
    }

    /// What one event's `usage` costs: what it states, else the price of its tokens, at most [`RUN_MOST`].
    pub fn cost(&self, usage: &Usage) -> Cost {
        let cost = Cost::without_price(usage);
        if cost.basis != CostBasis::Unpriced {
            return cost;
        }
        match self.0.get(&Model::of(usage)) {
            Some(price) => Cost {
                nano_usd: price.of(&usage.tokens).min(RUN_MOST),
                basis: CostBasis::Priced,
            },
            None => cost,
        }
    }
}

impl Price {
    /// The cost of `tokens` in billionths of a US dollar, rounded half up.
    fn of(&self, tokens: &Tokens) -> u64 {
        let cached = tokens.cached_input.saturating_add(tokens.cache_write);
        let parts = [
            (tokens.input.saturating_sub(cached), self.input),
            (tokens.cached_input, self.cached_input),
            (
                tokens.cache_write.saturating_sub(tokens.cache_write_1h),
                self.cache_write,
            ),
            (tokens.cache_write_1h, self.cache_write_1h),
            (tokens.output.saturating_sub(tokens.reasoning), self.output),
            (tokens.reasoning, self.reasoning),
        ];
        let millionths = parts.into_iter().fold(0_u128, |sum, (tokens, price)| {
            sum.saturating_add(u128::from(tokens) * u128::from(price))
        });
        u64::try_from(millionths.saturating_add(PER / 2) / PER).unwrap_or(u64::MAX)
    }
}
