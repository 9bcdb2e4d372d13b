//! What the tests' tasks run: `fairlead-test-server tcp:80 udp:5353 ...`
//!
//! Each request, a line over TCP or a datagram, is answered with `NAME CLIENT-ADDRESS CLIENT-PORT`,
//! where `NAME` is the environment's `REPLICA`; a connection takes many requests. A request of HTTP
//! is answered in HTTP. The request `bytes N` is answered with N more bytes, and `sleep N` after N
//! milliseconds. On 127.0.0.1:7777 it does things for the test that a process of the task has to
//! do: `ask tcp|udp ADDRESS` and `resolve NAME`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

const CONTROL: &str = "127.0.0.1:7777";
const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    // Blocked, so that they are delivered although this may be PID 1; every thread inherits it.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().expect("signals are blocked");

    let name: Arc<str> = std::env::var("REPLICA").unwrap_or_default().into();
    let busy = Arc::new(AtomicUsize::new(0));
    for port in std::env::args().skip(1) {
        let (name, busy) = (Arc::clone(&name), Arc::clone(&busy));
        match port.split_once(':') {
            Some(("tcp", port)) => {
                let listener = TcpListener::bind(format!("[::]:{port}")).expect("TCP port");
                thread::spawn(move || {
                    for stream in listener.incoming().flatten() {
                        let (name, busy) = (Arc::clone(&name), Arc::clone(&busy));
                        thread::spawn(move || serve(stream, &name, &busy));
                    }
                });
            }
            Some(("udp", port)) => {
                let socket = UdpSocket::bind(format!("[::]:{port}")).expect("UDP port");
                thread::spawn(move || serve_udp(&socket, &name));
            }
            _ => panic!("neither tcp:PORT nor udp:PORT: {port}"),
        }
    }
    let control = TcpListener::bind(CONTROL).expect("control port");
    thread::spawn(move || {
        for stream in control.incoming().flatten() {
            thread::spawn(move || obey(stream));
        }
    });
    println!("{name} serves");
    signals.wait().expect("a signal");
    // What was asked is answered.
    while busy.load(Ordering::SeqCst) > 0 {
        thread::sleep(Duration::from_millis(5));
    }
    println!("{name} ends");
    exit(0);
}

fn answer(name: &str, peer: SocketAddr) -> String {
    format!("{name} {} {}\n", peer.ip().to_canonical(), peer.port())
}

fn serve(stream: TcpStream, name: &str, busy: &AtomicUsize) -> Option<()> {
    let peer = stream.peer_addr().ok()?;
    stream.set_nodelay(true).ok()?;
    let mut out = stream.try_clone().ok()?;
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).ok()? == 0 {
            return None;
        }
        busy.fetch_add(1, Ordering::SeqCst);
        let sent = (|| {
            let text = answer(name, peer);
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["GET", ..] => {
                    let mut header = String::new();
                    while lines.read_line(&mut header)? > 2 {
                        header.clear();
                    }
                    write!(
                        out,
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
                        text.len()
                    )
                }
                ["bytes", count] => {
                    out.write_all(text.as_bytes())?;
                    let count: usize = count.parse().map_err(io::Error::other)?;
                    out.write_all(&vec![b'.'; count])
                }
                ["sleep", millis] => {
                    thread::sleep(Duration::from_millis(
                        millis.parse().map_err(io::Error::other)?,
                    ));
                    out.write_all(text.as_bytes())
                }
                _ => out.write_all(text.as_bytes()),
            }
        })();
        busy.fetch_sub(1, Ordering::SeqCst);
        sent.ok()?;
    }
}

fn serve_udp(socket: &UdpSocket, name: &str) {
    let mut buffer = [0; 2048];
    loop {
        // An ICMP error of an earlier answer is no reason to end.
        if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(answer(name, peer).as_bytes(), peer);
        }
    }
}

fn obey(stream: TcpStream) -> Option<()> {
    let mut out = stream.try_clone().ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    let result = match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["ask", "tcp", to] => ask_tcp(to),
        ["ask", "udp", to] => ask_udp(to),
        ["resolve", name] => resolve(name),
        _ => Err(io::Error::other("what?")),
    };
    let text = match result {
        Ok(text) => format!("ok {text}"),
        Err(error) => format!("error {:?} {error}", error.kind()),
    };
    out.write_all(text.trim_end().as_bytes()).ok()
}

fn address(to: &str) -> io::Result<SocketAddr> {
    to.to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::other("the name has no address"))
}

fn ask_tcp(to: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address(to)?, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"who\n")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn ask_udp(to: &str) -> io::Result<String> {
    let to = address(to)?;
    let any: IpAddr = if to.is_ipv4() {
        [0; 4].into()
    } else {
        [0_u16; 8].into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    socket.send(b"who\n")?;
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn resolve(name: &str) -> io::Result<String> {
    let mut addresses: Vec<String> = (name, 0)
        .to_socket_addrs()?
        .map(|a| a.ip().to_string())
        .collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses.join(" "))
}
