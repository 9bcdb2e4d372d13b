//! The commands, one file each.

pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
pub mod foreground;
pub mod freeze;
pub mod kill;
pub mod list;
pub mod ps;
pub mod run;
pub mod spec;
pub mod start;
pub mod state;
pub mod update;

use crate::args::{CgroupManager, Global};
use crate::error::OciError;
use crate::log::Log;
use crate::store::Store;
use container::seccomp::{Cache, Filter};
use oci_spec::runtime::Spec;
use std::path::PathBuf;

/// What every command needs.
pub struct Context<'a> {
    pub store: Store,
    pub log: &'a Log,
    pub cgroups: CgroupManager,
}

impl<'a> Context<'a> {
    pub fn new(global: Global, log: &'a Log) -> Result<Self, OciError> {
        let root = match global.root {
            Some(root) => std::path::absolute(&root).map_err(OciError::file("open", root))?,
            None => default_root(),
        };
        let cgroups = match global.systemd_cgroup {
            true => CgroupManager::Systemd,
            false => global.cgroup_manager,
        };
        Ok(Self {
            store: Store::new(root),
            log,
            cgroups,
        })
    }
}

impl Context<'_> {
    /// The compiled filter of a specification. Compiling takes milliseconds, and containers have
    /// the same profile as a rule, so it is kept.
    pub fn filter(&self, spec: &Spec) -> Result<Option<Filter>, OciError> {
        let profile = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
        let Some(profile) = profile else {
            return Ok(None);
        };
        let (filter, not_kept) = match Cache::open(&self.store.filters()) {
            Ok(cache) => cache.get(profile)?,
            Err(error) => (container::seccomp::compile(profile)?, Some(error)),
        };
        if let Some(error) = not_kept {
            self.log.warning(&error.to_string());
        }
        Ok(Some(filter))
    }
}

fn default_root() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    match own {
        Some(own) if is_ordinary() => PathBuf::from(own).join("fairlead-oci"),
        _ => "/run/fairlead-oci".into(),
    }
}

/// Whether `/run` is somebody else's. As with runc, root of a user namespace is an ordinary user, as
/// with podman without root, unless the name of the user is root: then it is a machine of its own, such
/// as one of LXC's.
fn is_ordinary() -> bool {
    let named_root = || std::env::var_os("USER").is_some_and(|name| name == "root");
    !nix::unistd::geteuid().is_root() || (!container::user::is_root() && !named_root())
}
