//! What the daemon does of itself from time to time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks for images that nobody uses, at least and at most.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Removes images that no task uses and that nobody has used for `unused_for`, again and again; none
/// without it.
pub async fn prune_images(images: Arc<image::Store>, unused_for: Option<Duration>) -> Infallible {
    let Some(unused_for) = unused_for else {
        return std::future::pending().await;
    };
    let pause = (unused_for / 10).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    loop {
        tokio::time::sleep(pause).await;
        let images = Arc::clone(&images);
        match tokio::task::spawn_blocking(move || images.prune(true, unused_for)).await {
            Ok(Ok((gone, collected))) if !gone.is_empty() => {
                let bytes = collected.bytes;
                tracing::info!(
                    images = gone.len(),
                    bytes,
                    "images that nobody used were removed"
                );
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot remove images that nobody uses"),
            Err(error) => tracing::error!(%error, "removing images has ended: this is a bug"),
        }
    }
}
