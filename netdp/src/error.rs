//! What can go wrong, and with what.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::desired::Protocol;
use crate::netlink::NetlinkError;

/// Why the kernel could not be brought to the desired state.
#[derive(Debug, thiserror::Error)]
pub enum NetdpError {
    /// The kernel refused one request.
    #[error("cannot {action} {object}: {source}")]
    Refused {
        /// Verb: `create`, `delete`, `set`...
        action: &'static str,
        /// What it was about, with its kind and namespace.
        object: String,
        /// Errno and the kernel's own explanation, if it gave one.
        source: NetlinkError,
    },
    /// Talking to the kernel failed.
    #[error("cannot {action}: {source}")]
    Netlink {
        /// Such as `list the links of network app`.
        action: String,
        /// Errno and the kernel's own explanation, if it gave one.
        source: NetlinkError,
    },
    /// IPVS refused.
    #[error("cannot program IPVS of {object}: {source}")]
    Ipvs {
        /// Which namespace.
        object: String,
        /// What IPVS said.
        source: ipvs::IpvsError,
    },
    /// A file or system call failed.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// Verb: `open`, `write`, `create`...
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Errno.
        source: io::Error,
    },
    /// A system call that is about no file failed.
    #[error("cannot {action}: {source}")]
    System {
        /// What was being done.
        action: String,
        /// Errno.
        source: io::Error,
    },
    /// Somebody else on this node has the port.
    #[error(
        "port {port}/{protocol} is already in use on this node: {source} (see what has it, or had it a minute ago: ss -anp 'sport = :{port}')"
    )]
    PortTaken {
        /// Transport protocol.
        protocol: Protocol,
        /// Port number.
        port: u16,
        /// EADDRINUSE.
        source: io::Error,
    },
    /// Another task of ours has the port.
    #[error("port {port}/{protocol} is already in use on this node by {holder}")]
    PortHeld {
        /// Transport protocol.
        protocol: Protocol,
        /// Port number.
        port: u16,
        /// Task or service.
        holder: String,
    },
    /// No port is left to choose from.
    #[error("no free {protocol} port between {first} and {last}")]
    NoPortFree {
        /// Transport protocol.
        protocol: Protocol,
        /// Lower end of the range.
        first: u16,
        /// Upper end of the range.
        last: u16,
    },
    /// A VTEP of this node is on none of its interfaces.
    #[error(
        "this node's VTEP {0} is not an address of any of its interfaces: add it, or configure the node with one of its addresses"
    )]
    NoSuchVtep(IpAddr),
    /// A device lacks whose other end is in another namespace. Both are made anew.
    #[error(
        "{namespace} has no link {link}: it could not be made, or somebody renamed it or took it away; it is made anew"
    )]
    NoLink {
        /// Where it should be.
        namespace: String,
        /// Its name.
        link: String,
    },
    /// The desired state contradicts itself, or asks for what this engine cannot do.
    #[error("{0}")]
    Unsatisfiable(String),
}

impl NetdpError {
    /// Whether the same request may succeed a little later: the kernel was busy or short of memory, or
    /// what is in the way is ours and is about to go. Two that stay are not wanted at a time.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            // The VXLAN device of a network that goes, while another one with its VNI comes.
            Self::Refused { source, .. } if source.errno() == libc::EEXIST => true,
            Self::Refused { source, .. } | Self::Netlink { source, .. } => {
                transient(source.errno())
            }
            Self::File { source, .. } | Self::System { source, .. } => {
                source.raw_os_error().is_some_and(transient)
            }
            // The address may come a little later than the daemon, by DHCP for example.
            Self::NoLink { .. } | Self::PortHeld { .. } | Self::NoSuchVtep(_) => true,
            Self::Ipvs { source, .. } => ipvs_transient(source),
            Self::PortTaken { .. } | Self::NoPortFree { .. } | Self::Unsatisfiable(_) => false,
        }
    }

    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }

    pub(crate) fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::System { action, source }
    }
}

fn ipvs_transient(error: &ipvs::IpvsError) -> bool {
    use ipvs::IpvsError as E;
    match error {
        E::Refused { errno, .. } => transient(*errno),
        E::Namespace { source } | E::Socket { source, .. } => {
            source.raw_os_error().is_some_and(transient)
        }
        // Somebody changes the same table; the next try looks at it again.
        E::NoAnswer { .. } | E::Unsteady { .. } | E::Skipped { .. } => true,
        error => error.is_exists() || error.is_not_found(),
    }
}

fn transient(errno: i32) -> bool {
    matches!(
        errno,
        libc::EBUSY
            | libc::EAGAIN
            | libc::ENOBUFS
            | libc::ETIMEDOUT
            | libc::EINTR
            | libc::ENOMEM
            | libc::EMFILE
            | libc::ENFILE
            | libc::ENOSPC
            | libc::EDQUOT
    )
}
