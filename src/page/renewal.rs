//! A new token for an old one, so that a page that was asleep comes back by itself.

use std::time::Duration;

use axum::http::HeaderMap;

use crate::{
    access::{self, Authenticator, Grant, Scope},
    clock::{Clock, Timestamp},
    event::UserId,
    reason::{Reason, Refusal},
};

/// How long ago a token may have expired that is still good for a new one.
const LATE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long the new one is good for.
const TERM: Duration = Duration::from_secs(60 * 60);

/// A token to read the same stream, or that of `user` in the same tenant, and its end. Only a service for development has
/// this: whoever may read one user's stream there may read every user's.
///
/// # Errors
/// Those of the old token; `SCOPE_MISSING` if it cannot read.
pub(super) fn renew(
    authenticator: &Authenticator,
    access: &access::Config,
    clock: &Clock,
    headers: &HeaderMap,
    user: Option<UserId>,
) -> Result<(String, Timestamp), Refusal> {
    let reader = authenticator.admit_late(headers, LATE)?.may_read(None)?;
    let user = user.unwrap_or_else(|| reader.user().clone());
    let expires_at = clock.now() + TERM;
    let grant = Grant {
        tenant: Some(reader.tenant().as_str().to_owned()),
        ..Grant::new(user.as_str(), [Scope::Subscribe], expires_at)
    };
    let token = access::mint(access, &grant)
        .map_err(|error| Refusal::new(Reason::Unauthenticated, error.to_string()))?;
    Ok((token, expires_at))
}
