//! Frames as lines for a person.

use super::text::plain;
use crate::{
    client::{Fields, Frame},
    event::Position,
};

/// One line for the event in `frame`: when, who, which run, what, and the words for the person.
pub(super) fn line(frame: &Fields<'_>, coloured: bool) -> String {
    let text = |name: &str| plain(&frame.text(name)).into_owned();
    let or_dash = |text: String| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text
        }
    };
    let kind = text("type");
    let timestamp = text("timestamp");
    // Of a time such as 2026-11-21T10:00:00.123Z the part that changes while one looks.
    let time = timestamp.get(11..23).unwrap_or(&timestamp);
    let (agent, run) = (or_dash(text("agent_name")), or_dash(text("run_id")));
    let joined = frame
        .number::<u64>("joined")
        .map(|count| format!(" ({count} joined)"))
        .unwrap_or_default();
    let words = words(&kind, &frame.object("payload"));
    let (on, off) = if coloured {
        (colour(&kind), "\u{1b}[0m")
    } else {
        ("", "")
    };
    let state = state(&kind, frame);
    let line = format!("{time}  {agent}  {run}  {on}{kind}{off}{joined}{state}  {words}");
    line.trim_end().to_owned()
}

/// How the run stands from here on, where the type alone does not say it.
fn state(kind: &str, frame: &Fields<'_>) -> String {
    let state = frame.text("state");
    let goes_without_saying = match &*state {
        "running" => kind == "agent_started",
        "waiting" => kind == "agent_waiting",
        _ => true,
    };
    match goes_without_saying {
        true => String::new(),
        false => format!(" → {state}"),
    }
}

/// One line for a control frame, if a person wants to know of it.
pub(super) fn control(frame: &Frame) -> Option<String> {
    let reason = plain(frame.reason().unwrap_or_default());
    let position = |position: Option<Position>| {
        position.map_or_else(|| "?".to_owned(), |position| position.to_string())
    };
    Some(match frame.kind() {
        "connection_established" => format!("connected, after {}", position(frame.position())),
        "connection_gap" => {
            let next = position(frame.next());
            format!("gap ({reason}): events before {next} may be missing")
        }
        "connection_closing" => format!("the server closes: {reason}"),
        "connection_error" => format!("the server objects: {}", plain(frame.text())),
        _ => return None,
    })
}

/// The colour of a type.
pub(super) fn colour(kind: &str) -> &'static str {
    match kind {
        "agent_started" => "\u{1b}[1;36m",
        "agent_completed" => "\u{1b}[1;32m",
        "agent_failed" => "\u{1b}[1;31m",
        "agent_cancelled" | "agent_waiting" | "agent_resumed" => "\u{1b}[33m",
        "tool_executing" | "tool_completed" | "tool_progress" => "\u{1b}[34m",
        "agent_thinking" | "thinking_delta" => "\u{1b}[2m",
        _ => "\u{1b}[35m",
    }
}

/// What the payload says, in a few words.
fn words(kind: &str, payload: &Fields<'_>) -> String {
    let text = |name: &str| plain(&payload.text(name)).into_owned();
    let parts = match kind {
        "agent_started" | "agent_completed" => vec![text("message"), took(payload)],
        "agent_thinking" => vec![step(payload), text("reasoning")],
        "agent_failed" => vec![text("code"), text("message")],
        "agent_cancelled" => vec![text("reason")],
        "agent_waiting" => vec![
            text("wait_id"),
            text("reason"),
            text("prompt"),
            rest(payload, "choices"),
        ],
        "agent_resumed" => vec![text("wait_id")],
        "tool_executing" => {
            let parameters = rest(payload, "parameters");
            vec![
                call(payload),
                text("tool_name"),
                text("description"),
                parameters,
            ]
        }
        "tool_completed" => vec![
            call(payload),
            text("tool_name"),
            text("status"),
            took(payload),
            text("error"),
            rest(payload, "result"),
        ],
        "tool_progress" => vec![call(payload), percent(payload), text("message")],
        "text_delta" | "thinking_delta" | "message" => vec![text("role"), text("text")],
        _ => vec![shortened(payload.json())],
    };
    let said: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    said.join("  ")
}

fn step(payload: &Fields<'_>) -> String {
    let number = |name: &str| payload.number::<u64>(name);
    match (number("step_number"), number("total_steps")) {
        (Some(step), Some(total)) => format!("[{step}/{total}]"),
        (Some(step), None) => format!("[{step}]"),
        (None, _) => String::new(),
    }
}

/// Which tool call it is, of several that may have one id.
fn call(payload: &Fields<'_>) -> String {
    let sequence = payload.number::<u64>("call_sequence");
    sequence.map_or_else(String::new, |sequence| format!("#{sequence}"))
}

fn percent(payload: &Fields<'_>) -> String {
    let fraction = payload.number::<f64>("fraction");
    fraction
        .map(|fraction| format!("{:.0}%", fraction * 100.0))
        .unwrap_or_default()
}

fn took(payload: &Fields<'_>) -> String {
    payload
        .number::<f64>("execution_time_ms")
        .map(|millis| format!("{millis} ms"))
        .unwrap_or_default()
}

fn rest(payload: &Fields<'_>, name: &str) -> String {
    payload.value(name).map(shortened).unwrap_or_default()
}

/// The most characters of a value that a line shows.
const SHOWN: usize = 160;

/// JSON text, cut where it is long.
fn shortened(json: &str) -> String {
    let text = plain(json);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The line for that frame.
    fn line(frame: &Value, coloured: bool) -> String {
        super::line(&Fields::of(&frame.to_string()), coloured)
    }

    fn frame(kind: &str, payload: Value) -> Value {
        json!({"type": kind, "timestamp": "2026-11-21T10:00:00.123Z", "agent_name": "a", "run_id": "r1",
               "payload": payload})
    }

    #[test]
    fn events_become_lines() {
        let long = "é".repeat(500);
        let thinking = json!({"reasoning": "hm", "step_number": 1, "total_steps": 2});
        let failed = json!({"tool_name": "search", "status": "failed", "error": "no", "execution_time_ms": 118.5});
        let cases = [
            (
                frame("agent_started", json!({"message": "On it"})),
                "agent_started  On it",
            ),
            (
                frame("agent_thinking", thinking),
                "agent_thinking  [1/2]  hm",
            ),
            (
                frame(
                    "tool_executing",
                    json!({"tool_name": "search", "parameters": {"q": 1}}),
                ),
                "tool_executing  search  {\"q\":1}",
            ),
            (
                frame("tool_completed", failed),
                "tool_completed  search  failed  118.5 ms  no",
            ),
            (
                frame("tool_progress", json!({"fraction": 0.5})),
                "tool_progress  50%",
            ),
            (frame("agent_completed", json!({})), "agent_completed"),
            (
                frame(
                    "tool_progress",
                    json!({"call_sequence": 4, "fraction": 0.25}),
                ),
                "tool_progress  #4  25%",
            ),
            (
                frame(
                    "agent_waiting",
                    json!({"wait_id": "w1", "prompt": "Go on?", "choices": ["yes", "no"]}),
                ),
                "agent_waiting  w1  Go on?  [\"yes\",\"no\"]",
            ),
            (
                frame("agent_resumed", json!({"wait_id": "w1"})),
                "agent_resumed  w1",
            ),
            (frame("my.type", json!({"n": 1})), "my.type  {\"n\":1}"),
            (
                frame("message", json!({"text": "a\u{1b}[2Jb\nc"})),
                "message  a\\u{1b}[2Jb\\nc",
            ),
        ];
        for (frame, want) in cases {
            assert_eq!(line(&frame, false), format!("10:00:00.123  a  r1  {want}"));
        }
        let cut = line(&frame("my.type", json!({"x": long})), false);
        assert!(cut.ends_with('…') && cut.chars().count() < 250, "{cut}");
    }

    #[test]
    fn numbers_are_shown_as_they_are_written() {
        let text = r#"{"type":"tool_executing","payload":{"tool_name":"t","parameters":{"n":1e999,"id":12345678901234567890123,"p":1.10}}}"#;
        let line = super::line(&Fields::of(text), false);
        let want = r#"-  -  tool_executing  t  {"n":1e999,"id":12345678901234567890123,"p":1.10}"#;
        assert_eq!(line.trim_start(), want);
    }

    #[test]
    fn a_change_of_state_is_shown_unless_the_type_says_it() {
        for (kind, state, want) in [
            ("agent_started", "running", "agent_started"),
            ("agent_waiting", "waiting", "agent_waiting"),
            ("agent_failed", "failed", "agent_failed"),
            ("agent_resumed", "running", "agent_resumed → running"),
            ("tool_progress", "running", "tool_progress → running"),
        ] {
            let mut frame = frame(kind, json!({}));
            frame["state"] = state.into();
            assert_eq!(line(&frame, false), format!("10:00:00.123  a  r1  {want}"));
        }
    }

    #[test]
    fn odd_frames_do_no_harm() {
        for frame in [
            json!(null),
            json!({}),
            json!({"type": 1, "timestamp": "é"}),
            json!({"payload": []}),
        ] {
            let _any = line(&frame, true);
        }
        let custom = json!({"type": "x", "timestamp": "2026-11-21T10:00:00.123Z", "payload": {}});
        assert_eq!(line(&custom, false), "10:00:00.123  -  -  x  {}");
    }

    #[test]
    fn colours_end_where_the_type_ends() {
        let text = line(&frame("agent_failed", json!({"message": "no"})), true);
        assert_eq!(
            text,
            "10:00:00.123  a  r1  \u{1b}[1;31magent_failed\u{1b}[0m  no"
        );
    }

    #[test]
    fn control_frames_that_matter_are_told() {
        let told = |text: &str| control(&Frame::parse(text.into()).unwrap());
        let gap = r#"{"type":"connection_gap","reason":"trimmed","next":"00000000000000ab-7"}"#;
        assert_eq!(
            told(gap).unwrap(),
            "gap (trimmed): events before 00000000000000ab-7 may be missing"
        );
        assert_eq!(told(r#"{"type":"connection_caught_up"}"#), None);
    }
}
