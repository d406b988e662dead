//! What the first version wrote is read by this one.
//!
//! `first-version/` was written by `write` below and is not changed. Another format gets a directory of its own beside
//! it: with `EMITTER_KEEP_DIRECTORY=<path>` the test leaves there what this version writes.

use std::{fs, path::Path, time::Duration};

use bytes::Bytes;
use emitter::{
    clock::Clock,
    engine::{Commit, Engine, Key, RunQuery, memory},
    event::{Draft, Event, Kind, OpenToolCall, RunSequence, Step, Summary, Usage},
    usage::UsageQuery,
};

use super::{clock, facts, page};
use crate::support::events::{
    START, append, draft, durable, event, note, of, run_id, stream, tool_call_id, tool_name,
};

const FIRST_VERSION: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/it/durable/first-version"
);

fn bounds() -> memory::Config {
    memory::Config {
        retention_records: 8,
        ..memory::Config::default()
    }
}

/// Something of everything that a directory holds: trimmed records with ids that are still known, runs with rows and
/// without, keys, usage.
async fn write(directory: &Path, clock: &Clock) {
    let engine = durable(directory, bounds(), clock, 1).unwrap();
    let user = stream("u");
    let made = |id: &str, kind, step| Event {
        step,
        ..of(event(&user, id, Some("r1"), kind), "t1", "researcher")
    };
    let start = Step::Start {
        silence_timeout: Some(Duration::from_secs(60)),
    };
    let begins = Step::ToolBegins {
        id: tool_call_id("c1"),
        name: tool_name("search"),
        arguments: None,
        call: None,
    };
    let mut thinks = made("e2", Kind::AgentThinking, Step::Other);
    thinks.usage = Some(Box::new(Usage {
        provider: "acme".into(),
        model: "large".into(),
        tokens: emitter::event::Tokens {
            input: 100,
            ..Default::default()
        },
        cost_nano_usd: Some(7),
    }));
    thinks.body = Bytes::from_static(b"\x00what it thinks\xff");
    let ends = Draft {
        summary: Some(Box::new(Summary {
            open_tool_calls: vec![OpenToolCall {
                call_sequence: RunSequence(0),
                arguments: None,
                id: tool_call_id("c1"),
                name: tool_name("search"),
                started_at: START,
            }],
            usage: None,
        })),
        ..draft(made("e4", Kind::AgentCompleted, Step::End), 4, START)
    };
    let drafts = vec![
        draft(made("e1", Kind::AgentStarted, start), 1, START),
        draft(thinks, 2, START),
        draft(made("e3", Kind::ToolExecuting, begins), 3, START),
        ends,
    ];
    append(&*engine, &user, Commit { drafts }).await;
    let open = event(&user, "e5", Some("r2"), Kind::AgentStarted);
    let drafts = vec![draft(open, 1, START)];
    append(&*engine, &user, Commit { drafts }).await;
    for n in 0..6 {
        let drafts = vec![draft(note(&user, &format!("n{n}")), 0, START)];
        append(&*engine, &user, Commit { drafts }).await;
    }
    let claim = Key::RunClaim(user.tenant().clone(), run_id("r1"));
    let (value, day) = (Bytes::from_static(b"claim"), Duration::from_secs(86_400));
    engine
        .put_if_absent(&claim, value.clone(), day)
        .await
        .unwrap();
    engine
        .put_if_absent(&Key::Acks(user), value, day)
        .await
        .unwrap();
    engine.close().await;
}

/// Everything that can be asked of what `write` wrote.
async fn told(directory: &Path, clock: &Clock) -> Vec<String> {
    let engine = durable(directory, bounds(), clock, 2).unwrap();
    let user = stream("u");
    let mut state = engine.load(&user).await.unwrap();
    let epoch = state.head.epoch.to_string();
    state.epoch_since = None;
    let page = page(&*engine, &user).await;
    let query = RunQuery {
        limit: 10,
        ..RunQuery::default()
    };
    let claim = Key::RunClaim(user.tenant().clone(), run_id("r1"));
    let told = [
        facts(&state, clock.now()),
        format!("{:#?} {}", page.records, page.trimmed.0),
        format!("{:?}", engine.runs(&query).await),
        format!("{:#?}", engine.usage(&UsageQuery::default()).await),
        format!("{:?}", engine.get(&claim).await),
        format!("{:?}", engine.get(&Key::Acks(user)).await),
    ];
    engine.close().await;
    // Each directory has its own epoch, and the first version did not store the numbers of open calls.
    let call = |number: u64| format!("call_sequence: RunSequence({number})");
    let alike = |told: String| told.replace(&epoch, "EPOCH").replace(&call(3), &call(0));
    told.map(alike).into()
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn what_the_first_version_wrote_is_read() {
    let clock = clock();
    let fresh = tempfile::tempdir().unwrap();
    write(fresh.path(), &clock).await;
    if let Ok(keep) = std::env::var("EMITTER_KEEP_DIRECTORY") {
        copy(fresh.path(), Path::new(&keep));
    }
    let first = tempfile::tempdir().unwrap();
    copy(Path::new(FIRST_VERSION), first.path());
    for keyspace in ["1", "2"] {
        // Directories without files are not kept with the sources.
        fs::create_dir_all(first.path().join("keyspaces").join(keyspace).join("tables")).unwrap();
    }
    let (got, want) = (
        told(first.path(), &clock).await,
        told(fresh.path(), &clock).await,
    );
    for (got, want) in got.iter().zip(&want) {
        assert_eq!(got, want);
    }
    assert!(want[0].contains("e1") && want[1].contains("n5"), "{want:?}");
}
