//! Tokens: JWTs with HS256.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderMap, header::AUTHORIZATION};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind};
use serde_json::{Map, Value};

use super::{Principal, cache::Cache, check};
use crate::{
    clock::{Clock, Timestamp},
    reason::{Reason, Refusal},
    telemetry::LogLimit,
};

/// The shortest secret, in bytes: as long as the hash that it keys.
pub const SECRET_BYTES: usize = 32;

/// The longest token, in bytes.
pub const TOKEN_BYTES: usize = 8 * 1024;

/// How many verified tokens are remembered.
const CACHED_TOKENS: usize = 10_000;

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
    leeway: Duration,
    clock: Clock,
    verified: Cache,
}

impl Authenticator {
    /// An authenticator for tokens by `config`.
    pub fn new(config: &Config, clock: Clock) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // The library reads the system's clock, and its errors name no values: `check` does both.
        validation.required_spec_claims.clear();
        validation.validate_aud = false;
        validation.validate_exp = false;
        validation.validate_nbf = false;
        Self {
            key: DecodingKey::from_secret(&config.secret),
            validation,
            issuer: config.issuer.clone(),
            leeway: LEEWAY,
            clock,
            verified: Cache::new(CACHED_TOKENS),
        }
    }

    /// The same, where the issuer's clock and ours may differ by `leeway`.
    #[must_use]
    pub fn with_leeway(self, leeway: Duration) -> Self {
        Self { leeway, ..self }
    }

    /// When the service stops accepting the credential of `principal`: some time after it expires, since clocks differ.
    pub fn ends_at(&self, principal: &Principal) -> Timestamp {
        principal.expires_at + self.leeway
    }

    /// Verifies `token`: at most `TOKEN_BYTES`, signed with HS256, with the claims `exp`, `aud`, `iss` and `sub`. White
    /// space around it is ignored.
    ///
    /// # Errors
    /// `CREDENTIAL_EXPIRED` for a token that was good, `UNAUTHENTICATED` for any other. Where the signature is valid the
    /// message names the claim, its value and what was expected. Any other message says nothing of the content.
    pub fn verify(&self, token: &str) -> Result<Arc<Principal>, Refusal> {
        let token = token.trim();
        check_length(token)?;
        let digest = *blake3::hash(token.as_bytes()).as_bytes();
        let now = self.clock.now();
        if let Some(principal) = self.verified.get(&digest) {
            return self
                .unexpired(principal, now)
                .inspect_err(|_| self.verified.remove(&digest));
        }
        let principal = self.unexpired(Arc::new(self.decode(token, now)?), now)?;
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
        check_length(token)?;
        let now = self.clock.now();
        let mut principal = self.decode(token, now)?;
        principal.expires_at = principal.expires_at + late;
        self.unexpired(Arc::new(principal), now)
    }

    /// Verifies the bearer token of an HTTP request, or of a gRPC call by its metadata.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where there is none, and those of [`Self::verify`].
    pub fn admit(&self, headers: &HeaderMap) -> Result<Arc<Principal>, Refusal> {
        self.verify(in_headers(headers)?)
    }

    /// Everything but the expiry.
    fn decode(&self, token: &str, now: Timestamp) -> Result<Principal, Refusal> {
        let data = jsonwebtoken::decode::<Map<String, Value>>(token, &self.key, &self.validation)
            .map_err(|error| {
            refused(failed_check(error.kind()), "the credential is not valid")
        })?;
        // Whoever marks an extension as critical wants a token refused that is not understood.
        if data.header.crit.is_some() {
            let message = "the header `crit` names extensions: expected none";
            return Err(refused("crit", message));
        }
        check::principal(&data.claims, &self.issuer, now, self.leeway)
            .map_err(|failed| refused(failed.claim, failed.to_string()))
    }

    fn unexpired(
        &self,
        principal: Arc<Principal>,
        now: Timestamp,
    ) -> Result<Arc<Principal>, Refusal> {
        if self.ends_at(&principal) > now {
            return Ok(principal);
        }
        let at = principal.expires_at;
        let message = format!("the credential has expired: `exp` is {at}, and it is {now} now");
        let refusal = Refusal::new(Reason::CredentialExpired, message);
        Err(logged("exp", refusal))
    }
}

/// How far the issuer's clock and ours may differ, unless the config says otherwise.
const LEEWAY: Duration = Duration::from_secs(60);

fn check_length(token: &str) -> Result<(), Refusal> {
    let bytes = token.len();
    if bytes <= TOKEN_BYTES {
        return Ok(());
    }
    let message = format!("the token has {bytes} bytes: expected at most {TOKEN_BYTES}");
    Err(refused("length", message))
}

/// What a token that cannot be decoded failed.
fn failed_check(error: &ErrorKind) -> &'static str {
    match error {
        ErrorKind::InvalidSignature => "signature",
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => "algorithm",
        _ => "format",
    }
}

/// Logs which check a refused token failed. Nothing of a token whose signature is not valid is logged.
fn logged(check: &str, refusal: Refusal) -> Refusal {
    static REFUSED: LogLimit = LogLimit::new();
    if let Some(left_out) = REFUSED.admit() {
        let message = &refusal.message;
        tracing::warn!(check, left_out, "a token is refused: {message}");
    }
    refusal
}

fn refused(check: &str, message: impl Into<String>) -> Refusal {
    logged(check, Refusal::new(Reason::Unauthenticated, message))
}

fn in_headers(headers: &HeaderMap) -> Result<&str, Refusal> {
    bearer_in(headers)?.ok_or_else(|| {
        let message = "a bearer token is required in `authorization`";
        Refusal::new(Reason::Unauthenticated, message)
    })
}

/// The bearer token of the `Authorization` header, if there is one.
///
/// # Errors
/// `UNAUTHENTICATED` for two headers: a proxy in between may have checked the other one.
pub fn bearer_in(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let header = values.next();
    if values.next().is_some() {
        let message = "there is more than one `authorization` header: send one credential";
        return Err(Refusal::new(Reason::Unauthenticated, message));
    }
    Ok(header
        .and_then(|value| value.to_str().ok())
        .and_then(bearer))
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
