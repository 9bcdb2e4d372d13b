//! Changes, as values that can be planned, shown and sent in batches.

use std::fmt;

use crate::destination::{Destination, DestinationId};
use crate::error::IpvsError;
use crate::service::{Protocol, Service, ServiceId};
use crate::stats::Timeouts;
use crate::sync::{SyncDaemon, SyncRole};

/// One change of a namespace's IPVS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
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
    /// [`EXPIRE_NODEST_CONN`](crate::sysctl::EXPIRE_NODEST_CONN).
    DeleteDestination(ServiceId, DestinationId),
    /// Zeroes the counters of a service and its destinations.
    ZeroService(ServiceId),
    /// Zeroes all counters of the namespace.
    ZeroAll,
    /// Deletes all services of the namespace.
    Flush,
    /// Sets the namespace's time-outs.
    SetTimeouts(Timeouts),
    /// Starts a synchronisation daemon.
    StartSync(SyncDaemon),
    /// Stops the synchronisation daemon of a role.
    StopSync(SyncRole),
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
            Self::ZeroAll
            | Self::Flush
            | Self::SetTimeouts(_)
            | Self::StartSync(_)
            | Self::StopSync(_) => None,
        }
    }
}

impl Operation {
    /// What the kernel would misunderstand.
    pub(crate) fn check(&self) -> Result<(), IpvsError> {
        match self {
            Self::AddService(Service {
                id: id @ ServiceId::Address { protocol, .. },
                ..
            }) if ![Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(protocol) => {
                Err(IpvsError::UnknownProtocol { service: *id })
            }
            Self::AddService(service) | Self::SetService(service)
                if service.netmask.family() != service.id.family() =>
            {
                Err(IpvsError::NetmaskFamily {
                    service: service.id,
                    netmask: service.netmask,
                })
            }
            _ => Ok(()),
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
            Self::StartSync(daemon) => write!(
                f,
                "start the {} synchronisation daemon on interface {}",
                daemon.role, daemon.interface
            ),
            Self::StopSync(role) => write!(f, "stop the {role} synchronisation daemon"),
        }
    }
}
