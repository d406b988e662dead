//! How engines write down what they store: records, runs, ids and sums as the messages of `emitter.stored.v1`.
//!
//! Where something stands is part of the key that it is stored under, not of these bytes. Reading trusts nothing: what
//! does not decode, or has an id that is none, is [`Corrupt`].

mod adjustment;
mod record;
mod run;

pub use record::{decode_id, decode_record, encode_id, encode_record};
pub use run::{decode_run, decode_sum, encode_run, encode_sum};

use std::time::Duration;

use bytes::Bytes;

use self::adjustment::{adjustments_in, adjustments_out};
use crate::{
    clock::Timestamp,
    event::{
        ContentHash, IdError, OpenToolCall, ProducerId, RunSequence, Source, Tokens, ToolCallId,
        ToolName, Wait, WaitId,
    },
    proto::stored as proto,
};

/// Stored bytes that are not what was once stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored bytes are damaged: {0}")]
pub struct Corrupt(String);

impl Corrupt {
    pub(super) fn new(what: &str) -> Self {
        Self(what.to_owned())
    }
}

impl From<IdError> for Corrupt {
    fn from(error: IdError) -> Self {
        Self(format!("an id {error}"))
    }
}

impl From<prost::DecodeError> for Corrupt {
    fn from(error: prost::DecodeError) -> Self {
        Self(error.to_string())
    }
}

fn corrupt<T>(what: &str) -> Result<T, Corrupt> {
    Err(Corrupt::new(what))
}

/// The id that `text` is; none if it is empty.
fn optional<T>(text: &str, id: impl Fn(&str) -> Result<T, IdError>) -> Result<Option<T>, Corrupt> {
    match text {
        "" => Ok(None),
        text => Ok(Some(id(text)?)),
    }
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn source_out(source: &Source) -> proto::Source {
    proto::Source {
        producer_id: source.producer_id.as_str().to_owned(),
        term: source.term,
    }
}

fn source_in(source: Option<proto::Source>) -> Result<Source, Corrupt> {
    let source = source.unwrap_or_default();
    Ok(Source {
        producer_id: ProducerId::new(&source.producer_id)?,
        term: source.term,
    })
}

fn tokens_out(tokens: &Tokens) -> Option<proto::Tokens> {
    Some(proto::Tokens {
        input: tokens.input,
        output: tokens.output,
        cached_input: tokens.cached_input,
        cache_write: tokens.cache_write,
        cache_write_1h: tokens.cache_write_1h,
        reasoning: tokens.reasoning,
    })
}

fn tokens_in(tokens: Option<proto::Tokens>) -> Tokens {
    let tokens = tokens.unwrap_or_default();
    Tokens {
        input: tokens.input,
        output: tokens.output,
        cached_input: tokens.cached_input,
        cache_write: tokens.cache_write,
        cache_write_1h: tokens.cache_write_1h,
        reasoning: tokens.reasoning,
    }
}

fn hash_out(hash: Option<ContentHash>) -> Bytes {
    hash.map_or_else(Bytes::new, |hash| Bytes::copy_from_slice(&hash.0))
}

/// The hash that `bytes` are; none if they are empty.
fn hash_in(bytes: &[u8]) -> Result<Option<ContentHash>, Corrupt> {
    match bytes {
        [] => Ok(None),
        bytes => match bytes.try_into() {
            Ok(hash) => Ok(Some(ContentHash(hash))),
            Err(_) => corrupt("a hash of another length"),
        },
    }
}

/// A call's number, if it is known.
fn sequence_in(sequence: u64) -> Option<RunSequence> {
    (sequence > 0).then_some(RunSequence(sequence))
}

fn wait_out(wait: &Wait) -> proto::Wait {
    proto::Wait {
        max_wait: wait.max_wait.map(millis),
        wait_id: wait.id.as_ref().map_or("", WaitId::as_str).to_owned(),
        tool_call_id: wait
            .tool_call_id
            .as_ref()
            .map_or("", ToolCallId::as_str)
            .to_owned(),
        call_sequence: wait.call.unwrap_or_default().0,
        kind: wait.kind.as_deref().unwrap_or_default().to_owned(),
    }
}

fn wait_in(wait: &proto::Wait) -> Result<Wait, Corrupt> {
    Ok(Wait {
        max_wait: wait.max_wait.map(Duration::from_millis),
        id: optional(&wait.wait_id, WaitId::new)?,
        tool_call_id: optional(&wait.tool_call_id, ToolCallId::new)?,
        call: sequence_in(wait.call_sequence),
        kind: (!wait.kind.is_empty()).then(|| wait.kind.as_str().into()),
    })
}

fn call_out(call: &OpenToolCall) -> proto::OpenToolCall {
    proto::OpenToolCall {
        id: call.id.as_str().to_owned(),
        name: call.name.as_str().to_owned(),
        started_at: call.started_at.as_millis(),
        call_sequence: call.call_sequence.0,
        arguments: hash_out(call.arguments),
    }
}

fn call_in(call: proto::OpenToolCall) -> Result<OpenToolCall, Corrupt> {
    Ok(OpenToolCall {
        call_sequence: RunSequence(call.call_sequence),
        arguments: hash_in(&call.arguments)?,
        id: ToolCallId::new(&call.id)?,
        name: ToolName::new(&call.name)?,
        started_at: Timestamp::from_millis(call.started_at),
    })
}

#[cfg(test)]
mod tests;
