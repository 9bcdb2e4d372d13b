//! The images of the double: a pull that goes on as the test says.

use fairlead_api::v1;
use fairlead_api::v1::images_server::Images;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Status, Streaming};

use super::{Answer, Double, Items};

/// What the test has to say of a pull, and how it ends.
pub type Pull = tokio::sync::mpsc::UnboundedReceiver<Result<v1::PullImageResponse, Status>>;

fn unknown<T>() -> Answer<T> {
    Err(Status::unimplemented("no test has needed this yet"))
}

#[tonic::async_trait]
impl Images for Double {
    type PullImageStream = Items<v1::PullImageResponse>;
    type SaveImagesStream = Items<v1::SaveImagesResponse>;

    async fn pull_image(&self, _: Request<v1::PullImageRequest>) -> Answer<Self::PullImageStream> {
        match self.script.lock().unwrap().pull.take() {
            Some(pull) => Ok(UnboundedReceiverStream::new(pull).into()),
            None => Err(Status::not_found("the script has no pull")),
        }
    }

    async fn load_image(&self, _: Request<v1::LoadImageRequest>) -> Answer<v1::LoadImageResponse> {
        unknown()
    }

    async fn load_archive(
        &self,
        _: Request<Streaming<v1::LoadArchiveRequest>>,
    ) -> Answer<v1::LoadArchiveResponse> {
        unknown()
    }

    async fn save_images(
        &self,
        _: Request<v1::SaveImagesRequest>,
    ) -> Answer<Self::SaveImagesStream> {
        unknown()
    }

    async fn import_image(
        &self,
        _: Request<Streaming<v1::ImportImageRequest>>,
    ) -> Answer<v1::ImportImageResponse> {
        unknown()
    }

    async fn list_images(
        &self,
        _: Request<v1::ListImagesRequest>,
    ) -> Answer<v1::ListImagesResponse> {
        unknown()
    }

    async fn inspect_image(
        &self,
        _: Request<v1::InspectImageRequest>,
    ) -> Answer<v1::InspectImageResponse> {
        unknown()
    }

    async fn remove_image(
        &self,
        _: Request<v1::RemoveImageRequest>,
    ) -> Answer<v1::RemoveImageResponse> {
        unknown()
    }

    async fn prune_images(
        &self,
        _: Request<v1::PruneImagesRequest>,
    ) -> Answer<v1::PruneImagesResponse> {
        unknown()
    }

    async fn image_usage(
        &self,
        _: Request<v1::ImageUsageRequest>,
    ) -> Answer<v1::ImageUsageResponse> {
        unknown()
    }
}
