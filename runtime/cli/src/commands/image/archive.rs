//! An archive that goes to the daemon in pieces.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use futures_util::stream::{self, Stream};
use tokio::sync::oneshot;

use crate::error::CliError;

/// Bytes that are sent at once.
const PIECE: usize = 256 << 10;

/// Opens an archive; `-` is standard input.
pub fn open(file: &Path) -> Result<Box<dyn Read + Send>, CliError> {
    if file != Path::new("-") {
        let opened = File::open(file).map_err(|error| failed(file, error))?;
        return Ok(Box::new(opened));
    }
    if io::stdin().is_terminal() {
        return Err(CliError::Usage(
            "an archive is not read from a terminal: pipe it in, or name a file".to_owned(),
        ));
    }
    Ok(Box::new(io::stdin()))
}

/// Messages with the pieces of an archive. When reading fails, the stream stays open and `broken` is told
/// why: what cannot be read must not look like what ends.
pub fn pieces<T: 'static>(
    archive: Box<dyn Read + Send>,
    broken: oneshot::Sender<io::Error>,
    message: fn(Vec<u8>) -> T,
) -> impl Stream<Item = T> + Send + 'static {
    stream::unfold(Some((archive, broken)), move |state| async move {
        let (archive, broken) = state?;
        match read(archive).await {
            Ok((_, piece)) if piece.is_empty() => None,
            Ok((archive, piece)) => Some((message(piece), Some((archive, broken)))),
            Err(error) => {
                let _ = broken.send(error);
                std::future::pending().await
            }
        }
    })
}

/// Reads a piece, on a thread that may wait for it.
async fn read(mut archive: Box<dyn Read + Send>) -> io::Result<(Box<dyn Read + Send>, Vec<u8>)> {
    let work = move || {
        let mut piece = Vec::with_capacity(PIECE);
        archive
            .by_ref()
            .take(PIECE as u64)
            .read_to_end(&mut piece)?;
        Ok((archive, piece))
    };
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// An archive that cannot be read.
pub fn failed(file: &Path, error: io::Error) -> CliError {
    CliError::Document(format!("{}: {error}", file.display()))
}
