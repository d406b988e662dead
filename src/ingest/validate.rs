//! From the bytes of one event to a validated one: complete, bounded, redacted.

use std::mem;

use bytes::Bytes;
use prost::Message;

use crate::{
    access::Principal,
    clock::{Clock, Entropy},
    event::{
        Action, Adjustments, AgentName, ContentHash, Event, EventId, Kind, OWN_IDS, ProducerId,
        RunId, Source, Step, Tenant, ThreadId, UserId,
    },
    proto::v1::{
        self, ToolCompleted, ToolStatus, agent_completed,
        event::Payload,
        tool_completed,
        tool_executing::Input::{Parameters, ParametersJson},
    },
    reason::{Reason, Refusal},
};

use super::{
    Config, canonical, check::Checker, context, fit, json, path::Path, payload, redact::Redactor,
    usage,
};

const ROOT: Path<'static> = Path::ROOT;

/// Takes events in.
pub(super) struct Intake {
    clock: Clock,
    entropy: Entropy,
    event_bytes: usize,
    depth: usize,
    redactor: Option<Redactor>,
}

/// The fields of an event that stand beside its payload.
struct Header {
    event_id: EventId,
    tenant: Option<Tenant>,
    user: UserId,
    thread_id: Option<ThreadId>,
    run_id: Option<RunId>,
    parent_run_id: Option<RunId>,
    agent_name: Option<AgentName>,
    source: Option<Source>,
    kind: Kind,
    adjustments: Adjustments,
}

impl Intake {
    /// An intake by `config`.
    pub(super) fn new(clock: Clock, entropy: Entropy, config: &Config) -> Self {
        Self {
            clock,
            entropy,
            event_bytes: config.event_bytes,
            depth: config.depth,
            redactor: Redactor::new(&config.redaction),
        }
    }

    /// Validates the event in `wire`, which `principal` emits. `scratch` is working space, to be used again.
    ///
    /// # Errors
    /// `INVALID_EVENT` with paths below the event; `TENANT_FORBIDDEN`, `USER_FORBIDDEN`.
    pub(super) fn accept(
        &self,
        wire: &[u8],
        principal: &Principal,
        scratch: &mut Vec<u8>,
    ) -> Result<Event, Refusal> {
        let mut checker = Checker::new(self.depth);
        let mut event = self.decode(wire, &mut checker)?;
        if let Some(Payload::ToolExecuting(tool)) = &mut event.payload {
            // Output only: a frame of another stream that is emitted again may have it.
            tool.call_sequence = None;
        }
        if event.event_id.is_empty() {
            event.event_id = self.entropy.uuid(self.clock.now());
        }
        let header = check(&mut event, self.event_bytes, checker)?;
        let stream = principal.may_emit_to(header.tenant.as_ref(), header.user)?;
        let source = header.source.unwrap_or_else(|| principal.source.clone());
        settle(&mut event);
        let content = content_hash(&mut event, scratch);
        self.complete(&mut event);
        let step = event.payload.as_ref().map_or(Step::Other, payload::step);
        Ok(Event {
            event_id: header.event_id,
            stream,
            run_id: header.run_id,
            thread_id: header.thread_id,
            parent_run_id: header.parent_run_id,
            agent_name: header.agent_name,
            joinable: header.kind.is_delta()
                && event.usage.is_none()
                && event.labels.is_empty()
                && header.adjustments.is_empty(),
            adjustments: header.adjustments,
            kind: header.kind,
            step,
            source,
            usage: event
                .usage
                .as_ref()
                .map(|usage| Box::new(usage::consumed(usage))),
            content,
            body: body(event),
        })
    }

    /// Decodes the event in `wire`. The end of a run or of a tool call loses its result where it is too large or nests
    /// too deep to be decoded.
    fn decode(&self, wire: &[u8], c: &mut Checker) -> Result<v1::Event, Refusal> {
        let invalid = |rule: String| Refusal::invalid_field(Reason::InvalidEvent, "", rule);
        if wire.len() <= self.event_bytes {
            return v1::Event::decode(wire).or_else(|error| {
                let rule = format!("nests deeper than {}", self.depth);
                decode_lightened(wire, 0, &rule, c)
                    .ok_or_else(|| invalid(format!("cannot be decoded: {error}")))
            });
        }
        let (too_large, half) = (too_large(self.event_bytes), self.event_bytes / 2);
        let rule = format!("the event {too_large}");
        // A result that takes up to half of the room stays, and texts make room for it.
        decode_lightened(wire, half, &rule, c)
            .or_else(|| decode_lightened(wire, 0, &rule, c))
            .ok_or_else(|| invalid(too_large))
    }

    /// Fills in what was left to the server, and hides secrets.
    fn complete(&self, event: &mut v1::Event) {
        let Some(Payload::ToolExecuting(tool)) = &mut event.payload else {
            return;
        };
        if tool.tool_call_id.is_empty() {
            tool.tool_call_id = self.entropy.uuid(self.clock.now());
        }
        let Some(redactor) = &self.redactor else {
            return;
        };
        match &mut tool.input {
            Some(Parameters(fields)) => redactor.redact_struct(fields),
            Some(ParametersJson(text)) => {
                if let Some(redacted) = redactor.redact_json(text) {
                    *text = redacted;
                }
            }
            None => {}
        }
    }
}

/// Brings what has several spellings into the one in which it is stored, so that a retry may spell it otherwise.
fn settle(event: &mut v1::Event) {
    match &mut event.payload {
        // Output only.
        Some(Payload::ToolExecuting(tool)) => tool.call_sequence = None,
        Some(Payload::ToolCompleted(tool)) => tool.set_status(status(tool)),
        _ => {}
    }
    if let Some(text) = json_twin(event)
        && let Some(normalised) = json::normalised(text)
    {
        *text = normalised;
    }
}

/// The JSON text that stands in place of a `Struct` or `Value`, if there is one.
fn json_twin(event: &mut v1::Event) -> Option<&mut String> {
    match &mut event.payload {
        Some(Payload::ToolExecuting(tool)) => match &mut tool.input {
            Some(ParametersJson(text)) => Some(text),
            _ => None,
        },
        Some(Payload::ToolCompleted(tool)) => match &mut tool.output {
            Some(tool_completed::Output::ResultJson(text)) => Some(text),
            _ => None,
        },
        Some(Payload::AgentCompleted(done)) => match &mut done.output {
            Some(agent_completed::Output::ResultJson(text)) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// The event in `wire` without a result of more than `most` bytes: none where it may be refused, or cannot be decoded all
/// the same.
fn decode_lightened(wire: &[u8], most: usize, rule: &str, c: &mut Checker) -> Option<v1::Event> {
    let light = fit::lighten(wire, most)?;
    let event = v1::Event::decode(&light.wire[..]).ok()?;
    if light.labels_dropped {
        c.adjust(&ROOT.field("labels"), Action::Dropped, rule);
    }
    if let Some((arm, result)) = light.nulled {
        c.adjust(&ROOT.field(arm).field(result), Action::Nulled, rule);
    }
    Some(event)
}

/// The rule that an event of more than `bytes` breaks.
pub(super) fn too_large(bytes: usize) -> String {
    format!("is larger than {bytes} bytes")
}

/// How a tool call ended, told by its error where it is not stated.
fn status(tool: &ToolCompleted) -> ToolStatus {
    match tool.status() {
        ToolStatus::Unspecified if tool.error.is_empty() => ToolStatus::Succeeded,
        ToolStatus::Unspecified => ToolStatus::Failed,
        stated => stated,
    }
}

/// What a retry of `event` is compared by. Source, tenant and event id are gone from it afterwards.
fn content_hash(event: &mut v1::Event, scratch: &mut Vec<u8>) -> ContentHash {
    event.event_id.clear();
    // Stated or not, it is the tenant of the stream.
    event.tenant_id.clear();
    event.source = None;
    // An honest retry may be traced anew, and have another time where its producer takes the present one.
    let occurred_at = event.occurred_at.take();
    let traceparent = mem::take(&mut event.traceparent);
    let tracestate = mem::take(&mut event.tracestate);
    let twin = json_twin(event).map(mem::take);
    scratch.clear();
    scratch.reserve(event.encoded_len());
    event.encode_raw(scratch);
    if let Some(text) = twin {
        // The length says where the fields end and the value begins.
        let fields = scratch.len().to_le_bytes();
        canonical::text(scratch, &text);
        scratch.extend_from_slice(&fields);
        if let Some(place) = json_twin(event) {
            *place = text;
        }
    }
    event.occurred_at = occurred_at;
    event.traceparent = traceparent;
    event.tracestate = tracestate;
    ContentHash::of(scratch)
}

/// The bytes of what does not stand in the header.
fn body(mut event: v1::Event) -> Bytes {
    for stated in [
        &mut event.event_id,
        &mut event.tenant_id,
        &mut event.user_id,
        &mut event.thread_id,
        &mut event.run_id,
        &mut event.parent_run_id,
        &mut event.agent_name,
    ] {
        stated.clear();
    }
    event.source = None;
    event.encode_to_vec().into()
}

/// Checks every field of `event`, whose event id is filled in, and adjusts what need not refuse it. The texts of an end
/// are cut so that it takes `most` bytes.
fn check(event: &mut v1::Event, most: usize, mut checker: Checker) -> Result<Header, Refusal> {
    let c = &mut checker;
    let event_id = event_id(&event.event_id, c);
    let tenant = c.id(&ROOT.field("tenant_id"), &event.tenant_id, Tenant::new);
    let user = c.required_id(&ROOT.field("user_id"), &event.user_id, UserId::new);
    let thread_id = c.id(&ROOT.field("thread_id"), &event.thread_id, ThreadId::new);
    let run_id = run_id(event, c);
    let parent = &event.parent_run_id;
    let parent_run_id = c.id(&ROOT.field("parent_run_id"), parent, RunId::new);
    let agent_name = agent_name(event, c);
    let source = event.source.as_ref().and_then(|stated| source(stated, c));
    context::adjust(event, c);
    if let Some(usage) = &mut event.usage {
        usage::adjust(usage, c);
    }
    let kind = match &mut event.payload {
        Some(payload) => Some(payload::check(payload, c)),
        None => {
            c.fail(&ROOT.field("payload"), "is required");
            None
        }
    };
    fit::cut_texts(event, most, &mut checker);
    let adjustments = checker.finish()?;
    match (event_id, user, kind) {
        (Some(event_id), Some(user), Some(kind)) => Ok(Header {
            event_id,
            tenant,
            user,
            thread_id,
            run_id,
            parent_run_id,
            agent_name,
            source,
            kind,
            adjustments,
        }),
        // The problem of a missing setting was noted before.
        _ => Err(Refusal::invalid(Reason::InvalidEvent, Vec::new())),
    }
}

fn event_id(text: &str, c: &mut Checker) -> Option<EventId> {
    let at = &ROOT.field("event_id");
    if text.starts_with(OWN_IDS) {
        c.fail(at, "has the prefix `emitter:`, which is the service's own");
    }
    c.required_id(at, text, EventId::new)
}

fn run_id(event: &v1::Event, c: &mut Checker) -> Option<RunId> {
    let at = &ROOT.field("run_id");
    match event.payload {
        Some(Payload::Custom(_)) => c.id(at, &event.run_id, RunId::new),
        // What belongs to a conversation may stand in it by itself.
        Some(Payload::Message(_) | Payload::StateSnapshot(_) | Payload::StateDelta(_))
            if !event.thread_id.is_empty() =>
        {
            c.id(at, &event.run_id, RunId::new)
        }
        _ => c.required_id(at, &event.run_id, RunId::new),
    }
}

fn agent_name(event: &v1::Event, c: &mut Checker) -> Option<AgentName> {
    let at = &ROOT.field("agent_name");
    match event.payload {
        Some(Payload::AgentStarted(_)) => c.required_id(at, &event.agent_name, AgentName::new),
        _ => c.id(at, &event.agent_name, AgentName::new),
    }
}

/// The source, if one is stated: a term alone names nobody.
fn source(source: &v1::Source, c: &mut Checker) -> Option<Source> {
    let at = ROOT.field("source");
    let at = at.field("producer_id");
    let producer_id = match source.term {
        0 => c.id(&at, &source.producer_id, ProducerId::new),
        _ => c.required_id(&at, &source.producer_id, ProducerId::new),
    };
    Some(Source {
        producer_id: producer_id?,
        term: source.term,
    })
}
