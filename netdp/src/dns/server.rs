//! Reads the queries of one task and writes the answers.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::answer::{Verdict, decide};
use super::directory::Directory;
use super::forward::Forwarder;
use super::request::UDP_QUERY;
use super::sockets::Sockets;
use super::upstream::Origin;
use super::{Transport, stream};
use crate::error::NetdpError;
use crate::netns::Netns;

/// Connections of one task at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;

/// A connection without a query for this long is closed (RFC 7766, 6.2.3 leaves it to the server),
/// and so is one whose client takes its answer no faster.
const IDLE: Duration = Duration::from_secs(10);

/// Pause after an error of a socket, such as EMFILE, that will not be gone at once.
const PAUSE: Duration = Duration::from_millis(100);

/// What one task may see, and whom else it asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Ids of the networks that the task is in, the one to look in first at the front.
    pub networks: Vec<String>,
    /// Servers for all other names; the first three are used. Empty for a task that may not reach
    /// the outside: all its networks are internal.
    pub upstreams: Vec<SocketAddr>,
    /// The namespace that the upstreams are asked from: the task's where the task names them
    /// itself, `None` for the node's.
    pub upstreams_from: Option<PathBuf>,
    /// The option `ndots` that the task or the node's resolv.conf sets; 0 when none does. Above 0 a
    /// name of one label is not asked outside.
    pub ndots: u8,
}

/// Serves one task until it is dropped.
#[derive(Debug)]
pub struct Server {
    /// Aborted when dropped, and with them what they have under way.
    _loops: JoinSet<()>,
}

/// What all queries of a task need.
#[derive(Debug)]
struct Shared {
    view: View,
    directory: watch::Receiver<Arc<Directory>>,
    forwarder: Forwarder,
}

impl Server {
    /// Starts to serve. The sockets are closed a moment after the server is dropped; other
    /// descriptors of them, and the queries that wait there, stay. Every query sees the directory
    /// that is current then.
    ///
    /// # Errors
    /// Outside of a Tokio runtime, on descriptors that are no sockets, or when
    /// [`View::upstreams_from`] cannot be opened.
    ///
    /// # Panics
    /// In a Tokio runtime that was built without I/O or time.
    pub fn start(
        sockets: Sockets,
        view: View,
        directory: watch::Receiver<Arc<Directory>>,
    ) -> Result<Self, NetdpError> {
        let failed = || NetdpError::system("start the DNS server of a task");
        let runtime = Handle::try_current().map_err(|e| failed()(io::Error::other(e)))?;
        let udp = std::net::UdpSocket::from(sockets.udp);
        udp.set_nonblocking(true).map_err(failed())?;
        let udp = UdpSocket::from_std(udp).map_err(failed())?;
        let tcp = std::net::TcpListener::from(sockets.tcp);
        tcp.set_nonblocking(true).map_err(failed())?;
        let tcp = TcpListener::from_std(tcp).map_err(failed())?;

        let origin = match &view.upstreams_from {
            Some(path) => Origin::Netns(Arc::new(Netns::open(path)?)),
            None => Origin::Node,
        };
        let forwarder = Forwarder::new(&view.upstreams, origin);
        let shared = Arc::new(Shared {
            view,
            directory,
            forwarder,
        });
        let mut loops = JoinSet::new();
        loops.spawn_on(serve_udp(Arc::new(udp), Arc::clone(&shared)), &runtime);
        loops.spawn_on(serve_tcp(tcp, shared), &runtime);
        Ok(Self { _loops: loops })
    }
}

impl Shared {
    fn decide(&self, query: &[u8], transport: Transport) -> Verdict {
        // Not held while anything is waited for: that would stop the one who sets it.
        let directory = Arc::clone(&self.directory.borrow());
        decide(query, transport, &self.view, &directory)
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = vec![0; usize::from(UDP_QUERY)];
    let mut under_way = JoinSet::new();
    loop {
        while under_way.try_join_next().is_some() {}
        let (query, client) = match socket.recv_from(&mut buffer).await {
            Ok((length, client)) => (buffer.get(..length).unwrap_or_default(), client),
            Err(error) => {
                tracing::debug!(%error, "cannot receive DNS queries of a task");
                sleep(PAUSE).await;
                continue;
            }
        };
        match shared.decide(query, Transport::Udp) {
            Verdict::Ignore => {}
            Verdict::Reply(reply) => send(&socket, &reply, client).await,
            Verdict::Forward(request) => {
                let (socket, shared, query) =
                    (Arc::clone(&socket), Arc::clone(&shared), query.to_vec());
                under_way.spawn(async move {
                    let reply = shared
                        .forwarder
                        .resolve(&query, &request, Transport::Udp)
                        .await;
                    if let Some(reply) = reply {
                        send(&socket, &reply, client).await;
                    }
                });
            }
        }
    }
}

/// A reply that cannot be sent is lost, as on any network; the client asks again.
async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%client, %error, "cannot send a DNS reply to a task");
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        while connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, client)) => {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    if let Err(error) = converse(&stream, &shared).await {
                        tracing::debug!(%client, %error, "DNS connection of a task broke off");
                    }
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept DNS connections of a task");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Answers one query after the other until the client closes or falls silent.
async fn converse(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    while let Ok(next) = timeout(IDLE, stream::read(stream)).await {
        let Some(query) = next? else { break };
        let reply = match shared.decide(&query, Transport::Tcp) {
            Verdict::Ignore => break,
            Verdict::Reply(reply) => Some(reply),
            Verdict::Forward(request) => {
                shared
                    .forwarder
                    .resolve(&query, &request, Transport::Tcp)
                    .await
            }
        };
        let Some(reply) = reply else { break };
        timeout(IDLE, stream::write(stream, &reply)).await??;
    }
    Ok(())
}
