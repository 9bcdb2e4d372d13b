//! `apply`: makes nodes be what files say.

use std::path::PathBuf;

use fairlead_api::v1;
use futures_util::future::join_all;
use serde::Serialize;
use tonic::Code;

use super::changes::Changes;
use super::{relay, wait};
use crate::args::ApplyArgs;
use crate::error::CliError;
use crate::format::task::TaskState;
use crate::format::{Document, Mirror};
use crate::output::object::task_name;
use crate::output::{print, print_json};
use crate::socket::{Daemon, default_socket};

/// A node that has taken its assignment.
#[derive(Debug)]
pub struct Applied {
    /// Its daemon.
    pub daemon: Daemon,
    /// The node's id.
    pub id: String,
    /// Name of the state that it holds now.
    pub state: String,
    /// The node records that it holds.
    pub records: Vec<v1::NodeRecord>,
    /// The endpoint records that it holds.
    pub endpoints: Vec<v1::EndpointRecord>,
    /// The tasks that it shall run.
    pub tasks: Vec<WantedTask>,
}

/// A task and how far it shall go.
#[derive(Debug)]
pub struct WantedTask {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// How far it shall go.
    pub desired: TaskState,
}

/// What happened to one node, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    node: String,
    socket: PathBuf,
    assignment: String,
    #[serde(flatten)]
    changes: Changes,
}

/// Applies the files, and waits as far as was asked.
pub async fn run(sockets: &[PathBuf], args: &ApplyArgs, json: bool) -> Result<(), CliError> {
    let documents = read(&args.file)?;
    let sockets = targets(sockets, &documents)?;
    // Nothing is sent before every daemon is reached.
    let daemons = all(join_all(sockets.iter().map(|socket| Daemon::connect(socket))).await)?;
    let applied = join_all(
        daemons
            .into_iter()
            .zip(documents)
            .map(|(daemon, document)| send(daemon, document)),
    )
    .await;
    let (mut nodes, mut reports, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for result in applied {
        match result {
            Ok((node, report)) => {
                nodes.push(node);
                reports.push(report);
            }
            Err(error) => errors.push(error),
        }
    }
    if json {
        print_json(&reports)?;
    } else {
        for report in &reports {
            let lines = report.changes.lines();
            print(&format!(
                "{}: assignment {}\n{lines}",
                report.node, report.assignment
            ))?;
        }
    }
    CliError::collect(errors)?;
    if nodes.len() > 1 {
        relay::run(&mut nodes, args.timeout).await?;
    }
    if args.wait {
        wait::endpoints(&mut nodes, args.timeout).await?;
    }
    if args.wait_tasks {
        wait::tasks(&mut nodes, args.timeout).await?;
    }
    Ok(())
}

fn read(files: &[PathBuf]) -> Result<Vec<Document>, CliError> {
    let read = |file: &PathBuf| Document::read(file).map_err(CliError::Document);
    all(files.iter().map(read).collect())
}

/// All values, or all errors.
fn all<T>(results: Vec<Result<T, CliError>>) -> Result<Vec<T>, CliError> {
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(error) => errors.push(error),
        }
    }
    CliError::collect(errors).map(|()| values)
}

/// Which daemon gets which document.
fn targets(sockets: &[PathBuf], documents: &[Document]) -> Result<Vec<PathBuf>, CliError> {
    let targets = if sockets.is_empty() {
        let own = |document: &Document| document.assignment.node.socket.clone();
        let several = documents.len() > 1;
        let target = |document: &Document| match own(document) {
            Some(socket) => Ok(socket),
            None if several => Err(CliError::Usage(format!(
                "{}: give node.socket in each file, or a --socket for each file, in the same order",
                document.origin
            ))),
            None => Ok(default_socket()),
        };
        documents
            .iter()
            .map(target)
            .collect::<Result<Vec<_>, _>>()?
    } else if sockets.len() == documents.len() {
        sockets.to_vec()
    } else {
        return Err(CliError::Usage(format!(
            "{} files and {} sockets: give a --socket for each file, in the same order",
            documents.len(),
            sockets.len()
        )));
    };
    for (index, socket) in targets.iter().enumerate() {
        if targets[..index].contains(socket) {
            return Err(CliError::Usage(format!(
                "two files for one socket, {}",
                socket.display()
            )));
        }
    }
    Ok(targets)
}

/// Tells a node who it is and what shall be on it.
async fn send(mut daemon: Daemon, document: Document) -> Result<(Applied, Report), CliError> {
    let Document {
        origin,
        text,
        mut assignment,
    } = document;
    let held = held(&mut daemon).await?;
    keep_acknowledgements(&held, &mut assignment.nodes);
    let changes = Changes::between(&held, &assignment);
    let id = assignment.node.id.clone();
    let records = assignment.nodes.clone().into_proto();
    let endpoints = assignment.endpoints.clone().into_proto();
    let wanted = |task: &crate::format::task::Task| WantedTask {
        id: task.id.clone(),
        name: task_name(task),
        desired: task.desired_state,
    };
    let tasks = assignment.tasks.iter().map(wanted).collect();
    let response = daemon.client.assign(assignment.into_request()).await;
    let state = response
        .map_err(|status| daemon.refusal("assign", &status, &origin, &text))?
        .into_inner()
        .results_in;
    let report = Report {
        node: id.clone(),
        socket: daemon.socket.clone(),
        assignment: state.clone(),
        changes,
    };
    Ok((
        Applied {
            daemon,
            id,
            state,
            records,
            endpoints,
            tasks,
        },
        report,
    ))
}

/// What the node holds; nothing, before it is configured.
async fn held(daemon: &mut Daemon) -> Result<v1::InspectResponse, CliError> {
    match daemon.client.inspect(v1::InspectRequest::default()).await {
        Ok(response) => Ok(response.into_inner()),
        Err(status) if status.code() == Code::FailedPrecondition => Ok(Default::default()),
        Err(status) => Err(daemon.error("look at what is there", &status)),
    }
}

/// An acknowledgement stays true when the file does not repeat it; without it, the node would take
/// the backends behind it out of service until it is told again.
fn keep_acknowledgements(
    held: &v1::InspectResponse,
    records: &mut [crate::format::network::NodeRecord],
) {
    for record in records
        .iter_mut()
        .filter(|record| record.acknowledged_version == 0)
    {
        if let Some(known) = held.nodes.iter().find(|known| known.id == record.id) {
            record.acknowledged_version = known.acknowledged_version;
        }
    }
}
