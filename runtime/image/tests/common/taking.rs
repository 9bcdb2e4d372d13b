//! Those who take images away, all the time, while something else is done.

use std::{
    panic::resume_unwind,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use image::{ImageError, Store};

/// Far more than a turn takes on a slow machine.
const LIMIT: Duration = Duration::from_secs(120);

/// How often each of them has had its turn.
#[derive(Default)]
pub struct Turns {
    turns: [AtomicUsize; 3],
    over: AtomicBool,
}

impl Turns {
    /// Waits until each of them has had a whole turn that began after now.
    pub fn pass(&self) {
        let before: Vec<_> = self.turns.iter().map(|turns| turns.load(SeqCst)).collect();
        let limit = Instant::now() + LIMIT;
        for (turns, before) in self.turns.iter().zip(before) {
            while turns.load(SeqCst) < before + 2 {
                assert!(!self.over.load(SeqCst), "they have stopped");
                assert!(Instant::now() < limit, "no turn within {LIMIT:?}");
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn take(&self, at: usize, mut turn: impl FnMut() -> usize) -> usize {
        let mut taken = 0;
        while !self.over.load(SeqCst) {
            taken += turn();
            self.turns[at].fetch_add(1, SeqCst);
            thread::sleep(Duration::from_millis(1));
        }
        taken
    }
}

/// Ends it, also when what is done meanwhile fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Prunes all images, removes those of `names`, and collects, all the time while `work` is done. How many
/// images they have taken.
pub fn while_images_are_taken(
    store: &Store,
    names: &[String],
    force: bool,
    work: impl FnOnce(&Turns) + Send,
) -> usize {
    let turns = &Turns::default();
    let prune = || {
        let (gone, _) = store.prune(true, Duration::ZERO).expect("pruned");
        gone.len()
    };
    let remove = || {
        let mut taken = 0;
        for name in names {
            match store.remove(name, force) {
                Ok(removed) => taken += usize::from(removed.image.is_some()),
                Err(ImageError::NotFound(_)) => {}
                Err(ImageError::InUse { what: "tasks", .. }) if !force => {}
                Err(error) => panic!("removing {name}: {error}"),
            }
        }
        taken
    };
    let collect = || {
        store.gc().expect("a collection");
        0
    };
    thread::scope(|scope| {
        let takers = [
            scope.spawn(move || {
                let _over = Over(&turns.over);
                turns.take(0, prune)
            }),
            scope.spawn(move || {
                let _over = Over(&turns.over);
                turns.take(1, remove)
            }),
            scope.spawn(move || {
                let _over = Over(&turns.over);
                turns.take(2, collect)
            }),
        ];
        let over = Over(&turns.over);
        work(turns);
        drop(over);
        let taken = takers.map(|taker| taker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        taken.iter().sum()
    })
}
