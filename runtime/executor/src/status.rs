//! The latest status of each task, in the order in which they changed.
//!
//! A reader keeps only the number of the last status it has seen, so a slow one costs nothing: it
//! misses states that were passed through meanwhile, never the latest of a task.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fairlead_api::v1::TaskStatus;
use tokio::sync::watch;

/// See the module.
#[derive(Debug)]
pub struct StatusBoard {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    by_sequence: BTreeMap<u64, TaskStatus>,
    sequence_of: BTreeMap<String, u64>,
}

impl StatusBoard {
    /// Numbers given out from now on are above `base`.
    #[must_use]
    pub fn new(base: u64) -> Self {
        let inner = Inner {
            last: base,
            ..Inner::default()
        };
        Self {
            inner: Mutex::new(inner),
            changed: watch::Sender::new(base),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change below is complete or not begun when it could panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a status that was stored, with its number.
    pub fn restore(&self, status: TaskStatus) {
        let mut inner = self.lock();
        inner.last = inner.last.max(status.sequence);
        inner.put(status);
    }

    /// Numbers the status and makes it the task's latest.
    pub fn publish(&self, status: &mut TaskStatus) {
        let last = {
            let mut inner = self.lock();
            inner.last += 1;
            status.sequence = inner.last;
            inner.put(status.clone());
            inner.last
        };
        self.changed.send_replace(last);
    }

    /// Forgets a task.
    pub fn remove(&self, task: &str) {
        let mut inner = self.lock();
        if let Some(sequence) = inner.sequence_of.remove(task) {
            inner.by_sequence.remove(&sequence);
        }
    }

    /// The first `limit` statuses after the number, in order.
    #[must_use]
    pub fn after(&self, sequence: u64, limit: usize) -> Vec<TaskStatus> {
        let Some(from) = sequence.checked_add(1) else {
            return Vec::new();
        };
        self.lock()
            .by_sequence
            .range(from..)
            .take(limit)
            .map(|(_, s)| s.clone())
            .collect()
    }

    /// Wakes when something changed.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The last number given out.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.lock().last
    }
}

impl Inner {
    fn put(&mut self, status: TaskStatus) {
        if let Some(old) = self
            .sequence_of
            .insert(status.task_id.clone(), status.sequence)
        {
            self.by_sequence.remove(&old);
        }
        self.by_sequence.insert(status.sequence, status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(task: &str, message: &str) -> TaskStatus {
        TaskStatus {
            task_id: task.into(),
            message: message.into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_reader_that_slept_gets_the_latest_of_each_task_once() {
        let board = StatusBoard::new(100);
        for message in ["accepted", "preparing", "prepared"] {
            board.publish(&mut status("a", message));
        }
        board.publish(&mut status("b", "accepted"));
        let seen = board.after(0, 10);
        assert_eq!(
            seen.iter().map(|s| s.message.as_str()).collect::<Vec<_>>(),
            ["prepared", "accepted"]
        );
        assert!(seen[0].sequence > 100 && seen[1].sequence > seen[0].sequence);
        assert!(board.after(seen[1].sequence, 10).is_empty());
        board.publish(&mut status("a", "starting"));
        let next = board.after(seen[1].sequence, 10);
        assert_eq!(next.len(), 1);
        assert_eq!(next[0].message, "starting");
        assert_eq!(board.after(0, 1)[0].task_id, "b");
    }

    #[test]
    fn a_removed_task_is_forgotten_and_numbers_go_on() {
        let board = StatusBoard::new(0);
        board.publish(&mut status("a", "x"));
        board.remove("a");
        assert!(board.after(0, 10).is_empty());
        board.publish(&mut status("a", "y"));
        assert_eq!(board.after(0, 10)[0].sequence, 2);
        assert!(board.after(u64::MAX, 10).is_empty());
    }
}
