//! What an event adds to the consumption of its run, what that cost, and what such additions come to.

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
    /// Of `input`: written to the provider's cache, for whatever lifetime.
    pub cache_write: u64,
    /// Of `cache_write`: written with a lifetime of one hour.
    pub cache_write_1h: u64,
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

/// How a cost is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CostBasis {
    /// The event stated it.
    Stated,
    /// The service computed it by its price table when it recorded the event.
    Priced,
    /// Unknown: the event stated none, and its model had no price.
    Unpriced,
}

/// What one event's usage cost. It is fixed when the event is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// In billionths of a US dollar; 0 where it is unknown.
    pub nano_usd: u64,
    /// How it is known.
    pub basis: CostBasis,
}

/// What the usage of several events comes to. Every number stops at `u64::MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageTotals {
    /// How many events carried usage.
    pub events: u64,
    /// What was consumed.
    pub tokens: Tokens,
    /// The sum of the events' costs, in billionths of a US dollar.
    pub cost_nano_usd: u64,
    /// How many events have an unknown cost, which counts as 0 in `cost_nano_usd`.
    pub unpriced_events: u64,
}

impl Tokens {
    /// Adds `more`.
    pub fn add(&mut self, more: &Tokens) {
        let sum = |total: &mut u64, more: u64| *total = total.saturating_add(more);
        sum(&mut self.input, more.input);
        sum(&mut self.output, more.output);
        sum(&mut self.cached_input, more.cached_input);
        sum(&mut self.cache_write, more.cache_write);
        sum(&mut self.cache_write_1h, more.cache_write_1h);
        sum(&mut self.reasoning, more.reasoning);
    }

    /// The same, but no number is above `most`.
    #[must_use]
    pub fn at_most(self, most: u64) -> Self {
        Self {
            input: self.input.min(most),
            output: self.output.min(most),
            cached_input: self.cached_input.min(most),
            cache_write: self.cache_write.min(most),
            cache_write_1h: self.cache_write_1h.min(most),
            reasoning: self.reasoning.min(most),
        }
    }
}

impl CostBasis {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stated => "stated",
            Self::Priced => "priced",
            Self::Unpriced => "unpriced",
        }
    }
}

impl Cost {
    /// What `usage` cost if its model has no price: what it states, or nothing if no token was consumed.
    pub fn without_price(usage: &Usage) -> Self {
        let (nano_usd, basis) = match usage.cost_nano_usd {
            Some(stated) => (stated, CostBasis::Stated),
            None if usage.tokens == Tokens::default() => (0, CostBasis::Priced),
            None => (0, CostBasis::Unpriced),
        };
        Self { nano_usd, basis }
    }
}

impl UsageTotals {
    /// Adds one event.
    pub fn add(&mut self, usage: &Usage, cost: Cost) {
        self.merge(&Self {
            events: 1,
            tokens: usage.tokens,
            cost_nano_usd: cost.nano_usd,
            unpriced_events: u64::from(cost.basis == CostBasis::Unpriced),
        });
    }

    /// Adds other totals.
    pub fn merge(&mut self, other: &Self) {
        self.events = self.events.saturating_add(other.events);
        self.tokens.add(&other.tokens);
        self.cost_nano_usd = self.cost_nano_usd.saturating_add(other.cost_nano_usd);
        self.unpriced_events = self.unpriced_events.saturating_add(other.unpriced_events);
    }

    /// The same, but no number is above `most`.
    #[must_use]
    pub fn at_most(self, most: u64) -> Self {
        Self {
            events: self.events.min(most),
            tokens: self.tokens.at_most(most),
            cost_nano_usd: self.cost_nano_usd.min(most),
            unpriced_events: self.unpriced_events.min(most),
        }
    }
}

impl From<Cost> for v1::Cost {
    fn from(cost: Cost) -> Self {
        let basis = match cost.basis {
            CostBasis::Stated => v1::CostBasis::Stated,
            CostBasis::Priced => v1::CostBasis::Priced,
            CostBasis::Unpriced => v1::CostBasis::Unpriced,
        };
        Self {
            nano_usd: cost.nano_usd,
            basis: basis.into(),
        }
    }
}

impl From<UsageTotals> for v1::UsageTotals {
    fn from(totals: UsageTotals) -> Self {
        let tokens = totals.tokens;
        Self {
            events: totals.events,
            input_tokens: tokens.input,
            output_tokens: tokens.output,
            cached_input_tokens: tokens.cached_input,
            reasoning_tokens: tokens.reasoning,
            cost_nano_usd: totals.cost_nano_usd,
            unpriced_events: totals.unpriced_events,
            cache_write_input_tokens: tokens.cache_write,
            cache_write_1h_input_tokens: tokens.cache_write_1h,
        }
    }
}
