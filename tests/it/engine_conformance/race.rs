//! Writers that race: each compares, loses, takes in what it missed, and tries again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Barrier},
};

use emitter::{
    clock::Clock,
    engine::{AppendError, Engine},
    event::StreamKey,
};

use crate::support::events::{START, all, ids, notes, stream};

const WRITERS: usize = 4;
const EACH: usize = 50;

/// Appends notes one after the other, never reloading while the engine says what was missed.
async fn write(engine: &dyn Engine, user: &StreamKey, writer: usize) {
    let mut state = engine.load(user).await.unwrap();
    for n in 0..EACH {
        let id = format!("w{writer}-{n:02}");
        loop {
            let commit = notes(user, &[&id], START);
            match engine.append(user, &state, commit).await {
                Ok(appended) => {
                    state.apply(&appended.records[0]);
                    break;
                }
                Err(AppendError::Conflict(missed)) => {
                    assert!(!missed.is_empty(), "a conflict with nothing missed");
                    for record in missed {
                        assert!(record.position.offset > state.head.offset);
                        assert!(
                            record.prev == state.head.offset || record.prev.0 == 0,
                            "{record:?} does not follow {}",
                            state.head
                        );
                        state.apply(&record);
                    }
                }
                Err(AppendError::Reload) => state = engine.load(user).await.unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

pub(crate) async fn writers_that_race_keep_one_order(engine: Arc<dyn Engine>, _clock: Clock) {
    let user = stream("u");
    let barrier = Arc::new(Barrier::new(WRITERS));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (engine, user, barrier) = (engine.clone(), user.clone(), barrier.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .unwrap();
                barrier.wait();
                runtime.block_on(write(&*engine, &user, writer));
            })
        })
        .collect();
    for writer in writers {
        writer.join().expect("the writer succeeds");
    }
    let records = all(&*engine, &user).await;
    assert_eq!(records.len(), WRITERS * EACH);
    let mut prev = 0;
    let mut last_of: BTreeMap<String, String> = BTreeMap::new();
    for (record, id) in records.iter().zip(ids(&records)) {
        assert_eq!(record.prev.0, prev, "at {id}");
        prev = record.position.offset.0;
        let writer = id[..2].to_owned();
        let before = last_of.insert(writer, id.clone());
        assert!(
            before.as_ref().is_none_or(|before| *before < id),
            "{before:?} then {id}"
        );
    }
}
