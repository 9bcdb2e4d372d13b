//! The connection table.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::destination::DestinationId;
use crate::name::Name;
use crate::service::{Protocol, ServiceId};

mod line;
mod table;

#[cfg(any(test, fuzzing))]
pub(crate) use line::connection as parse;
pub use table::{ConnectionError, ConnectionTable, Connections};

/// A connection that IPVS keeps, as `/proc/net/ip_vs_conn` tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connection {
    /// Transport protocol; 0 in the templates of mark services.
    pub protocol: Protocol,
    /// The client. The port is 0 in a template.
    pub client: SocketAddr,
    /// The address and port that the client sends to. In the template of a mark service the address
    /// is the mark.
    pub virtual_address: SocketAddr,
    /// The destination, possibly of the other address family.
    pub destination: SocketAddr,
    /// The state.
    pub state: ConnectionState,
    /// After so many seconds without a packet the kernel forgets the connection.
    pub expires: u64,
    /// What a persistence engine knows the client by.
    pub persistence: Option<PersistenceData>,
}

/// What a persistence engine knows a client by.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PersistenceData {
    /// The engine.
    pub engine: Name,
    /// Its data, as the engine writes it; for `sip` the call's id.
    pub data: String,
}

impl Connection {
    /// Whether this is no connection but the memory of a persistent service: the client's next
    /// connections go to this destination as well.
    pub fn is_template(&self) -> bool {
        // FTP's data connections have no client port either until they are used.
        self.client.port() == 0 && self.state != ConnectionState::LISTEN
    }

    /// Whether it goes through a service to a destination.
    ///
    /// The table does not tell everything: a mark only in templates, so that for a mark service every
    /// connection to the destination counts; nor which service it was, so that for a service on
    /// every port those of other services on its address count. Templates are told apart by
    /// [`Connection::is_template`].
    pub fn belongs_to(&self, service: &ServiceId, destination: &DestinationId) -> bool {
        let template = self.is_template();
        // Templates of mark services, of FTP and of services on every port have no ports.
        let is = |port: u16, wanted: u16| port == wanted || wanted == 0 || template && port == 0;
        let through = match service {
            ServiceId::Mark { mark, .. } => !template || self.mark() == Some(mark.get()),
            ServiceId::Address {
                protocol,
                address,
                port,
            } => {
                self.protocol == *protocol
                    && self.virtual_address.ip() == *address
                    && is(self.virtual_address.port(), *port)
            }
        };
        through
            && self.destination.ip() == destination.address
            && is(self.destination.port(), destination.port)
    }

    /// The mark in the template of a mark service: the first four bytes of the address.
    fn mark(&self) -> Option<u32> {
        let bits = match self.virtual_address.ip() {
            IpAddr::V4(address) => address.to_bits(),
            // The highest of four words; it always fits.
            IpAddr::V6(address) => (address.to_bits() >> 96) as u32,
        };
        (self.protocol == Protocol(0)).then_some(bits)
    }
}

/// As `ipvsadm -Lnc` writes it.
impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol(0) => "IP".to_owned(),
            Protocol(1) => "ICMP".to_owned(),
            Protocol(58) => "ICMPv6".to_owned(),
            protocol @ (Protocol::TCP | Protocol::UDP | Protocol::SCTP) => protocol.to_string(),
            Protocol(other) => format!("IP_{other}"),
        };
        let expires = format!("{:02}:{:02}", self.expires / 60, self.expires % 60);
        let [client, virtual_address, destination] =
            [self.client, self.virtual_address, self.destination].map(|a| a.to_string());
        write!(
            f,
            "{protocol:<3} {expires:<6} {:<11} {client:<18} {virtual_address:<18} {destination}",
            self.state
        )
    }
}

/// The state of a connection, by the kernel's word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionState(Name);

impl ConnectionState {
    /// No packet was seen yet; also templates.
    pub const NONE: Self = Self(Name::constant("NONE"));
    /// An established connection of TCP or SCTP.
    pub const ESTABLISHED: Self = Self(Name::constant("ESTABLISHED"));
    /// TCP: the client asked for a connection, the destination has not answered.
    pub const SYN_RECV: Self = Self(Name::constant("SYN_RECV"));
    /// TCP: the destination asked for a connection (FTP).
    pub const SYN_SENT: Self = Self(Name::constant("SYN_SENT"));
    /// TCP: one side has ended its stream.
    pub const FIN_WAIT: Self = Self(Name::constant("FIN_WAIT"));
    /// TCP: ended.
    pub const TIME_WAIT: Self = Self(Name::constant("TIME_WAIT"));
    /// TCP: reset.
    pub const CLOSE: Self = Self(Name::constant("CLOSE"));
    /// TCP: a data connection of FTP is expected.
    pub const LISTEN: Self = Self(Name::constant("LISTEN"));
    /// UDP, which has only this one.
    pub const UDP: Self = Self(Name::constant("UDP"));
    /// A template under which a connection was established (Linux 4.19).
    pub const ASSURED: Self = Self(Name::constant("ASSURED"));

    /// The kernel's word.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Name> for ConnectionState {
    fn from(name: Name) -> Self {
        Self(name)
    }
}
