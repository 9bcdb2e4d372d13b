//! Reading the connection table of a namespace.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::{Connection, line};
use crate::error::DecodeError;
use crate::netns;
use crate::pauses::Pauses;

/// Where the kernel shows the table, for the namespace of the calling thread.
const FILE: &str = "/proc/thread-self/net/ip_vs_conn";

/// Far more than the longest line: three IPv6 addresses and the data of a persistence engine.
const MAX_LINE: u64 = 4096;

/// The connection table of one network namespace.
///
/// Netlink does not tell of connections; the kernel shows them as a file,
/// `/proc/net/ip_vs_conn`, which costs a pass over its whole table for each reading. To see only
/// how many connections a destination has, ask for
/// [`Client::destinations`](crate::Client::destinations).
///
/// ```no_run
/// # fn main() -> Result<(), ipvs::ConnectionError> {
/// let mut table = ipvs::ConnectionTable::open()?;
/// for connection in table.read()? {
///     println!("{}", connection?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ConnectionTable {
    file: BufReader<Parts>,
}

/// The least that the kernel puts together for one reading, a page, and what fits into it for
/// sure, whatever the next line is: the longest is below 600 bytes.
const PART: usize = 4096;
const LONGEST_SHORT_PART: usize = PART - 1024;

/// The file, without the reading that only finds out that it has ended.
///
/// For each reading the kernel looks for its place anew, by counting the connections of all
/// namespaces. A part that had room for another line was the last one, so that a table of one
/// part is told by a single reading, and each of its connections once.
#[derive(Debug)]
struct Parts {
    file: File,
    ended: bool,
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        let length = self.file.read(buffer)?;
        self.ended = length <= LONGEST_SHORT_PART && length < buffer.len();
        Ok(length)
    }
}

impl Seek for Parts {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.ended = false;
        self.file.seek(to)
    }
}

impl ConnectionTable {
    /// Opens the table of the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`ConnectionError::NotAvailable`] while the kernel has no IPVS;
    /// [`Client::open`](crate::Client::open) makes it load it.
    pub fn open() -> Result<Self, ConnectionError> {
        match File::open(FILE) {
            Ok(file) => Ok(Self {
                file: BufReader::with_capacity(2 * PART, Parts { file, ended: false }),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ConnectionError::NotAvailable)
            }
            Err(source) => Err(ConnectionError::File {
                action: "open",
                source,
            }),
        }
    }

    /// Opens the table of the given network namespace (see
    /// [`Client::open_in`](crate::Client::open_in)).
    ///
    /// # Errors
    ///
    /// As [`ConnectionTable::open`], and [`ConnectionError::Namespace`].
    pub fn open_in(netns: BorrowedFd<'_>) -> Result<Self, ConnectionError> {
        netns::inside(netns, Self::open).map_err(|source| ConnectionError::Namespace { source })?
    }

    /// Reads the table from its beginning, a part at a time. A connection that comes or goes
    /// meanwhile may or may not be told. A part is a page, 25 to 60 connections. The kernel finds the
    /// place where a part begins by counting the connections of all namespaces: when any of those
    /// come or go between two parts, others are told twice or not at all.
    pub fn read(&mut self) -> Result<Connections<'_>, ConnectionError> {
        let rewound = self.file.rewind();
        rewound.map_err(|source| ConnectionError::File {
            action: "rewind",
            source,
        })?;
        Ok(Connections {
            file: &mut self.file,
            line: Vec::new(),
            number: 0,
        })
    }

    /// How many connections are of interest. Lines that cannot be read are passed over: the data of a
    /// persistence engine comes from the network, and could stop every reader.
    ///
    /// # Errors
    ///
    /// [`ConnectionError::File`].
    pub fn count(
        &mut self,
        of_interest: impl Fn(&Connection) -> bool,
    ) -> Result<usize, ConnectionError> {
        let mut count = 0;
        for connection in self.read()? {
            match connection {
                Ok(connection) => count += usize::from(of_interest(&connection)),
                Err(ConnectionError::Line { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// Waits until no connection is of interest, or the time is over, and returns how many are
    /// left.
    ///
    /// This is for a destination that is deleted already, or for a choice of connections; whether a
    /// destination that is still there has connections is cheaper to learn
    /// ([`Client::wait_drained`](crate::Client::wait_drained)). The table is read again after
    /// pauses that grow to one second, since the kernel forgets connections by the second; that
    /// none is left counts when it was read twice in a row (see [`ConnectionTable::read`]).
    pub fn wait_until_gone(
        &mut self,
        patience: Duration,
        of_interest: impl Fn(&Connection) -> bool,
    ) -> Result<usize, ConnectionError> {
        let mut pauses = Pauses::new(patience);
        loop {
            let left = match self.count(&of_interest)? {
                0 => self.count(&of_interest)?,
                left => left,
            };
            if left == 0 || !pauses.pause() {
                return Ok(left);
            }
        }
    }
}

/// The connections of a table, one after the other. A line that cannot be read is an error of its
/// own, and the next one follows; when the file cannot be read, that ends it.
#[derive(Debug)]
pub struct Connections<'a> {
    file: &'a mut BufReader<Parts>,
    line: Vec<u8>,
    number: usize,
}

impl Connections<'_> {
    fn line(&mut self) -> Result<Option<Connection>, ConnectionError> {
        loop {
            self.line.clear();
            let mut part = (&mut *self.file).take(MAX_LINE);
            let read = part.read_until(b'\n', &mut self.line);
            let length = read.map_err(|source| ConnectionError::File {
                action: "read",
                source,
            })?;
            if length == 0 {
                return Ok(None);
            }
            self.number += 1;
            // The first one is the heading.
            if self.number == 1 {
                continue;
            }
            // The data of a persistence engine comes from the network and may be any bytes.
            let text = String::from_utf8_lossy(&self.line);
            return match line::connection(&text) {
                Ok(connection) => Ok(Some(connection)),
                Err(source) => Err(ConnectionError::Line {
                    number: self.number,
                    text: text.trim_end().to_owned(),
                    source,
                }),
            };
        }
    }
}

impl Iterator for Connections<'_> {
    type Item = Result<Connection, ConnectionError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.number == usize::MAX {
            return None;
        }
        let line = self.line();
        if matches!(line, Err(ConnectionError::File { .. })) {
            self.number = usize::MAX;
        }
        line.transpose()
    }
}

/// Why the connection table could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The kernel shows no such table.
    #[error(
        "there is no connection table: module `ip_vs` is not loaded (kernel option CONFIG_IP_VS), \
         or /proc is not mounted"
    )]
    NotAvailable,
    /// The network namespace could not be entered.
    #[error("cannot enter the network namespace: {source}")]
    Namespace {
        /// Why.
        source: io::Error,
    },
    /// The file could not be used.
    #[error("cannot {action} {FILE}: {source}")]
    File {
        /// What was being done.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A line makes no sense.
    #[error("cannot read line {number} of {FILE}, {text:?}: {source}")]
    Line {
        /// Number of the line, from 1.
        number: usize,
        /// The line.
        text: String,
        /// Why.
        source: DecodeError,
    },
}
