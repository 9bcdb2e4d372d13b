//! The DNS of a task: names of the cluster answered here, everything else forwarded.
//!
//! A task's resolver is 127.0.0.11:53. A task may bind port 53 itself, so the sockets sit on
//! [`PORT`] and a rewrite in the task's namespace leads there. They are made by [`bind`], apart from
//! the [`Server`] that reads them: somebody who outlives this process can hold them, and queries
//! then wait through a restart.
//!
//! Who asks sees only the networks of its [`View`]. What is answered to whom:
//!
//! | Question | Answer |
//! |---|---|
//! | `<service>`, service alias | VIPs on the network; without one (DNSRR) the addresses of the enabled backends |
//! | `tasks.<service>`, `tasks.<alias>` | addresses of the enabled backends |
//! | task name, task alias | addresses of that task's endpoint, whatever its state |
//! | each of these as `<name>.<network>` | the same, from that network only |
//! | PTR of an endpoint's address or a VIP | `<task name>.<network>.` or `<service>.<network>.` |
//! | such a name, other family or other type (MX, TXT, HTTPS...) | no error, empty |
//! | single label, A or AAAA, not ours, `ndots` set | no error, empty: the client goes on with its search list |
//! | anything else | the upstreams' answer; SERVFAIL without upstreams |
//! | more or fewer than one question, malformed | FORMERR (RFC 9619) |
//! | class other than IN, zone transfer | REFUSED |
//! | opcode other than QUERY; EDNS version above 0 | NOTIMP; BADVERS |
//! | a response; less than a header | silence |
//!
//! What a task may notice that is different from Docker's resolver:
//! - Other types of the cluster's own names stay inside. Docker forwards them, and a client that
//!   asks for HTTPS records hears from outside that the name does not exist.
//! - The name of a service without ready tasks is empty, and not asked outside.
//! - A task's own name holds before the task is healthy and while it drains, so that the members of
//!   a cluster find each other.
//! - Answers live for seconds, not ten minutes.
//! - Upstreams are asked side by side, and their answers are kept as long as they allow.

mod answer;
mod cache;
mod directory;
mod forward;
mod request;
mod server;
mod sockets;
mod stream;
mod upstream;

pub use directory::Directory;
pub use server::{Server, View};
pub use sockets::{ADDRESS, PORT, Sockets, bind};

/// How a query came, and how it is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Transport {
    Udp,
    Tcp,
}

/// An unpredictable number, from the generator that hickory draws its message ids from.
fn random() -> u16 {
    hickory_proto::op::Message::query().metadata.id
}
