//! What can be wrong with a line.

use crate::service::ServiceId;

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
#[non_exhaustive]
pub struct ParseError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A line begins with an option that is no command.
    #[error("a line begins with a command, as -A or -a")]
    NoCommand,
    /// A second command.
    #[error("{option} is a second command, or does not stand first")]
    SecondCommand {
        /// The command.
        option: String,
    },
    /// A command that changes nothing.
    #[error("{option} changes nothing, so it means nothing here")]
    Passive {
        /// The command.
        option: String,
    },
    /// No option of `ipvsadm`.
    #[error("{word:?} is no option")]
    UnknownOption {
        /// The word.
        word: String,
    },
    /// A word without an option.
    #[error("{word:?} is not expected here")]
    Unexpected {
        /// The word.
        word: String,
    },
    /// The value of an option lacks.
    #[error("{option} needs a value")]
    NoValue {
        /// The option.
        option: String,
    },
    /// The value of an option is none that it takes.
    #[error("{option} {value:?}: {expected} is expected")]
    BadValue {
        /// The option.
        option: String,
        /// Its value.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
    /// An option is there twice.
    #[error("{option} is given twice")]
    Repeated {
        /// The option.
        option: String,
    },
    /// Two options exclude each other.
    #[error("{option} cannot stand beside {with}")]
    Conflict {
        /// The option.
        option: String,
        /// The other one.
        with: String,
    },
    /// The command does not take the option.
    #[error("{command} does not take {option}")]
    NotAllowed {
        /// The option.
        option: String,
        /// The command.
        command: String,
    },
    /// The command cannot do without an option.
    #[error("{command} needs {option}")]
    Missing {
        /// The option.
        option: &'static str,
        /// The command.
        command: String,
    },
    /// The port is 0, which the kernel takes for persistent services only.
    #[error("a service on every port (port 0, or none) must be persistent: -p")]
    AnyPort,
    /// One-packet scheduling is for UDP and marks.
    #[error("-o is for UDP services and marks")]
    OnePacket,
    /// Service and server are of different families.
    #[error("a server of the other address family needs tunnelling: -i")]
    MixedFamilies,
    /// A table cannot have the line: it adds nothing.
    #[error("{command} is no part of a saved table, which has -A and -a only")]
    NotSaved {
        /// The command.
        command: String,
    },
    /// A server stands before its service.
    #[error("service {service} was not added before")]
    NoService {
        /// The service.
        service: ServiceId,
    },
    /// A service or server is added twice.
    #[error("{object} is added twice")]
    Duplicate {
        /// The object.
        object: String,
    },
}
