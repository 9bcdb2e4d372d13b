//! `logs`: the output of one task, on the streams that it was written to.

use std::io::{self, Write};

use fairlead_api::v1;
use serde::Serialize;

use crate::args::LogsArgs;
use crate::error::CliError;
use crate::output::print_json_line;
use crate::output::time::rfc3339;
use crate::socket::Daemon;

/// A line for programs. Bytes that are no UTF-8 are replaced.
#[derive(Debug, Serialize)]
struct Line<'a> {
    timestamp: String,
    stream: &'a str,
    line: &'a str,
}

/// Prints the output of a task.
pub async fn run(daemon: &mut Daemon, args: &LogsArgs, json: bool) -> Result<(), CliError> {
    let request = v1::LogsRequest {
        task_id: task_id(daemon, &args.task).await?,
        follow: args.follow,
        tail: args.tail,
        since: args.since.unwrap_or(0),
    };
    let doing = format!("read the output of task `{}`", args.task);
    let response = daemon.client.logs(request).await;
    let mut entries = response
        .map_err(|status| daemon.error(&doing, &status))?
        .into_inner();
    // Per stream, whether the last line was ended: a line may come in parts.
    let mut starts = [true, true];
    loop {
        let entry = entries
            .message()
            .await
            .map_err(|status| daemon.error(&doing, &status))?;
        let Some(entry) = entry else { return Ok(()) };
        if json {
            print_line(&entry)?;
        } else {
            print_entry(&entry, args.timestamps, &mut starts)?;
        }
    }
}

/// The id of the one task that a name means.
async fn task_id(daemon: &mut Daemon, name: &str) -> Result<String, CliError> {
    let response = daemon.inspect(v1::Kind::Task, name).await?;
    let mut ids = response
        .tasks
        .into_iter()
        .filter_map(|view| view.task)
        .map(|task| task.id);
    match (ids.next(), ids.next()) {
        (Some(id), None) => Ok(id),
        (Some(first), Some(second)) => Err(CliError::Usage(format!(
            "`{name}` means several tasks, among them {first} and {second}: give the id"
        ))),
        (None, _) => Err(CliError::NotFound {
            kind: "task",
            name: name.to_owned(),
        }),
    }
}

fn print_line(entry: &v1::LogEntry) -> Result<(), CliError> {
    let line = String::from_utf8_lossy(&entry.line);
    print_json_line(&Line {
        timestamp: rfc3339(entry.timestamp),
        stream: if is_stderr(entry) { "stderr" } else { "stdout" },
        line: line.strip_suffix('\n').unwrap_or(&line),
    })
}

fn print_entry(
    entry: &v1::LogEntry,
    timestamps: bool,
    starts: &mut [bool; 2],
) -> Result<(), CliError> {
    let start = &mut starts[usize::from(is_stderr(entry))];
    let mut bytes = Vec::with_capacity(entry.line.len() + 32);
    if timestamps && *start {
        bytes.extend_from_slice(rfc3339(entry.timestamp).as_bytes());
        bytes.push(b' ');
    }
    bytes.extend_from_slice(&entry.line);
    *start = entry.line.ends_with(b"\n");
    if is_stderr(entry) {
        write(io::stderr().lock(), &bytes)
    } else {
        write(io::stdout().lock(), &bytes)
    }
}

fn write(mut stream: impl Write, bytes: &[u8]) -> Result<(), CliError> {
    stream.write_all(bytes)?;
    Ok(stream.flush()?)
}

fn is_stderr(entry: &v1::LogEntry) -> bool {
    entry.stream == v1::Stream::Stderr as i32
}
