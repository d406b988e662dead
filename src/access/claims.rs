//! What a token says, and how it is made.

use std::collections::BTreeSet;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Config, Principal, Scope};
use crate::{
    clock::Timestamp,
    event::{IdError, ProducerId, Source, Tenant, UserId},
};

/// The audience that every token names.
pub(super) const AUDIENCE: &str = "emitter";

/// The tenant of a token that names none.
const DEFAULT_TENANT: &str = "default";

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
        aud: Audience::One(AUDIENCE.to_owned()),
        sub: grant.subject.clone(),
        exp: NumericDate(grant.expires_at),
        nbf: grant.not_before.map(NumericDate),
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

/// The claims of a token, in their wire shape. What is not listed is ignored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) aud: Audience,
    sub: String,
    pub(super) exp: NumericDate,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) nbf: Option<NumericDate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tier: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    users: Option<Vec<String>>,
}

impl Claims {
    /// Whom they speak of. Scopes that this version does not know are left out.
    pub(super) fn into_principal(self) -> Result<Principal, IdError> {
        let users = self.users.map(|users| {
            users
                .iter()
                .map(|user| UserId::new(user))
                .collect::<Result<BTreeSet<_>, _>>()
        });
        Ok(Principal {
            tenant: Tenant::new(self.tenant.as_deref().unwrap_or(DEFAULT_TENANT))?,
            subject: UserId::new(&self.sub)?,
            source: Source::new(ProducerId::new(&self.sub)?),
            scopes: self
                .scope
                .iter()
                .flat_map(|scopes| scopes.split(' '))
                .filter_map(Scope::named)
                .collect(),
            users: users.transpose()?,
            tier: self.tier,
            expires_at: self.exp.0,
        })
    }
}

/// `aud`: one audience or several.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    pub(super) fn contains(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Several(several) => several.iter().any(|one| one == audience),
        }
    }
}

/// Seconds since the Unix epoch, possibly with a fraction.
#[derive(Clone, Copy, Debug)]
pub(super) struct NumericDate(pub(super) Timestamp);

impl Serialize for NumericDate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0.as_millis() / 1000)
    }
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        // The cast saturates: a moment before 1970 is 1970, one beyond all bounds is the last one.
        Ok(Self(Timestamp::from_millis((seconds * 1000.0) as u64)))
    }
}
