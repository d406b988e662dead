//! Files that were cut short or removed, or in which a bit was flipped: a start refuses, or has a prefix and says so.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use emitter::proto::v1::{Position, subscribe_response::Item};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tonic::Status;

use super::DURABLE;
use crate::{
    durable::witnessed_now,
    processes::{
        load::{Load, LoadConfig},
        reading::{Seen, is_passing, replay, subscribe},
        server::Server,
        tools::{copy_tree, files},
    },
    support::seed::{cases, seed},
};

/// What was done to a directory.
#[derive(Debug)]
#[allow(dead_code, reason = "printed when a test fails")]
enum Damage {
    Cut { file: PathBuf, to: u64 },
    Flipped { file: PathBuf, byte: u64, bit: u8 },
    Removed { file: PathBuf },
}

/// Damages one file below `directory`: each byte of all files is as likely as any other in one half of the cases, each
/// file in the other.
fn damage(directory: &Path, rng: &mut StdRng) -> Damage {
    let mut sizes: Vec<(PathBuf, u64)> = files(directory)
        .into_iter()
        .map(|file| (file.clone(), fs::metadata(file).unwrap().len()))
        .collect();
    sizes.retain(|(_, size)| *size > 0);
    let (file, byte) = if rng.random() {
        let (file, size) = sizes[rng.random_range(0..sizes.len())].clone();
        (file, rng.random_range(0..size))
    } else {
        let mut at = rng.random_range(0..sizes.iter().map(|(_, size)| size).sum::<u64>());
        let hit = sizes
            .into_iter()
            .find(|(_, size)| match at.checked_sub(*size) {
                Some(rest) => {
                    at = rest;
                    false
                }
                None => true,
            });
        (hit.unwrap().0, at)
    };
    if rng.random_bool(0.1) {
        fs::remove_file(&file).unwrap();
        return Damage::Removed { file };
    }
    let mut content = fs::read(&file).unwrap();
    let at = usize::try_from(byte).unwrap();
    let done = if rng.random() {
        content.truncate(at);
        Damage::Cut {
            file: file.clone(),
            to: byte,
        }
    } else {
        let bit = rng.random_range(0..8);
        content[at] ^= 1 << bit;
        Damage::Flipped {
            file: file.clone(),
            byte,
            bit,
        }
    };
    fs::write(&file, content).unwrap();
    done
}

/// Makes `directory` what it was when it was copied to `original`, with the same files: a copy would be noticed.
fn restore(original: &Path, directory: &Path) {
    let path_in = |from: &Path, file: &Path, to: &Path| to.join(file.strip_prefix(from).unwrap());
    for file in files(directory) {
        if !path_in(directory, &file, original).exists() {
            fs::remove_file(file).unwrap();
        }
    }
    for file in files(original) {
        let restored = path_in(original, &file, directory);
        fs::create_dir_all(restored.parent().unwrap()).unwrap();
        fs::write(restored, fs::read(file).unwrap()).unwrap();
    }
}

impl Damage {
    fn file(&self) -> &Path {
        match self {
            Self::Cut { file, .. } | Self::Flipped { file, .. } | Self::Removed { file } => file,
        }
    }

    /// Whether whole batches of the journal follow what was damaged.
    fn is_amid_batches(&self, original: &Path) -> bool {
        let Self::Flipped { file, byte, .. } = self else {
            return false;
        };
        if file.extension().is_none_or(|extension| extension != "jnl") {
            return false;
        }
        let journal = fs::read(original.join(file.file_name().unwrap())).unwrap();
        let ends = journal.windows(4).enumerate();
        let ends = ends.filter(|(at, bytes)| *at as u64 > *byte && *bytes == b"FJL\x03");
        // Its own end, perhaps, and that of another.
        ends.count() > 1
    }
}

/// What a refusal says: how to go on, or that this is no directory of this version's.
const CLEAR: [&str; 3] = [
    "restore a backup",
    "its format is",
    "not a data directory of emitter",
];

/// How starts on damaged directories went.
#[derive(Debug, Default)]
struct Starts {
    refused: u32,
    whole: u32,
    shorter: u32,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_directory_is_refused_or_a_prefix_under_another_epoch_soak() {
    let mut server = Server::start("durable", DURABLE).await;
    let seed = seed();
    let load = Load::start(&LoadConfig::new(vec![server.grpc.clone()], seed));
    // Some of it in a state that a start has seen before, some only in what was written since.
    load.acknowledged(500).await;
    server.kill().await;
    server.restart().await;
    load.acknowledged(500).await;
    let ledger = load.finish().await;
    let users: Vec<String> = (0..4).map(|n| format!("u{n}")).collect();
    let mut intact = BTreeMap::new();
    for user in &users {
        intact.insert(user.clone(), replay(&server.grpc, user).await);
    }
    assert!(ledger.acknowledged() >= 1000);
    server.kill().await;
    let original = server.directory().join("original");
    copy_tree(&server.data(), &original);

    let mut rng = StdRng::seed_from_u64(seed);
    let mut starts = Starts::default();
    for _ in 0..cases(100, 1_000) {
        restore(&original, &server.data());
        let damage = damage(&server.data(), &mut rng);
        // As within the boot in which it was written, and as after another one.
        let holds = rng.random() && !damage.file().ends_with("witness");
        if holds {
            witnessed_now(&server.data());
        }
        let must_refuse = holds && damage.is_amid_batches(&original);
        match server.try_start().await {
            Err(refused) => {
                let clear = !refused.status.success()
                    && refused.status.code().is_some()
                    && CLEAR.iter().any(|word| refused.said.contains(word))
                    && !refused.said.contains("panicked");
                assert!(clear, "{damage:?}: {refused:#?}");
                starts.refused += 1;
            }
            Ok(()) => {
                let shorter = check_prefixes(&server, &intact, &damage).await;
                assert!(!(must_refuse && shorter), "{damage:?}: it was cut off");
                *if shorter {
                    &mut starts.shorter
                } else {
                    &mut starts.whole
                } += 1;
                server.kill().await;
            }
        }
    }
    println!("{starts:?}");
    assert!(!server.logged().contains("panicked"), "see the log");
    // The test would show nothing if damage were never met.
    assert!(starts.refused > 0 && starts.shorter > 0, "{starts:?}");
}

/// Each user's stream is a prefix of what it was; `true`: one is shorter, and its reader is told.
async fn check_prefixes(
    server: &Server,
    intact: &BTreeMap<String, Vec<Seen>>,
    damage: &Damage,
) -> bool {
    let mut any_shorter = false;
    for (user, before) in intact {
        let now = replay(&server.grpc, user).await;
        let same = |(one, other): (&Seen, &Seen)| {
            (&one.event_id, one.offset, one.run_sequence)
                == (&other.event_id, other.offset, other.run_sequence)
        };
        assert!(
            now.len() <= before.len() && now.iter().zip(before).all(same),
            "{damage:?}: {user} had {} events, has {}, and they are others:\n{:?}\n{:?}",
            before.len(),
            now.len(),
            now.iter().zip(before).find(|&pair| !same(pair)),
            now.last()
        );
        let shorter = now.len() < before.len();
        any_shorter |= shorter;
        if shorter {
            let last = before.last().unwrap();
            let first_item = resumed(server, user, last).await;
            assert!(
                matches!(&first_item, Item::Gap(gap) if gap.next.as_ref().unwrap().epoch != last.epoch),
                "{damage:?}: {user} lost {} events and hears {first_item:?}",
                before.len() - now.len()
            );
        }
    }
    any_shorter
}

/// The first thing that a reader hears who had read up to `last`. It tries again while the store is busy moving tables.
async fn resumed(server: &Server, user: &str, last: &Seen) -> Item {
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        match first_heard(server, user, last).await {
            Ok(item) => return item,
            Err(status) => assert!(
                is_passing(&status) && Instant::now() < until,
                "{user}: {status}"
            ),
        }
    }
}

async fn first_heard(server: &Server, user: &str, last: &Seen) -> Result<Item, Status> {
    let after = Position {
        epoch: last.epoch.clone(),
        offset: last.offset,
    };
    let mut stream = subscribe(&server.grpc, user, Some(after)).await?;
    loop {
        let message = stream.message().await?.expect("an item");
        match message.item.expect("an item") {
            Item::Established(_) => {}
            item => return Ok(item),
        }
    }
}
