//! What a task spec may write where an image is asked for.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{Digest, Name, NameError};

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// `docker-archive:/abs/path.tar[:name[:tag]]`: what `docker save` writes. The name chooses
    /// among several images in one archive.
    DockerArchive {
        /// The archive, an absolute path. It cannot contain a colon.
        path: PathBuf,
        /// Which image, where the archive holds several.
        name: Option<Name>,
    },
    /// `oci-archive:/abs/path.tar[:tag]`: an OCI image layout in a tar archive.
    OciArchive {
        /// The archive, an absolute path. It cannot contain a colon.
        path: PathBuf,
        /// The value of the annotation `org.opencontainers.image.ref.name`.
        tag: Option<String>,
    },
    /// `oci:/abs/dir[:tag]`: an OCI image layout directory.
    OciLayout {
        /// The directory, an absolute path. It cannot contain a colon.
        path: PathBuf,
        /// The value of the annotation `org.opencontainers.image.ref.name`.
        tag: Option<String>,
    },
    /// `dir:/abs/path`: a root file system directory, used as the only, read-only, layer.
    Directory {
        /// The directory, an absolute path.
        path: PathBuf,
    },
    /// `sha256:<hex>`: an image in the store, by its id.
    Id(Digest),
    /// A name as Docker writes it: an image that was loaded before.
    Named(Name),
}

/// Why a text is no [`Reference`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// A `scheme:path` reference whose path is relative or empty.
    #[error("image reference `{reference}`: the path after `{scheme}:` must be absolute")]
    RelativePath {
        /// The whole text.
        reference: String,
        /// What stands before the first colon.
        scheme: &'static str,
    },
    /// `scheme:/path:` with nothing after the last colon.
    #[error("image reference `{0}`: nothing follows the last colon")]
    EmptySelector(String),
    /// Neither a scheme that we know nor a valid name.
    #[error("image reference `{reference}`: {source}")]
    Name {
        /// The whole text.
        reference: String,
        /// What is wrong with the name in it.
        source: NameError,
    },
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let absolute = |scheme, path: &str| {
            if path.starts_with('/') && !path.contains('\0') {
                Ok(PathBuf::from(path))
            } else {
                Err(ReferenceError::RelativePath {
                    reference: text.to_owned(),
                    scheme,
                })
            }
        };
        let name = |name: &str| {
            name.parse::<Name>().map_err(|source| ReferenceError::Name {
                reference: text.to_owned(),
                source,
            })
        };
        let split = |scheme, rest: &str| match rest.split_once(':') {
            None => Ok((absolute(scheme, rest)?, None)),
            Some((_, "")) => Err(ReferenceError::EmptySelector(text.to_owned())),
            Some((path, selector)) => Ok((absolute(scheme, path)?, Some(selector.to_owned()))),
        };

        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (path, selector) = split("docker-archive", rest)?;
            let name = selector.as_deref().map(name).transpose()?;
            return Ok(Self::DockerArchive { path, name });
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (path, tag) = split("oci-archive", rest)?;
            return Ok(Self::OciArchive { path, tag });
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            let (path, tag) = split("oci", rest)?;
            return Ok(Self::OciLayout { path, tag });
        }
        if let Some(rest) = text.strip_prefix("dir:") {
            return Ok(Self::Directory {
                path: absolute("dir", rest)?,
            });
        }
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        Ok(Self::Named(name(text)?))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut path = |scheme, path: &Path, rest: Option<&dyn fmt::Display>| {
            write!(f, "{scheme}:{}", path.display())?;
            rest.map_or(Ok(()), |rest| write!(f, ":{rest}"))
        };
        match self {
            Self::DockerArchive { path: at, name } => path(
                "docker-archive",
                at,
                name.as_ref().map(|n| n as &dyn fmt::Display),
            ),
            Self::OciArchive { path: at, tag } => path(
                "oci-archive",
                at,
                tag.as_ref().map(|t| t as &dyn fmt::Display),
            ),
            Self::OciLayout { path: at, tag } => {
                path("oci", at, tag.as_ref().map(|t| t as &dyn fmt::Display))
            }
            Self::Directory { path: at } => path("dir", at, None),
            Self::Id(id) => id.fmt(f),
            Self::Named(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_comes_back_as_it_went_in() {
        let digest = Digest::of(b"x");
        for (text, normal) in [
            ("docker-archive:/a/b.tar", "docker-archive:/a/b.tar"),
            (
                "docker-archive:/b.tar:web:1",
                "docker-archive:/b.tar:docker.io/library/web:1",
            ),
            (
                "docker-archive:/b.tar:web",
                "docker-archive:/b.tar:docker.io/library/web:latest",
            ),
            ("oci-archive:/b.tar:v1.0", "oci-archive:/b.tar:v1.0"),
            ("oci:/dir", "oci:/dir"),
            ("dir:/srv/root:fs", "dir:/srv/root:fs"),
            ("nginx", "docker.io/library/nginx:latest"),
            (
                &format!("nginx@{digest}"),
                &format!("docker.io/library/nginx@{digest}"),
            ),
            (&digest.to_string(), &digest.to_string()),
        ] {
            let reference: Reference = text.parse().expect(text);
            assert_eq!(reference.to_string(), normal);
            assert_eq!(normal.parse::<Reference>().expect(normal), reference);
        }
    }

    #[test]
    fn refuses_relative_paths_empty_selectors_and_bad_names() {
        for scheme in ["docker-archive", "oci-archive", "oci", "dir"] {
            for path in ["", "relative", "./x", "a\0b"] {
                let text = format!("{scheme}:{path}");
                let error = text.parse::<Reference>().expect_err(&text);
                assert!(
                    matches!(error, ReferenceError::RelativePath { .. }),
                    "{error}"
                );
            }
        }
        assert!(matches!(
            "oci:/dir:".parse::<Reference>(),
            Err(ReferenceError::EmptySelector(_))
        ));
        for text in ["", "docker://nginx", "docker-archive:/x.tar:BAD NAME"] {
            let error = text.parse::<Reference>().expect_err(text);
            assert!(matches!(error, ReferenceError::Name { .. }), "{error}");
        }
    }
}
