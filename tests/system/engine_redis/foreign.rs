//! Keys that another program wrote, what an append leaves that failed between its writes, and settings that do not fit the
//! server.

use emitter::{
    engine::{AppendError, Commit, Engine},
    event::{Kind, StreamKey},
};

use super::{Config, Url, admit, loaded, node_on};
use crate::{
    processes::tools::until,
    redis::{IN_MEMORY, Redis},
    support::events::{START, all, append, draft, event, ids, notes, offsets, stream},
};

/// The key of `kind` of the user or its bucket.
fn key(user: &StreamKey, log: &str, kind: char) -> String {
    let (base, sid) = log.split_once("}l").expect("the key of a log");
    match kind {
        'b' | 'i' | 'd' | 'y' => format!("{{emitter:{}}}{kind}", user.bucket()),
        _ => format!("{base}}}{kind}{sid}"),
    }
}

/// The key of the only log.
fn log(redis: &Redis) -> String {
    let keys = redis.cli(&["keys", "*}l*"]);
    let keys: Vec<&str> = keys.lines().collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys[0].to_owned()
}

#[tokio::test]
async fn an_append_that_meets_a_foreign_key_stores_nothing_and_names_it() {
    let redis = Redis::start(IN_MEMORY).await;
    let engine = node_on(&redis.address(), |_| {});
    let user = stream("u");
    let begin = |run: &str| Commit {
        drafts: vec![draft(
            event(&user, run, Some(run), Kind::AgentStarted),
            1,
            START,
        )],
    };
    append(&*engine, &user, begin("r0")).await;
    let log = log(&redis);
    for kind in "mlqoxediyb".chars() {
        let state = loaded(&*engine, &user).await;
        let (key, run) = (key(&user, &log, kind), format!("r-{kind}"));
        let was_there = redis.cli(&["exists", &key]).trim() == "1";
        if was_there {
            redis.cli(&["rename", &key, "away"]);
        }
        redis.cli(&["set", &key, "foreign"]);
        match engine.append(&user, &state, begin(&run)).await {
            Err(AppendError::Unavailable(why)) => assert!(why.contains(&key), "{kind}: {why}"),
            other => panic!("{kind}: {other:?}"),
        }
        let problems = engine.problems();
        assert!(
            problems.iter().any(|problem| problem.contains(&key)),
            "{kind}: {problems:?}"
        );
        redis.cli(&["del", &key]);
        if was_there {
            redis.cli(&["rename", "away", &key]);
        }
        assert_eq!(loaded(&*engine, &user).await.head, state.head, "{kind}");
        let length = redis.cli(&["xlen", &log]);
        assert_eq!(length.trim(), state.head.offset.0.to_string(), "{kind}");
        let stored = append(&*engine, &user, begin(&run)).await;
        assert_eq!(stored.records[0].prev, state.head.offset, "{kind}");
    }
    let kept = all(&*engine, &user).await;
    assert_eq!(offsets(&kept), (1..=11).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_stands_beyond_the_head_is_never_seen_and_makes_room() {
    let redis = Redis::start(IN_MEMORY).await;
    let engine = node_on(&redis.address(), |_| {});
    let user = stream("u");
    append(&*engine, &user, notes(&user, &["a"], START)).await;
    let log = log(&redis);
    let memory = key(&user, &log, 'q');
    // What an append of two left that failed after the records: copies stand in for them.
    for (key, fields) in [(&log, 3), (&memory, 2)] {
        let entry = redis.cli(&["xrange", key, "1", "1"]);
        let fields: Vec<&str> = entry.lines().skip(1).take(2 * fields).collect();
        for offset in ["2", "3"] {
            let command = [&["xadd", key, offset][..], &fields].concat();
            redis.cli(&command);
        }
    }
    let state = loaded(&*engine, &user).await;
    assert_eq!((state.head.offset.0, state.dedupe.len()), (1, 1));
    assert_eq!(ids(&all(&*engine, &user).await), ["a"]);
    for (id, length) in [("b", "2"), ("c", "3")] {
        append(&*engine, &user, notes(&user, &[id], START)).await;
        assert_eq!(redis.cli(&["xlen", &log]).trim(), length);
        assert_eq!(redis.cli(&["xlen", &memory]).trim(), length);
    }
    let kept = all(&*engine, &user).await;
    assert_eq!(
        (ids(&kept), offsets(&kept)),
        (["a", "b", "c"].map(str::to_owned).to_vec(), vec![1, 2, 3])
    );
}

#[tokio::test]
async fn settings_that_do_not_fit_the_server_are_named() {
    let redis = Redis::start(IN_MEMORY).await;
    admit(&redis, "emitter", "");
    admit(&redis, "reader", "-@write");
    redis.cli(&["config", "set", "requirepass", "secret"]);
    let url =
        |who: &str, path: &str| vec![Url::new(&format!("redis://{who}{}{path}", redis.address()))];
    type Change = Box<dyn Fn(&mut Config)>;
    let urls = |urls: Vec<Url>| -> Change { Box::new(move |config| config.urls = urls.clone()) };
    let cases: [(&str, Change); 4] = [
        ("redis.password_file", urls(url("", ""))),
        ("redis.username", urls(url(":wrong@", ""))),
        ("deploy/README.md", urls(url("reader:secret@", ""))),
        ("names a database", urls(url(":secret@", "/99"))),
    ];
    let user = stream("u");
    for (said, change) in cases {
        let engine = node_on(&redis.address(), change);
        // What is only refused when it is called is known by then.
        let _refused = engine.load(&user).await;
        until(said, async || {
            let problems = engine.problems();
            if !problems.iter().any(|problem| problem.contains(said)) {
                println!("{said}: {problems:?}");
                return false;
            }
            true
        })
        .await;
    }
}
