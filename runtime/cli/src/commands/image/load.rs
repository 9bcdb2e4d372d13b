//! `image load`: an archive on the node, or one that goes to the daemon in pieces.

use std::fs;
use std::path::Path;

use fairlead_api::v1;
use tokio::sync::oneshot;

use super::archive::{failed, open, pieces};
use super::familiar;
use crate::args::LoadArgs;
use crate::commands::unless_ended;
use crate::error::CliError;
use crate::output::image::Image;
use crate::output::{print, print_json, progress};
use crate::socket::Daemon;

/// Loads the images of an archive.
pub async fn run(daemon: &Daemon, args: &LoadArgs, json: bool) -> Result<(), CliError> {
    let images = match (&args.archive, &args.input) {
        (Some(archive), _) if archive != "-" => on_node(daemon, archive).await?,
        (_, Some(file)) => sent(daemon, file).await?,
        _ => sent(daemon, Path::new("-")).await?,
    };
    let images: Vec<Image> = images.into_iter().map(Image::from).collect();
    if json {
        return print_json(&images);
    }
    for image in &images {
        for name in &image.names {
            progress(&format!("loaded {}", familiar(name)));
        }
        print(&format!("{}\n", image.id))?;
    }
    Ok(())
}

async fn on_node(daemon: &Daemon, archive: &str) -> Result<Vec<v1::Image>, CliError> {
    let is_reference = ["docker-archive:", "oci-archive:", "oci:"]
        .iter()
        .any(|scheme| archive.starts_with(scheme));
    let reference = if is_reference {
        archive.to_owned()
    } else {
        let path = fs::canonicalize(archive)
            .map_err(|error| CliError::Document(format!("{archive}: {error}")))?;
        format!("docker-archive:{}", path.display())
    };
    let request = v1::LoadImageRequest { reference };
    let answer = daemon.images.clone().load_image(request).await;
    let answer = answer.map_err(|status| daemon.error(&format!("load {archive}"), &status))?;
    Ok(answer.into_inner().images)
}

async fn sent(daemon: &Daemon, file: &Path) -> Result<Vec<v1::Image>, CliError> {
    let archive = open(file)?;
    let doing = match file == Path::new("-") {
        true => "load what came on standard input".to_owned(),
        false => format!("load {}", file.display()),
    };
    let (broken, breaks) = oneshot::channel();
    let requests = pieces(archive, broken, |piece| v1::LoadArchiveRequest { piece });
    let load = async {
        let mut images = daemon.images.clone();
        tokio::select! {
            // An archive that cannot be read must not look like one that ends.
            Ok(error) = breaks => Err(failed(file, error)),
            answer = images.load_archive(requests) => {
                answer.map_err(|status| daemon.error(&doing, &status))
            }
        }
    };
    Ok(unless_ended(load).await?.into_inner().images)
}
