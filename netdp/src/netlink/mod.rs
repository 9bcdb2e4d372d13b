//! Netlink, blocking and pipelined.
//!
//! A socket belongs to the network namespace in which it was opened and can be used from anywhere.
//! Many requests go out in one datagram, each is acknowledged, and each acknowledgement is tied to
//! the request that it answers, so that an error names its object. (An asynchronous handle that
//! sends one message at a time would wait once per message.)

mod error;
mod route;
mod socket;

pub use error::NetlinkError;
pub(crate) use route::{Request, RouteSocket};
pub(crate) use socket::{
    Message, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, Socket,
};
