//! A steady load, that counts what was answered and what was not.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::client::{Answer, Client, ask_tcp, ask_udp};
use crate::tools::wait_for;

/// Pause after each request of a worker.
const PAUSE: Duration = Duration::from_millis(3);

/// What became of the requests.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Answers, by replica.
    pub answers: BTreeMap<String, usize>,
    /// The failures.
    pub failures: Vec<String>,
}

impl Outcome {
    /// Answers of all replicas.
    #[must_use]
    pub fn total(&self) -> usize {
        self.answers.values().sum()
    }
}

/// Workers that ask until they are stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    outcome: Arc<Mutex<Outcome>>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Nobody asks yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stop: Arc::default(),
            asked: Arc::default(),
            outcome: Arc::default(),
            workers: Vec::new(),
        }
    }

    /// Adds a worker with a new TCP connection for each request.
    #[must_use]
    pub fn tcp(self, netns: &Path, to: &str) -> Self {
        let (netns, target) = (netns.to_owned(), to.to_owned());
        self.worker(format!("TCP to {to}"), move || ask_tcp(&netns, &target))
    }

    /// Adds a worker with a single TCP connection.
    ///
    /// # Panics
    /// When the connection cannot be made.
    #[must_use]
    pub fn tcp_kept(self, netns: &Path, to: &str) -> Self {
        let mut client = Client::tcp(netns, None, to).unwrap_or_else(|e| panic!("{to}: {e}"));
        self.worker(format!("kept TCP to {to}"), move || client.ask())
    }

    /// Adds a worker with a new UDP socket for each request. A lost packet is a failure.
    #[must_use]
    pub fn udp(self, netns: &Path, to: &str) -> Self {
        let (netns, target) = (netns.to_owned(), to.to_owned());
        self.worker(format!("UDP to {to}"), move || ask_udp(&netns, &target))
    }

    /// Adds a worker with a single UDP socket. A lost packet is a failure.
    ///
    /// # Panics
    /// When the socket cannot be made.
    #[must_use]
    pub fn udp_kept(self, netns: &Path, to: &str) -> Self {
        let mut client = Client::udp(netns, None, to).unwrap_or_else(|e| panic!("{to}: {e}"));
        self.worker(format!("kept UDP to {to}"), move || client.ask())
    }

    /// Adds a worker of another kind.
    #[must_use]
    pub fn worker(
        mut self,
        what: String,
        mut ask: impl FnMut() -> io::Result<Answer> + Send + 'static,
    ) -> Self {
        let (stop, asked, outcome) = (
            Arc::clone(&self.stop),
            Arc::clone(&self.asked),
            Arc::clone(&self.outcome),
        );
        self.workers.push(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let start = SystemTime::now();
                let result = ask();
                if let Ok(mut outcome) = outcome.lock() {
                    match result {
                        Ok(answer) => *outcome.answers.entry(answer.replica).or_default() += 1,
                        Err(error) => {
                            // As the daemons' logs write it, to find what happened then.
                            let asked = start.duration_since(UNIX_EPOCH).unwrap_or_default();
                            let day = asked.as_secs() % 86_400;
                            let (hour, minute, second) = (day / 3600, day / 60 % 60, day % 60);
                            let millis = asked.subsec_millis();
                            outcome.failures.push(format!(
                                "{what}, asked at {hour:02}:{minute:02}:{second:02}.{millis:03}: {error}"
                            ));
                        }
                    }
                }
                asked.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(PAUSE);
            }
        }));
        self
    }

    /// Waits until so many more requests have come to an end.
    ///
    /// # Panics
    /// When they do not.
    pub fn go_on(&self, requests: usize) {
        let start = self.asked.load(Ordering::Relaxed);
        wait_for("the load to go on", || {
            let asked = self.asked.load(Ordering::Relaxed) - start;
            if asked >= requests {
                Ok(())
            } else {
                Err(format!("{asked} requests"))
            }
        });
    }

    /// Stops, and tells what became of the requests.
    ///
    /// # Panics
    /// When a worker panicked.
    #[must_use]
    pub fn stop(mut self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.join().expect("the worker ends well");
        }
        self.outcome.lock().expect("no worker panicked").clone()
    }
}

impl Default for Load {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}
