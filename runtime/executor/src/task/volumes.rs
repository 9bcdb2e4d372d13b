//! The volumes that an image wants: each absolute path that the task mounts nothing on gets a directory
//! of its own, beside the task's root file system and with its life, which begins with what the image has
//! there.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use container::shim::{FILL, FillOptions, FillReport, FillSource, Volume};
use fairlead_api::v1;
use image::{Image, ImageError, SnapshotRoot};

use super::helper::Helper;
use super::prepare::{file, json, private_dir, write};
use super::{Follower, StepError, blocking};
use crate::node::Node;
use crate::record::Local;

/// In the directory of the bundle, which a restart of the machine empties: says that the volumes are
/// complete. What was written to the disk before a power failure may not be.
const COMPLETE: &str = "volumes.complete";

/// Each is a directory and a mount, and no image that is meant well has so many.
const MAX_VOLUMES: usize = 256;

/// No copy takes longer. It can be cut short at any time.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

impl Follower {
    /// Makes the volumes of the task and fills them, once. `None` when something else is wanted of the
    /// task meanwhile.
    pub(super) async fn volumes(
        &mut self,
        local: &Local,
        image: &Image,
    ) -> Result<Option<Vec<Volume>>, StepError> {
        let places = places(local.def.container(), image)?;
        if places.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let (node, id) = (Arc::clone(&self.node), self.id.clone());
        let (volumes, complete) = blocking(move || make(&node, &id, &places)).await?;
        if !complete && !self.fill().await? {
            return Ok(None);
        }
        Ok(Some(volumes))
    }

    /// False when something else is wanted of the task meanwhile.
    async fn fill(&mut self) -> Result<bool, StepError> {
        let run = self.node.options.task_run_dir(&self.id);
        let (node, bundle) = (Arc::clone(&self.node), run.clone());
        let helper = blocking(move || {
            Helper::spawn(&node.shim, "fill", &bundle).map_err(|e| StepError::of(&e))
        })
        .await?;
        let filled = helper.report::<FillReport>(LIMIT);
        tokio::pin!(filled);
        let was = *self.want.borrow();
        let report = loop {
            tokio::select! {
                report = &mut filled => break report,
                changed = self.want.changed() => {
                    let want = *self.want.borrow();
                    if changed.is_err() || want.removing || want.desired != was.desired {
                        // The helper ends with the future.
                        return Ok(false);
                    }
                }
            }
        };
        match report.map_err(|e| StepError::of(&e))? {
            FillReport::Filled => {
                let path = run.join(COMPLETE);
                blocking(move || write(&path, b"")).await?;
                Ok(true)
            }
            FillReport::Failed { message, errno } => {
                // What is there of them may be what fills the disk.
                let (images, id) = (Arc::clone(&self.node.images), self.id.clone());
                let emptied = blocking(move || {
                    let made = images.new_volumes(&id, &[]);
                    made.map_err(|error| StepError::of(&error))
                });
                if let Err(error) = emptied.await {
                    tracing::warn!(task = self.id, %error, "volumes that are filled in part stay");
                }
                let cause = std::io::Error::from_raw_os_error(errno);
                Err(StepError {
                    transient: errno != 0 && super::is_transient(&cause),
                    ..StepError::fatal(message)
                })
            }
        }
    }
}

/// A volume of the image: its number there, and its place.
type Place = (usize, PathBuf);

/// The volumes that the task gets. What it mounts itself takes the place of one, as in Docker.
fn places(c: &v1::ContainerSpec, image: &Image) -> Result<Vec<Place>, StepError> {
    if image.volumes().len() > MAX_VOLUMES {
        return Err(StepError::fatal(format!(
            "image {} wants {} volumes, at most {MAX_VOLUMES} are given",
            c.image,
            image.volumes().len()
        )));
    }
    let own: Vec<PathBuf> = c.mounts.iter().filter_map(|m| clean(&m.target)).collect();
    let mut places: Vec<Place> = Vec::new();
    for (number, text) in image.volumes().iter().enumerate() {
        let refuse = |reason: &str| {
            StepError::fatal(format!(
                "image {} wants a volume at {text:?}, {reason}: mount something there in the task, or \
                 use another image",
                c.image
            ))
        };
        let place = clean(text).ok_or_else(|| refuse("which is no place in the image"))?;
        if own.contains(&place) || places.iter().any(|(_, known)| *known == place) {
            continue;
        }
        if place.starts_with("/proc") {
            return Err(refuse("where nothing can be mounted"));
        }
        places.push((number, place));
    }
    Ok(places)
}

/// A path below the root, without what changes nothing; `None` for the root itself and for one with
/// `..`. As for Docker, a relative one begins at the root.
fn clean(path: &str) -> Option<PathBuf> {
    let mut clean = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (clean != Path::new("/")).then_some(clean)
}

/// Makes the directories, unless they are there and complete; whether they are.
fn make(node: &Node, task: &str, places: &[Place]) -> Result<(Vec<Volume>, bool), StepError> {
    let run = node.options.task_run_dir(task);
    private_dir(&run)?;
    let known = node
        .images
        .snapshot_of(task)
        .map_err(|e| StepError::of(&e))?;
    let (snapshot, _) = known.ok_or_else(|| StepError::fatal("it has no root file system"))?;
    let dirs = snapshot.volumes();
    let volume = |(number, place): &Place| Volume {
        destination: place.clone(),
        source: dirs.directory(*number),
    };
    let volumes: Vec<Volume> = places.iter().map(volume).collect();
    if run.join(COMPLETE).exists() && volumes.iter().all(|volume| volume.source.is_dir()) {
        return Ok((volumes, true));
    }
    // What a daemon before this one has begun may be anything.
    match fs::remove_file(run.join(COMPLETE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(file("remove", &run.join(COMPLETE))(error));
        }
        _ => {}
    }
    let numbers: Vec<usize> = places.iter().map(|(number, _)| *number).collect();
    let made = node.images.new_volumes(task, &numbers);
    made.map_err(|error| StepError {
        // The helper of that daemon is just about to end.
        transient: is_written_to(&error),
        ..StepError::of(&error)
    })?;
    let image = match snapshot.root().clone() {
        SnapshotRoot::Overlay(overlay) => FillSource::Layers {
            lower: overlay.lower,
            empty: dirs.empty(),
        },
        SnapshotRoot::Directory { root } => FillSource::Directory(root),
    };
    let options = FillOptions {
        image,
        volumes: volumes.clone(),
    };
    write(&run.join(FILL), &json(&options)?)?;
    Ok((volumes, false))
}

/// Whether somebody put a file into a directory while it was being removed.
fn is_written_to(error: &ImageError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|e| e.kind() == std::io::ErrorKind::DirectoryNotEmpty) {
            return true;
        }
        cause = error.source();
    }
    super::is_transient(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_below_the_root() {
        for (text, place) in [
            ("/data", Some("/data")),
            ("//data/./x/", Some("/data/x")),
            ("data", Some("/data")),
            ("/", None),
            ("", None),
            ("/.", None),
            ("/data/../..", None),
        ] {
            assert_eq!(clean(text).as_deref(), place.map(Path::new), "{text}");
        }
    }
}
