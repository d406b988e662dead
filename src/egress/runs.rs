//! What readers are told of runs, in both encodings.

use super::json::{self, Object};
use crate::{
    event::{OpenToolCall, Summary, UsageTotals},
    proto::v1,
};

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
