//! What a reader is told beside its events.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::{
    frame::{Encoding, position},
    json::Object,
    runs, sse,
};
use crate::{
    clock::Timestamp,
    event::Position,
    fanout::{Gap, GapReason, OpenRun},
    proto::v1::{self, subscribe_response::Item},
    reason::Reason,
};

/// A control frame.
#[derive(Debug)]
pub(super) enum Control<'a> {
    /// The stream begins. Always first.
    Established {
        /// Names the connection in logs.
        connection_id: &'a str,
        /// Whose stream it is.
        user_id: &'a str,
        /// What follows is after this.
        position: Position,
        /// How often the connection gives a sign of life.
        heartbeat: Duration,
        /// What is open there or later.
        open_runs: &'a [OpenRun],
    },
    /// The connection lives; the reader has been sent everything up to here.
    Heartbeat(Position),
    /// Events may be missing here; these runs are open behind it.
    Gap(Gap, &'a [OpenRun]),
    /// The reader has everything up to here that its filter admits.
    CaughtUp(Position),
    /// The credential ends soon.
    TokenExpiring {
        /// When it ends.
        at: Timestamp,
        /// How long that is from now.
        after: Duration,
    },
    /// The server ends the stream.
    Closing(Closing),
    /// What the client sent was not understood, or refused. The stream goes on.
    Error {
        /// Why.
        reason: Reason,
        /// For a person.
        message: &'a str,
    },
}

/// Why and how the server ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closing {
    /// Why.
    pub(super) reason: Reason,
    /// How long to wait before coming back; `None`: do not come back.
    pub(super) reconnect_after: Option<Duration>,
}

impl Control<'_> {
    /// The frame in `encoding`; `None` where that has no such frame.
    pub(super) fn encode(&self, encoding: Encoding) -> Option<Bytes> {
        match encoding {
            Encoding::Json => Some(self.json()),
            Encoding::Sse => Some(self.sse()),
            Encoding::Proto => self.proto(),
        }
    }

    /// The frame as a JSON object.
    pub(super) fn json(&self) -> Bytes {
        let mut out = Vec::with_capacity(192);
        let mut frame = Object::begin(&mut out);
        frame.plain("type", self.wire_type());
        self.fields(&mut frame);
        frame.end();
        Bytes::from(out)
    }

    /// The same object as an event. Where the frame names a position that the reader has reached, it resumes there.
    fn sse(&self) -> Bytes {
        let (reached, retry) = match self {
            Self::Established { position, .. }
            | Self::Heartbeat(position)
            | Self::CaughtUp(position) => (Some(*position), None),
            Self::Gap(gap, _) => (Some(gap.next), None),
            Self::Closing(closing) => (None, closing.reconnect_after),
            Self::TokenExpiring { .. } | Self::Error { .. } => (None, None),
        };
        sse::event(reached, retry, &self.json())
    }

    fn wire_type(&self) -> &'static str {
        match self {
            Self::Established { .. } => "connection_established",
            Self::Heartbeat(_) => "connection_heartbeat",
            Self::Gap(..) => "connection_gap",
            Self::CaughtUp(_) => "connection_caught_up",
            Self::TokenExpiring { .. } => "connection_token_expiring",
            Self::Closing(_) => "connection_closing",
            Self::Error { .. } => "connection_error",
        }
    }

    fn fields(&self, frame: &mut Object<'_>) {
        match self {
            Self::Established {
                connection_id,
                user_id,
                position,
                heartbeat,
                open_runs,
            } => {
                frame.text("connection_id", connection_id);
                frame.text("user_id", user_id);
                frame.plain("position", position);
                frame.integer("heartbeat_interval_ms", millis(*heartbeat));
                runs::open_json(frame.field("open_runs"), open_runs);
            }
            Self::Heartbeat(position) | Self::CaughtUp(position) => {
                frame.plain("position", position);
            }
            Self::Gap(gap, open_runs) => {
                frame.plain("reason", gap_name(gap.reason));
                frame.plain("after", gap.after);
                frame.plain("next", gap.next);
                runs::open_json(frame.field("open_runs"), open_runs);
            }
            Self::TokenExpiring { at, after } => {
                frame.plain("expires_at", at);
                frame.integer("expires_in_ms", millis(*after));
            }
            Self::Closing(closing) => {
                frame.plain("reason", closing.reason.name());
                if let Some(after) = closing.reconnect_after {
                    frame.integer("reconnect_after_ms", millis(after));
                }
            }
            Self::Error { reason, message } => {
                frame.plain("reason", reason.name());
                frame.text("message", message);
            }
        }
    }

    fn proto(&self) -> Option<Bytes> {
        let item = match self {
            Self::Established {
                connection_id,
                user_id,
                position: at,
                heartbeat: _,
                open_runs,
            } => Item::Established(v1::Established {
                connection_id: (*connection_id).to_owned(),
                user_id: (*user_id).to_owned(),
                position: Some(position(*at)),
                open_runs: open_runs.iter().map(runs::open).collect(),
            }),
            Self::Gap(gap, open_runs) => Item::Gap(v1::Gap {
                reason: gap_code(gap.reason).into(),
                after: Some(position(gap.after)),
                next: Some(position(gap.next)),
                open_runs: open_runs.iter().map(runs::open).collect(),
            }),
            Self::CaughtUp(at) => Item::CaughtUp(v1::CaughtUp {
                position: Some(position(*at)),
            }),
            Self::Closing(closing) => Item::Closing(v1::Closing {
                reason: closing.reason.name().to_owned(),
                // Out of range is beyond any wait that is ever told.
                reconnect_after: closing
                    .reconnect_after
                    .and_then(|after| after.try_into().ok()),
            }),
            Self::Heartbeat(_) | Self::TokenExpiring { .. } | Self::Error { .. } => return None,
        };
        Some(
            v1::SubscribeResponse { item: Some(item) }
                .encode_to_vec()
                .into(),
        )
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn gap_name(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Trimmed => "trimmed",
        GapReason::EpochChanged => "epoch_changed",
        GapReason::PositionAhead => "position_ahead",
    }
}

fn gap_code(reason: GapReason) -> v1::GapReason {
    match reason {
        GapReason::Trimmed => v1::GapReason::Trimmed,
        GapReason::EpochChanged => v1::GapReason::EpochChanged,
        GapReason::PositionAhead => v1::GapReason::PositionAhead,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        egress::fixtures::document,
        event::{Epoch, Offset},
        fanout::open_run,
        run::RunState,
    };

    fn at(offset: u64) -> Position {
        Position::new(Epoch::new(0xab), Offset(offset))
    }

    /// A run without anything that a run may lack.
    fn bare() -> OpenRun {
        let mut open = open_run(6, "t1");
        open.run.state = RunState::Running;
        open.run.thread_id = None;
        open.run.parent_run_id = None;
        open.run.open_tool_calls.clear();
        open.run.open_waits.clear();
        open
    }

    /// `open_run(5, "t1")` as the protocol has it.
    fn waiting() -> v1::OpenRun {
        let at = prost_types::Timestamp {
            seconds: 1_795_255_200,
            nanos: 123_000_000,
        };
        v1::OpenRun {
            run_id: "r5".to_owned(),
            agent_name: "researcher".to_owned(),
            state: v1::RunState::Waiting.into(),
            started_at: Some(at),
            open_tool_calls: vec![v1::OpenToolCall {
                tool_call_id: "c1".to_owned(),
                tool_name: "search".to_owned(),
                started_at: Some(at),
                call_sequence: 1,
            }],
            thread_id: "t1".to_owned(),
            parent_run_id: "r0".to_owned(),
            open_waits: vec![v1::OpenWait {
                run_sequence: 1,
                started_at: Some(at),
                expires_at: Some(at),
                ..Default::default()
            }],
        }
    }

    fn gap() -> Gap {
        Gap {
            reason: GapReason::EpochChanged,
            after: at(3),
            next: at(9),
        }
    }

    fn closing(reason: Reason, reconnect_after: Option<u64>) -> Control<'static> {
        Control::Closing(Closing {
            reason,
            reconnect_after: reconnect_after.map(Duration::from_millis),
        })
    }

    #[test]
    fn json_control_frames() {
        let cases = [
            (
                Control::Established {
                    connection_id: "c1",
                    user_id: "u\"1",
                    position: at(7),
                    heartbeat: Duration::from_secs(20),
                    open_runs: &[open_run(5, "t1"), bare()],
                },
                r#"{"type":"connection_established","connection_id":"c1","user_id":"u\"1","position":"00000000000000ab-7","heartbeat_interval_ms":20000,"open_runs":[{"run_id":"r5","agent_name":"researcher","state":"waiting","started_at":"2026-11-21T10:00:00.123Z","thread_id":"t1","parent_run_id":"r0","open_tool_calls":[{"tool_call_id":"c1","call_sequence":1,"tool_name":"search","started_at":"2026-11-21T10:00:00.123Z"}],"open_waits":[{"run_sequence":1,"started_at":"2026-11-21T10:00:00.123Z","expires_at":"2026-11-21T10:00:00.123Z"}]},{"run_id":"r6","agent_name":"researcher","state":"running","started_at":"2026-11-21T10:00:00.123Z","open_tool_calls":[]}]}"#,
            ),
            (
                Control::Heartbeat(at(7)),
                r#"{"type":"connection_heartbeat","position":"00000000000000ab-7"}"#,
            ),
            (
                Control::Gap(gap(), &[]),
                r#"{"type":"connection_gap","reason":"epoch_changed","after":"00000000000000ab-3","next":"00000000000000ab-9","open_runs":[]}"#,
            ),
            (
                Control::CaughtUp(at(0)),
                r#"{"type":"connection_caught_up","position":"00000000000000ab-0"}"#,
            ),
            (
                Control::TokenExpiring {
                    at: Timestamp::from_millis(1_795_255_200_123),
                    after: Duration::from_secs(60),
                },
                r#"{"type":"connection_token_expiring","expires_at":"2026-11-21T10:00:00.123Z","expires_in_ms":60000}"#,
            ),
            (
                closing(Reason::Draining, Some(1500)),
                r#"{"type":"connection_closing","reason":"DRAINING","reconnect_after_ms":1500}"#,
            ),
            (
                closing(Reason::TooManyFrames, None),
                r#"{"type":"connection_closing","reason":"TOO_MANY_FRAMES"}"#,
            ),
            (
                Control::Error {
                    reason: Reason::InvalidRequest,
                    message: "say \"what\"",
                },
                r#"{"type":"connection_error","reason":"INVALID_REQUEST","message":"say \"what\""}"#,
            ),
        ];
        let mut types = BTreeSet::new();
        for (control, want) in cases {
            assert_eq!(control.json(), want);
            types.insert(control.wire_type().to_owned());
        }
        assert_eq!(types, messages());
    }

    /// The control frames of the published document.
    fn messages() -> BTreeSet<String> {
        let document = document();
        let messages = document["components"]["messages"].as_object().unwrap();
        let names = messages.keys().cloned();
        names
            .filter(|name| name.starts_with("connection_"))
            .collect()
    }

    #[test]
    fn control_frames_as_events_resume_where_the_reader_has_come() {
        let established = Control::Established {
            connection_id: "c1",
            user_id: "u1",
            position: at(7),
            heartbeat: Duration::from_secs(20),
            open_runs: &[],
        };
        let expiring = Control::TokenExpiring {
            at: Timestamp::from_millis(1),
            after: Duration::from_secs(60),
        };
        for (control, head) in [
            (established, "id: 00000000000000ab-7\n"),
            (Control::Heartbeat(at(7)), "id: 00000000000000ab-7\n"),
            (Control::CaughtUp(at(0)), "id: 00000000000000ab-0\n"),
            (Control::Gap(gap(), &[]), "id: 00000000000000ab-9\n"),
            (expiring, ""),
            (closing(Reason::Draining, Some(1500)), "retry: 1500\n"),
            (closing(Reason::Replaced, None), ""),
        ] {
            let event = control.encode(Encoding::Sse).unwrap();
            let json = String::from_utf8(control.json().to_vec()).unwrap();
            assert_eq!(event, format!("{head}data: {json}\n\n"));
        }
    }

    fn item(control: &Control<'_>) -> Option<Item> {
        let bytes = control.encode(Encoding::Proto)?;
        v1::SubscribeResponse::decode(bytes).unwrap().item
    }

    #[test]
    fn proto_control_frames() {
        let position = |offset| {
            Some(v1::Position {
                epoch: "00000000000000ab".to_owned(),
                offset,
            })
        };
        let established = Control::Established {
            connection_id: "c1",
            user_id: "u1",
            position: at(7),
            heartbeat: Duration::from_secs(20),
            open_runs: &[bare()],
        };
        assert_eq!(
            item(&established),
            Some(Item::Established(v1::Established {
                connection_id: "c1".to_owned(),
                user_id: "u1".to_owned(),
                position: position(7),
                open_runs: vec![v1::OpenRun {
                    run_id: "r6".to_owned(),
                    state: v1::RunState::Running.into(),
                    open_tool_calls: Vec::new(),
                    open_waits: Vec::new(),
                    thread_id: String::new(),
                    parent_run_id: String::new(),
                    ..waiting()
                }],
            }))
        );
        assert_eq!(
            item(&Control::Gap(gap(), &[open_run(5, "t1")])),
            Some(Item::Gap(v1::Gap {
                reason: v1::GapReason::EpochChanged.into(),
                after: position(3),
                next: position(9),
                open_runs: vec![waiting()],
            }))
        );
        assert_eq!(
            item(&Control::CaughtUp(at(1))),
            Some(Item::CaughtUp(v1::CaughtUp {
                position: position(1)
            }))
        );
        assert_eq!(
            item(&closing(Reason::Draining, Some(1500))),
            Some(Item::Closing(v1::Closing {
                reason: "DRAINING".to_owned(),
                reconnect_after: Some(prost_types::Duration {
                    seconds: 1,
                    nanos: 500_000_000,
                }),
            }))
        );
        assert_eq!(item(&Control::Heartbeat(at(1))), None);
    }
}
