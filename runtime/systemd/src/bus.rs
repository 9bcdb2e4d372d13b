//! A connection that speaks D-Bus: to systemd itself, or to a bus that systemd is at.

use crate::user;
use crate::wire::{Reader, Value, Writer, signature_of};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long an answer may take, as D-Bus's own libraries have it.
const PATIENCE: Duration = Duration::from_secs(25);

/// The longest message that is read. The specification allows 128 MiB; what systemd answers here
/// is short.
const LONGEST: usize = 1 << 20;

/// Where a call goes.
#[derive(Clone, Copy, Debug)]
pub struct Method<'a> {
    /// The name on the bus.
    pub destination: &'a str,
    /// The object.
    pub path: &'a str,
    /// The interface.
    pub interface: &'a str,
    /// The method.
    pub member: &'a str,
}

/// Why a call was not answered.
#[derive(Debug)]
pub enum CallError {
    /// The other side says no.
    Refused {
        /// The name of the error.
        name: String,
        /// In words.
        message: String,
    },
    /// The connection is of no use any more.
    Io(io::Error),
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A message that came.
#[derive(Debug, Default)]
struct Message {
    kind: u8,
    member: String,
    error_name: String,
    reply_to: Option<u32>,
    body: Vec<Value>,
}

/// An open connection. Closed on exec.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Signals that came while something else was waited for.
    signals: VecDeque<Message>,
}

const CALL: u8 = 1;
const REPLY: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

impl Bus {
    /// Connects to a socket, whose name may be abstract (with a leading NUL), and says who this is.
    pub fn connect(socket: &str) -> io::Result<Self> {
        let stream = match socket.strip_prefix('\0') {
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                UnixStream::connect_addr(&address)?
            }
            None => UnixStream::connect(socket)?,
        };
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut bus = Self {
            stream,
            serial: 0,
            signals: VecDeque::new(),
        };
        bus.authenticate()?;
        Ok(bus)
    }

    /// The kernel tells the other side who this is; the number must be the same. Descriptors are
    /// not negotiated: none is ever sent here.
    ///
    /// All is said at once, as systemd's own programs do: when `BEGIN` comes together with the
    /// first call, systemd leaves that call lying until there is more to read.
    fn authenticate(&mut self) -> io::Result<()> {
        let mut hex = String::new();
        for digit in user::real_uid().to_string().bytes() {
            let _ = write!(hex, "{digit:02x}"); // into a string
        }
        let hello = format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n");
        self.stream.write_all(hello.as_bytes())?;
        let deadline = Instant::now() + PATIENCE;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.read_exact(&mut byte, deadline)?;
            line.extend(byte);
            if line.len() > 4096 {
                return Err(invalid("an endless line"));
            }
        }
        if !line.starts_with(b"OK ") {
            let said = String::from_utf8_lossy(&line).trim_end().to_owned();
            let reason = format!("it does not take us for user {}: {said}", user::real_uid());
            return Err(io::Error::new(ErrorKind::PermissionDenied, reason));
        }
        Ok(())
    }

    /// Calls a method and waits for the answer.
    pub fn call(&mut self, method: Method<'_>, body: &[Value]) -> Result<Vec<Value>, CallError> {
        self.serial = self.serial.checked_add(1).unwrap_or(1);
        let serial = self.serial;
        self.stream.write_all(&message(serial, method, body))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.receive(deadline)?;
            match (message.kind, message.reply_to) {
                (SIGNAL, _) => self.signals.push_back(message),
                (REPLY, Some(to)) if to == serial => return Ok(message.body),
                (ERROR, Some(to)) if to == serial => {
                    let text = message.body.first().and_then(Value::as_text);
                    return Err(CallError::Refused {
                        message: text.unwrap_or("it does not say why").into(),
                        name: message.error_name,
                    });
                }
                _ => {} // nothing that was asked for
            }
        }
    }

    /// Waits for a signal of this name that this function takes.
    pub fn wait<T>(
        &mut self,
        member: &str,
        deadline: Instant,
        mut take: impl FnMut(&[Value]) -> Option<T>,
    ) -> io::Result<T> {
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.receive(deadline)?,
            };
            if message.kind == SIGNAL
                && message.member == member
                && let Some(found) = take(&message.body)
            {
                return Ok(found);
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> io::Result<Message> {
        let mut head = [0; 16];
        self.read_exact(&mut head, deadline)?;
        let little = match head {
            [b'l', _, _, 1, ..] => true,
            [b'B', _, _, 1, ..] => false,
            _ => return Err(invalid("not a message of D-Bus")),
        };
        let mut numbers = Reader::new(&head[4..], little);
        let (body, fields) = match (numbers.u32(), numbers.u32(), numbers.u32()) {
            (Some(body), Some(_), Some(fields)) => (body as usize, fields as usize),
            _ => return Err(invalid("a torn message")),
        };
        // The array of fields begins at byte 12; the body at the next multiple of 8.
        if body > LONGEST || fields > LONGEST {
            return Err(invalid("a message of more than a MiB"));
        }
        let padded = fields.next_multiple_of(8);
        let mut rest = vec![0; padded + body];
        self.read_exact(&mut rest, deadline)?;
        let (fields, body) = rest.split_at(padded);
        parse(head[1], little, &head[12..], fields, body).ok_or_else(|| invalid("a torn message"))
    }

    fn read_exact(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the answer is {reason}"))
}

/// A call, complete.
fn message(serial: u32, method: Method<'_>, body: &[Value]) -> Vec<u8> {
    let mut content = Writer::default();
    body.iter().for_each(|value| content.put(value));
    let field = |code: u8, value: Value| {
        Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))])
    };
    let mut fields = vec![
        field(1, Value::Path(method.path.into())),
        field(2, Value::text(method.interface)),
        field(3, Value::text(method.member)),
        field(6, Value::text(method.destination)),
    ];
    if !body.is_empty() {
        fields.push(field(8, Value::Signature(signature_of(body))));
    }
    let mut whole = Writer(vec![b'l', CALL, 0, 1]);
    whole.put(&Value::U32(
        u32::try_from(content.0.len()).unwrap_or(u32::MAX),
    ));
    whole.put(&Value::U32(serial));
    whole.put(&Value::Array("(yv)".into(), fields));
    whole.align(8);
    whole.0.extend(content.0);
    whole.0
}

/// `length` is that of the fields, as it stands in the message.
fn parse(kind: u8, little: bool, length: &[u8], fields: &[u8], body: &[u8]) -> Option<Message> {
    let mut message = Message {
        kind,
        ..Message::default()
    };
    // The array's first element is at byte 16 of the message: four bytes make up for the rest.
    let array = [length, &[0; 4], fields].concat();
    let mut signature = String::new();
    let listed = Reader::new(&array, little).values("a(yv)")?;
    let [Value::Array(_, fields)] = listed.as_slice() else {
        return None;
    };
    for field in fields {
        let Value::Struct(pair) = field else {
            return None;
        };
        let [Value::Byte(code), Value::Variant(value)] = pair.as_slice() else {
            return None;
        };
        match (code, value.as_ref()) {
            (3, Value::Str(text)) => message.member.clone_from(text),
            (4, Value::Str(text)) => message.error_name.clone_from(text),
            (5, Value::U32(serial)) => message.reply_to = Some(*serial),
            (8, Value::Signature(text)) => signature.clone_from(text),
            _ => {}
        }
    }
    message.body = Reader::new(body, little).values(&signature)?;
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    const METHOD: Method<'_> = Method {
        destination: "a.b",
        path: "/a",
        interface: "a.b.C",
        member: "Do",
    };

    /// A peer that does this once the other side has begun, and then closes.
    fn peer(answer: &'static [u8], then: impl FnOnce(&mut UnixStream) + Send + 'static) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("fltest-bus-{}-{number}", std::process::id());
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("name");
        let listener = UnixListener::bind_addr(&address).expect("bind");
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut said = [0; 256];
            let length = stream.read(&mut said).expect("read");
            assert!(said[..length].starts_with(b"\0AUTH EXTERNAL "));
            stream.write_all(answer).expect("write");
            then(&mut stream);
        });
        format!("\0{name}")
    }

    /// What a peer would send.
    fn reply(kind: u8, fields: Vec<(u8, Value)>, body: &[Value]) -> Vec<u8> {
        let mut content = Writer::default();
        body.iter().for_each(|value| content.put(value));
        let mut whole = Writer(vec![b'l', kind, 0, 1]);
        whole.put(&Value::U32(content.0.len() as u32));
        whole.put(&Value::U32(9));
        let mut list = fields;
        list.push((8, Value::Signature(signature_of(body))));
        let list = list.into_iter().map(|(code, value)| {
            Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))])
        });
        whole.put(&Value::Array("(yv)".into(), list.collect()));
        whole.align(8);
        whole.0.extend(content.0);
        whole.0
    }

    #[test]
    fn answers_and_signals() {
        let socket = peer(b"OK 1234\r\n", |stream| {
            let mut said = [0; 1024];
            let mut length = 0;
            while !said[..length].ends_with(b"x\0") {
                length += stream.read(&mut said[length..]).expect("read");
            }
            let other = reply(SIGNAL, vec![(3, Value::text("Other"))], &[Value::U32(1)]);
            let signal = reply(SIGNAL, vec![(3, Value::text("Done"))], &[Value::U32(2)]);
            let answer = reply(REPLY, vec![(5, Value::U32(1))], &[Value::text("fine")]);
            let refusal = [(4, Value::text("a.b.No")), (5, Value::U32(2))];
            let refusal = reply(ERROR, refusal.to_vec(), &[Value::text("no such thing")]);
            let all = [signal, other, answer].concat();
            // In pieces, as a socket may bring it.
            for piece in all.chunks(7) {
                stream.write_all(piece).expect("write");
            }
            let _ = stream.read(&mut said).expect("read");
            stream.write_all(&refusal).expect("write");
        });
        let mut bus = Bus::connect(&socket).expect("connect");
        let answer = bus.call(METHOD, &[Value::text("x")]).expect("answer");
        assert_eq!(answer, [Value::text("fine")]);
        let soon = Instant::now() + PATIENCE;
        let found = bus.wait("Done", soon, |body| body.first().cloned());
        assert_eq!(found.expect("signal"), Value::U32(2));
        match bus.call(METHOD, &[]) {
            Err(CallError::Refused { name, message }) => {
                assert_eq!(
                    (name.as_str(), message.as_str()),
                    ("a.b.No", "no such thing")
                );
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(bus.call(METHOD, &[]), Err(CallError::Io(_))));
    }

    #[test]
    fn a_peer_that_closes_or_refuses() {
        let socket = peer(b"", |_| {});
        let error = Bus::connect(&socket).expect_err("closed");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        let socket = peer(b"REJECTED EXTERNAL\r\n", |_| {});
        let error = Bus::connect(&socket).expect_err("rejected");
        assert!(error.to_string().contains("REJECTED"), "{error}");
    }

    #[test]
    fn a_silent_peer_and_nonsense() {
        let socket = peer(b"OK 1\r\n", |stream| {
            let _ = stream.read(&mut [0; 256]);
            stream.write_all(&[0xff; 64]).expect("write");
            thread::sleep(Duration::from_millis(400));
        });
        let mut bus = Bus::connect(&socket).expect("connect");
        let soon = Instant::now() + Duration::from_millis(50);
        let error = bus
            .wait("Done", Instant::now(), |_| Some(()))
            .expect_err("too late");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let error = bus
            .wait("Done", soon, |_| Some(()))
            .expect_err("nonsense, or nothing");
        assert!(
            matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::InvalidData),
            "{error}"
        );
    }
}
