//! A run on the wire.

use std::collections::HashMap;

use crate::{
    clock::Timestamp,
    engine::{Engine, EngineError, KnownRun},
    event::StreamKey,
    proto::v1,
    run::{self, Run, RunState},
};

/// `known` as operators are shown it.
pub(super) async fn told(engine: &dyn Engine, known: &KnownRun) -> Result<v1::Run, EngineError> {
    let KnownRun {
        stream,
        run_id,
        run,
    } = known;
    let summary = run.summary();
    let text = |id: Option<&str>| id.unwrap_or_default().to_owned();
    let silent_until = silent_until(engine, stream, run).await?;
    Ok(v1::Run {
        tenant_id: stream.tenant().as_str().to_owned(),
        user_id: stream.user().as_str().to_owned(),
        run_id: run_id.as_str().to_owned(),
        thread_id: text(run.thread_id.as_ref().map(|id| id.as_str())),
        agent_name: text(run.agent_name.as_ref().map(|name| name.as_str())),
        parent_run_id: text(run.parent_run_id.as_ref().map(|id| id.as_str())),
        state: v1::RunState::from(run.state).into(),
        started_at: Some(run.started_at.into()),
        last_event_at: Some(run.last_event_at.into()),
        run_sequence: run.last_sequence.0,
        source: Some((&run.source).into()),
        open_tool_calls: summary.open_tool_calls.iter().map(Into::into).collect(),
        usage: summary.usage.map(Into::into),
        silent_until: silent_until.map(Into::into),
        recovered: run.recovered,
        open_waits: run.open_waits.iter().map(Into::into).collect(),
    })
}

/// What `run` consumed, model by model.
pub(super) fn usage(run: &Run) -> Vec<v1::ModelUsage> {
    let by_model = run.usage.iter().map(|(model, sum)| v1::ModelUsage {
        provider: model.provider.to_string(),
        model: model.model.to_string(),
        totals: Some((*sum).into()),
    });
    by_model.collect()
}

/// The state that is meant by `asked`, if any is.
pub(super) fn state_asked(asked: i32) -> Option<RunState> {
    Some(match v1::RunState::try_from(asked).ok()? {
        v1::RunState::Unspecified => return None,
        v1::RunState::Running => RunState::Running,
        v1::RunState::Waiting => RunState::Waiting,
        v1::RunState::Completed => RunState::Completed,
        v1::RunState::Failed => RunState::Failed,
        v1::RunState::Cancelled => RunState::Cancelled,
    })
}

/// Until when the watchdog lets `run` be silent, if it is open.
async fn silent_until(
    engine: &dyn Engine,
    stream: &StreamKey,
    run: &Run,
) -> Result<Option<Timestamp>, EngineError> {
    if !run.state.is_open() {
        return Ok(None);
    }
    // As many as a run may have open below it.
    let mut family = HashMap::new();
    let mut next = run.open_children.clone();
    while let Some(child) = next.pop() {
        if let Some(run) = engine.run(stream, &child).await? {
            next.extend(run.open_children.iter().cloned());
            family.insert(child, run);
        }
    }
    Ok(Some(run::deadline(&family, run)))
}
