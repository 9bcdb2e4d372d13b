//! One question to one upstream.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Header, MessageType, Query, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

use super::{Transport, random, stream};
use crate::netns::Netns;

/// After this long without a reply the same UDP packet is sent again: one of the two may be lost.
const RESEND: Duration = Duration::from_millis(1500);

/// A query on its way: what all upstreams are sent, but for the id.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub bytes: Vec<u8>,
    pub question: Query,
    /// Longest reply that the client takes, in bytes.
    pub limit: u16,
    pub transport: Transport,
}

/// Where the sockets towards the upstreams are made.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// In the namespace that this process is in: the node's.
    Node,
    /// In the task's.
    Netns(Arc<Netns>),
}

/// Asks, and waits for a reply that is one: from that address, with our id and our question. The
/// caller bounds the time.
pub(super) async fn ask(
    origin: Origin,
    upstream: SocketAddr,
    query: Arc<Outgoing>,
) -> io::Result<(ResponseCode, Vec<u8>)> {
    let id = random();
    let mut bytes = query.bytes.clone();
    if let Some(place) = bytes.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
    match query.transport {
        Transport::Udp => ask_udp(&origin, upstream, &query, &bytes, id).await,
        Transport::Tcp => ask_tcp(&origin, upstream, &query, &bytes, id).await,
    }
}

async fn ask_udp(
    origin: &Origin,
    upstream: SocketAddr,
    query: &Outgoing,
    bytes: &[u8],
    id: u16,
) -> io::Result<(ResponseCode, Vec<u8>)> {
    // A socket of its own for each query: the kernel chooses the port at random, which together
    // with the id is what somebody who forges a reply has to guess (RFC 5452).
    let socket = origin.socket(move || udp_socket(upstream)).await?;
    let socket = UdpSocket::from_std(socket)?;
    // One byte more shows that a reply is longer than it may be.
    let mut buffer = vec![0; usize::from(query.limit) + 1];
    loop {
        socket.send(bytes).await?;
        let reply = timeout(RESEND, async {
            loop {
                let length = socket.recv(&mut buffer).await?;
                let reply = buffer.get(..length).unwrap_or_default();
                if length > usize::from(query.limit) {
                    continue;
                }
                if let Some(code) = accept(reply, id, &query.question) {
                    return Ok((code, reply.to_vec()));
                }
            }
        });
        if let Ok(reply) = reply.await {
            return reply;
        }
    }
}

async fn ask_tcp(
    origin: &Origin,
    upstream: SocketAddr,
    query: &Outgoing,
    bytes: &[u8],
    id: u16,
) -> io::Result<(ResponseCode, Vec<u8>)> {
    let socket = origin.socket(move || tcp_socket(upstream)).await?;
    let connection = socket.connect(upstream).await?;
    stream::write(&connection, bytes).await?;
    let reply = stream::read(&connection)
        .await?
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let code = accept(&reply, id, &query.question)
        .ok_or_else(|| io::Error::other("the reply is not to the question that was asked"))?;
    Ok((code, reply))
}

impl Origin {
    /// Makes a socket there.
    async fn socket<T: Send + 'static>(
        &self,
        make: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Self::Node => make(),
            Self::Netns(netns) => {
                let netns = Arc::clone(netns);
                let work = move || netns.run(make).map_err(io::Error::other)?;
                tokio::task::spawn_blocking(work)
                    .await
                    .map_err(io::Error::other)?
            }
        }
    }
}

fn udp_socket(upstream: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let any: IpAddr = match upstream {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    // Connected: the kernel drops what comes from elsewhere, and reports a closed port at once.
    socket.connect(upstream)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn tcp_socket(upstream: SocketAddr) -> io::Result<TcpSocket> {
    match upstream {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
}

/// The response code, if this is a reply to our query. One without question counts where it reports
/// a failure: some servers leave the question out then.
fn accept(reply: &[u8], id: u16, question: &Query) -> Option<ResponseCode> {
    let mut decoder = BinDecoder::new(reply);
    let header = Header::read(&mut decoder).ok()?;
    if header.id != id || header.message_type != MessageType::Response {
        return None;
    }
    let matches = match header.counts.queries {
        0 => !is_useful(header.response_code),
        1 => Query::read(&mut decoder).is_ok_and(|echoed| echoed == *question),
        _ => false,
    };
    matches.then_some(header.response_code)
}

/// Whether it says something about the name, and not about the server.
pub(super) fn is_useful(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
