//! Hard links.

use std::os::fd::AsFd;

use nix::{
    errno::Errno,
    fcntl::AtFlags,
    sys::stat::{FileStat, SFlag},
    unistd,
};

use super::{Place, Writer};
use crate::{
    LayerError,
    tarball::Entry,
    unpack::{
        EntryPath, display,
        error::FIND_PATH,
        links::{Target, Waiting},
        tree,
    },
};

impl Writer<'_> {
    pub(super) fn hard_link(&mut self, place: &Place<'_>, entry: &Entry) -> Result<(), LayerError> {
        let target = display(&entry.link);
        let Ok(link) = EntryPath::parse(&entry.link) else {
            return self.refuse(format!("a hard link to `{target}`, outside the layer"));
        };
        let Some((parent, name)) = link.split() else {
            return self.refuse("a hard link to the root of the layer");
        };
        let directory = match self.tree.directory(&parent) {
            Ok(directory) => directory,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {
                return self.link_below(place, link);
            }
            Err(errno) => return self.at(Err(errno), "opening the directory of a link's target"),
        };
        let found = match self.at(tree::look(&directory, name), "looking at a link's target")? {
            None => return self.link_below(place, link),
            Some(found) => found,
        };
        if tree::file_type(&found) == SFlag::S_IFDIR || tree::is_whiteout(&found) {
            return self.refuse(format!("a hard link to `{target}`, which is no file"));
        }
        let existing = self.at(
            tree::look(&place.directory, place.name),
            "looking at the name",
        )?;
        let same = |other: &FileStat| (other.st_dev, other.st_ino) == (found.st_dev, found.st_ino);
        // Already the same file, or a link to itself: clearing the place would lose it.
        if existing.as_ref().is_some_and(same) {
            return Ok(());
        }
        self.clear(place, existing)?;
        let linked = unistd::linkat(
            &directory,
            name,
            &place.directory,
            place.name,
            AtFlags::empty(),
        );
        self.at(linked, "making a hard link")?;
        if self.waiting.has(found.st_ino) {
            let home = self.home_of_link(place)?;
            self.waiting.add(found.st_ino, home);
        }
        Ok(())
    }

    /// A hard link to a file that this layer does not hold.
    fn link_below(&mut self, place: &Place<'_>, path: EntryPath) -> Result<(), LayerError> {
        let view = self.at(self.view(&path), "looking for the target of a hard link")?;
        let by_own_link = match view {
            View::Open => false,
            View::OwnLink => true,
            View::Hidden => {
                let target = display(path.as_bytes());
                return self.refuse(format!(
                    "a hard link to `{target}`, which neither the layer nor one below it holds"
                ));
            }
        };
        let existing = self.at(
            tree::look(&place.directory, place.name),
            "looking at the name",
        )?;
        self.clear(place, existing)?;
        Waiting::charge(self.budget, &path)?;
        let home = self.home_of_link(place)?;
        let target = Target { path, by_own_link };
        let put = self
            .waiting
            .put(target, (&place.directory, place.name), home);
        self.at(put, "making a file that stands for one of a layer below")
    }

    /// The path of a link that waits, without links.
    fn home_of_link(&mut self, place: &Place<'_>) -> Result<EntryPath, LayerError> {
        let home = self.homes.of(place.directory.as_fd(), &place.path);
        let Some(home) = self.at(home, FIND_PATH)? else {
            return self.refuse("its path is longer than a path can be (4095 bytes)");
        };
        Waiting::charge(self.budget, &home)?;
        Ok(home)
    }

    /// What the layer, as far as it is written, lets be seen of the layers below at a path where it has
    /// nothing.
    fn view(&self, path: &EntryPath) -> Result<View, Errno> {
        let mut directory = self.tree.directory(&EntryPath::default())?;
        let mut hidden = self.marks.is_opaque(&directory)?;
        for name in path.components() {
            let Some(found) = tree::look(&directory, name)? else {
                break;
            };
            match tree::file_type(&found) {
                SFlag::S_IFDIR => {}
                // Where it leads to, all layers together tell.
                SFlag::S_IFLNK => return Ok(View::OwnLink),
                _ => return Ok(View::Hidden),
            }
            directory = tree::subdirectory(&directory, name)?;
            hidden |= self.marks.is_opaque(&directory)?;
        }
        Ok(match hidden {
            true => View::Hidden,
            false => View::Open,
        })
    }
}

enum View {
    Open,
    Hidden,
    /// A symbolic link of the layer leads elsewhere.
    OwnLink,
}
