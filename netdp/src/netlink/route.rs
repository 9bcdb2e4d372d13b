//! rtnetlink: requests with their object, and dumps.

use std::io;

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{Message, NLM_F_DUMP, NetlinkError, Socket};
use crate::error::NetdpError;

/// A change of kernel state, with words for the error message.
#[derive(Debug)]
pub(crate) struct Request {
    /// Verb: `create`, `delete`, `set`.
    pub(crate) action: &'static str,
    /// What it is about.
    pub(crate) object: String,
    /// Beside `NLM_F_REQUEST` and `NLM_F_ACK`.
    pub(crate) flags: u16,
    pub(crate) message: RouteNetlinkMessage,
    /// Errnos that mean that there was nothing to do.
    pub(crate) accept: &'static [i32],
}

/// An rtnetlink socket of one namespace.
#[derive(Debug)]
pub(crate) struct RouteSocket(Socket);

impl RouteSocket {
    /// Opens one in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        Socket::open(NETLINK_ROUTE).map(Self)
    }

    /// Carries out every request; the errors of those that failed.
    pub(crate) fn execute(&mut self, requests: Vec<Request>) -> Vec<NetdpError> {
        if requests.is_empty() {
            return Vec::new();
        }
        let messages: Vec<Message> = requests
            .iter()
            .map(|r| encode(&r.message, r.flags))
            .collect();
        let answers = match self.0.batch(&messages) {
            Ok(answers) => answers,
            Err(source) => {
                return vec![NetdpError::Netlink {
                    action: "talk to rtnetlink".to_owned(),
                    source,
                }];
            }
        };
        let failed = requests
            .into_iter()
            .zip(answers)
            .filter_map(|(request, answer)| {
                let source = answer.err()?;
                (!request.accept.contains(&source.errno())).then_some(NetdpError::Refused {
                    action: request.action,
                    object: request.object,
                    source,
                })
            });
        failed.collect()
    }

    /// Everything of a kind. A dump that the kernel says was interrupted by a change is what it
    /// is: the next reconciliation sees the rest.
    pub(crate) fn dump(
        &mut self,
        request: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let mut found = Vec::new();
        self.0.dump(&encode(request, NLM_F_DUMP), |kind, payload| {
            found.push(decode(kind, payload)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// The one answer to a request.
    pub(crate) fn get(
        &mut self,
        request: &RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, NetlinkError> {
        let (kind, payload) = self.0.get(&encode(request, 0))?;
        decode(kind, &payload)
    }
}

fn encode(message: &RouteNetlinkMessage, flags: u16) -> Message {
    let mut payload = vec![0; message.buffer_len()];
    message.serialize(&mut payload);
    Message {
        kind: message.message_type(),
        flags,
        payload,
    }
}

fn decode(kind: u16, payload: &[u8]) -> Result<RouteNetlinkMessage, NetlinkError> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    RouteNetlinkMessage::deserialize(&header, payload)
        .map_err(|error| NetlinkError::malformed(&error.to_string()))
}
