//! Makes the end of a run or of a tool call fit, where it is too large or nests too deep: its event must not be refused
//! for that.
//!
//! A large result is replaced before anything is decoded, since a decoded `Value` takes many times the memory of its
//! bytes. What stays are texts, which take as much as their bytes; they are cut once the event is decoded.

use bytes::{Bytes, BytesMut};
use prost::{
    Message,
    bytes::Buf,
    encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint},
};
use prost_types::value::Kind;

use super::{check::Checker, path::Path};
use crate::{
    event::Action,
    proto::v1::{self, agent_completed, event::Payload, tool_completed},
};

/// Field numbers of `emitter.v1.Event`.
mod tag {
    pub(super) const LABELS: u32 = 12;
    pub(super) const FIRST_ARM: u32 = 20;
    pub(super) const TOOL_COMPLETED: u32 = 24;
    pub(super) const AGENT_COMPLETED: u32 = 26;
    pub(super) const AGENT_FAILED: u32 = 27;
    pub(super) const AGENT_CANCELLED: u32 = 28;
    /// `google.protobuf.Value.string_value`.
    pub(super) const STRING_VALUE: u32 = 3;
}

/// `google.protobuf.Value` with `null_value`.
const NULL_VALUE: [u8; 2] = [0x08, 0x00];

/// The most bytes of labels that are decoded of an event that is too large: more than valid labels take.
const LABEL_BYTES: usize = 64 * 1024;

/// An event that was made lighter, still encoded.
pub(super) struct Lightened {
    pub(super) wire: Bytes,
    /// The arm's name and its result's, if the result was replaced by null.
    pub(super) nulled: Option<(&'static str, &'static str)>,
    /// Whether labels were left out.
    pub(super) labels_dropped: bool,
}

/// An arm that must not be refused.
#[derive(Clone, Copy)]
struct Arm {
    name: &'static str,
    /// The field numbers of `result` and `result_json`.
    results: Option<(u32, u32)>,
}

impl Arm {
    fn of(tag: u32) -> Option<Self> {
        let (name, results) = match tag {
            tag::TOOL_COMPLETED => ("tool_completed", Some((6, 7))),
            tag::AGENT_COMPLETED => ("agent_completed", Some((3, 4))),
            tag::AGENT_FAILED => ("agent_failed", None),
            tag::AGENT_CANCELLED => ("agent_cancelled", None),
            _ => return None,
        };
        Some(Self { name, results })
    }
}

/// The event in `wire` with null as its result where that takes more than `most` bytes and is no text, and without labels
/// beyond a bound. `None` where `wire` is malformed, or its arm may be refused.
pub(super) fn lighten(wire: &[u8], most: usize) -> Option<Lightened> {
    let mut out = BytesMut::with_capacity(wire.len());
    let (mut nulled, mut labels, mut labels_dropped) = (None, 0, false);
    let mut only_arm = None;
    let mut rest = wire;
    while let Some(field) = Field::next(&mut rest)? {
        match field.tag {
            tag::LABELS => {
                labels += field.all.len();
                if labels > LABEL_BYTES {
                    labels_dropped = true;
                    continue;
                }
                out.extend_from_slice(field.all);
            }
            // Of several arms the last counts; no producer sends two.
            arm if arm >= tag::FIRST_ARM => {
                if *only_arm.get_or_insert(arm) != arm {
                    return None;
                }
                let payload = lighten_payload(Arm::of(arm)?, field.value?, most, &mut nulled)?;
                delimit(&mut out, arm, &payload);
            }
            _ => out.extend_from_slice(field.all),
        }
    }
    only_arm?;
    Some(Lightened {
        wire: out.freeze(),
        nulled,
        labels_dropped,
    })
}

fn lighten_payload(
    arm: Arm,
    payload: &[u8],
    most: usize,
    nulled: &mut Option<(&'static str, &'static str)>,
) -> Option<BytesMut> {
    let mut out = BytesMut::with_capacity(payload.len());
    let mut rest = payload;
    while let Some(field) = Field::next(&mut rest)? {
        let large = field.value.is_some_and(|value| value.len() > most);
        match arm.results {
            Some((result, _)) if field.tag == result && large && !field.is_text() => {
                *nulled = Some((arm.name, "result"));
                delimit(&mut out, result, &NULL_VALUE);
            }
            Some((_, json)) if field.tag == json && large => {
                *nulled = Some((arm.name, "result_json"));
                delimit(&mut out, json, b"null");
            }
            _ => out.extend_from_slice(field.all),
        }
    }
    Some(out)
}

/// One field of an encoded message.
struct Field<'a> {
    tag: u32,
    /// Key and value.
    all: &'a [u8],
    /// The value, if it is length-delimited.
    value: Option<&'a [u8]>,
}

impl<'a> Field<'a> {
    /// The next field of `rest`; `Some(None)` at its end, `None` where it is malformed.
    #[allow(clippy::option_option)]
    fn next(rest: &mut &'a [u8]) -> Option<Option<Self>> {
        let start = *rest;
        if start.is_empty() {
            return Some(None);
        }
        let (tag, wire_type) = decode_key(rest).ok()?;
        let length = match wire_type {
            WireType::Varint => {
                decode_varint(rest).ok()?;
                0
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => usize::try_from(decode_varint(rest).ok()?).ok()?,
            // Groups never were part of this contract.
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        let value = rest.get(..length)?;
        rest.advance(length);
        let all = &start[..start.len() - rest.len()];
        let value = (wire_type == WireType::LengthDelimited).then_some(value);
        Some(Some(Self { tag, all, value }))
    }

    /// Whether the value is a `google.protobuf.Value` that is a text and nothing else.
    fn is_text(&self) -> bool {
        let Some(mut rest) = self.value else {
            return false;
        };
        let first = Self::next(&mut rest);
        let is_text = |field: Self| field.tag == tag::STRING_VALUE && field.value.is_some();
        rest.is_empty() && first.flatten().is_some_and(is_text)
    }
}

fn delimit(out: &mut BytesMut, tag: u32, value: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Cuts the texts of `event`, if it takes more than `most` bytes: the longer of its result and its words for the person,
/// then the other.
pub(super) fn cut_texts(event: &mut v1::Event, most: usize, c: &mut Checker) {
    for _ in 0..2 {
        let excess = event.encoded_len().saturating_sub(most);
        if excess == 0 {
            return;
        }
        let Some((arm, field, text)) = event.payload.as_mut().and_then(longest_text) else {
            return;
        };
        let mut end = text.len().saturating_sub(excess);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        let rule = format!("the event is larger than {most} bytes");
        c.adjust(&Path::ROOT.field(arm).field(field), Action::Truncated, rule);
    }
}

/// The longest text of an arm that must not be refused, with the names of arm and field.
fn longest_text(payload: &mut Payload) -> Option<(&'static str, &'static str, &mut String)> {
    let (arm, words, result) = match payload {
        Payload::ToolCompleted(p) => {
            let result = match &mut p.output {
                Some(tool_completed::Output::Result(value)) => value.kind.as_mut(),
                _ => None,
            };
            ("tool_completed", ("error", &mut p.error), result)
        }
        Payload::AgentCompleted(p) => {
            let result = match &mut p.output {
                Some(agent_completed::Output::Result(value)) => value.kind.as_mut(),
                _ => None,
            };
            ("agent_completed", ("message", &mut p.message), result)
        }
        Payload::AgentFailed(p) => ("agent_failed", ("message", &mut p.message), None),
        Payload::AgentCancelled(p) => ("agent_cancelled", ("reason", &mut p.reason), None),
        _ => return None,
    };
    let (field, text) = match result {
        Some(Kind::StringValue(text)) if text.len() > words.1.len() => ("result", text),
        _ => words,
    };
    Some((arm, field, text))
}
