//! What the health decides: when a task is RUNNING, and that it has FAILED.

use std::sync::Arc;

use container::shim::ShimState;
use fairlead_api::v1::TaskState;

use super::Monitor;
use crate::record::Local;
use crate::task::process::Found;
use crate::task::start::lost;
use crate::task::{Follower, StepError, set_status};

impl Follower {
    /// Waits until a probe has succeeded: then the task runs.
    pub(in crate::task) async fn until_healthy(
        &mut self,
        local: &Arc<Local>,
        state: &ShimState,
    ) -> Result<(), StepError> {
        // Where it has ended already, the next step reads how.
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        let monitor = match &mut self.health {
            Some(monitor) => monitor,
            empty => empty.insert(Monitor::start(&self.node, &self.id, state).await?),
        };
        let decided = tokio::select! {
            ended = running.ended() => {
                ended?;
                return match self.find().await? {
                    Found::Ended(exit) => self.finish(local, &exit),
                    _ => Err(lost()),
                };
            }
            // Another wish is another step.
            _ = self.want.changed() => return Ok(()),
            decided = monitor.decided() => decided,
        };
        match decided {
            Ok(()) => {
                self.node.note(&self.id, |local| {
                    set_status(local, TaskState::Running, "started")
                });
                self.is_backend();
                Ok(())
            }
            Err(reason) => self.end_unhealthy(local, reason).await,
        }
    }

    /// Stops the task as if it were wanted; what it has come to is another matter.
    pub(in crate::task) async fn end_unhealthy(
        &mut self,
        local: &Arc<Local>,
        reason: String,
    ) -> Result<(), StepError> {
        tracing::info!(task = self.id, reason, "the task is stopped");
        self.node
            .update(&self.id, |local| {
                local.record.unhealthy.clone_from(&reason);
                local.record.stopping = true;
            })
            .await?;
        // No new connections from here on.
        self.node.plane()?.apply().await?;
        let exit = match self.find().await? {
            Found::Ended(exit) => Some(exit),
            Found::Alive(state, _) => self.end_process(local, &state).await?,
            Found::Beginning | Found::Nothing => {
                self.kill().await?;
                None
            }
        };
        match exit {
            Some(exit) => self.finish(local, &exit),
            None => Err(StepError::fatal(reason)),
        }
    }
}
