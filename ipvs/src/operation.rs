//! Changes, as values that can be planned, shown and sent in batches.

use std::fmt;

use crate::destination::{Destination, DestinationId};
use crate::service::{Service, ServiceId};
use crate::stats::Timeouts;

/// One change of a namespace's IPVS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Creates a service without destinations.
    AddService(Service),
    /// Changes the settings of a service in place. While the kernel exchanges the scheduler, for
    /// some milliseconds, new connections are not scheduled.
    SetService(Service),
    /// Deletes a service and its destinations.
    DeleteService(ServiceId),
    /// Adds a destination to a service.
    AddDestination(ServiceId, Destination),
    /// Changes the settings of a destination in place.
    SetDestination(ServiceId, Destination),
    /// Deletes a destination. Its connections stay in the table; what becomes of them is up to
    /// [`Sysctl::ExpireNodestConn`](crate::Sysctl::ExpireNodestConn).
    DeleteDestination(ServiceId, DestinationId),
    /// Zeroes the counters of a service and its destinations.
    ZeroService(ServiceId),
    /// Zeroes all counters of the namespace.
    ZeroAll,
    /// Deletes all services of the namespace.
    Flush,
    /// Sets the namespace's time-outs.
    SetTimeouts(Timeouts),
}

impl Operation {
    /// The service concerned, where it is one.
    pub fn service(&self) -> Option<ServiceId> {
        match self {
            Self::AddService(service) | Self::SetService(service) => Some(service.id),
            Self::DeleteService(id)
            | Self::AddDestination(id, _)
            | Self::SetDestination(id, _)
            | Self::DeleteDestination(id, _)
            | Self::ZeroService(id) => Some(*id),
            Self::ZeroAll | Self::Flush | Self::SetTimeouts(_) => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddService(service) => {
                write!(
                    f,
                    "add service {} scheduler {}",
                    service.id, service.scheduler
                )
            }
            Self::SetService(service) => {
                write!(
                    f,
                    "change service {} scheduler {}",
                    service.id, service.scheduler
                )
            }
            Self::DeleteService(id) => write!(f, "delete service {id}"),
            Self::AddDestination(id, destination) => write!(
                f,
                "add destination {} {} weight {} to service {id}",
                destination.id, destination.forward, destination.weight
            ),
            Self::SetDestination(id, destination) => write!(
                f,
                "change destination {} {} weight {} of service {id}",
                destination.id, destination.forward, destination.weight
            ),
            Self::DeleteDestination(id, destination) => {
                write!(f, "delete destination {destination} of service {id}")
            }
            Self::ZeroService(id) => write!(f, "zero the counters of service {id}"),
            Self::ZeroAll => f.write_str("zero all counters"),
            Self::Flush => f.write_str("delete all services"),
            Self::SetTimeouts(_) => f.write_str("set the time-outs"),
        }
    }
}
