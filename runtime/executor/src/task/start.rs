//! From READY to RUNNING, and from RUNNING to the end that the task finds by itself.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use container::Cgroup;
use container::process::ProcessError;
use container::shim::{ExitStatus, ShimOptions, ShimState, StartReport};
use fairlead_api::v1::TaskState;
use netdp::dns::{Server, Sockets};
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep, timeout};

use super::health::Monitor;
use super::process::{self, Found, Running, adopt, find};
use super::{Follower, StepError, blocking, cleanup, container_status, fail, set_status};
use crate::record::Local;

/// A shim that says nothing for so long never will.
const START_LIMIT: Duration = Duration::from_secs(120);

impl Follower {
    pub(super) async fn start(&mut self, local: &Arc<Local>) -> Result<(), StepError> {
        // A daemon before this one may have come this far.
        match self.find().await? {
            Found::Ended(exit) => return self.finish(local, &exit),
            Found::Beginning | Found::Alive(..) => return self.resume(local).await,
            // The program has run already: it is not run twice.
            Found::Nothing if local.record.health_check && local.record.shim_pid != 0 => {
                return Err(lost());
            }
            Found::Nothing => {}
        }
        self.intend().await?;
        let node = Arc::clone(&self.node);
        let id = self.id.clone();
        blocking(move || cleanup::kill_processes(&node, &id)).await?;

        let node = Arc::clone(&self.node);
        let netns = node.plane()?.sandbox_path(&self.id);
        let id = self.id.clone();
        let (stdout, ours) = blocking(move || {
            let run = node.options.task_run_dir(&id);
            let sockets = netdp::dns::bind(&netns, netdp::dns::PORT).map_err(|e| StepError {
                transient: e.is_transient(),
                ..StepError::of(&e)
            })?;
            let ours = duplicate(&sockets)?;
            let held: Vec<OwnedFd> = vec![sockets.udp, sockets.tcp, process::lock(&run)?.into()];
            let path = run.join("shim.json");
            let mut options: ShimOptions = process::read_json(&path)?
                .ok_or_else(|| StepError::fatal(format!("{} is gone", path.display())))?;
            options.hold_fds = held.iter().map(AsRawFd::as_raw_fd).collect();
            // Whole or not at all: a daemon that is killed here begins again with the old one.
            let new = run.join("shim.json.new");
            fs::write(&new, super::prepare::json(&options)?)
                .map_err(super::prepare::file("write", &new))?;
            fs::rename(&new, &path).map_err(super::prepare::file("write", &path))?;
            let errors = node.options.task_state_dir(&id).join("shim.log");
            let errors = File::create(&errors).map_err(super::prepare::file("create", &errors))?;
            Ok((process::spawn(&node.shim, &run, errors, held)?, ours))
        })
        .await?;
        let dns = process::serve_dns(&self.node, local, ours)?;
        self.started(local, stdout.into(), dns).await
    }

    /// Reads the shim's one line.
    async fn started(
        &mut self,
        local: &Arc<Local>,
        stdout: OwnedFd,
        dns: Server,
    ) -> Result<(), StepError> {
        let line = match timeout(START_LIMIT, read_line(stdout)).await {
            Ok(line) => line.map_err(|e| StepError::of(&e))?,
            Err(_) => {
                return Err(StepError::fatal(format!(
                    "the shim said nothing in {START_LIMIT:?}"
                )));
            }
        };
        match serde_json::from_slice(&line) {
            Ok(StartReport::Started(report)) => {
                for warning in &report.warnings {
                    tracing::warn!(
                        task = self.id,
                        warning,
                        "not all that was asked for could be had"
                    );
                }
                let (pid, start) = (report.state.shim_pid, report.state.shim_start_time);
                match container::process::open_verified(pid, start) {
                    Ok(pidfd) => {
                        let running =
                            Running::new(pidfd, Some(dns)).map_err(|e| StepError::of(&e))?;
                        self.running = Some(running);
                    }
                    // Both have ended already: the next step reads how.
                    Err(ProcessError::Gone { .. } | ProcessError::Reused { .. }) => {}
                    Err(error) => return Err(StepError::of(&error)),
                }
                self.up(local, &report.state).await
            }
            Ok(StartReport::Failed(failure)) => Err(StepError {
                exit_code: Some(failure.exit_code),
                ..StepError::fatal(failure.message)
            }),
            Err(_) => {
                let path = self.node.options.task_state_dir(&self.id).join("shim.log");
                let said = fs::read_to_string(&path).unwrap_or_default();
                Err(StepError::fatal(format!(
                    "the shim ended before the task ran: {}",
                    said.trim()
                )))
            }
        }
    }

    /// The program runs. Without a health check that is all; with one, somebody has to find it well.
    async fn up(&mut self, local: &Arc<Local>, state: &ShimState) -> Result<(), StepError> {
        let pid = state
            .init_pid
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or(0);
        let waits = local.record.health_check;
        self.node.note(&self.id, |local| {
            local.record.shim_pid = u32::try_from(state.shim_pid).unwrap_or(0);
            local.record.shim_start = state.shim_start_time;
            let container = container_status(local, pid);
            let ports = local.record.host_ports.clone();
            if let Some(status) = &mut local.record.status {
                status.container = Some(container);
                status.ports = ports;
            }
            if !waits {
                set_status(local, TaskState::Running, "started");
            }
        });
        if waits {
            return self.until_healthy(local, state).await;
        }
        self.is_backend();
        Ok(())
    }

    /// From now on connections may be sent to it.
    pub(super) fn is_backend(&self) {
        if let Ok(plane) = self.node.plane() {
            plane.apply_later();
        }
    }

    /// Goes on where the daemon was cut off: the shim lives, and the program runs or soon will.
    async fn resume(&mut self, local: &Arc<Local>) -> Result<(), StepError> {
        let limit = Instant::now() + START_LIMIT;
        loop {
            match self.find().await? {
                Found::Alive(state, pidfd) if state.started_at_unix_nanos.is_some() => {
                    if self.running.is_none() {
                        self.running = Some(adopt(&self.node, local, pidfd).await?);
                    }
                    return self.up(local, &state).await;
                }
                Found::Ended(exit) => return self.finish(local, &exit),
                // Killed on its way: undone and begun again.
                Found::Nothing => return Err(StepError::transient("the shim was killed")),
                _ if Instant::now() > limit => {
                    return Err(StepError::fatal("the task did not begin to run"));
                }
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    pub(super) async fn wait(&mut self, local: &Arc<Local>) -> Result<(), StepError> {
        let running = match &mut self.running {
            Some(running) => running,
            empty => match find_blocking(&self.node, &self.id).await? {
                Found::Alive(state, pidfd) => {
                    if local.record.health_check {
                        self.health = Some(Monitor::start(&self.node, &self.id, &state).await?);
                    }
                    empty.insert(adopt(&self.node, local, pidfd).await?)
                }
                Found::Ended(exit) => return self.finish(local, &exit),
                Found::Nothing | Found::Beginning => return Err(lost()),
            },
        };
        let health = self.health.as_mut();
        let unhealthy = async {
            match health {
                Some(monitor) => monitor.unhealthy().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = running.ended() => ended?,
            // Another wish is another step.
            _ = self.want.changed() => return Ok(()),
            reason = unhealthy => return self.end_unhealthy(local, reason).await,
        }
        match self.find().await? {
            Found::Ended(exit) => self.finish(local, &exit),
            _ => Err(lost()),
        }
    }

    /// The program has ended, or never ran.
    pub(super) fn finish(&mut self, local: &Local, exit: &ExitStatus) -> Result<(), StepError> {
        if exit.oom_killed {
            self.node.events.task_oom(&self.id);
        }
        self.health = None;
        // One that had to be found well first, and was not, has never run.
        let failed = || {
            let now = self.node.local(&self.id);
            exit.exit_code != 0 || now.is_some_and(|local| !local.record.unhealthy.is_empty())
        };
        let waited = local.record.health_check && failed();
        if exit.failed.is_none() && !waited && local.state() < TaskState::Running {
            // The states are passed one by one, also when nobody was there to see it.
            self.node.note(&self.id, |local| {
                set_status(local, TaskState::Running, "started")
            });
        }
        self.node.note(&self.id, |local| end(local, exit));
        self.node.plane()?.apply_later();
        Ok(())
    }

    pub(super) async fn find(&self) -> Result<Found, StepError> {
        find_blocking(&self.node, &self.id).await
    }
}

async fn find_blocking(node: &Arc<crate::node::Node>, id: &str) -> Result<Found, StepError> {
    let (node, id) = (Arc::clone(node), id.to_owned());
    blocking(move || find(&node, &id)).await
}

pub(super) fn lost() -> StepError {
    StepError::fatal(
        "the task's shim ended without an exit status: it was killed, or the machine was restarted",
    )
}

/// Puts the end of the program into the status.
pub(super) fn end(local: &mut Local, exit: &ExitStatus) {
    let unhealthy = local.record.unhealthy.clone();
    match (&exit.failed, exit.exit_code) {
        // That it then ended as it was asked to is no success.
        (None, code) if !unhealthy.is_empty() => {
            let error = StepError {
                exit_code: Some(code),
                ..StepError::fatal(unhealthy)
            };
            fail(local, &error);
        }
        (Some(failure), _) => {
            let error = StepError {
                exit_code: Some(failure.exit_code),
                ..StepError::fatal(failure.message.clone())
            };
            fail(local, &error);
        }
        (None, 0) => set_status(local, TaskState::Complete, "finished"),
        (None, code) => {
            let cause = if exit.oom_killed {
                ": killed for lack of memory"
            } else {
                ""
            };
            let message = format!("task: non-zero exit ({code}){cause}");
            fail(
                local,
                &StepError {
                    exit_code: Some(code),
                    ..StepError::fatal(message)
                },
            );
        }
    }
    note_exit(local, exit);
}

/// Exit code and time, whatever the state is called.
pub(super) fn note_exit(local: &mut Local, exit: &ExitStatus) {
    let id = local.def.proto.id.clone();
    if let Some(status) = &mut local.record.status {
        status.timestamp = exit.finished_at_unix_nanos;
        let container = status.container.get_or_insert_default();
        container.container_id = id;
        container.pid = 0;
        container.exit_code = exit.failed.as_ref().map_or(exit.exit_code, |f| f.exit_code);
        container.oom_killed = exit.oom_killed;
    }
}

fn duplicate(sockets: &Sockets) -> Result<Sockets, StepError> {
    let clone = |fd: &OwnedFd| fd.try_clone().map_err(|e| StepError::of(&e));
    Ok(Sockets {
        udp: clone(&sockets.udp)?,
        tcp: clone(&sockets.tcp)?,
    })
}

/// A line, or what there is before the end.
async fn read_line(stdout: OwnedFd) -> std::io::Result<Vec<u8>> {
    /// A report with warnings is far below this.
    const MAX: usize = 1 << 20;
    let receiver = pipe::Receiver::from_owned_fd(stdout)?;
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    while line.len() < MAX {
        receiver.readable().await?;
        match receiver.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                let part = buffer.get(..length).unwrap_or_default();
                if let Some(end) = part.iter().position(|byte| *byte == b'\n') {
                    line.extend_from_slice(&part[..end]);
                    break;
                }
                line.extend_from_slice(part);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(line)
}

/// The task's cgroup; `None` where there is none.
pub(super) fn cgroup(parent: &str, task: &str) -> Result<Option<Cgroup>, StepError> {
    match Cgroup::open(parent, task) {
        Ok(cgroup) => Ok(Some(cgroup)),
        Err(container::CgroupError::NotFound(_)) => Ok(None),
        Err(error) => Err(StepError::of(&error)),
    }
}
