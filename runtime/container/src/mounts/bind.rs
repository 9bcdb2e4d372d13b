//! Bind mounts.
//!
//! Their sources are opened before anything is mounted, as detached copies: what the container's
//! mounts cover cannot redirect them, and their propagation is still that of the host's.

use super::options::Recursive;
use super::{links_at, not_on_procfs, parse, propagate, set_attributes, shown};
use crate::error::{ContainerError, Context, Setup, SetupFailure};
use crate::idmap::IdMaps;
use crate::mounts::MountOptions;
use crate::root::{Links, Root};
use crate::sys;
use nix::sys::stat::SFlag;
use oci_spec::runtime::Mount;
use std::os::fd::OwnedFd;

/// The sources of bind mounts that are open, by the number of the mount.
#[derive(Debug, Default)]
pub struct Sources(Vec<Option<OwnedFd>>);

impl Sources {
    /// In the creating process, before the clone: those that need its privileges. These are the
    /// id-mapped ones, and with `all` every one: inside a user namespace, the container's root
    /// may not even reach the directory.
    ///
    /// `maps` are the container's own, for mounts that name none.
    pub fn open_outside(
        mounts: &[Mount],
        maps: Option<&IdMaps>,
        all: bool,
    ) -> Result<Self, ContainerError> {
        let mut opened: Vec<Option<OwnedFd>> = Vec::new();
        // Each different set of maps needs a namespace, and one is enough for it.
        let mut namespaces: Vec<(IdMaps, OwnedFd)> = Vec::new();
        for (i, entry) in mounts.iter().enumerate() {
            let options = parse(entry)?;
            let Some(recursive) = options.idmap else {
                let wanted = all && options.bind && !options.remount;
                opened.push(wanted.then(|| open(entry, &options)).transpose()?);
                continue;
            };
            let field = format!("mounts[{i}].");
            let own = IdMaps::new(&field, entry.uid_mappings(), entry.gid_mappings())?;
            let Some(maps) = own.as_ref().or(maps) else {
                let reason = "the mount names no maps, and the container has none";
                return Err(ContainerError::invalid(
                    format!("{field}uidMappings"),
                    reason,
                ));
            };
            if !namespaces.iter().any(|(known, _)| known == maps) {
                namespaces.push((maps.clone(), maps.namespace()?));
            }
            let Some((_, namespace)) = namespaces.iter().find(|(known, _)| known == maps) else {
                continue;
            };
            let tree = open(entry, &options)?;
            sys::mount_idmap(&tree, recursive == Recursive::Yes, namespace).map_err(|errno| {
                let mut failure = SetupFailure::new("map ids of", shown(entry), errno);
                if errno == nix::errno::Errno::EINVAL {
                    failure.reason = "its file system does not support it, or is id-mapped \
                                      already"
                        .into();
                }
                failure
            })?;
            opened.push(Some(tree));
        }
        Ok(Self(opened))
    }

    /// In the container's process: the rest.
    pub fn open_rest(&mut self, mounts: &[Mount]) -> Setup<()> {
        self.0.resize_with(mounts.len(), || None);
        for (entry, source) in mounts.iter().zip(&mut self.0) {
            let options = parse(entry)?;
            if source.is_none() && options.bind && !options.remount {
                *source = Some(open(entry, &options)?);
            }
        }
        Ok(())
    }

    /// The source of mount `i`.
    pub fn take(&mut self, i: usize) -> Option<OwnedFd> {
        self.0.get_mut(i).and_then(Option::take)
    }
}

/// A detached copy, with its attributes and propagation.
fn open(entry: &Mount, options: &MountOptions) -> Setup<OwnedFd> {
    let Some(source) = entry.source() else {
        let reason = "a bind mount needs a source";
        return Err(SetupFailure::because("mount", shown(entry), reason));
    };
    let tree = sys::clone_tree(source, options.recursive)
        .step("open source of bind mount", source.display())?;
    set_attributes(&tree, entry, options)?;
    propagate(&tree, entry, options)?;
    Ok(tree)
}

/// Attaches an opened source to its place, and returns it.
pub fn attach(
    root: &Root,
    entry: &Mount,
    options: &MountOptions,
    source: Option<OwnedFd>,
) -> Setup<OwnedFd> {
    let tree = match source {
        Some(tree) => tree,
        None => open(entry, options)?,
    };
    // What was opened decides, not a second look at the path.
    let kind = sys::fstat(&tree)
        .step("stat source of", shown(entry))?
        .st_mode;
    let links = links_at(entry.destination());
    let target = if SFlag::from_bits_truncate(kind & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR {
        root.make_dir(entry.destination(), links)?
    } else {
        root.make_file(entry.destination(), links)?
    };
    if links == Links::Follow {
        not_on_procfs(&target, entry)?;
    }
    sys::move_mount(&tree, &target).step("mount", shown(entry))?;
    Ok(tree)
}
