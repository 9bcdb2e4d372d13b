//! Image names, normalised as Docker does it.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Digest, DigestError};

/// The registry that a name without one means.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The longest `registry/repository`, in bytes (distribution/reference `NameTotalLengthMax`).
const MAX_NAME: usize = 255;
/// The longest tag, in bytes.
const MAX_TAG: usize = 128;

/// `registry/repository[:tag][@digest]`, always complete: `nginx` becomes
/// `docker.io/library/nginx:latest`. A name with a digest and no tag gets no tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A repository component breaks the grammar.
    #[error(
        "`{0}` is not a valid repository: lower-case letters and digits, joined by `.`, `_`, \
         `__`, `-` or `/`"
    )]
    Repository(String),
    /// The part before the first slash is no `host[:port]`.
    #[error("`{0}` is not a valid registry host")]
    Registry(String),
    /// A tag breaks the grammar.
    #[error(
        "`{0}` is not a valid tag: letters, digits, `_`, `.` and `-`, at most {MAX_TAG}, \
         not starting with `.` or `-`"
    )]
    Tag(String),
    /// 64 hexadecimal digits, which people take for an id.
    #[error("`{0}` looks like an image's id: write `sha256:{0}` for that; it cannot be a name")]
    Id(String),
    /// The part after `@` is no digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// Registry and repository together are too long.
    #[error("the name is longer than {MAX_NAME} bytes")]
    TooLong,
}

impl Name {
    /// The registry's host and port, such as `docker.io` or `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository, such as `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `None` only beside a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, of a manifest or of an index.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl Name {
    /// As Docker shows it: without what it would add itself.
    pub(crate) fn familiar(&self) -> String {
        let whole = self.to_string();
        let Some(short) = whole.strip_prefix("docker.io/") else {
            return whole;
        };
        match short.strip_prefix("library/") {
            // What is added is added before one component only.
            Some(rest) if !self.repository["library/".len()..].contains('/') => rest.to_owned(),
            _ => short.to_owned(),
        }
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        // As Docker does it, so that nobody's typing mistake is pulled.
        let is_digit = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 64 && text.bytes().all(is_digit) {
            return Err(NameError::Id(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
        };
        // A colon after the last slash separates a tag; one before it, a port.
        let (full, tag) = match rest.rsplit_once(':') {
            Some((full, tag)) if !tag.contains('/') => (full, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if let Some(tag) = tag.as_deref().filter(|tag| !is_tag(tag)) {
            return Err(NameError::Tag(tag.to_owned()));
        }
        let (registry, repository) = match full.split_once('/') {
            // The first component is a host only when it could not be a repository's.
            Some((host, path))
                if host.contains(['.', ':'])
                    || host == "localhost"
                    || host.chars().any(|c| c.is_ascii_uppercase()) =>
            {
                (host, path)
            }
            _ => (DEFAULT_REGISTRY, full),
        };
        if !is_registry(registry) {
            return Err(NameError::Registry(registry.to_owned()));
        }
        if !repository.split('/').all(is_component) {
            return Err(NameError::Repository(repository.to_owned()));
        }
        let registry = if registry == "index.docker.io" {
            DEFAULT_REGISTRY
        } else {
            registry
        };
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(NameError::TooLong);
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag,
        };
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag,
            digest,
        })
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    (1..=MAX_TAG).contains(&tag.len())
        && word(tag.as_bytes()[0])
        && tag.bytes().all(|c| word(c) || c == b'.' || c == b'-')
}

fn is_registry(host: &str) -> bool {
    let (name, port) = split_port(host);
    if let Some(address) = name.strip_prefix('[') {
        let address = address.strip_suffix(']').map(str::parse::<Ipv6Addr>);
        return matches!(address, Some(Ok(_))) && is_port(port);
    }
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.split('.').all(label) && is_port(port)
}

/// A host as it stands in a name or a URL, and its port. An IPv6 address is in brackets, and has them
/// in the result.
pub(crate) fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

fn is_port(port: Option<&str>) -> bool {
    port.is_none_or(|port| !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()))
}

/// Runs of letters and digits, joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !component.starts_with(alphanumeric) || !component.ends_with(alphanumeric) {
        return false;
    }
    component
        .split(alphanumeric)
        .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|c| c == b'-'))
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.to_string()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_as_docker_does() {
        for (text, normal) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.25", "docker.io/library/nginx:1.25"),
            ("team/app", "docker.io/team/app:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("[fd00::7]/app:v1", "[fd00::7]/app:v1"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("quay.io/a/b/c", "quay.io/a/b/c:latest"),
            ("a__b/c-d.e", "docker.io/a__b/c-d.e:latest"),
        ] {
            let name: Name = text.parse().expect(text);
            assert_eq!(name.to_string(), normal);
            assert_eq!(normal.parse::<Name>().expect(normal), name);
        }
    }

    #[test]
    fn what_is_shown_is_the_same_name_again() {
        for (text, shown) in [
            ("nginx", "nginx:latest"),
            ("team/app:1", "team/app:1"),
            // Without `library/` it would be `a/b`, which is another one.
            ("docker.io/library/a/b", "library/a/b:latest"),
            ("quay.io/library/a", "quay.io/library/a:latest"),
        ] {
            let name: Name = text.parse().expect(text);
            assert_eq!(name.familiar(), shown);
            assert_eq!(shown.parse::<Name>().expect(shown), name);
        }
    }

    #[test]
    fn what_looks_like_an_id_is_no_name() {
        let id = Digest::of(b"x").hex();
        assert_eq!(id.parse::<Name>(), Err(NameError::Id(id.clone())));
        for text in [
            format!("{id}:v1"),
            format!("team/{id}"),
            format!("{id}0"),
            id[1..].to_owned(),
        ] {
            assert!(text.parse::<Name>().is_ok(), "{text}");
        }
    }

    #[test]
    fn keeps_tag_and_digest() {
        let digest = Digest::of(b"x");
        let name: Name = format!("web:1@{digest}").parse().expect("tag and digest");
        assert_eq!((name.tag(), name.digest()), (Some("1"), Some(&digest)));
        let name: Name = format!("web@{digest}").parse().expect("digest alone");
        assert_eq!((name.tag(), name.digest()), (None, Some(&digest)));
    }

    #[test]
    fn refuses_bad_names() {
        for text in [
            "", "/", "a//b", "Nginx", "a_-b", "a..b", "-a", "a-", "a b", "ünicode",
        ] {
            assert!(
                matches!(text.parse::<Name>(), Err(NameError::Repository(_))),
                "{text}"
            );
        }
        for text in ["a:", "a:-x", "a:x y", &format!("a:{}", "t".repeat(129))] {
            assert!(
                matches!(text.parse::<Name>(), Err(NameError::Tag(_))),
                "{text}"
            );
        }
        for text in [
            "a..b.c/x",
            "-a.b/x",
            "a.b:port/x",
            "a.b:/x",
            "../x",
            "[::1/x",
            "[::1]x/y",
            "[::1]:/x",
            "[a:b]/x",
        ] {
            assert!(
                matches!(text.parse::<Name>(), Err(NameError::Registry(_))),
                "{text}"
            );
        }
        assert!(matches!(
            "a@sha256:00".parse::<Name>(),
            Err(NameError::Digest(_))
        ));
        assert!("a/".repeat(140).parse::<Name>().is_err());
        assert_eq!(
            format!("q.io/{}", "a".repeat(255)).parse::<Name>(),
            Err(NameError::TooLong)
        );
    }
}
