//! A store that has lost events does not know of runs that go on: for a while, what they emit is accepted all the same.

use super::Group;
use crate::{
    event::Event,
    run::{Book, Violation},
};

impl Group<'_> {
    /// Whether `event` may break its rule only because the store has lost what came before it. Such an event is
    /// accepted: it begins its run, whatever it is, or ends a tool call that nobody knows of. What is known to have
    /// ended was not lost, and neither was a run whose start was refused in this group.
    pub(super) fn may_be_lost(&self, event: &Event, violation: Violation) -> bool {
        let may_be = match violation {
            Violation::NotStarted | Violation::ParentNotOpen => {
                !self.parent_has_ended(event) && !self.start_was_refused(event)
            }
            Violation::ToolCallUnknown => true,
            Violation::AlreadyStarted | Violation::Ended => false,
        };
        may_be && self.is_recovering()
    }

    /// Else what follows the start would begin the run without what the start said of it.
    fn start_was_refused(&self, event: &Event) -> bool {
        let run_id = event.run_id.as_ref();
        run_id.is_some_and(|run_id| self.refused_starts.contains(run_id))
    }

    fn is_recovering(&self) -> bool {
        let grace = self.rules.recovery_grace;
        let since = self.state.epoch_since;
        since.is_some_and(|since| self.now < since + grace)
    }

    fn parent_has_ended(&self, event: &Event) -> bool {
        let parent = event.parent_run_id.as_ref();
        let known = parent.and_then(|parent| self.runs.run(parent));
        known.is_some_and(|run| !run.state.is_open())
    }
}
