//! Tokens: JWTs with HS256.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderMap, header::AUTHORIZATION};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::{
    Principal,
    cache::Cache,
    claims::{AUDIENCE, Claims},
};
use crate::{
    clock::{Clock, Timestamp},
    reason::{Reason, Refusal},
};

/// The shortest secret, in bytes: as long as the hash that it keys.
pub const SECRET_BYTES: usize = 32;

/// The longest token, in bytes.
pub const TOKEN_BYTES: usize = 8 * 1024;

/// How many verified tokens are remembered.
const CACHED_TOKENS: usize = 10_000;

/// How far the issuer's clock may be ahead of ours before `nbf` holds.
const NBF_TOLERANCE: Duration = Duration::from_secs(30);

/// How tokens are verified, and made.
#[derive(Clone)]
pub struct Config {
    /// The issuer that `iss` must name.
    pub issuer: String,
    /// The HS256 secret, at least `SECRET_BYTES` long.
    pub secret: Vec<u8>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("issuer", &self.issuer)
            .field("secret", &format_args!("[set]"))
            .finish()
    }
}

/// Verifies tokens. A token seen before costs a hash instead of a verification.
pub struct Authenticator {
    key: DecodingKey,
    validation: Validation,
    issuer: String,
    clock: Clock,
    verified: Cache,
}

impl Authenticator {
    /// An authenticator for tokens by `config`.
    pub fn new(config: &Config, clock: Clock) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[&config.issuer]);
        // The library reads the system's clock; ours is checked below.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        Self {
            key: DecodingKey::from_secret(&config.secret),
            validation,
            issuer: config.issuer.clone(),
            clock,
            verified: Cache::new(CACHED_TOKENS),
        }
    }

    /// Verifies `token`: at most `TOKEN_BYTES`, signed with HS256, with the claims `exp`, `aud`, `iss` and `sub`.
    ///
    /// # Errors
    /// `CREDENTIAL_EXPIRED` for a token that was good, `UNAUTHENTICATED` for any other; which rule it breaks is not
    /// told.
    pub fn verify(&self, token: &str) -> Result<Arc<Principal>, Refusal> {
        if token.len() > TOKEN_BYTES {
            return Err(invalid());
        }
        let digest = *blake3::hash(token.as_bytes()).as_bytes();
        let now = self.clock.now();
        if let Some(principal) = self.verified.get(&digest) {
            return unexpired(principal, now).inspect_err(|_| self.verified.remove(&digest));
        }
        let principal = Arc::new(self.decode(token, now).ok_or_else(invalid)?);
        let principal = unexpired(principal, now)?;
        self.verified.put(digest, principal.clone());
        Ok(principal)
    }

    /// Like [`Self::admit`], but a token that expired at most `late` ago is still good.
    ///
    /// # Errors
    /// Those of [`Self::admit`].
    pub fn admit_late(
        &self,
        headers: &HeaderMap,
        late: Duration,
    ) -> Result<Arc<Principal>, Refusal> {
        let token = in_headers(headers)?;
        if token.len() > TOKEN_BYTES {
            return Err(invalid());
        }
        let now = self.clock.now();
        let mut principal = self.decode(token, now).ok_or_else(invalid)?;
        principal.expires_at = principal.expires_at + late;
        unexpired(Arc::new(principal), now)
    }

    /// Verifies the bearer token of an HTTP request, or of a gRPC call by its metadata.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where there is none, and those of [`Self::verify`].
    pub fn admit(&self, headers: &HeaderMap) -> Result<Arc<Principal>, Refusal> {
        self.verify(in_headers(headers)?)
    }

    /// Everything but the expiry.
    fn decode(&self, token: &str, now: Timestamp) -> Option<Principal> {
        let data = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation).ok()?;
        // Whoever marks an extension as critical wants a token refused that is not understood.
        if data.header.crit.is_some() {
            return None;
        }
        let claims = data.claims;
        let begun = claims
            .nbf
            .is_none_or(|begins| begins.0 <= now + NBF_TOLERANCE);
        // The library lets some shapes of these two pass unchecked, so they are compared here as well.
        let ours = claims.iss == self.issuer && claims.aud.contains(AUDIENCE);
        (begun && ours)
            .then(|| claims.into_principal().ok())
            .flatten()
    }
}

fn unexpired(principal: Arc<Principal>, now: Timestamp) -> Result<Arc<Principal>, Refusal> {
    if principal.expires_at > now {
        return Ok(principal);
    }
    Err(Refusal::new(
        Reason::CredentialExpired,
        "the credential has expired",
    ))
}

fn invalid() -> Refusal {
    Refusal::new(Reason::Unauthenticated, "the credential is not valid")
}

fn in_headers(headers: &HeaderMap) -> Result<&str, Refusal> {
    headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(bearer)
        .ok_or_else(|| {
            let message = "a bearer token is required in `authorization`";
            Refusal::new(Reason::Unauthenticated, message)
        })
}

/// A secret as it stands in a file, without the newline at its end.
pub fn trim_newline(secret: &[u8]) -> &[u8] {
    let secret = secret.strip_suffix(b"\n").unwrap_or(secret);
    secret.strip_suffix(b"\r").unwrap_or(secret)
}

/// The token in the value of an `Authorization` header, if it is a bearer's.
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests;
