//! Tokens that were verified before.

use std::{collections::HashMap, mem, sync::Arc};

use parking_lot::Mutex;

use super::Principal;

/// What a token is remembered by: it is not kept itself.
pub(super) type Digest = [u8; 32];

/// Remembers a bounded number of principals by their tokens' digests.
///
/// Two generations: what is used moves to the young one; when that is full it becomes the old one, and what was not
/// used since is forgotten. Every operation costs the same, however full the cache is.
pub(super) struct Cache {
    generation: usize,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Digest, Arc<Principal>>,
    old: HashMap<Digest, Arc<Principal>>,
}

impl Cache {
    /// A cache of at most `entries`.
    pub(super) fn new(entries: usize) -> Self {
        Self {
            generation: (entries / 2).max(1),
            generations: Mutex::default(),
        }
    }

    /// The principal of the token with that digest.
    pub(super) fn get(&self, token: &Digest) -> Option<Arc<Principal>> {
        let mut generations = self.generations.lock();
        if let Some(found) = generations.young.get(token) {
            return Some(found.clone());
        }
        let found = generations.old.remove(token)?;
        self.put_young(&mut generations, *token, found.clone());
        Some(found)
    }

    /// Remembers `principal`.
    pub(super) fn put(&self, token: Digest, principal: Arc<Principal>) {
        self.put_young(&mut self.generations.lock(), token, principal);
    }

    /// Forgets the token with that digest.
    pub(super) fn remove(&self, token: &Digest) {
        let mut generations = self.generations.lock();
        generations.young.remove(token);
        generations.old.remove(token);
    }

    fn put_young(&self, generations: &mut Generations, token: Digest, principal: Arc<Principal>) {
        if generations.young.len() >= self.generation {
            generations.old = mem::take(&mut generations.young);
        }
        generations.young.insert(token, principal);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        clock::Timestamp,
        event::{ProducerId, Source, Tenant, UserId},
    };

    fn principal() -> Arc<Principal> {
        Arc::new(Principal {
            tenant: Tenant::new("default").unwrap(),
            subject: UserId::new("u1").unwrap(),
            source: Source::new(ProducerId::new("producer").unwrap()),
            scopes: BTreeSet::new(),
            users: None,
            tier: None,
            expires_at: Timestamp::from_millis(1),
        })
    }

    fn digest(n: u32) -> Digest {
        *blake3::hash(&n.to_le_bytes()).as_bytes()
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let cache = Cache::new(10);
        let used = digest(0);
        cache.put(used, principal());
        for n in 1..1000 {
            cache.put(digest(n), principal());
            assert!(cache.get(&used).is_some(), "after {n}");
            let generations = cache.generations.lock();
            assert!(generations.young.len() + generations.old.len() <= 10);
        }
        assert!(cache.get(&digest(1)).is_none());
        assert!(cache.get(&digest(999)).is_some());
        cache.remove(&used);
        assert!(cache.get(&used).is_none());
    }
}
