//! Unpacks a layer as the store does, and checks what must hold whatever the layer is.

use std::{
    cell::Cell,
    fs,
    io::{BufReader, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open},
    sys::stat::{Mode, SFlag},
    unistd::geteuid,
};

use crate::{
    Digest, LayerError, Limits, SaveError,
    limits::Budget,
    recipe::{self, Kept},
    unpack::{self, Expected, Marks, adopt_implied, apply::apply, decompress, tree},
};

/// Unpacks the layer `blob` below `folder`, and takes it away again. Nothing else there changes; no
/// limit is passed; what was unpacked can be copied, and is rebuilt as it was.
pub(super) fn check(
    blob: &[u8],
    folder: &Path,
    marks: Marks,
    limits: &Limits,
) -> Result<(), LayerError> {
    let outside = Outside::of(folder);
    let before = outside.look();
    let (root, copy) = (folder.join("root"), folder.join("copy"));
    fs::create_dir_all(&root).expect("a folder for the layer");
    let mut archive = Vec::new();
    let content = decompress(BufReader::new(blob)).map(|content| content.take(limits.bytes));
    let plain = content.is_ok_and(|mut content| content.read_to_end(&mut archive).is_ok());
    let expected = Expected {
        blob: None,
        diff_id: Digest::of(if plain { &archive } else { blob }),
    };
    let kept = Kept::beside(&root);
    let budget = Budget::new(limits);
    let outcome =
        unpack::unpack(blob, &expected, &root, marks, &budget).and_then(|mut unpacked| {
            let lower = [&outside.directory];
            unpack::link_below(&root, &mut unpacked, marks, &lower, &budget)?;
            Ok(unpacked)
        });
    if let Ok(unpacked) = &outcome {
        assert!(unpacked.bytes <= limits.bytes, "more bytes than allowed");
        assert_eq!(unpacked.bytes, archive.len() as u64);
        adopt_implied(&root, unpacked, marks, &[&outside.directory])
            .expect("directories are adopted");
        if marks == Marks::Sockets {
            fs::create_dir(&copy).expect("a folder for the copy");
            apply(&[&root], &copy).expect("what was unpacked is copied");
        }
        let mut again = Vec::new();
        let size = unpacked.bytes;
        match recipe::rebuild(&kept, &root, &expected.diff_id, size, &mut again) {
            Ok(()) => assert!(
                again == archive,
                "the digest is right, and the bytes are not"
            ),
            // A mode may forbid its owner to read.
            Err(SaveError::File { .. }) if !geteuid().is_root() => {}
            Err(error) => panic!("what was unpacked is not rebuilt: {error}"),
        }
    }
    let names = Cell::new(0);
    let count = |size: u64| {
        names.set(names.get() + 1);
        assert!(size <= limits.file_bytes, "a file of {size} bytes");
    };
    // Their own names do not count.
    remove(&root, count);
    remove(&kept.replaced, count);
    assert!(
        names.get() <= limits.entries,
        "{} names of at most {} entries",
        names.get(),
        limits.entries
    );
    remove(&copy, |_| {});
    remove(&kept.recipe, |_| {});
    remove(&unpack::Waiting::beside(&root), |_| {});
    assert_eq!(before, outside.look(), "something outside was changed");
    outcome.map(drop)
}

/// What lies beside the layer.
struct Outside {
    folder: PathBuf,
    file: PathBuf,
    /// It has names that layers have too.
    directory: PathBuf,
}

/// What can be seen of a file.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    name: PathBuf,
    mode: u32,
    owner: (u32, u32),
    links: u64,
    /// Of all that is not its content, and when that changed too: seconds and nanoseconds.
    changed: (i64, i64),
    content: Option<Vec<u8>>,
}

impl Outside {
    /// Makes what is missing of it: a file that is as old as can be tells most.
    fn of(folder: &Path) -> Self {
        let made = Self {
            folder: folder.to_owned(),
            file: folder.join("beside"),
            directory: super::outside(folder),
        };
        if !made.directory.exists() {
            fs::create_dir_all(made.directory.join("d/e")).expect("folders beside it");
            std::os::unix::fs::symlink("d", made.directory.join("e")).expect("a link beside it");
            for file in [
                made.file.clone(),
                made.directory.join("inside"),
                made.directory.join("a"),
            ] {
                fs::write(file, "untouched").expect("a file beside it");
            }
        }
        made
    }

    fn look(&self) -> Vec<Seen> {
        let mut pending = vec![self.folder.clone()];
        let mut seen = Vec::new();
        while let Some(path) = pending.pop() {
            let metadata = fs::symlink_metadata(&path).expect("what lies beside the layer");
            if metadata.is_dir() {
                let entries = fs::read_dir(&path).expect("a folder");
                pending.extend(entries.map(|entry| entry.expect("an entry").path()));
            }
            let content = metadata.is_file().then(|| fs::read(&path).expect("a file"));
            // The layer comes into the folder, and goes.
            let is_folder = path == self.folder;
            seen.push(Seen {
                name: path,
                mode: metadata.mode(),
                owner: (metadata.uid(), metadata.gid()),
                links: metadata.nlink(),
                changed: match is_folder {
                    true => (0, 0),
                    false => (metadata.ctime(), metadata.ctime_nsec()),
                },
                content,
            });
        }
        seen.sort_by(|one, other| one.name.cmp(&other.name));
        seen
    }
}

/// Removes it, however odd the names and modes below it are. Tells of each name below it the size of
/// the file.
fn remove(root: &Path, file: impl Fn(u64)) {
    let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else {
        return;
    };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let parent = open(parent, flags, Mode::empty()).expect("the folder");
    let mut is_root = true;
    let removed = tree::remove_with(parent, name, |directory, name| {
        if std::mem::take(&mut is_root) {
            return Ok(());
        }
        if let Some(found) = tree::look(directory, name)? {
            let is_file = tree::file_type(&found) == SFlag::S_IFREG;
            file(if is_file {
                found.st_size.unsigned_abs()
            } else {
                0
            });
        }
        Ok(())
    });
    removed.expect("removed");
}
