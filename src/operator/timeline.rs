//! What happened in a run, event by event, from its user's log.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use prost::Message as _;

use crate::{
    clock::Timestamp,
    engine::{Engine, EngineError, KnownRun, ReadLimit},
    event::{Draft, Epoch, Offset, Record, RunSequence, Source, Step, ToolCallId},
    proto::v1::{self, ToolStatus, event::Payload},
};

/// How many events are shown; earlier ones are left out.
const ITEMS: usize = 1_000;

/// How many characters of an event's text are shown.
const CHARS: usize = 200;

/// How much of the log is read at once.
const PAGE: ReadLimit = ReadLimit {
    records: 512,
    bytes: 1 << 20,
};

/// The retained events of a run.
#[derive(Debug)]
pub(super) struct Timeline {
    /// In order, the last `ITEMS`.
    pub(super) items: Vec<v1::TimelineItem>,
    /// Whether there were earlier ones.
    pub(super) truncated: bool,
    /// The incarnation of the stream.
    pub(super) epoch: Epoch,
}

/// The last events of a run as they are read, and how long its tool calls took.
#[derive(Default)]
struct Last {
    events: VecDeque<(Arc<Record>, Option<Duration>)>,
    /// When the tool calls that are open at this point began: no more than a run may have open.
    begun: HashMap<Call, Timestamp>,
}

/// A tool call: its begin's number or, where an earlier version stored it, its id.
#[derive(PartialEq, Eq, Hash)]
enum Call {
    Sequence(RunSequence),
    Id(ToolCallId),
}

impl Call {
    fn of(sequence: Option<RunSequence>, id: &ToolCallId) -> Self {
        sequence.map_or_else(|| Self::Id(id.clone()), Self::Sequence)
    }
}

impl Timeline {
    /// The timeline of `known`, up to the event that it is known as of.
    pub(super) async fn of(engine: &dyn Engine, known: &KnownRun) -> Result<Self, EngineError> {
        let run = &known.run;
        let mut last = Last::default();
        let mut after = Offset(run.start.0.saturating_sub(1));
        loop {
            let page = engine.read(&known.stream, after, PAGE).await?;
            let read_to = page.records.last().map(|record| record.position.offset);
            for record in page.records {
                let of_run = record.draft.event.run_id.as_ref() == Some(&known.run_id);
                if of_run && record.position.offset <= run.last {
                    last.push(record);
                }
            }
            match read_to.filter(|read_to| *read_to < run.last) {
                Some(read_to) => after = read_to,
                None => return Ok(last.into_timeline(page.head.epoch)),
            }
            // A long log would hold up a single-threaded runtime.
            tokio::task::consume_budget().await;
        }
    }
}

impl Last {
    fn push(&mut self, record: Arc<Record>) {
        let recorded_at = record.draft.recorded_at;
        let took = match &record.draft.step {
            Step::ToolBegins { id, call, .. } => {
                let call = Call::of(*call, id);
                self.begun.entry(call).or_insert(recorded_at);
                None
            }
            Step::ToolEnds {
                id: Some(id), call, ..
            } => self.begun.remove(&Call::of(*call, id)),
            _ => None,
        };
        let took = took.map(|begun| recorded_at.since(begun));
        self.events.push_back((record, took));
        if self.events.len() > ITEMS {
            self.events.pop_front();
        }
    }

    fn into_timeline(self, epoch: Epoch) -> Timeline {
        let first = self.events.front();
        let begins = first.is_some_and(|(record, _)| record.draft.run_sequence.0 == 1);
        let mut source = None;
        let items = self.events.iter().map(|(record, took)| {
            let before = source.replace(&record.draft.event.source);
            item(record, *took, before)
        });
        Timeline {
            items: items.collect(),
            truncated: !begins,
            epoch,
        }
    }
}

fn item(record: &Record, took: Option<Duration>, before: Option<&Source>) -> v1::TimelineItem {
    let draft = &record.draft;
    let event = &draft.event;
    // An event that cannot be read is shown without what it says.
    let body = v1::Event::decode(event.body.clone()).unwrap_or_default();
    let said = body.payload.map(|payload| Said::by(payload, draft));
    let said = said.unwrap_or_default();
    v1::TimelineItem {
        position: Some(record.position.into()),
        run_sequence: draft.run_sequence.0,
        recorded_at: Some(draft.recorded_at.into()),
        r#type: event.kind.wire_type().to_owned(),
        text: one_line(&said.text),
        tool_call_id: said.tool_call_id,
        tool_name: said.tool_name,
        duration: took.and_then(|took| took.try_into().ok()),
        step_number: said.step_number,
        source: (before != Some(&event.source)).then(|| (&event.source).into()),
        violation: draft
            .violation
            .map_or_else(String::new, |reason| reason.name().to_owned()),
        usage: body.usage,
        adjustments: event.adjustments.to_proto(),
        cost: draft.cost.map(Into::into),
        call_sequence: draft.step.call().map(|call| call.0),
        message_id: said.message_id,
        role: said.role,
    }
}

/// What an event says, of all that it holds.
#[derive(Default)]
struct Said {
    text: String,
    tool_call_id: String,
    tool_name: String,
    step_number: Option<u32>,
    message_id: String,
    role: String,
}

impl Said {
    fn by(payload: Payload, draft: &Draft) -> Self {
        let text = |text| Self {
            text,
            ..Self::default()
        };
        match payload {
            Payload::AgentStarted(said) => text(said.message),
            Payload::AgentThinking(said) => Self {
                step_number: said.step_number,
                message_id: said.message_id,
                ..text(said.reasoning)
            },
            Payload::ThinkingDelta(said) => Self {
                message_id: said.message_id,
                ..text(said.text)
            },
            Payload::ToolExecuting(said) => Self {
                tool_call_id: said.tool_call_id,
                tool_name: said.tool_name,
                ..text(said.description)
            },
            Payload::ToolCompleted(said) => tool_completed(said, draft),
            Payload::ToolProgress(said) => Self {
                tool_call_id: match &draft.step {
                    Step::ToolAdvances { id: Some(id), .. } => id.as_str().to_owned(),
                    _ => said.tool_call_id,
                },
                ..text(joined(&[&percent(said.fraction), &said.message], " "))
            },
            Payload::AgentCompleted(said) => text(said.message),
            Payload::AgentFailed(said) => text(joined(&[&said.code, &said.message], ": ")),
            Payload::AgentCancelled(said) => text(said.reason),
            Payload::AgentWaiting(said) => Self {
                tool_call_id: said.tool_call_id,
                ..text(joined(&[&said.wait_id, &said.reason, &said.prompt], ": "))
            },
            Payload::AgentResumed(said) => text(said.wait_id),
            Payload::TextDelta(said) => Self {
                message_id: said.message_id,
                role: said.role,
                ..text(said.text)
            },
            Payload::Message(said) => Self {
                message_id: said.message_id,
                role: said.role,
                ..text(said.text)
            },
            Payload::StateDelta(said) => text(match said.operations.len() {
                1 => "1 operation".into(),
                count => format!("{count} operations"),
            }),
            Payload::StateSnapshot(_) | Payload::Custom(_) => Self::default(),
        }
    }
}

/// A call that did its work says nothing; one that ended otherwise says so in any case.
fn tool_completed(said: v1::ToolCompleted, draft: &Draft) -> Said {
    let outcome = match said.status() {
        ToolStatus::Failed => "failed",
        ToolStatus::Cancelled => "cancelled",
        ToolStatus::Denied => "denied",
        ToolStatus::Succeeded | ToolStatus::Unspecified => "",
    };
    let text = match (said.status(), said.error.as_str()) {
        (_, "") => outcome.to_owned(),
        (ToolStatus::Cancelled | ToolStatus::Denied, error) => joined(&[outcome, error], ": "),
        (_, error) => error.to_owned(),
    };
    let settled = match &draft.step {
        Step::ToolEnds { id, name, .. } => (id.as_ref(), name.as_ref()),
        _ => (None, None),
    };
    let call = settled.0.map(|id| id.as_str().to_owned());
    let tool = settled.1.map(|name| name.as_str().to_owned());
    Said {
        text,
        tool_call_id: call.unwrap_or(said.tool_call_id),
        tool_name: tool.unwrap_or(said.tool_name),
        ..Said::default()
    }
}

fn percent(fraction: Option<f64>) -> String {
    fraction.map_or_else(String::new, |fraction| format!("{:.0}%", fraction * 100.0))
}

/// Those of `parts` that are not empty.
fn joined(parts: &[&str], by: &str) -> String {
    let said = parts.iter().filter(|part| !part.is_empty());
    said.copied().collect::<Vec<_>>().join(by)
}

/// `text` as one line of at most `CHARS` characters.
fn one_line(text: &str) -> String {
    let shown = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    match text.char_indices().nth(CHARS) {
        None => shown.collect(),
        Some(_) => shown.take(CHARS - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests;
