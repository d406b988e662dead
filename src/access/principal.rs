//! What a verified credential allows.

use std::collections::BTreeSet;

use crate::{
    clock::Timestamp,
    event::{Source, StreamKey, Tenant, UserId},
    reason::{Reason, Refusal},
};

/// The tenant of a credential that operates every tenant. It is nobody's own: nothing is emitted or read there.
const EVERY_TENANT: &str = "*";

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
    /// When it expires, by the issuer's clock. The service accepts it for a leeway longer.
    pub expires_at: Timestamp,
}

impl Principal {
    /// Whether it operates every tenant, and does nothing else.
    pub fn is_of_every_tenant(&self) -> bool {
        self.tenant.as_str() == EVERY_TENANT
    }

    /// Checks that the credential has `scope`.
    ///
    /// # Errors
    /// `SCOPE_MISSING`; `TENANT_FORBIDDEN` for anything but operating where it is of every tenant.
    pub fn require(&self, scope: Scope) -> Result<(), Refusal> {
        if scope != Scope::Operate {
            self.require_own_tenant()?;
        }
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
        self.require_own_tenant()?;
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
    /// `SCOPE_MISSING`, `TENANT_FORBIDDEN`, `USER_FORBIDDEN`.
    pub fn may_read(&self, user: Option<UserId>) -> Result<StreamKey, Refusal> {
        self.require_own_tenant()?;
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

    fn require_own_tenant(&self) -> Result<(), Refusal> {
        if !self.is_of_every_tenant() {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::TenantForbidden,
            "a credential of the tenant `*` only operates",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ProducerId;

    fn principal(tenant: &str) -> Principal {
        Principal {
            tenant: Tenant::new(tenant).unwrap(),
            subject: UserId::new("ops").unwrap(),
            source: Source {
                producer_id: ProducerId::new("ops").unwrap(),
                term: 0,
            },
            scopes: [Scope::Emit, Scope::Subscribe, Scope::Operate].into(),
            users: None,
            tier: None,
            expires_at: Timestamp::default(),
        }
    }

    #[test]
    fn a_credential_of_every_tenant_only_operates() {
        let (own, every) = (principal("acme"), principal("*"));
        let user = || UserId::new("u1").unwrap();
        let tenants = [None, Some(every.tenant.clone()), Some(own.tenant.clone())];
        let answers = |principal: &Principal| {
            let mut answers = vec![
                principal.require(Scope::Emit).err(),
                principal.require(Scope::Subscribe).err(),
                principal.may_read(None).err(),
                principal.may_read(Some(user())).err(),
                principal.may_read(Some(principal.subject.clone())).err(),
            ];
            let emits = tenants.iter().map(Option::as_ref);
            answers.extend(emits.map(|tenant| principal.may_emit_to(tenant, user()).err()));
            let reasons = answers.into_iter();
            let reasons = reasons.map(|refusal| refusal.map(|refusal| refusal.reason));
            reasons.collect::<Vec<_>>()
        };
        assert_eq!(answers(&every), [Some(Reason::TenantForbidden); 8]);
        let mut of_own = vec![None; 8];
        of_own[6] = Some(Reason::TenantForbidden);
        assert_eq!(answers(&own), of_own);
        assert_eq!(every.require(Scope::Operate), Ok(()));
    }
}
