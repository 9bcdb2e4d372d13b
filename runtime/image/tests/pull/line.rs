//! A bad line: what stands between us and a server, sees what is asked, and spoils answers.

use std::{
    io::{BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::http::Head;

/// Where the line begins, unless a test says otherwise.
pub const LINE: &str = "127.0.0.1:5001";

/// What happens to a request.
pub enum Fault {
    /// Nothing.
    None,
    /// It gets no answer, and the connection ends.
    Hangup,
    /// It is answered here: status, further headers, body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// Nothing more comes after so many bytes of the body; the connection stays.
    Stall(usize),
    /// So many bytes, a pause, and so on.
    Slow(usize, Duration),
    /// The body becomes another one, whose length is told.
    Body(fn(Vec<u8>) -> Vec<u8>),
    /// The server behind is not told which part is wanted.
    Whole,
    /// An answer's header is replaced.
    Header(&'static str, String),
}

/// A request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub head: Head,
    pub body: String,
}

impl Seen {
    pub fn path(&self) -> &str {
        self.head.path()
    }

    pub fn is_blob(&self) -> bool {
        self.path().contains("/blobs/")
    }

    /// The byte it wants to begin with.
    pub fn offset(&self) -> u64 {
        let range = self
            .head
            .get("range")
            .and_then(|v| v.strip_prefix("bytes="));
        let offset = range.and_then(|v| v.strip_suffix('-')?.parse().ok());
        offset.unwrap_or(0)
    }
}

type Judge = dyn Fn(&Seen) -> Fault + Send + Sync;

struct Shared {
    /// Where requests go on to.
    to: String,
    judge: Box<Judge>,
    seen: Mutex<Vec<Seen>>,
    over: Mutex<bool>,
    ended: Condvar,
}

/// A process that another test starts has our sockets for a moment, until it becomes another program:
/// an address is free a little later than it was left.
pub fn listen(address: &str) -> TcpListener {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < limit, "{address}: {error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

pub struct Line {
    pub address: String,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Line {
    /// From [`LINE`] to the server at `to`. `judge` says what happens to each request.
    pub fn to(to: &str, judge: impl Fn(&Seen) -> Fault + Send + Sync + 'static) -> Self {
        Self::at(LINE, to, judge)
    }

    pub fn at(
        address: &str,
        to: &str,
        judge: impl Fn(&Seen) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let listener = listen(address);
        let shared = Arc::new(Shared {
            to: to.to_owned(),
            judge: Box::new(judge),
            seen: Mutex::default(),
            over: Mutex::default(),
            ended: Condvar::new(),
        });
        let own = shared.clone();
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if *own.over.lock().expect("no panic") {
                    return;
                }
                let own = own.clone();
                thread::spawn(move || own.serve(stream));
            }
        });
        Self {
            address: address.to_owned(),
            shared,
            acceptor: Some(acceptor),
        }
    }

    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("no panic").clone()
    }

    /// The offsets at which the blob was asked for.
    pub fn offsets(&self, blob: &image::Digest) -> Vec<u64> {
        let end = format!("/blobs/{blob}");
        let of = |seen: &Seen| {
            let path = seen.path().split('?').next().unwrap_or_default();
            path.ends_with(&end).then(|| seen.offset())
        };
        self.seen().iter().filter_map(of).collect()
    }

    pub fn forget(&self) {
        self.shared.seen.lock().expect("no panic").clear();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        *self.shared.over.lock().expect("no panic") = true;
        self.shared.ended.notify_all();
        let _ = TcpStream::connect(&self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        let mut first = [0];
        if stream.peek(&mut first).is_ok_and(|count| count == 1) && first[0] == 0x16 {
            // TLS, which nobody speaks here. As Go answers it.
            let mut hello = [0; 4096];
            let _ = stream.read(&mut hello);
            let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nplain HTTP, please\n");
            return;
        }
        let mut from = BufReader::new(stream.try_clone().expect("a socket"));
        let Some(head) = Head::read(&mut from) else {
            return;
        };
        let length = head.get("content-length").and_then(|v| v.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        if from.read_exact(&mut body).is_err() {
            return;
        }
        let body = String::from_utf8_lossy(&body).into_owned();
        let seen = Seen { head, body };
        let fault = (self.judge)(&seen);
        self.seen.lock().expect("no panic").push(seen.clone());
        // Who hangs up early has its reasons.
        let _ = self.answer(&mut stream, seen.head, fault);
        let _ = stream.shutdown(Shutdown::Write);
    }

    fn answer(&self, stream: &mut TcpStream, mut head: Head, fault: Fault) -> std::io::Result<()> {
        match &fault {
            Fault::Hangup => return Ok(()),
            Fault::Answer(status, headers, body) => {
                let mut head = Head {
                    line: format!("HTTP/1.1 {status} Said by the test"),
                    headers: Vec::new(),
                };
                head.set("connection", "close");
                head.set("content-length", &body.len().to_string());
                for (name, value) in headers {
                    head.set(name, value);
                }
                stream.write_all(head.text().as_bytes())?;
                return stream.write_all(body);
            }
            Fault::Whole => head.headers.retain(|(name, _)| name != "range"),
            _ => {}
        }
        head.set("connection", "close");
        let mut server = TcpStream::connect(&self.to)?;
        server.write_all(head.text().as_bytes())?;
        let mut from = BufReader::new(server);
        let Some(mut head) = Head::read(&mut from) else {
            return Ok(());
        };
        head.set("connection", "close");
        match fault {
            Fault::Body(change) => {
                let mut body = Vec::new();
                from.read_to_end(&mut body)?;
                let body = change(body);
                head.set("content-length", &body.len().to_string());
                stream.write_all(head.text().as_bytes())?;
                return stream.write_all(&body);
            }
            Fault::Header(name, ref value) => head.set(name, value),
            _ => {}
        }
        stream.write_all(head.text().as_bytes())?;
        let (limit, piece, pause) = match fault {
            Fault::Cut(limit) | Fault::Stall(limit) => (limit as u64, 64 << 10, None),
            Fault::Slow(piece, pause) => (u64::MAX, piece, Some(pause)),
            _ => (u64::MAX, 64 << 10, None),
        };
        let mut rest = from.take(limit);
        let mut buffer = vec![0; piece];
        loop {
            let count = rest.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            stream.write_all(&buffer[..count])?;
            if let Some(pause) = pause
                && self.wait(pause)
            {
                return Ok(());
            }
        }
        if matches!(fault, Fault::Stall(_)) {
            self.wait(Duration::from_secs(3600));
        }
        Ok(())
    }

    /// Waits; whether the test is over.
    fn wait(&self, pause: Duration) -> bool {
        let over = self.over.lock().expect("no panic");
        let (over, _) = self
            .ended
            .wait_timeout_while(over, pause, |over| !*over)
            .expect("no panic");
        *over
    }
}
