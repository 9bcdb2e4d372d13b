//! Ends a task: out of the balancing first, then the stop signal, then its patience, then SIGKILL.

use std::sync::Arc;
use std::time::Duration;

use container::process::{self, ProcessError};
use container::shim::ShimState;
use fairlead_api::v1::TaskState;
use tokio::time::timeout;

use super::process::{Found, adopt};
use super::start::note_exit;
use super::{Follower, StepError, blocking, cleanup, set_status};
use crate::record::Local;

/// Docker's default.
const GRACE: Duration = Duration::from_secs(10);

/// How long the shim may take to write down the end of a task that was killed.
const LAST_WORDS: Duration = Duration::from_secs(10);

impl Follower {
    pub(super) async fn stop(&mut self, local: &Arc<Local>) -> Result<(), StepError> {
        // Whether it is well while it ends interests nobody.
        self.health = None;
        if !local.record.process {
            self.node.note(&self.id, |local| {
                local.record.stopping = true;
                set_status(local, TaskState::Shutdown, "shutdown");
            });
            return Ok(());
        }
        // Also when it was tried before: what then is in memory may be neither on disk nor in the kernel.
        self.node
            .update(&self.id, |local| local.record.stopping = true)
            .await?;
        // No new connections from here on; what is established lives through the grace period.
        self.node.plane()?.apply().await?;
        let exit = match self.find().await? {
            Found::Ended(exit) => Some(exit),
            Found::Alive(state, pidfd) => {
                if self.running.is_none() {
                    self.running = Some(adopt(&self.node, local, pidfd).await?);
                }
                self.end_process(local, &state).await?
            }
            Found::Beginning => return Err(StepError::transient("the shim is only beginning")),
            Found::Nothing => {
                self.kill().await?;
                None
            }
        };
        self.node.note(&self.id, |local| {
            set_status(local, TaskState::Shutdown, "shutdown");
            match &exit {
                Some(exit) => note_exit(local, exit),
                None => {
                    if let Some(container) = local
                        .record
                        .status
                        .as_mut()
                        .and_then(|status| status.container.as_mut())
                    {
                        container.pid = 0;
                    }
                }
            }
        });
        if exit.is_some_and(|exit| exit.oom_killed) {
            self.node.events.task_oom(&self.id);
        }
        Ok(())
    }

    pub(super) async fn end_process(
        &mut self,
        local: &Local,
        state: &ShimState,
    ) -> Result<Option<container::shim::ExitStatus>, StepError> {
        let signalled = send_signal(state, local.record.stop_signal)?;
        let grace = local
            .def
            .container()
            .stop_grace_period
            .map_or(GRACE, Duration::from_nanos);
        let Some(running) = &mut self.running else {
            return Ok(None);
        };
        if !signalled || timeout(grace, running.ended()).await.is_err() {
            self.kill().await?;
            if let Some(running) = &mut self.running
                && timeout(LAST_WORDS, running.ended()).await.is_err()
            {
                tracing::warn!(task = self.id, "the shim does not end: killed");
                process::open_verified(state.shim_pid, state.shim_start_time)
                    .and_then(|pidfd| process::signal(&pidfd, libc::SIGKILL))
                    .ok();
            }
        }
        match self.find().await? {
            Found::Ended(exit) => Ok(Some(exit)),
            _ => Ok(None),
        }
    }

    pub(super) async fn kill(&self) -> Result<(), StepError> {
        let (node, id) = (Arc::clone(&self.node), self.id.clone());
        blocking(move || cleanup::kill_cgroup(&node, &id)).await
    }
}

/// False when there is nobody to receive it.
fn send_signal(state: &ShimState, signal: i32) -> Result<bool, StepError> {
    let (Some(pid), Some(start)) = (state.init_pid, state.init_start_time) else {
        return Ok(false);
    };
    let signal = if signal == 0 { libc::SIGTERM } else { signal };
    match process::open_verified(pid, start).and_then(|pidfd| process::signal(&pidfd, signal)) {
        Ok(_) => Ok(true),
        // It is ending by itself: the shim will say how.
        Err(ProcessError::Gone { .. } | ProcessError::Reused { .. }) => Ok(true),
        Err(error) => Err(StepError::of(&error)),
    }
}
