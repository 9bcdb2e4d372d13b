//! `image`: the images of the node.

mod archive;
mod import;
mod load;
mod save;

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use fairlead_api::v1::{self, pull_image_response::Event};
use serde::Serialize;

use crate::args::{ImageCommand, PullArgs};
use crate::commands::list::join;
use crate::error::CliError;
use crate::output::image::{Image, size};
use crate::output::pull::Pull;
use crate::output::table::{Table, id};
use crate::output::time::{ago, now};
use crate::output::{print, print_json};
use crate::socket::Daemon;

/// Does what is asked for.
pub async fn run(daemon: &Daemon, command: ImageCommand, json: bool) -> Result<(), CliError> {
    match command {
        ImageCommand::Ls(args) => list(daemon, args.no_trunc, json).await,
        ImageCommand::Pull(args) => pull(daemon, &args, json).await,
        ImageCommand::Load(args) => load::run(daemon, &args, json).await,
        ImageCommand::Save(args) => save::run(daemon, &args).await,
        ImageCommand::Import(args) => import::run(daemon, &args, json).await,
        ImageCommand::Inspect { name } => inspect(daemon, &name).await,
        ImageCommand::Rm { names, force } => remove(daemon, &names, force, json).await,
        ImageCommand::Prune { all, until } => {
            let unused_for = until.unwrap_or_default().as_nanos();
            let unused_for = u64::try_from(unused_for).unwrap_or(u64::MAX);
            prune(daemon, v1::PruneImagesRequest { all, unused_for }, json).await
        }
        ImageCommand::Df => usage(daemon, json).await,
    }
}

async fn list(daemon: &Daemon, no_trunc: bool, json: bool) -> Result<(), CliError> {
    let answer = daemon
        .images
        .clone()
        .list_images(v1::ListImagesRequest {})
        .await;
    let answer = answer.map_err(|status| daemon.error("list the images", &status))?;
    let images: Vec<Image> = answer
        .into_inner()
        .images
        .into_iter()
        .map(Image::from)
        .collect();
    if json {
        return print_json(&images);
    }
    let mut table = Table::new(&["NAME", "ID", "SIZE", "USED", "TASKS"]);
    for image in &images {
        let digits = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
        let names = match image.names.as_slice() {
            [] => &[String::new()][..],
            names => names,
        };
        for name in names {
            table.row([
                familiar(name).to_owned(),
                id(digits, no_trunc),
                size(image.bytes),
                ago(image.used_nanos, now()),
                join(&image.tasks, |task| id(task, no_trunc)),
            ]);
        }
    }
    print(&table.render())
}

/// As people write it: what Docker's names leave out is left out.
fn familiar(name: &str) -> &str {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    // With more behind it, what is left would be the name of another one.
    let short = name.strip_prefix("library/");
    short.filter(|rest| !rest.contains('/')).unwrap_or(name)
}

async fn pull(daemon: &Daemon, args: &PullArgs, json: bool) -> Result<(), CliError> {
    let registry_auth = match (&args.username, &args.password_file) {
        (Some(username), Some(file)) => registry_auth(username, &password(file)?)?,
        _ => String::new(),
    };
    let request = v1::PullImageRequest {
        name: args.name.clone(),
        registry_auth,
    };
    let doing = format!("pull `{}`", args.name);
    let failed = |status: &tonic::Status| daemon.error(&doing, status);
    let answer = daemon.images.clone().pull_image(request).await;
    let mut events = answer.map_err(|status| failed(&status))?.into_inner();
    let mut shown = Pull::new(args.quiet || json);
    while let Some(response) = events.message().await.map_err(|status| failed(&status))? {
        match response.event {
            Some(Event::Image(image)) => {
                shown.end();
                let image = Image::from(image);
                return match json {
                    true => print_json(&image),
                    false => print(&format!("{}\n", image.id)),
                };
            }
            Some(event) => shown.event(&event),
            None => {}
        }
    }
    Err(daemon.ended("the pull's progress"))
}

fn password(file: &Path) -> Result<String, CliError> {
    let read = if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    let text = read.map_err(|error| CliError::Document(format!("{}: {error}", file.display())))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// `X-Registry-Auth` of Docker's API.
fn registry_auth(username: &str, password: &str) -> Result<String, CliError> {
    #[derive(Serialize)]
    struct Auth<'a> {
        username: &'a str,
        password: &'a str,
    }
    let json = serde_json::to_vec(&Auth { username, password })?;
    Ok(base64::Engine::encode(
        &base64::engine::general_purpose::URL_SAFE,
        json,
    ))
}

async fn inspect(daemon: &Daemon, name: &str) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Inspected {
        #[serde(flatten)]
        image: Image,
        config: serde_json::Value,
    }
    let request = v1::InspectImageRequest {
        name: name.to_owned(),
    };
    let answer = daemon.images.clone().inspect_image(request).await;
    let answer =
        answer.map_err(|status| daemon.error(&format!("inspect image `{name}`"), &status))?;
    let answer = answer.into_inner();
    print_json(&Inspected {
        image: Image::from(answer.image.unwrap_or_default()),
        config: serde_json::from_str(&answer.config)?,
    })
}

async fn remove(
    daemon: &Daemon,
    names: &[String],
    force: bool,
    json: bool,
) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Removed {
        untagged: Vec<String>,
        removed: String,
        bytes: u64,
    }
    let (mut done, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        let request = v1::RemoveImageRequest {
            name: name.clone(),
            force,
        };
        match daemon.images.clone().remove_image(request).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                done.push(Removed {
                    untagged: answer.untagged,
                    removed: answer.removed,
                    bytes: answer.bytes,
                });
            }
            Err(status) => errors.push(daemon.error(&format!("remove image `{name}`"), &status)),
        }
    }
    if json {
        print_json(&done)?;
    } else {
        for removed in &done {
            for name in &removed.untagged {
                print(&format!("untagged {}\n", familiar(name)))?;
            }
            if !removed.removed.is_empty() {
                print(&format!(
                    "removed {} ({})\n",
                    removed.removed,
                    size(removed.bytes)
                ))?;
            }
        }
    }
    CliError::collect(errors)
}

async fn prune(
    daemon: &Daemon,
    request: v1::PruneImagesRequest,
    json: bool,
) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Pruned {
        removed: Vec<String>,
        layers: u64,
        bytes: u64,
    }
    let answer = daemon.images.clone().prune_images(request).await;
    let answer = answer
        .map_err(|status| daemon.error("prune the images", &status))?
        .into_inner();
    if json {
        return print_json(&Pruned {
            removed: answer.removed,
            layers: answer.layers,
            bytes: answer.bytes,
        });
    }
    for id in &answer.removed {
        print(&format!("removed {id}\n"))?;
    }
    print(&format!(
        "{} images and {} layers removed, {}\n",
        answer.removed.len(),
        answer.layers,
        size(answer.bytes)
    ))
}

async fn usage(daemon: &Daemon, json: bool) -> Result<(), CliError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Usage {
        images: u64,
        images_in_use: u64,
        layers: u64,
        layer_bytes: u64,
        reclaimable_bytes: u64,
        snapshots: u64,
        snapshot_bytes: u64,
        download_bytes: u64,
    }
    let answer = daemon
        .images
        .clone()
        .image_usage(v1::ImageUsageRequest {})
        .await;
    let u = answer
        .map_err(|status| daemon.error("ask what images take", &status))?
        .into_inner();
    if json {
        return print_json(&Usage {
            images: u.images,
            images_in_use: u.images_in_use,
            layers: u.layers,
            layer_bytes: u.layer_bytes,
            reclaimable_bytes: u.reclaimable_bytes,
            snapshots: u.snapshots,
            snapshot_bytes: u.snapshot_bytes,
            download_bytes: u.download_bytes,
        });
    }
    let mut table = Table::new(&["WHAT", "NUMBER", "IN USE", "SIZE", "RECLAIMABLE"]);
    table.row([
        "images".to_owned(),
        u.images.to_string(),
        u.images_in_use.to_string(),
        format!("{} in {} layers", size(u.layer_bytes), u.layers),
        size(u.reclaimable_bytes),
    ]);
    table.row([
        "tasks' own files".to_owned(),
        u.snapshots.to_string(),
        u.snapshots.to_string(),
        size(u.snapshot_bytes),
        size(0),
    ]);
    table.row([
        "unfinished pulls".to_owned(),
        String::new(),
        String::new(),
        size(u.download_bytes),
        size(u.download_bytes),
    ]);
    print(&table.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_people_write_them() {
        for (name, shown) in [
            ("docker.io/library/nginx:latest", "nginx:latest"),
            ("docker.io/team/app:1", "team/app:1"),
            // Without `library/` it would be team's.
            ("docker.io/library/team/app:1", "library/team/app:1"),
            (
                "registry.example:5000/library/app:1",
                "registry.example:5000/library/app:1",
            ),
            ("", ""),
        ] {
            assert_eq!(familiar(name), shown);
        }
    }
}
