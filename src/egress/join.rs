//! Several deltas of one text as one frame, for a reader that lags.

use std::sync::Arc;

use bytes::Bytes;

use super::frame::{Encoder, Joined, body};
use crate::{
    event::{Event, Kind},
    fanout::Entry,
    proto::v1::{self, event::Payload},
};

/// The most text that one frame joins, in bytes.
pub(super) const JOINED_TEXT: usize = 64 * 1024;

/// The frames for `entries`, which are adjacent in their reader's view: consecutive joinable deltas of the same
/// text become one frame.
pub(super) fn frames(entries: &[Arc<Entry>], encoder: &Encoder) -> Frames {
    let mut frames = Frames::default();
    let mut rest = entries;
    while let Some((first, after)) = rest.split_first() {
        let Some((pieces, run)) = collect(first, after) else {
            frames.bytes.push(first.encoded(encoder));
            rest = after;
            continue;
        };
        frames.bytes.push(pieces.into_frame(encoder));
        frames.joined += 1;
        rest = &after[run..];
    }
    frames
}

/// What became of a stretch of entries.
#[derive(Default)]
pub(super) struct Frames {
    /// In order.
    pub(super) bytes: Vec<Bytes>,
    /// How many of them stand for more than one event.
    pub(super) joined: u64,
}

/// Joins to `first` as many of the entries `after` it as belong to it, and tells how many; `None` when none does.
fn collect<'a>(first: &'a Arc<Entry>, after: &'a [Arc<Entry>]) -> Option<(Pieces<'a>, usize)> {
    // Bodies are decoded only where there is someone to join with.
    if !after.first().is_some_and(|next| alike(first, next)) {
        return None;
    }
    let mut pieces = Pieces::of(first)?;
    let run = after
        .iter()
        .take_while(|next| alike(first, next) && pieces.take(next))
        .count();
    (run > 0).then_some((pieces, run))
}

/// Whether the headers allow two entries to be pieces of one text.
fn alike(one: &Entry, other: &Entry) -> bool {
    let (a, b): (&Event, &Event) = (&one.record.draft.event, &other.record.draft.event);
    a.joinable
        && b.joinable
        // A frame says how its run stands after its last event only.
        && one.record.draft.state.is_none()
        && other.record.draft.state.is_none()
        && a.kind == b.kind
        && matches!(a.kind, Kind::TextDelta | Kind::ThinkingDelta)
        && a.run_id == b.run_id
        && one.record.position.epoch == other.record.position.epoch
}

/// The pieces of one text, gathered so far.
struct Pieces<'a> {
    first: &'a Entry,
    last: &'a Entry,
    /// The body of the last one, its text taken out.
    event: v1::Event,
    text: String,
    count: u32,
}

impl<'a> Pieces<'a> {
    fn of(first: &'a Entry) -> Option<Self> {
        let mut event = body(&first.record);
        let text = std::mem::take(Delta::of(&mut event)?.text);
        Some(Self {
            first,
            last: first,
            event,
            text,
            count: 1,
        })
    }

    /// Appends `next` if it belongs to the same text and there is room. A piece without a role continues the text before
    /// it. A piece with a role does not continue pieces without one: those may belong to an earlier text of another role.
    fn take(&mut self, next: &'a Entry) -> bool {
        let mut event = body(&next.record);
        let (Some(so_far), Some(piece)) = (Delta::of(&mut self.event), Delta::of(&mut event))
        else {
            return false;
        };
        let silent = piece.role().is_empty();
        let same_role = silent || so_far.role() == piece.role();
        let room = self.text.len() + piece.text.len() <= JOINED_TEXT;
        if so_far.message_id != piece.message_id || !same_role || !room {
            return false;
        }
        self.text.push_str(&std::mem::take(piece.text));
        if let (true, Some(from), Some(to)) = (silent, so_far.role, piece.role) {
            std::mem::swap(from, to);
        }
        self.event = event;
        self.last = next;
        self.count += 1;
        true
    }

    fn into_frame(mut self, encoder: &Encoder) -> Bytes {
        if let Some(delta) = Delta::of(&mut self.event) {
            *delta.text = self.text;
        }
        let joined = Joined {
            first_offset: self.first.record.position.offset,
            count: self.count,
        };
        encoder.joined(&self.last.record, &self.event, joined)
    }
}

/// What joining looks at in a delta's payload.
struct Delta<'a> {
    message_id: &'a str,
    /// Only of a message.
    role: Option<&'a mut String>,
    text: &'a mut String,
}

impl<'a> Delta<'a> {
    fn of(event: &'a mut v1::Event) -> Option<Self> {
        match &mut event.payload {
            Some(Payload::TextDelta(delta)) => Some(Self {
                message_id: &delta.message_id,
                role: Some(&mut delta.role),
                text: &mut delta.text,
            }),
            Some(Payload::ThinkingDelta(delta)) => Some(Self {
                message_id: &delta.message_id,
                role: None,
                text: &mut delta.text,
            }),
            _ => None,
        }
    }

    fn role(&self) -> &str {
        self.role.as_ref().map_or("", |role| role.as_str())
    }
}

#[cfg(test)]
mod tests {
    use metrics::Counter;
    use prost::Message;

    use super::*;
    use crate::{
        egress::{
            fixtures::{body, entry, record, text_delta},
            frame::Encoding,
        },
        event::RunId,
        proto::v1::subscribe_response::Item,
    };

    fn json(entries: &[Arc<Entry>]) -> (Vec<serde_json::Value>, u64) {
        let frames = frames(entries, &Encoder::new(Encoding::Json, Counter::noop()));
        let values = frames
            .bytes
            .iter()
            .map(|frame| serde_json::from_slice(frame).unwrap())
            .collect();
        (values, frames.joined)
    }

    /// The texts of the frames, with the events that each stands for.
    fn texts(entries: &[Arc<Entry>]) -> Vec<(String, u64)> {
        json(entries)
            .0
            .iter()
            .map(|frame| {
                let text = frame["payload"]["text"].as_str().unwrap_or_default();
                (text.to_owned(), frame["joined"].as_u64().unwrap_or(1))
            })
            .collect()
    }

    fn thinking(offset: u64, text: &str) -> Arc<Entry> {
        let delta = v1::ThinkingDelta {
            message_id: "m1".to_owned(),
            text: text.to_owned(),
        };
        let body = body(Payload::ThinkingDelta(delta));
        entry(offset, record(Kind::ThinkingDelta, &body))
    }

    fn changed(entry: &Arc<Entry>, change: impl FnOnce(&mut Event)) -> Arc<Entry> {
        let mut record = (*entry.record).clone();
        let mut event = (*record.draft.event).clone();
        change(&mut event);
        record.draft.event = Arc::new(event);
        Arc::new(Entry::new(Arc::new(record)))
    }

    #[test]
    fn a_joined_frame_has_the_place_of_the_last_and_the_text_of_all() {
        let entries = [
            text_delta(3, "m1", "assistant", "a\""),
            text_delta(4, "m1", "", "b"),
            text_delta(9, "m1", "", "c"),
        ];
        let encoder = Encoder::new(Encoding::Json, Counter::noop());
        let frames = frames(&entries, &encoder);
        assert_eq!((frames.bytes.len(), frames.joined), (1, 1));
        assert_eq!(
            frames.bytes[0],
            r#"{"type":"text_delta","event_id":"e1","epoch":"00000000000000ab","offset":9,"first_offset":3,"joined":3,"run_sequence":9,"timestamp":"1970-01-01T00:00:00.009Z","recorded_at":"1970-01-01T00:00:00.009Z","user_id":"u1","thread_id":"t1","run_id":"r1","agent_name":"researcher","payload":{"message_id":"m1","role":"assistant","text":"a\"bc"}}"#
        );
    }

    #[test]
    fn a_joined_frame_as_an_event_resumes_after_the_last() {
        let entries = [thinking(1, "a"), thinking(2, "b\n")];
        let frames = |encoding| frames(&entries, &Encoder::new(encoding, Counter::noop()));
        let (events, json) = (frames(Encoding::Sse), frames(Encoding::Json));
        let json = String::from_utf8(json.bytes[0].to_vec()).unwrap();
        let want = format!("id: 00000000000000ab-2\ndata: {json}\n\n");
        assert_eq!(events.bytes, [want]);
    }

    #[test]
    fn a_joined_frame_on_the_wire() {
        let entries = [thinking(1, "a"), thinking(2, "b")];
        let frames = frames(&entries, &Encoder::new(Encoding::Proto, Counter::noop()));
        assert_eq!(frames.bytes.len(), 1);
        let response = v1::SubscribeResponse::decode(frames.bytes[0].clone()).unwrap();
        let Some(Item::Event(recorded)) = response.item else {
            panic!("{response:?}");
        };
        let event = recorded.event.unwrap();
        assert_eq!(
            (event.event_id.as_str(), event.run_id.as_str()),
            ("e1", "r1")
        );
        assert_eq!(
            (
                recorded.position.unwrap().offset,
                recorded.first_offset,
                recorded.joined
            ),
            (2, Some(1), Some(2))
        );
        let Some(Payload::ThinkingDelta(delta)) = event.payload else {
            panic!("{event:?}");
        };
        assert_eq!(
            (delta.message_id.as_str(), delta.text.as_str()),
            ("m1", "ab")
        );
    }

    #[test]
    fn only_pieces_of_one_text_are_joined() {
        let delta = |offset, text: &str| text_delta(offset, "m1", "", text);
        let other_run = |entry| changed(&entry, |event| event.run_id = RunId::new("r2").ok());
        let alone = |entry| changed(&entry, |event| event.joinable = false);
        let one = |text: &str| (text.to_owned(), 1);
        let cases = [
            (vec![delta(1, "a")], vec![one("a")]),
            (
                vec![delta(1, "a"), text_delta(2, "m2", "", "b"), delta(3, "c")],
                vec![one("a"), one("b"), one("c")],
            ),
            (
                vec![delta(1, "a"), thinking(2, "b")],
                vec![one("a"), one("b")],
            ),
            (
                vec![delta(1, "a"), other_run(delta(2, "b"))],
                vec![one("a"), one("b")],
            ),
            (
                vec![
                    delta(1, "a"),
                    alone(delta(2, "b")),
                    delta(3, "c"),
                    delta(4, "d"),
                ],
                vec![one("a"), one("b"), ("cd".to_owned(), 2)],
            ),
            (
                vec![
                    text_delta(1, "m1", "user", "a"),
                    text_delta(2, "m1", "assistant", "b"),
                    text_delta(3, "m1", "", "c"),
                ],
                vec![one("a"), ("bc".to_owned(), 2)],
            ),
            (
                // The first frame of this reader ended with the user's text, which "a" may continue.
                vec![
                    text_delta(1, "m1", "", "a"),
                    text_delta(2, "m1", "assistant", "b"),
                ],
                vec![one("a"), one("b")],
            ),
        ];
        for (entries, want) in cases {
            assert_eq!(texts(&entries), want);
        }
    }

    #[test]
    fn a_joined_text_is_bounded() {
        let half = "x".repeat(JOINED_TEXT / 2);
        let entries: Vec<_> = (1..=5).map(|n| text_delta(n, "m1", "", &half)).collect();
        let counts: Vec<_> = texts(&entries)
            .into_iter()
            .map(|(_, joined)| joined)
            .collect();
        assert_eq!(counts, [2, 2, 1]);
    }

    #[test]
    fn what_is_not_joined_shares_its_encoding() {
        let entry = text_delta(1, "m1", "", "a");
        let encoder = Encoder::new(Encoding::Json, Counter::noop());
        let shared = entry.encoded(&encoder);
        let frames = frames(&[entry], &encoder);
        assert_eq!(frames.bytes[0].as_ptr(), shared.as_ptr());
    }
}
