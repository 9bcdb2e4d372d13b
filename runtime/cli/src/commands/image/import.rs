//! `image import`: an archive goes to the daemon in pieces.

use fairlead_api::v1::{self, import_image_request::Part};
use futures_util::{StreamExt, stream};
use tokio::sync::oneshot;

use super::archive::{failed, open, pieces};
use super::familiar;
use crate::args::ImportArgs;
use crate::commands::unless_ended;
use crate::error::CliError;
use crate::output::image::Image;
use crate::output::{print, print_json, progress};
use crate::socket::Daemon;

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
    let request = |part| v1::ImportImageRequest { part: Some(part) };
    let first = stream::iter([request(Part::Options(options))]);
    let rest = pieces(archive, broken, |piece| v1::ImportImageRequest {
        part: Some(Part::Piece(piece)),
    });
    let requests = first.chain(rest);
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
