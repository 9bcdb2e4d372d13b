//! Streams the output of one task.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use fairlead_api::v1::{LogEntry, LogsRequest, TaskState};
use futures_util::stream;
use tonic::Status;

use super::Streaming;
use super::logfile::LogReader;
use crate::node::Node;

/// How often a log is looked at that had nothing new.
const POLL: Duration = Duration::from_millis(100);

/// Entries that are read at once.
const PIECE: usize = 256;

struct Following {
    node: Arc<Node>,
    id: String,
    since: u64,
    follow: bool,
    /// Until it is taken: how many of the last entries are wanted.
    tail: Option<usize>,
    reader: Option<LogReader>,
    ready: VecDeque<LogEntry>,
    /// The task had ended before the last look.
    ended: bool,
}

pub(super) fn logs(node: Arc<Node>, request: LogsRequest) -> Result<Streaming<LogEntry>, Status> {
    let id = request.task_id;
    if node.local(&id).is_none() {
        return Err(Status::not_found(format!(
            "task {id:?} is not on this node"
        )));
    }
    let reader = LogReader::open(&node.options.log_path(&id));
    let start = Following {
        node,
        id,
        since: request.since,
        follow: request.follow,
        tail: request
            .tail
            .map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        reader: Some(reader),
        ready: VecDeque::new(),
        ended: false,
    };
    Ok(Box::pin(stream::unfold(
        start,
        |mut following| async move {
            match following.next().await {
                Ok(Some(entry)) => Some((Ok(entry), following)),
                Ok(None) => None,
                Err(error) => {
                    // Nothing after an error: the reader is gone.
                    following.follow = false;
                    following.ended = true;
                    Some((
                        Err(Status::unavailable(format!("cannot read the log: {error}"))),
                        following,
                    ))
                }
            }
        },
    )))
}

impl Following {
    async fn next(&mut self) -> io::Result<Option<LogEntry>> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            // Asked before reading: what a task wrote before its end is read after it.
            let ended = self.has_ended();
            let Some(reader) = self.reader.take() else {
                return Ok(None);
            };
            let (since, tail) = (self.since, self.tail.take());
            let read = tokio::task::spawn_blocking(move || read(reader, since, tail));
            let (reader, ready) = read.await.map_err(io::Error::other)??;
            self.reader = Some(reader);
            self.ready = ready;
            if self.ready.is_empty() {
                if ended || !self.follow {
                    return Ok(None);
                }
                tokio::time::sleep(POLL).await;
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.ended
            || self
                .node
                .local(&self.id)
                .is_none_or(|l| l.state() >= TaskState::Complete)
    }
}

fn read(
    mut reader: LogReader,
    since: u64,
    tail: Option<usize>,
) -> io::Result<(LogReader, VecDeque<LogEntry>)> {
    let wanted = |entry: &LogEntry| entry.timestamp >= since;
    if let Some(count) = tail {
        let kept = reader.tail(count, wanted)?;
        return Ok((reader, kept));
    }
    let mut ready = VecDeque::new();
    while ready.len() < PIECE
        && let Some(entry) = reader.next()?
    {
        if wanted(&entry) {
            ready.push_back(entry);
        }
    }
    Ok((reader, ready))
}
