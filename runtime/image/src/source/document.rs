//! What a document of an image is: an index or a manifest.

use serde::{Deserialize, de::IgnoredAny};

/// What a document turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Index,
    Manifest,
}

/// What a document says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

impl Kind {
    /// Of the document `text`; `said` are the media types that others give it: the descriptor that leads to
    /// it, and the server. A document that two readers could take for different things is refused, or
    /// somebody could have one of them checked and the other one run (CVE-2021-41190; distribution-spec
    /// and image-spec 1.0.1).
    pub(super) fn of(text: &[u8], said: &[&str]) -> Result<Self, String> {
        let outline: Outline = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if outline.schema_version != 2 {
            return Err(format!(
                "it is a manifest of schema {}; only schema 2 is supported: push the image again \
                 with a current tool",
                outline.schema_version
            ));
        }
        let is_manifest = outline.config.is_some() || outline.layers.is_some();
        let found = match (outline.manifests.is_some(), is_manifest) {
            (true, true) => return Err("it is both an index and a manifest".to_owned()),
            (true, false) => Self::Index,
            (false, _) => Self::Manifest,
        };
        for kind in said.iter().chain([&outline.media_type.as_str()]) {
            if Self::called(kind).is_some_and(|called| called != found) {
                return Err(format!("it is called `{kind}`, and its content is another"));
            }
        }
        Ok(found)
    }

    /// By its media type. Others, as `application/json`, say nothing.
    fn called(kind: &str) -> Option<Self> {
        match kind {
            "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json" => Some(Self::Index),
            "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json" => Some(Self::Manifest),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    #[test]
    fn a_document_is_what_all_say_that_it_is() {
        let index = br#"{"schemaVersion": 2, "manifests": []}"#;
        let manifest = br#"{"schemaVersion": 2, "config": {}, "layers": []}"#;
        for said in [&[][..], &[INDEX], &[LIST, INDEX], &["text/plain", ""]] {
            assert_eq!(Kind::of(index, said), Ok(Kind::Index), "{said:?}");
        }
        assert_eq!(Kind::of(manifest, &[MANIFEST]), Ok(Kind::Manifest));
        assert!(Kind::of(index, &[INDEX, MANIFEST]).is_err());
        assert!(Kind::of(manifest, &[LIST]).is_err());
    }

    #[test]
    fn a_document_that_is_two_things_is_refused() {
        for text in [
            r#"{"schemaVersion": 2, "manifests": [], "layers": []}"#.to_owned(),
            r#"{"schemaVersion": 2, "manifests": [], "config": {}}"#.to_owned(),
            format!(r#"{{"schemaVersion": 2, "mediaType": "{MANIFEST}", "manifests": []}}"#),
            format!(r#"{{"schemaVersion": 2, "mediaType": "{LIST}", "layers": []}}"#),
            r#"{"schemaVersion": 1}"#.to_owned(),
        ] {
            assert!(Kind::of(text.as_bytes(), &[]).is_err(), "{text}");
        }
    }
}
