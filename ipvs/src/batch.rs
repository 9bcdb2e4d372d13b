//! Many operations at once.

use std::collections::HashSet;

use crate::channel::Channel;
use crate::error::{BatchError, Failure, IpvsError};
use crate::operation::Operation;
use crate::service::ServiceId;

/// Carries out operations in their order.
pub(crate) fn apply(channel: &mut Channel, operations: &[Operation]) -> Result<(), BatchError> {
    let mut batch = Batch::default();
    for (index, operation) in operations.iter().enumerate() {
        let takes_away = takes_away(operation);
        // Before something is taken away, it must be known that what replaces it is there.
        if batch.chunk.len() == channel.window() || takes_away && batch.builds {
            batch.send(channel);
        }
        match operation.service() {
            Some(service) if takes_away && batch.hurt.contains(&service) => {
                let error = IpvsError::Skipped { service };
                batch.failures.push(Failure {
                    index,
                    operation: *operation,
                    error,
                });
            }
            _ => batch.push(index, *operation),
        }
    }
    batch.send(channel);
    if batch.failures.is_empty() {
        return Ok(());
    }
    batch.failures.sort_by_key(|failure| failure.index);
    Err(BatchError {
        failures: batch.failures,
        total: operations.len(),
    })
}

#[derive(Default)]
struct Batch {
    /// What goes with the next datagram, and its places in the whole.
    chunk: Vec<Operation>,
    places: Vec<usize>,
    /// Whether the chunk has something on whose success a deletion may depend.
    builds: bool,
    /// Services that did not get all they should have.
    hurt: HashSet<ServiceId>,
    failures: Vec<Failure>,
}

impl Batch {
    fn push(&mut self, index: usize, operation: Operation) {
        self.builds |= is_building(&operation);
        self.chunk.push(operation);
        self.places.push(index);
    }

    fn send(&mut self, channel: &mut Channel) {
        let Self {
            chunk,
            places,
            hurt,
            failures,
            ..
        } = self;
        channel.submit(chunk, |i, error| {
            let operation = chunk[i];
            // A service that is there already is as good as a new one. A destination is not: it may
            // have no weight.
            let there = matches!(error, IpvsError::ServiceExists { .. });
            if is_building(&operation) && !there {
                hurt.extend(operation.service());
            }
            failures.push(Failure {
                index: places[i],
                operation,
                error,
            });
        });
        chunk.clear();
        places.clear();
        self.builds = false;
    }
}

/// Whether an operation may leave a service without a destination that takes connections.
fn takes_away(operation: &Operation) -> bool {
    match operation {
        Operation::DeleteDestination(..) => true,
        Operation::SetDestination(_, destination) => destination.weight == 0,
        _ => false,
    }
}

/// Whether a later deletion in the same service may rely on the operation.
fn is_building(operation: &Operation) -> bool {
    use Operation as Op;
    match operation {
        Op::AddService(_) | Op::SetService(_) | Op::AddDestination(..) => true,
        Op::SetDestination(_, destination) => destination.weight > 0,
        Op::DeleteService(_)
        | Op::DeleteDestination(..)
        | Op::ZeroService(_)
        | Op::ZeroAll
        | Op::Flush
        | Op::SetTimeouts(_)
        | Op::StartSync(_)
        | Op::StopSync(_) => false,
    }
}
