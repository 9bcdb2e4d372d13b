//! The connection to a daemon, and what its errors mean.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fairlead_api::MAX_MESSAGE_BYTES;
use fairlead_api::v1;
use fairlead_api::v1::executor_client::ExecutorClient;
use fairlead_api::v1::images_client::ImagesClient;
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::error::CliError;
use crate::format::{names, position};

/// Where the daemon listens unless told otherwise.
const DEFAULT_SOCKET: &str = "/run/fairlead/executor.sock";

/// A daemon that takes no connection for so long is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A daemon that we are connected to.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// Where it listens.
    pub socket: PathBuf,
    /// What calls it.
    pub client: ExecutorClient<Channel>,
    /// What calls it for images.
    pub images: ImagesClient<Channel>,
}

/// The socket from the environment, else the usual one.
pub fn default_socket() -> PathBuf {
    std::env::var_os("FAIRLEAD_SOCKET")
        .filter(|path| !path.is_empty())
        .map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from)
}

impl Daemon {
    /// Connects to the one socket that was named, or the default one.
    pub async fn connect_one(sockets: &[PathBuf]) -> Result<Self, CliError> {
        match sockets {
            [] => Self::connect(&default_socket()).await,
            [socket] => Self::connect(socket).await,
            _ => Err(CliError::Usage(
                "only `apply` takes more than one --socket".to_owned(),
            )),
        }
    }

    /// Connects to the daemon at a socket.
    pub async fn connect(socket: &Path) -> Result<Self, CliError> {
        let unreachable = |error: &(dyn Error + 'static)| unreachable(socket, error);
        let path = socket.to_str().ok_or_else(|| {
            CliError::Usage(format!(
                "the socket's path {} is not UTF-8",
                socket.display()
            ))
        })?;
        let channel = Endpoint::from_shared(format!("unix:{path}"))
            .map_err(|error| unreachable(&error))?
            .connect_timeout(CONNECT_TIMEOUT)
            .connect()
            .await
            .map_err(|error| unreachable(&error))?;
        let images = ImagesClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let client = ExecutorClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self {
            socket: socket.to_owned(),
            client,
            images,
        })
    }

    /// What is there, of one kind or of all, by name or all.
    pub async fn inspect(
        &mut self,
        kind: v1::Kind,
        name: &str,
    ) -> Result<v1::InspectResponse, CliError> {
        let request = v1::InspectRequest {
            kind: kind.into(),
            name: name.to_owned(),
        };
        match self.client.inspect(request).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) if status.code() == Code::NotFound => Ok(v1::InspectResponse::default()),
            Err(status) => Err(self.error("look at what is there", &status)),
        }
    }

    /// The error that a failed call stands for.
    pub fn error(&self, doing: &str, status: &Status) -> CliError {
        // Without a source the status came from the daemon itself; with one, from our transport.
        if let Some(source) = status.source() {
            return unreachable(&self.socket, source);
        }
        CliError::Call {
            socket: self.socket.clone(),
            doing: doing.to_owned(),
            message: message(status),
        }
    }

    /// The error that a refused document stands for: field by field, with lines.
    pub fn refusal(&self, doing: &str, status: &Status, origin: &str, text: &str) -> CliError {
        let refusal = v1::Refusal::decode(status.details()).unwrap_or_default();
        if status.code() != Code::InvalidArgument || refusal.violations.is_empty() {
            return self.error(doing, status);
        }
        let describe = |violation: v1::Violation| {
            let field = names::in_file(&violation.field);
            match position::line_of(text, &field) {
                Some(line) => format!("{field}: {} (line {line})", violation.reason),
                None => format!("{field}: {}", violation.reason),
            }
        };
        CliError::Refused {
            origin: origin.to_owned(),
            socket: self.socket.clone(),
            violations: refusal.violations.into_iter().map(describe).collect(),
        }
    }

    /// The error of a stream that the daemon ended although it never should.
    pub fn ended(&self, stream: &str) -> CliError {
        CliError::Unreachable {
            socket: self.socket.clone(),
            reason: format!("it ended the stream of {stream}"),
            hint: "was fairleadd stopped? Its tasks go on without it.",
        }
    }
}

/// The daemon's words, or the name of the code where it gave none.
fn message(status: &Status) -> String {
    match status.message() {
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    }
}

fn unreachable(socket: &Path, error: &(dyn Error + 'static)) -> CliError {
    let mut deepest = error;
    let mut kind = io_kind(error);
    while let Some(source) = deepest.source() {
        deepest = source;
        kind = kind.or_else(|| io_kind(deepest));
    }
    let hint = match kind {
        Some(io::ErrorKind::PermissionDenied) => {
            "the socket belongs to root: run this as root, for example with sudo."
        }
        Some(io::ErrorKind::NotFound) => {
            "is fairleadd running? If it listens elsewhere, say where: --socket PATH or FAIRLEAD_SOCKET."
        }
        Some(io::ErrorKind::ConnectionRefused) => {
            "nothing listens there any more: is fairleadd running?"
        }
        _ => "is fairleadd running? Its own messages may say more.",
    };
    CliError::Unreachable {
        socket: socket.to_owned(),
        reason: deepest.to_string(),
        hint,
    }
}

fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    error.downcast_ref::<io::Error>().map(io::Error::kind)
}
