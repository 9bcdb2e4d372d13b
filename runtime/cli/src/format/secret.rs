//! Secrets and configs: bytes with a name.

use std::fs;
use std::path::{Path, PathBuf};

use fairlead_api::v1;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::Base64;

/// A secret or config: one of `data`, `dataBase64` and `file` holds its content.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(
    rename = "Blob",
    extend("oneOf" = [{"required": ["data"]}, {"required": ["dataBase64"]}, {"required": ["file"]}])
)]
struct BlobFields {
    /// Unique in the cluster.
    id: String,
    /// What tasks call it.
    name: String,
    /// Content that is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    data: Option<String>,
    /// Content in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Base64")]
    data_base64: Option<Base64>,
    /// A file with the content; a relative path starts at the directory of this document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    file: Option<PathBuf>,
}

/// A secret or config of the file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "BlobFields", into = "BlobFields")]
#[schemars(with = "BlobFields")]
pub struct Blob {
    /// Unique in the cluster.
    pub id: String,
    /// What tasks call it.
    pub name: String,
    /// Its bytes, or where they are.
    pub content: Content,
}

/// Bytes, or where they are.
#[derive(Clone, Debug)]
pub enum Content {
    /// The bytes.
    Bytes(Vec<u8>),
    /// A file that holds them.
    File(PathBuf),
}

impl TryFrom<BlobFields> for Blob {
    type Error = String;

    fn try_from(fields: BlobFields) -> Result<Self, String> {
        let content = match (fields.data, fields.data_base64, fields.file) {
            (Some(text), None, None) => Content::Bytes(text.into_bytes()),
            (None, Some(bytes), None) => Content::Bytes(bytes.0),
            (None, None, Some(path)) => Content::File(path),
            _ => {
                return Err(format!(
                    "`{}` needs exactly one of `data`, `dataBase64` and `file`",
                    fields.id
                ));
            }
        };
        Ok(Self {
            id: fields.id,
            name: fields.name,
            content,
        })
    }
}

impl From<Blob> for BlobFields {
    fn from(blob: Blob) -> Self {
        let (data_base64, file) = match blob.content {
            Content::Bytes(bytes) => (Some(Base64(bytes)), None),
            Content::File(path) => (None, Some(path)),
        };
        Self {
            id: blob.id,
            name: blob.name,
            data: None,
            data_base64,
            file,
        }
    }
}

impl Blob {
    /// Reads the content where it is in a file; `base` is where relative paths start.
    pub fn resolve(&mut self, base: &Path) -> Result<(), String> {
        if let Content::File(path) = &self.content {
            let path = base.join(path);
            let bytes = fs::read(&path).map_err(|error| {
                format!("`{}`: cannot read {}: {error}", self.id, path.display())
            })?;
            self.content = Content::Bytes(bytes);
        }
        Ok(())
    }

    /// The parts of the message. Content that was not resolved is empty.
    fn into_parts(self) -> (String, String, Vec<u8>) {
        let data = match self.content {
            Content::Bytes(bytes) => bytes,
            Content::File(_) => Vec::new(),
        };
        (self.id, self.name, data)
    }

    /// As a secret of the contract.
    pub fn into_secret(self) -> v1::Secret {
        let (id, name, data) = self.into_parts();
        v1::Secret { id, name, data }
    }

    /// As a config of the contract.
    pub fn into_config(self) -> v1::Config {
        let (id, name, data) = self.into_parts();
        v1::Config { id, name, data }
    }
}
