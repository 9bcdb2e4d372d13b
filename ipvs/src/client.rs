//! Talking to the kernel.

use std::fmt;
use std::os::fd::BorrowedFd;

use crate::batch;
use crate::channel::Channel;
use crate::destination::{Destination, DestinationEntry, DestinationId};
use crate::error::{BatchError, IpvsError};
use crate::netns;
use crate::operation::Operation;
use crate::plan::Pool;
use crate::service::{Service, ServiceEntry, ServiceId};
use crate::stats::{Info, Timeouts};
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
        let services = self.services()?;
        services
            .into_iter()
            .map(|entry| {
                let destinations = self.list_destinations(&entry.service.id)?;
                Ok(Pool {
                    service: entry.service,
                    destinations: destinations.into_iter().map(|d| d.destination).collect(),
                })
            })
            .collect()
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
    /// destination could not be added or changed, later deletions of destinations of the same
    /// service are [skipped](IpvsError::Skipped), because they may leave the service empty.
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
