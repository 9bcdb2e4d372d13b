//! Talking to the kernel.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::batch;
use crate::channel::Channel;
use crate::destination::{Destination, DestinationEntry, DestinationId};
use crate::error::{BatchError, IpvsError};
use crate::netns;
use crate::operation::Operation;
use crate::pauses::Pauses;
use crate::plan::{Pool, PoolEntry};
use crate::service::{Service, ServiceEntry, ServiceId};
use crate::stats::{Info, Timeouts};
use crate::sync::{SyncDaemon, SyncRole};
use crate::wire::decode;
use crate::wire::encode::Query;

/// A connection to the IPVS of one network namespace.
///
/// It stays with the namespace in which it was opened, whatever namespace its users are in. All
/// calls block only for as long as the kernel works on them.
pub struct Client {
    channel: Channel,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// If the kernel's IPVS is not loaded, this makes the kernel try to load it.
    ///
    /// # Errors
    ///
    /// [`IpvsError::NotAvailable`] without IPVS in the kernel, [`IpvsError::Socket`].
    pub fn open() -> Result<Self, IpvsError> {
        Channel::open().map(|channel| Self { channel })
    }

    /// Opens a socket inside the given network namespace (a descriptor of `/proc/<pid>/ns/net` or a
    /// bind mount of it). A short-lived thread enters the namespace; the caller does not.
    ///
    /// # Errors
    ///
    /// As [`Client::open`], and [`IpvsError::Namespace`] if the namespace cannot be entered, which
    /// needs CAP_SYS_ADMIN.
    pub fn open_in(netns: BorrowedFd<'_>) -> Result<Self, IpvsError> {
        netns::inside(netns, Self::open).map_err(|source| IpvsError::Namespace { source })?
    }

    /// Facts about the kernel's IPVS.
    pub fn info(&mut self) -> Result<Info, IpvsError> {
        self.channel.query_one(Query::Info, decode::info)
    }

    /// The namespace's time-outs.
    pub fn timeouts(&mut self) -> Result<Timeouts, IpvsError> {
        self.channel.query_one(Query::Timeouts, decode::timeouts)
    }

    /// Sets those of the namespace's time-outs that are given.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), IpvsError> {
        self.perform(Operation::SetTimeouts(timeouts))
    }

    /// The synchronisation daemons of the namespace: none, one, or one of each role.
    pub fn sync_daemons(&mut self) -> Result<Vec<SyncDaemon>, IpvsError> {
        let role = |daemon: &SyncDaemon| daemon.role;
        self.channel
            .query_all(Query::SyncDaemons, decode::sync_daemon, role)
    }

    /// Starts a synchronisation daemon. To change its settings, stop it first.
    ///
    /// # Errors
    ///
    /// [`IpvsError::SyncRunning`], [`IpvsError::NoSuchInterface`], and those that any request may
    /// have; `EINVAL` while a service has destinations of the other address family, which the
    /// protocol cannot tell.
    pub fn start_sync_daemon(&mut self, daemon: SyncDaemon) -> Result<(), IpvsError> {
        self.perform(Operation::StartSync(daemon))
    }

    /// Stops the synchronisation daemon of a role.
    ///
    /// # Errors
    ///
    /// [`IpvsError::SyncNotRunning`], and those that any request may have.
    pub fn stop_sync_daemon(&mut self, role: SyncRole) -> Result<(), IpvsError> {
        self.perform(Operation::StopSync(role))
    }

    /// One service.
    ///
    /// # Errors
    ///
    /// [`IpvsError::NoSuchService`], and those that any request may have.
    pub fn service(&mut self, id: &ServiceId) -> Result<ServiceEntry, IpvsError> {
        self.channel.query_one(Query::Service(*id), decode::service)
    }

    /// All services.
    pub fn services(&mut self) -> Result<Vec<ServiceEntry>, IpvsError> {
        self.channel
            .query_all(Query::Services, decode::service, |entry| entry.service.id)
    }

    /// The destinations of a service.
    ///
    /// # Errors
    ///
    /// [`IpvsError::NoSuchService`], and those that any request may have.
    pub fn destinations(&mut self, id: &ServiceId) -> Result<Vec<DestinationEntry>, IpvsError> {
        // For a service that does not exist the kernel gives an empty list.
        self.service(id)?;
        self.list_destinations(id)
    }

    fn list_destinations(&mut self, id: &ServiceId) -> Result<Vec<DestinationEntry>, IpvsError> {
        let family = id.family();
        self.channel.query_all(
            Query::Destinations(*id),
            |content| decode::destination(content, family),
            |entry| entry.destination.id,
        )
    }

    /// All services with their destinations, as [`plan`](crate::plan) takes them. A change meanwhile
    /// by somebody else may or may not be seen.
    pub fn pools(&mut self) -> Result<Vec<Pool>, IpvsError> {
        self.each_pool(|entry| Pool {
            service: entry.service.service,
            destinations: entry.destinations.iter().map(|d| d.destination).collect(),
        })
    }

    /// All services with their destinations and all counters.
    pub fn pool_entries(&mut self) -> Result<Vec<PoolEntry>, IpvsError> {
        self.each_pool(|entry| entry)
    }

    /// One service with its destinations and all counters.
    ///
    /// # Errors
    ///
    /// [`IpvsError::NoSuchService`], and those that any request may have.
    pub fn pool_entry(&mut self, id: &ServiceId) -> Result<PoolEntry, IpvsError> {
        Ok(PoolEntry {
            service: self.service(id)?,
            destinations: self.list_destinations(id)?,
        })
    }

    fn each_pool<T>(&mut self, mut take: impl FnMut(PoolEntry) -> T) -> Result<Vec<T>, IpvsError> {
        let services = self.services()?;
        let mut taken = Vec::with_capacity(services.len());
        for service in services {
            let destinations = self.list_destinations(&service.service.id)?;
            taken.push(take(PoolEntry {
                service,
                destinations,
            }));
        }
        Ok(taken)
    }

    /// Waits until a destination has no connections, active or not, or the time is over, and returns
    /// how many are left. A destination that is deleted has none that this could see; see
    /// [`ConnectionTable::wait_until_gone`](crate::ConnectionTable::wait_until_gone).
    ///
    /// Give it weight 0 first, so that it gets no new ones. Clients that a persistent service has
    /// bound to it still come unless
    /// [`EXPIRE_QUIESCENT_TEMPLATE`](crate::sysctl::EXPIRE_QUIESCENT_TEMPLATE) is set.
    ///
    /// # Errors
    ///
    /// [`IpvsError::NoSuchService`], [`IpvsError::NoSuchDestination`], and those that any request
    /// may have.
    pub fn wait_drained(
        &mut self,
        service: &ServiceId,
        destination: &DestinationId,
        patience: Duration,
    ) -> Result<u32, IpvsError> {
        let mut pauses = Pauses::new(patience);
        loop {
            let left = self.connections_of(service, destination)?;
            if left == 0 || !pauses.pause() {
                return Ok(left);
            }
        }
    }

    pub(crate) fn connections_of(
        &mut self,
        service: &ServiceId,
        destination: &DestinationId,
    ) -> Result<u32, IpvsError> {
        let entries = self.destinations(service)?;
        let entry = entries.iter().find(|e| e.destination.id == *destination);
        let entry = entry.ok_or(IpvsError::NoSuchDestination {
            service: *service,
            destination: *destination,
        })?;
        Ok(entry
            .active_connections
            .saturating_add(entry.inactive_connections))
    }

    /// Creates a service without destinations.
    ///
    /// # Errors
    ///
    /// [`IpvsError::ServiceExists`], [`IpvsError::UnknownScheduler`], and those that any request may have.
    pub fn add_service(&mut self, service: Service) -> Result<(), IpvsError> {
        self.perform(Operation::AddService(service))
    }

    /// Changes the settings of a service in place.
    pub fn set_service(&mut self, service: Service) -> Result<(), IpvsError> {
        self.perform(Operation::SetService(service))
    }

    /// Deletes a service and its destinations.
    pub fn delete_service(&mut self, id: ServiceId) -> Result<(), IpvsError> {
        self.perform(Operation::DeleteService(id))
    }

    /// Adds a destination to a service.
    pub fn add_destination(
        &mut self,
        service: ServiceId,
        destination: Destination,
    ) -> Result<(), IpvsError> {
        self.perform(Operation::AddDestination(service, destination))
    }

    /// Changes the settings of a destination in place.
    pub fn set_destination(
        &mut self,
        service: ServiceId,
        destination: Destination,
    ) -> Result<(), IpvsError> {
        self.perform(Operation::SetDestination(service, destination))
    }

    /// Deletes a destination; see [`Operation::DeleteDestination`].
    pub fn delete_destination(
        &mut self,
        service: ServiceId,
        destination: DestinationId,
    ) -> Result<(), IpvsError> {
        self.perform(Operation::DeleteDestination(service, destination))
    }

    /// Zeroes the counters of a service and its destinations.
    pub fn zero_service(&mut self, id: ServiceId) -> Result<(), IpvsError> {
        self.perform(Operation::ZeroService(id))
    }

    /// Zeroes all counters of the namespace.
    pub fn zero(&mut self) -> Result<(), IpvsError> {
        self.perform(Operation::ZeroAll)
    }

    /// Deletes all services of the namespace.
    pub fn flush(&mut self) -> Result<(), IpvsError> {
        self.perform(Operation::Flush)
    }

    /// Carries out operations in their order, many in flight at once, each acknowledged.
    ///
    /// An operation that fails does not stop the others, with one exception: once a service or
    /// destination could not be added or changed, what later takes destinations of the same service
    /// away (deletes them, or gives them weight 0) is [skipped](IpvsError::Skipped), because it may
    /// leave the service without any.
    ///
    /// # Errors
    ///
    /// The operations that did not succeed, each with its own error.
    pub fn apply(&mut self, operations: &[Operation]) -> Result<(), BatchError> {
        batch::apply(&mut self.channel, operations)
    }

    fn perform(&mut self, operation: Operation) -> Result<(), IpvsError> {
        let mut result = Ok(());
        self.channel
            .submit(&[operation], |_, error| result = Err(error));
        result
    }
}
