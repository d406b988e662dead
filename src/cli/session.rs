//! What `emitter dev` leaves for the other commands: where it listens, and the secret of its tokens.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Environment, Failure, variable};
use crate::{
    access::{self, Grant, Scope},
    clock::{Clock, Entropy},
};

/// The issuer of a dev service's tokens.
pub(super) const DEV_ISSUER: &str = "emitter-dev";

/// The session file: one JSON object.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Session {
    /// The HS256 secret.
    pub(super) secret: String,
    /// Host and port of the gRPC listener.
    pub(super) grpc: String,
    /// Host and port of the HTTP listener.
    pub(super) http: String,
    /// Host and port of the admin listener.
    pub(super) admin: String,
}

impl Session {
    /// The session that `emitter dev` left, at the path `asked` for or where it is by default.
    pub(super) fn find(asked: Option<&Path>, environment: &Environment) -> Result<Self, Failure> {
        let path = path(asked, environment)?;
        Self::read(&path).map_err(|error| {
            Failure::Failed(format!(
                "{}: {error}\nstart `emitter dev`, or name a service by its address and a --token",
                path.display()
            ))
        })
    }

    /// The session at `path`.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let mode = fs::metadata(path)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(io::Error::other(
                "others can read it, and it holds a secret; delete it, or chmod 600",
            ));
        }
        serde_json::from_str(&fs::read_to_string(path)?)
            // The error itself could quote the secret.
            .map_err(|_| io::Error::other("it is no session file; delete it"))
    }

    /// Writes the session to `path`, whole or not at all, for this user's eyes only. Missing directories are made.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(directory) = path.parent().filter(|path| !path.as_os_str().is_empty()) {
            private_directory(directory)?;
        }
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{:016x}", Entropy::system().bits()));
        let fresh = PathBuf::from(fresh);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| {
                let text = serde_json::to_string(self).map_err(io::Error::other)?;
                writeln!(file, "{text}")
            })
            .and_then(|()| fs::rename(&fresh, path));
        if written.is_err() {
            let _never_made = fs::remove_file(&fresh);
        }
        written
    }

    /// How its tokens are made.
    pub(super) fn access(&self) -> access::Config {
        access::Config {
            issuer: DEV_ISSUER.to_owned(),
            secret: self.secret.clone().into_bytes(),
        }
    }

    /// A token of this session for `subject`, good for a day.
    pub(super) fn token(&self, subject: &str, scope: Scope) -> Result<String, Failure> {
        const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);
        let grant = Grant::new(subject, [scope], Clock::system().now() + DAY);
        access::mint(&self.access(), &grant).map_err(|error| Failure::Failed(error.to_string()))
    }
}

/// Makes `directory` and what is missing above it. A directory that others may write to is refused, unless it was
/// there and is shared by intent, as the temporary directory is.
fn private_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let found = fs::symlink_metadata(directory)?;
    let mode = found.permissions().mode();
    let sticky = mode & 0o1000 != 0;
    if mode & 0o022 != 0 && !sticky {
        return Err(io::Error::other(format!(
            "others can write to {}",
            directory.display()
        )));
    }
    Ok(())
}

/// Where the session file is: as asked, else below the first of these that is set: `XDG_RUNTIME_DIR`,
/// `XDG_CACHE_HOME`, `HOME`'s cache; else in a directory of this user's own in the temporary directory.
pub(super) fn path(asked: Option<&Path>, environment: &Environment) -> Result<PathBuf, Failure> {
    if let Some(asked) = asked {
        return Ok(asked.to_owned());
    }
    let directory = |name: &str| variable(environment, name).map(PathBuf::from);
    let home = directory("XDG_RUNTIME_DIR")
        .or_else(|| directory("XDG_CACHE_HOME"))
        .or_else(|| directory("HOME").map(|home| home.join(".cache")));
    let own = match home {
        Some(home) => home.join("emitter"),
        None => own_temporary_directory(environment)?,
    };
    Ok(own.join("session.json"))
}

fn own_temporary_directory(environment: &Environment) -> Result<PathBuf, Failure> {
    let user = variable(environment, "USER").unwrap_or_else(|| "user".into());
    let mut name = std::ffi::OsString::from("emitter-");
    name.push(user.to_string_lossy().replace('/', "_"));
    let directory = std::env::temp_dir().join(name);
    let mine = || {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)?;
        if !fs::symlink_metadata(&directory)?.is_dir() {
            return Err(io::Error::other("it is no directory"));
        }
        // Only its owner can do this: a directory that somebody else put there is refused.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))
    };
    mine().map_err(|error| {
        let shown = directory.display();
        Failure::Failed(format!("{shown}: {error}; name another --session-file"))
    })?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session {
            secret: "s".repeat(32),
            grpc: "127.0.0.1:1".into(),
            http: "127.0.0.1:2".into(),
            admin: "127.0.0.1:3".into(),
        }
    }

    #[test]
    fn it_reads_back_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/session.json");
        for _ in 0..2 {
            session().write(&path).unwrap();
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(Session::read(&path).unwrap().grpc, "127.0.0.1:1");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Session::read(&path).is_err());
    }

    #[test]
    fn its_place_follows_the_environment() {
        let all = [
            ("XDG_RUNTIME_DIR", "/run/u"),
            ("XDG_CACHE_HOME", "/c"),
            ("HOME", "/h"),
        ];
        let path = |variables: &[(&str, &str)]| {
            let environment = variables
                .iter()
                .map(|(a, b)| (a.into(), b.into()))
                .collect();
            path(None, &environment).unwrap().display().to_string()
        };
        assert_eq!(path(&all), "/run/u/emitter/session.json");
        assert_eq!(path(&all[1..]), "/c/emitter/session.json");
        assert_eq!(path(&all[2..]), "/h/.cache/emitter/session.json");
        assert!(path(&[("USER", "a/b")]).ends_with("emitter-a_b/session.json"));
    }
}
