//! Journals that end amid a batch, or are damaged: which of the two it is, and what a start does.

use std::fs;

use emitter::engine::{
    Engine as _,
    durable::{NextStart, OpenError, inspect},
};

use super::{
    clock,
    damaged::{another, batches, cut_off_at, found, refused_as_it_is, written},
    first_version::copy,
    open, page, witnessed_now,
};
use crate::support::events::stream;

/// The store believes what stands in the header of a batch: how many entries it has, and its number, which says what
/// counts of two writings. Within one boot what is wrong is told from what was cut short by what follows it.
#[tokio::test]
async fn a_flipped_bit_of_a_batch_header_is_never_believed() {
    const COUNT: usize = 2;
    const HEADER: usize = 13;
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    written(directory, COUNT).await;
    let path = directory.join("0.jnl");
    let mut journal = fs::read(&path).unwrap();
    let batches = batches(&journal);
    // What follows is 64 MiB of nothing.
    journal.truncate(batches[batches.len() - 1]);
    fs::write(path, &journal).unwrap();
    let headers = &batches[..batches.len() - 1];
    assert!(headers.len() > 2 * COUNT, "{headers:?}");
    let last = headers[headers.len() - 1];
    for holds in [true, false] {
        let (mut refused, mut numbers, mut shorter) = (0, 0, 0);
        for at in headers.iter().flat_map(|start| *start..start + HEADER) {
            for bit in [0, 1, 4, 7] {
                let what = format!("bit {bit} of byte {at}, the witness holds: {holds}");
                let mut flipped = journal.clone();
                flipped[at] ^= 1 << bit;
                let copied = tempfile::tempdir().unwrap();
                copy(directory, copied.path());
                fs::write(copied.path().join("0.jnl"), flipped).unwrap();
                if holds {
                    witnessed_now(copied.path());
                }
                // An inspection takes longer: one bit of each byte.
                let told = (bit == 0).then(|| inspect(copied.path(), &clock()).unwrap().next_start);
                match open(copied.path(), &clock(), 2) {
                    Ok(engine) => {
                        let (notes, number) = found(&*engine).await;
                        let number = number.unwrap_or(0);
                        let is_prefix = notes == number || notes == number + 1;
                        assert!(is_prefix, "{what}: {notes}, {number}");
                        another(&*engine).await;
                        let is_said = told.is_none_or(|told| match told {
                            NextStart::GoesOn => holds && notes == COUNT,
                            NextStart::NewEpoch(_) => true,
                            NextStart::Refuses(_) => false,
                        });
                        assert!(is_said, "{what}");
                        let is_short = notes < COUNT;
                        assert!(!(is_short && holds && at < last), "{what}: {notes}");
                        shorter += usize::from(is_short);
                    }
                    Err(OpenError::Damaged(why) | OpenError::Partly(why)) => {
                        let is_clear = match holds {
                            true => why.contains("journal 0.jnl, byte "),
                            false => why.contains("it says nothing of itself"),
                        };
                        assert!(is_clear, "{what}: {why}");
                        let is_said =
                            told.is_none_or(|told| told == NextStart::Refuses(why.clone()));
                        assert!(is_said, "{what}");
                        numbers += usize::from(why.contains("or that of the one before it"));
                        refused += 1;
                    }
                    Err(error) => panic!("{what}: {error}"),
                }
            }
        }
        println!("the witness holds: {holds}, {refused} refused, {shorter} shorter");
        assert!(refused > 0 && (holds || shorter > 0));
        assert_eq!(numbers > 0, holds);
    }
}

/// A place in a journal, by where a batch begins, where a name in it lies, and where the batch ends.
type Place = fn(usize, usize, usize) -> usize;

/// In the midst of a journal: damage where the machine has not ended since, and else what its end has left.
#[tokio::test]
async fn what_whole_batches_follow_is_damage_only_within_one_boot() {
    // Of the batch of `note-1`: its tag, the tag of its first entry, the length of a value, an end, and a value.
    let places: [(&str, Place); 5] = [
        ("a start", |start, _, _| start),
        ("an entry", |start, _, _| start + 13),
        ("a length", |start, _, _| start + 13 + 18),
        ("an end", |_, _, end| end - 1),
        ("a value", |_, id, _| id),
    ];
    for (place, at) in places {
        for holds in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let directory = directory.path();
            written(directory, 3).await;
            let path = directory.join("0.jnl");
            let mut journal = fs::read(&path).unwrap();
            let id = journal.windows(6).position(|bytes| bytes == b"note-1");
            let batches = batches(&journal);
            let behind = batches.iter().position(|start| *start > id.unwrap());
            let (start, end) = (batches[behind.unwrap() - 1], batches[behind.unwrap()]);
            journal[at(start, id.unwrap(), end)] ^= 64;
            fs::write(&path, &journal).unwrap();
            if holds {
                let what = format!("journal 0.jnl, byte {start}: ");
                let told = refused_as_it_is(directory, &what).readable.unwrap();
                assert_eq!(told.records, 1, "{place}");
                continue;
            }
            fs::remove_file(directory.join("witness")).unwrap();
            cut_off_at(directory, start);
            let engine = open(directory, &clock(), 2).unwrap();
            assert_eq!(found(&*engine).await, (1, Some(1)), "{place}");
            another(&*engine).await;
        }
    }
}

/// Where there is no room amid a batch, the store may make the next journal nevertheless.
#[tokio::test]
async fn a_batch_that_is_not_whole_may_be_followed_by_journals_without_any() {
    for follows in ["nothing", "zeros", "a batch"] {
        for holds in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let directory = directory.path();
            written(directory, 3).await;
            let path = directory.join("0.jnl");
            let mut journal = fs::read(&path).unwrap();
            let batches = batches(&journal);
            let (last, end) = (batches[batches.len() - 2], batches[batches.len() - 1]);
            let batch = journal[last..end].to_vec();
            journal.truncate(end - 20);
            fs::write(&path, &journal).unwrap();
            let next = fs::File::create(directory.join("1.jnl")).unwrap();
            match follows {
                "nothing" => {}
                "zeros" => next.set_len(64 << 20).unwrap(),
                _ => fs::write(directory.join("1.jnl"), batch).unwrap(),
            }
            if !holds {
                fs::remove_file(directory.join("witness")).unwrap();
            }
            if follows == "a batch" {
                refused_as_it_is(directory, &format!("journal 0.jnl, byte {last}: "));
                continue;
            }
            cut_off_at(directory, last);
            let engine = open(directory, &clock(), 2).unwrap();
            assert_eq!(found(&*engine).await.0, 3, "{follows}");
            another(&*engine).await;
            let engine = open(directory, &clock(), 3).unwrap();
            assert_eq!(page(&*engine, &stream("u")).await.records.len(), 4);
            engine.close().await;
        }
    }
}
