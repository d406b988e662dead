//! Copies of a directory's store: to look into it without changing anything, since a store that is opened writes, and to
//! take it over.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, symlink},
    path::{Path, PathBuf},
};

use super::journal::Journals;
use crate::clock::Entropy;

/// Where it lies within the directory.
const NAME: &str = "inspection";

/// A copy that is removed when dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Copies what can be read of `directory`, without its tables: within it, or where that cannot be written, to where
    /// the system keeps what is temporary. Nobody else can read it there.
    ///
    /// # Errors
    /// When neither can be written, or the directory cannot be read; it says which file.
    pub(super) fn of(directory: &Path, journals: &Journals) -> io::Result<Self> {
        clear(directory);
        let within = Self::at(directory.join(NAME), directory, journals);
        within.or_else(|first| {
            let name = format!("emitter-{NAME}-{:032x}", Entropy::system().bits());
            let away = Self::at(std::env::temp_dir().join(name), directory, journals);
            away.map_err(|second| io::Error::new(second.kind(), format!("{first}; {second}")))
        })
    }

    fn at(path: PathBuf, directory: &Path, journals: &Journals) -> io::Result<Self> {
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(of_file(&path))?;
        // From here on it is ours to remove.
        let scratch = Self(path);
        copy(directory, &scratch.0, journals, Purpose::Inspection)?;
        Ok(scratch)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes what an inspection left in `directory` that was cut short. The caller holds the directory's lock.
pub(super) fn clear(directory: &Path) {
    remove(&directory.join(NAME));
}

fn remove(copy: &Path) {
    // Where it stays, the next inspection or start removes it.
    let _stays = fs::remove_dir_all(copy);
}

/// What a copy is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To look into it: tables, which never change, are links to those of the directory.
    Inspection,
    /// To go on with it: everything is copied, and made safe.
    TakingOver,
}

/// Copies the store of `directory` to the empty directory `to`, with as much of the `journals` as can be read.
///
/// # Errors
/// Which file cannot be read or written.
pub(super) fn copy(
    directory: &Path,
    to: &Path,
    journals: &Journals,
    purpose: Purpose,
) -> io::Result<()> {
    // Links say where a file is from the root on.
    let directory = &fs::canonicalize(directory).map_err(of_file(directory))?;
    let create = |name: &str| File::create(to.join(name)).map_err(of_file(&to.join(name)));
    create("lock")?;
    let version = (directory.join("version"), to.join("version"));
    copy_file(&version.0, &version.1, u64::MAX, purpose)?;
    for (name, bytes) in &journals.readable {
        copy_file(&directory.join(name), &to.join(name), *bytes, purpose)?;
    }
    if journals.readable.is_empty() {
        // Where the store makes a journal itself, it takes its tables for younger than everything that is asked for.
        create("0.jnl")?;
    }
    copy_tree(&directory.join("keyspaces"), &to.join("keyspaces"), purpose)?;
    make_safe(to, purpose)
}

fn copy_tree(from: &Path, to: &Path, purpose: Purpose) -> io::Result<()> {
    fs::create_dir(to).map_err(of_file(to))?;
    let is_tables = from.file_name().is_some_and(|name| name == "tables");
    for entry in fs::read_dir(from).map_err(of_file(from))? {
        let entry = entry?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_tree(&path, &copy, purpose)?;
        } else if is_tables && purpose == Purpose::Inspection {
            symlink(path, &copy).map_err(of_file(&copy))?;
        } else {
            copy_file(&path, &copy, u64::MAX, purpose)?;
        }
    }
    make_safe(to, purpose)
}

/// Copies the first `bytes` of a file.
fn copy_file(from: &Path, to: &Path, bytes: u64, purpose: Purpose) -> io::Result<()> {
    let mut copy = File::create_new(to).map_err(of_file(to))?;
    let original = File::open(from).map_err(of_file(from))?;
    let copied = io::copy(&mut original.take(bytes), &mut copy);
    copied.map_err(|error| {
        let files = format!("{} to {}: {error}", from.display(), to.display());
        io::Error::new(error.kind(), files)
    })?;
    make_safe(to, purpose)
}

fn make_safe(path: &Path, purpose: Purpose) -> io::Result<()> {
    match purpose {
        Purpose::Inspection => Ok(()),
        Purpose::TakingOver => {
            let synced = File::open(path).and_then(|file| file.sync_all());
            synced.map_err(of_file(path))
        }
    }
}

/// Says of an error which file it is of.
pub(super) fn of_file(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::engine::durable::store::Store;

    #[test]
    fn a_copy_is_private_and_removes_only_what_it_made() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path()).unwrap());
        let journals = Journals::read(directory.path()).unwrap();
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("copy");
        fs::create_dir(&path).unwrap();
        let taken = Scratch::at(path.clone(), directory.path(), &journals);
        let told = taken.err().unwrap().to_string();
        assert!(told.starts_with(&path.display().to_string()), "{told}");
        assert!(path.exists());
        fs::remove_dir(&path).unwrap();
        let copy = Scratch::at(path.clone(), directory.path(), &journals).unwrap();
        let mode = fs::metadata(copy.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(copy);
        assert!(!path.exists());
    }
}
