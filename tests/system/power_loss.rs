//! A durable engine loses its power at any moment: its files are rebuilt from a recording of its system calls as they
//! were last synced, and with whatever more may have survived by chance.

use std::{collections::HashMap, fs, path::Path, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    processes::{
        ledger::Outcome,
        load::{Load, LoadConfig},
        reading::{Reading, replay},
        server::Server,
    },
    seed::{cases, seed},
    trace::{Disk, Trace, rebuild, recorded, recorder},
};

/// A recording of a server under load.
struct Recorded {
    server: Server,
    trace: Trace,
    /// The first step by which a producer or reader knew of each event.
    told: HashMap<String, usize>,
    toml: String,
    seed: u64,
}

async fn record(sync: &str) -> Recorded {
    let toml =
        format!("[engine]\nkind = \"durable\"\ndata_dir = \"{{data}}\"\nsync = \"{sync}\"\n");
    let recorder = recorder(Path::new("{data}.recording"));
    let words: Vec<&str> = recorder.iter().map(String::as_str).collect();
    let mut server = Server::start_under("recorded", &toml, &words).await;
    let seed = seed();
    let config = LoadConfig::new(vec![server.grpc.clone()], seed);
    let reader = |user: &String| Reading::grpc(user, std::slice::from_ref(&server.grpc), seed);
    let readings: Vec<Reading> = config.users.iter().map(reader).collect();
    let load = Load::start(&config);
    load.acknowledged(400).await;
    let (pid, ledger) = (server.pid(), load.finish().await);
    // It ends by itself, so that no call is cut short that the recording would not say the end of.
    assert!(server.terminate().await.success());
    let recording = server.data().with_extension("recording");
    recorded(&recording, pid).await;
    drop(readings);
    let trace = Trace::read(&recording, &server.data());
    assert_files_are(&trace.after(trace.len()), &server.data());
    let told = {
        let book = ledger.book();
        let told = trace.told(|word| book.events.contains_key(word));
        let acknowledged = book.events.iter();
        let acknowledged =
            acknowledged.filter(|(_, entry)| matches!(entry.outcome, Outcome::Acknowledged { .. }));
        for (id, _) in acknowledged {
            assert!(told.contains_key(id), "the recording says nothing of {id}");
        }
        told
    };
    Recorded {
        server,
        trace,
        told,
        toml,
        seed,
    }
}

/// The recording is complete: it leads to the files that are there.
fn assert_files_are(disk: &Disk, directory: &Path) {
    let there = crate::processes::tools::files(directory);
    let recorded = disk.now();
    let names: Vec<_> = recorded.keys().cloned().collect();
    assert_eq!(names, there);
    for (name, content) in &recorded {
        let there = fs::read(name).unwrap();
        let at = content
            .iter()
            .zip(&there)
            .position(|(one, other)| one != other);
        let lengths = (content.len(), there.len());
        assert!(*content == there, "{}: {lengths:?}, {at:?}", name.display());
    }
}

/// An event that somebody knew of, and that a loss of power took.
#[derive(Debug)]
#[allow(dead_code, reason = "printed")]
struct Missing {
    id: String,
    /// The step by which somebody was told of it.
    told: usize,
    /// The one before which the power went.
    cut: usize,
    /// How long it had been known.
    age: Duration,
}

/// What losses of power at random moments cost: of `cuts`, the events that somebody knew of and that are missing.
async fn losses(recorded: &Recorded, cuts: u64) -> Vec<Missing> {
    let Recorded {
        server,
        trace,
        told,
        toml,
        seed,
    } = recorded;
    let mut rng = StdRng::seed_from_u64(*seed);
    let mut moments: Vec<usize> = told.values().copied().collect();
    moments.sort_unstable();
    let mut rebuilt = Server::prepared("rebuilt", toml, &[]);
    let mut missing = Vec::new();
    for cut in 0..cuts {
        // Right after somebody was told is when a loss would show.
        let moment = moments[rng.random_range(0..moments.len())] + 1;
        let disk = trace.after(moment);
        let files = if cut % 2 == 0 {
            disk.synced()
        } else {
            disk.by_chance(&mut rng)
        };
        rebuild(&files, &server.data(), &rebuilt.data());
        if let Err(refused) = rebuilt.try_start().await {
            let kind = if cut % 2 == 0 { "synced" } else { "by chance" };
            panic!("after step {moment}, {kind}, it does not start: {refused:#?}");
        }
        let mut kept = HashMap::new();
        for user in 0..4 {
            for seen in replay(&rebuilt.grpc, &format!("u{user}")).await {
                assert!(kept.insert(seen.event_id.clone(), seen).is_none());
            }
        }
        let known = told.iter().filter(|&(_, &step)| step < moment);
        let lost = known.filter(|&(id, _)| !kept.contains_key(id));
        missing.extend(lost.map(|(id, &told)| Missing {
            id: id.clone(),
            told,
            cut: moment,
            age: trace.between(told, moment - 1),
        }));
        rebuilt.kill().await;
        fs::remove_dir_all(rebuilt.data()).unwrap();
    }
    println!(
        "{} steps, {} syncs, {} events told of; {cuts} losses of power: {} events missing, known for {:?} at most",
        trace.len(),
        trace.syncs(),
        told.len(),
        missing.len(),
        missing
            .iter()
            .map(|missing| missing.age)
            .max()
            .unwrap_or_default()
    );
    missing
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_for_each_group_loses_nothing_that_anybody_knew_of_soak() {
    let recorded = record("group").await;
    let missing = losses(&recorded, cases(20, 500)).await;
    assert!(missing.is_empty(), "{missing:#?}");
}

/// What the other levels say that they lose, they do lose: else the test above would show nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_now_and_then_loses_what_came_after_it() {
    let recorded = record("interval(200)").await;
    let missing = losses(&recorded, 10).await;
    assert!(!missing.is_empty());
    for missing in missing {
        let synced = recorded.trace.journal_synced(missing.cut);
        assert!(synced > 0, "nothing was synced by {missing:?}");
        assert!(
            missing.told > synced,
            "{missing:?}, known before step {synced} synced it"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_syncs_to_the_system_loses_what_it_had_not_written() {
    let recorded = record("os").await;
    let missing = losses(&recorded, 10).await;
    assert!(!missing.is_empty());
}
