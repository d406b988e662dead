//! Records, and what is remembered of their ids.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message;

use super::{
    Corrupt, adjustments_in, adjustments_out, call_in, call_out, corrupt, hash_in, hash_out,
    millis, optional,
    run::{state_in, state_out},
    sequence_in, source_in, source_out, tokens_in, tokens_out, wait_in, wait_out,
};
use crate::{
    clock::Timestamp,
    engine::DedupeEntry,
    event::{
        AgentName, ContentHash, Cost, CostBasis, Draft, Event, EventId, Kind, Offset, Position,
        Record, RunId, RunSequence, Step, StreamKey, Summary, ThreadId, ToolCallId, ToolName,
        Usage, UsageTotals, WaitId,
    },
    proto::stored as proto,
    reason::Reason,
};

/// The bytes of `record`, without its position and its stream.
pub fn encode_record(record: &Record) -> Bytes {
    let draft = &record.draft;
    let event = &draft.event;
    let text = |id: Option<&str>| id.unwrap_or_default().to_owned();
    proto::Record {
        prev: record.prev.0,
        recorded_at: draft.recorded_at.as_millis(),
        run_sequence: draft.run_sequence.0,
        event_id: event.event_id.as_str().to_owned(),
        run_id: text(event.run_id.as_ref().map(RunId::as_str)),
        thread_id: text(draft.thread_id.as_ref().map(ThreadId::as_str)),
        agent_name: text(draft.agent_name.as_ref().map(AgentName::as_str)),
        parent_run_id: text(draft.parent_run_id.as_ref().map(RunId::as_str)),
        thread_inherited: event.thread_id.is_none(),
        agent_inherited: event.agent_name.is_none(),
        parent_inherited: event.parent_run_id.is_none(),
        kind: event.kind.wire_type().to_owned(),
        custom: matches!(event.kind, Kind::Custom(_)),
        step: step_out(draft),
        source: Some(source_out(&event.source)),
        usage: event.usage.as_deref().map(usage_out),
        content: Bytes::copy_from_slice(&event.content.0),
        joinable: event.joinable,
        body: event.body.clone(),
        summary: draft.summary.as_deref().map(summary_out),
        violation: text(draft.violation.map(Reason::name)),
        recovered: draft.recovered.map(millis),
        state: draft.state.map(|state| state_out(state).into()),
        adjustments: adjustments_out(&event.adjustments),
        cost: draft.cost.map(cost_out),
    }
    .encode_to_vec()
    .into()
}

/// The record of `stream` that stands at `position`, of which `bytes` were made. Its payload shares them.
///
/// # Errors
/// When `bytes` are not those of a record.
pub fn decode_record(
    stream: &StreamKey,
    position: Position,
    bytes: Bytes,
) -> Result<Record, Corrupt> {
    let stored = proto::Record::decode(bytes)?;
    let state = stored.state.is_some().then(|| stored.state());
    let step = step_in(stored.step)?;
    let thread_id = optional(&stored.thread_id, ThreadId::new)?;
    let agent_name = optional(&stored.agent_name, AgentName::new)?;
    let parent_run_id = optional(&stored.parent_run_id, RunId::new)?;
    let event = Event {
        event_id: EventId::new(&stored.event_id)?,
        stream: stream.clone(),
        run_id: optional(&stored.run_id, RunId::new)?,
        thread_id: thread_id.clone().filter(|_| !stored.thread_inherited),
        parent_run_id: parent_run_id.clone().filter(|_| !stored.parent_inherited),
        agent_name: agent_name.clone().filter(|_| !stored.agent_inherited),
        kind: kind_in(&stored.kind, stored.custom)?,
        step: step.clone(),
        source: source_in(stored.source)?,
        usage: stored.usage.map(|usage| Box::new(usage_in(usage))),
        content: content_in(&stored.content)?,
        adjustments: adjustments_in(stored.adjustments)?,
        joinable: stored.joinable,
        body: stored.body,
    };
    let violation = match stored.violation.as_str() {
        "" => None,
        name => match Reason::ALL.into_iter().find(|reason| reason.name() == name) {
            Some(reason) => Some(reason),
            None => return corrupt("no such reason"),
        },
    };
    let draft = Draft::new(Arc::new(event), Timestamp::from_millis(stored.recorded_at));
    let draft = Draft {
        run_sequence: RunSequence(stored.run_sequence),
        thread_id,
        agent_name,
        parent_run_id,
        step,
        summary: stored.summary.map(summary_in).transpose()?.map(Box::new),
        violation,
        recovered: stored.recovered.map(Duration::from_millis),
        state: state.map(state_in),
        cost: stored.cost.map(cost_in).transpose()?.or(draft.cost),
        ..draft
    };
    Ok(Record {
        position,
        prev: Offset(stored.prev),
        draft,
    })
}

/// The bytes of what is remembered of `event_id`, without the position.
pub fn encode_id(event_id: &EventId, entry: &DedupeEntry) -> Bytes {
    proto::Id {
        event_id: event_id.as_str().to_owned(),
        content: Bytes::copy_from_slice(&entry.content.0),
        run_sequence: entry.run_sequence.0,
        recorded_at: entry.recorded_at.as_millis(),
        adjustments: adjustments_out(&entry.adjustments),
    }
    .encode_to_vec()
    .into()
}

/// What is remembered of the id of the event at `position`, of which `bytes` were made.
///
/// # Errors
/// When `bytes` are not those of an id.
pub fn decode_id(position: Position, bytes: Bytes) -> Result<(EventId, DedupeEntry), Corrupt> {
    let stored = proto::Id::decode(bytes)?;
    let entry = DedupeEntry {
        content: content_in(&stored.content)?,
        position,
        run_sequence: RunSequence(stored.run_sequence),
        recorded_at: Timestamp::from_millis(stored.recorded_at),
        adjustments: adjustments_in(stored.adjustments)?,
    };
    Ok((EventId::new(&stored.event_id)?, entry))
}

fn content_in(content: &[u8]) -> Result<ContentHash, Corrupt> {
    match hash_in(content)? {
        Some(hash) => Ok(hash),
        None => corrupt("no hash"),
    }
}

fn kind_in(name: &str, custom: bool) -> Result<Kind, Corrupt> {
    if custom {
        return Ok(Kind::Custom(name.into()));
    }
    match Kind::typed().find(|(_, typed)| *typed == name) {
        Some((kind, _)) => Ok(kind),
        None => corrupt("no such type"),
    }
}

fn step_out(draft: &Draft) -> Option<proto::Step> {
    use proto::step::Step as Out;
    let step = match &draft.step {
        Step::Start { silence_timeout } => Out::Start(proto::Start {
            silence_timeout: silence_timeout.map(millis),
        }),
        Step::ToolBegins {
            id,
            name,
            arguments,
            call,
        } => Out::ToolBegins(proto::ToolBegins {
            id: id.as_str().to_owned(),
            name: name.as_str().to_owned(),
            call_sequence: call.unwrap_or_default().0,
            arguments: hash_out(*arguments),
        }),
        Step::ToolEnds { id, name, call } => Out::ToolEnds(proto::ToolEnds {
            id: id.as_ref().map_or("", ToolCallId::as_str).to_owned(),
            name: name.as_ref().map_or("", ToolName::as_str).to_owned(),
            filled_in: false,
            call_sequence: call.unwrap_or_default().0,
        }),
        Step::ToolAdvances { id, call } => Out::ToolAdvances(proto::ToolAdvances {
            id: id.as_ref().map_or("", ToolCallId::as_str).to_owned(),
            call_sequence: call.unwrap_or_default().0,
        }),
        Step::Wait(wait) => Out::Wait(wait_out(wait)),
        Step::Resume { id } => Out::Resume(proto::Resume {
            wait_id: id.as_ref().map_or("", WaitId::as_str).to_owned(),
        }),
        Step::End => Out::End(proto::End {}),
        Step::Other => return None,
    };
    Some(proto::Step { step: Some(step) })
}

/// The step as settled.
fn step_in(stored: Option<proto::Step>) -> Result<Step, Corrupt> {
    use proto::step::Step as In;
    Ok(match stored.and_then(|step| step.step) {
        None => Step::Other,
        Some(In::Start(start)) => Step::Start {
            silence_timeout: start.silence_timeout.map(Duration::from_millis),
        },
        Some(In::ToolBegins(call)) => Step::ToolBegins {
            id: ToolCallId::new(&call.id)?,
            name: ToolName::new(&call.name)?,
            arguments: hash_in(&call.arguments)?,
            call: sequence_in(call.call_sequence),
        },
        Some(In::ToolEnds(call)) => Step::ToolEnds {
            id: optional(&call.id, ToolCallId::new)?,
            name: optional(&call.name, ToolName::new)?,
            call: sequence_in(call.call_sequence),
        },
        Some(In::ToolAdvances(call)) => Step::ToolAdvances {
            id: optional(&call.id, ToolCallId::new)?,
            call: sequence_in(call.call_sequence),
        },
        Some(In::Wait(wait)) => Step::Wait(Box::new(wait_in(&wait)?)),
        Some(In::Resume(resume)) => Step::Resume {
            id: optional(&resume.wait_id, WaitId::new)?,
        },
        Some(In::End(_)) => Step::End,
    })
}

fn usage_out(usage: &Usage) -> proto::Usage {
    proto::Usage {
        provider: usage.provider.to_string(),
        model: usage.model.to_string(),
        tokens: tokens_out(&usage.tokens),
        cost_nano_usd: usage.cost_nano_usd,
    }
}

fn usage_in(usage: proto::Usage) -> Usage {
    Usage {
        provider: usage.provider.into(),
        model: usage.model.into(),
        tokens: tokens_in(usage.tokens),
        cost_nano_usd: usage.cost_nano_usd,
    }
}

fn cost_out(cost: Cost) -> proto::Cost {
    let basis = match cost.basis {
        CostBasis::Stated => proto::CostBasis::Stated,
        CostBasis::Priced => proto::CostBasis::Priced,
        CostBasis::Unpriced => proto::CostBasis::Unpriced,
    };
    proto::Cost {
        nano_usd: cost.nano_usd,
        basis: basis.into(),
    }
}

fn cost_in(cost: proto::Cost) -> Result<Cost, Corrupt> {
    let basis = match cost.basis() {
        proto::CostBasis::Stated => CostBasis::Stated,
        proto::CostBasis::Priced => CostBasis::Priced,
        proto::CostBasis::Unpriced => CostBasis::Unpriced,
        proto::CostBasis::Unspecified => return corrupt("no basis of a cost"),
    };
    Ok(Cost {
        nano_usd: cost.nano_usd,
        basis,
    })
}

fn summary_out(summary: &Summary) -> proto::Summary {
    proto::Summary {
        open_tool_calls: summary.open_tool_calls.iter().map(call_out).collect(),
        usage: summary.usage.map(|totals| proto::UsageTotals {
            events: totals.events,
            tokens: tokens_out(&totals.tokens),
            cost_nano_usd: totals.cost_nano_usd,
            unpriced_events: totals.unpriced_events,
        }),
    }
}

fn summary_in(summary: proto::Summary) -> Result<Summary, Corrupt> {
    let calls = summary.open_tool_calls.into_iter().map(call_in);
    Ok(Summary {
        open_tool_calls: calls.collect::<Result<_, _>>()?,
        usage: summary.usage.map(|totals| UsageTotals {
            events: totals.events,
            tokens: tokens_in(totals.tokens),
            cost_nano_usd: totals.cost_nano_usd,
            unpriced_events: totals.unpriced_events,
        }),
    })
}
