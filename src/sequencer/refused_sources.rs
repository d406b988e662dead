//! Which sources were refused because another owned the run: how a platform finds its duplicate emitters.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;

use crate::{
    clock::Timestamp,
    event::{Event, ProducerId, RunId, Source, StreamKey, Tenant},
    reason::{Reason, Refusal},
};

/// How many refused sources are remembered, each for one run; beyond that the one refused longest ago is forgotten.
const REMEMBERED: usize = 10_000;

/// How many tenants are counted apart; what further ones come to is counted only in the metrics.
const TENANTS: usize = 10_000;

/// One source that was refused because another owned the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSource {
    /// Whose run it is.
    pub stream: StreamKey,
    /// The run.
    pub run_id: RunId,
    /// Who owned it.
    pub owner: Source,
    /// Who was refused.
    pub refused: Source,
    /// `COMPETING_SOURCE` or `SOURCE_FENCED`.
    pub reason: Reason,
    /// How many events.
    pub count: u64,
    /// When for the first time.
    pub first_at: Timestamp,
    /// When for the last time.
    pub last_at: Timestamp,
}

/// The refused sources of this node.
#[derive(Default)]
pub struct RefusedSources(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    known: HashMap<Which, (u64, RefusedSource)>,
    /// By when they were last refused.
    order: BTreeMap<u64, Which>,
    noted: u64,
    by_tenant: HashMap<Tenant, u64>,
}

/// What is counted together.
type Which = (StreamKey, RunId, Source, Source, Reason);

impl RefusedSources {
    /// Notes that `event` was refused, as `refusal` says.
    pub(super) fn note(&self, event: &Event, refusal: &Refusal, now: Timestamp) {
        let Some((run_id, owner)) = event.run_id.clone().zip(owner(refusal)) else {
            return;
        };
        let inner = &mut *self.0.lock();
        inner.count(event.stream.tenant());
        inner.noted += 1;
        let order = inner.noted;
        let refused = event.source.clone();
        let stream = event.stream.clone();
        let which = (stream, run_id, owner, refused, refusal.reason);
        inner.order.insert(order, which.clone());
        if let Some((before, known)) = inner.known.get_mut(&which) {
            inner.order.remove(&std::mem::replace(before, order));
            known.count += 1;
            known.last_at = now;
            return;
        }
        let (stream, run_id, owner, refused, reason) = which.clone();
        let new = RefusedSource {
            stream,
            run_id,
            owner,
            refused,
            reason,
            count: 1,
            first_at: now,
            last_at: now,
        };
        inner.known.insert(which, (order, new));
        if inner.known.len() > REMEMBERED
            && let Some((_, oldest)) = inner.order.pop_first()
        {
            inner.known.remove(&oldest);
        }
    }

    /// At most `most` of those that `wanted` admits, the most recently refused first.
    pub fn recent(
        &self,
        most: usize,
        wanted: impl Fn(&RefusedSource) -> bool,
    ) -> Vec<RefusedSource> {
        let inner = self.0.lock();
        let recent = inner.order.values().rev();
        let recent = recent.filter_map(|which| inner.known.get(which));
        let recent = recent.map(|(_, refused)| refused);
        recent
            .filter(|refused| wanted(refused))
            .take(most)
            .cloned()
            .collect()
    }

    /// How many events were refused of `tenant`, or of all tenants.
    pub fn count(&self, tenant: Option<&Tenant>) -> u64 {
        let inner = self.0.lock();
        match tenant {
            Some(tenant) => inner.by_tenant.get(tenant).copied().unwrap_or(0),
            None => inner.noted,
        }
    }
}

impl Inner {
    fn count(&mut self, tenant: &Tenant) {
        if let Some(count) = self.by_tenant.get_mut(tenant) {
            *count += 1;
        } else if self.by_tenant.len() < TENANTS {
            self.by_tenant.insert(tenant.clone(), 1);
        }
    }
}

/// Who owns the run, as the refusal says.
fn owner(refusal: &Refusal) -> Option<Source> {
    let told = |key: &str| refusal.metadata.get(key);
    Some(Source {
        producer_id: ProducerId::new(told("owner_producer_id")?).ok()?,
        term: told("owner_term")?.parse().ok()?,
    })
}
