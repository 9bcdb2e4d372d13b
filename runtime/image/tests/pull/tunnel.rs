//! An HTTP proxy that leads everything to one server, whatever it is asked for: by tunnels, and for
//! whole URLs of plain HTTP.

use std::{
    io::{BufReader, Read, Write, copy},
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use crate::{http::Head, line::listen};

pub struct Proxy {
    shared: Arc<Shared>,
}

struct Shared {
    /// Where everything leads.
    to: String,
    /// The value of `Proxy-Authorization` without which nothing does.
    wanted: Option<String>,
    tunnels: bool,
    asked: Mutex<Vec<Head>>,
    connections: Mutex<usize>,
}

impl Proxy {
    /// It ends with the test's network.
    pub fn at(address: &str, to: &str) -> Self {
        Self::new(address, to, None, true)
    }

    /// One that lets in who knows a user and a password.
    pub fn wanting(address: &str, to: &str, wanted: Option<String>) -> Self {
        Self::new(address, to, wanted, true)
    }

    /// One that is for plain HTTP alone.
    pub fn without_tunnels(address: &str, to: &str) -> Self {
        Self::new(address, to, None, false)
    }

    fn new(address: &str, to: &str, wanted: Option<String>, tunnels: bool) -> Self {
        let listener = listen(address);
        let shared = Arc::new(Shared {
            to: to.to_owned(),
            wanted,
            tunnels,
            asked: Mutex::default(),
            connections: Mutex::default(),
        });
        let own = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                *own.connections.lock().expect("no panic") += 1;
                let own = own.clone();
                thread::spawn(move || own.serve(stream));
            }
        });
        Self { shared }
    }

    /// What was asked for, such as `CONNECT far.test:443` or `GET http://far.test/v2/`.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.shared.asked.lock().expect("no panic");
        let text = |head: &Head| {
            let line = head.line.rsplit_once(' ');
            line.map_or(String::new(), |(text, _)| text.to_owned())
        };
        asked.iter().map(text).collect()
    }

    pub fn connections(&self) -> usize {
        *self.shared.connections.lock().expect("no panic")
    }

    pub fn forget(&self) {
        self.shared.asked.lock().expect("no panic").clear();
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut from = BufReader::new(stream.try_clone().ok()?);
        let mut server: Option<BufReader<TcpStream>> = None;
        while let Some(mut head) = Head::read(&mut from) {
            self.asked.lock().ok()?.push(head.clone());
            if self.wanted.is_some() && head.get("proxy-authorization") != self.wanted.as_deref() {
                let answer = "HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic realm=\"p\"\r\n\
                              Content-Length: 0\r\n\r\n";
                stream.write_all(answer.as_bytes()).ok()?;
                continue;
            }
            if head.line.starts_with("CONNECT ") && !self.tunnels {
                let answer = "HTTP/1.1 403 No tunnels\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer.as_bytes()).ok()?;
                continue;
            }
            if head.line.starts_with("CONNECT ") {
                return self.tunnel(from, stream);
            }
            // As every proxy has to do it: what is for the proxy does not go on.
            head.headers
                .retain(|(name, _)| name != "proxy-authorization");
            let url = head.path().to_owned();
            let path = url.strip_prefix("http://")?.split_once('/')?.1;
            head.line = head.line.replacen(&url, &format!("/{path}"), 1);
            if server.is_none() {
                server = Some(BufReader::new(TcpStream::connect(&self.to).ok()?));
            }
            let server = server.as_mut()?;
            let length = |head: &Head| head.get("content-length").and_then(|v| v.parse().ok());
            server.get_mut().write_all(head.text().as_bytes()).ok()?;
            copy(
                &mut (&mut from).take(length(&head).unwrap_or(0)),
                server.get_mut(),
            )
            .ok()?;
            let answer = Head::read(server)?;
            stream.write_all(answer.text().as_bytes()).ok()?;
            match length(&answer) {
                Some(length) => copy(&mut server.take(length), &mut stream).ok()?,
                // It ends with the connection.
                None => {
                    copy(server, &mut stream).ok()?;
                    break;
                }
            };
        }
        stream.shutdown(Shutdown::Both).ok()
    }

    fn tunnel(&self, mut from: BufReader<TcpStream>, mut stream: TcpStream) -> Option<()> {
        let mut server = TcpStream::connect(&self.to).ok()?;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
        let mut up = server.try_clone().ok()?;
        thread::spawn(move || {
            let _ = copy(&mut from, &mut up);
            let _ = up.shutdown(Shutdown::Write);
        });
        let _ = copy(&mut server, &mut stream);
        stream.shutdown(Shutdown::Both).ok()
    }
}
