//! Runs, and sums of usage.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::{
    Corrupt, call_in, call_out, millis, optional, source_in, source_out, tokens_in, tokens_out,
    wait_in, wait_out,
};
use crate::{
    clock::Timestamp,
    event::{AgentName, Offset, OpenWait, RunId, RunSequence, ThreadId, UsageTotals, Wait},
    proto::stored as proto,
    run::{Run, RunState},
    usage::{Model, UsageByModel},
};

/// The bytes of `run`, without its id and its stream.
pub fn encode_run(run: &Run) -> Bytes {
    let text = |id: Option<&str>| id.unwrap_or_default().to_owned();
    let usage = run.usage.iter().map(|(model, sum)| proto::ModelSum {
        provider: model.provider.to_string(),
        model: model.model.to_string(),
        sum: Some(sum_out(sum)),
    });
    proto::Run {
        state: state_out(run.state).into(),
        last_sequence: run.last_sequence.0,
        started_at: run.started_at.as_millis(),
        start: run.start.0,
        last: run.last.0,
        last_event_at: run.last_event_at.as_millis(),
        last_sign_at: run.last_sign_at.as_millis(),
        waits_until: run.waits_until().as_millis(),
        open_waits: run.open_waits.iter().map(open_wait_out).collect(),
        silence_timeout: millis(run.silence_timeout),
        source: Some(source_out(&run.source)),
        thread_id: text(run.thread_id.as_ref().map(ThreadId::as_str)),
        agent_name: text(run.agent_name.as_ref().map(AgentName::as_str)),
        parent_run_id: text(run.parent_run_id.as_ref().map(RunId::as_str)),
        open_tool_calls: run.open_tool_calls.iter().map(call_out).collect(),
        open_children: run
            .open_children
            .iter()
            .map(|id| id.as_str().to_owned())
            .collect(),
        usage: usage.collect(),
        recovered: run.recovered,
    }
    .encode_to_vec()
    .into()
}

/// The run of which `bytes` were made.
///
/// # Errors
/// When `bytes` are not those of a run.
pub fn decode_run(bytes: Bytes) -> Result<Run, Corrupt> {
    let stored = proto::Run::decode(bytes)?;
    let calls = stored.open_tool_calls.iter().cloned().map(call_in);
    let children = stored.open_children.iter();
    let usage = stored.usage.iter().map(|part| {
        let model = Model {
            provider: part.provider.as_str().into(),
            model: part.model.as_str().into(),
        };
        (model, sum_in(part.sum.unwrap_or_default()))
    });
    Ok(Run {
        state: state_in(stored.state()),
        last_sequence: RunSequence(stored.last_sequence),
        started_at: Timestamp::from_millis(stored.started_at),
        start: Offset(stored.start),
        last: Offset(stored.last),
        last_event_at: Timestamp::from_millis(stored.last_event_at),
        last_sign_at: Timestamp::from_millis(stored.last_sign_at),
        open_waits: open_waits_in(&stored)?,
        silence_timeout: Duration::from_millis(stored.silence_timeout),
        thread_id: optional(&stored.thread_id, ThreadId::new)?,
        agent_name: optional(&stored.agent_name, AgentName::new)?,
        parent_run_id: optional(&stored.parent_run_id, RunId::new)?,
        open_tool_calls: calls.collect::<Result<_, _>>()?,
        open_children: children
            .map(|id| RunId::new(id))
            .collect::<Result<_, _>>()?,
        usage: UsageByModel::restored(usage),
        source: source_in(stored.source)?,
        recovered: stored.recovered,
    })
}

/// The bytes of `sum`.
pub fn encode_sum(sum: &UsageTotals) -> Bytes {
    sum_out(sum).encode_to_vec().into()
}

/// The sum of which `bytes` were made.
///
/// # Errors
/// When `bytes` are not those of a sum.
pub fn decode_sum(bytes: Bytes) -> Result<UsageTotals, Corrupt> {
    Ok(sum_in(proto::Sum::decode(bytes)?))
}

fn sum_out(sum: &UsageTotals) -> proto::Sum {
    proto::Sum {
        events: sum.events,
        tokens: tokens_out(&sum.tokens),
        cost_nano_usd: sum.cost_nano_usd,
        unpriced_events: sum.unpriced_events,
        ..proto::Sum::default()
    }
}

fn sum_in(sum: proto::Sum) -> UsageTotals {
    UsageTotals {
        events: sum.events,
        tokens: tokens_in(sum.tokens),
        cost_nano_usd: sum.cost_nano_usd.saturating_add(sum.stated_cost_nano_usd),
        unpriced_events: sum.unpriced_events.saturating_add(sum.uncosted_events),
    }
}

fn open_wait_out(open: &OpenWait) -> proto::OpenWait {
    proto::OpenWait {
        wait: Some(wait_out(&open.wait)),
        run_sequence: open.sequence.0,
        started_at: open.started_at.as_millis(),
        expires_at: open.expires_at.as_millis(),
    }
}

fn open_waits_in(stored: &proto::Run) -> Result<Vec<OpenWait>, Corrupt> {
    if stored.open_waits.is_empty() && stored.state() == proto::RunState::Waiting {
        // An earlier version: any event ended a wait, so it is the last event's.
        let started_at = Timestamp::from_millis(stored.last_event_at);
        return Ok(vec![OpenWait {
            sequence: RunSequence(stored.last_sequence),
            started_at,
            expires_at: Timestamp::from_millis(stored.waits_until),
            wait: Wait::default(),
        }]);
    }
    let waits = stored.open_waits.iter().map(|open| {
        Ok(OpenWait {
            sequence: RunSequence(open.run_sequence),
            started_at: Timestamp::from_millis(open.started_at),
            expires_at: Timestamp::from_millis(open.expires_at),
            wait: open
                .wait
                .as_ref()
                .map_or_else(|| Ok(Wait::default()), wait_in)?,
        })
    });
    waits.collect()
}

pub(super) fn state_out(state: RunState) -> proto::RunState {
    match state {
        RunState::Running => proto::RunState::Unspecified,
        RunState::Waiting => proto::RunState::Waiting,
        RunState::Completed => proto::RunState::Completed,
        RunState::Failed => proto::RunState::Failed,
        RunState::Cancelled => proto::RunState::Cancelled,
    }
}

pub(super) fn state_in(state: proto::RunState) -> RunState {
    match state {
        proto::RunState::Unspecified => RunState::Running,
        proto::RunState::Waiting => RunState::Waiting,
        proto::RunState::Completed => RunState::Completed,
        proto::RunState::Failed => RunState::Failed,
        proto::RunState::Cancelled => RunState::Cancelled,
    }
}
