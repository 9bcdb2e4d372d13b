//! Between the task's output and the disk: a thread that may block, so that nothing else does.
//!
//! A disk that is slow makes the task wait, as without us. A disk that is full, or that does not
//! answer at all, costs lines of the log, which are counted.

use crate::log::LogFile;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Entries that wait take at most about this much memory, in bytes.
const CAPACITY: u64 = 256 << 10;
/// A writer that has not moved for this long is taken for dead until it moves again.
const PATIENCE: Duration = Duration::from_secs(1);
/// The writer needs little of it; the default of 2 MiB would count against every task.
const STACK: usize = 64 << 10;

#[derive(Default)]
struct Shared {
    /// Bytes written or given up, ever.
    done: AtomicU64,
    dropped: AtomicU64,
}

/// The sending side.
pub struct LogQueue {
    sender: Option<Sender<Vec<u8>>>,
    writer: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    sent: u64,
    seen: (u64, Instant),
}

impl LogQueue {
    /// Starts the writer. Without a log (it could not be opened) every line is dropped.
    pub fn start(log: Option<LogFile>) -> Self {
        match log {
            Some(mut log) => Self::with_writer(Some(move |entry: &[u8]| log.write(entry))),
            None => Self::with_writer(None::<fn(&[u8]) -> std::io::Result<()>>),
        }
    }

    fn with_writer<W>(write: Option<W>) -> Self
    where
        W: FnMut(&[u8]) -> std::io::Result<()> + Send + 'static,
    {
        let shared = Arc::new(Shared::default());
        let (sender, receiver) = channel();
        let theirs = Arc::clone(&shared);
        let writer = write.and_then(|write| {
            let builder = std::thread::Builder::new().stack_size(STACK);
            builder
                .spawn(move || write_all(write, &receiver, &theirs))
                .ok()
        });
        let sender = writer.is_some().then_some(sender);
        Self {
            sender,
            writer,
            shared,
            sent: 0,
            seen: (0, Instant::now()),
        }
    }

    fn waiting(&self) -> u64 {
        self.sent - self.shared.done.load(Ordering::Acquire)
    }

    fn is_stuck(&mut self) -> bool {
        let done = self.shared.done.load(Ordering::Acquire);
        if done != self.seen.0 {
            self.seen = (done, Instant::now());
        }
        self.seen.1.elapsed() > PATIENCE
    }

    /// Whether more may be read from the task now. It is false only for a moment: then either the
    /// writer has moved on or it is given up.
    pub fn ready(&mut self) -> bool {
        let free = self.waiting() < CAPACITY;
        if free {
            // Nothing was expected of the writer until now.
            self.seen = (self.shared.done.load(Ordering::Acquire), Instant::now());
        }
        free || self.is_stuck()
    }

    /// Hands one entry to the writer, or drops it.
    pub fn push(&mut self, entry: Vec<u8>) {
        // One read of the task's output may go beyond the capacity, not more.
        let full = self.waiting() >= 2 * CAPACITY;
        let length = entry.len() as u64;
        let sent = !full && self.sender.as_ref().is_some_and(|s| s.send(entry).is_ok());
        if sent {
            self.sent += length;
        } else {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lets the writer finish, within a time; returns how many lines were dropped.
    pub fn finish(mut self, patience: Duration) -> u64 {
        self.sender = None;
        if let Some(writer) = self.writer.take() {
            let deadline = Instant::now() + patience;
            while !writer.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

fn write_all(
    mut write: impl FnMut(&[u8]) -> std::io::Result<()>,
    receiver: &Receiver<Vec<u8>>,
    shared: &Shared,
) {
    while let Ok(entry) = receiver.recv() {
        if write(&entry).is_err() {
            shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        shared.done.fetch_add(entry.len() as u64, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use container::shim::LogOptions;

    fn log(path: &str) -> std::io::Result<LogFile> {
        LogFile::open(LogOptions {
            path: path.into(),
            max_bytes: 0,
            max_files: 1,
        })
    }

    #[test]
    fn without_a_log_lines_are_counted() {
        let mut queue = LogQueue::start(None);
        for _ in 0..10 {
            assert!(queue.ready());
            queue.push(b"line".into());
        }
        assert_eq!(queue.finish(Duration::ZERO), 10);
    }

    #[test]
    fn a_log_is_written_to_its_end() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log");
        let mut queue = LogQueue::start(Some(log(path.to_str().expect("utf-8")).expect("open")));
        for _ in 0..1000 {
            queue.push(vec![b'x'; 100]);
        }
        assert_eq!(queue.finish(Duration::from_secs(30)), 0);
        assert_eq!(std::fs::metadata(path).expect("log").len(), 100_000);
    }

    #[test]
    fn a_writer_that_hangs_stops_nobody() {
        let (release, wait) = channel::<()>();
        let mut queue = LogQueue::with_writer(Some(move |_: &[u8]| {
            let _ = wait.recv();
            Ok(())
        }));
        let start = Instant::now();
        let mut pushed = 0;
        while start.elapsed() < 3 * PATIENCE {
            if queue.ready() {
                queue.push(vec![b'x'; 10_000]);
                pushed += 1;
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert!(queue.waiting() <= 2 * CAPACITY + 10_000, "bounded");
        assert!(pushed > 60, "reading went on after a while: {pushed}");
        drop(release);
        assert!(
            queue.finish(Duration::from_secs(30)) >= pushed - 60,
            "what is lost is counted"
        );
    }

    #[test]
    fn a_writer_that_fails_is_counted() {
        let mut queue =
            LogQueue::with_writer(Some(|_: &[u8]| Err(std::io::ErrorKind::StorageFull.into())));
        for _ in 0..5 {
            queue.push(b"line".into());
        }
        assert_eq!(queue.finish(Duration::from_secs(30)), 5);
    }
}
