//! How much of the disk a directory takes.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// Bytes that are allocated for what is in `directory`: a file may be longer than what is written of it. What cannot be
/// looked at counts nothing.
pub(super) fn taken(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let taken = entries.flatten().map(|entry| match entry.metadata() {
        Ok(facts) if facts.is_dir() => taken(&entry.path()),
        facts => facts.map_or(0, |facts| allocated(&facts)),
    });
    taken.sum()
}

/// Bytes that are allocated for the file at `path`; none, if it cannot be looked at.
pub(super) fn taken_by_file(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |facts| allocated(&facts))
}

fn allocated(facts: &fs::Metadata) -> u64 {
    const BLOCK: u64 = 512; // the unit of `st_blocks`, whatever the file system's
    facts.blocks() * BLOCK
}
