//! A store that has lost events does not know of runs that go on: for a while, what they emit is accepted all the same.

use super::Group;
use crate::{
    event::Event,
    run::{Book, Violation},
};

impl Group<'_> {
    /// Whether `event` may break its rule only because the store has lost what came before it. Such an event is
    /// accepted: it begins its run, whatever it is, or ends a tool call that nobody knows of. What is known to have
    /// ended was not lost.
    pub(super) fn may_be_lost(&self, event: &Event, violation: Violation) -> bool {
        let may_be = match violation {
            Violation::NotStarted | Violation::ParentNotOpen => !self.parent_has_ended(event),
            Violation::ToolCallUnknown => true,
            Violation::AlreadyStarted | Violation::Ended => false,
        };
        may_be && self.is_recovering()
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
