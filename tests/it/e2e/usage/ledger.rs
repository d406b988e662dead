//! What usage must add up to, by adding up every event anew for each question.

use std::collections::BTreeMap;

use emitter::proto::v1::{GetUsageRequest, Usage, UsageGroup, UsageRow, UsageTotals};

/// What a million tokens cost, in billionths of a dollar: input, cached input, output, reasoning, cache writes, and those
/// for one hour.
pub(super) type Price = [u64; 6];

/// One stored event's usage, and all that it is of.
pub(super) struct Entry {
    pub(super) tenant: String,
    pub(super) user: String,
    pub(super) thread: String,
    pub(super) run: String,
    pub(super) day: String,
    pub(super) usage: Usage,
}

/// Every stored event's usage.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) entries: Vec<Entry>,
    pub(super) prices: BTreeMap<(String, String), Price>,
}

impl Entry {
    fn field(&self, group: UsageGroup) -> &str {
        match group {
            UsageGroup::Unspecified => panic!("unspecified"),
            UsageGroup::Tenant => &self.tenant,
            UsageGroup::User => &self.user,
            UsageGroup::Thread => &self.thread,
            UsageGroup::Run => &self.run,
            UsageGroup::Provider => &self.usage.provider,
            UsageGroup::Model => &self.usage.model,
            UsageGroup::Day => &self.day,
        }
    }

    fn answers(&self, request: &GetUsageRequest) -> bool {
        let same = |asked: &str, is: &str| asked.is_empty() || asked == is;
        same(&request.tenant_id, &self.tenant)
            && same(&request.user_id, &self.user)
            && same(&request.thread_id, &self.thread)
            && same(&request.run_id, &self.run)
            && same(&request.provider, &self.usage.provider)
            && same(&request.model, &self.usage.model)
            && (request.first_day.is_empty() || self.day >= request.first_day)
            && (request.last_day.is_empty() || self.day <= request.last_day)
    }
}

impl Ledger {
    /// The rows and the total that answer `request`.
    pub(super) fn answer(&self, request: &GetUsageRequest) -> (Vec<UsageRow>, UsageTotals) {
        let groups: Vec<UsageGroup> = request.group_by().collect();
        let mut by_row = BTreeMap::<Vec<&str>, Vec<&Usage>>::new();
        let mut all = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.answers(request)) {
            let key = groups.iter().map(|group| entry.field(*group)).collect();
            by_row.entry(key).or_default().push(&entry.usage);
            all.push(&entry.usage);
        }
        let rows = by_row.into_iter().map(|(key, usages)| {
            let name = |group| {
                let at = groups.iter().position(|known| *known == group);
                at.map_or(String::new(), |at| key[at].to_owned())
            };
            UsageRow {
                tenant_id: name(UsageGroup::Tenant),
                user_id: name(UsageGroup::User),
                thread_id: name(UsageGroup::Thread),
                run_id: name(UsageGroup::Run),
                provider: name(UsageGroup::Provider),
                model: name(UsageGroup::Model),
                day: name(UsageGroup::Day),
                totals: Some(self.totals(&usages)),
            }
        });
        (rows.collect(), self.totals(&all))
    }

    fn totals(&self, usages: &[&Usage]) -> UsageTotals {
        let mut totals = UsageTotals::default();
        for usage in usages {
            totals.events += 1;
            totals.input_tokens += usage.input_tokens;
            totals.output_tokens += usage.output_tokens;
            totals.cached_input_tokens += usage.cached_input_tokens;
            totals.reasoning_tokens += usage.reasoning_tokens;
            totals.cache_write_input_tokens += usage.cache_write_input_tokens;
            totals.cache_write_1h_input_tokens += usage.cache_write_1h_input_tokens;
            let model = (usage.provider.clone(), usage.model.clone());
            match (usage.cost_nano_usd, self.prices.get(&model)) {
                (Some(stated), _) => totals.cost_nano_usd += stated,
                (None, Some(price)) => totals.cost_nano_usd += priced(usage, price),
                (None, None) if usage.input_tokens + usage.output_tokens == 0 => {}
                (None, None) => totals.unpriced_events += 1,
            }
        }
        totals
    }
}

/// What one event cost, rounded half up.
fn priced(usage: &Usage, price: &Price) -> u64 {
    let cached = usage.cached_input_tokens + usage.cache_write_input_tokens;
    let tokens = [
        usage.input_tokens - cached,
        usage.cached_input_tokens,
        usage.output_tokens - usage.reasoning_tokens,
        usage.reasoning_tokens,
        usage.cache_write_input_tokens - usage.cache_write_1h_input_tokens,
        usage.cache_write_1h_input_tokens,
    ];
    let each = tokens.iter().zip(price);
    // In millionths of a billionth.
    let cost: u128 = each
        .map(|(tokens, price)| u128::from(*tokens) * u128::from(*price))
        .sum();
    u64::try_from(cost / 1_000_000).unwrap() + u64::from(cost % 1_000_000 >= 500_000)
}
