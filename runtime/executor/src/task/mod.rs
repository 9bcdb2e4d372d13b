//! One follower for each task: it takes one step at a time, from what is to what is wanted, and
//! writes down each intent before it acts.

mod bundle;
mod cleanup;
mod files;
mod health;
mod helper;
mod image;
mod prepare;
mod process;
mod recover;
mod start;
mod state;
mod stop;
mod volumes;

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use fairlead_api::v1::{self, TaskState};
use tokio::sync::watch;

use crate::node::Node;
use crate::plane::PlaneError;
use crate::record::{Local, now};
use crate::store::StoreError;

pub use bundle::capabilities;
pub use files::ResolvConf;
pub use image::{credentials, registries};
pub use recover::recover;
pub use state::{Step, Want, after_error, next};

use health::Monitor;
use process::Running;

/// Why a step did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    /// For people, with the object and the reason.
    message: String,
    /// Trying again may help.
    transient: bool,
    /// Of a process that ran, or that could not be executed (127, 126).
    exit_code: Option<i32>,
}

impl StepError {
    fn fatal(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            transient: false,
            exit_code: None,
        }
    }

    fn transient(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            transient: true,
            exit_code: None,
        }
    }

    /// By what is at the root of it: the kernel was busy or short of something.
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let message = crate::events::chain(error);
        Self {
            message,
            transient: is_transient(error),
            exit_code: None,
        }
    }
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        // A full disk is made room on.
        Self::transient(error.to_string())
    }
}

impl From<PlaneError> for StepError {
    fn from(error: PlaneError) -> Self {
        match error {
            // The daemon is about to end; the next one goes on.
            PlaneError::Ended => Self::transient(error.to_string()),
            PlaneError::Refused(error) => Self {
                transient: error.is_transient(),
                ..Self::fatal(crate::events::chain(&error))
            },
        }
    }
}

fn is_transient(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error);
        let errno = io.or(error
            .downcast_ref::<nix::errno::Errno>()
            .map(|errno| *errno as i32));
        if let Some(errno) = errno {
            return [
                libc::EBUSY,
                libc::EAGAIN,
                libc::ENOBUFS,
                libc::ETIMEDOUT,
                libc::EINTR,
                libc::ENOMEM,
                libc::EMFILE,
                libc::ENFILE,
                libc::ENOSPC,
                libc::EDQUOT,
            ]
            .contains(&errno);
        }
        cause = error.source();
    }
    false
}

/// Blocking work beside the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StepError::fatal(format!("internal error: {error}"))),
    }
}

/// Makes sure that somebody follows the task and knows what is wanted.
pub fn follow(node: &Arc<Node>, task: &str, want: Want) {
    if let Some(receiver) = node.want(task, want) {
        let follower = Follower {
            node: Arc::clone(node),
            id: task.to_owned(),
            want: receiver,
            running: None,
            health: None,
            intended: false,
            retries: 0,
        };
        tokio::spawn(follower.run());
    }
}

struct Follower {
    node: Arc<Node>,
    id: String,
    want: watch::Receiver<Want>,
    /// Handles on its process, once they are needed.
    running: Option<Running>,
    /// Looks after its health, if it has a check and runs.
    health: Option<Monitor>,
    /// It is known to be on disk that a process may exist.
    intended: bool,
    /// Failed tries of the current step.
    retries: u32,
}

impl Follower {
    async fn run(mut self) {
        // Each round looks at what is stored, so that it does not matter how it came about.
        while let Some(local) = self.node.local(&self.id) {
            let want = *self.want.borrow_and_update();
            let step = next(local.state(), want, local.has_traces());
            tracing::debug!(task = self.id, state = ?local.state(), ?want, ?step, "next step");
            let result = match step {
                Step::Enter(state, message) => self.enter(state, message).await,
                Step::Prepare => self.prepare(&local).await,
                Step::Start => self.start(&local).await,
                Step::Wait => self.wait(&local).await,
                Step::Stop => self.stop(&local).await,
                Step::CleanUp => self.clean_up(&local).await,
                Step::Park => {
                    if self.want.changed().await.is_err() {
                        return;
                    }
                    Ok(())
                }
                Step::Remove => match self.remove().await {
                    Ok(true) => continue,
                    Ok(false) => return,
                    Err(error) => Err(error),
                },
            };
            match result {
                Ok(()) => self.retries = 0,
                Err(error) => self.failed(step, error).await,
            }
        }
    }

    /// Reaches a state.
    async fn enter(&mut self, state: TaskState, message: &str) -> Result<(), StepError> {
        let written = self.node.update(&self.id, |local| {
            // The intent of the step that follows: from here on a process may exist.
            local.record.process |= state == TaskState::Starting;
            set_status(local, state, message);
        });
        if state == TaskState::Starting {
            written.await?;
            self.intended = true;
        }
        Ok(())
    }

    /// Before a process is begun: that it may exist is on disk, also when the write with the state failed.
    async fn intend(&mut self) -> Result<(), StepError> {
        if !self.intended {
            let intent = |local: &mut Local| local.record.process = true;
            self.node.update(&self.id, intent).await?;
            self.intended = true;
        }
        Ok(())
    }

    /// Tries again where that may help and where there is no other end; else the task has ended.
    async fn failed(&mut self, step: Step, error: StepError) {
        let ending = matches!(step, Step::Stop | Step::CleanUp | Step::Remove);
        if !error.transient && !ending {
            tracing::info!(
                task = self.id,
                error = error.message,
                "the task has ended with an error"
            );
            self.node.note(&self.id, |local| fail(local, &error));
            self.node.plane().ok().inspect(|plane| plane.apply_later());
            self.retries = 0;
            return;
        }
        let delay = backoff(self.retries);
        self.retries = self.retries.saturating_add(1);
        tracing::warn!(
            task = self.id,
            ?step,
            error = error.message,
            ?delay,
            "tried again later"
        );
        let text = format!(
            "{} (try {}, the next in {delay:.1?})",
            error.message, self.retries
        );
        self.node.note(&self.id, |local| {
            // How a task has ended is not replaced by what hinders its removal.
            let ended = local.state() >= TaskState::Complete;
            if let Some(status) = local.record.status.as_mut().filter(|_| !ended) {
                status.error = text;
            }
        });
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            // Another wish is another step.
            _ = self.want.changed(), if !ending => self.retries = 0,
        }
    }

    /// True when the task was assigned again meanwhile and begins anew.
    async fn remove(&mut self) -> Result<bool, StepError> {
        let dirs = [
            self.node.options.task_state_dir(&self.id),
            self.node.options.task_run_dir(&self.id),
        ];
        blocking(move || dirs.iter().try_for_each(|dir| cleanup::remove_dir(dir))).await?;
        match self.node.forget(&self.id) {
            Some(local) => {
                self.intended = false;
                self.node.want(&self.id, local.want());
                Ok(true)
            }
            None => {
                self.node.unfollow(&self.id);
                // Assigned again between the two lines above: somebody has to follow it.
                if let Some(local) = self.node.local(&self.id) {
                    follow(&self.node, &self.id, local.want());
                }
                Ok(false)
            }
        }
    }
}

/// Puts a status: the time is that of the state, an earlier error is over.
fn set_status(local: &mut Local, state: TaskState, message: &str) {
    let mut status = local.status();
    status.state = state as i32;
    status.timestamp = now();
    status.message = message.to_owned();
    status.error.clear();
    local.record.status = Some(status);
}

fn fail(local: &mut Local, error: &StepError) {
    let state = after_error(local.state());
    let message = if state == TaskState::Rejected {
        "preparing"
    } else {
        "started"
    };
    let message = if local.state() == TaskState::Starting {
        "starting"
    } else {
        message
    };
    set_status(local, state, message);
    if let Some(status) = &mut local.record.status {
        status.error.clone_from(&error.message);
        if let Some(code) = error.exit_code {
            let container = status.container.get_or_insert_default();
            container.container_id.clone_from(&status.task_id);
            container.exit_code = code;
        }
        if let Some(container) = &mut status.container {
            container.pid = 0;
        }
    }
}

/// 0.2 s, doubled each time up to 10 s, and up to a half more by chance, so that many that failed
/// together do not come back together.
fn backoff(retries: u32) -> Duration {
    let base = 200_u64.saturating_mul(1 << retries.min(6)).min(10_000);
    let chance = std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish();
    Duration::from_millis(base + chance % (base / 2))
}

/// Ports and ids that a status shows from STARTING on.
fn container_status(local: &Local, pid: u32) -> v1::ContainerStatus {
    v1::ContainerStatus {
        container_id: local.def.proto.id.clone(),
        pid,
        exit_code: 0,
        oom_killed: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_and_is_bounded() {
        for (retries, least) in [(0, 200), (1, 400), (5, 6400), (6, 10_000), (60, 10_000)] {
            let pause = backoff(retries).as_millis();
            assert!(
                pause >= least && pause < least + least / 2 + 1,
                "{retries}: {pause}"
            );
        }
    }

    #[test]
    fn busy_is_transient_and_missing_is_not() {
        let busy = std::io::Error::from_raw_os_error(libc::EBUSY);
        assert!(StepError::of(&busy).transient);
        assert!(StepError::of(&nix::errno::Errno::ENOBUFS).transient);
        assert!(!StepError::of(&std::io::Error::from_raw_os_error(libc::ENOENT)).transient);
    }
}
