//! What readers are told of runs, in both encodings.

use super::json::{self, Object};
use crate::{
    event::{OpenToolCall, OpenWait, Summary, UsageTotals},
    fanout::OpenRun,
    proto::v1,
};

/// Open runs, as a JSON array.
pub(super) fn open_json(out: &mut Vec<u8>, open: &[OpenRun]) {
    json::array(out, open, |out, OpenRun { run_id, run }| {
        let agent_name = run.agent_name.as_ref().map_or("", |name| name.as_str());
        let mut object = Object::begin(out);
        object.text("run_id", run_id.as_str());
        object.text("agent_name", agent_name);
        object.plain("state", run.state.name());
        object.plain("started_at", run.started_at);
        if let Some(thread_id) = &run.thread_id {
            object.text("thread_id", thread_id.as_str());
        }
        if let Some(parent) = &run.parent_run_id {
            object.text("parent_run_id", parent.as_str());
        }
        tool_calls_json(object.field("open_tool_calls"), &run.open_tool_calls);
        if !run.open_waits.is_empty() {
            json::array(object.field("open_waits"), &run.open_waits, wait_json);
        }
        object.end();
    });
}

fn wait_json(out: &mut Vec<u8>, open: &OpenWait) {
    let wait = v1::OpenWait::from(open);
    let mut object = Object::begin(out);
    object.text("wait_id", &wait.wait_id);
    object.text("tool_call_id", &wait.tool_call_id);
    object.text("kind", &wait.kind);
    object.count("run_sequence", wait.run_sequence);
    object.plain("started_at", open.started_at);
    object.plain("expires_at", open.expires_at);
    object.end();
}

/// An open run, as the protocol has it.
pub(super) fn open(OpenRun { run_id, run }: &OpenRun) -> v1::OpenRun {
    let text = |id: Option<&str>| id.unwrap_or_default().to_owned();
    v1::OpenRun {
        run_id: run_id.as_str().to_owned(),
        agent_name: text(run.agent_name.as_ref().map(|name| name.as_str())),
        state: v1::RunState::from(run.state).into(),
        started_at: Some(run.started_at.into()),
        open_tool_calls: run.open_tool_calls.iter().map(Into::into).collect(),
        thread_id: text(run.thread_id.as_ref().map(|id| id.as_str())),
        parent_run_id: text(run.parent_run_id.as_ref().map(|id| id.as_str())),
        open_waits: run.open_waits.iter().map(Into::into).collect(),
    }
}

/// What a run came to, as a JSON object.
pub(super) fn summary_json(out: &mut Vec<u8>, summary: &Summary) {
    let mut object = Object::begin(out);
    tool_calls_json(object.field("open_tool_calls"), &summary.open_tool_calls);
    if let Some(usage) = &summary.usage {
        totals_json(object.field("usage"), usage);
    }
    object.end();
}

fn tool_calls_json(out: &mut Vec<u8>, calls: &[OpenToolCall]) {
    json::array(out, calls, |out, call| {
        let mut object = Object::begin(out);
        object.text("tool_call_id", call.id.as_str());
        object.count("call_sequence", call.call_sequence.0);
        object.text("tool_name", call.name.as_str());
        object.plain("started_at", call.started_at);
        object.end();
    });
}

fn totals_json(out: &mut Vec<u8>, totals: &UsageTotals) {
    let mut object = Object::begin(out);
    object.integer("events", totals.events);
    object.integer("input_tokens", totals.tokens.input);
    object.integer("output_tokens", totals.tokens.output);
    object.integer("cached_input_tokens", totals.tokens.cached_input);
    object.integer("cache_write_input_tokens", totals.tokens.cache_write);
    object.integer("cache_write_1h_input_tokens", totals.tokens.cache_write_1h);
    object.integer("reasoning_tokens", totals.tokens.reasoning);
    object.integer("cost_nano_usd", totals.cost_nano_usd);
    object.integer("unpriced_events", totals.unpriced_events);
    object.end();
}

/// What a run came to, as the protocol has it.
pub(super) fn summary(summary: &Summary) -> v1::RunSummary {
    v1::RunSummary {
        open_tool_calls: summary.open_tool_calls.iter().map(Into::into).collect(),
        usage: summary.usage.map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{AgentName, RunId, RunSequence, ThreadId, ToolCallId, ToolName, Wait, WaitId},
        fanout::{OPEN_RUNS, OPEN_TOOL_CALLS, bound_waits, open_run},
        run::OPEN_WAITS,
    };

    #[test]
    fn the_most_that_is_told_fits_into_what_stock_clients_take() {
        // As long as ids may be, in characters that take four bytes each.
        let long = "\u{1d11e}".repeat(128);
        let mut most = open_run(1, &long);
        most.run_id = RunId::new(&long).unwrap();
        most.run.thread_id = ThreadId::new(&long).ok();
        most.run.parent_run_id = RunId::new(&long).ok();
        most.run.agent_name = AgentName::new(&long).ok();
        let call = OpenToolCall {
            call_sequence: RunSequence(u64::MAX),
            arguments: None,
            id: ToolCallId::new(&long).unwrap(),
            name: ToolName::new(&long).unwrap(),
            started_at: most.run.started_at,
        };
        most.run.open_tool_calls = vec![call; OPEN_TOOL_CALLS];
        let wait = OpenWait {
            sequence: RunSequence(u64::MAX),
            started_at: most.run.started_at,
            expires_at: most.run.started_at,
            wait: Wait {
                id: WaitId::new(&long).ok(),
                tool_call_id: ToolCallId::new(&long).ok(),
                kind: Some(long.as_str().into()),
                ..Wait::default()
            },
        };
        most.run.open_waits = vec![wait; OPEN_WAITS];
        let mut most = vec![most; OPEN_RUNS];
        bound_waits(&mut most);
        let mut json = Vec::new();
        open_json(&mut json, &most);
        println!("{} bytes", json.len());
        assert!(json.len() < 1_000_000, "{} bytes", json.len());
    }
}
