//! Events as `emit` reads them: in the shape of the frames that `tail --json` prints.

mod payload;

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{
    ingest::normalised_json,
    proto::v1::{Event, Usage, UsageAccounting},
};

/// One line. What a frame has beyond this, its place for one, is known and left aside.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    event_id: String,
    #[serde(default)]
    tenant_id: String,
    #[serde(default)]
    user_id: String,
    #[serde(default)]
    thread_id: String,
    #[serde(default)]
    run_id: String,
    #[serde(default)]
    parent_run_id: String,
    #[serde(default)]
    agent_name: String,
    timestamp: Option<String>,
    recorded_at: Option<String>,
    #[serde(default)]
    traceparent: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    usage: Option<Consumption>,
    #[serde(default, borrow)]
    payload: Option<&'a RawValue>,
    #[serde(rename = "custom")]
    _custom: Option<IgnoredAny>,
    #[serde(rename = "epoch")]
    _epoch: Option<IgnoredAny>,
    #[serde(rename = "offset")]
    _offset: Option<IgnoredAny>,
    run_sequence: Option<IgnoredAny>,
    #[serde(rename = "first_offset")]
    _first_offset: Option<IgnoredAny>,
    #[serde(rename = "joined")]
    _joined: Option<IgnoredAny>,
    #[serde(rename = "cost")]
    _cost: Option<IgnoredAny>,
    #[serde(rename = "summary")]
    _summary: Option<IgnoredAny>,
    #[serde(rename = "state")]
    _state: Option<IgnoredAny>,
    #[serde(rename = "violation")]
    _violation: Option<IgnoredAny>,
    #[serde(rename = "adjustments")]
    _adjustments: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Consumption {
    provider: String,
    model: String,
    input_tokens: u64,
    output_tokens: u64,
    cached_input_tokens: u64,
    cache_write_input_tokens: u64,
    cache_write_1h_input_tokens: u64,
    reasoning_tokens: u64,
    cost_nano_usd: Option<u64>,
    /// Never in a frame: those are inclusive.
    accounting: Option<Accounting>,
}

/// How cached, cache-write and reasoning tokens are counted.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Accounting {
    Inclusive,
    Exclusive,
}

impl From<Accounting> for i32 {
    fn from(accounting: Accounting) -> Self {
        match accounting {
            Accounting::Inclusive => UsageAccounting::Inclusive.into(),
            Accounting::Exclusive => UsageAccounting::Exclusive.into(),
        }
    }
}

/// What control frames begin with.
const CONTROL: &str = "connection_";

/// Reads the event in `line`, one JSON object. `None`: it is a control frame, which speaks of a connection and not of
/// an agent.
///
/// # Errors
/// What is wrong with it, for a person.
pub(super) fn event(line: &str) -> Result<Option<Event>, String> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: Option<String>,
    }
    let Kind { kind } = serde_json::from_str(line).map_err(|error| error.to_string())?;
    match kind {
        None => return Err("it has no `type`, such as \"agent_started\"".into()),
        Some(kind) if kind.starts_with(CONTROL) => return Ok(None),
        Some(_) => {}
    }
    // Texts that were cut inside an emoji.
    let normalised = normalised_json(line);
    let line = normalised.as_deref().unwrap_or(line);
    let line: Line<'_> = serde_json::from_str(line).map_err(|error| error.to_string())?;
    // A timestamp that only repeats the recording is the server's and not the producer's.
    let occurred_at = line
        .timestamp
        .filter(|at| line.recorded_at.as_ref() != Some(at));
    let occurred_at = occurred_at
        .map(|at| at.parse())
        .transpose()
        .map_err(|_| "timestamp: is no RFC 3339 time, such as \"2026-11-21T10:00:00Z\"")?;
    let payload = line.payload.map_or("{}", RawValue::get);
    let mut payload =
        payload::read(&line.kind, payload).map_err(|problem| format!("payload: {problem}"))?;
    if line.run_sequence.is_some() {
        // A frame of a stream numbers its calls by that stream. Its copy gets numbers of its own.
        payload::forget_call(&mut payload);
    }
    Ok(Some(Event {
        event_id: line.event_id,
        tenant_id: line.tenant_id,
        user_id: line.user_id,
        thread_id: line.thread_id,
        run_id: line.run_id,
        parent_run_id: line.parent_run_id,
        agent_name: line.agent_name,
        source: None,
        occurred_at,
        traceparent: line.traceparent,
        tracestate: String::new(),
        labels: line.labels,
        usage: line.usage.map(usage),
        payload: Some(payload),
    }))
}

fn usage(consumed: Consumption) -> Usage {
    Usage {
        provider: consumed.provider,
        model: consumed.model,
        input_tokens: consumed.input_tokens,
        output_tokens: consumed.output_tokens,
        cached_input_tokens: consumed.cached_input_tokens,
        reasoning_tokens: consumed.reasoning_tokens,
        cost_nano_usd: consumed.cost_nano_usd,
        accounting: consumed.accounting.map_or(0, i32::from),
        cache_write_input_tokens: consumed.cache_write_input_tokens,
        cache_write_1h_input_tokens: consumed.cache_write_1h_input_tokens,
    }
}

#[cfg(test)]
mod tests;
