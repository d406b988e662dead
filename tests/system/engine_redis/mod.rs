//! The engine on Redis: the conformance suite, and what only a store that nodes share must do.

mod agreement;
mod conformance;
mod failover;
mod faults;
mod foreign;
mod nodes;
mod stall;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use emitter::{
    clock::{Clock, Entropy},
    engine::{
        Engine, StreamState, Watcher, memory,
        redis::{Bounds, Config, RedisEngine, Url},
    },
    event::{Position, Record, StreamKey},
};

use crate::{processes::tools::until, redis::Redis, support::events};

/// Where `server` is.
fn url(server: &Redis) -> String {
    format!("redis://{}", server.address())
}

/// Where the nodes of a cluster are.
fn urls(nodes: &[Redis]) -> Vec<Url> {
    nodes.iter().map(|node| Url::new(&url(node))).collect()
}

/// The settings for `server`, for tests: within `bounds`.
fn config(server: &Redis, bounds: memory::Config) -> Config {
    Config {
        urls: vec![Url::new(&url(server))],
        ..config_of(bounds)
    }
}

/// Settings within `bounds`.
fn config_of(bounds: memory::Config) -> Config {
    Config {
        timeout: Duration::from_secs(5),
        // Tests move their clocks.
        clock_tolerance: Duration::MAX,
        bounds: Bounds {
            retention_age: bounds.retention_age,
            retention_records: bounds.retention_records,
            retention_bytes: bounds.retention_bytes,
            run_memory: bounds.run_memory,
            dedupe_window: bounds.dedupe_window,
            dedupe_ids_per_user: bounds.dedupe_ids_per_user,
            usage_age: bounds.usage_age,
            usage_series: bounds.usage_series,
        },
        ..Config::default()
    }
}

/// A node's engine on `config`, whose clock is `clock`.
fn node(config: Config, clock: &Clock) -> Arc<RedisEngine> {
    RedisEngine::new(config, clock.clone(), Entropy::system(), events::metrics())
}

/// Makes `server` know a user with the rights that are documented, and `more`. The password is `secret`.
fn admit(server: &Redis, user: &str, more: &str) {
    let documented = include_str!("../../../deploy/README.md");
    let rights = documented
        .lines()
        .find(|line| line.starts_with("~{emitter:*"));
    let rights = rights.expect("the documented rights").split(' ');
    let command = ["acl", "setuser", user, "reset", "on", ">secret"].into_iter();
    let command: Vec<&str> = command
        .chain(rights)
        .chain(more.split_whitespace())
        .collect();
    assert_eq!(server.cli(&command).trim(), "OK");
}

/// A node on `server` as it is, with defaults but for `change`, and patient: the machine may be loaded.
fn node_on(server: &str, change: impl FnOnce(&mut Config)) -> Arc<RedisEngine> {
    let mut config = Config {
        urls: vec![Url::new(&format!("redis://{server}"))],
        timeout: Duration::from_secs(10),
        clock_tolerance: Duration::MAX,
        ..Config::default()
    };
    change(&mut config);
    node(config, &Clock::manual(events::START))
}

/// What the engine has of `user`, as soon as it answers.
async fn loaded(engine: &dyn Engine, user: &StreamKey) -> StreamState {
    let mut state = None;
    until("the engine answers", async || {
        state = engine.load(user).await.ok();
        state.is_some()
    })
    .await;
    state.unwrap()
}

/// Tries to store a note with this id: where it is.
async fn tried(engine: &dyn Engine, user: &StreamKey, id: &str) -> Option<Position> {
    let state = engine.load(user).await.ok()?;
    let commit = events::notes(user, &[id], events::START);
    let appended = engine.append(user, &state, commit).await.ok()?;
    Some(appended.records[0].position)
}

/// What a watcher is told.
#[derive(Default)]
struct Told(Mutex<(Vec<Arc<Record>>, Vec<Position>)>);

impl Watcher for Told {
    fn appended(&self, records: &[Arc<Record>]) {
        self.0.lock().unwrap().0.extend_from_slice(records);
    }

    fn stands_at(&self, head: Position) {
        self.0.lock().unwrap().1.push(head);
    }
}

impl Told {
    fn ids(&self) -> Vec<String> {
        events::ids(&self.0.lock().unwrap().0)
    }

    fn heads(&self) -> Vec<Position> {
        self.0.lock().unwrap().1.clone()
    }

    /// Whether the stream is known to stand at `head`, one way or the other.
    fn knows(&self, head: Position) -> bool {
        let told = self.0.lock().unwrap();
        told.0.last().is_some_and(|last| last.position == head) || told.1.last() == Some(&head)
    }
}
