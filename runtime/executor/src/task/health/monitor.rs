//! Who looks: one light task of the runtime for each task with a health check. It sleeps between the
//! probes; each probe is a process of its own.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use container::shim::{
    HEALTH_CHECK, HealthCheck, PROBE_CGROUP, ProbeOutcome, ProbeReport, ShimState,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::record::{Health, State};
use crate::node::Node;
use crate::record::now;
use crate::task::helper::{Helper, HelperError};
use crate::task::process::read_json;
use crate::task::start::cgroup;
use crate::task::{StepError, blocking, prepare};

/// To get into the container may take this long beside the probe's own time (Docker's limit), and then
/// its end.
const ENTRY: Duration = Duration::from_secs(40);

/// What was found so far, in the directory of the bundle.
const FOUND: &str = "health-state.json";

/// Looks after a task's health as long as it lives.
#[derive(Debug)]
pub struct Monitor {
    seen: watch::Receiver<Health>,
    work: JoinHandle<()>,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // With it goes the pipe that a probe hangs on.
        self.work.abort();
    }
}

impl Monitor {
    /// Begins, or goes on where the daemon before this one was, which may have left probes.
    pub async fn start(node: &Arc<Node>, task: &str, state: &ShimState) -> Result<Self, StepError> {
        let run = node.options.task_run_dir(task);
        let (of, id, dir) = (Arc::clone(node), task.to_owned(), run.clone());
        let (check, health) = blocking(move || {
            let path = dir.join(HEALTH_CHECK);
            let check: HealthCheck = read_json(&path)?
                .ok_or_else(|| StepError::fatal(format!("{} is gone", path.display())))?;
            // One that cannot be ended is in nobody's way: the next has another name.
            if let Err(error) = end_probes(&of, &id) {
                tracing::warn!(task = id, %error, "a probe of a daemon before this one stays");
            }
            // A task is not ended for what can be found again.
            let health = read_json::<Health>(&dir.join(FOUND)).unwrap_or_else(|error| {
                tracing::warn!(task = id, %error, "its health is looked at anew");
                None
            });
            Ok((check, health))
        })
        .await?;
        let health = health.unwrap_or_else(|| {
            let started = state.started_at_unix_nanos.unwrap_or_else(now);
            // How long ago is known by the wall clock only; from here on it does not matter any more.
            Health::of_task_started(uptime().saturating_sub(now().saturating_sub(started)))
        });
        node.show_health(task, health.to_proto());
        let (sender, seen) = watch::channel(health.clone());
        let looker = Looker {
            node: Arc::clone(node),
            task: task.to_owned(),
            run,
            check,
            health,
            seen: sender,
        };
        let work = tokio::spawn(looker.run());
        Ok(Self { seen, work })
    }

    /// Until the task is healthy, or, as the reason says, unhealthy.
    pub async fn decided(&mut self) -> Result<(), String> {
        self.until(|state| state != State::Starting).await
    }

    /// Until the task is unhealthy; why.
    pub async fn unhealthy(&mut self) -> String {
        match self.until(|state| state == State::Unhealthy).await {
            Ok(()) => std::future::pending().await,
            Err(reason) => reason,
        }
    }

    async fn until(&mut self, fits: impl Fn(State) -> bool) -> Result<(), String> {
        let seen = self.seen.wait_for(|health| fits(health.state)).await;
        let decided = seen.ok().map(|health| match health.state {
            State::Unhealthy => Err(health.reason()),
            State::Starting | State::Healthy => Ok(()),
        });
        match decided {
            Some(decided) => decided,
            // Nobody looks any more without having said so, which only a bug does.
            None => std::future::pending().await,
        }
    }
}

struct Looker {
    node: Arc<Node>,
    task: String,
    run: PathBuf,
    check: HealthCheck,
    health: Health,
    seen: watch::Sender<Health>,
}

impl Looker {
    async fn run(mut self) {
        // The first probe comes at once: a task that is well need not wait.
        let mut pause = Duration::ZERO;
        if self.health.last_end() != 0 {
            let passed = Duration::from_nanos(uptime().saturating_sub(self.health.last_end()));
            pause = self.health.pause(&self.check).saturating_sub(passed);
        }
        while self.health.state != State::Unhealthy {
            sleep(pause).await;
            let node = Arc::clone(&self.node);
            // After a restart of the daemon all are due at once. It is never closed.
            let turn = node.probes.acquire().await;
            let (start, began) = (now(), uptime());
            let report = self.probe().await.unwrap_or_else(|error| {
                // That says nothing of the task: it is the node that lacks something.
                tracing::warn!(task = self.task, %error, "its health is not known");
                ProbeReport {
                    outcome: ProbeOutcome::NoTask,
                    output: format!("the probe could not be run: {error}"),
                }
            });
            drop(turn);
            self.found(report, (start, now()), (began, uptime())).await;
            pause = self.health.pause(&self.check);
        }
    }

    async fn probe(&self) -> Result<ProbeReport, HelperError> {
        let (node, run) = (Arc::clone(&self.node), self.run.clone());
        let spawned =
            tokio::task::spawn_blocking(move || Helper::spawn(&node.shim, "probe", &run)).await;
        let helper = match spawned {
            Ok(helper) => helper?,
            Err(error) => {
                return Err(HelperError::Silent {
                    status: error.to_string(),
                    said: String::new(),
                });
            }
        };
        let timeout = Duration::from_nanos(self.check.timeout_nanos);
        match helper.report(timeout.saturating_add(ENTRY)).await {
            Err(HelperError::Late(limit)) => {
                tracing::warn!(task = self.task, ?limit, "its probe hangs: killed");
                let (node, task) = (Arc::clone(&self.node), self.task.clone());
                let ended = blocking(move || end_probes(&node, &task)).await;
                if let Err(error) = ended {
                    tracing::warn!(task = self.task, %error, "cannot end a probe");
                }
                Ok(ProbeReport {
                    outcome: ProbeOutcome::TimedOut,
                    output: String::new(),
                })
            }
            other => other,
        }
    }

    /// Keeps what a probe has found before anybody acts on it.
    async fn found(&mut self, report: ProbeReport, at: (u64, u64), up: (u64, u64)) {
        let before = self.health.state;
        tracing::debug!(task = self.task, outcome = ?report.outcome, "probed");
        self.health.note(&self.check, report, at, up);
        let (path, new) = (self.run.join(FOUND), self.run.join("health-state.json.new"));
        let health = self.health.clone();
        let kept = blocking(move || {
            // Whole or not at all.
            fs::write(&new, prepare::json(&health)?).map_err(prepare::file("write", &new))?;
            fs::rename(&new, &path).map_err(prepare::file("write", &path))
        });
        if let Err(error) = kept.await {
            tracing::warn!(task = self.task, %error, "a new daemon would not know its health");
        }
        self.node.show_health(&self.task, self.health.to_proto());
        if self.health.state != before {
            let state = self.health.state.number();
            self.node.events.task_health(&self.task, state);
        }
        self.seen.send_replace(self.health.clone());
    }
}

/// Nanoseconds since the machine started, which nobody can set.
fn uptime() -> u64 {
    let clock = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    let time = clock.map_or(Duration::ZERO, Duration::from);
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Ends all probes of a task: those of a daemon that was killed, whose helper may have been, too.
fn end_probes(node: &Node, task: &str) -> Result<(), StepError> {
    let Some(cgroup) = cgroup(&node.options.cgroup_parent, task)? else {
        return Ok(());
    };
    let parts = cgroup.parts(PROBE_CGROUP).map_err(|e| StepError::of(&e))?;
    for part in parts {
        part.kill().map_err(|e| StepError::of(&e))?;
        part.delete().map_err(|e| StepError::of(&e))?;
    }
    Ok(())
}
