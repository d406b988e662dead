//! Whose a run's id is: each belongs to one user of a tenant, by a claim in the key store.

use std::time::Duration;

use super::{Sequencer, decide::Claim};
use crate::{
    engine::{EngineError, Key, StreamState, claim},
    event::{RunId, StreamKey, UserId},
    run::Book,
};

/// After this time a claim that its stream knows nothing of may be replaced.
const SETTLES: Duration = Duration::from_secs(60);

/// How often a claim that changes meanwhile is looked at.
const ATTEMPTS: usize = 3;

impl Sequencer {
    /// Puts or renews `claims`. Returns the runs that belong to other users.
    pub(super) async fn claim_all(
        &self,
        stream: &StreamKey,
        claims: &[Claim],
    ) -> Result<Vec<RunId>, EngineError> {
        let mut lost = Vec::new();
        for claim in claims {
            if !self.claim(stream, claim).await? {
                lost.push(claim.run_id.clone());
            }
        }
        Ok(lost)
    }

    /// Whether the run is open here, though its claim names another user: the claim lies in another place, which may have
    /// lost it. What is under way is not refused for that.
    pub(super) fn goes_on_unclaimed(
        &self,
        stream: &StreamKey,
        state: &StreamState,
        run_id: &RunId,
    ) -> bool {
        let is_open = state.run(run_id).is_some_and(|run| run.state.is_open());
        if is_open {
            tracing::warn!(?stream, ?run_id, "another user has claimed this open run");
            self.metrics.run_claims_lost.increment(1);
        }
        is_open
    }

    /// Puts or renews the claim on a run's id. Whether the run is this user's.
    async fn claim(&self, stream: &StreamKey, claim: &Claim) -> Result<bool, EngineError> {
        let Claim { run_id, ttl } = claim;
        let key = Key::RunClaim(stream.tenant().clone(), run_id.clone());
        for _ in 0..ATTEMPTS {
            let mine = claim::encode(stream.user(), self.entropy.bits());
            let put = self.engine.put_if_absent(&key, mine.clone(), *ttl).await?;
            let Some(there) = put else { return Ok(true) };
            let owner = claim::user(&there.value);
            if owner.as_ref() != Some(stream.user()) {
                // A claim may have outlived the append that it was put for.
                let settled = there.put_at + SETTLES <= self.clock.now();
                if !settled || self.knows_run(stream, owner, run_id).await? {
                    return Ok(false);
                }
            }
            let renewed = self
                .engine
                .compare_and_set(&key, &there.value, mine, *ttl)
                .await?;
            if renewed {
                return Ok(true);
            }
            // It changed since: look again.
        }
        Err(EngineError::Unavailable(
            "a run's claim keeps changing".into(),
        ))
    }

    /// Whether another user owns the run. It is refused in any case; this tells why.
    pub(super) async fn is_of_another_user(&self, stream: &StreamKey, run_id: &RunId) -> bool {
        let key = Key::RunClaim(stream.tenant().clone(), run_id.clone());
        let Ok(Some(there)) = self.engine.get(&key).await else {
            return false;
        };
        let owner = claim::user(&there.value);
        if owner.as_ref() == Some(stream.user()) {
            return false;
        }
        // The same rule as in `claim`, so that one pass over a call's events finds all of them.
        let settled = there.put_at + SETTLES <= self.clock.now();
        let known = self.knows_run(stream, owner, run_id).await;
        !settled || known.unwrap_or_default()
    }

    /// Whether the user that a claim names knows the run.
    async fn knows_run(
        &self,
        stream: &StreamKey,
        claimed_by: Option<UserId>,
        run_id: &RunId,
    ) -> Result<bool, EngineError> {
        let Some(owner) = claimed_by else {
            return Ok(false);
        };
        let owner = StreamKey::new(stream.tenant().clone(), owner);
        let run = self.engine.run(&owner, run_id).await?;
        let memory = self.config.rules.run_memory;
        Ok(run.is_some_and(|run| !run.is_forgotten(memory, self.clock.age_now())))
    }
}
