//! Asks the tests' servers, from a network namespace or from inside a task.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

use crate::tools::inside;

/// How long an answer may take: only a failing test waits so long.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    /// Which one it was.
    pub replica: String,
    /// Whom it saw.
    pub client: IpAddr,
    /// From which port.
    pub port: u16,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} saw {}", self.replica, self.client)
    }
}

impl Answer {
    /// Reads `NAME ADDRESS PORT`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &str) -> io::Result<Self> {
        let parts: Vec<&str> = text.split_whitespace().collect();
        let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("no answer: {text:?}"));
        let [replica, client, port] = parts[..] else {
            return Err(bad());
        };
        Ok(Self {
            replica: replica.to_owned(),
            client: client.parse().map_err(|_| bad())?,
            port: port.parse().map_err(|_| bad())?,
        })
    }
}

/// Asks a TCP server once, over a new connection from a namespace.
///
/// # Errors
/// Of the connection, and when the answer makes no sense.
pub fn ask_tcp(netns: &Path, to: &str) -> io::Result<Answer> {
    let mut client = Client::tcp(netns, None, to)?;
    client.ask()
}

/// Asks a UDP server once, from a new socket in a namespace.
///
/// # Errors
/// Of the socket, and when the answer makes no sense.
pub fn ask_udp(netns: &Path, to: &str) -> io::Result<Answer> {
    let mut client = Client::udp(netns, None, to)?;
    client.ask()
}

/// A connected socket. It stays where it was made, wherever it is used.
#[derive(Debug)]
pub enum Client {
    /// With the reading half.
    Tcp(BufReader<TcpStream>),
    /// Connected.
    Udp(UdpSocket),
}

impl Client {
    /// A TCP connection, from that local port where one is given.
    ///
    /// # Errors
    /// Of the connection.
    pub fn tcp(netns: &Path, port: Option<u16>, to: &str) -> io::Result<Self> {
        let fd = connected(netns, SockType::Stream, port, to)?;
        let stream = TcpStream::from(fd);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self::Tcp(BufReader::new(stream)))
    }

    /// A UDP socket, at that local port where one is given.
    ///
    /// # Errors
    /// Of the socket.
    pub fn udp(netns: &Path, port: Option<u16>, to: &str) -> io::Result<Self> {
        let socket = UdpSocket::from(connected(netns, SockType::Datagram, port, to)?);
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self::Udp(socket))
    }

    /// One request.
    ///
    /// # Errors
    /// Of the connection, and when the answer makes no sense.
    pub fn ask(&mut self) -> io::Result<Answer> {
        self.request("who")
    }

    /// One request; its first line of answer.
    ///
    /// # Errors
    /// Of the connection, and when the answer makes no sense.
    pub fn request(&mut self, request: &str) -> io::Result<Answer> {
        let request = format!("{request}\n");
        let mut text = String::new();
        match self {
            Self::Tcp(stream) => {
                stream.get_mut().write_all(request.as_bytes())?;
                if stream.read_line(&mut text)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Self::Udp(socket) => {
                socket.send(request.as_bytes())?;
                let mut buffer = [0; 2048];
                let length = socket.recv(&mut buffer)?;
                text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            }
        }
        Answer::parse(&text)
    }

    /// Has a TCP server send so many bytes; fails when fewer come.
    ///
    /// # Errors
    /// Of the connection.
    pub fn fetch(&mut self, bytes: usize) -> io::Result<()> {
        self.request(&format!("bytes {bytes}"))?;
        match self {
            Self::Tcp(stream) => stream.read_exact(&mut vec![0; bytes]),
            Self::Udp(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

fn connected(netns: &Path, kind: SockType, port: Option<u16>, to: &str) -> io::Result<OwnedFd> {
    let to: SocketAddr = to.parse().map_err(io::Error::other)?;
    let (family, any): (_, IpAddr) = match to {
        SocketAddr::V4(_) => (AddressFamily::Inet, [0; 4].into()),
        SocketAddr::V6(_) => (AddressFamily::Inet6, [0_u16; 8].into()),
    };
    inside(netns, || {
        let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
        if let Some(port) = port {
            // The same port towards two servers at once.
            setsockopt(&fd, sockopt::ReuseAddr, &true)?;
            bind(
                fd.as_raw_fd(),
                &SockaddrStorage::from(SocketAddr::new(any, port)),
            )?;
        }
        // Bounds connect(2) too.
        let limit = nix::sys::time::TimeVal::new(ANSWER_LIMIT.as_secs().cast_signed(), 0);
        setsockopt(&fd, sockopt::SendTimeout, &limit)?;
        connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
        Ok(fd)
    })
}

/// Tells the server in a task to do something; what came of it.
///
/// # Errors
/// What the task met, as `KIND text` in the words of [`io::ErrorKind`].
pub fn tell_task(netns: &Path, order: &str) -> Result<String, String> {
    let exchange = || -> io::Result<String> {
        let mut stream = TcpStream::connect("127.0.0.1:7777")?;
        stream.set_read_timeout(Some(ANSWER_LIMIT * 2))?;
        writeln!(stream, "{order}")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = inside(netns, exchange).map_err(|error| format!("the task's server: {error}"))?;
    match text.split_once(' ') {
        Some(("ok", text)) => Ok(text.to_owned()),
        Some(("error", error)) => Err(error.to_owned()),
        _ => Err(format!("the task's server said {text:?}")),
    }
}
