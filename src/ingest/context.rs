//! What stands beside an event's payload and never refuses it: its time, its trace context and its labels.

use std::ops::RangeInclusive;

use super::{
    check::{Checker, MAX_NANOS},
    path::Path,
};
use crate::{event::Action, proto::v1};

/// The most labels of an event.
const LABELS: usize = 32;

/// The longest key of a label, in characters.
const LABEL_KEY_CHARS: usize = 63;

/// The longest value of a label, in characters.
const LABEL_VALUE_CHARS: usize = 256;

/// The longest `tracestate`, in characters.
const TRACESTATE_CHARS: usize = 512;

/// The first second of the year 1 and the last one of 9999, from the Unix epoch.
const MOMENTS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

const ROOT: Path<'static> = Path::ROOT;

/// Drops or corrects what breaks a rule.
pub(super) fn adjust(event: &mut v1::Event, c: &mut Checker) {
    occurred_at(event, c);
    if !event.traceparent.is_empty() || !event.tracestate.is_empty() {
        trace(event, c);
    }
    if !event.labels.is_empty() {
        labels(event, c);
    }
}

fn occurred_at(event: &mut v1::Event, c: &mut Checker) {
    let valid = |at: &prost_types::Timestamp| {
        MOMENTS.contains(&at.seconds) && (0..=MAX_NANOS).contains(&at.nanos)
    };
    if event.occurred_at.as_ref().is_some_and(|at| !valid(at)) {
        event.occurred_at = None;
        let rule = "must be between 0001-01-01 and 9999-12-31, nanos from 0 to 999,999,999";
        c.adjust(&ROOT.field("occurred_at"), Action::Dropped, rule);
    }
}

/// By W3C Trace Context: a `traceparent` of a later version is read as version 00, an invalid one is ignored, and so is
/// the `tracestate` beside it.
fn trace(event: &mut v1::Event, c: &mut Checker) {
    let (parent, state) = (&mut event.traceparent, &mut event.tracestate);
    let mut ignored = false;
    match Version::of(parent.as_bytes()) {
        Some(Version::Zero) => {}
        Some(Version::Later) => {
            parent.replace_range(..2, "00");
            parent.truncate(TRACEPARENT);
            let rule = "has a later version than 00: stored as version 00";
            c.adjust(&ROOT.field("traceparent"), Action::Corrected, rule);
        }
        None if parent.is_empty() => {}
        None => {
            parent.clear();
            ignored = true;
            let rule = "must be a W3C traceparent in lower case, with ids that are not zero";
            c.adjust(&ROOT.field("traceparent"), Action::Dropped, rule);
        }
    }
    let at = &ROOT.field("tracestate");
    if state.is_empty() {
    } else if ignored {
        state.clear();
        c.adjust(at, Action::Dropped, "stands beside an invalid traceparent");
    } else if !state.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        state.clear();
        c.adjust(at, Action::Dropped, "must be printable ASCII");
    } else if state.len() > TRACESTATE_CHARS {
        // Only whole members may stay: those before the last comma that fits.
        let end = state[..=TRACESTATE_CHARS].rfind(',');
        state.truncate(end.unwrap_or(0));
        let action = match end {
            Some(_) => Action::Truncated,
            None => Action::Dropped,
        };
        c.adjust(at, action, "must be at most 512 characters");
    }
}

/// The length of a `traceparent` of version 00.
const TRACEPARENT: usize = 55;

/// Which version a valid `traceparent` has.
enum Version {
    Zero,
    Later,
}

impl Version {
    /// The version of `text`: `<2 hex digits>-<32>-<16>-<2>` in lower case, with ids that are not all zeros. A later
    /// version may go on behind another `-`; version ff does not exist.
    fn of(text: &[u8]) -> Option<Self> {
        let mut parts = text.split(|b| *b == b'-');
        let mut hex = |digits: usize| {
            parts.next().filter(|part| {
                part.len() == digits && part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            })
        };
        let is_set = |id: &&[u8]| id.iter().any(|b| *b != b'0');
        let version = hex(2)?;
        hex(32).filter(is_set)?;
        hex(16).filter(is_set)?;
        hex(2)?;
        match version {
            b"00" if text.len() == TRACEPARENT => Some(Self::Zero),
            b"00" | b"ff" => None,
            _ => Some(Self::Later),
        }
    }
}

fn labels(event: &mut v1::Event, c: &mut Checker) {
    let labels = &mut event.labels;
    let at = ROOT.field("labels");
    labels.retain(|key, value| {
        let broken = broken_label(key, value);
        if let Some(rule) = &broken {
            c.adjust(&at.key(key), Action::Dropped, rule);
        }
        broken.is_none()
    });
    // The map is sorted, so the first 32 in the order of their keys stay.
    if let Some((first, _)) = labels.iter().nth(LABELS) {
        let first = first.clone();
        drop(labels.split_off(&first));
        let rule = format!("has more than {LABELS} entries");
        c.adjust(&at, Action::Dropped, rule);
    }
}

/// The rule that a label breaks.
fn broken_label(key: &str, value: &str) -> Option<String> {
    let longer = |text: &str, chars| text.len() > chars && text.chars().count() > chars;
    if key.is_empty() {
        Some("has an empty key".into())
    } else if longer(key, LABEL_KEY_CHARS) {
        Some(format!(
            "has a key longer than {LABEL_KEY_CHARS} characters"
        ))
    } else if key.contains(char::is_control) {
        Some("has a key with a control character".into())
    } else if longer(value, LABEL_VALUE_CHARS) {
        Some(format!("is longer than {LABEL_VALUE_CHARS} characters"))
    } else if value.contains(char::is_control) {
        Some("has a control character".into())
    } else {
        None
    }
}
