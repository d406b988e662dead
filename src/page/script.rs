//! What happens in the sample run: an agent that thinks, uses tools, has a sub-agent read, and writes an answer.

use std::{iter, time::Duration};

use crate::proto::v1::{
    AgentCompleted, AgentStarted, AgentThinking, Event, Message, TextDelta, ThinkingDelta,
    ToolCompleted, ToolExecuting, ToolProgress, ToolStatus, Usage, agent_completed, event::Payload,
    tool_completed, tool_executing,
};

/// An event and how long after the one before it happens.
pub(super) struct Step {
    pub(super) pause: Duration,
    pub(super) event: Box<Event>,
}

const ANSWER: &str = "Yes, and it can be checked. Within one user's stream every event has its place: offsets only \
     grow, and every reader sees the same order.\n\nTwo of the sources describe what happens after a lost connection. \
     The reader names the last position it has seen, and gets everything after it. What is no longer kept is announced \
     as a gap, so nothing is lost silently.\n\nThe third could not be fetched; its summary says the same.";

const THOUGHTS: &str = "The question is about order and loss. I should look for what the service promises, then for \
     how a reader resumes, and see whether the two fit together.";

/// About ten seconds of a run of `user_id`, with a sub-agent's run inside.
pub(super) fn sample(user_id: &str, run_id: &str) -> Vec<Step> {
    let lead = Agent {
        user_id,
        run_id: run_id.to_owned(),
        parent_run_id: String::new(),
        name: "researcher",
    };
    let helper = Agent {
        run_id: format!("{run_id}-reader"),
        parent_run_id: run_id.to_owned(),
        name: "reader",
        ..lead
    };
    let mut steps = opening(&lead);
    steps.extend(search(&lead));
    steps.extend(reading(&helper));
    steps.extend(check(&lead));
    steps.extend(answer(&lead));
    steps
}

fn opening(lead: &Agent<'_>) -> Vec<Step> {
    let started = AgentStarted {
        message: "Do readers ever miss an event?".into(),
        agent_type: "research".into(),
        silence_timeout: None,
    };
    let thoughts = words(THOUGHTS, 4).map(|text| {
        let message_id = "thoughts".into();
        lead.after(
            110,
            Payload::ThinkingDelta(ThinkingDelta { message_id, text }),
        )
    });
    let plan = lead.after(200, thinking("Find the promise, then the proof", 1));
    iter::once(lead.after(0, Payload::AgentStarted(started)))
        .chain(thoughts)
        .chain([plan.using(812, 64, 0)])
        .collect()
}

fn search(lead: &Agent<'_>) -> Vec<Step> {
    let input = r#"{"query":"event order after reconnect","limit":3}"#;
    let found = r#"{"hits":[{"title":"Order","score":0.93},{"title":"Resuming","score":0.88},{"title":"Figures","score":0.71}]}"#;
    vec![
        lead.after(250, call("search", "Searches the documents", input)),
        lead.after(350, progress("search", 0.3, "120 of 400 documents")),
        lead.after(350, progress("search", 0.8, "320 of 400 documents")),
        lead.after(250, done("search", 950, found)),
    ]
}

fn reading(helper: &Agent<'_>) -> Vec<Step> {
    let started = AgentStarted {
        message: "Reads the three sources".into(),
        ..AgentStarted::default()
    };
    let completed = AgentCompleted {
        message: "Two describe it, one could not be had".into(),
        execution_time: duration(1_900),
        output: None,
    };
    let fetch = |name: &str| call(name, "Fetches a page", r#"{"section":"all"}"#);
    vec![
        helper.after(150, Payload::AgentStarted(started)),
        helper.after(150, fetch("fetch_order")),
        helper.after(100, fetch("fetch_resuming")),
        helper.after(100, fetch("fetch_figures")),
        helper.after(450, done("fetch_order", 650, r#"{"bytes":18244}"#)),
        helper.after(300, failed("fetch_figures", 750, "503 from the archive")),
        helper.after(200, done("fetch_resuming", 1_050, r#"{"bytes":9310}"#)),
        helper.after(250, thinking("Two of three will do", 1)),
        helper
            .after(350, Payload::AgentCompleted(completed))
            .using(2_140, 96, 1_200),
    ]
}

fn check(lead: &Agent<'_>) -> Vec<Step> {
    let input = r#"{"expression":"18244 + 9310"}"#;
    vec![
        lead.after(200, thinking("How much of it was read?", 2)),
        lead.after(200, call("calculate", "Adds up what was read", input)),
        lead.after(350, done("calculate", 340, "27554")),
    ]
}

fn answer(lead: &Agent<'_>) -> Vec<Step> {
    let message_id = || "answer".to_owned();
    let role = || "assistant".to_owned();
    let deltas = words(ANSWER, 2).map(|text| {
        let (message_id, role) = (message_id(), role());
        let delta = TextDelta {
            message_id,
            role,
            text,
        };
        lead.after(100, Payload::TextDelta(delta))
    });
    let whole = Payload::Message(Message {
        message_id: message_id(),
        role: role(),
        text: ANSWER.into(),
    });
    let completed = Payload::AgentCompleted(AgentCompleted {
        message: "Answered from two sources".into(),
        execution_time: duration(8_700),
        output: Some(agent_completed::Output::ResultJson(
            r#"{"sources":3,"confidence":0.97}"#.into(),
        )),
    });
    deltas
        .chain([
            lead.after(100, whole).using(3_460, 142, 2_048),
            lead.after(150, completed),
        ])
        .collect()
}

/// Who emits.
#[derive(Clone)]
struct Agent<'a> {
    user_id: &'a str,
    run_id: String,
    parent_run_id: String,
    name: &'static str,
}

impl Agent<'_> {
    fn after(&self, millis: u64, payload: Payload) -> Step {
        let event = Event {
            user_id: self.user_id.to_owned(),
            run_id: self.run_id.clone(),
            parent_run_id: self.parent_run_id.clone(),
            agent_name: self.name.to_owned(),
            payload: Some(payload),
            ..Event::default()
        };
        Step {
            pause: Duration::from_millis(millis),
            event: Box::new(event),
        }
    }
}

impl Step {
    /// What the model was paid for on the way here: a dollar and a quarter for a million tokens in, ten for out.
    fn using(mut self, input_tokens: u64, output_tokens: u64, cached_input_tokens: u64) -> Self {
        self.event.usage = Some(Usage {
            provider: "acme".into(),
            model: "large-2".into(),
            input_tokens,
            output_tokens,
            cached_input_tokens,
            reasoning_tokens: 0,
            cost_nano_usd: Some(input_tokens * 1_250 + output_tokens * 10_000),
            ..Default::default()
        });
        self
    }
}

fn thinking(reasoning: &str, step: u32) -> Payload {
    Payload::AgentThinking(AgentThinking {
        reasoning: reasoning.into(),
        step_number: Some(step),
        total_steps: None,
        progress_percentage: None,
        ..Default::default()
    })
}

fn call(tool: &str, description: &str, input: &str) -> Payload {
    Payload::ToolExecuting(ToolExecuting {
        tool_call_id: format!("call-{tool}"),
        tool_name: tool_name(tool),
        description: description.into(),
        input: Some(tool_executing::Input::ParametersJson(input.into())),
        ..Default::default()
    })
}

fn progress(tool: &str, fraction: f64, message: &str) -> Payload {
    Payload::ToolProgress(ToolProgress {
        tool_call_id: format!("call-{tool}"),
        fraction: Some(fraction),
        message: message.into(),
        ..Default::default()
    })
}

fn done(tool: &str, millis: i64, result: &str) -> Payload {
    let output = Some(tool_completed::Output::ResultJson(result.into()));
    ended(tool, millis, ToolStatus::Succeeded, "", output)
}

fn failed(tool: &str, millis: i64, error: &str) -> Payload {
    ended(tool, millis, ToolStatus::Failed, error, None)
}

fn ended(
    tool: &str,
    millis: i64,
    status: ToolStatus,
    error: &str,
    output: Option<tool_completed::Output>,
) -> Payload {
    Payload::ToolCompleted(ToolCompleted {
        tool_call_id: format!("call-{tool}"),
        tool_name: tool_name(tool),
        status: status.into(),
        error: error.into(),
        execution_time: duration(millis),
        output,
        ..Default::default()
    })
}

/// `fetch_order` is a call of `fetch`.
fn tool_name(tool: &str) -> String {
    let name = tool.split_once('_').map_or(tool, |(name, _)| name);
    name.to_owned()
}

fn duration(millis: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: millis / 1_000,
        nanos: i32::try_from(millis % 1_000).unwrap_or(0) * 1_000_000,
    })
}

/// `text` in pieces of `count` words, which together are the text.
fn words(text: &str, count: usize) -> impl Iterator<Item = String> {
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    let pieces: Vec<String> = words.chunks(count).map(|words| words.concat()).collect();
    pieces.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_about_ten_seconds() {
        let steps = sample("u1", "r1");
        let took: Duration = steps.iter().map(|step| step.pause).sum();
        let about = Duration::from_secs(8)..Duration::from_secs(14);
        assert!(about.contains(&took), "{took:?}");
    }

    #[test]
    fn the_pieces_are_the_text() {
        assert_eq!(words(ANSWER, 2).collect::<String>(), ANSWER);
        assert_eq!(words("a b c", 2).collect::<Vec<_>>(), ["a b ", "c"]);
    }
}
