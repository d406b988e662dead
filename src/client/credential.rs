//! What a client shows to be let in.

use std::{fmt, sync::Arc};

/// A token, or a way to get a new one.
#[derive(Clone)]
pub struct Credential(Source);

#[derive(Clone)]
enum Source {
    Fixed(Arc<str>),
    Renewed(Arc<dyn Fn() -> String + Send + Sync>),
}

impl Credential {
    /// Always the same token.
    pub fn fixed(token: &str) -> Self {
        Self(Source::Fixed(token.into()))
    }

    /// A new token whenever one is needed. `renew` is called on the client's task: it returns at once.
    pub fn renewed(renew: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Source::Renewed(Arc::new(renew)))
    }

    /// A token.
    pub(super) fn token(&self) -> String {
        match &self.0 {
            Source::Fixed(token) => token.to_string(),
            Source::Renewed(renew) => renew(),
        }
    }

    /// Whether there is another token to be had once one has expired.
    pub(super) fn renews(&self) -> bool {
        matches!(self.0, Source::Renewed(_))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::Fixed(_) => "Credential(fixed)",
            Source::Renewed(_) => "Credential(renewed)",
        })
    }
}
