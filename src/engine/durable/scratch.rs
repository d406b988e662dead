//! A copy of a directory's store, to look into without changing anything: opened, a store writes.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::journal::Journals;

/// Where it lies within the directory.
const NAME: &str = "inspection";

/// A copy that is removed when dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Copies what can be read of `directory`: beside it, where tables need not be copied, else where the system keeps
    /// what is temporary.
    pub(super) fn of(directory: &Path, journals: &Journals) -> io::Result<Self> {
        clear(directory);
        let beside = Self(directory.join(NAME));
        let linked = fs::create_dir(&beside.0)
            .and_then(|()| copy(directory, &beside.0, journals, Tables::Linked));
        if linked.is_ok() {
            return Ok(beside);
        }
        drop(beside);
        let name = format!("emitter-{NAME}-{}", std::process::id());
        let away = Self(std::env::temp_dir().join(name));
        fs::create_dir(&away.0)?;
        copy(directory, &away.0, journals, Tables::Copied)?;
        Ok(away)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Where it stays, the next inspection or start removes it.
        let _stays = fs::remove_dir_all(&self.0);
    }
}

/// Removes what an inspection left in `directory` that was cut short. The caller holds the directory's lock.
pub(super) fn clear(directory: &Path) {
    drop(Scratch(directory.join(NAME)));
}

/// What becomes of tables: files that never change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tables {
    /// They are shared.
    Linked,
    /// They are copied, and everything is made safe.
    Copied,
}

/// Copies the store of `directory` to the empty directory `to`, with as much of the `journals` as can be read.
pub(super) fn copy(
    directory: &Path,
    to: &Path,
    journals: &Journals,
    tables: Tables,
) -> io::Result<()> {
    File::create(to.join("lock"))?;
    copy_file(
        &directory.join("version"),
        &to.join("version"),
        u64::MAX,
        tables,
    )?;
    for (name, bytes) in &journals.readable {
        copy_file(&directory.join(name), &to.join(name), *bytes, tables)?;
    }
    if journals.readable.is_empty() {
        // Where the store makes a journal itself, it takes its tables for younger than everything that is asked for.
        File::create(to.join("0.jnl"))?;
    }
    copy_tree(&directory.join("keyspaces"), &to.join("keyspaces"), tables)?;
    match tables {
        Tables::Linked => Ok(()),
        Tables::Copied => File::open(to)?.sync_all(),
    }
}

fn copy_tree(from: &Path, to: &Path, tables: Tables) -> io::Result<()> {
    fs::create_dir(to)?;
    let is_tables = from.file_name().is_some_and(|name| name == "tables");
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_tree(&path, &copy, tables)?;
        } else if is_tables && tables == Tables::Linked {
            fs::hard_link(path, copy)?;
        } else {
            copy_file(&path, &copy, u64::MAX, tables)?;
        }
    }
    match tables {
        Tables::Linked => Ok(()),
        Tables::Copied => File::open(to)?.sync_all(),
    }
}

/// Copies the first `bytes` of a file.
fn copy_file(from: &Path, to: &Path, bytes: u64, tables: Tables) -> io::Result<()> {
    let mut copy = File::create_new(to)?;
    io::copy(&mut File::open(from)?.take(bytes), &mut copy)?;
    match tables {
        Tables::Linked => Ok(()),
        Tables::Copied => copy.sync_all(),
    }
}
