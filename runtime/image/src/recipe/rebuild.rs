//! Makes a layer's archive again.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, BufReader, ErrorKind, Read, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{self, OFlag},
    sys::stat::Mode,
};
use zstd::Decoder;

use super::{CONTENT, END, Kept, LITERAL, MAGIC, MAX_LITERAL, MAX_PATH, MORE, SaveError};
use crate::{
    Digest,
    digest::HashingWriter,
    unpack::{EntryPath, display, tree::Tree},
};

/// Bytes that are copied at once.
const CHUNK: usize = 256 << 10;

/// Writes the archive of the layer at `root` to `out`: exactly `size` bytes with the digest `diff_id`, or
/// there is an error.
pub(crate) fn rebuild(
    kept: &Kept,
    root: &Path,
    diff_id: &Digest,
    size: u64,
    out: impl Write,
) -> Result<(), SaveError> {
    let mut recipe = Recipe::open(&kept.recipe)?;
    let mut files = Files::open(root, &kept.replaced)?;
    let mut out = HashingWriter::new(out);
    let mut chunk = vec![0; CHUNK];
    let mut left = size;
    let mut take = |length: u64| {
        left = left.checked_sub(length).ok_or_else(|| {
            SaveError::Damaged(format!("it makes more than {size} bytes of the layer"))
        })?;
        Ok::<(), SaveError>(())
    };
    loop {
        match recipe.byte()? {
            END => break,
            LITERAL => {
                let length = recipe.size(MAX_LITERAL, "a literal")?;
                take(length as u64)?;
                recipe.fill(&mut chunk[..length])?;
                out.write_all(&chunk[..length]).map_err(SaveError::Write)?;
            }
            kind @ (CONTENT | MORE) => {
                if kind == CONTENT {
                    let inode = recipe.number()?;
                    let length = recipe.size(MAX_PATH, "a path")?;
                    recipe.fill(&mut chunk[..length])?;
                    files.choose(&chunk[..length], inode)?;
                }
                let (offset, length) = (recipe.number()?, recipe.number()?);
                take(length)?;
                files.copy(offset, length, &mut chunk, &mut out)?;
            }
            other => return Err(SaveError::Damaged(format!("a record of the kind {other}"))),
        }
    }
    let (actual, bytes) = out.finish();
    if bytes != size {
        return Err(SaveError::Damaged(format!(
            "it makes {bytes} bytes of the layer, which had {size}"
        )));
    }
    if actual != *diff_id {
        return Err(SaveError::Changed { actual });
    }
    Ok(())
}

/// A recipe that is read.
struct Recipe(BufReader<Decoder<'static, BufReader<File>>>);

impl Recipe {
    fn open(path: &Path) -> Result<Self, SaveError> {
        let file = File::open(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => SaveError::NoRecipe,
            _ => SaveError::Recipe(error),
        })?;
        let mut file = BufReader::new(file);
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic).map_err(damaged)?;
        if magic != MAGIC {
            return Err(SaveError::Damaged("it is of an unknown kind".into()));
        }
        let records = Decoder::with_buffer(file).map_err(damaged)?;
        Ok(Self(BufReader::with_capacity(CHUNK, records)))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), SaveError> {
        self.0.read_exact(buffer).map_err(damaged)
    }

    fn byte(&mut self) -> Result<u8, SaveError> {
        let mut byte = [0];
        self.fill(&mut byte)?;
        Ok(byte[0])
    }

    fn number(&mut self) -> Result<u64, SaveError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(SaveError::Damaged("a number of more than 64 bits".into()))
    }

    fn size(&mut self, limit: usize, of: &str) -> Result<usize, SaveError> {
        match usize::try_from(self.number()?) {
            Ok(size) if size <= limit => Ok(size),
            _ => Err(SaveError::Damaged(format!(
                "{of} of more than {limit} bytes"
            ))),
        }
    }
}

fn damaged(error: io::Error) -> SaveError {
    SaveError::Damaged(error.to_string())
}

/// The layer's files, and those that were replaced.
struct Files {
    tree: Tree,
    replaced: Option<Tree>,
    /// What is copied from, and its name for messages.
    current: Option<(File, String)>,
}

impl Files {
    fn open(root: &Path, replaced: &Path) -> Result<Self, SaveError> {
        let failed = |path: &Path| {
            let file = path.display().to_string();
            move |errno: Errno| SaveError::File {
                file,
                reason: errno.to_string(),
            }
        };
        let tree = Tree::open(root).map_err(failed(root))?;
        let replaced = match Tree::open(replaced) {
            Ok(tree) => Some(tree),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(failed(replaced)(errno)),
        };
        Ok(Self {
            tree,
            replaced,
            current: None,
        })
    }

    /// Opens the file that was written at `path` with this inode.
    fn choose(&mut self, path: &[u8], inode: u64) -> Result<(), SaveError> {
        let file = display(path);
        let failed = |errno: Errno| SaveError::File {
            file: display(path),
            reason: errno.to_string(),
        };
        if let Some(replaced) = &self.replaced {
            let name = inode.to_string();
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            match fcntl::openat(replaced.root(), OsStr::new(&name), flags, Mode::empty()) {
                Ok(opened) => {
                    self.current = Some((opened.into(), file));
                    return Ok(());
                }
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        let path = EntryPath::parse(path).map_err(|error| SaveError::Damaged(error.to_string()))?;
        let opened = File::from(self.tree.file(&path).map_err(failed)?);
        match opened.metadata() {
            Ok(metadata) if metadata.is_file() => {
                self.current = Some((opened, file));
                Ok(())
            }
            Ok(_) => Err(SaveError::File {
                file,
                reason: "it is no regular file any more".into(),
            }),
            Err(error) => Err(SaveError::File {
                file,
                reason: error.to_string(),
            }),
        }
    }

    fn copy(
        &self,
        mut offset: u64,
        length: u64,
        chunk: &mut [u8],
        out: &mut impl Write,
    ) -> Result<(), SaveError> {
        let Some((file, name)) = &self.current else {
            return Err(SaveError::Damaged("content of no file".into()));
        };
        let end = offset
            .checked_add(length)
            .ok_or_else(|| SaveError::Damaged("an offset of more than 64 bits".into()))?;
        while offset < end {
            let want = (end - offset).min(chunk.len() as u64) as usize;
            let failed = |reason: String| SaveError::File {
                file: name.clone(),
                reason,
            };
            match file.read_at(&mut chunk[..want], offset) {
                Ok(0) => return Err(failed(format!("it has only {offset} bytes"))),
                Ok(count) => {
                    out.write_all(&chunk[..count]).map_err(SaveError::Write)?;
                    offset += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error.to_string())),
            }
        }
        Ok(())
    }
}
