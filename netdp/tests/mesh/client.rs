//! Clients of the lab: single questions, flows that keep their port, and load.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::lab::{WAIT, inside};

/// Asks a TCP server once; what it said.
pub fn ask(from: &Path, to: &str) -> Result<String, std::io::Error> {
    let to: SocketAddr = to.parse().unwrap();
    inside(from, || {
        let mut stream = TcpStream::connect_timeout(&to, WAIT)?;
        exchange(&mut stream)
    })
}

pub fn exchange(stream: &mut TcpStream) -> Result<String, std::io::Error> {
    stream.set_read_timeout(Some(WAIT))?;
    stream.write_all(b"who?")?;
    let mut buffer = [0; 200];
    let n = stream.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

/// A UDP socket that has one partner.
pub fn flow(from: &Path, local: &str, to: &str) -> Result<UdpSocket, std::io::Error> {
    inside(from, || {
        // A program that another test starts meanwhile has all descriptors of this process until its
        // execve(2), also that of the flow before, which is closed.
        let end = Instant::now() + WAIT;
        let socket = loop {
            match UdpSocket::bind(local) {
                Err(error)
                    if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < end =>
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
                outcome => break outcome?,
            }
        };
        socket.set_read_timeout(Some(WAIT))?;
        socket.connect(to)?;
        Ok(socket)
    })
}

/// One question of a flow; a lost datagram is an error.
pub fn exchange_udp(flow: &UdpSocket) -> Result<String, std::io::Error> {
    flow.send(b"who?")?;
    let mut buffer = [0; 200];
    let n = flow.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

/// Asks a UDP server once.
pub fn ask_udp(from: &Path, local: &str, to: &str) -> Result<String, std::io::Error> {
    exchange_udp(&flow(from, local, to)?)
}

/// Connects from a given local address, which may be in use by other connections.
pub fn connect_from(from: &Path, local: &str, to: &str) -> Result<TcpStream, std::io::Error> {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
        sockopt,
    };
    use std::os::fd::AsRawFd;
    let address = |text: &str| SockaddrStorage::from(text.parse::<SocketAddr>().unwrap());
    inside(from, || {
        let family = if to.starts_with('[') {
            AddressFamily::Inet6
        } else {
            AddressFamily::Inet
        };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        let timeout = nix::sys::time::TimeVal::new(5, 0);
        setsockopt(&fd, sockopt::SendTimeout, &timeout)?;
        bind(fd.as_raw_fd(), &address(local))?;
        connect(fd.as_raw_fd(), &address(to))?;
        Ok(TcpStream::from(fd))
    })
}

/// Requests without pause, each by a connection of its own, until stopped.
pub struct Load {
    stop: Arc<std::sync::atomic::AtomicBool>,
    answered: Arc<std::sync::atomic::AtomicUsize>,
    thread: std::thread::JoinHandle<(usize, Vec<String>)>,
}

impl Load {
    pub fn start(from: &Path, to: &[&str]) -> Self {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let answered = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&answered);
        let from = from.to_owned();
        let to: Vec<SocketAddr> = to.iter().map(|to| to.parse().unwrap()).collect();
        let thread = std::thread::spawn(move || {
            inside(&from, || {
                let (mut good, mut bad) = (0, Vec::new());
                for to in to.iter().cycle() {
                    if flag.load(std::sync::atomic::Ordering::Relaxed) {
                        break;
                    }
                    let answer = TcpStream::connect_timeout(to, WAIT)
                        .and_then(|mut stream| exchange(&mut stream));
                    match answer {
                        Ok(answer) if !answer.is_empty() => {
                            good += 1;
                            count.store(good, std::sync::atomic::Ordering::Relaxed);
                        }
                        Ok(_) => bad.push(format!("{to}: closed without an answer")),
                        Err(error) => bad.push(format!("{to}: {error}")),
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                (good, bad)
            })
        });
        Self {
            stop,
            answered,
            thread,
        }
    }

    /// How many requests were answered so far.
    pub fn answered(&self) -> usize {
        self.answered.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// How many requests were answered, and what went wrong with the others.
    pub fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.join().expect("the load's thread lives")
    }
}
