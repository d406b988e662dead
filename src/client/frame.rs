//! One frame as a reader gets it.

mod fields;

use serde::Deserialize;

pub use self::fields::Fields;
use crate::event::{Epoch, Offset, Position};

/// One frame: its text, and what the reader itself must know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    text: String,
    head: Head,
}

/// The fields of any frame that matter here; which are there depends on the type.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    event_id: Option<String>,
    #[serde(default)]
    epoch: Option<String>,
    #[serde(default)]
    offset: Option<u64>,
    #[serde(default)]
    position: Option<String>,
    #[serde(default)]
    next: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    heartbeat_interval_ms: Option<u64>,
    #[serde(default)]
    reconnect_after_ms: Option<u64>,
}

/// What control frames begin with.
const CONTROL: &str = "connection_";

impl Frame {
    /// The frame with that text, if it is a JSON object with a type.
    pub fn parse(text: String) -> Option<Self> {
        let head = serde_json::from_str(&text).ok()?;
        Some(Self { text, head })
    }

    /// The text as it came: one JSON object.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The fields, each as the JSON text that it came as: numbers stay exact.
    pub fn fields(&self) -> Fields<'_> {
        Fields::of(&self.text)
    }

    /// The type, such as `agent_started`.
    pub fn kind(&self) -> &str {
        &self.head.kind
    }

    /// Whether it speaks of the connection and not of an agent.
    pub fn is_control(&self) -> bool {
        self.head.kind.starts_with(CONTROL)
    }

    /// The event's id.
    pub fn event_id(&self) -> Option<&str> {
        self.head.event_id.as_deref()
    }

    /// Where an event stands, or the position that a control frame tells.
    pub fn position(&self) -> Option<Position> {
        let head = &self.head;
        match (&head.epoch, head.offset) {
            (Some(epoch), Some(offset)) => {
                let epoch: Epoch = epoch.parse().ok()?;
                Some(Position::new(epoch, Offset(offset)))
            }
            _ => head.position.as_deref()?.parse().ok(),
        }
    }

    /// Where a gap ends: the reader's position from here on.
    pub fn next(&self) -> Option<Position> {
        self.head.next.as_deref()?.parse().ok()
    }

    /// Why there is a gap, or why the connection ends.
    pub fn reason(&self) -> Option<&str> {
        self.head.reason.as_deref()
    }

    /// The server's interval between heartbeats, in milliseconds.
    pub(super) fn heartbeat_interval_ms(&self) -> Option<u64> {
        self.head.heartbeat_interval_ms
    }

    /// How long to wait before coming back, in milliseconds.
    pub(super) fn reconnect_after_ms(&self) -> Option<u64> {
        self.head.reconnect_after_ms
    }
}
