//! `proto/asyncapi.json` says what the code and the README say.

use std::{collections::BTreeSet, fs, path::Path};

use emitter::{event::Kind, reason::Reason};
use serde_json::{Value, json};

use crate::support::asyncapi::{DOCUMENT, checked, members, messages_of};

/// The names of the document's messages.
fn messages() -> BTreeSet<&'static str> {
    let messages = members(&DOCUMENT["components"]["messages"]);
    messages.keys().map(String::as_str).collect()
}

/// The names of the messages of an operation.
fn messages_of_operation(name: &str) -> BTreeSet<&'static str> {
    let listed = DOCUMENT["operations"][name]["messages"].as_array().unwrap();
    let name = |message: &'static Value| {
        let target = message["$ref"].as_str().unwrap();
        target.rsplit('/').next().unwrap()
    };
    listed.iter().map(name).collect()
}

#[test]
fn every_wire_type_has_a_message_and_every_message_is_one() {
    let typed = Kind::typed().map(|(_, wire_type)| wire_type);
    let events: BTreeSet<_> = typed.chain(["custom"]).collect();
    let down = messages_of_operation("receiveFrames");
    // The control frames are held against the document beside their code.
    let is_control = |name: &&str| name.starts_with("connection_");
    let told: BTreeSet<_> = down
        .iter()
        .filter(|name| !is_control(name))
        .copied()
        .collect();
    assert_eq!(told, events);
    let up = messages_of_operation("sendMessages");
    assert_eq!(up, ["ack", "authenticate"].into());
    let both: BTreeSet<_> = down.union(&up).copied().collect();
    assert_eq!(messages(), both);
    let of_channel = |channel: &str| {
        let messages = members(&DOCUMENT["channels"][channel]["messages"]);
        messages.keys().map(String::as_str).collect::<BTreeSet<_>>()
    };
    assert_eq!(of_channel("stream"), both);
    let mut sse = down;
    sse.remove("connection_error");
    assert_eq!(of_channel("events"), sse);
}

#[test]
fn the_reasons_of_streams_are_the_codes() {
    let of_streams = |reason: Reason| {
        let (close, http) = reason.of_streams()?;
        Some(json!({
            "reason": reason.name(),
            "closeCode": close,
            "httpStatus": http,
            "comeBack": reason.come_back(),
            "meaning": reason.meaning(),
        }))
    };
    let want: Vec<_> = Reason::ALL.into_iter().filter_map(of_streams).collect();
    let found = &DOCUMENT["channels"]["stream"]["x-reasons"];
    assert_eq!(*found, Value::from(want));
}

/// Whether to come back from each reason that closes a stream is told twice: in the table, and in the frame's schema.
#[test]
fn a_closing_frame_has_a_time_to_come_back_after_where_its_reason_says_so() {
    let closing = &DOCUMENT["components"]["schemas"]["Closing"];
    let reasons = closing["properties"]["reason"]["enum"].as_array().unwrap();
    for name in reasons {
        let reason = Reason::ALL
            .into_iter()
            .find(|reason| *name == reason.name());
        let reason = reason.unwrap_or_else(|| panic!("no reason is {name}"));
        let silent = json!({"type": "connection_closing", "reason": name});
        let mut timed = silent.clone();
        timed["reconnect_after_ms"] = 1500.into();
        let (right, wrong) = match reason.come_back() {
            true => (timed, silent),
            false => (silent, timed),
        };
        assert_eq!(messages_of(&right), ["connection_closing"], "{right}");
        assert_eq!(messages_of(&wrong), [] as [&str; 0], "{wrong}");
    }
}

#[test]
fn every_example_is_of_its_message_and_of_no_other() {
    for (name, message) in members(&DOCUMENT["components"]["messages"]) {
        let examples = message["examples"].as_array().unwrap();
        assert!(!examples.is_empty(), "{name} has no example");
        for example in examples {
            let frame = &example["payload"];
            assert_eq!(messages_of(frame), [name], "{frame:#}");
        }
    }
}

#[test]
fn it_is_of_this_version() {
    assert_eq!(DOCUMENT["info"]["version"], env!("CARGO_PKG_VERSION"));
}

/// The README's section on the stream.
fn section() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(path).unwrap();
    let (_, after) = readme.split_once("\n## The client stream\n").unwrap();
    let (section, _) = after.split_once("\n## ").unwrap();
    section.to_owned()
}

#[test]
fn the_examples_of_the_readme_are_valid() {
    let section = section();
    let blocks = section.split("```json\n").skip(1);
    let blocks = blocks.map(|block| block.split_once("```").unwrap().0);
    let inline = section.split('`').filter(|code| code.starts_with("{\""));
    let examples: Vec<&str> = blocks.chain(inline).collect();
    let mut types = BTreeSet::new();
    for example in examples {
        let frame = serde_json::from_str(example);
        let frame = checked(frame.unwrap_or_else(|error| panic!("{error}: {example}")));
        types.insert(frame["type"].as_str().unwrap().to_owned());
    }
    let want = ["ack", "authenticate", "tool_completed"];
    assert!(types.iter().eq(want), "{types:?}");
}

/// What the first column of the README's tables begins with, for each row.
fn rows(section: &str) -> impl Iterator<Item = &str> {
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split_once(" |").unwrap().0)
}

#[test]
fn the_readme_lists_the_fields_of_every_control_frame() {
    let section = section();
    let mut listed = BTreeSet::new();
    for row in rows(&section).filter(|row| row.starts_with("connection_")) {
        let (name, fields) = row.split_once("` {").unwrap();
        let fields = fields.strip_suffix('}').unwrap().split(", ");
        let told: BTreeSet<_> = fields.chain(["type"]).collect();
        let schema = &DOCUMENT["components"]["messages"][name]["payload"]["$ref"];
        let schema = schema
            .as_str()
            .unwrap_or_else(|| panic!("no message {name}"));
        let schema = DOCUMENT.pointer(schema.strip_prefix('#').unwrap()).unwrap();
        assert!(
            told.iter().eq(members(&schema["properties"]).keys()),
            "{row}"
        );
        listed.insert(name);
    }
    let messages = messages().into_iter();
    let control: BTreeSet<_> = messages
        .filter(|name| name.starts_with("connection_"))
        .collect();
    assert_eq!(listed, control);
}

#[test]
fn the_readme_lists_every_parameter() {
    let section = section();
    let parameters = rows(&section).filter(|row| !row.starts_with("connection_"));
    // Such as "after=<epoch>-<offset>`" and "thread_id=`, `run_id=`, `types=a,b`".
    let told: BTreeSet<_> = parameters
        .flat_map(|row| row.split('`'))
        .filter_map(|code| Some(code.split_once('=')?.0))
        .collect();
    let query = &DOCUMENT["components"]["schemas"]["Query"]["properties"];
    assert!(told.iter().eq(members(query).keys()), "{told:?}");
}
