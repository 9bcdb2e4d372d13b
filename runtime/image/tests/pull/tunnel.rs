//! An HTTP proxy that leads everything to one server, whatever it is asked for.

use std::{
    io::{BufReader, Write, copy},
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use crate::{http::Head, line::listen};

pub struct Tunnel {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    /// It ends with the test's network.
    pub fn at(address: &str, to: &str) -> Self {
        let listener = listen(address);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, to) = (asked.clone(), to.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, to) = (log.clone(), to.clone());
                thread::spawn(move || lead(stream, &to, &log));
            }
        });
        Self { asked }
    }

    /// Where connections were to lead.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

fn lead(mut stream: TcpStream, to: &str, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut from = BufReader::new(stream.try_clone().ok()?);
    let head = Head::read(&mut from)?;
    if !head.line.starts_with("CONNECT ") {
        return None;
    }
    log.lock().ok()?.push(head.path().to_owned());
    let mut server = TcpStream::connect(to).ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let mut up = server.try_clone().ok()?;
    thread::spawn(move || {
        let _ = copy(&mut from, &mut up);
        let _ = up.shutdown(Shutdown::Write);
    });
    let _ = copy(&mut server, &mut stream);
    stream.shutdown(Shutdown::Both).ok()
}
