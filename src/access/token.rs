//! Tokens: JWTs with HS256.

use crate::{clock::Clock, reason::Refusal};

use super::Principal;

/// How tokens are verified.
#[derive(Clone)]
pub struct Config {
    /// The issuer that `iss` must name.
    pub issuer: String,
    /// The HS256 secret.
    pub secret: Vec<u8>,
}

/// Verifies tokens.
pub struct Authenticator {}

impl Authenticator {
    /// An authenticator for tokens by `config`.
    pub fn new(_config: &Config, _clock: Clock) -> Self {
        todo!()
    }

    /// Verifies `token`.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, `CREDENTIAL_EXPIRED`.
    pub fn verify(&self, _token: &str) -> Result<Principal, Refusal> {
        todo!()
    }
}

/// The token in the value of an `Authorization` header, if it is a bearer's.
pub fn bearer(_header: &str) -> Option<&str> {
    todo!()
}
