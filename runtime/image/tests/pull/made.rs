//! Images made by hand, and pushed by hand: also what no tool would make.

use image::Digest;
use serde_json::{Value, json};

use crate::{common::*, http};

/// How manifests and what they name are called.
#[derive(Clone, Copy, PartialEq)]
pub enum Form {
    Oci,
    Docker,
}

impl Form {
    pub fn manifest(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    pub fn index(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.index.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.config.v1+json",
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    fn layer(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Docker => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        }
    }
}

/// An image that can be pushed.
#[derive(Clone)]
pub struct Made {
    pub form: Form,
    pub config: Value,
    pub manifest: Value,
    pub blobs: Vec<Vec<u8>>,
}

impl Made {
    /// Of layers, bottom first.
    pub fn new(form: Form, layers: &[Vec<u8>], compress: fn(&[u8]) -> Vec<u8>) -> Self {
        Self::with(form, config(layers), layers, compress)
    }

    /// With a configuration of one's own.
    pub fn with(
        form: Form,
        config: Value,
        layers: &[Vec<u8>],
        compress: fn(&[u8]) -> Vec<u8>,
    ) -> Self {
        let mut blobs: Vec<_> = layers.iter().map(|layer| compress(layer)).collect();
        let descriptors: Vec<_> = blobs
            .iter()
            .map(|blob| descriptor(form.layer(), blob))
            .collect();
        let text = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": form.manifest(),
            "config": descriptor(form.config(), &text),
            "layers": descriptors,
        });
        blobs.push(text);
        Self {
            form,
            config,
            manifest,
            blobs,
        }
    }

    /// Its id in the store.
    pub fn id(&self) -> Digest {
        Digest::of(self.config.to_string())
    }

    /// Of its manifest.
    pub fn digest(&self) -> Digest {
        Digest::of(self.manifest.to_string())
    }

    /// Of a layer's blob, counted from the bottom.
    pub fn blob(&self, layer: usize) -> Digest {
        let digest = self.manifest["layers"][layer]["digest"].as_str();
        digest.expect("a digest").parse().expect("a digest")
    }

    /// What an index says of it.
    pub fn descriptor(&self, architecture: &str, variant: Option<&str>) -> Value {
        let text = self.manifest.to_string().into_bytes();
        let mut value = descriptor(self.form.manifest(), &text);
        value["platform"] = json!({"architecture": architecture, "os": "linux"});
        if let Some(variant) = variant {
            value["platform"]["variant"] = json!(variant);
        }
        value
    }

    /// Pushes everything, and names it.
    pub fn push(&self, registry: &str, repository: &str, tag: &str) {
        for blob in &self.blobs {
            push_blob(registry, repository, blob);
        }
        push_manifest(
            registry,
            repository,
            tag,
            self.form.manifest(),
            &self.manifest,
        );
    }
}

/// An image of one file that says what it is, in a layer of `form`.
pub fn saying(form: Form, text: &str) -> Made {
    Made::new(form, &[tar_of(&[("which", text.as_bytes())])], gzip)
}

/// An image of `layers` layers of about `size` bytes that cannot be compressed.
pub fn large(layers: usize, size: usize) -> Made {
    let layers: Vec<_> = (0..layers)
        .map(|at| tar_of(&[(&format!("noise{at}"), &noise(at as u64, size))]))
        .collect();
    Made::new(Form::Oci, &layers, plain)
}

/// Bytes that cannot be compressed; the same for the same seed.
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(size).collect()
}

pub fn descriptor(kind: &str, content: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": Digest::of(content).to_string(), "size": content.len()})
}

pub fn index(form: Form, manifests: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": form.index(), "manifests": manifests})
}

pub fn push_blob(registry: &str, repository: &str, content: &[u8]) {
    let kind = "application/octet-stream";
    let path = format!("/v2/{repository}/blobs/uploads/");
    let (head, body) = http::ask(registry, "POST", &path, kind, b"");
    assert_eq!(head.status(), 202, "{}", String::from_utf8_lossy(&body));
    let location = head.get("location").expect("a location");
    let prefix = format!("http://{registry}");
    let path = format!(
        "{}&digest={}",
        location.strip_prefix(&prefix).unwrap_or(location),
        Digest::of(content)
    );
    let (head, body) = http::ask(registry, "PUT", &path, kind, content);
    assert_eq!(head.status(), 201, "{}", String::from_utf8_lossy(&body));
}

pub fn push_manifest(registry: &str, repository: &str, tag: &str, kind: &str, manifest: &Value) {
    let path = format!("/v2/{repository}/manifests/{tag}");
    let text = manifest.to_string();
    let (head, body) = http::ask(registry, "PUT", &path, kind, text.as_bytes());
    assert_eq!(head.status(), 201, "{}", String::from_utf8_lossy(&body));
}
