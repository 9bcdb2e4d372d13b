//! A bundle: the directory with `config.json` (bundle.md).

use crate::error::OciError;
use oci_spec::runtime::Spec;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Far more than any configuration; larger files are refused rather than read into memory.
const MAX_CONFIG: u64 = 16 << 20;

pub struct Bundle {
    pub directory: PathBuf,
    pub spec: Spec,
    /// The text of the configuration.
    pub text: Vec<u8>,
}

impl Bundle {
    pub fn read(directory: &Path) -> Result<Self, OciError> {
        let directory = directory
            .canonicalize()
            .map_err(OciError::file("open bundle", directory))?;
        let path = directory.join("config.json");
        let text = read(&path)?;
        let spec = parse(&path, &text)?;
        Ok(Self {
            directory,
            spec,
            text,
        })
    }

    /// The directory of the root file system.
    pub fn root(&self) -> Result<PathBuf, OciError> {
        let path = self.directory.join("config.json");
        let Some(root) = self.spec.root() else {
            let reason = "root: missing".into();
            return Err(OciError::Json { path, reason });
        };
        let root = self.directory.join(root.path());
        root.canonicalize()
            .map_err(OciError::file("open root file system", root))
    }
}

/// A regular file of a sane size. Looked at before it is opened: to open a FIFO may take for ever.
pub fn read(path: &Path) -> Result<Vec<u8>, OciError> {
    let flags = libc::O_PATH;
    let place = File::options().read(true).custom_flags(flags).open(path);
    let place = place.map_err(OciError::file("open", path))?;
    let data = place.metadata().map_err(OciError::file("stat", path))?;
    if !data.is_file() {
        return Err(OciError::Json {
            path: path.into(),
            reason: "not a regular file".into(),
        });
    }
    let name = format!("/proc/self/fd/{}", place.as_raw_fd());
    let file = File::open(name).map_err(OciError::file("open", path))?;
    limited(file, path)
}

/// A file that the caller names, who may mean a pipe.
pub fn read_any(path: &Path) -> Result<Vec<u8>, OciError> {
    let file = File::open(path).map_err(OciError::file("open", path))?;
    limited(file, path)
}

/// A stream of a sane size.
pub fn limited(stream: impl Read, path: &Path) -> Result<Vec<u8>, OciError> {
    let mut text = Vec::new();
    stream
        .take(MAX_CONFIG + 1)
        .read_to_end(&mut text)
        .map_err(OciError::file("read", path))?;
    if text.len() as u64 > MAX_CONFIG {
        return Err(OciError::Json {
            path: path.into(),
            reason: format!("longer than {} MiB", MAX_CONFIG >> 20),
        });
    }
    Ok(text)
}

/// JSON that may not be deeper than 128 (`serde_json`'s limit).
pub fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, OciError> {
    serde_json::from_slice(text).map_err(|error| OciError::Json {
        path: path.into(),
        reason: explain::<T>(text, &error),
    })
}

/// The error with the name of the field, which to find takes a second look.
fn explain<T: DeserializeOwned>(text: &[u8], error: &serde_json::Error) -> String {
    if [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff"]
        .iter()
        .any(|mark| text.starts_with(mark))
    {
        return "it begins with a byte order mark; write it as UTF-8 without one".into();
    }
    let reader = &mut serde_json::Deserializer::from_slice(text);
    match serde_path_to_error::deserialize::<_, T>(reader) {
        // At the end of a text that was cut off it names no field.
        Err(found) if !["", ".", "?"].contains(&found.path().to_string().as_str()) => {
            format!("{}: {}", found.path(), found.inner())
        }
        _ => error.to_string(),
    }
}
