//! Errors.

use std::fmt;
use std::io;

use crate::destination::{Destination, DestinationId, Forward};
use crate::name::{Name, Scheduler};
use crate::operation::Operation;
use crate::service::{Netmask, ServiceId};
use crate::sync::SyncRole;

/// What can go wrong with one request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IpvsError {
    /// The kernel has no IPVS and could not load it.
    #[error(
        "this kernel offers no IPVS: module `ip_vs` is not loaded and the kernel's own attempt to \
         load it brought nothing (kernel option CONFIG_IP_VS; try `modprobe ip_vs` as root in the \
         initial namespaces)"
    )]
    NotAvailable,
    /// A privilege is missing.
    #[error("not permitted to {action}: IPVS asks for CAP_NET_ADMIN in the initial user namespace")]
    NotPermitted {
        /// What was being done.
        action: String,
    },
    /// The network namespace could not be entered.
    #[error("cannot enter the network namespace: {source}")]
    Namespace {
        /// Why.
        source: io::Error,
    },
    /// The netlink socket failed.
    #[error("cannot {action}: the netlink socket says: {source}")]
    Socket {
        /// What was being done.
        action: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel did not answer a request, or its answer was lost because the socket's receive
    /// buffer was full. Whether the request took effect is unknown.
    #[error("the kernel gave no answer to the request to {action}; it may have taken effect")]
    NoAnswer {
        /// What was being done.
        action: String,
    },
    /// A long list was never the same twice in a row, because services are being changed, possibly
    /// in other network namespaces. Try again.
    #[error("cannot {action}: services keep being changed meanwhile")]
    Unsteady {
        /// What was being done.
        action: String,
    },
    /// The kernel's answer makes no sense.
    #[error("cannot read the kernel's answer to the request to {action}: {source}")]
    Answer {
        /// What was being done.
        action: String,
        /// Why.
        source: DecodeError,
    },
    /// Neither the scheduler nor, if one was asked for, the persistence engine is certain to be in
    /// the kernel: it gives the same code for both.
    #[error("service {service}: {}", unknown_module(scheduler, persistence_engine))]
    UnknownScheduler {
        /// The service.
        service: ServiceId,
        /// The scheduler asked for.
        scheduler: Scheduler,
        /// The persistence engine asked for.
        persistence_engine: Option<Name>,
    },
    /// There is such a service already.
    #[error("service {service} exists already")]
    ServiceExists {
        /// The service.
        service: ServiceId,
    },
    /// There is no such service in this namespace.
    #[error("there is no service {service} in this network namespace")]
    NoSuchService {
        /// The service.
        service: ServiceId,
    },
    /// There is such a destination already.
    #[error("service {service} has a destination {destination} already")]
    DestinationExists {
        /// The service.
        service: ServiceId,
        /// The destination.
        destination: DestinationId,
    },
    /// There is no such destination.
    #[error("service {service} has no destination {destination}")]
    NoSuchDestination {
        /// The service.
        service: ServiceId,
        /// The destination.
        destination: DestinationId,
    },
    /// Service and destination are of different families, which only tunnels can bridge, and those
    /// only while no synchronisation daemon runs.
    #[error(
        "service {service} cannot have destination {destination} of the other address family with \
         forwarding method {forward}: only tunnels can, and only without a synchronisation daemon"
    )]
    MixedFamilies {
        /// The service.
        service: ServiceId,
        /// The destination.
        destination: DestinationId,
        /// Its forwarding method.
        forward: Forward,
    },
    /// There is a synchronisation daemon of this role already.
    #[error("the {role} synchronisation daemon of this network namespace runs already")]
    SyncRunning {
        /// The role.
        role: SyncRole,
    },
    /// There is no synchronisation daemon of this role.
    #[error("no {role} synchronisation daemon runs in this network namespace")]
    SyncNotRunning {
        /// The role.
        role: SyncRole,
    },
    /// The interface of a synchronisation daemon does not exist.
    #[error(
        "the {role} synchronisation daemon cannot use interface {interface}: this network \
         namespace has none of that name"
    )]
    NoSuchInterface {
        /// The role.
        role: SyncRole,
        /// The interface.
        interface: Name,
    },
    /// IPVS balances nothing of the protocol. The kernel was not asked: it would take the service and
    /// pass its packets by.
    #[error("service {service} cannot be: IPVS balances TCP, UDP and SCTP only")]
    UnknownProtocol {
        /// The service.
        service: ServiceId,
    },
    /// The netmask is one of the other address family. The kernel was not asked: it would take a
    /// prefix length for a mask.
    #[error("service {service} cannot have the netmask {netmask} of the other address family")]
    NetmaskFamily {
        /// The service.
        service: ServiceId,
        /// The netmask.
        netmask: Netmask,
    },
    /// The operation was not tried, because an earlier one of the same batch failed and the service
    /// might have been left without destinations that take connections.
    #[error("not tried: an earlier change of service {service} failed")]
    Skipped {
        /// The service.
        service: ServiceId,
    },
    /// Any other refusal of the kernel.
    #[error("the kernel refused to {action}: {}", refusal(*errno, message))]
    Refused {
        /// What was being done.
        action: String,
        /// The error number (`errno.h`), positive.
        errno: i32,
        /// The kernel's own words, where it has any.
        message: Option<String>,
    },
}

impl IpvsError {
    /// Whether what was to be created is there already.
    pub fn is_exists(&self) -> bool {
        matches!(
            self,
            Self::ServiceExists { .. } | Self::DestinationExists { .. } | Self::SyncRunning { .. }
        )
    }

    /// Whether what was to be read, changed or deleted is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::NoSuchService { .. }
                | Self::NoSuchDestination { .. }
                | Self::SyncNotRunning { .. }
        )
    }

    /// What the kernel's refusal of an operation means.
    pub(crate) fn of_operation(operation: &Operation, errno: i32, message: Option<String>) -> Self {
        use Operation as Op;
        match (*operation, errno) {
            (_, libc::EPERM) => Self::NotPermitted {
                action: operation.to_string(),
            },
            (Op::AddService(s), libc::EEXIST) => Self::ServiceExists { service: s.id },
            (Op::AddService(s) | Op::SetService(s), libc::ENOENT) => Self::UnknownScheduler {
                service: s.id,
                scheduler: s.scheduler,
                persistence_engine: s.persistence_engine,
            },
            (Op::AddDestination(service, d), libc::EEXIST) => Self::DestinationExists {
                service,
                destination: d.id,
            },
            (
                Op::SetDestination(
                    service,
                    Destination {
                        id: destination, ..
                    },
                ),
                libc::ENOENT,
            )
            | (Op::DeleteDestination(service, destination), libc::ENOENT) => {
                Self::NoSuchDestination {
                    service,
                    destination,
                }
            }
            (Op::AddDestination(service, d) | Op::SetDestination(service, d), libc::EINVAL)
                if service.family() != d.id.family()
                    && !matches!(d.forward, Forward::Tunnel(_)) =>
            {
                Self::MixedFamilies {
                    service,
                    destination: d.id,
                    forward: d.forward,
                }
            }
            (Op::StartSync(daemon), libc::EEXIST) => Self::SyncRunning { role: daemon.role },
            (Op::StartSync(daemon), libc::ENODEV) => Self::NoSuchInterface {
                role: daemon.role,
                interface: daemon.interface,
            },
            (Op::StopSync(role), libc::ESRCH) => Self::SyncNotRunning { role },
            (_, errno) => match operation.service() {
                Some(service) if errno == libc::ESRCH => Self::NoSuchService { service },
                _ => Self::Refused {
                    action: operation.to_string(),
                    errno,
                    message,
                },
            },
        }
    }
}

fn unknown_module(scheduler: &Scheduler, engine: &Option<Name>) -> String {
    let scheduler_text = format!(
        "the kernel has no scheduler `{scheduler}` (module `ip_vs_{scheduler}`, kernel option \
         CONFIG_IP_VS_{})",
        scheduler.as_str().to_ascii_uppercase()
    );
    match engine {
        None => scheduler_text,
        Some(engine) => {
            format!(
                "{scheduler_text} or no persistence engine `{engine}` (module `ip_vs_pe_{engine}`)"
            )
        }
    }
}

fn refusal(errno: i32, message: &Option<String>) -> String {
    let system = io::Error::from_raw_os_error(errno);
    let hint = match errno {
        libc::ERANGE => "; the lower threshold is above the upper one, or the weight too great",
        libc::EINVAL => {
            "; a value is not allowed here, as an address that is not unicast or a link-local one \
             of IPv6 (and no IPv4 address is while no interface of the namespace was ever up), a \
             GUE tunnel without port, an IPv6 prefix outside 1 to 128, or destinations of the other address family together \
             with a synchronisation daemon"
        }
        libc::EAFNOSUPPORT => "; the kernel's IPVS was built without IPv6 (CONFIG_IP_VS_IPV6)",
        _ => "",
    };
    match message {
        Some(message) => format!("{system} ({message}){hint}"),
        None => format!("{system}{hint}"),
    }
}

/// Bytes from the kernel that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end within something.
    #[error("{what} is cut off")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// A value has the wrong size.
    #[error("{what} has {actual} bytes")]
    Length {
        /// What was being read.
        what: &'static str,
        /// Its size in bytes.
        actual: usize,
    },
    /// A name has a form that no kernel module's name has.
    #[error("{what} is no name")]
    Name {
        /// What was being read.
        what: &'static str,
    },
    /// A word is not what it should be.
    #[error("{what} is not readable")]
    Text {
        /// What was being read.
        what: &'static str,
    },
    /// A value means nothing.
    #[error("{what} has the unknown value {value}")]
    Value {
        /// What was being read.
        what: &'static str,
        /// The value.
        value: u64,
    },
    /// Something that must be there is not.
    #[error("{what} is missing")]
    Missing {
        /// What was looked for.
        what: &'static str,
    },
}

/// One operation of a batch that did not succeed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failure {
    /// Its place in the batch.
    pub index: usize,
    /// The operation.
    pub operation: Operation,
    /// Why.
    pub error: IpvsError,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.error)
    }
}

/// A batch of which at least one operation did not succeed. All others were carried out.
#[derive(Debug)]
#[non_exhaustive]
pub struct BatchError {
    /// What did not succeed, in the order of the batch; never empty.
    pub failures: Vec<Failure>,
    /// How many operations the batch had.
    pub total: usize,
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} operations failed",
            self.failures.len(),
            self.total
        )?;
        if let Some(first) = self.failures.first() {
            write!(f, ", the first: {first}")?;
        }
        Ok(())
    }
}

impl std::error::Error for BatchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.failures.first().map(|failure| &failure.error as _)
    }
}
