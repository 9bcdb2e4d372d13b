//! Trying again, and giving up.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::Duration,
};

use super::RegistryError;

/// The pause after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// However long a registry asks us to wait, not longer than this.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// Says to all who work for a pull that nobody wants it any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cancel(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    cancelled: bool,
    /// What ends with this.
    parts: Vec<Weak<Shared>>,
    waiting: Vec<Weak<dyn Wake>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.cancelled.fmt(f)
    }
}

/// Somebody who waits for something that may not come, and need not after a cancellation.
pub(crate) trait Wake: Send + Sync {
    fn cancelled(&self);
}

/// What a thread brings, unless nobody wants it any more.
struct Slot<T> {
    value: Mutex<Option<Result<T, RegistryError>>>,
    filled: Condvar,
}

impl<T> Slot<T> {
    fn fill(&self, value: Result<T, RegistryError>) {
        let mut slot = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert(value);
        self.filled.notify_all();
    }
}

impl<T: Send> Wake for Slot<T> {
    fn cancelled(&self) {
        self.fill(Err(RegistryError::Cancelled));
    }
}

impl Cancel {
    /// A part, which can end before the whole does, and ends with it.
    pub(crate) fn part(&self) -> Self {
        let mut state = self.0.state();
        let part = Self::default();
        part.0.state().cancelled = state.cancelled;
        state.parts.retain(|part| part.strong_count() > 0);
        state.parts.push(Arc::downgrade(&part.0));
        part
    }

    pub(crate) fn cancel(&self) {
        let (parts, waiting) = {
            let mut state = self.0.state();
            state.cancelled = true;
            let state = &mut *state;
            (
                std::mem::take(&mut state.parts),
                std::mem::take(&mut state.waiting),
            )
        };
        self.0.changed.notify_all();
        for waiting in waiting.iter().filter_map(Weak::upgrade) {
            waiting.cancelled();
        }
        for part in parts.iter().filter_map(Weak::upgrade) {
            Self(part).cancel();
        }
    }

    /// Wakes `who` when it is cancelled, or now if it is.
    pub(crate) fn wakes<W: Wake + 'static>(&self, who: &Arc<W>) {
        let mut state = self.0.state();
        if state.cancelled {
            drop(state);
            return who.cancelled();
        }
        state.waiting.retain(|waiting| waiting.strong_count() > 0);
        let who: Weak<W> = Arc::downgrade(who);
        state.waiting.push(who);
    }

    /// Does something that can take long, such as waiting for a server, in a thread of its own, and
    /// returns at once when it is cancelled. The thread then ends as soon as it can.
    pub(crate) fn unless_cancelled<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let slot = Arc::new(Slot {
            value: Mutex::new(None),
            filled: Condvar::new(),
        });
        self.wakes(&slot);
        let filled = slot.clone();
        thread::Builder::new()
            .name("registry".into())
            .spawn(move || filled.fill(work()))
            .map_err(|error| RegistryError::Config(format!("starting a thread: {error}")))?;
        let value = slot.value.lock().unwrap_or_else(PoisonError::into_inner);
        let value = slot.filled.wait_while(value, |value| value.is_none());
        let mut value = value.unwrap_or_else(PoisonError::into_inner);
        value.take().unwrap_or(Err(RegistryError::Cancelled))
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.state().cancelled
    }

    /// # Errors
    /// [`RegistryError::Cancelled`].
    pub(crate) fn check(&self) -> Result<(), RegistryError> {
        self.sleep(Duration::ZERO)
    }

    /// Sleeps, unless or until it is cancelled.
    fn sleep(&self, pause: Duration) -> Result<(), RegistryError> {
        let waiting = |state: &mut State| !state.cancelled;
        let waited = self
            .0
            .changed
            .wait_timeout_while(self.0.state(), pause, waiting);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.cancelled {
            true => Err(RegistryError::Cancelled),
            false => Ok(()),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts failures in a row.
pub(crate) struct Retries {
    cancel: Cancel,
    attempts: u32,
    failures: u32,
}

impl Retries {
    pub(crate) fn new(cancel: &Cancel, attempts: u32) -> Self {
        Self {
            cancel: cancel.clone(),
            attempts,
            failures: 0,
        }
    }

    /// Something came: what fails from here on is a new failure.
    pub(crate) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Waits until it is time to try again, or gives the error back.
    pub(crate) fn pause(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.failures += 1;
        if !error.is_transient() || self.failures >= self.attempts {
            return Err(error);
        }
        let own = FIRST_PAUSE * 2u32.saturating_pow(self.failures - 1);
        let pause = match error.retry_after() {
            Some(asked) => asked.min(LONGEST_ASKED),
            None => own.min(LONGEST_PAUSE),
        };
        tracing::debug!(%error, ?pause, "a request to a registry failed and is tried again");
        self.cancel.sleep(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16) -> RegistryError {
        RegistryError::Status {
            url: "u".into(),
            status,
            message: String::new(),
            retry_after: Some(Duration::ZERO),
        }
    }

    #[test]
    fn gives_up_after_some_failures_in_a_row() {
        let mut retries = Retries::new(&Cancel::default(), 6);
        for _ in 1..6 {
            retries.pause(failure(503)).expect("another attempt");
        }
        retries.progressed();
        for _ in 1..6 {
            retries.pause(failure(429)).expect("another attempt");
        }
        assert!(retries.pause(failure(503)).is_err());
        let mut retries = Retries::new(&Cancel::default(), 6);
        assert!(retries.pause(failure(400)).is_err());
        let (url, reason) = (String::new(), String::new());
        let untrusted = RegistryError::Trust { url, reason };
        assert!(
            Retries::new(&Cancel::default(), 6)
                .pause(untrusted)
                .is_err()
        );
    }

    #[test]
    fn a_part_ends_with_the_whole_and_not_the_other_way_round() {
        let whole = Cancel::default();
        let (one, other) = (whole.part(), whole.part());
        one.cancel();
        assert!(one.check().is_err() && other.check().is_ok() && whole.check().is_ok());
        whole.cancel();
        assert!(other.check().is_err() && whole.part().check().is_err());
    }

    #[test]
    fn nobody_waits_for_what_takes_too_long() {
        let cancel = Cancel::default();
        assert_eq!(cancel.unless_cancelled(|| Ok(3)).expect("a value"), 3);
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let waiter = cancel.clone();
        let waiter = thread::spawn(move || {
            waiter.unless_cancelled(move || {
                let _ = held.recv();
                Ok(())
            })
        });
        cancel.cancel();
        let outcome = waiter.join().expect("no panic");
        assert!(matches!(outcome, Err(RegistryError::Cancelled)));
        assert!(cancel.unless_cancelled(|| Ok(())).is_err());
        drop(hold);
    }

    #[test]
    fn a_sleeper_is_woken_by_the_end() {
        let cancel = Cancel::default();
        cancel.check().expect("not yet");
        let sleeper = cancel.clone();
        let sleeper = thread::spawn(move || sleeper.sleep(Duration::from_secs(3600)));
        cancel.cancel();
        let outcome = sleeper.join().expect("no panic");
        assert!(matches!(outcome, Err(RegistryError::Cancelled)));
        assert!(cancel.check().is_err());
    }
}
