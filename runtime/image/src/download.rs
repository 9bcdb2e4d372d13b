//! Blobs on their way from a registry: written to a file, and read from it while it grows.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    Digest, Name, Progress, PullEvent, RegistryError,
    registry::{BlobStream, Cancel, Repository, Wake},
};

/// Blobs of one pull that are downloaded side by side, at most; Docker's number.
const PARALLEL: usize = 3;
/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// One blob. Its file stays when the download fails, and the next one goes on there.
#[derive(Debug)]
pub(crate) struct Download {
    digest: Digest,
    /// Bytes, as the manifest says.
    size: u64,
    /// Where a foreign layer is, should the registry not have it.
    urls: Vec<String>,
    path: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    /// Bytes that are in the file.
    have: u64,
    outcome: Option<Result<(), Arc<RegistryError>>>,
    /// Nobody wants it any more, and what reads it ends.
    cancelled: bool,
}

impl Download {
    /// Of a blob into the file `path`, which may have its beginning already.
    pub(crate) fn new(digest: Digest, size: u64, urls: Vec<String>, path: PathBuf) -> Self {
        Self {
            digest,
            size,
            urls,
            path,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Of the blob.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Opens the file; from here on it can be read.
    fn begin(&self) -> Result<(), RegistryError> {
        let open = || {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            let file = options.open(&self.path)?;
            let mut have = file.metadata()?.len();
            if have > self.size {
                file.set_len(0)?;
                have = 0;
            }
            Ok((file, have))
        };
        let (file, have) = open().map_err(|error| self.failed("opening", error))?;
        *self.state() = State {
            file: Some(Arc::new(file)),
            have,
            outcome: None,
            cancelled: false,
        };
        Ok(())
    }

    fn failed(&self, action: &'static str, source: io::Error) -> RegistryError {
        RegistryError::Disk {
            action,
            path: self.path.clone(),
            source,
        }
    }

    /// Downloads what is missing, over failures that pass.
    fn run(&self, repository: &Repository, cancel: &Cancel, progress: &dyn Progress) {
        let mut retries = repository.retries(cancel);
        let Some(file) = self.state().file.clone() else {
            return;
        };
        let outcome = loop {
            let before = self.state().have;
            let (error, place) = match self.attempt(&file, repository, cancel, progress) {
                Ok(()) => break Ok(()),
                Err(failed) => (failed.error, failed.place),
            };
            let progressed = self.state().have > before;
            if progressed {
                retries.progressed();
            }
            // What a mirror has can be too short or too long.
            if let Some(place) = place
                && !(progressed && error.is_transient())
                && !matches!(error, RegistryError::Disk { .. })
                && !cancel.is_cancelled()
                && repository.leave(place)
            {
                tracing::warn!(%error, "a mirror failed, going on with the next place");
                continue;
            }
            if let Err(error) = retries.pause(error) {
                break Err(Arc::new(error));
            }
        };
        let failed = outcome.is_err();
        {
            let mut state = self.state();
            if state.goes_on(&file) {
                state.outcome = Some(outcome);
            }
            self.changed.notify_all();
        }
        if failed {
            // The others are of no use without it; what they have stays.
            cancel.cancel();
        }
    }

    fn attempt(
        &self,
        file: &Arc<File>,
        repository: &Repository,
        cancel: &Cancel,
        progress: &dyn Progress,
    ) -> Result<(), Failed> {
        let have = self.state().have;
        if have == self.size {
            return Ok(());
        }
        cancel.check()?;
        let stream = repository.blob(&self.digest, have, &self.urls)?;
        let place = Some(stream.place);
        self.receive(file, have, stream, cancel, progress)
            .map_err(|error| Failed { error, place })
    }

    /// Reads a stream that begins at `have` into the file.
    fn receive(
        &self,
        file: &Arc<File>,
        mut have: u64,
        stream: BlobStream,
        cancel: &Cancel,
        progress: &dyn Progress,
    ) -> Result<(), RegistryError> {
        let BlobStream {
            mut reader,
            mut skip,
            url,
            ..
        } = stream;
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = reader
                .read(&mut buffer)
                .map_err(|error| RegistryError::Transport {
                    url: url.clone(),
                    reason: error.to_string(),
                })?;
            cancel.check()?;
            if count == 0 {
                break;
            }
            let here = skip.min(count as u64) as usize;
            skip -= here as u64;
            let piece = &buffer[here..count];
            if piece.is_empty() {
                continue;
            }
            if have + piece.len() as u64 > self.size {
                let reason = format!(
                    "the blob is longer than the {} bytes it should have",
                    self.size
                );
                return Err(RegistryError::Answer { url, reason });
            }
            file.write_all_at(piece, have)
                .map_err(|error| self.failed("writing", error))?;
            have += piece.len() as u64;
            {
                let mut state = self.state();
                if !state.goes_on(file) {
                    return Err(RegistryError::Cancelled);
                }
                state.have = have;
            }
            self.changed.notify_all();
            progress.event(PullEvent::Downloading {
                blob: self.digest,
                bytes: have,
                of: self.size,
            });
        }
        if have < self.size {
            let reason = format!("it ended after {have} of {} bytes", self.size);
            return Err(RegistryError::Transport { url, reason });
        }
        Ok(())
    }

    fn discard(&self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "a download that is not needed stays");
        }
    }

    /// Why it failed, if it did.
    fn failure(&self) -> Option<Arc<RegistryError>> {
        self.state().outcome.clone()?.err()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether what is written to `file` still counts. Who waits for a server when it is cancelled may
    /// find out when the next download has begun.
    fn goes_on(&self, file: &Arc<File>) -> bool {
        let same = self.file.as_ref().is_some_and(|own| Arc::ptr_eq(own, file));
        same && self.outcome.is_none()
    }
}

impl Wake for Download {
    fn cancelled(&self) {
        let cancelled = || Err(Arc::new(RegistryError::Cancelled));
        let mut state = self.state();
        state.cancelled = true;
        state.outcome.get_or_insert_with(cancelled);
        self.changed.notify_all();
    }
}

/// Why an attempt failed.
struct Failed {
    error: RegistryError,
    /// The place that had begun to send.
    place: Option<usize>,
}

impl From<RegistryError> for Failed {
    fn from(error: RegistryError) -> Self {
        Self { error, place: None }
    }
}

/// Reads a download from its beginning, and waits where it has not come yet.
#[derive(Debug)]
pub(crate) struct Follow {
    download: Arc<Download>,
    position: u64,
}

impl Follow {
    pub(crate) fn new(download: Arc<Download>) -> Self {
        Self {
            download,
            position: 0,
        }
    }
}

impl Read for Follow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let download = &*self.download;
        let state = download.state();
        let waiting = |state: &mut State| {
            state.file.is_some() && state.have <= self.position && state.outcome.is_none()
        };
        let state = download.changed.wait_while(state, waiting);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        if state.cancelled {
            return Err(io::Error::other(RegistryError::Cancelled));
        }
        let ready = state.have.saturating_sub(self.position);
        if ready == 0 && state.file.is_some() {
            return match &state.outcome {
                Some(Err(error)) => Err(io::Error::other(error.clone())),
                _ => Ok(0),
            };
        }
        let file = state.file.clone();
        drop(state);
        let file = file.ok_or_else(|| io::Error::other("the download has not begun"))?;
        let want = ready.min(buffer.len() as u64) as usize;
        let count = file.read_at(&mut buffer[..want], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

/// The downloads of one pull.
pub(crate) struct Downloads {
    /// The image.
    pub(crate) name: Name,
    pub(crate) repository: Arc<Repository>,
    /// By the layer's position, bottom first.
    pub(crate) blobs: Vec<Arc<Download>>,
    pub(crate) cancel: Cancel,
    pub(crate) progress: Arc<dyn Progress>,
}

impl std::fmt::Debug for Downloads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.blobs).finish()
    }
}

/// Downloads that are going on. They end when this is dropped, some of them a little later.
pub(crate) struct Running {
    blobs: Vec<Arc<Download>>,
    cancel: Cancel,
}

impl Downloads {
    /// Removes the files: all layers are here. Some may be of a pull that was killed before it did
    /// this.
    pub(crate) fn discard(&self) {
        self.blobs.iter().for_each(|blob| blob.discard());
    }

    /// Begins to download the blobs of the layers at `positions`, in this order.
    pub(crate) fn start(&self, positions: &[usize]) -> Result<Running, RegistryError> {
        for (position, blob) in self.blobs.iter().enumerate() {
            self.progress.event(PullEvent::Layer {
                blob: blob.digest,
                size: blob.size,
                here: !positions.contains(&position),
            });
        }
        let mut blobs: Vec<Arc<Download>> = Vec::new();
        for blob in positions.iter().map(|at| &self.blobs[*at]) {
            if blobs.iter().all(|begun| begun.digest != blob.digest) {
                blob.begin()?;
                blobs.push(blob.clone());
            }
        }
        let (queue, next) = (Arc::new(blobs.clone()), Arc::new(AtomicUsize::new(0)));
        let running = Running {
            blobs,
            cancel: self.cancel.part(),
        };
        for blob in &running.blobs {
            running.cancel.wakes(blob);
        }
        for _ in 0..PARALLEL.min(queue.len()) {
            let (queue, next) = (queue.clone(), next.clone());
            let (repository, cancel) = (self.repository.clone(), running.cancel.clone());
            let progress = self.progress.clone();
            let work = move || {
                while let Some(blob) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
                    blob.run(&repository, &cancel, &*progress);
                }
            };
            thread::Builder::new()
                .name("download".into())
                .spawn(work)
                .map_err(|error| RegistryError::Config(format!("starting a thread: {error}")))?;
        }
        Ok(running)
    }
}

impl Running {
    /// Why one failed, if one did; the others were cancelled then.
    pub(crate) fn failure(&self) -> Option<Arc<RegistryError>> {
        let mut failures: Vec<_> = self
            .blobs
            .iter()
            .filter_map(|blob| blob.failure())
            .collect();
        failures.sort_by_key(|error| matches!(**error, RegistryError::Cancelled));
        let cancelled = || Arc::new(RegistryError::Cancelled);
        let failure = failures.into_iter().next();
        failure.or_else(|| self.cancel.is_cancelled().then(cancelled))
    }

    /// Removes the files: they are no good.
    pub(crate) fn discard(&self) {
        self.blobs.iter().for_each(|blob| blob.discard());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A thread that waits for a server ends later, and what it gets then counts no more.
        self.cancel.cancel();
    }
}
