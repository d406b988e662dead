//! What usage costs, and what it adds up to. Pure, in integers.

mod dollars;
mod prices;
mod series;
#[cfg(test)]
mod tests;

pub use dollars::{format_dollars, parse_dollars};
pub use prices::{Price, PriceTable};
pub use series::{Day, DayError, Series, UsageQuery};

use std::sync::Arc;

use crate::event::{Cost, Usage, UsageTotals};

/// How many models of one run are told apart; what further ones consume is added up together.
pub const RUN_MODELS: usize = 16;

/// The most that an event's cost and any number in a run's totals come to: readers get them as JSON numbers, which are
/// exact up to here.
pub const RUN_MOST: u64 = (1 << 53) - 1;

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
pub struct UsageByModel(Vec<(Model, UsageTotals)>);

impl Model {
    /// The model that `usage` is of.
    pub fn of(usage: &Usage) -> Self {
        Self {
            provider: usage.provider.clone(),
            model: usage.model.clone(),
        }
    }

    /// What stands for the models that are not told apart.
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
    pub fn add(&mut self, usage: &Usage, cost: Cost) {
        let is = |model: &Model| model.provider == usage.provider && model.model == usage.model;
        if let Some((_, sum)) = self.0.iter_mut().find(|(model, _)| is(model)) {
            return sum.add(usage, cost);
        }
        if self.0.len() <= RUN_MODELS {
            let model = match self.0.len() < RUN_MODELS {
                true => Model::of(usage),
                false => Model::other(),
            };
            self.0.push((model, UsageTotals::default()));
        }
        if let Some((_, last)) = self.0.last_mut() {
            last.add(usage, cost);
        }
    }

    /// What `parts` say, at most as many as are told apart.
    pub(crate) fn restored(parts: impl Iterator<Item = (Model, UsageTotals)>) -> Self {
        Self(parts.take(RUN_MODELS + 1).collect())
    }

    /// Whether nothing was reported.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each model's part.
    pub fn iter(&self) -> impl Iterator<Item = (&Model, &UsageTotals)> {
        self.0.iter().map(|(model, sum)| (model, sum))
    }

    /// All of it. Every number stops at [`RUN_MOST`].
    pub fn totals(&self) -> UsageTotals {
        let mut totals = UsageTotals::default();
        self.iter().for_each(|(_, sum)| totals.merge(sum));
        totals.at_most(RUN_MOST)
    }

    /// About how many bytes it holds besides itself.
    pub fn weight(&self) -> usize {
        let names = self.0.iter().map(|(model, _)| model.weight());
        self.0.capacity() * size_of::<(Model, UsageTotals)>() + names.sum::<usize>()
    }
}
