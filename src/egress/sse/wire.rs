//! `text/event-stream`, as the HTML standard has it.

use std::{io::Write, time::Duration};

use bytes::Bytes;

use crate::event::Position;

/// About what an event takes beside its JSON.
const OVERHEAD: usize = 64;

/// An event around `json`. A reader that has it resumes after `reached`, and waits for `retry` before it comes back.
///
/// A line ends at an LF, a CR or both, and JSON from outside may hold either between its tokens. Each line stands
/// behind a `data:` of its own, so none can begin with another field's name, and the reader, which puts LFs between
/// them, gets equivalent JSON.
pub(in crate::egress) fn event(
    reached: Option<Position>,
    retry: Option<Duration>,
    json: &[u8],
) -> Bytes {
    let mut out = Vec::with_capacity(OVERHEAD + json.len());
    // Writing into memory cannot fail.
    if let Some(position) = reached {
        let _never_fails = writeln!(out, "id: {position}");
    }
    if let Some(retry) = retry {
        let _never_fails = writeln!(out, "retry: {}", retry.as_millis());
    }
    for line in json.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
    // It may be kept for a while.
    out.shrink_to_fit();
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Epoch, Offset};

    fn text(reached: Option<u64>, retry: Option<u64>, json: &str) -> String {
        let reached = reached.map(|offset| Position::new(Epoch::new(0xab), Offset(offset)));
        let retry = retry.map(Duration::from_millis);
        let event = event(reached, retry, json.as_bytes());
        String::from_utf8(event.to_vec()).unwrap()
    }

    #[test]
    fn an_event_has_the_fields_that_it_is_given() {
        let cases = [
            (None, None, "data: {}\n\n"),
            (Some(7), None, "id: 00000000000000ab-7\ndata: {}\n\n"),
            (None, Some(1500), "retry: 1500\ndata: {}\n\n"),
        ];
        for (reached, retry, want) in cases {
            assert_eq!(text(reached, retry, "{}"), want);
        }
    }

    #[test]
    fn every_line_of_the_json_has_its_own_prefix_whatever_ends_it() {
        for (json, want) in [
            ("{\n}", "data: {\ndata: }\n\n"),
            ("{\r}", "data: {\ndata: }\n\n"),
            ("{\r\n}", "data: {\ndata: \ndata: }\n\n"),
            ("{}\n", "data: {}\ndata: \n\n"),
            ("[\n\n]", "data: [\ndata: \ndata: ]\n\n"),
            // Lines end nowhere else.
            (
                "\"\u{2028}\u{85}\u{b}\u{c}\"",
                "data: \"\u{2028}\u{85}\u{b}\u{c}\"\n\n",
            ),
        ] {
            assert_eq!(text(None, None, json), want, "{json:?}");
        }
    }

    #[test]
    fn no_line_of_the_json_is_a_field_of_its_own() {
        for end in ["\n", "\r", "\r\n", "\n\n"] {
            let json = format!("{{{end}id: 9{end}event: x{end}retry: 0{end}data: y{end}:{end}}}");
            let text = text(Some(7), None, &json);
            let (id, data) = text.split_once('\n').unwrap();
            assert_eq!(id, "id: 00000000000000ab-7");
            assert!(!text.contains('\r'), "{text:?}");
            let body = data.strip_suffix("\n\n").unwrap();
            for line in body.split('\n') {
                assert!(line.starts_with("data: "), "{line:?} in {text:?}");
            }
        }
    }
}
