//! The thread that owns the data plane. It is told that something changed, takes the newest state
//! there is, makes the kernel so, and answers everybody whose change that covers; and it compares
//! everything with the kernel from time to time.

use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use netdp::dns::Directory;
use netdp::{DataPlane, Engine, Feature, Protocol, Report, Settings};
use tokio::sync::{oneshot, watch};

use crate::plan::Plan;

/// One run of the data plane.
#[derive(Debug)]
pub struct Applied {
    /// What should be.
    pub plan: Arc<Plan>,
    /// What is not.
    pub report: Report,
}

/// Why the data plane did not answer.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// Its thread is gone: the daemon is about to end.
    #[error("the data plane has ended: see the daemon's log")]
    Ended,
    /// It said no.
    #[error(transparent)]
    Refused(#[from] netdp::NetdpError),
}

/// What the thread asks of the rest of the daemon.
pub trait Host: Send + 'static {
    /// What should be, now.
    fn plan(&self) -> Plan;
    /// What came of it.
    fn applied(&self, plan: &Plan, report: &Report);
}

enum Command {
    Apply(oneshot::Sender<Arc<Applied>>),
    Reserve(
        String,
        Protocol,
        u16,
        oneshot::Sender<Result<u16, netdp::NetdpError>>,
    ),
    Release(String),
    Reopen(
        Option<Engine>,
        oneshot::Sender<Result<(), netdp::NetdpError>>,
    ),
}

/// A handle to the thread.
#[derive(Debug, Clone)]
pub struct Plane {
    sender: mpsc::Sender<Command>,
    facts: Arc<Mutex<Facts>>,
    directory: watch::Receiver<Arc<Directory>>,
    run_dir: Arc<PathBuf>,
}

/// What is known of the data plane without asking it.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What balances published ports.
    pub engine: Engine,
    /// Sorted by name.
    pub features: Vec<Feature>,
    /// The last run.
    pub last: Option<Arc<Applied>>,
}

impl Facts {
    /// What balances where nobody chooses.
    #[must_use]
    pub fn best_engine(&self) -> Engine {
        netdp::best_engine(&self.features)
    }
}

struct Thread {
    plane: DataPlane,
    settings: Settings,
    interval: Duration,
    receiver: mpsc::Receiver<Command>,
    facts: Arc<Mutex<Facts>>,
    directory: watch::Sender<Arc<Directory>>,
}

impl Plane {
    /// Opens the data plane on a thread of its own. Nothing is changed in the kernel before the
    /// first [`Plane::apply`]. The receiver ends when the thread does.
    ///
    /// # Errors
    /// When the data plane cannot be opened.
    pub fn start(
        settings: Settings,
        interval: Duration,
        host: impl Host,
    ) -> Result<(Self, oneshot::Receiver<()>), PlaneError> {
        let (sender, receiver) = mpsc::channel();
        let (alive, ended) = oneshot::channel();
        let (opened, wait) = mpsc::channel();
        let empty = Arc::new(Directory::new(&netdp::Desired::default()));
        let (directory, directory_reader) = watch::channel(empty);
        let run_dir = Arc::new(settings.run_dir.clone());
        let body = move || {
            // Dropped however this thread ends, which tells the daemon.
            let _alive: oneshot::Sender<()> = alive;
            let plane = match DataPlane::open(settings.clone()) {
                Ok(plane) => plane,
                Err(error) => {
                    let _ = opened.send(Err(error));
                    return;
                }
            };
            let facts = Facts {
                engine: plane.engine(),
                features: plane.features(),
                last: None,
            };
            let facts = Arc::new(Mutex::new(facts));
            if opened.send(Ok(Arc::clone(&facts))).is_ok() {
                Thread {
                    plane,
                    settings,
                    interval,
                    receiver,
                    facts,
                    directory,
                }
                .run(&host);
            }
        };
        thread::Builder::new()
            .name("data-plane".into())
            .spawn(body)
            .map_err(|_| PlaneError::Ended)?;
        let facts = wait.recv().map_err(|_| PlaneError::Ended)??;
        Ok((
            Self {
                sender,
                facts,
                directory: directory_reader,
                run_dir,
            },
            ended,
        ))
    }

    /// Brings the kernel to the newest plan; the run that covers everything that was changed
    /// before this call.
    ///
    /// # Errors
    /// [`PlaneError::Ended`].
    pub async fn apply(&self) -> Result<Arc<Applied>, PlaneError> {
        let (reply, wait) = oneshot::channel();
        self.send(Command::Apply(reply))?;
        wait.await.map_err(|_| PlaneError::Ended)
    }

    /// Asks for a run without waiting for it.
    pub fn apply_later(&self) {
        let (reply, _) = oneshot::channel();
        // If the thread has ended, the daemon is told by other means.
        let _ = self.send(Command::Apply(reply));
    }

    /// Reserves a port of the node.
    ///
    /// # Errors
    /// When somebody has it.
    pub async fn reserve_port(
        &self,
        holder: &str,
        protocol: Protocol,
        published: u16,
    ) -> Result<u16, PlaneError> {
        let (reply, wait) = oneshot::channel();
        self.send(Command::Reserve(
            holder.to_owned(),
            protocol,
            published,
            reply,
        ))?;
        Ok(wait.await.map_err(|_| PlaneError::Ended)??)
    }

    /// Gives all ports of the holder back.
    pub fn release_ports(&self, holder: &str) {
        // If the thread has ended, so have its sockets.
        let _ = self.send(Command::Release(holder.to_owned()));
    }

    /// Opens the data plane again with another engine. Only without tasks: their reserved ports
    /// would be free for a moment.
    ///
    /// # Errors
    /// When the kernel does not have the engine; the former one stays.
    pub async fn reopen(&self, engine: Option<Engine>) -> Result<(), PlaneError> {
        let (reply, wait) = oneshot::channel();
        self.send(Command::Reopen(engine, reply))?;
        Ok(wait.await.map_err(|_| PlaneError::Ended)??)
    }

    /// What is known of it.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The names of the cluster, always the newest.
    #[must_use]
    pub fn directory(&self) -> watch::Receiver<Arc<Directory>> {
        self.directory.clone()
    }

    /// Where the network namespace of a task is mounted (the data plane's own layout).
    #[must_use]
    pub fn sandbox_path(&self, task: &str) -> PathBuf {
        self.run_dir.join("netns").join(format!("task-{task}"))
    }

    fn send(&self, command: Command) -> Result<(), PlaneError> {
        self.sender.send(command).map_err(|_| PlaneError::Ended)
    }
}

impl Thread {
    fn run(mut self, host: &impl Host) {
        let mut due = Instant::now() + self.interval;
        let mut current: Option<Arc<Plan>> = None;
        loop {
            let first = match self
                .receiver
                .recv_timeout(due.saturating_duration_since(Instant::now()))
            {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut waiting = Vec::new();
            let rest: Vec<Command> = self.receiver.try_iter().collect();
            for command in first.into_iter().chain(rest) {
                match command {
                    Command::Apply(reply) => waiting.push(reply),
                    other => {
                        if self.carry_out(other) {
                            // A new data plane knows nothing yet.
                            current = None;
                        }
                    }
                }
            }
            if !waiting.is_empty() {
                // Taken after the commands, so it covers what each of them is about.
                let plan = Arc::new(host.plan());
                let report = self.plane.apply(Arc::clone(&plan.desired));
                // After that, so that a name leads to what is there.
                self.directory
                    .send_replace(Arc::new(Directory::new(&plan.desired)));
                self.finish(host, &plan, report, waiting);
                current = Some(plan);
            }
            if due <= Instant::now() {
                // Before the first plan nothing is known, and nothing may be repaired to nothing.
                if let Some(plan) = &current {
                    let report = self.plane.reconcile();
                    self.finish(host, plan, report, Vec::new());
                }
                due = Instant::now() + self.interval;
            }
        }
    }

    /// Whether there is a new data plane.
    fn carry_out(&mut self, command: Command) -> bool {
        match command {
            Command::Reserve(holder, protocol, published, reply) => {
                let result = self.plane.reserve_port(&holder, protocol, published);
                if reply.send(result).is_err() {
                    self.plane.release_ports(&holder);
                }
            }
            Command::Release(holder) => self.plane.release_ports(&holder),
            Command::Reopen(engine, reply) => {
                let settings = Settings {
                    engine,
                    ..self.settings.clone()
                };
                let opened = DataPlane::open(settings.clone()).map(|plane| {
                    self.plane = plane;
                    self.settings = settings;
                    let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
                    facts.engine = self.plane.engine();
                    facts.features = self.plane.features();
                });
                let is_new = opened.is_ok();
                let _ = reply.send(opened);
                return is_new;
            }
            // Collected by the caller.
            Command::Apply(_) => {}
        }
        false
    }

    fn finish(
        &mut self,
        host: &impl Host,
        plan: &Arc<Plan>,
        report: Report,
        waiting: Vec<oneshot::Sender<Arc<Applied>>>,
    ) {
        host.applied(plan, &report);
        let applied = Arc::new(Applied {
            plan: Arc::clone(plan),
            report,
        });
        self.facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .last = Some(Arc::clone(&applied));
        for reply in waiting {
            // Who asked may have ended meanwhile.
            let _ = reply.send(Arc::clone(&applied));
        }
    }
}
