//! What the kernel answered.

use std::io;

/// An errno, and the words that the kernel adds to it (extended acknowledgement).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetlinkError {
    errno: i32,
    message: Option<String>,
}

impl NetlinkError {
    pub(crate) fn new(errno: i32, message: Option<String>) -> Self {
        Self { errno, message }
    }

    /// The positive errno.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// A reply that does not follow the protocol.
    pub(crate) fn malformed(what: &str) -> Self {
        Self {
            errno: libc::EBADMSG,
            message: Some(format!("malformed reply: {what}")),
        }
    }
}

impl From<io::Error> for NetlinkError {
    fn from(error: io::Error) -> Self {
        Self {
            errno: error.raw_os_error().unwrap_or(libc::EIO),
            message: None,
        }
    }
}

impl std::fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.errno))?;
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for NetlinkError {}
