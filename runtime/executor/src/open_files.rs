//! The limit of open files: the daemon's own is raised, its tasks get the one that it was started
//! with. Programs that close every descriptor they could have would take long with a high one.

use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

static INHERITED: OnceLock<(u64, u64)> = OnceLock::new();

/// Raises the soft limit to the hard one. Each task takes some descriptors (namespace, netlink,
/// names), so that the usual soft limit of 1024 would end a node at some hundred tasks.
pub fn raise() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        // Called twice: the first value is the inherited one.
        let _ = INHERITED.set((soft, hard));
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Soft and hard limit before [`raise`]; nothing where it was not called.
#[must_use]
pub fn inherited() -> Option<(u64, u64)> {
    INHERITED.get().copied()
}
