//! Who works on what: the same thing is never loaded twice at once, and nothing is removed that
//! somebody reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::{
    Digest,
    registry::{Cancel, Wake},
};

/// What is being worked on: chain ids of layers, digests of blobs, and of references.
#[derive(Debug, Default)]
pub(super) struct Claims(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    held: Mutex<BTreeSet<Digest>>,
    /// Layers that are read, and by how many.
    pinned: Mutex<BTreeMap<Digest, usize>>,
    /// Images that are about to be used, and for whom, as often as they asked.
    users: Mutex<BTreeMap<Digest, Vec<String>>>,
    /// Something was released, or somebody who waits was cancelled.
    changed: Condvar,
}

/// Some of it, until it is dropped.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    keys: BTreeSet<Digest>,
}

/// Keeps layers from being removed, until it is dropped. Others may load and read them meanwhile: who
/// reads slowly holds nobody up.
#[derive(Debug)]
pub(super) struct Pin<'a> {
    claims: &'a Claims,
    keys: BTreeSet<Digest>,
}

/// Keeps an image in the store for somebody who is about to make a snapshot of it, until it is
/// dropped: [`Store::prune`](super::Store::prune) leaves it out, and
/// [`Store::remove`](super::Store::remove) refuses, or, by force, leaves its layers. Of this process
/// only: after a restart whoever had one asks for the image again.
#[derive(Debug)]
#[must_use = "the image can be removed as soon as this is dropped"]
pub struct ImagePin {
    shared: Arc<Shared>,
    /// Without one, only the layers stay.
    user: Option<String>,
    image: Digest,
    layers: BTreeSet<Digest>,
}

impl Claims {
    /// Pins an image and its layers for `user`, which is the key of the snapshot to come; without a
    /// user only the layers. The caller holds the store's state and has seen the image in it, or is
    /// about to bring it there.
    pub(super) fn pin_image(
        &self,
        user: Option<&str>,
        image: Digest,
        layers: BTreeSet<Digest>,
    ) -> ImagePin {
        self.0.pin(&layers);
        let user = user.map(str::to_owned);
        if let Some(user) = &user {
            let mut users = self.0.users();
            users.entry(image).or_default().push(user.clone());
        }
        ImagePin {
            shared: Arc::clone(&self.0),
            user,
            image,
            layers,
        }
    }

    /// For whom an image is pinned.
    pub(super) fn users(&self, image: &Digest) -> Vec<String> {
        self.0.users().get(image).cloned().unwrap_or_default()
    }

    /// Pins layers. Whoever removes layers looks at pins while it holds the store's state, so the
    /// caller must hold that too, and have seen the layers in it.
    pub(super) fn pin(&self, keys: BTreeSet<Digest>) -> Pin<'_> {
        self.0.pin(&keys);
        Pin { claims: self, keys }
    }

    /// Whether somebody reads it.
    pub(super) fn pins(&self, key: &Digest) -> bool {
        self.0.pinned().contains_key(key)
    }

    /// Waits until nobody holds any of `keys`, and takes them all at once, so that two who want
    /// some of the same things never wait for each other. Who holds a claim may wait for another
    /// one only in this order: a reference, then layers and blobs.
    pub(super) fn take(&self, keys: impl IntoIterator<Item = Digest>) -> Claim<'_> {
        self.take_while(keys.into_iter().collect(), || true)
    }

    /// [`Claims::take`] that gives up when it is cancelled.
    pub(super) fn take_unless_cancelled(
        &self,
        keys: impl IntoIterator<Item = Digest>,
        cancel: &Cancel,
    ) -> Option<Claim<'_>> {
        cancel.wakes(&self.0);
        let claim = self.take_while(keys.into_iter().collect(), || !cancel.is_cancelled());
        (!cancel.is_cancelled()).then_some(claim)
    }

    /// Without what it was to take, if `goes_on` has become false.
    fn take_while(&self, keys: BTreeSet<Digest>, goes_on: impl Fn() -> bool) -> Claim<'_> {
        let waited = self
            .0
            .changed
            .wait_while(self.0.held(), |held| !held.is_disjoint(&keys) && goes_on());
        let mut held = waited.unwrap_or_else(PoisonError::into_inner);
        let keys = match held.is_disjoint(&keys) {
            true => keys,
            false => BTreeSet::new(),
        };
        held.extend(&keys);
        Claim { claims: self, keys }
    }

    /// Takes a key that nobody holds.
    pub(super) fn try_take(&self, key: Digest) -> Option<Claim<'_>> {
        let mut held = self.0.held();
        held.insert(key).then(|| Claim {
            claims: self,
            keys: BTreeSet::from([key]),
        })
    }

    /// Whether somebody works on it.
    pub(super) fn holds(&self, key: &Digest) -> bool {
        self.0.held().contains(key)
    }
}

impl Shared {
    fn pin(&self, keys: &BTreeSet<Digest>) {
        let mut pinned = self.pinned();
        for key in keys {
            *pinned.entry(*key).or_default() += 1;
        }
    }

    fn unpin(&self, keys: &BTreeSet<Digest>) {
        let mut pinned = self.pinned();
        for key in keys {
            if let Some(count) = pinned.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    pinned.remove(key);
                }
            }
        }
    }

    fn users(&self) -> MutexGuard<'_, BTreeMap<Digest, Vec<String>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pinned(&self) -> MutexGuard<'_, BTreeMap<Digest, usize>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Shared {
    fn cancelled(&self) {
        // Who is about to wait has looked already, or will.
        drop(self.held());
        self.changed.notify_all();
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut held = self.claims.0.held();
        held.retain(|key| !self.keys.contains(key));
        drop(held);
        self.claims.0.changed.notify_all();
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.claims.0.unpin(&self.keys);
    }
}

impl Drop for ImagePin {
    fn drop(&mut self) {
        let mut users = self.shared.users();
        if let Some(user) = &self.user
            && let Some(of) = users.get_mut(&self.image)
        {
            if let Some(at) = of.iter().position(|other| other == user) {
                of.swap_remove(at);
            }
            if of.is_empty() {
                users.remove(&self.image);
            }
        }
        drop(users);
        self.shared.unpin(&self.layers);
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

    #[test]
    fn a_pin_holds_until_the_last_reader_has_gone_and_stops_no_claim() {
        let claims = Claims::default();
        let (one, other) = (Digest::of("1"), Digest::of("2"));
        let first = claims.pin([one].into());
        let second = claims.pin([one, other].into());
        assert!(claims.try_take(one).is_some());
        drop(first);
        assert!(claims.pins(&one) && claims.pins(&other));
        drop(second);
        assert!(!claims.pins(&one) && !claims.pins(&other));
    }

    #[test]
    fn an_image_is_pinned_as_often_as_somebody_asked() {
        let claims = Claims::default();
        let (image, layer) = (Digest::of("image"), Digest::of("layer"));
        let pins = ["a", "b", "a"].map(|user| claims.pin_image(Some(user), image, [layer].into()));
        assert_eq!(claims.users(&image), ["a", "b", "a"]);
        let [first, second, third] = pins;
        drop(first);
        let mut left = claims.users(&image);
        left.sort();
        assert_eq!(left, ["a", "b"]);
        drop(second);
        assert_eq!(claims.users(&image), ["a"]);
        let nobodys = claims.pin_image(None, image, [layer].into());
        drop(third);
        assert!(claims.users(&image).is_empty() && claims.pins(&layer));
        drop(nobodys);
        assert!(claims.users(&image).is_empty() && !claims.pins(&layer));
        assert!(claims.0.users().is_empty(), "nothing is kept of them");
    }

    #[test]
    fn who_waits_can_be_cancelled() {
        let (claims, cancel) = (Claims::default(), Cancel::default());
        let (one, other) = (Digest::of("1"), Digest::of("2"));
        let held = claims.take_unless_cancelled([one], &cancel);
        assert!(held.is_some());
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                claims
                    .take_unless_cancelled([one, other], &cancel)
                    .is_none()
            });
            cancel.cancel();
            assert!(waiter.join().expect("no panic"));
        });
        assert!(claims.holds(&one) && !claims.holds(&other));
        assert!(claims.take_unless_cancelled([other], &cancel).is_none());
        drop(held);
        assert!(!claims.holds(&one) && !claims.holds(&other));
    }
}
