//! The images of the node.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fairlead_api::v1::images_server::Images;
use fairlead_api::v1::{self, import_image_request::Part, pull_image_response::Event};
use image::{
    Image, ImageError, Import, LayerError, Name, PlatformError, PullEvent, PullOptions, Reference,
    RegistryError, SaveError, Stored,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Streaming;
use super::pieces::{Incoming, Outgoing};
use crate::events::chain;
use crate::node::Node;
use crate::task::credentials;

/// Messages that wait for a slow reader. A download's progress leaves room for all that is said once:
/// two for each of 500 layers, again where damaged ones are pulled anew, and a few of the whole.
const QUEUE: usize = 256 + SAID_ONCE;
const SAID_ONCE: usize = 2 * 2 * 500 + 8;

pub(super) struct Service {
    pub(super) node: Arc<Node>,
}

#[tonic::async_trait]
impl Images for Service {
    type PullImageStream = Streaming<v1::PullImageResponse>;

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<Self::PullImageStream>, Status> {
        let request = request.into_inner();
        let name = match request.name.parse() {
            Ok(Reference::Named(name)) => name,
            Ok(_) => {
                return Err(invalid(
                    "name",
                    "only a name has a registry; load the others",
                ));
            }
            Err(error) => return Err(invalid("name", &error.to_string())),
        };
        let (sender, receiver) = mpsc::channel(QUEUE);
        let progress = sender.clone();
        let mut options = PullOptions::default();
        options.credentials =
            credentials(&request.registry_auth).map_err(Status::invalid_argument)?;
        options.progress = Arc::new(move |event| tell(&progress, event));
        let (gone, canceller) = (sender.clone(), options.canceller());
        let images = Arc::clone(&self.node.images);
        let work = tokio::task::spawn_blocking(move || {
            let pulled = images.pull(&name, &options);
            let pulled = pulled.and_then(|image| images.find(&image.id.to_string()));
            let last = match pulled {
                Ok(stored) => Ok(response(Event::Image(message(stored)))),
                Err(error) => Err(status(&error)),
            };
            // Whoever asked may have gone.
            let _ = sender.try_send(last);
        });
        tokio::spawn(async move {
            tokio::select! {
                () = gone.closed() => canceller.cancel(),
                // The stream ends once the last of its senders is gone: this one is.
                _ = work => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn load_image(
        &self,
        request: Request<v1::LoadImageRequest>,
    ) -> Result<Response<v1::LoadImageResponse>, Status> {
        let text = request.into_inner().reference;
        let reference: Reference = text
            .parse()
            .map_err(|error: image::ReferenceError| invalid("reference", &error.to_string()))?;
        if matches!(
            reference,
            Reference::Named(_) | Reference::Id(_) | Reference::Directory { .. }
        ) {
            let reason = "docker-archive:/PATH, oci-archive:/PATH or oci:/DIR is loaded";
            return Err(invalid("reference", reason));
        }
        let images = self
            .work(move |images| stored(images, images.load_all(&reference)?))
            .await?;
        let images = images.into_iter().map(message).collect();
        Ok(Response::new(v1::LoadImageResponse { images }))
    }

    async fn load_archive(
        &self,
        request: Request<tonic::Streaming<v1::LoadArchiveRequest>>,
    ) -> Result<Response<v1::LoadArchiveResponse>, Status> {
        let requests = request.into_inner();
        let turn = self.transfer().await?;
        let (archive, sending) = Incoming::new();
        let work = self.work(move |images| {
            // Until this has ended: who asked for it may go away before.
            let _turn = turn;
            stored(images, images.load_stream(archive)?)
        });
        let sending = sending.send_all(requests, |request| Ok(request.piece));
        // Once one has failed, the other is not waited for.
        let (images, ()) = tokio::try_join!(work, sending)?;
        let images = images.into_iter().map(message).collect();
        Ok(Response::new(v1::LoadArchiveResponse { images }))
    }

    type SaveImagesStream = Streaming<v1::SaveImagesResponse>;

    async fn save_images(
        &self,
        request: Request<v1::SaveImagesRequest>,
    ) -> Result<Response<Self::SaveImagesStream>, Status> {
        let names = request.into_inner().names;
        if names.is_empty() {
            return Err(invalid("names", "missing: which images are saved?"));
        }
        let turn = self.transfer().await?;
        let (mut out, pieces) = Outgoing::new(|piece| v1::SaveImagesResponse { piece });
        let images = Arc::clone(&self.node.images);
        tokio::task::spawn_blocking(move || {
            match images.save(&names, &mut out) {
                Ok(()) => out.finish(),
                Err(ImageError::Write(_)) => {
                    tracing::debug!(?names, "whoever saved images has gone");
                }
                Err(error) => out.fail(status(&error)),
            }
            drop(turn);
        });
        Ok(Response::new(Box::pin(pieces)))
    }

    async fn import_image(
        &self,
        request: Request<tonic::Streaming<v1::ImportImageRequest>>,
    ) -> Result<Response<v1::ImportImageResponse>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.part);
        let Some(Part::Options(options)) = first else {
            return Err(invalid("options", "missing: they are the first message"));
        };
        let import = import_of(options)?;
        let turn = self.transfer().await?;
        let (archive, sending) = Incoming::new();
        let work = self.work(move |images| {
            let _turn = turn;
            let image = images.import(archive, &import)?;
            images.find(&image.id.to_string())
        });
        let piece = |request: v1::ImportImageRequest| match request.part {
            Some(Part::Piece(piece)) => Ok(piece),
            _ => Err(invalid(
                "piece",
                "missing: only the first message is another",
            )),
        };
        // Once one has failed, the other is not waited for.
        let (image, ()) = tokio::try_join!(work, sending.send_all(requests, piece))?;
        let image = Some(message(image));
        Ok(Response::new(v1::ImportImageResponse { image }))
    }

    async fn list_images(
        &self,
        _: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let stored = self.work(|images| images.stored()).await?;
        let images = stored.into_iter().map(message).collect();
        Ok(Response::new(v1::ListImagesResponse { images }))
    }

    async fn inspect_image(
        &self,
        request: Request<v1::InspectImageRequest>,
    ) -> Result<Response<v1::InspectImageResponse>, Status> {
        let name = request.into_inner().name;
        let stored = self.work(move |images| images.find(&name)).await?;
        let config = stored.raw_config.clone();
        let image = Some(message(stored));
        Ok(Response::new(v1::InspectImageResponse { image, config }))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        let request = request.into_inner();
        let removed = self
            .work(move |images| images.remove(&request.name, request.force))
            .await?;
        Ok(Response::new(v1::RemoveImageResponse {
            untagged: removed.untagged.iter().map(ToString::to_string).collect(),
            removed: removed.image.map(|id| id.to_string()).unwrap_or_default(),
            bytes: removed.collected.bytes,
        }))
    }

    async fn prune_images(
        &self,
        request: Request<v1::PruneImagesRequest>,
    ) -> Result<Response<v1::PruneImagesResponse>, Status> {
        let request = request.into_inner();
        let unused_for = Duration::from_nanos(request.unused_for);
        let (removed, collected) = self
            .work(move |images| images.prune(request.all, unused_for))
            .await?;
        Ok(Response::new(v1::PruneImagesResponse {
            removed: removed.iter().map(ToString::to_string).collect(),
            layers: collected.layers as u64,
            bytes: collected.bytes,
        }))
    }

    async fn image_usage(
        &self,
        _: Request<v1::ImageUsageRequest>,
    ) -> Result<Response<v1::ImageUsageResponse>, Status> {
        let usage = self.work(|images| images.usage()).await?;
        Ok(Response::new(v1::ImageUsageResponse {
            images: usage.images as u64,
            images_in_use: usage.images_in_use as u64,
            layers: usage.layers as u64,
            layer_bytes: usage.layer_bytes,
            reclaimable_bytes: usage.reclaimable_bytes,
            snapshots: usage.snapshots as u64,
            snapshot_bytes: usage.snapshot_bytes,
            download_bytes: usage.download_bytes,
        }))
    }
}

impl Service {
    /// Waits until an archive may be sent or received.
    async fn transfer(&self) -> Result<OwnedSemaphorePermit, Status> {
        let turn = Arc::clone(&self.node.transfers).acquire_owned().await;
        turn.map_err(|error| Status::internal(error.to_string()))
    }

    /// Blocking work on the store; it goes on to its end although the caller may go away.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&image::Store) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, Status> {
        let images = Arc::clone(&self.node.images);
        match tokio::task::spawn_blocking(move || work(&images)).await {
            Ok(outcome) => outcome.map_err(|error| status(&error)),
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }
}

fn tell(progress: &mpsc::Sender<Result<v1::PullImageResponse, Status>>, event: PullEvent) {
    let event = match event {
        PullEvent::Manifest { digest, .. } => Event::Manifest(digest.to_string()),
        PullEvent::Layer { blob, size, here } => Event::Layer(v1::LayerFound {
            blob: blob.to_string(),
            size,
            here,
        }),
        PullEvent::Downloading { blob, bytes, .. } => {
            // One that is left out is made good by the next.
            if progress.capacity() <= SAID_ONCE {
                return;
            }
            let blob = blob.to_string();
            let progress_of = Event::Progress(v1::LayerProgress { blob, bytes });
            let _ = progress.try_send(Ok(response(progress_of)));
            return;
        }
        PullEvent::Unpacked { blob } => Event::Unpacked(blob.to_string()),
        _ => return,
    };
    // The store's own threads call this while others wait for the image: a reader that has stopped
    // must not hold them up. There is room; it may have gone.
    let _ = progress.try_send(Ok(response(event)));
}

fn response(event: Event) -> v1::PullImageResponse {
    v1::PullImageResponse { event: Some(event) }
}

fn message(stored: Stored) -> v1::Image {
    let used = stored.used.duration_since(UNIX_EPOCH).unwrap_or_default();
    let list = |items: &[image::Digest]| items.iter().map(ToString::to_string).collect();
    v1::Image {
        id: stored.image.id.to_string(),
        names: stored.image.names.iter().map(ToString::to_string).collect(),
        manifests: list(&stored.image.manifests),
        bytes: stored.bytes,
        created: stored.image.config.created().clone().unwrap_or_default(),
        used: u64::try_from(used.as_nanos()).unwrap_or(u64::MAX),
        tasks: stored.snapshots,
        annotations: stored.image.annotations.into_iter().collect(),
    }
}

/// What the store knows of images that were loaded just now. One that somebody has removed since is left out.
fn stored(images: &image::Store, loaded: Vec<Image>) -> Result<Vec<Stored>, ImageError> {
    let found = loaded
        .iter()
        .map(|image| images.find(&image.id.to_string()));
    found
        .filter(|found| !matches!(found, Err(ImageError::NotFound(_))))
        .collect()
}

fn import_of(options: v1::ImportOptions) -> Result<Import, Status> {
    let name = match options.name.as_str() {
        "" => None,
        name => match name.parse::<Name>() {
            Ok(name) if name.digest().is_none() => Some(name),
            Ok(_) => return Err(invalid("name", "a digest cannot be given to an image")),
            Err(error) => return Err(invalid("name", &error.to_string())),
        },
    };
    let platform = match options.platform.as_str() {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|error: PlatformError| invalid("platform", &error.to_string()))?,
        ),
    };
    Ok(Import {
        name,
        changes: options.changes,
        message: options.message,
        platform,
        created: None,
    })
}

fn invalid(field: &str, reason: &str) -> Status {
    Status::invalid_argument(format!("{field}: {reason}"))
}

fn status(error: &ImageError) -> Status {
    let text = chain(error);
    match error {
        ImageError::NotFound(_) | ImageError::Gone(_) => Status::not_found(text),
        ImageError::InUse { .. } => Status::failed_precondition(text),
        ImageError::Pull { source, .. } => match **source {
            RegistryError::NotFound { .. } => Status::not_found(text),
            RegistryError::Denied { .. } => Status::permission_denied(text),
            RegistryError::Cancelled => Status::cancelled(text),
            RegistryError::Transport { .. }
            | RegistryError::Status { .. }
            | RegistryError::Proxy { .. } => Status::unavailable(text),
            _ => Status::internal(text),
        },
        ImageError::Save { source, .. } => match **source {
            SaveError::NoRecipe => Status::failed_precondition(text),
            _ => Status::data_loss(text),
        },
        // What is wrong is here, and not in what was sent.
        ImageError::Layer { source, .. } | ImageError::Import(source)
            if matches!(**source, LayerError::Kernel { .. } | LayerError::Recipe(_)) =>
        {
            Status::internal(text)
        }
        ImageError::Reference(_)
        | ImageError::Archive(_)
        | ImageError::Layer { .. }
        | ImageError::Import(_)
        | ImageError::Platform { .. }
        | ImageError::ImportPlatform { .. }
        | ImageError::Change(_) => Status::invalid_argument(text),
        _ => Status::internal(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_has_stopped_holds_nobody_up_and_misses_nothing_but_progress() {
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        let layers: Vec<_> = (0..500_u32)
            .map(|n| image::Digest::of(n.to_le_bytes()))
            .collect();
        for _ in 0..2 {
            for &blob in &layers {
                let (size, here) = (1, false);
                tell(&sender, PullEvent::Layer { blob, size, here });
                for bytes in 0..10 {
                    let of = 10;
                    tell(&sender, PullEvent::Downloading { blob, bytes, of });
                }
            }
            for &blob in &layers {
                tell(&sender, PullEvent::Unpacked { blob });
            }
        }
        sender
            .try_send(Err(Status::internal("the last")))
            .expect("room for the outcome");
        drop(sender);
        let (mut found, mut unpacked, mut last) = (0, 0, false);
        while let Some(message) = receiver.recv().await {
            match message.map(|message| message.event) {
                Ok(Some(Event::Layer(_))) => found += 1,
                Ok(Some(Event::Unpacked(_))) => unpacked += 1,
                Err(_) => last = true,
                _ => {}
            }
        }
        assert_eq!((found, unpacked, last), (1000, 1000, true));
    }
}
