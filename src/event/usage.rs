//! What an event adds to the consumption of its run, and what such additions come to.

use std::sync::Arc;

use crate::proto::v1;

/// Tokens, each kind at most `u64::MAX`: sums stop there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Sent to the model, cached ones included.
    pub input: u64,
    /// Produced by the model, reasoning included.
    pub output: u64,
    /// Of `input`: read from the provider's cache.
    pub cached_input: u64,
    /// Of `output`: spent on reasoning.
    pub reasoning: u64,
}

/// What one event adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The model's provider; may be empty.
    pub provider: Arc<str>,
    /// The model; may be empty.
    pub model: Arc<str>,
    /// What was consumed.
    pub tokens: Tokens,
    /// What it cost, in billionths of a US dollar, where the producer says so. Zero: it was free.
    pub cost_nano_usd: Option<u64>,
}

/// What the usage of several events comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageTotals {
    /// How many events carried usage.
    pub events: u64,
    /// What was consumed.
    pub tokens: Tokens,
    /// Stated costs, and the price of the tokens of events that stated none, rounded once.
    pub cost_nano_usd: u64,
    /// Events without a cost of a model without a price: their cost is not in `cost_nano_usd`.
    pub unpriced_events: u64,
}

impl Tokens {
    /// Adds `more`.
    pub fn add(&mut self, more: &Tokens) {
        let sum = |total: &mut u64, more: u64| *total = total.saturating_add(more);
        sum(&mut self.input, more.input);
        sum(&mut self.output, more.output);
        sum(&mut self.cached_input, more.cached_input);
        sum(&mut self.reasoning, more.reasoning);
    }
}

impl UsageTotals {
    /// The same, but no number is above `most`.
    #[must_use]
    pub fn at_most(self, most: u64) -> Self {
        let Tokens {
            input,
            output,
            cached_input,
            reasoning,
        } = self.tokens;
        Self {
            events: self.events.min(most),
            tokens: Tokens {
                input: input.min(most),
                output: output.min(most),
                cached_input: cached_input.min(most),
                reasoning: reasoning.min(most),
            },
            cost_nano_usd: self.cost_nano_usd.min(most),
            unpriced_events: self.unpriced_events.min(most),
        }
    }
}

impl From<UsageTotals> for v1::UsageTotals {
    fn from(totals: UsageTotals) -> Self {
        let Tokens {
            input,
            output,
            cached_input,
            reasoning,
        } = totals.tokens;
        Self {
            events: totals.events,
            input_tokens: input,
            output_tokens: output,
            cached_input_tokens: cached_input,
            reasoning_tokens: reasoning,
            cost_nano_usd: totals.cost_nano_usd,
            unpriced_events: totals.unpriced_events,
            ..Default::default()
        }
    }
}
