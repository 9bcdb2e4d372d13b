//! Directories that an archive uses and does not describe.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use nix::{
    errno::Errno,
    sys::stat::{self, SFlag},
};

use super::{
    EntryPath, LayerError, Marks, Unpacked, display,
    metadata::Metadata,
    tree::{self, Tree},
    xattr,
};

/// Gives directories that the archive does not describe the owner, mode, time and attributes that they have in the
/// layers below (`lower`, topmost first), as if the archive had been unpacked over those. Without
/// it `tmp` could lose its sticky bit because a layer holds `tmp/file` alone. What was deleted on the way gives
/// nothing.
pub(crate) fn adopt_implied(
    root: &Path,
    unpacked: &Unpacked,
    marks: Marks,
    lower: &[impl AsRef<Path>],
) -> Result<(), LayerError> {
    let kernel = |path: &EntryPath, action| {
        let entry = display(path.as_bytes());
        move |source| LayerError::Kernel {
            entry,
            action,
            source,
        }
    };
    let here = EntryPath::default();
    let mut own = Layer::open(root, marks).map_err(kernel(&here, "opening the layer"))?;
    let mut lower = lower
        .iter()
        .map(|path| Layer::open(path.as_ref(), marks))
        .collect::<Result<Vec<_>, _>>()
        .map_err(kernel(&here, "opening a layer below"))?;
    // Deepest first: a change below would touch the time of the directory above.
    for path in unpacked.implied.iter().rev() {
        let at = lower.iter().enumerate().find_map(|(at, layer)| {
            match layer.tree.handle(path) {
                Err(Errno::ENOENT) => None,
                // A file, a whiteout or a link ends the search: nothing further down is visible.
                other => Some((
                    at,
                    other.and_then(|handle| Ok((stat::fstat(&handle)?, handle))),
                )),
            }
        });
        let (above, (found, handle)) = match at {
            None | Some((_, Err(Errno::ENOTDIR))) => continue,
            Some((_, Err(Errno::ELOOP))) => {
                warn_masked(path);
                continue;
            }
            Some((_, Err(errno))) => {
                return Err(kernel(path, "looking at the layers below")(errno));
            }
            Some((at, Ok(found))) => (&mut lower[..at], found),
        };
        match tree::file_type(&found) {
            SFlag::S_IFDIR => {
                let mut layers = std::iter::once(&mut own).chain(above);
                let hidden =
                    layers.try_fold(false, |hidden, layer| Ok(hidden || layer.hides(path)?));
                if hidden.map_err(kernel(path, "looking for what hides it"))? {
                    continue;
                }
                let adopt = || {
                    let directory = own.tree.handle(path)?;
                    xattr::copy(&handle, &directory)?;
                    Metadata::of(&found).apply_to_directory(&directory)
                };
                adopt().map_err(kernel(
                    path,
                    "taking over the attributes of the layer below",
                ))?;
            }
            SFlag::S_IFLNK => warn_masked(path),
            _ => {}
        }
    }
    Ok(())
}

/// Docker's overlay2 driver has the same effect; builders that diff never write such layers.
fn warn_masked(path: &EntryPath) {
    let name = display(path.as_bytes());
    tracing::warn!(
        path = name,
        "the layer holds files below a path that is a symbolic link further down; its directory \
         hides the link"
    );
}

/// A layer, and which of its directories hide what is in them further down.
struct Layer {
    tree: Tree,
    marks: Marks,
    opaque_root: bool,
    /// The names of the way that was looked at last, and whether what lies below them is hidden. The next
    /// way most often begins like it, so no directory is looked at for each that is in it.
    way: Vec<(OsString, bool)>,
}

impl Layer {
    fn open(root: &Path, marks: Marks) -> Result<Self, Errno> {
        let tree = Tree::open(root)?;
        let opaque_root = marks.is_opaque(tree.root())?;
        Ok(Self {
            tree,
            marks,
            opaque_root,
            way: Vec::new(),
        })
    }

    /// Whether a directory above `path` hides what the layers below have there.
    fn hides(&mut self, path: &EntryPath) -> Result<bool, Errno> {
        let Some((parent, _)) = path.split() else {
            return Ok(false);
        };
        let names: Vec<&OsStr> = parent.components().collect();
        let known = self.way.iter().zip(&names);
        let known = known.take_while(|((own, _), name)| own == **name).count();
        self.way.truncate(known);
        let mut so_far = EntryPath::default();
        for (at, name) in names.into_iter().enumerate() {
            so_far = so_far.join(name);
            if at < known {
                continue;
            }
            let above = self
                .way
                .last()
                .map_or(self.opaque_root, |(_, hides)| *hides);
            let hides = above || self.is_opaque(&so_far)?;
            self.way.push((name.to_owned(), hides));
        }
        Ok(self
            .way
            .last()
            .map_or(self.opaque_root, |(_, hides)| *hides))
    }

    fn is_opaque(&self, path: &EntryPath) -> Result<bool, Errno> {
        match self.tree.handle(path) {
            Ok(directory) => self.marks.is_opaque(&directory),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}
