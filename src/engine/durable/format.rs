//! The file that says which version wrote a directory, and what is looked at before the store is opened.

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
    time::{Duration, Instant},
};

use super::{OpenError, journal::Journals, recover::damaged, tables};

/// What this version writes and reads.
pub(super) const FORMAT: &str = "emitter-data 1";

const FILE: &str = "FORMAT";

/// What the store makes before this says that it is there.
const MADE: [&str; 4] = [
    "version",
    "keyspaces/0/current",
    "keyspaces/1/current",
    "keyspaces/2/current",
];

const LOCK: &str = "lock";

/// How long the lock of a process is waited for that is just ending.
const ENDING: Duration = Duration::from_secs(2);

/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// A directory's lock. Given back by name: with a file that is only closed, it would stay with a process that was just
/// being started and has a copy of it.
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Where that fails, closing it does the same.
        let _gone = self.0.unlock();
    }
}

/// Makes `directory` if it is not there, and looks whether the store may be opened: what it lacks, the store would make
/// anew. What is refused is left as it is; of the others the end of the journal is cut off that is not whole.
pub(super) fn prepare(directory: &Path) -> Result<(), OpenError> {
    make(directory)?;
    match check(directory) {
        Ok(()) => {
            make_private(directory)?;
            if let Some(missing) = missing(directory) {
                return Err(damaged(&missing));
            }
            if let Some(missing) = missing_lock(directory) {
                return Err(OpenError::Partly(missing));
            }
            let _lock = lock(directory)?;
            if let Some(damage) = tables::damaged_list(directory) {
                return Err(damaged(&damage));
            }
            Journals::prepare(directory)
        }
        Err(OpenError::Empty) => match clear(directory)? {
            true => Ok(make_private(directory)?),
            false => prepare(directory),
        },
        Err(refused) => Err(refused),
    }
}

/// Whether this version can read what is in `directory`.
pub(super) fn check(directory: &Path) -> Result<(), OpenError> {
    match fs::read_to_string(directory.join(FILE)) {
        Ok(found) if found.trim_end() == FORMAT => Ok(()),
        Ok(found) => Err(OpenError::Format {
            found: found.trim_end().chars().take(80).collect(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match is_new(directory)? {
            true => Err(OpenError::Empty),
            false => Err(OpenError::Foreign),
        },
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(OpenError::Format {
            found: "no text".into(),
        }),
        Err(error) => Err(error.into()),
    }
}

/// Which file of the store `directory` lacks, if it lacks one; but for journals, tables and the lock.
pub(super) fn missing(directory: &Path) -> Option<String> {
    let missing = MADE.iter().find(|name| !directory.join(name).is_file());
    missing.map(|name| format!("its file {name} is missing"))
}

/// Whether `directory` lacks the file whose lock keeps others out; it holds nothing.
pub(super) fn missing_lock(directory: &Path) -> Option<String> {
    let is_there = directory.join(LOCK).is_file();
    (!is_there).then(|| format!("its file {LOCK} is missing"))
}

/// Keeps every other process out of `directory` until it is dropped.
pub(super) fn lock(directory: &Path) -> Result<Lock, OpenError> {
    let path = directory.join(LOCK);
    // Some network file systems lock only what may be written.
    let writable = File::options().read(true).write(true).open(&path);
    let lock = writable.or_else(|_| File::open(path))?;
    let until = Instant::now() + ENDING;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(Lock(lock)),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::park_timeout(LOOK);
            }
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
}

/// Makes `directory` and what is missing above it, so that they are there after the end of the machine.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = match directory.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    make(above)?;
    create_private(directory)?;
    // A name is safe once the directory is that has it.
    File::open(above)?.sync_all()
}

/// What to do about `error`, which the file system gave for the directory. It follows the error's own text.
pub(super) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            ": the directory must belong to the user that the service runs as (chown), or name another one in \
             engine.data_dir (--data-dir)"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            ": engine.data_dir (--data-dir) must name a directory, and this path is or contains a file: name another \
             path, or move the file away"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            ": mount it writable, or name another directory in engine.data_dir (--data-dir)"
        }
        _ => "",
    }
}

/// Creates a directory that only its owner may enter.
pub(super) fn create_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().mode(PRIVATE).create(directory)
}

/// The mode of a data directory.
const PRIVATE: u32 = 0o700;

/// Takes the rights of group and others from `directory`: it holds what users said. Older versions created it with more.
fn make_private(directory: &Path) -> io::Result<()> {
    let mode = fs::metadata(directory)?.permissions().mode() & 0o777;
    if mode & !PRIVATE == 0 {
        return Ok(());
    }
    let private = Permissions::from_mode(mode & PRIVATE);
    match fs::set_permissions(directory, private) {
        Ok(()) => tracing::info!(
            directory = %directory.display(),
            was = format_args!("{mode:o}"),
            "the data directory was open to other users of this machine: now only its owner may enter it"
        ),
        // A volume's root may belong to another user. The service works all the same.
        Err(error) => tracing::warn!(
            %error,
            directory = %directory.display(),
            mode = format_args!("{mode:o}"),
            "other users of this machine may read the data directory: set its mode to 0700"
        ),
    }
    Ok(())
}

/// Says which version wrote the directory, if it does not say so yet.
pub(super) fn write(directory: &Path) -> io::Result<()> {
    let path = directory.join(FILE);
    if path.exists() {
        return Ok(());
    }
    let fresh = directory.join("FORMAT.new");
    let mut file = File::create(&fresh)?;
    file.write_all(format!("{FORMAT}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(fresh, path)?;
    File::open(directory)?.sync_all()
}

/// What a first start leaves that ended before anything was acknowledged: that has no witness yet.
const LEFT: [&str; 5] = [LOCK, "0.jnl", "version", "keyspaces", "FORMAT.new"];

/// Removes what a first start left that ended too soon: the store cannot begin with it. `false`: another start came
/// first, and did not end too soon.
fn clear(directory: &Path) -> Result<bool, OpenError> {
    let mut options = File::options();
    let options = options.create(true).truncate(false).write(true);
    options.open(directory.join(LOCK))?;
    let _lock = lock(directory)?;
    // Whoever had the lock may have begun it meanwhile.
    if !is_new(directory)? {
        return Ok(false);
    }
    for name in LEFT.into_iter().skip(1) {
        let path = directory.join(name);
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        } else if path.exists() {
            fs::remove_file(path)?;
        }
    }
    Ok(true)
}

/// Whether nothing is there but what a first start left, or what a file system has of its own.
fn is_new(directory: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if name != "lost+found" && !LEFT.iter().any(|left| name == **left) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that is being started has copies of all files that are open, until it is itself.
    #[test]
    fn a_lock_is_given_back_although_somebody_has_a_copy_of_its_file() {
        let directory = tempfile::tempdir().unwrap();
        File::create(directory.path().join(LOCK)).unwrap();
        let held = lock(directory.path()).unwrap();
        let _copy = held.0.try_clone().unwrap();
        drop(held);
        lock(directory.path()).unwrap();
    }

    /// While one start waits for the lock of another, that other may have begun the directory.
    #[test]
    fn a_path_that_cannot_hold_data_comes_with_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "x").unwrap();
        for path in [file.clone(), file.join("below")] {
            let error = prepare(&path).unwrap_err().to_string();
            assert!(error.contains("must name a directory"), "{error}");
        }
        let refused = OpenError::Io(io::ErrorKind::PermissionDenied.into()).to_string();
        assert!(refused.contains("chown"), "{refused}");
        let other = OpenError::Io(io::ErrorKind::StorageFull.into()).to_string();
        assert_eq!(
            other,
            io::Error::from(io::ErrorKind::StorageFull).to_string()
        );
    }

    #[test]
    fn what_was_begun_meanwhile_is_not_cleared() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        for name in [LOCK, "0.jnl", "version"] {
            fs::write(directory.join(name), name).unwrap();
        }
        write(directory).unwrap();
        assert!(!clear(directory).unwrap());
        for name in [LOCK, "0.jnl", "version"] {
            let content = fs::read_to_string(directory.join(name));
            assert_eq!(content.unwrap(), name);
        }
        fs::remove_file(directory.join(FILE)).unwrap();
        assert!(clear(directory).unwrap());
        assert!(!directory.join("0.jnl").exists());
    }
}
