//! What can go wrong between us and a registry.

use std::{io, path::PathBuf, time::Duration};

use crate::Digest;

/// Why something could not be had from a registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// What the operator says of registries makes no sense.
    #[error("the configuration of registries: {0}")]
    Config(String),
    /// A file that belongs to the configuration cannot be used.
    #[error("{what} {}: {reason}", path.display())]
    File {
        /// What it is for.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk does not take what comes.
    #[error("{action} the file of a download, {}: {source}", path.display())]
    Disk {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A credential helper failed.
    #[error("credential helper {program}: {reason}")]
    Helper {
        /// The program.
        program: String,
        /// What it said.
        reason: String,
    },
    /// No answer, or not all of it.
    #[error("{url}: {reason}")]
    Transport {
        /// What was asked.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The way to the host is through a proxy, and there is none that leads there. Trying again does not
    /// help.
    #[error("{url}: {reason}")]
    Proxy {
        /// What was asked.
        url: String,
        /// What is wrong, and which variable says so; without credentials.
        reason: String,
    },
    /// One side does not trust the other's certificate. Trying again does not help.
    #[error("{url}: {reason}; authorities and certificates are named by the `tls` of its host")]
    Trust {
        /// What was asked.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The registry does not let us.
    #[error("{url}: access denied{}: {}", status_text(*.status), if .message.is_empty() { "log in, or check whether the repository exists" } else { .message })]
    Denied {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the registry said.
        message: String,
    },
    /// There is no such thing.
    #[error("{url}: not found{}", prefixed(.message))]
    NotFound {
        /// What was asked.
        url: String,
        /// What the registry said.
        message: String,
    },
    /// An answer that says that it did not work.
    #[error("{url}: status {status}{}", prefixed(.message))]
    Status {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the registry said.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// An answer that we cannot understand.
    #[error("{url}: {reason}")]
    Answer {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The content is not the one that was asked for.
    #[error("{url}: the content has digest {actual}, expected {expected}")]
    Digest {
        /// What was asked.
        url: String,
        /// The digest that was asked for.
        expected: Digest,
        /// That of what came.
        actual: Digest,
    },
    /// Nobody wants it any more.
    #[error("the pull was cancelled")]
    Cancelled,
}

fn prefixed(message: &str) -> String {
    match message {
        "" => String::new(),
        message => format!(": {message}"),
    }
}

fn status_text(status: u16) -> String {
    format!(" (status {status})")
}

impl RegistryError {
    /// Whether the same request may work a little later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Status { status, .. } => {
                matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
            }
            _ => false,
        }
    }

    /// Whether the registry has said nothing of what it was asked.
    pub(crate) fn is_no_answer(&self) -> bool {
        match self {
            Self::Status { status, .. } if *status >= 500 => true,
            // Who is asked again gets the same answer from it, but it is not the registry's.
            Self::Proxy { .. } => true,
            other => other.is_transient(),
        }
    }

    /// How long the registry asks us to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_refuses_is_not_asked_again_and_is_no_answer_of_the_registry() {
        let refused = RegistryError::Proxy {
            url: "https://registry.example/v2/".into(),
            reason: "status 403".into(),
        };
        assert!(!refused.is_transient());
        assert!(refused.is_no_answer());
    }
}
