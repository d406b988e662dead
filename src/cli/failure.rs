//! Why a command did not do what it was asked, and the exit code for it.

use std::{io, process::ExitCode};

use super::warn;
use crate::{
    app::{BindError, RunError},
    client::UrlError,
    config::ConfigError,
};

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was asked wrongly.
    Usage(String),
    /// The settings are wrong.
    Config(String),
    /// It failed.
    Failed(String),
    /// Nobody reads its output any more: no failure of its own.
    Unread,
}

impl Failure {
    /// Tells the person, and returns the exit code.
    pub(super) fn told(self) -> ExitCode {
        let (text, code) = match self {
            Self::Usage(text) => (text, 2),
            Self::Config(text) => (text, 64),
            Self::Failed(text) => (text, 1),
            Self::Unread => return ExitCode::SUCCESS,
        };
        for line in text.lines() {
            warn(&format!("error: {line}"));
        }
        ExitCode::from(code)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error.to_string())
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<UrlError> for Failure {
    fn from(error: UrlError) -> Self {
        Self::Usage(error.to_string())
    }
}
