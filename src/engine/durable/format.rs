//! The file that says which version wrote a directory.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::Path,
};

use super::OpenError;

/// What this version writes and reads.
pub(super) const FORMAT: &str = "emitter-data 1";

const FILE: &str = "FORMAT";

/// Makes `directory` if it is not there, and looks whether this version can read what is in it.
pub(super) fn prepare(directory: &Path) -> Result<(), OpenError> {
    make(directory)?;
    match fs::read_to_string(directory.join(FILE)) {
        Ok(found) if found.trim_end() == FORMAT => Ok(()),
        Ok(found) => Err(OpenError::Format {
            found: found.trim_end().chars().take(80).collect(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match is_new(directory)? {
            true => clear(directory),
            false => Err(OpenError::Foreign),
        },
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(OpenError::Format {
            found: "no text".into(),
        }),
        Err(error) => Err(error.into()),
    }
}

/// Makes `directory` and what is missing above it, so that they are there after the end of the machine.
fn make(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = match directory.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    make(above)?;
    fs::create_dir(directory)?;
    // A name is safe once the directory is that has it.
    File::open(above)?.sync_all()
}

/// Whether it is a data directory.
pub(super) fn is_there(directory: &Path) -> bool {
    directory.join(FILE).is_file()
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
const LEFT: [&str; 5] = ["lock", "0.jnl", "version", "keyspaces", "FORMAT.new"];

/// Removes what a first start left that ended too soon: the store cannot begin with it.
fn clear(directory: &Path) -> Result<(), OpenError> {
    let mut options = OpenOptions::new();
    let options = options.create(true).truncate(false).write(true);
    let lock = options.open(directory.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    for name in LEFT.into_iter().skip(1) {
        let path = directory.join(name);
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        } else if path.exists() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
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
