//! Who works on what: the same thing is never loaded twice at once.

use std::{
    collections::BTreeSet,
    sync::{Condvar, Mutex, PoisonError},
};

use crate::Digest;

/// What is being worked on: chain ids of layers, digests of blobs, and of references.
#[derive(Debug, Default)]
pub(super) struct Claims {
    held: Mutex<BTreeSet<Digest>>,
    released: Condvar,
}

/// Some of it, until it is dropped.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    keys: BTreeSet<Digest>,
}

impl Claims {
    /// Waits until nobody holds any of `keys`, and takes them all at once, so that two who want
    /// some of the same things never wait for each other. Who holds a claim may wait for another
    /// one only in this order: a reference, then layers and blobs.
    pub(super) fn take(&self, keys: impl IntoIterator<Item = Digest>) -> Claim<'_> {
        let keys: BTreeSet<_> = keys.into_iter().collect();
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .released
            .wait_while(held, |held| !held.is_disjoint(&keys));
        let mut held = waited.unwrap_or_else(PoisonError::into_inner);
        held.extend(&keys);
        Claim { claims: self, keys }
    }

    /// Takes a key that nobody holds.
    pub(super) fn try_take(&self, key: Digest) -> Option<Claim<'_>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert(key).then(|| Claim {
            claims: self,
            keys: BTreeSet::from([key]),
        })
    }

    /// Whether somebody works on it.
    pub(super) fn holds(&self, key: &Digest) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.contains(key)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let held = self.claims.held.lock();
        let mut held = held.unwrap_or_else(PoisonError::into_inner);
        held.retain(|key| !self.keys.contains(key));
        drop(held);
        self.claims.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use super::*;

    #[test]
    fn what_overlaps_is_one_after_the_other() {
        let claims = Claims::default();
        let keys: Vec<_> = (0..4u8).map(|n| Digest::of([n])).collect();
        let holders: Vec<_> = keys.iter().map(|_| AtomicUsize::new(0)).collect();
        thread::scope(|scope| {
            for worker in 0..4 {
                let (claims, keys, holders) = (&claims, &keys, &holders);
                scope.spawn(move || {
                    for round in 0..200 {
                        let wanted = [worker, (worker + 1 + round % 3) % 4];
                        let claim = claims.take(wanted.map(|at| keys[at]));
                        for at in wanted {
                            assert_eq!(holders[at].fetch_add(1, Ordering::SeqCst), 0);
                            assert!(claims.holds(&keys[at]));
                        }
                        for at in wanted {
                            holders[at].fetch_sub(1, Ordering::SeqCst);
                        }
                        drop(claim);
                    }
                });
            }
        });
        assert!(!claims.holds(&keys[0]));
    }
}
