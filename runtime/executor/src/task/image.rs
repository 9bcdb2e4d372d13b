//! The image of a task: the one that it has already, one of the node, or its registry's.

use std::path::PathBuf;
use std::sync::Arc;

use container::Rootfs;
use image::{
    Credentials, Image, ImageError, ImagePin, Name, PullOptions, Reference, RegistryError,
    SnapshotRoot,
};

use super::{Follower, StepError, blocking};
use crate::record::Local;

impl Follower {
    /// The image, and the task's own writable root file system on top of it. `None` when something
    /// else is wanted of the task meanwhile.
    pub(super) async fn root_file_system(
        &mut self,
        local: &Local,
    ) -> Result<Option<(Image, Rootfs)>, StepError> {
        let begun = self.begun_with().await?;
        let (image, pin) = match begun {
            Some(image) => (image, None),
            None => match self.image(local).await? {
                Some((image, pin)) => (image, Some(pin)),
                None => return Ok(None),
            },
        };
        let (images, id) = (Arc::clone(&self.node.images), self.id.clone());
        let limits = local.def.proto.resources.as_ref();
        let limits = limits.and_then(|resources| resources.limits.as_ref());
        let limit = limits.and_then(|limits| u64::try_from(limits.storage_bytes).ok());
        let limit = limit.filter(|bytes| *bytes > 0);
        blocking(move || {
            let snapshot = images
                .snapshot_within(&image, &id, limit)
                .map_err(|e| StepError::of(&e))?;
            // From here on the snapshot keeps what it needs.
            drop(pin);
            let rootfs = match snapshot.root().clone() {
                SnapshotRoot::Overlay(overlay) => Rootfs::Overlay {
                    lower: overlay.lower,
                    upper: overlay.upper,
                    work: overlay.work,
                },
                SnapshotRoot::Directory { root } => Rootfs::Directory(root),
            };
            Ok(Some((image, rootfs)))
        })
        .await
    }

    /// The image of the root file system that a daemon before this one has made: what the name means may
    /// have changed since. If that image was removed by force meanwhile, so is what was made of it: nothing
    /// has run on it, and what the name means now may be another image.
    async fn begun_with(&self) -> Result<Option<Image>, StepError> {
        let (images, id) = (Arc::clone(&self.node.images), self.id.clone());
        blocking(move || {
            let failed = |e| StepError::of(&e);
            match images.snapshot_of(&id).map_err(failed)? {
                Some((_, Some(image))) => Ok(Some(image)),
                Some((_, None)) => {
                    images.remove_snapshot(&id).map_err(failed)?;
                    Ok(None)
                }
                None => Ok(None),
            }
        })
        .await
    }

    /// The image, pinned for the task's root file system.
    async fn image(&mut self, local: &Local) -> Result<Option<(Image, ImagePin)>, StepError> {
        let container = local.def.container();
        let reference: Reference = container
            .image
            .parse()
            .map_err(|e: image::ReferenceError| StepError::of(&e))?;
        let (images, id) = (Arc::clone(&self.node.images), self.id.clone());
        let lookup = reference.clone();
        let here = blocking(move || match images.resolve_for(&id, &lookup) {
            Err(ImageError::NotFound(_)) => Ok(None),
            outcome => outcome.map(Some).map_err(|e| StepError::of(&e)),
        })
        .await?;
        let Reference::Named(name) = reference else {
            let missing = || StepError::of(&ImageError::NotFound(reference.to_string()));
            return here.ok_or_else(missing).map(Some);
        };
        // What a digest names does not change; a tag may mean another image by now, unless the
        // operator says that what is here will do.
        let settled = name.digest().is_some() || self.node.options.prefer_local_images;
        match here {
            Some(here) if settled => Ok(Some(here)),
            here => {
                let auth = container.pull_options.as_ref();
                let auth = auth.map(|options| options.registry_auth.as_str());
                self.pull(name, auth.unwrap_or_default(), here).await
            }
        }
    }

    /// Pulls, until something else is wanted of the task. Where the registry does not answer, what is
    /// `here` will do, as it does for Docker, and stays for that.
    async fn pull(
        &mut self,
        name: Name,
        auth: &str,
        here: Option<(Image, ImagePin)>,
    ) -> Result<Option<(Image, ImagePin)>, StepError> {
        let mut options = PullOptions::default();
        options.credentials = credentials(auth).map_err(StepError::fatal)?;
        options.or_here = here.is_some();
        let canceller = options.canceller();
        let (images, id) = (Arc::clone(&self.node.images), self.id.clone());
        let mut pull = tokio::task::spawn_blocking(move || images.pull_for(&id, &name, &options));
        let was = *self.want.borrow();
        let outcome = loop {
            tokio::select! {
                outcome = &mut pull => break outcome,
                changed = self.want.changed() => {
                    let want = *self.want.borrow();
                    if changed.is_err() || want.removing || want.desired != was.desired {
                        canceller.cancel();
                        // Soon: it waits for nothing any more.
                        break pull.await;
                    }
                }
            }
        };
        let outcome = outcome.map_err(|e| StepError::fatal(format!("internal error: {e}")))?;
        match outcome {
            Ok(pulled) => Ok(Some(pulled)),
            Err(ImageError::Pull { source, .. }) if matches!(*source, RegistryError::Cancelled) => {
                Ok(None)
            }
            Err(error) => Err(StepError::of(&error)),
        }
    }
}

/// From what Docker's API calls `X-Registry-Auth`; nothing where it says nothing.
pub fn credentials(auth: &str) -> Result<Option<Credentials>, String> {
    if auth.is_empty() {
        return Ok(None);
    }
    let found = Credentials::from_registry_auth(auth)
        .map_err(|reason| format!("registry_auth: {reason}"))?;
    Ok((found != Credentials::default()).then_some(found))
}

/// Reads what the operator says of registries. The default file need not exist.
///
/// # Errors
/// What is wrong with the file.
pub fn registries(file: Option<&PathBuf>) -> Result<image::Registries, String> {
    const DEFAULT: &str = "/etc/fairlead/registries.yaml";
    let path = file.cloned().unwrap_or_else(|| DEFAULT.into());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(image::Registries::default());
        }
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    // Nothing is quoted: there are passwords in it, and this goes to the log.
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(&text, options)
        .map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<image::Registries, String> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("registries.yaml");
        std::fs::write(&path, text).expect("written");
        registries(Some(&path))
    }

    #[test]
    fn the_file_of_registries_is_the_one_that_k3s_reads() {
        let text = "
mirrors:
  docker.io:
    endpoint: [\"https://mirror.example:5000\"]
configs:
  registry.example:
    auth: {username: me, password: secret}
    tls: {ca_file: /etc/ca.pem, insecure_skip_verify: false}
";
        let read = read(text).expect("understood");
        assert_eq!(
            read.mirrors["docker.io"].endpoints,
            ["https://mirror.example:5000"]
        );
        let config = &read.configs["registry.example"];
        assert_eq!(
            config.auth.as_ref().map(|a| a.username.as_str()),
            Some("me")
        );
        assert_eq!(config.tls.ca_file, Some("/etc/ca.pem".into()));
    }

    #[test]
    fn mistakes_in_the_file_are_told_with_its_name() {
        for text in [
            "mirror: {}",
            "mirrors: 3",
            "configs: {r: {tls: {ca: x}}}",
            "{",
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains("registries.yaml"), "{error}");
        }
        let missing = registries(Some(&"/nonexistent/registries.yaml".into()));
        assert!(missing.is_err_and(|error| error.contains("/nonexistent")));
    }

    #[test]
    fn a_mistake_beside_a_password_does_not_tell_it() {
        for text in [
            "configs:\n  r:\n    auth:\n      username: me\n      password: hunter2\n      passwort: hunter2\n",
            "configs:\n  r:\n    auth: {username: me, password: hunter2\n    tls: {}\n",
            "configs:\n  r:\n    auth: hunter2\n",
            "configs:\n  r:\n    auth:\n      password: hunter2\n     username: me\n",
            "configs:\n  r:\n    auth: {password: [hunter2]}\n",
            "configs:\n  r:\n    tls: {insecure_skip_verify: hunter2}\n",
        ] {
            let error = read(text).expect_err(text);
            assert!(!error.contains("hunter2"), "{error}");
            assert!(error.contains("line "), "{error}");
        }
    }

    #[test]
    fn empty_credentials_are_none() {
        assert_eq!(credentials(""), Ok(None));
        assert_eq!(credentials("e30="), Ok(None));
        assert!(credentials("%").is_err());
        let given = credentials("eyJ1c2VybmFtZSI6Im1lIiwicGFzc3dvcmQiOiJwIn0");
        assert!(given.is_ok_and(|given| given.is_some_and(|c| c.username == "me")));
    }
}
