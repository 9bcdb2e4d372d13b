//! An image that is ready to be used.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

use oci_spec::image::{Config, ImageConfiguration};
use serde::{Deserialize, Serialize};

use crate::{
    Digest, HealthCheck, ImageError, Name,
    health::{Extensions, Unusable},
};

/// What an image's files are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootFs {
    /// Chain ids of layers in the store, bottom first.
    Layers(Vec<Digest>),
    /// A directory outside the store, used as it is.
    Directory(PathBuf),
}

/// An image of the store, or a directory that is used like one.
///
/// The accessors return what the image's configuration says, unchanged; a task spec overrides it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The digest of the configuration. For a directory, one that is made from its path.
    pub id: Digest,
    /// The names that the store has for it.
    pub names: Vec<Name>,
    /// Digests of the manifest, and of the indexes that led to it, where known.
    pub manifests: Vec<Digest>,
    /// What its manifest says of it (image-spec `annotations.md`). They mean nothing to a task, unlike labels.
    pub annotations: BTreeMap<String, String>,
    /// The whole configuration.
    pub config: ImageConfiguration,
    /// The files.
    pub rootfs: RootFs,
    /// What Docker adds to the configuration.
    pub(crate) extensions: Extensions,
}

impl Image {
    fn section(&self) -> Option<&Config> {
        self.config.config().as_ref()
    }

    fn list<'a>(&'a self, field: impl Fn(&'a Config) -> &'a Option<Vec<String>>) -> &'a [String] {
        self.section()
            .and_then(|config| field(config).as_deref())
            .unwrap_or_default()
    }

    fn text<'a>(&'a self, field: impl Fn(&'a Config) -> &'a Option<String>) -> Option<&'a str> {
        self.section()
            .and_then(|config| field(config).as_deref())
            .filter(|value| !value.is_empty())
    }

    /// The command's fixed first part.
    pub fn entrypoint(&self) -> &[String] {
        self.list(Config::entrypoint)
    }

    /// Default arguments of the entrypoint, or the command where there is no entrypoint.
    pub fn cmd(&self) -> &[String] {
        self.list(Config::cmd)
    }

    /// Entrypoint and default arguments together: what runs when a task says nothing.
    pub fn command(&self) -> Vec<String> {
        [self.entrypoint(), self.cmd()].concat()
    }

    /// `NAME=value` each.
    pub fn env(&self) -> &[String] {
        self.list(Config::env)
    }

    /// `user[:group]`, names or numbers, to be looked up in the image; `None` is root.
    pub fn user(&self) -> Option<&str> {
        self.text(Config::user)
    }

    /// An absolute path in the image; `None` is `/`.
    pub fn working_dir(&self) -> Option<&str> {
        self.text(Config::working_dir)
    }

    /// A name or number, such as `SIGQUIT`; `None` is `SIGTERM`.
    pub fn stop_signal(&self) -> Option<&str> {
        self.text(Config::stop_signal)
    }

    /// `port/protocol` each, sorted.
    pub fn exposed_ports(&self) -> &[String] {
        self.list(Config::exposed_ports)
    }

    /// Absolute paths in the image that want a volume each, sorted.
    pub fn volumes(&self) -> &[String] {
        self.list(Config::volumes)
    }

    /// How it is found out whether a container of it is well; `None` where it says nothing.
    ///
    /// # Errors
    /// [`ImageError::Configuration`] when it says something that cannot be meant.
    pub fn health_check(&self) -> Result<Option<HealthCheck>, ImageError> {
        self.extensions.health_check().map_err(|e| self.unusable(e))
    }

    /// What runs a command that is one line; `/bin/sh -c` where it says nothing.
    ///
    /// # Errors
    /// [`ImageError::Configuration`] when it is no list of texts.
    pub fn shell(&self) -> Result<Vec<String>, ImageError> {
        let own = self.extensions.shell().map_err(|e| self.unusable(e))?;
        Ok(if own.is_empty() {
            vec!["/bin/sh".to_owned(), "-c".to_owned()]
        } else {
            own
        })
    }

    fn unusable(&self, Unusable { field, reason }: Unusable) -> ImageError {
        ImageError::Configuration {
            image: self.id,
            field,
            reason,
        }
    }

    /// The image's labels, as (name, value) sorted by name.
    pub fn labels(&self) -> Vec<(&str, &str)> {
        let labels: Option<&HashMap<_, _>> = self.config.labels_of_config();
        let mut labels: Vec<_> = labels
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        labels.sort_unstable();
        labels
    }
}
