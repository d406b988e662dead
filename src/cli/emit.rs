//! `emitter emit`.

mod answer;
mod lines;

use std::{collections::BTreeMap, process::ExitCode};

use clap::Args;
use prost::Message as _;
use serde_json::value::{RawValue, Value, to_raw_value};

use self::lines::Lines;
use super::{Environment, Failure, input, say, target::Target, text::plain, warn};
use crate::{
    access::Scope,
    client::{Fate, Producer, ProducerConfig},
    proto::v1::Event,
};

/// Emit events
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  emitter emit --user demo --run r1 --type agent_started --agent researcher \\
    --message 'On it'
  emitter emit --user demo --run r1 --type tool_executing --tool search \\
    --data '{\"parameters\": {\"q\": \"x\"}}'
  emitter emit --user demo --run r1 --type agent_completed --message Done
  emitter emit --user demo --type cart.updated --data '{\"items\": 3}'
      a type that is not the contract's is the platform's own

  emitter emit --stdin < events.jsonl
      one JSON object per line, as `emitter tail --json` prints them:
      {\"type\": \"agent_started\", \"user_id\": \"demo\", \"run_id\": \"r1\",
       \"agent_name\": \"a\", \"payload\": {\"message\": \"On it\"}}
  emitter tail --json --user demo --from oldest --count 5 | \\
    emitter emit - --user copy --run r2 --fresh-ids
      one user's events once more, to another user and as another run

Exit code 1 if any event was refused.")]
pub(super) struct Emit {
    /// The user whose stream it goes to
    #[arg(long)]
    user: Option<String>,
    /// The run
    #[arg(long)]
    run: Option<String>,
    /// The thread
    #[arg(long)]
    thread: Option<String>,
    /// The agent's name
    #[arg(long)]
    agent: Option<String>,
    /// The type, such as agent_started
    #[arg(long = "type", value_name = "TYPE", required_unless_present_any = ["stdin", "from_stdin"])]
    kind: Option<String>,
    /// The event's id: the same event sent again under it is stored once
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
    /// What it says to the person: the type's field for that
    #[arg(long)]
    message: Option<String>,
    /// The tool's name
    #[arg(long)]
    tool: Option<String>,
    /// The tool call's id
    #[arg(long, value_name = "ID")]
    call: Option<String>,
    /// The payload as a JSON object; the flags above come on top
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// Read events from standard input, one JSON object per line; --user, --run, --thread and --agent replace theirs
    #[arg(long, conflicts_with_all = ["kind", "event_id", "message", "tool", "call", "data"])]
    stdin: bool,
    /// The same as --stdin
    #[arg(value_name = "-", value_parser = ["-"], conflicts_with_all = ["kind", "event_id", "message", "tool", "call", "data"])]
    from_stdin: Option<String>,
    /// Give every event from standard input a new id
    #[arg(long)]
    fresh_ids: bool,
    /// How many events to send at once
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch: u16,
    /// Print the answers as JSON lines
    #[arg(long, env = "EMITTER_JSON")]
    json: bool,
    /// The service's gRPC address, such as http://127.0.0.1:50051 [default: that of `emitter dev`]
    #[arg(long, value_name = "URL", env = "EMITTER_GRPC")]
    grpc: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// The most bytes of events in a batch; the service takes 4 MiB, with what surrounds them.
const BATCH_BYTES: usize = 3 << 20;

impl Emit {
    pub(super) fn run(&self, environment: &Environment) -> Result<ExitCode, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let refused = runtime.block_on(async {
            if self.stdin || self.from_stdin.is_some() {
                return self.emit_lines(&self.producer(environment)?).await;
            }
            // Wrong flags are told before a service is looked for.
            let event = self.event().map_err(Failure::Usage)?;
            let answer = self.producer(environment)?.emit(event).await;
            self.print(&answer)?;
            Ok(usize::from(answer.is_err()))
        });
        // A read of standard input may be under way that nobody waits for any more.
        runtime.shutdown_background();
        Ok(if refused? == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn producer(&self, environment: &Environment) -> Result<Producer, Failure> {
        let (address, credential) = self.target.resolve(
            self.grpc.as_deref(),
            |session| &session.grpc,
            (Some("emitter-cli"), Scope::Emit),
            environment,
        )?;
        Ok(Producer::new(
            address,
            credential,
            ProducerConfig::default(),
        )?)
    }

    /// The event that the flags describe.
    fn event(&self) -> Result<Event, String> {
        let kind = self.kind.clone().unwrap_or_default();
        let payload = self.payload(&kind)?;
        let line = format!(r#"{{"type":{},"payload":{payload}}}"#, Value::from(kind));
        let event = input::event(&line)?.ok_or("--type: `connection_…` is the service's own")?;
        let event_id = self.event_id.clone().unwrap_or_default();
        Ok(self.replaced(Event { event_id, ..event }))
    }

    /// The payload that the flags describe, as the text of a JSON object.
    fn payload(&self, kind: &str) -> Result<String, String> {
        let data = self.data.as_deref().unwrap_or("{}");
        // Kept as texts, so that numbers keep their digits.
        let mut payload: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(data).map_err(|error| format!("--data: {error}"))?;
        let mut add = |field: &str, text: &str| {
            let text = to_raw_value(text).map_err(|error| error.to_string())?;
            payload.insert(field.to_owned(), text);
            Ok::<(), String>(())
        };
        if let Some(text) = &self.message {
            let shown = plain(kind);
            let none = || format!("--message: `{shown}` has no field for it; use --data");
            add(words(kind).ok_or_else(none)?, text)?;
        }
        if let Some(text) = &self.tool {
            add("tool_name", text)?;
        }
        if let Some(text) = &self.call {
            add("tool_call_id", text)?;
        }
        serde_json::to_string(&payload).map_err(|error| error.to_string())
    }

    /// The event with what the flags say of it.
    fn replaced(&self, mut event: Event) -> Event {
        let given = [
            (&self.user, &mut event.user_id),
            (&self.run, &mut event.run_id),
            (&self.thread, &mut event.thread_id),
            (&self.agent, &mut event.agent_name),
        ];
        for (text, field) in given {
            if let Some(text) = text {
                field.clone_from(text);
            }
        }
        if self.fresh_ids {
            event.event_id.clear();
        }
        event
    }

    /// Emits what comes on standard input, batch by batch, and returns how many events were refused.
    async fn emit_lines(&self, producer: &Producer) -> Result<usize, Failure> {
        let mut input = Lines::of_stdin();
        let mut refused = 0;
        while !input.ended() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            while batch.len() < usize::from(self.batch) && bytes < BATCH_BYTES {
                // The first line is waited for, however long it takes.
                let Some(line) = input.next(!batch.is_empty()).await? else {
                    break;
                };
                match input::event(&line) {
                    Ok(Some(event)) => {
                        let event = self.replaced(event);
                        bytes += event.encoded_len();
                        batch.push(event);
                    }
                    Ok(None) => {}
                    Err(problem) => {
                        warn(&format!("line {}: {}", input.number(), plain(&problem)));
                        refused += 1;
                    }
                }
            }
            if !batch.is_empty() {
                refused += self.emit_batch(producer, batch).await?;
            }
        }
        Ok(refused)
    }

    /// Emits `events`, prints the answers, and returns how many were refused.
    async fn emit_batch(&self, producer: &Producer, events: Vec<Event>) -> Result<usize, Failure> {
        let mut refused = 0;
        for answer in producer.emit_batch(events).await {
            refused += usize::from(answer.is_err());
            self.print(&answer)?;
        }
        Ok(refused)
    }

    fn print(&self, answer: &Fate) -> Result<(), Failure> {
        say(&if self.json {
            answer::json(answer)
        } else {
            answer::plain_text(answer)
        })
    }
}

/// The field of a payload that speaks to the person.
fn words(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "agent_started" | "agent_completed" | "agent_failed" | "tool_progress" => "message",
        "agent_thinking" => "reasoning",
        "agent_cancelled" => "reason",
        "agent_waiting" => "prompt",
        "agent_resumed" => "wait_id",
        "tool_executing" => "description",
        "text_delta" | "thinking_delta" | "message" => "text",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
