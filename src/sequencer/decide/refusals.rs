//! Refusals that say enough for their producers to do better.

use crate::{
    event::{Event, RunId},
    reason::Refusal,
    run::{Run, Violation},
};

/// Whether the event's source may write the run.
pub(super) fn check_owner(run_id: &RunId, run: &Run, event: &Event) -> Result<(), Refusal> {
    run.admits(&event.source).map_err(|refusal| {
        let owner = &run.source;
        let name = owner.producer_id.as_str();
        let refused = &event.source;
        let refused_name = refused.producer_id.as_str();
        let message = format!(
            "the run is owned by {name:?} with term {}; this is {refused_name:?} with term {}",
            owner.term, refused.term
        );
        Refusal::new(refusal.reason(), message)
            .with("run_id", run_id.as_str())
            .with("run_state", run.state.name())
            .with("legal", "the owner, or a source with a higher term")
            .with("owner_producer_id", name)
            .with("owner_term", owner.term.to_string())
            .with("refused_producer_id", refused_name)
            .with("refused_term", refused.term.to_string())
    })
}

/// The refusal for a violation by an event of `run`.
pub(super) fn violated(violation: Violation, run_id: &RunId, run: Option<&Run>) -> Refusal {
    let state = run.map_or("unknown", |run| run.state.name());
    let reason = violation.reason();
    let message = match run {
        Some(_) => format!("{}; the run is {state}", reason.meaning()),
        None => reason.meaning().to_owned(),
    };
    let mut refusal = Refusal::new(reason, message)
        .with("run_id", run_id.as_str())
        .with("run_state", state)
        .with("legal", violation.legal());
    if let (Violation::ToolCallUnknown, Some(run)) = (violation, run) {
        let open = run.open_tool_calls.iter().take(8);
        let open: Vec<_> = open.map(|call| call.id.as_str()).collect();
        refusal = refusal.with("open_tool_calls", open.join(","));
    }
    refusal
}
