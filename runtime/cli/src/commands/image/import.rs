//! `image import`: an archive goes to the daemon in pieces.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use fairlead_api::v1::{self, import_image_request::Part};
use futures_util::stream;
use tokio::sync::oneshot;

use super::familiar;
use crate::args::ImportArgs;
use crate::commands::unless_ended;
use crate::error::CliError;
use crate::output::image::Image;
use crate::output::{print, print_json, progress};
use crate::socket::Daemon;

/// Bytes that are sent at once.
const PIECE: usize = 256 << 10;

/// Imports an archive.
pub async fn run(daemon: &Daemon, args: &ImportArgs, json: bool) -> Result<(), CliError> {
    let archive = open(&args.file)?;
    let message = match &args.message {
        Some(message) => message.clone(),
        None => format!("Imported from {}", args.file.display()),
    };
    let options = v1::ImportOptions {
        name: args.name.clone().unwrap_or_default(),
        changes: args.changes.clone(),
        message,
        platform: args.platform.clone().unwrap_or_default(),
    };
    let doing = format!("import {}", args.file.display());
    let (broken, breaks) = oneshot::channel();
    let requests = pieces(options, archive, broken);
    let import = async {
        let mut images = daemon.images.clone();
        tokio::select! {
            // An archive that cannot be read must not look like one that ends.
            Ok(error) = breaks => Err(failed(&args.file, error)),
            answer = images.import_image(requests) => {
                answer.map_err(|status| daemon.error(&doing, &status))
            }
        }
    };
    let answer = unless_ended(import).await?;
    let image = Image::from(answer.into_inner().image.unwrap_or_default());
    if json {
        return print_json(&image);
    }
    for name in &image.names {
        progress(&format!("imported {}", familiar(name)));
    }
    print(&format!("{}\n", image.id))
}

fn open(file: &Path) -> Result<Box<dyn Read + Send>, CliError> {
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

/// The options, then the archive. When reading fails, the stream stays open and `broken` is told why.
fn pieces(
    options: v1::ImportOptions,
    archive: Box<dyn Read + Send>,
    broken: oneshot::Sender<io::Error>,
) -> impl futures_util::Stream<Item = v1::ImportImageRequest> + Send + 'static {
    let request = |part| v1::ImportImageRequest { part: Some(part) };
    let first = request(Part::Options(options));
    let rest = stream::unfold(Some((archive, broken)), move |state| async move {
        let (archive, broken) = state?;
        match read(archive).await {
            Ok((_, piece)) if piece.is_empty() => None,
            Ok((archive, piece)) => Some((request(Part::Piece(piece)), Some((archive, broken)))),
            Err(error) => {
                let _ = broken.send(error);
                std::future::pending().await
            }
        }
    });
    futures_util::StreamExt::chain(stream::once(std::future::ready(first)), rest)
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

fn failed(file: &Path, error: io::Error) -> CliError {
    CliError::Document(format!("{}: {error}", file.display()))
}
