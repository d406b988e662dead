//! Ids as types: each is checked once, where it comes in, and cheap to copy from then on.

use std::{borrow::Borrow, collections::HashMap, fmt, sync::Arc};

/// The longest id, in Unicode scalar values.
const ID_CHARS: usize = 128;

/// A map by ids of one user's stream. Its hash is seeded anew for each map, and cheap: every event is looked up a few
/// times, and only who may write to the stream chooses the ids in it.
pub type IdMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Why a text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// It is empty.
    #[error("is required")]
    Empty,
    /// It has more than 128 characters.
    #[error("is longer than 128 characters")]
    TooLong,
    /// It has a control character.
    #[error("has a control character")]
    Control,
}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    // A text of at most 128 bytes cannot have more characters.
    if text.len() > ID_CHARS && text.chars().count() > ID_CHARS {
        return Err(IdError::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(IdError::Control);
    }
    Ok(())
}

macro_rules! id {
    ($(#[doc = $doc:literal] $name:ident)*) => {$(
        #[doc = $doc]
        ///
        /// 1 to 128 Unicode scalar values, none of them a control character. Clones share one allocation.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes `text` if it is a valid id.
            ///
            /// # Errors
            /// When it is empty, too long, or has a control character.
            pub fn new(text: &str) -> Result<Self, IdError> {
                check(text)?;
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )*};
}

id! {
    /// The idempotency key of an event within its user's stream.
    EventId
    /// A tenant of the platform.
    Tenant
    /// A person.
    UserId
    /// A conversation.
    ThreadId
    /// One run of an agent, unique within its tenant.
    RunId
    /// The name of an agent.
    AgentName
    /// A process that emits.
    ProducerId
    /// One call of a tool within its run.
    ToolCallId
    /// The name of a tool.
    ToolName
    /// One wait for a person within its run.
    WaitId
    /// One client of a reader, the same at each of its connections.
    ClientId
}

/// The prefix of the event ids that the service derives itself; nobody else may use it.
pub const OWN_IDS: &str = "emitter:";

impl EventId {
    /// Whether the event is the service's own.
    pub fn is_own(&self) -> bool {
        self.as_str().starts_with(OWN_IDS)
    }
}

/// Whose stream: a user of a tenant. Clones share one allocation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey(Arc<Owner>);

#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Owner {
    tenant: Tenant,
    user: UserId,
    /// Follows from the others: hashed once, asked for often.
    bucket: usize,
}

/// How many buckets the users are spread over, whatever the engine.
pub const BUCKETS: usize = 1024;

impl StreamKey {
    /// The stream of `user` in `tenant`.
    pub fn new(tenant: Tenant, user: UserId) -> Self {
        let bucket = bucket(&tenant, &user);
        Self(Arc::new(Owner {
            tenant,
            user,
            bucket,
        }))
    }

    /// The tenant.
    pub fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }

    /// The user.
    pub fn user(&self) -> &UserId {
        &self.0.user
    }

    /// A number that hardly any other user has, the same on every node and in every version. Its rest by `BUCKETS` is
    /// the bucket.
    pub fn number(&self) -> u64 {
        number(self.tenant(), self.user())
    }

    /// The bucket that everything of this user lies in, below `BUCKETS`. It is the same on every node and in every
    /// version.
    pub fn bucket(&self) -> usize {
        self.0.bucket
    }
}

fn bucket(tenant: &Tenant, user: &UserId) -> usize {
    (number(tenant, user) % BUCKETS as u64) as usize
}

fn number(tenant: &Tenant, user: &UserId) -> u64 {
    let mut hash = blake3::Hasher::new();
    // The length says where the tenant ends.
    hash.update(&(tenant.as_str().len() as u64).to_le_bytes());
    hash.update(tenant.as_str().as_bytes());
    hash.update(user.as_str().as_bytes());
    let mut bytes = [0; 8];
    hash.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}", self.tenant(), self.user())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_bounded_in_characters_not_bytes() {
        let cases = [
            ("", Err(IdError::Empty)),
            ("a", Ok(())),
            (&"é".repeat(128), Ok(())),
            (&"é".repeat(129), Err(IdError::TooLong)),
            ("a\u{0}b", Err(IdError::Control)),
            ("a\u{85}b", Err(IdError::Control)),
            ("a b/c\u{1F600}", Ok(())),
        ];
        for (text, want) in cases {
            assert_eq!(RunId::new(text).map(|_| ()), want, "{text:?}");
        }
    }

    #[test]
    fn buckets_stay_where_earlier_versions_put_them() {
        let bucket = |tenant: &str, user: &str| {
            StreamKey::new(Tenant::new(tenant).unwrap(), UserId::new(user).unwrap()).bucket()
        };
        let buckets = [
            bucket("default", "u1"),
            bucket("a", "bc"),
            bucket("ab", "c"),
        ];
        assert_eq!(buckets, [182, 325, 875]);
    }
}
