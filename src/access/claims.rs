//! What a token says, and how it is made.

use std::collections::BTreeSet;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use super::{Config, Scope};
use crate::clock::Timestamp;

/// The audience that every token names.
pub(super) const AUDIENCE: &str = "emitter";

/// What a token is to allow.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The user, or the producer's name: 1 to 128 characters.
    pub subject: String,
    /// The tenant; `None` means `default`.
    pub tenant: Option<String>,
    /// What it may be used for.
    pub scopes: BTreeSet<Scope>,
    /// The only users that it may address when it emits; `None`: all of the tenant.
    pub users: Option<Vec<String>>,
    /// What it pays for.
    pub tier: Option<String>,
    /// When it begins; `None`: at once.
    pub not_before: Option<Timestamp>,
    /// When it ends, in whole seconds.
    pub expires_at: Timestamp,
    /// The token's own id.
    pub token_id: Option<String>,
}

impl Grant {
    /// A grant of `scopes` to `subject` until `expires_at`, and nothing else.
    pub fn new(
        subject: impl Into<String>,
        scopes: impl IntoIterator<Item = Scope>,
        expires_at: Timestamp,
    ) -> Self {
        Self {
            subject: subject.into(),
            tenant: None,
            scopes: scopes.into_iter().collect(),
            users: None,
            tier: None,
            not_before: None,
            expires_at,
            token_id: None,
        }
    }
}

/// A token could not be made.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot sign the token: {0}")]
pub struct MintError(#[from] jsonwebtoken::errors::Error);

/// A token that grants `grant`, issued and signed by `config`.
///
/// # Errors
/// When it cannot be signed.
pub fn mint(config: &Config, grant: &Grant) -> Result<String, MintError> {
    let scopes: Vec<&str> = grant.scopes.iter().map(|scope| scope.name()).collect();
    let claims = Claims {
        iss: config.issuer.clone(),
        aud: AUDIENCE,
        sub: grant.subject.clone(),
        exp: seconds(grant.expires_at),
        nbf: grant.not_before.map(seconds),
        jti: grant.token_id.clone(),
        tenant: grant.tenant.clone(),
        scope: (!scopes.is_empty()).then(|| scopes.join(" ")),
        tier: grant.tier.clone(),
        users: grant.users.clone(),
    };
    let key = EncodingKey::from_secret(&config.secret);
    Ok(jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &key,
    )?)
}

fn seconds(at: Timestamp) -> u64 {
    at.as_millis() / 1000
}

/// The claims of a token that the service makes.
#[derive(Debug, Serialize)]
struct Claims {
    iss: String,
    aud: &'static str,
    sub: String,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<Vec<String>>,
}
