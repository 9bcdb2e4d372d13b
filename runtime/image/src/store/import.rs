//! Making an image of a root file system.

use std::{collections::BTreeMap, io::Read, time::SystemTime};

use serde_json::{Value, json};

use super::{
    Store,
    load::{Fresh, make_root},
    records::ImageRecord,
};
use crate::{
    Digest, Image, ImageError, LayerError, Name, Platform, change::Section, limits::Budget,
    time::rfc3339, unpack,
};

/// How messages call what comes as a stream.
const WHAT: &str = "the imported archive";

/// What an imported image is called and told beside its files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Import {
    /// Its name, if any.
    pub name: Option<Name>,
    /// Lines of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL,
    /// USER, VOLUME, WORKDIR.
    pub changes: Vec<String>,
    /// What its history says about it.
    pub message: String,
    /// What it is for; else the machine that the store is for.
    pub platform: Option<Platform>,
    /// When it was made; else now.
    pub created: Option<SystemTime>,
}

impl Store {
    /// Makes an image of a tar archive of a root file system, plain or compressed with gzip or zstd, as
    /// `docker import` does. It has one layer, to which all rules and [`Limits`](crate::Limits) for
    /// layers apply. The archive is read once, to its end.
    ///
    /// # Errors
    /// [`ImageError::Change`] before anything is read; [`ImageError::Import`] when the archive is
    /// refused, also when it breaks off. Nothing of it is in the store then.
    pub fn import(&self, archive: impl Read + Send, import: &Import) -> Result<Image, ImageError> {
        let section = Section::new(&import.changes)?;
        let own = self.options.platform.least();
        let platform = import.platform.as_ref().unwrap_or(&own);
        if platform.os != own.os {
            return Err(ImageError::ImportPlatform {
                found: platform.to_string(),
                wanted: own.to_string(),
            });
        }
        let failed = |error| ImageError::Import(Box::new(error));
        let scratch = self.disk.scratch()?;
        let path = scratch.path().join("0");
        make_root(&path).map_err(|error| failed(LayerError::Read(error)))?;
        let budget = Budget::new(&self.options.limits);
        let unpacked = unpack::unpack_unknown(archive, &path, self.snapshotter.marks(), &budget)
            .map_err(failed)?;

        let diff_id = unpacked.diff_id;
        let chain = vec![Digest::chain(None, &diff_id)];
        let _ours = self.claims.take(chain.iter().copied());
        if !self.state().layers.contains_key(&chain[0]) {
            let fresh = Fresh {
                position: 0,
                path,
                unpacked,
            };
            self.publish(WHAT, &chain, vec![fresh], &scratch, &budget)
                .map_err(|error| match error {
                    ImageError::Layer { source, .. } => ImageError::Import(source),
                    other => other,
                })?;
        }
        let config = config(&section, import, platform, &diff_id);
        let record = ImageRecord {
            id: Digest::of(&config),
            layers: chain,
            manifests: Vec::new(),
            annotations: BTreeMap::new(),
            config,
        };
        self.keep(&mut self.state(), record, import.name.as_slice())
    }
}

/// image-spec `config.md`; `comment` is Docker's.
fn config(section: &Section, import: &Import, platform: &Platform, diff_id: &Digest) -> String {
    let created = rfc3339(import.created.unwrap_or_else(SystemTime::now));
    let mut history = json!({"created": &created});
    let mut config = json!({
        "created": &created,
        "architecture": platform.architecture.to_string(),
        "os": platform.os.to_string(),
        "config": section,
        "rootfs": {"type": "layers", "diff_ids": [diff_id.to_string()]},
    });
    if let Some(variant) = &platform.variant {
        config["variant"] = json!(variant);
    }
    if !import.message.is_empty() {
        config["comment"] = json!(import.message);
        history["comment"] = json!(import.message);
    }
    config["history"] = Value::Array(vec![history]);
    config.to_string()
}
