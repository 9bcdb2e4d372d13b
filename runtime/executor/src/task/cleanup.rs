//! Takes away what a task had, in the reverse order of its making. Each part may be gone already.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use container::process;
use container::shim::ShimState;
use netdp::Object;

use super::process::read_json;
use super::start::cgroup;
use super::{Follower, StepError, blocking};
use crate::node::Node;
use crate::record::Local;

/// A shim whose task has ended has this long to end as well.
const SHIM_END: Duration = Duration::from_secs(5);

impl Follower {
    pub(super) async fn clean_up(&mut self, local: &Arc<Local>) -> Result<(), StepError> {
        if local.record.process {
            let (node, id) = (Arc::clone(&self.node), self.id.clone());
            blocking(move || kill_processes(&node, &id)).await?;
        }
        self.health = None;
        // Its names are served as long as it could ask.
        self.running = None;

        let plane = self.node.plane()?;
        self.node
            .note(&self.id, |local| local.record.sandbox = false);
        let applied = plane.apply().await?;
        for failure in &applied.report.failures {
            if failure.object == Object::Sandbox(self.id.clone()) {
                return Err(StepError::transient(crate::events::chain(&failure.error)));
            }
        }
        // A run that could not begin says nothing of the task. Until its namespace is gone, its addresses and
        // ports lead there.
        let netns = plane.sandbox_path(&self.id);
        if netns.exists() {
            let failures = &applied.report.failures;
            let node = failures.iter().find(|f| f.object == Object::Node);
            let why = node.map(|failure| format!(": {}", crate::events::chain(&failure.error)));
            return Err(StepError::transient(format!(
                "the task's network namespace {} is still there{}",
                netns.display(),
                why.unwrap_or_default()
            )));
        }
        plane.release_ports(&self.id);
        let (node, id) = (Arc::clone(&self.node), self.id.clone());
        blocking(move || {
            node.images
                .remove_snapshot(&id)
                .map_err(|e| StepError::of(&e))?;
            // Its image may have been removed by force meanwhile. What stays goes the next time.
            if let Err(error) = node.images.gc() {
                tracing::warn!(task = id, %error, "layers that nobody needs are left");
            }
            remove_dir(&node.options.task_run_dir(&id))
        })
        .await?;
        self.node.note(&self.id, |local| {
            let record = &mut local.record;
            (record.sandbox, record.snapshot, record.process) = (false, false, false);
            (record.shim_pid, record.shim_start) = (0, 0);
            record.gateway.clear();
            record.networks.clear();
            record.host_ports.clear();
            (record.health_check, record.unhealthy) = (false, String::new());
            local.gateway.clear();
            local.networks.clear();
            local.host_ports.clear();
        });
        self.remove_empty_parent().await;
        Ok(())
    }

    /// The cgroup above the tasks goes with the last of them.
    async fn remove_empty_parent(&self) {
        if self
            .node
            .view()
            .locals
            .values()
            .any(|local| local.record.process)
        {
            return;
        }
        let parent = self.node.options.cgroup_parent.clone();
        let removed =
            tokio::task::spawn_blocking(move || container::cgroup::remove_parent(&parent));
        if let Ok(Err(error)) = removed.await {
            // The next task that ends tries it again; it holds nothing.
            tracing::debug!(%error, "the parent cgroup stays");
        }
    }
}

/// Ends whatever is left of a task: its processes, its shim, its cgroup.
pub(super) fn kill_processes(node: &Node, task: &str) -> Result<(), StepError> {
    kill_cgroup(node, task)?;
    let path = node.options.task_run_dir(task).join("shim-state.json");
    let state: Option<ShimState> = read_json(&path)?;
    if let Some(state) = state
        && let Ok(shim) = process::open_verified(state.shim_pid, state.shim_start_time)
    {
        let ended = process::wait_ended(&shim, Some(SHIM_END)).map_err(|e| StepError::of(&e))?;
        if !ended {
            process::signal(&shim, libc::SIGKILL).map_err(|e| StepError::of(&e))?;
            process::wait_ended(&shim, Some(SHIM_END)).map_err(|e| StepError::of(&e))?;
        }
    }
    match cgroup(&node.options.cgroup_parent, task)? {
        Some(cgroup) => cgroup.delete().map_err(|e| StepError::of(&e)),
        None => Ok(()),
    }
}

/// Ends all processes of the task's cgroup.
pub(super) fn kill_cgroup(node: &Node, task: &str) -> Result<(), StepError> {
    match cgroup(&node.options.cgroup_parent, task)? {
        Some(cgroup) => cgroup.kill().map_err(|e| StepError::of(&e)),
        None => Ok(()),
    }
}

/// A directory and all in it.
pub(super) fn remove_dir(dir: &Path) -> Result<(), StepError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(super::prepare::file("remove", dir)(error))
        }
        _ => Ok(()),
    }
}
