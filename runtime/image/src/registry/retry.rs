//! Trying again, and giving up.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
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

#[derive(Debug, Default)]
struct State {
    cancelled: bool,
    /// What ends with this.
    parts: Vec<Weak<Shared>>,
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
        let parts = {
            let mut state = self.0.state();
            state.cancelled = true;
            std::mem::take(&mut state.parts)
        };
        self.0.changed.notify_all();
        for part in parts.iter().filter_map(Weak::upgrade) {
            Self(part).cancel();
        }
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
    use std::thread;

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
