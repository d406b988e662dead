//! Watching: hints in the order of the appends.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use emitter::{
    clock::Clock,
    engine::{Engine, Watcher},
    event::{Position, Record},
};

use tokio::sync::Notify;

use crate::support::events::{START, append, ids, notes, offsets, stream};

#[derive(Default)]
pub(crate) struct Heard {
    records: Mutex<Vec<Arc<Record>>>,
    more: Notify,
}

/// How long a hint may take where it comes from elsewhere.
const PATIENCE: Duration = Duration::from_secs(60);

impl Heard {
    pub(crate) fn records(&self) -> Vec<Arc<Record>> {
        self.records.lock().unwrap().clone()
    }

    /// Waits until that many records were heard of, for a while, and returns what was.
    async fn first(&self, count: usize) -> Vec<Arc<Record>> {
        let heard = async {
            loop {
                // Made before looking, so that what comes after the look wakes it.
                let more = self.more.notified();
                if self.records().len() >= count {
                    return;
                }
                more.await;
            }
        };
        // What is missing then shows in what was heard.
        let _in_time = tokio::time::timeout(PATIENCE, heard).await;
        self.records()
    }
}

impl Watcher for Heard {
    fn stands_at(&self, _head: Position) {}

    fn appended(&self, records: &[Arc<Record>]) {
        self.records.lock().unwrap().extend_from_slice(records);
        self.more.notify_waiters();
    }
}

pub(crate) async fn a_watcher_hears_every_later_append_in_order(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let user = stream("u");
    append(&*engine, &user, notes(&user, &["before"], START)).await;
    let (first, second) = (Arc::new(Heard::default()), Arc::new(Heard::default()));
    let watch = engine.watch(&user, first.clone()).await.unwrap();
    assert_eq!(watch.head, engine.load(&user).await.unwrap().head);
    append(&*engine, &user, notes(&user, &["a", "b"], START)).await;
    let _second = engine.watch(&user, second.clone()).await.unwrap();
    append(&*engine, &user, notes(&user, &["c"], START)).await;
    append(
        &*engine,
        &stream("other"),
        notes(&stream("other"), &["x"], START),
    )
    .await;
    assert_eq!(ids(&first.first(3).await), ["a", "b", "c"]);
    assert_eq!(ids(&second.first(1).await), ["c"]);
}

pub(crate) async fn a_dropped_watch_hears_nothing_more(engine: Arc<dyn Engine>, _clock: Clock) {
    let user = stream("u");
    let (stays, goes) = (Arc::new(Heard::default()), Arc::new(Heard::default()));
    let _stays = engine.watch(&user, stays.clone()).await.unwrap();
    let guard = engine.watch(&user, goes.clone()).await.unwrap();
    append(&*engine, &user, notes(&user, &["a"], START)).await;
    assert_eq!(ids(&goes.first(1).await), ["a"]);
    drop(guard);
    append(&*engine, &user, notes(&user, &["b"], START)).await;
    assert_eq!(ids(&stays.first(2).await), ["a", "b"]);
    assert_eq!(ids(&goes.records()), ["a"]);
    // The engine holds nothing of it any more.
    assert_eq!(Arc::strong_count(&goes), 1);
}

pub(crate) async fn a_watch_begun_amid_appends_misses_none_after_its_head(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    const EACH: usize = 200;
    // Each append tells every watcher: without a bound, watches would slow the writer down that ends them.
    const WATCHES: usize = 500;
    let user = stream("u");
    let writer = std::thread::spawn({
        let (engine, user) = (engine.clone(), user.clone());
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            runtime.block_on(async {
                for n in 0..EACH {
                    append(&*engine, &user, notes(&user, &[&format!("n{n}")], START)).await;
                }
            });
        }
    });
    let mut watches = Vec::new();
    while !writer.is_finished() && watches.len() < WATCHES {
        let heard = Arc::new(Heard::default());
        let watch = engine.watch(&user, heard.clone()).await.unwrap();
        watches.push((watch, heard));
    }
    writer.join().unwrap();
    let stored = offsets(&crate::support::events::all(&*engine, &user).await);
    assert_eq!(stored.len(), EACH);
    for (watch, heard) in watches {
        let head = watch.head.offset.0;
        let want: Vec<u64> = stored.iter().copied().filter(|at| *at > head).collect();
        let heard = heard.first(want.len()).await;
        assert_eq!(offsets(&heard), want, "watched from {head}");
    }
}
