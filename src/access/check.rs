//! Checks the claims of a token whose signature is valid.

use std::{collections::BTreeSet, fmt, time::Duration};

use serde_json::{Map, Value};

use super::{Principal, Scope, claims::AUDIENCE};
use crate::{
    clock::Timestamp,
    event::{IdError, ProducerId, Source, Tenant, UserId},
};

/// The tenant of a token that names none.
const DEFAULT_TENANT: &str = "default";

/// How much of a claim's value an error shows, in characters.
const SHOWN_CHARS: usize = 64;

/// A claim that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// The claim's name.
    pub(super) claim: &'static str,
    found: String,
    expected: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            claim,
            found,
            expected,
        } = self;
        write!(f, "the claim `{claim}` {found}: expected {expected}")
    }
}

/// The principal that `claims` describe, issued by `issuer`, whose clock may differ by `leeway`. Checks everything but the expiry. Claims and scopes that
/// this version does not know are ignored.
pub(super) fn principal(
    claims: &Map<String, Value>,
    issuer: &str,
    now: Timestamp,
    leeway: Duration,
) -> Result<Principal, Failed> {
    let claims = Claims(claims);
    if claims.0.get("iss").and_then(Value::as_str) != Some(issuer) {
        return Err(claims.failed("iss", format!("`{issuer}`")));
    }
    if !claims.names_audience() {
        let expected = format!("`{AUDIENCE}`, or a list with it");
        return Err(claims.failed("aud", expected));
    }
    let Some(expires_at) = claims.moment("exp")? else {
        return Err(claims.failed("exp", "seconds since 1970"));
    };
    for claim in ["nbf", "iat"] {
        if claims
            .moment(claim)?
            .is_some_and(|begins| begins > now + leeway)
        {
            let expected = format!(
                "a time up to now, which is {}, with {} s of leeway",
                now.as_millis() / 1000,
                leeway.as_secs()
            );
            return Err(claims.failed(claim, expected));
        }
    }
    let subject = claims.text("sub")?.unwrap_or_default();
    let tenant = claims.text("tenant")?.unwrap_or(DEFAULT_TENANT);
    Ok(Principal {
        tenant: Tenant::new(tenant).map_err(|error| claims.id("tenant", &error))?,
        subject: UserId::new(subject).map_err(|error| claims.id("sub", &error))?,
        source: Source::new(ProducerId::new(subject).map_err(|error| claims.id("sub", &error))?),
        scopes: claims.scopes()?,
        users: claims.users()?,
        tier: claims.text("tier")?.map(str::to_owned),
        expires_at,
    })
}

struct Claims<'a>(&'a Map<String, Value>);

impl<'a> Claims<'a> {
    fn failed(&self, claim: &'static str, expected: impl Into<String>) -> Failed {
        let found = match self.0.get(claim) {
            None => "is missing".to_owned(),
            Some(value) => {
                let text = value.to_string();
                let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
                if shown.len() < text.len() {
                    shown.push('…');
                }
                format!("is {shown}")
            }
        };
        Failed {
            claim,
            found,
            expected: expected.into(),
        }
    }

    fn id(&self, claim: &'static str, error: &IdError) -> Failed {
        self.failed(claim, format!("an id; it {error}"))
    }

    fn names_audience(&self) -> bool {
        match self.0.get("aud") {
            Some(Value::String(one)) => one == AUDIENCE,
            Some(Value::Array(several)) => several.iter().any(|one| one == AUDIENCE),
            _ => false,
        }
    }

    fn text(&self, claim: &'static str) -> Result<Option<&'a str>, Failed> {
        match self.0.get(claim) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.failed(claim, "a text")),
        }
    }

    /// Seconds since the Unix epoch, possibly with a fraction. A moment before 1970 counts as 1970.
    fn moment(&self, claim: &'static str) -> Result<Option<Timestamp>, Failed> {
        /// The year 9999, so that nothing overflows.
        const LATEST: f64 = 253_402_300_799.0;
        match self.0.get(claim) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(seconds) if seconds <= LATEST => {
                    // The cast saturates at 0.
                    Ok(Some(Timestamp::from_millis((seconds * 1000.0) as u64)))
                }
                _ => Err(self.failed(claim, "seconds since 1970, as a number up to the year 9999")),
            },
        }
    }

    /// `scope`: a text with spaces between the scopes, as in RFC 8693, or a list, as some identity providers have it.
    fn scopes(&self) -> Result<BTreeSet<Scope>, Failed> {
        let expected = "a text with spaces between the scopes, or a list of texts";
        match self.0.get("scope") {
            None | Some(Value::Null) => Ok(BTreeSet::new()),
            Some(Value::String(text)) => {
                Ok(text.split_whitespace().filter_map(Scope::named).collect())
            }
            Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
                let names = list.iter().filter_map(Value::as_str);
                Ok(names.filter_map(Scope::named).collect())
            }
            Some(_) => Err(self.failed("scope", expected)),
        }
    }

    fn users(&self) -> Result<Option<BTreeSet<UserId>>, Failed> {
        let expected = || self.failed("users", "a list of user ids");
        match self.0.get("users") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(list)) => {
                let users = list.iter().map(|user| {
                    let user = user.as_str().ok_or_else(expected)?;
                    UserId::new(user).map_err(|error| self.id("users", &error))
                });
                users.collect::<Result<_, _>>().map(Some)
            }
            Some(_) => Err(expected()),
        }
    }
}
