//! The daemon from its beginning to its end.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use netdp::Settings;

use crate::assign;
use crate::config::Options;
use crate::lock::{self, DirLock, LockError, NamespaceLock};
use crate::node::{Node, PlaneHost, RestoreError};
use crate::notify::notify;
use crate::plane::{Plane, PlaneError};
use crate::server;
use crate::stop::Stop;
use crate::store::{Store, StoreError};
use crate::task;
use crate::upkeep;

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another one is there.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its content.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// What the operator says of registries.
    #[error("cannot read what is said of registries: {0}")]
    Registries(String),
    /// The image store.
    #[error("cannot open the image store: {0}")]
    Images(#[from] image::ImageError),
    /// The data plane could not be opened.
    #[error("cannot open the data plane: {0}")]
    Plane(#[from] PlaneError),
    /// The data plane's thread ended: a bug, told in the log.
    #[error("the data plane has ended: the daemon has to be started again")]
    PlaneEnded,
    /// There is no shim.
    #[error("there is no fairlead-shim {0}: install it there or name it with --shim")]
    NoShim(String),
    /// The state left behind could not be taken up.
    #[error("cannot take up the tasks of the daemon before: {0}")]
    Recover(#[from] task::StepError),
    /// The socket.
    #[error("cannot serve the socket: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// Signals.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// Runs until `stop`. Tasks and their networking go on without it.
///
/// # Errors
/// Why it could not begin, or go on.
pub async fn run(options: Options, stop: Stop) -> Result<(), DaemonError> {
    // The socket's group must come through the second.
    let _state_lock = DirLock::take(&options.state_dir, 0o700)?;
    let _run_lock = DirLock::take(&options.run_dir, 0o711)?;
    let _namespace_lock = NamespaceLock::take()?;
    let group = lock::group(options.socket_group.as_deref())?;
    let shim = find_shim(options.shim.as_deref())?;
    // Before anything is touched: who else serves this socket also runs these tasks.
    let socket = options.socket_path();
    let listener = lock::listen(&socket, group.as_ref())?;

    let (store, content) = Store::open(&options.state_dir.join("executor.redb"))?;
    let images = image::Options {
        registries: task::registries(options.registries.as_ref())
            .map_err(DaemonError::Registries)?,
        snapshotter: options.snapshotter.map(Into::into),
        ..image::Options::default()
    };
    let images = image::Store::open_with(options.state_dir.join("images"), images)?;
    let engine = match &content.config {
        Some(config) => assign::engine(config, options.engine),
        None => options.engine.map(Into::into),
    };
    let settings = Settings {
        run_dir: options.run_dir.clone(),
        gwbridge: options.gwbridge.clone(),
        engine,
    };
    let interval = options.reconcile_interval;
    let prune_images_after = options.prune_images_after;
    let node = Arc::new(Node::restore(options, shim, images, store, content).await?);
    let (plane, plane_ended) = Plane::start(settings, interval, PlaneHost(Arc::clone(&node)))?;
    node.attach(plane.clone());

    // The first plan is the whole one, so that nothing of what runs flaps.
    task::recover(&node).await?;
    plane.apply().await?;
    for (id, local) in &node.view().locals {
        task::follow(&node, id, local.want());
    }

    tracing::info!(socket = %socket.display(), engine = plane.facts().engine.name(), "ready");
    tell("READY=1");
    let pruning = upkeep::prune_images(Arc::clone(&node.images), prune_images_after);
    let result = tokio::select! {
        never = pruning => match never {},
        result = server::serve(node, listener, group) => result.map_err(DaemonError::from),
        result = stop.wait() => result.map_err(DaemonError::Signals),
        _ = plane_ended => Err(DaemonError::PlaneEnded),
    };
    tell("STOPPING=1");
    // A socket that nobody serves only misleads; a new daemon would replace it.
    let _ = std::fs::remove_file(&socket);
    tracing::info!("ended; tasks and networking go on");
    result
}

fn tell(state: &str) {
    if let Err(error) = notify(env::var_os("NOTIFY_SOCKET"), state) {
        tracing::warn!(%error, state, "cannot tell the service manager");
    }
}

/// The flag, else beside this program, else in PATH.
fn find_shim(flag: Option<&Path>) -> Result<PathBuf, DaemonError> {
    const NAME: &str = "fairlead-shim";
    if let Some(path) = flag {
        let absolute = path.is_absolute() && path.is_file();
        let found = absolute.then(|| path.to_owned());
        return found.ok_or_else(|| {
            DaemonError::NoShim(format!("at {} (an absolute path)", path.display()))
        });
    }
    let beside = env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join(NAME)));
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path: Vec<PathBuf> = env::split_paths(&path).map(|dir| dir.join(NAME)).collect();
    beside
        .into_iter()
        .chain(in_path)
        .find(|candidate| candidate.is_absolute() && candidate.is_file())
        .ok_or_else(|| DaemonError::NoShim("beside fairleadd or in PATH".to_owned()))
}
