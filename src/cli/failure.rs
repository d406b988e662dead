//! Why a command did not do what it was asked, and the exit code for it.

use std::{io, process::ExitCode};

use serde_json::json;

use super::warn;
use crate::{
    app::{BindError, RunError},
    client::UrlError,
    clock::Clock,
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
    /// Prints the failure for a person, and returns the exit code.
    pub(super) fn told(self) -> ExitCode {
        self.print(|line| format!("error: {line}"))
    }

    /// Prints the failure as the JSON lines of a log, and returns the exit code.
    pub(super) fn logged(self) -> ExitCode {
        let now = Clock::system().now().to_string();
        self.print(|line| json!({"timestamp": now, "level": "ERROR", "message": line}).to_string())
    }

    fn print(self, as_line: impl Fn(&str) -> String) -> ExitCode {
        let (text, code) = match self {
            Self::Usage(text) => (text, 2),
            Self::Config(text) => (text, 64),
            Self::Failed(text) => (text, 1),
            Self::Unread => return ExitCode::SUCCESS,
        };
        for line in text.lines() {
            warn(&as_line(line));
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
