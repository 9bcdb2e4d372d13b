//! Waiting for what the kernel does not announce.

use std::thread;
use std::time::{Duration, Instant};

/// The first and the longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Pauses that grow, until a time is over.
#[derive(Debug)]
pub(crate) struct Pauses {
    end: Option<Instant>,
    next: Duration,
}

impl Pauses {
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            // A time beyond what the clock can tell has no end.
            end: Instant::now().checked_add(patience),
            next: PAUSES.0,
        }
    }

    /// How long the next pause is; `None` when the time is over.
    pub(crate) fn next(&mut self) -> Option<Duration> {
        let left = match self.end {
            Some(end) => end.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        };
        let pause = self.next.min(left);
        self.next = (self.next * 2).min(PAUSES.1);
        (!pause.is_zero()).then_some(pause)
    }

    /// Sleeps; says `false` at once when the time is over.
    pub(crate) fn pause(&mut self) -> bool {
        let pause = self.next();
        pause.into_iter().for_each(thread::sleep);
        pause.is_some()
    }
}
