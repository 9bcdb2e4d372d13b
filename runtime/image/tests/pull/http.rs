//! As much of HTTP as the tests speak themselves: one request per connection.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

/// The first line of a request or of an answer, and the headers.
#[derive(Debug, Clone)]
pub struct Head {
    pub line: String,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// `None` at the end of the connection.
    pub fn read(from: &mut impl BufRead) -> Option<Self> {
        let mut lines = from.lines().map_while(Result::ok);
        let line = lines.next().filter(|line| !line.is_empty())?;
        let headers = lines
            .take_while(|line| !line.is_empty())
            .filter_map(|line| {
                let (name, value) = line.split_once(':')?;
                Some((name.to_ascii_lowercase(), value.trim().to_owned()))
            })
            .collect();
        Some(Self { line, headers })
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Replaces a header, or adds it.
    pub fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(n, _)| n != name);
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    /// Of a request.
    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    /// Of an answer.
    pub fn status(&self) -> u16 {
        let status = self.line.split(' ').nth(1);
        status.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    pub fn text(&self) -> String {
        let mut text = format!("{}\r\n", self.line);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text + "\r\n"
    }
}

/// Asks a server at `address`; its answer.
pub fn ask(address: &str, method: &str, path: &str, kind: &str, body: &[u8]) -> (Head, Vec<u8>) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("a request");
    stream.write_all(body).expect("a request");
    let mut from = BufReader::new(stream);
    let head = Head::read(&mut from).expect("an answer");
    let mut body = Vec::new();
    from.read_to_end(&mut body).expect("an answer");
    (head, body)
}
