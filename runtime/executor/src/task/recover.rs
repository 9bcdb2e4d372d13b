//! What a daemon does about what the one before it left: ended tasks are written down, what belongs
//! to nobody is taken away, ports are reserved again. Only then the data plane is told.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use fairlead_api::v1::TaskState;

use super::process::{Found, find};
use super::start::end;
use super::{StepError, cleanup};
use crate::node::Node;

/// Brings what is known in line with what is there. Returns when the first plan may be made.
///
/// # Errors
/// When the data plane is gone. What cannot be taken away now is only logged.
pub async fn recover(node: &Arc<Node>) -> Result<(), StepError> {
    let worker = Arc::clone(node);
    super::blocking(move || {
        note_ends(&worker);
        remove_orphans(&worker);
        Ok(())
    })
    .await?;
    for (id, local) in &node.view().locals {
        if !local.record.sandbox {
            continue;
        }
        for port in &local.host_ports {
            if let Err(error) = node
                .plane()?
                .reserve_port(id, port.protocol, port.published)
                .await
            {
                // The task keeps its port: the rules that lead to it are still there.
                tracing::warn!(task = id, %error, "cannot reserve a port again");
            }
        }
    }
    Ok(())
}

/// A task that ended meanwhile must not be a backend in the first plan.
fn note_ends(node: &Node) {
    for (id, local) in &node.view().locals {
        if local.state() != TaskState::Running {
            continue;
        }
        match find(node, id) {
            Ok(Found::Ended(exit)) if !local.record.stopping => {
                tracing::info!(
                    task = id,
                    code = exit.exit_code,
                    "ended while no daemon was there"
                );
                if exit.oom_killed {
                    node.events.task_oom(id);
                }
                node.note(id, |local| end(local, &exit));
            }
            Ok(Found::Nothing | Found::Beginning) => {
                // Its follower says so; here it only leaves the balancing.
                node.note(id, |local| local.record.stopping = true);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(task = id, %error, "cannot look for the task's shim"),
        }
    }
}

fn remove_orphans(node: &Node) {
    let view = node.view();
    let options = &node.options;
    // Each task has a directory from before its processes until after them. The cgroups are not
    // listed: another daemon's may be beside ours.
    let mut orphans = BTreeSet::new();
    for dir in [
        options.run_dir.join("tasks"),
        options.state_dir.join("tasks"),
    ] {
        orphans.extend(entries(&dir));
    }
    orphans.retain(|id| !view.locals.contains_key(id));
    for id in &orphans {
        tracing::info!(task = id, "belongs to no task of this node: removed");
        let removed = cleanup::kill_processes(node, id)
            .and_then(|()| cleanup::remove_dir(&options.task_run_dir(id)))
            .and_then(|()| cleanup::remove_dir(&options.task_state_dir(id)));
        if let Err(error) = removed {
            tracing::warn!(task = id, %error, "cannot remove what is left of it");
        }
    }
    for snapshot in node.images.snapshots() {
        let key = snapshot.key();
        if !view
            .locals
            .get(key)
            .is_some_and(|local| local.record.snapshot)
            && let Err(error) = node.images.remove_snapshot(key)
        {
            tracing::warn!(snapshot = key, %error, "cannot remove a root file system");
        }
    }
    if let Err(error) = node.images.gc() {
        tracing::warn!(%error, "cannot remove unused layers");
    }
}

fn entries(dir: &Path) -> Vec<String> {
    let Ok(list) = fs::read_dir(dir) else {
        return Vec::new();
    };
    list.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| crate::validate::is_id(name))
        .collect()
}
