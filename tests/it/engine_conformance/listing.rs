//! Listing the runs of all streams.

use std::{sync::Arc, time::Duration};

use emitter::{
    clock::{Clock, Timestamp},
    engine::{Commit, Engine, KnownRun, RunQuery},
    event::{AgentName, Draft, Kind, StreamKey, Tenant, ThreadId, UserId},
    run::RunState,
};

use crate::support::events::{START, append, draft, event, of, run_id};

fn key(tenant: &str, user: &str) -> StreamKey {
    StreamKey::new(Tenant::new(tenant).unwrap(), UserId::new(user).unwrap())
}

fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

async fn put(engine: &dyn Engine, stream: &StreamKey, draft: Draft) {
    let drafts = vec![draft];
    append(engine, stream, Commit { drafts }).await;
}

/// `run` of `stream` starts after so many seconds, on the thread `t` by the agent `a`.
async fn start(engine: &dyn Engine, stream: &StreamKey, run: &str, seconds: u64) {
    start_of(engine, stream, run, seconds, ("t", "a")).await;
}

async fn start_of(
    engine: &dyn Engine,
    stream: &StreamKey,
    run: &str,
    seconds: u64,
    (thread, agent): (&str, &str),
) {
    let started = event(stream, &format!("{run}-1"), Some(run), Kind::AgentStarted);
    let started = draft(of(started, thread, agent), 1, at(seconds));
    put(engine, stream, started).await;
}

async fn end(engine: &dyn Engine, stream: &StreamKey, run: &str, kind: Kind) {
    let ended = event(stream, &format!("{run}-2"), Some(run), kind);
    put(engine, stream, draft(ended, 2, at(1_000))).await;
}

fn asked() -> RunQuery {
    RunQuery {
        limit: 100,
        ..RunQuery::default()
    }
}

async fn list(engine: &dyn Engine, query: &RunQuery) -> Vec<KnownRun> {
    engine.runs(query).await.expect("runs")
}

async fn names(engine: &dyn Engine, query: &RunQuery) -> Vec<String> {
    let name = |known: KnownRun| known.run_id.as_str().to_owned();
    list(engine, query).await.into_iter().map(name).collect()
}

pub(crate) async fn runs_are_listed_from_the_one_that_started_last(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let (u, v) = (key("default", "u"), key("default", "v"));
    start(&*engine, &u, "r1", 1).await;
    start(&*engine, &v, "r3", 3).await;
    start(&*engine, &u, "r2", 2).await;
    let runs = list(&*engine, &asked()).await;
    let found: Vec<_> = runs.iter().map(|known| known.run_id.as_str()).collect();
    assert_eq!(found, ["r3", "r2", "r1"]);
    assert_eq!(runs[0].stream, v);
    let alone = engine.run(&v, &run_id("r3")).await.unwrap();
    assert_eq!(Some(runs[0].run.clone()), alone);
    let two = RunQuery {
        limit: 2,
        ..asked()
    };
    assert_eq!(names(&*engine, &two).await, ["r3", "r2"]);
}

pub(crate) async fn runs_that_started_at_once_are_listed_by_tenant_user_and_id(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    for (tenant, user, run) in [
        ("b", "u", "r1"),
        ("a", "v", "r2"),
        ("a", "u", "r4"),
        ("a", "u", "r3"),
    ] {
        start(&*engine, &key(tenant, user), run, 1).await;
    }
    assert_eq!(names(&*engine, &asked()).await, ["r3", "r4", "r2", "r1"]);
}

pub(crate) async fn every_filter_must_hold(engine: Arc<dyn Engine>, _clock: Clock) {
    let (u, v, w) = (key("a", "u"), key("a", "v"), key("b", "u"));
    start_of(&*engine, &u, "r1", 1, ("t1", "a1")).await;
    start_of(&*engine, &u, "r2", 2, ("t2", "a2")).await;
    start_of(&*engine, &v, "r3", 3, ("t1", "a2")).await;
    start_of(&*engine, &w, "r4", 4, ("t1", "a1")).await;
    let mut below = event(&u, "r5-1", Some("r5"), Kind::AgentStarted);
    below.parent_run_id = Some(run_id("r1"));
    let mut below = draft(of(below, "t5", "a5"), 1, at(5));
    below.parent_run_id = Some(run_id("r1"));
    put(&*engine, &u, below).await;
    end(&*engine, &u, "r2", Kind::AgentFailed).await;
    end(&*engine, &v, "r3", Kind::AgentCompleted).await;
    let tenant = |name: &str| Tenant::new(name).ok();
    let user = |name: &str| UserId::new(name).ok();
    let cases: Vec<(RunQuery, &[&str])> = vec![
        (asked(), &["r5", "r4", "r3", "r2", "r1"]),
        (
            RunQuery {
                parent_run_id: Some(run_id("r1")),
                ..asked()
            },
            &["r5"],
        ),
        (
            RunQuery {
                tenant: tenant("a"),
                ..asked()
            },
            &["r5", "r3", "r2", "r1"],
        ),
        (
            RunQuery {
                user: user("u"),
                ..asked()
            },
            &["r5", "r4", "r2", "r1"],
        ),
        (
            RunQuery {
                tenant: tenant("a"),
                user: user("u"),
                ..asked()
            },
            &["r5", "r2", "r1"],
        ),
        (
            RunQuery {
                tenant: tenant("a"),
                user: user("nobody"),
                ..asked()
            },
            &[],
        ),
        (
            RunQuery {
                thread_id: ThreadId::new("t1").ok(),
                ..asked()
            },
            &["r4", "r3", "r1"],
        ),
        (
            RunQuery {
                agent_name: AgentName::new("a2").ok(),
                ..asked()
            },
            &["r3", "r2"],
        ),
        (
            RunQuery {
                states: vec![RunState::Failed, RunState::Completed],
                ..asked()
            },
            &["r3", "r2"],
        ),
        (
            RunQuery {
                states: vec![RunState::Running],
                ..asked()
            },
            &["r5", "r4", "r1"],
        ),
        (
            RunQuery {
                started_from: Some(at(2)),
                started_before: Some(at(4)),
                ..asked()
            },
            &["r3", "r2"],
        ),
    ];
    for (query, want) in cases {
        assert_eq!(names(&*engine, &query).await, want, "{query:?}");
    }
}

/// Page by page of every size the same list, however runs lie in it.
pub(crate) async fn a_list_goes_on_after_any_place(engine: Arc<dyn Engine>, _clock: Clock) {
    for number in 0..24 {
        let stream = key(["a", "b"][number % 2], ["u", "v", "w"][number % 3]);
        // Four at a time start at once.
        start(&*engine, &stream, &format!("r{number}"), number as u64 / 4).await;
    }
    let whole = list(&*engine, &asked()).await;
    assert_eq!(whole.len(), 24);
    for limit in 1..=25 {
        let mut query = RunQuery { limit, ..asked() };
        let mut pages = Vec::new();
        loop {
            let page = list(&*engine, &query).await;
            assert!(page.len() <= limit, "{limit}: {page:?}");
            let Some(last) = page.last() else { break };
            query.after = Some(last.place());
            pages.extend(page);
            assert!(pages.len() <= whole.len(), "{limit}: {pages:?}");
        }
        assert_eq!(pages, whole, "pages of {limit}");
    }
}

pub(crate) async fn a_list_goes_on_whatever_starts_and_ends_meanwhile(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let (u, v) = (key("a", "u"), key("a", "v"));
    for number in 1..=4 {
        start(&*engine, &u, &format!("r{number}"), number).await;
    }
    let mut query = RunQuery {
        limit: 2,
        ..asked()
    };
    let page = list(&*engine, &query).await;
    query.after = page.last().map(KnownRun::place);
    end(&*engine, &u, "r4", Kind::AgentCompleted).await;
    end(&*engine, &u, "r3", Kind::AgentCompleted).await;
    end(&*engine, &u, "r1", Kind::AgentCompleted).await;
    start(&*engine, &v, "r5", 5).await;
    assert_eq!(names(&*engine, &query).await, ["r2", "r1"]);
}
