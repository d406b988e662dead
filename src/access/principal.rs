//! What a verified credential allows.

use std::collections::BTreeSet;

use crate::{
    clock::Timestamp,
    event::{Source, StreamKey, Tenant, UserId},
    reason::{Reason, Refusal},
};

/// What a credential may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Emit events.
    Emit,
    /// Read one's own stream.
    Subscribe,
    /// Operate the service; read any stream of the tenant.
    Operate,
}

impl Scope {
    /// The name in a token's `scope`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Emit => "emit",
            Self::Subscribe => "subscribe",
            Self::Operate => "operate",
        }
    }

    /// The scope of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Emit, Self::Subscribe, Self::Operate]
            .into_iter()
            .find(|scope| scope.name() == name)
    }
}

/// Whoever holds a verified credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The tenant that everything it does stays in.
    pub tenant: Tenant,
    /// The user, or the producer's name.
    pub subject: UserId,
    /// Who emits, where an event does not say: the subject, with term 0.
    pub source: Source,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// The only users that it may address when it emits; `None`: all of the tenant.
    pub users: Option<BTreeSet<UserId>>,
    /// What it pays for.
    pub tier: Option<String>,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl Principal {
    /// Checks that the credential has `scope`.
    ///
    /// # Errors
    /// `SCOPE_MISSING`.
    pub fn require(&self, scope: Scope) -> Result<(), Refusal> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        let name = scope.name();
        Err(Refusal::new(
            Reason::ScopeMissing,
            format!("the credential lacks the scope `{name}`"),
        )
        .with("scope", name))
    }

    /// The stream that an event for `user` goes to, in the tenant that the event names, if any.
    ///
    /// # Errors
    /// `TENANT_FORBIDDEN`, `USER_FORBIDDEN`.
    pub fn may_emit_to(&self, tenant: Option<&Tenant>, user: UserId) -> Result<StreamKey, Refusal> {
        if tenant.is_some_and(|tenant| *tenant != self.tenant) {
            return Err(Refusal::new(
                Reason::TenantForbidden,
                "the credential is of another tenant",
            ));
        }
        if self
            .users
            .as_ref()
            .is_some_and(|users| !users.contains(&user))
        {
            return Err(Refusal::new(
                Reason::UserForbidden,
                "the credential may not address this user",
            ));
        }
        Ok(StreamKey::new(self.tenant.clone(), user))
    }

    /// The stream that this principal reads: its own, or with the scope `operate` that of `user`.
    ///
    /// # Errors
    /// `SCOPE_MISSING`, `USER_FORBIDDEN`.
    pub fn may_read(&self, user: Option<UserId>) -> Result<StreamKey, Refusal> {
        let user = match user {
            Some(user) if self.scopes.contains(&Scope::Operate) => user,
            Some(user) if user != self.subject => {
                return Err(Refusal::new(
                    Reason::UserForbidden,
                    "reading another user's stream needs the scope `operate`",
                ));
            }
            _ => {
                self.require(Scope::Subscribe)?;
                self.subject.clone()
            }
        };
        Ok(StreamKey::new(self.tenant.clone(), user))
    }
}
