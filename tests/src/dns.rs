//! A DNS server of the outside world that knows one thing.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::tools::inside;

/// Answers each query of type A with one address, and others with nothing.
#[derive(Debug)]
pub struct Upstream {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Listens on UDP port 53 of all addresses of a namespace.
    ///
    /// # Panics
    /// When the port is taken.
    #[must_use]
    pub fn start(netns: &Path, address: Ipv4Addr) -> Self {
        let socket = inside(netns, || UdpSocket::bind("[::]:53")).expect("port 53");
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("time-out");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut query = [0; 1500];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, peer)) = socket.recv_from(&mut query)
                    && let Some(answer) = answer(&query[..length], address)
                {
                    let _ = socket.send_to(&answer, peer);
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// RFC 1035, section 4: the question again, and a record that points at it.
fn answer(query: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    const A: [u8; 2] = [0, 1];
    let name = query.get(HEADER..)?;
    let mut end = 0;
    while *name.get(end)? != 0 {
        end += usize::from(name[end]) + 1;
    }
    let question = name.get(..end + 5)?;
    let is_a = question[end + 1..end + 3] == A;
    let mut reply = query[..2].to_vec();
    // Response, recursion desired and available; one question; one answer or none.
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    reply.extend(question);
    if is_a {
        // The name at offset 12, class IN, 60 seconds, 4 bytes.
        reply.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(address.octets());
    }
    Some(reply)
}
