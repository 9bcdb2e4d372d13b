//! Waits for what an assignment sets going.

use std::collections::BTreeMap;
use std::time::Duration;

use fairlead_api::v1;
use fairlead_api::v1::event::Event;
use futures_util::future::join_all;

use super::apply::{Applied, WantedTask};
use crate::error::CliError;
use crate::format::Mirror;
use crate::format::task::TaskState;
use crate::output::progress;

/// Waits until each node has every endpoint record of its file in the kernel.
pub async fn endpoints(nodes: &mut [Applied], limit: Duration) -> Result<(), CliError> {
    let waits = nodes.iter_mut().map(|node| node_endpoints(node, limit));
    CliError::collect(
        join_all(waits)
            .await
            .into_iter()
            .filter_map(Result::err)
            .collect(),
    )
}

async fn node_endpoints(node: &mut Applied, limit: Duration) -> Result<(), CliError> {
    let mut missing: BTreeMap<String, v1::EndpointRecord> = node
        .endpoints
        .iter()
        .map(|record| (record.id.clone(), record.clone()))
        .collect();
    let total = missing.len();
    if total == 0 {
        return Ok(());
    }
    progress(&format!("{}: waiting for {total} endpoints", node.id));
    let doing = "watch the events";
    let work = async {
        let request = v1::WatchEventsRequest { after: 0 };
        let response = node.daemon.client.watch_events(request).await;
        let mut events = response
            .map_err(|status| node.daemon.error(doing, &status))?
            .into_inner();
        while !missing.is_empty() {
            let event = events
                .message()
                .await
                .map_err(|status| node.daemon.error(doing, &status))?;
            let event = event.ok_or_else(|| node.daemon.ended("events"))?;
            if let Some(Event::EndpointApplied(applied)) = event.event {
                let reached = missing
                    .get(&applied.endpoint_id)
                    .is_some_and(|record| is_applied(record, &applied));
                if reached {
                    missing.remove(&applied.endpoint_id);
                }
            }
        }
        Ok(())
    };
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(())) => {
            progress(&format!("{}: all {total} endpoints applied", node.id));
            Ok(())
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(CliError::Incomplete {
            what: format!("{}: not applied in {} s", node.id, limit.as_secs_f64()),
            missing: missing
                .values()
                .map(|record| format!("endpoint {} version {}", record.id, record.version))
                .collect(),
        }),
    }
}

/// Whether an event says that a record, or a newer one, is in the kernel.
fn is_applied(record: &v1::EndpointRecord, event: &v1::EndpointApplied) -> bool {
    event.version > record.version
        || (event.version == record.version && event.state == record.state)
}

/// Waits until each task of each node is where it shall be, or cannot get there any more.
pub async fn tasks(nodes: &mut [Applied], limit: Duration) -> Result<(), CliError> {
    let waits = nodes.iter_mut().map(|node| node_tasks(node, limit));
    CliError::collect(
        join_all(waits)
            .await
            .into_iter()
            .filter_map(Result::err)
            .collect(),
    )
}

async fn node_tasks(node: &mut Applied, limit: Duration) -> Result<(), CliError> {
    let mut missing: BTreeMap<&str, &WantedTask> = node
        .tasks
        .iter()
        .map(|task| (task.id.as_str(), task))
        .collect();
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    let mut failed = Vec::new();
    if missing.is_empty() {
        return Ok(());
    }
    let doing = "watch the tasks";
    let work = async {
        let request = v1::WatchStatusRequest { after: 0 };
        let response = node.daemon.client.watch_status(request).await;
        let mut statuses = response
            .map_err(|status| node.daemon.error(doing, &status))?
            .into_inner();
        while !missing.is_empty() {
            let status = statuses.message().await;
            let status = status.map_err(|status| node.daemon.error(doing, &status))?;
            let status = status.ok_or_else(|| node.daemon.ended("statuses"))?;
            let Some(task) = missing.get(status.task_id.as_str()) else {
                continue;
            };
            let text = describe(&status);
            if last.get(&status.task_id) != Some(&text) {
                progress(&format!("{}: {} {text}", node.id, task.name));
                last.insert(status.task_id.clone(), text.clone());
            }
            match progress_of(task.desired, status.state) {
                Progress::OnTheWay => {}
                Progress::Reached => {
                    missing.remove(status.task_id.as_str());
                }
                Progress::Failed => {
                    failed.push(format!("{} {text}", task.name));
                    missing.remove(status.task_id.as_str());
                }
            }
        }
        Ok(())
    };
    let ended = tokio::time::timeout(limit, work).await;
    if let Ok(Err(error)) = ended {
        return Err(error);
    }
    for task in missing.values() {
        let state = last.get(&task.id).map_or("has no status", String::as_str);
        failed.push(format!(
            "{} {state}, shall be {}",
            task.name,
            task.desired.word()
        ));
    }
    if failed.is_empty() {
        return Ok(());
    }
    let what = match ended {
        Ok(_) => format!("{}: tasks failed", node.id),
        Err(_) => format!("{}: tasks not there in {} s", node.id, limit.as_secs_f64()),
    };
    Err(CliError::Incomplete {
        what,
        missing: failed,
    })
}

fn describe(status: &v1::TaskStatus) -> String {
    let state = TaskState::from_proto(status.state).word();
    let detail = if status.error.is_empty() {
        &status.message
    } else {
        &status.error
    };
    let exit = match &status.container {
        Some(container) if container.exit_code != 0 => {
            format!(", exit code {}", container.exit_code)
        }
        _ => String::new(),
    };
    if detail.is_empty() {
        format!("{state}{exit}")
    } else {
        format!("{state}{exit} ({detail})")
    }
}

#[derive(Debug, PartialEq)]
enum Progress {
    OnTheWay,
    Reached,
    Failed,
}

/// How a task in a state does towards the desired one. States only grow.
fn progress_of(desired: TaskState, state: i32) -> Progress {
    let (complete, shutdown) = (
        v1::TaskState::Complete as i32,
        v1::TaskState::Shutdown as i32,
    );
    let goal = match desired {
        // However it ended, it has ended; what is to be removed stays where it is until it has left the file.
        TaskState::Shutdown | TaskState::Remove => complete,
        other => other.into_proto(),
    };
    if state < goal {
        // A task that was to run can end before it gets there.
        return if state >= complete {
            Progress::Failed
        } else {
            Progress::OnTheWay
        };
    }
    match desired {
        TaskState::Shutdown | TaskState::Remove => Progress::Reached,
        _ if state >= shutdown => Progress::Failed,
        _ => Progress::Reached,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_goal_has_its_end() {
        use Progress::{Failed, OnTheWay, Reached};
        use v1::TaskState as S;
        for (desired, state, expected) in [
            (TaskState::Running, S::Preparing, OnTheWay),
            (TaskState::Running, S::Running, Reached),
            (TaskState::Running, S::Complete, Reached),
            (TaskState::Running, S::Failed, Failed),
            (TaskState::Running, S::Rejected, Failed),
            (TaskState::Ready, S::Preparing, OnTheWay),
            (TaskState::Ready, S::Ready, Reached),
            (TaskState::Ready, S::Rejected, Failed),
            (TaskState::Complete, S::Running, OnTheWay),
            (TaskState::Complete, S::Complete, Reached),
            (TaskState::Complete, S::Failed, Failed),
            (TaskState::Shutdown, S::Running, OnTheWay),
            (TaskState::Shutdown, S::Complete, Reached),
            (TaskState::Shutdown, S::Failed, Reached),
            (TaskState::Remove, S::Running, OnTheWay),
            (TaskState::Remove, S::Failed, Reached),
            (TaskState::Remove, S::Shutdown, Reached),
        ] {
            assert_eq!(
                progress_of(desired, state as i32),
                expected,
                "{desired:?} {state:?}"
            );
        }
    }
}
