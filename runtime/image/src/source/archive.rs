//! The outer tar archive of `docker save` and of an OCI archive, as a table of its members.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{ArchiveError, Blob, Section};
use crate::{
    LayerError, Limits,
    tarball::{Kind, TarReader},
    unpack::{EntryPath, decompress, display},
};

/// Longest chain of links from a member to its content.
const MAX_LINKS: usize = 16;
/// Members of an archive; what `docker save` writes has four per layer at most.
const MAX_MEMBERS: u64 = 1 << 16;

enum Member {
    /// Offset and length in the archive, in bytes.
    Data(u64, u64),
    /// Another member: `docker save` writes a layer that several images share once.
    Link(EntryPath),
}

/// Members of an archive that can be read in any order.
pub(crate) struct Archive {
    path: PathBuf,
    file: Arc<File>,
    members: HashMap<EntryPath, Member>,
}

impl Archive {
    /// Reads the members' headers from `file`, which was opened at `path`. A compressed archive is
    /// first decompressed into `scratch`, an empty file.
    pub(crate) fn open(
        path: &Path,
        file: File,
        scratch: impl FnOnce() -> io::Result<File>,
        limits: &Limits,
    ) -> Result<Self, ArchiveError> {
        let read = |source| ArchiveError::Read {
            path: path.to_owned(),
            what: "the content".into(),
            source,
        };
        let file = Arc::new(match decompressed(&file, scratch, limits) {
            Ok(None) => file,
            Ok(Some(plain)) => plain,
            Err(source) => {
                return Err(ArchiveError::Decompress {
                    path: path.to_owned(),
                    source,
                });
            }
        });
        let length = file.metadata().map_err(read)?.len();
        let mut archive = Self {
            path: path.to_owned(),
            file,
            members: HashMap::new(),
        };
        archive.index(length, limits)?;
        Ok(archive)
    }

    /// The content of a member, or `None`.
    pub(crate) fn blob(&self, name: &str) -> Option<Blob> {
        let mut path = EntryPath::parse(name.as_bytes()).ok()?;
        for _ in 0..MAX_LINKS {
            match self.members.get(&path)? {
                Member::Link(target) => path = target.clone(),
                Member::Data(offset, length) => {
                    return Some(Blob::Section {
                        file: self.file.clone(),
                        offset: *offset,
                        length: *length,
                    });
                }
            }
        }
        None
    }

    fn index(&mut self, length: u64, limits: &Limits) -> Result<(), ArchiveError> {
        let path = self.path.clone();
        let mut tar = TarReader::new(Section::new(self.file.clone(), 0, length));
        let most = limits.entries.min(MAX_MEMBERS);
        let (mut count, mut names) = (0, 0);
        loop {
            let entry = match tar.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(()),
                Err(source) => return Err(ArchiveError::Tar { path, source }),
            };
            let refuse = |reason: String| ArchiveError::Member {
                path: path.clone(),
                member: display(&entry.name),
                reason,
            };
            count += 1;
            if count > most {
                return Err(refuse(format!("the archive has more than {most} members")));
            }
            names += (entry.name.len() + entry.link.len()) as u64;
            if names > limits.path_bytes {
                let most = limits.path_bytes;
                return Err(refuse(format!(
                    "the members' names have more than {most} bytes"
                )));
            }
            // Nobody writes an archive of images with absolute names.
            let plain = |name: &[u8]| match name {
                [b'/', ..] => Err(refuse("the name is absolute".into())),
                name => EntryPath::parse(name).map_err(|e| refuse(e.to_string())),
            };
            let name = plain(&entry.name)?;
            let member = match entry.kind {
                Kind::Directory => continue,
                Kind::File if entry.extents.is_some() => {
                    return Err(refuse("it is a sparse file".into()));
                }
                Kind::File => Member::Data(entry.data.0, entry.data.1),
                Kind::HardLink => Member::Link(plain(&entry.link)?),
                Kind::Symlink => Member::Link(
                    relative(&name, &entry.link)
                        .ok_or_else(|| refuse("it is a link out of the archive".into()))?,
                ),
                _ => return Err(refuse("it is neither a file nor a link".into())),
            };
            // Two readers could take different ones of two members with one name.
            if self.members.insert(name, member).is_some() {
                return Err(refuse("the archive has two members of this name".into()));
            }
        }
    }
}

/// The target of a symbolic link, without looking at any file.
fn relative(link: &EntryPath, target: &[u8]) -> Option<EntryPath> {
    if target.starts_with(b"/") {
        return None;
    }
    let (parent, _) = link.split()?;
    let mut parts: Vec<&[u8]> = parent
        .as_bytes()
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty())
        .collect();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    EntryPath::parse(&parts.join(&b'/')).ok()
}

/// A decompressed copy, or `None` where the archive is not compressed.
fn decompressed(
    file: &File,
    scratch: impl FnOnce() -> io::Result<File>,
    limits: &Limits,
) -> Result<Option<File>, LayerError> {
    let shared = Arc::new(file.try_clone().map_err(LayerError::Read)?);
    let length = file.metadata().map_err(LayerError::Read)?.len();
    let mut start = [0; 4];
    let mut head = Section::new(shared.clone(), 0, length.min(start.len() as u64));
    let count = head.read(&mut start).map_err(LayerError::Read)?;
    // A tar archive starts with a member's name, and those of images do not look like this.
    if !is_compressed(&start[..count]) {
        return Ok(None);
    }
    let mut content = decompress(BufReader::new(Section::new(shared, 0, length)))?;
    let mut plain = scratch().map_err(LayerError::Read)?;
    let mut bounded = content.by_ref().take(limits.bytes.saturating_add(1));
    let written = io::copy(&mut bounded, &mut plain).map_err(LayerError::Read)?;
    if written > limits.bytes {
        return Err(LayerError::Limit {
            what: "bytes",
            limit: limits.bytes,
        });
    }
    Ok(Some(plain))
}

fn is_compressed(start: &[u8]) -> bool {
    [
        &[0x1f, 0x8b][..],
        &[0x28, 0xb5, 0x2f, 0xfd],
        b"BZh",
        &[0xfd, b'7', b'z', b'X'],
    ]
    .iter()
    .any(|magic| start.starts_with(magic))
}
