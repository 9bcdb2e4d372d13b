//! The two endless streams. Each reader has a number of its own and takes what comes after it, a
//! bounded piece at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use fairlead_api::v1::{Event, TaskStatus};
use futures_util::stream;

use super::Streaming;
use crate::node::Node;

/// Statuses that are taken at once.
const PIECE: usize = 64;

pub(super) fn statuses(node: Arc<Node>, after: u64) -> Streaming<TaskStatus> {
    let changed = node.statuses.subscribe();
    // One that was never given out is from before the state directory was lost.
    let after = if after > node.statuses.last() {
        0
    } else {
        after
    };
    let start = (node, changed, after, VecDeque::new());
    Box::pin(stream::unfold(
        start,
        |(node, mut changed, mut after, mut ready)| async move {
            loop {
                if let Some(status) = ready.pop_front() {
                    let status: TaskStatus = status;
                    after = status.sequence;
                    return Some((Ok(status), (node, changed, after, ready)));
                }
                // Marked as seen before looking, so that nothing in between is slept through.
                changed.borrow_and_update();
                ready.extend(node.statuses.after(after, PIECE));
                if ready.is_empty() {
                    changed.changed().await.ok()?;
                }
            }
        },
    ))
}

pub(super) fn events(node: Arc<Node>, after: u64) -> Streaming<Event> {
    let changed = node.events.subscribe();
    let start = (node, changed, after, VecDeque::new());
    Box::pin(stream::unfold(
        start,
        |(node, mut changed, mut after, mut ready)| async move {
            loop {
                if let Some(event) = ready.pop_front() {
                    return Some((Ok(event), (node, changed, after, ready)));
                }
                changed.borrow_and_update();
                let (events, next) = node.events.after(after);
                ready.extend(events);
                after = next;
                // With nothing known yet, "everything from the beginning" stays the question.
                if ready.is_empty() {
                    changed.changed().await.ok()?;
                }
            }
        },
    ))
}
