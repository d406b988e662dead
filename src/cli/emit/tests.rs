use clap::Parser;

use super::*;
use crate::proto::v1::{event::Payload, tool_executing::Input};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    emit: Emit,
}

fn parse(args: &[&str]) -> Result<Emit, clap::Error> {
    let args = std::iter::once(&"emit").chain(args);
    Command::try_parse_from(args).map(|command| command.emit)
}

fn event(args: &[&str]) -> Result<Event, String> {
    parse(args).unwrap().event()
}

#[test]
fn flags_become_an_event() {
    let names = ["--user", "u", "--run", "r", "--thread", "t", "--agent", "a"];
    let tool = ["--tool", "search", "--call", "c", "--message", "look"];
    let rest = ["--event-id", "e", "--type", "tool_executing"];
    let data = ["--data", r#"{"parameters": {"q": 1}}"#];
    let args = [&names[..], &tool, &rest, &data].concat();
    let event = event(&args).unwrap();
    assert_eq!(
        [
            &event.user_id,
            &event.run_id,
            &event.thread_id,
            &event.agent_name,
            &event.event_id
        ],
        ["u", "r", "t", "a", "e"]
    );
    let Some(Payload::ToolExecuting(tool)) = event.payload else {
        panic!("another arm");
    };
    assert_eq!(
        [&*tool.tool_name, &tool.tool_call_id, &tool.description],
        ["search", "c", "look"]
    );
    assert_eq!(tool.input, Some(Input::ParametersJson(r#"{"q":1}"#.into())));
}

#[test]
fn data_stays_exact() {
    let data = r#"{"parameters": {"id": 12345678901234567890123}}"#;
    let event = event(&["--type", "tool_executing", "--tool", "t", "--data", data]).unwrap();
    let Some(Payload::ToolExecuting(tool)) = event.payload else {
        panic!("another arm");
    };
    let exact = r#"{"id":12345678901234567890123}"#;
    assert_eq!(tool.input, Some(Input::ParametersJson(exact.into())));
}

#[test]
fn wrong_flags_are_told() {
    for args in [
        &[][..],
        &["--stdin", "--type", "x"],
        &["-", "--data", "{}"],
        &["--type", "x", "--batch", "0"],
        &["--type", "x", "--batch", "1001"],
        &["file"],
    ] {
        assert!(parse(args).is_err(), "{args:?}");
    }
    for (args, want) in [
        (
            &["--type", "my.type", "--message", "x"][..],
            "--message: `my.type` has no field",
        ),
        (&["--type", "message", "--data", "[]"], "--data: "),
        (
            &["--type", "message", "--data", r#"{"odd":1}"#],
            "payload: unknown field `odd`",
        ),
        (&["--type", "connection_x"], "the service's own"),
    ] {
        let error = event(args).unwrap_err();
        assert!(error.contains(want), "{args:?}: {error}");
    }
}

#[test]
fn flags_replace_what_a_line_says() {
    let emit = parse(&["-", "--user", "copy", "--fresh-ids"]).unwrap();
    let event = emit.replaced(Event {
        event_id: "e".into(),
        user_id: "u".into(),
        run_id: "r".into(),
        ..Event::default()
    });
    assert_eq!(
        [&*event.event_id, &event.user_id, &event.run_id],
        ["", "copy", "r"]
    );
}
