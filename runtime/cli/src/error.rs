//! What can go wrong, and the exit code that tells scripts about it.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read, or does not follow the format.
    #[error("{0}")]
    Document(String),
    /// No daemon answers.
    #[error("cannot reach the daemon at {}: {reason}\n  {hint}", socket.display())]
    Unreachable {
        /// Where it was looked for.
        socket: PathBuf,
        /// What the kernel or the transport said.
        reason: String,
        /// What the operator can do.
        hint: &'static str,
    },
    /// The daemon answered with an error.
    #[error("cannot {doing} at {}: {message}", socket.display())]
    Call {
        /// The daemon's socket.
        socket: PathBuf,
        /// What was asked for.
        doing: String,
        /// The daemon's words.
        message: String,
    },
    /// The daemon refused an assignment, field by field.
    #[error("{origin}: refused as a whole by {}\n  {}", socket.display(), violations.join("\n  "))]
    Refused {
        /// The file.
        origin: String,
        /// The daemon's socket.
        socket: PathBuf,
        /// Each `field: reason`.
        violations: Vec<String>,
    },
    /// No object has that name.
    #[error("no {kind} `{name}` on this node")]
    NotFound {
        /// What was looked for.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The kernel's IPVS refused something, or could not be read.
    #[error("{place}: {reason}")]
    Ipvs {
        /// The network namespace.
        place: String,
        /// Why, in the words of who knows it best.
        reason: String,
    },
    /// What was waited for did not come, or cannot come any more.
    #[error("{what}:\n  {}", missing.join("\n  "))]
    Incomplete {
        /// What was waited for.
        what: String,
        /// What of it is missing.
        missing: Vec<String>,
    },
    /// More than one of the files or nodes failed.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<Self>),
    /// Somebody ended the program with a signal.
    #[error("interrupted")]
    Interrupted,
    /// Whoever read the output has gone: not a failure.
    #[error("the reader of the output has gone")]
    OutputClosed,
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// A value has no JSON form.
    #[error("cannot print as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The runtime of the program cannot start.
    #[error("cannot start: {0}")]
    Start(io::Error),
}

impl CliError {
    /// 0: fine, 1: refused or failed, 2: usage, 3: no daemon answers.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
            Self::Several(errors) => errors.iter().map(Self::exit_code).max().unwrap_or(1),
            _ => 1,
        }
    }

    /// None when there is no error, the error when there is one, otherwise all of them.
    pub fn collect(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Output(error),
        }
    }
}

impl From<CliError> for ExitCode {
    fn from(error: CliError) -> Self {
        error.exit_code().into()
    }
}
