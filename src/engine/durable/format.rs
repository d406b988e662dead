//! The file that says which version wrote a directory.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use super::OpenError;

/// What this version writes and reads.
pub(super) const FORMAT: &str = "emitter-data 1";

const FILE: &str = "FORMAT";

/// Makes `directory` if it is not there, and looks whether this version can read what is in it.
pub(super) fn prepare(directory: &Path) -> Result<(), OpenError> {
    fs::create_dir_all(directory)?;
    match fs::read_to_string(directory.join(FILE)) {
        Ok(found) if found.trim_end() == FORMAT => Ok(()),
        Ok(found) => Err(OpenError::Format {
            found: found.trim_end().chars().take(80).collect(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match is_new(directory)? {
            true => Ok(()),
            false => Err(OpenError::Foreign),
        },
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(OpenError::Format {
            found: "no text".into(),
        }),
        Err(error) => Err(error.into()),
    }
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

/// Whether nothing is there but what a first start leaves that ended too soon, or what a file system has of its own.
fn is_new(directory: &Path) -> io::Result<bool> {
    const LEFT: [&str; 7] = [
        "lost+found",
        "lock",
        "0.jnl",
        "version",
        "keyspaces",
        "witness",
        "FORMAT.new",
    ];
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if !LEFT.iter().any(|left| name == **left) {
            return Ok(false);
        }
    }
    Ok(true)
}
