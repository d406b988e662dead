//! What models cost.

use std::collections::HashMap;

use super::{Model, Sum};
use crate::event::{Tokens, UsageTotals};

/// What a million tokens of a model cost, in billionths of a US dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// Input that is not cached.
    pub input: u64,
    /// Output that is not reasoning.
    pub output: u64,
    /// Input from the provider's cache.
    pub cached_input: u64,
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

    /// What `sums` come to: stated costs, and the price of what stated none, rounded once, half up.
    pub fn totals<'a>(&self, sums: impl Iterator<Item = (&'a Model, &'a Sum)>) -> UsageTotals {
        let mut totals = UsageTotals::default();
        let mut millionths: u128 = 0;
        for (model, sum) in sums {
            totals.events = totals.events.saturating_add(sum.events);
            totals.tokens.add(&sum.tokens);
            totals.cost_nano_usd = totals
                .cost_nano_usd
                .saturating_add(sum.stated_cost_nano_usd);
            match self.0.get(model) {
                Some(price) => {
                    let cost = price.millionths(&sum.uncosted_tokens);
                    millionths = millionths.saturating_add(cost);
                }
                None => {
                    totals.unpriced_events =
                        totals.unpriced_events.saturating_add(sum.uncosted_events);
                }
            }
        }
        let priced = u64::try_from((millionths.saturating_add(PER / 2)) / PER).unwrap_or(u64::MAX);
        totals.cost_nano_usd = totals.cost_nano_usd.saturating_add(priced);
        totals
    }
}

impl Price {
    /// The cost of `tokens`, in millionths of a billionth of a US dollar.
    fn millionths(&self, tokens: &Tokens) -> u128 {
        let of = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
        of(tokens.input.saturating_sub(tokens.cached_input), self.input)
            .saturating_add(of(tokens.cached_input, self.cached_input))
            .saturating_add(of(
                tokens.output.saturating_sub(tokens.reasoning),
                self.output,
            ))
            .saturating_add(of(tokens.reasoning, self.reasoning))
    }
}
