//! Only for benchmarks: decisions without rules for the source, life, family, silence and usage of runs, for the cost of
//! those to be measured against.

use super::{Group, check_fixed, within};
use crate::{
    event::{Draft, RunId},
    reason::Refusal,
    run::Book,
};

impl Group<'_> {
    /// Takes an event of a run in. Returns its draft's place.
    pub(super) fn bare(&mut self, run_id: &RunId, draft: Draft) -> Result<usize, Refusal> {
        match self.runs.run(run_id) {
            Some(run) => check_fixed(run, &draft.event)?,
            None => within(
                "open_runs",
                "the user",
                self.open_runs,
                self.rules.open_runs,
            )?,
        }
        let bare = true;
        Ok(self.take_in(run_id, Draft { bare, ..draft }))
    }
}
