//! What usage adds up to, and what it costs. Pure, in integers.

mod dollars;
mod prices;
mod series;
#[cfg(test)]
mod tests;

pub use dollars::{format_dollars, parse_dollars};
pub use prices::{Price, PriceTable};
pub use series::{Day, DayError, Series, UsageQuery};

use std::sync::Arc;

use crate::event::{Tokens, Usage, UsageTotals};

/// How many models of one run are told apart; what further ones consume is added up together and has no price.
pub const RUN_MODELS: usize = 16;

/// The most that any number in a run's totals comes to: readers get them as JSON numbers, which are exact up to here.
pub const RUN_MOST: u64 = (1 << 53) - 1;

/// What is added up of one series, such as one model of a run. Every number stops at `u64::MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many events carried usage.
    pub events: u64,
    /// What was consumed.
    pub tokens: Tokens,
    /// The costs that were stated, in billionths of a US dollar.
    pub stated_cost_nano_usd: u64,
    /// Of `events`, those that stated no cost.
    pub uncosted_events: u64,
    /// Of `tokens`, those of events that stated no cost.
    pub uncosted_tokens: Tokens,
}

/// A model of a provider.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Model {
    /// The provider; may be empty.
    pub provider: Arc<str>,
    /// The model; may be empty.
    pub model: Arc<str>,
}

/// What a run has consumed, by model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageByModel(Vec<(Model, Sum)>);

impl Sum {
    /// Adds what one event adds.
    pub fn add(&mut self, usage: &Usage) {
        self.events = self.events.saturating_add(1);
        self.tokens.add(&usage.tokens);
        match usage.cost_nano_usd {
            Some(cost) => {
                self.stated_cost_nano_usd = self.stated_cost_nano_usd.saturating_add(cost);
            }
            // Nothing costs nothing, whatever the price.
            None if usage.tokens == Tokens::default() => {}
            None => {
                self.uncosted_events = self.uncosted_events.saturating_add(1);
                self.uncosted_tokens.add(&usage.tokens);
            }
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Sum) {
        self.events = self.events.saturating_add(other.events);
        self.tokens.add(&other.tokens);
        self.stated_cost_nano_usd = self
            .stated_cost_nano_usd
            .saturating_add(other.stated_cost_nano_usd);
        self.uncosted_events = self.uncosted_events.saturating_add(other.uncosted_events);
        self.uncosted_tokens.add(&other.uncosted_tokens);
    }
}

impl Model {
    /// The model that `usage` is of.
    pub fn of(usage: &Usage) -> Self {
        Self {
            provider: usage.provider.clone(),
            model: usage.model.clone(),
        }
    }

    /// What stands for the models that are not told apart. It has no price.
    pub fn other() -> Self {
        Self {
            provider: "".into(),
            model: "(other)".into(),
        }
    }

    /// About how many bytes it holds besides itself.
    pub fn weight(&self) -> usize {
        const TEXTS: usize = 48; // what two texts' counts and the allocator add
        self.provider.len() + self.model.len() + TEXTS
    }
}

impl UsageByModel {
    /// Adds what one event adds.
    pub fn add(&mut self, usage: &Usage) {
        let is = |model: &Model| model.provider == usage.provider && model.model == usage.model;
        if let Some((_, sum)) = self.0.iter_mut().find(|(model, _)| is(model)) {
            return sum.add(usage);
        }
        if self.0.len() <= RUN_MODELS {
            let model = match self.0.len() < RUN_MODELS {
                true => Model::of(usage),
                false => Model::other(),
            };
            self.0.push((model, Sum::default()));
        }
        if let Some((_, last)) = self.0.last_mut() {
            last.add(usage);
        }
    }

    /// What `parts` say, at most as many as are told apart.
    pub(crate) fn restored(parts: impl Iterator<Item = (Model, Sum)>) -> Self {
        Self(parts.take(RUN_MODELS + 1).collect())
    }

    /// Whether nothing was reported.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each model's part.
    pub fn iter(&self) -> impl Iterator<Item = (&Model, &Sum)> {
        self.0.iter().map(|(model, sum)| (model, sum))
    }

    /// All of it, by `prices`. Every number stops at [`RUN_MOST`].
    pub fn totals(&self, prices: &PriceTable) -> UsageTotals {
        prices.totals(self.iter()).at_most(RUN_MOST)
    }

    /// About how many bytes it holds besides itself.
    pub fn weight(&self) -> usize {
        let names = self.0.iter().map(|(model, _)| model.weight());
        self.0.capacity() * size_of::<(Model, Sum)>() + names.sum::<usize>()
    }
}
