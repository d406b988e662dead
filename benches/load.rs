//! Runs as agents emit them.

use std::collections::VecDeque;

use emitter::proto::v1::{
    AgentCompleted, AgentStarted, AgentThinking, Event, Message, Source, TextDelta, ThinkingDelta,
    ToolCompleted, ToolExecuting, ToolProgress, Usage, event::Payload, tool_executing,
};

/// How many users the agents of one host serve.
const USERS: usize = 12;

/// How many events of one user follow each other in a batch.
const BURST: usize = 5;

/// One run in so many starts a sub-agent.
const FAMILIES: usize = 4;

/// A process that agents run in. Each of its users has one run at a time.
pub(crate) struct Host {
    name: String,
    users: VecDeque<User>,
    emitted: usize,
}

struct User {
    name: String,
    runs: usize,
    /// What the run under way has still to emit.
    script: VecDeque<Event>,
}

impl Host {
    pub(crate) fn new(number: usize) -> Self {
        let user = |user| User {
            name: format!("user-{number}-{user}"),
            // Not all of them start a family at once.
            runs: user,
            script: VecDeque::new(),
        };
        Self {
            name: format!("agents-7d4b9c6f5-{number}"),
            users: (0..USERS).map(user).collect(),
            emitted: 0,
        }
    }

    /// The next `count` events of its users, a few of each in turn.
    pub(crate) fn batch(&mut self, count: usize) -> Vec<Event> {
        let mut batch = Vec::with_capacity(count);
        while batch.len() < count {
            self.users.rotate_left(1);
            let Some(user) = self.users.front_mut() else {
                break;
            };
            for _ in 0..BURST.min(count - batch.len()) {
                self.emitted += 1;
                batch.push(Event {
                    event_id: format!("{}-{:016}", self.name, self.emitted),
                    user_id: user.name.clone(),
                    source: Some(Source {
                        producer_id: self.name.clone(),
                        term: 1,
                    }),
                    ..user.next()
                });
            }
        }
        batch
    }
}

impl User {
    fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.script.pop_front() {
                return event;
            }
            self.runs += 1;
            let run = format!("run-{}-{:012}", self.name, self.runs);
            self.script = match self.runs % FAMILIES {
                0 => family(&run),
                _ => alone(&run),
            };
        }
    }
}

/// What a run emits that works alone.
fn alone(run: &str) -> VecDeque<Event> {
    let parts = [vec![started(run)], work(run), vec![completed(run)]];
    parts.into_iter().flatten().collect()
}

/// What a run emits that has a part of its work done by another.
fn family(run: &str) -> VecDeque<Event> {
    let below = format!("{run}-researcher");
    let start = Event {
        parent_run_id: run.to_owned(),
        ..started(&below)
    };
    let parts = [
        vec![started(run), start],
        work(&below),
        vec![completed(&below)],
        work(run),
        vec![completed(run)],
    ];
    parts.into_iter().flatten().collect()
}

fn started(run: &str) -> Event {
    Event {
        thread_id: "thread-01890a5d".into(),
        agent_name: "researcher".into(),
        ..event(
            run,
            Payload::AgentStarted(AgentStarted {
                message: "Looking for the best offer".into(),
                ..Default::default()
            }),
        )
    }
}

/// Thinks, calls two tools, and answers.
fn work(run: &str) -> Vec<Event> {
    let thinking = AgentThinking {
        reasoning: "Comparing the three candidates by price and delivery date.".into(),
        step_number: Some(3),
        ..Default::default()
    };
    let thinking = spending(event(run, Payload::AgentThinking(thinking)));
    let mut events = vec![thinking];
    events.extend(thinking_deltas(run));
    events.extend(tool_call(run, "call-1"));
    events.extend(tool_call(run, "call-2"));
    events.extend(text_deltas(run));
    let message = Message {
        message_id: "message-1".into(),
        role: "assistant".into(),
        text: "The second offer is the cheapest that arrives before Friday.".into(),
    };
    events.push(spending(event(run, Payload::Message(message))));
    events
}

fn thinking_deltas(run: &str) -> impl Iterator<Item = Event> {
    ["The second ", "offer has the ", "lower total"]
        .into_iter()
        .map(|text| {
            let delta = ThinkingDelta {
                message_id: "message-0".into(),
                text: text.into(),
            };
            event(run, Payload::ThinkingDelta(delta))
        })
}

fn text_deltas(run: &str) -> impl Iterator<Item = Event> {
    [
        "The second ",
        "offer is ",
        "the cheapest ",
        "that arrives ",
        "before Friday.",
    ]
    .into_iter()
    .map(|text| {
        let delta = TextDelta {
            message_id: "message-1".into(),
            role: "assistant".into(),
            text: text.into(),
        };
        event(run, Payload::TextDelta(delta))
    })
}

fn tool_call(run: &str, call: &str) -> [Event; 3] {
    let tool = "search_offers";
    let executing = ToolExecuting {
        tool_call_id: call.into(),
        tool_name: tool.into(),
        description: "Searching offers".into(),
        input: Some(tool_executing::Input::ParametersJson(
            r#"{"query":"desk lamp","max_price":80}"#.into(),
        )),
        ..Default::default()
    };
    let progress = ToolProgress {
        tool_call_id: call.into(),
        fraction: Some(0.5),
        message: "page 2 of 4".into(),
        ..Default::default()
    };
    let completed = ToolCompleted {
        tool_call_id: call.into(),
        tool_name: tool.into(),
        ..Default::default()
    };
    [
        event(run, Payload::ToolExecuting(executing)),
        event(run, Payload::ToolProgress(progress)),
        event(run, Payload::ToolCompleted(completed)),
    ]
}

fn completed(run: &str) -> Event {
    let completed = AgentCompleted {
        message: "Found one".into(),
        ..Default::default()
    };
    event(run, Payload::AgentCompleted(completed))
}

fn spending(event: Event) -> Event {
    let usage = Usage {
        provider: "anthropic".into(),
        model: "claude".into(),
        input_tokens: 1_200,
        output_tokens: 80,
        ..Default::default()
    };
    Event {
        usage: Some(usage),
        ..event
    }
}

fn event(run: &str, payload: Payload) -> Event {
    Event {
        run_id: run.to_owned(),
        payload: Some(payload),
        ..Default::default()
    }
}
