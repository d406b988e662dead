//! What is wrong with the settings.

use std::fmt;

use figment::Figment;

use super::layer::{self, Origin};

/// One wrong setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, such as `limits.event_bytes`; `None`: the whole source.
    pub key: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// The file, variable or flag that it comes from; `None`: it is not set anywhere.
    pub origin: Option<String>,
}

/// Everything that is wrong with the settings. Prints one problem per line.
#[derive(Clone, Debug, thiserror::Error)]
pub struct ConfigError(pub Vec<Problem>);

impl Problem {
    /// `problem` with the whole of `origin`.
    pub(super) fn of_origin(origin: &Origin, problem: String) -> Self {
        Self {
            key: None,
            problem,
            origin: Some(origin.name()),
        }
    }

    /// `problem` with `key`, as `origin` has it.
    pub(super) fn of_key(origin: &Origin, key: &str, problem: impl Into<String>) -> Self {
        Self {
            key: Some(key.to_owned()),
            problem: problem.into(),
            origin: Some(origin.name_of(key)),
        }
    }

    /// `problem` with the value that `key` has in the end.
    pub(super) fn of_value(figment: &Figment, key: &str, problem: String) -> Self {
        Self {
            key: Some(key.to_owned()),
            problem,
            origin: layer::origin_of(figment, key, key),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.key, &self.origin) {
            (Some(key), Some(origin)) => write!(f, "{key}: {} ({origin})", self.problem),
            (Some(key), None) => write!(f, "{key}: {}", self.problem),
            (None, Some(origin)) => write!(f, "{origin}: {}", self.problem),
            (None, None) => f.write_str(&self.problem),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}
