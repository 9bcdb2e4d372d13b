//! What is known of each container: a directory per container, below the one of `--root`.
//!
//! - `state.json` is written before anything is made, and again when the process exists: whoever
//!   finds it can undo the rest.
//! - `config.json` is the configuration as it was when the container was created; that of the
//!   bundle may change.
//! - `start` is a socket at which the container's process waits for the word to start.
//!
//! Whoever changes a container holds a lock on its directory. Whoever only looks at it, or sends its
//! processes a signal, waits for nobody: a hook that hangs holds the lock, and one may ask for the state.

use crate::bundle;
use crate::error::OciError;
use crate::lock::lock;
use container::{Cgroup, CgroupError, CgroupPath, Identity, fault, process};
use nix::fcntl::Flock;
use oci_spec::runtime::{ContainerState, Spec};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use systemd::UnitPath;

/// How long a command that is forced waits for another that has the container.
const PATIENCE: Duration = Duration::from_secs(10);

/// `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saved {
    pub id: String,
    pub bundle: PathBuf,
    /// The directory of the root file system.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// The user id of whoever created it.
    pub owner: u32,
    /// Its cgroup, unless it has none of its own.
    pub cgroup: Option<CgroupPath>,
    /// The unit that this cgroup is, where systemd makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitPath>,
    /// The process that creates it, and when that was started ([`process::start_time`]).
    #[serde(default)]
    pub creator: Option<(i32, u64)>,
    /// The first process, likewise, once it is ready to be started.
    pub process: Option<(i32, u64)>,
}

/// The directory of `--root`.
pub struct Store {
    root: PathBuf,
}

impl Store {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where compiled filters of system calls are kept. No container's id begins like this.
    pub fn filters(&self) -> PathBuf {
        self.root.join(".seccomp")
    }

    /// Makes a container's directory and writes down what it is about to be. The lock is held.
    pub fn add(&self, saved: Saved, config: &[u8]) -> Result<Entry, OciError> {
        check_id(&saved.id)?;
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        (builder.recursive(true).create(&self.root))
            .map_err(OciError::file("create", &self.root))?;
        let directory = self.root.join(&saved.id);
        step("make directory", &directory)?;
        match builder.recursive(false).create(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {
                return Err(OciError::Exists(saved.id));
            }
            result => result.map_err(OciError::file("create", &directory))?,
        }
        let locked = step("lock", &directory).and_then(|()| lock(&directory, None));
        let lock = match locked {
            Ok(Some(lock)) => lock,
            result => {
                let _ = fs::remove_dir(&directory); // it is empty, or somebody else's
                result?;
                return Err(OciError::NotFound(saved.id));
            }
        };
        if fs::symlink_metadata(directory.join("state.json")).is_ok() {
            // Deleted before it was locked, and made anew by somebody else.
            return Err(OciError::Exists(saved.id));
        }
        let entry = Entry {
            lock: Some(lock),
            directory,
            saved,
            damage: None,
        };
        // Nobody reads the configuration before the state is there.
        let written = write(&entry.config_path(), config).and_then(|()| entry.save());
        match written {
            Ok(()) => Ok(entry),
            Err(error) => {
                entry.forget()?;
                Err(error)
            }
        }
    }

    /// A container's entry, locked: for who changes it.
    pub fn get(&self, id: &str) -> Result<Entry, OciError> {
        check_id(id)?;
        let directory = self.root.join(id);
        let mut locked = lock(&directory, Some(Duration::ZERO));
        if matches!(locked, Err(OciError::Busy(_))) {
            let (saved, _) = read_state(id, &directory);
            // Its hooks may be who asks, and would wait for themselves.
            if saved.is_creating()? {
                return Err(OciError::WrongStatus {
                    id: id.into(),
                    status: "creating",
                    wanted: "wait until it is created, or end that by delete --force",
                });
            }
            locked = lock(&directory, None);
        }
        let lock = locked?.ok_or_else(|| OciError::NotFound(id.into()))?;
        undamaged(entry(id, directory, Some(lock)))
    }

    /// The entry of a container that was let go of by [`Entry::unlock`], unless it was deleted since.
    pub fn again(&self, saved: &Saved) -> Result<Option<Entry>, OciError> {
        match self.get(&saved.id) {
            // Being created, it is another one of this name.
            Err(OciError::NotFound(_) | OciError::WrongStatus { .. }) => Ok(None),
            Ok(entry) if entry.saved.process != saved.process => Ok(None),
            entry => entry.map(Some),
        }
    }

    /// A container's entry, for who does not change it: locked only if nobody else has the lock.
    pub fn look(&self, id: &str) -> Result<Entry, OciError> {
        check_id(id)?;
        let directory = self.root.join(id);
        let not_found = || OciError::NotFound(id.into());
        let lock = match lock(&directory, Some(Duration::ZERO)) {
            Err(OciError::Busy(_)) => None,
            locked => Some(locked?.ok_or_else(not_found)?),
        };
        let entry = undamaged(entry(id, directory, lock))?;
        if entry.lock.is_none() && entry.saved.created.is_empty() {
            return Err(not_found()); // nothing is written down yet, or nothing any more
        }
        Ok(entry)
    }

    /// As [`Store::get`], also where what was written down cannot be understood any more, for who
    /// will end the container whatever it does. A command that holds the lock and waits for the
    /// container, which may be for ever, comes to its end when that does; one that creates it, and may
    /// wait for a hook, is ended: what it has made ends with it, or is removed as after any crash.
    pub fn get_forced(&self, id: &str) -> Result<Entry, OciError> {
        check_id(id)?;
        let directory = self.root.join(id);
        let busy = |result: &Result<_, OciError>| matches!(result, Err(OciError::Busy(_)));
        let mut locked = lock(&directory, Some(PATIENCE));
        if busy(&locked) {
            let (saved, _) = read_state(id, &directory);
            let holder = match saved.process {
                Some(_) => saved.process,
                None => saved.creator,
            };
            if let Some((_, pidfd)) = living(holder)? {
                process::signal(&pidfd, libc::SIGKILL)?;
            }
            locked = lock(&directory, Some(PATIENCE));
        }
        let lock = locked?.ok_or_else(|| OciError::NotFound(id.into()))?;
        Ok(entry(id, directory, Some(lock)))
    }

    /// Whether a container that was created later has this one's cgroup now. It could take that only
    /// when nobody was left in it.
    pub fn has_successor(&self, saved: &Saved) -> Result<bool, OciError> {
        for id in self.ids()? {
            // One that is damaged, or deleted meanwhile, has no cgroup here.
            let (other, _) = read_state(&id, &self.root.join(&id));
            if other.cgroup == saved.cgroup
                && other.created > saved.created
                && (other.process.is_some() || other.is_creating()?)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The ids of all containers, sorted.
    pub fn ids(&self) -> Result<Vec<String>, OciError> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.map_err(OciError::file("read", &self.root))?,
        };
        let names = entries
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .filter_map(|e| e.file_name().into_string().ok());
        let mut ids: Vec<String> = names.filter(|name| check_id(name).is_ok()).collect();
        ids.sort();
        Ok(ids)
    }
}

fn undamaged(entry: Entry) -> Result<Entry, OciError> {
    match entry.damage {
        None => Ok(entry),
        Some(reason) => Err(OciError::Damaged {
            id: entry.saved.id,
            reason,
        }),
    }
}

fn entry(id: &str, directory: PathBuf, lock: Option<Flock<File>>) -> Entry {
    let (saved, damage) = read_state(id, &directory);
    Entry {
        lock,
        directory,
        saved,
        damage,
    }
}

/// What `state.json` says, or what is wrong with it. Somebody may have written anything there.
fn read_state(id: &str, directory: &Path) -> (Saved, Option<String>) {
    let path = directory.join("state.json");
    let saved = match bundle::read(&path) {
        // Its creator was killed before it was written.
        Err(OciError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return (half_made(id), None);
        }
        Ok(text) if text.is_empty() => return (half_made(id), None),
        result => result.and_then(|text| bundle::parse::<Saved>(&path, &text)),
    };
    match saved {
        Ok(saved) if saved.id == id => (saved, None),
        Ok(saved) => {
            let reason = format!("{} is of container {:?}", path.display(), saved.id);
            (half_made(id), Some(reason))
        }
        Err(error) => (half_made(id), Some(error.to_string())),
    }
}

/// A process that was written down, while it lives.
fn living(process: Option<(i32, u64)>) -> Result<Option<(i32, OwnedFd)>, OciError> {
    let Some((pid, start_time)) = process else {
        return Ok(None);
    };
    let pidfd = match process::open_verified(pid, start_time) {
        Err(process::ProcessError::Gone(_) | process::ProcessError::Reused(_)) => {
            return Ok(None);
        }
        result => result?,
    };
    // A zombie has ended too, whoever its parent is.
    let ended = process::wait_ended(&pidfd, Some(Duration::ZERO))?;
    Ok((!ended).then_some((pid, pidfd)))
}

/// What is known of a container whose creation was killed before it wrote anything down: nothing
/// was made then.
fn half_made(id: &str) -> Saved {
    Saved {
        id: id.into(),
        bundle: PathBuf::new(),
        rootfs: PathBuf::new(),
        created: String::new(),
        owner: 0,
        cgroup: None,
        unit: None,
        creator: None,
        process: None,
    }
}

/// One container's directory, locked unless it is only looked at.
pub struct Entry {
    lock: Option<Flock<File>>,
    directory: PathBuf,
    pub saved: Saved,
    /// Why `state.json` says nothing, where it is there and cannot be understood.
    pub damage: Option<String>,
}

impl Entry {
    /// Writes the state down. What comes later may only add to it.
    pub fn save(&self) -> Result<(), OciError> {
        let path = self.directory.join("state.json");
        let json = serde_json::to_vec(&self.saved).map_err(|error| OciError::Json {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        write(&path, &json)
    }

    /// Removes what is known of the container. Nothing of it may be left.
    pub fn forget(self) -> Result<(), OciError> {
        fs::remove_dir_all(&self.directory).map_err(OciError::file("remove", &self.directory))
    }

    /// Lets others at it.
    pub fn unlock(self) -> Saved {
        self.saved
    }

    fn config_path(&self) -> PathBuf {
        self.directory.join("config.json")
    }

    /// The configuration that it was created with.
    pub fn spec(&self) -> Result<Spec, OciError> {
        let path = self.config_path();
        let text = bundle::read(&path)?;
        let (spec, _) = bundle::parse_known(&path, &text, bundle::OF_SPEC)?; // told when it was created
        Ok(spec)
    }

    /// Where its process waits for the word to start.
    pub fn start_socket(&self) -> PathBuf {
        self.directory.join("start")
    }

    /// What hooks are told.
    pub fn identity(&self) -> Identity {
        self.saved.identity()
    }

    /// Its first process, while that lives.
    pub fn process(&self) -> Result<Option<(i32, OwnedFd)>, OciError> {
        living(self.saved.process)
    }

    /// As [`Entry::process`]; a container that does not run is an error.
    pub fn running(&self) -> Result<(i32, OwnedFd), OciError> {
        let missing = || OciError::NotRunning(self.saved.id.clone());
        self.process()?.ok_or_else(missing)
    }

    /// Its cgroup; `None` when it has none, or that is gone.
    pub fn cgroup(&self) -> Result<Option<Cgroup>, OciError> {
        let path = self.saved.cgroup.as_ref();
        path.map_or(Ok(None), open_cgroup)
    }

    /// Where it is in its life.
    pub fn status(&self) -> Result<ContainerState, OciError> {
        if self.saved.is_creating()? {
            return Ok(ContainerState::Creating);
        }
        if self.process()?.is_none() {
            return Ok(ContainerState::Stopped);
        }
        if container::waits_at(&self.start_socket()) {
            return Ok(ContainerState::Created);
        }
        Ok(ContainerState::Running)
    }
}

/// `None` when it is gone.
pub fn open_cgroup(path: &CgroupPath) -> Result<Option<Cgroup>, OciError> {
    match Cgroup::open_at(path) {
        Err(CgroupError::NotFound(_)) => Ok(None),
        result => Ok(Some(result?)),
    }
}

impl Saved {
    /// Whether somebody is about to create it; it has no process of its own then.
    fn is_creating(&self) -> Result<bool, OciError> {
        Ok(self.process.is_none() && living(self.creator)?.is_some())
    }

    pub fn identity(&self) -> Identity {
        Identity {
            id: self.id.clone(),
            bundle: self.bundle.clone(),
        }
    }
}

/// Made aside, and put in its place in one step: who reads it without the lock, or after a crash, finds
/// nothing yet, the old content or the new. The directory is on a tmpfs as a rule: it need not survive
/// the machine.
fn write(path: &Path, content: &[u8]) -> Result<(), OciError> {
    step("make file", path)?;
    let new = path.with_extension("new");
    let written = fs::write(&new, content).and_then(|()| {
        fault::step("write")?;
        fs::rename(&new, path)
    });
    written.map_err(OciError::file("write", path))
}

/// See [`fault`].
fn step(name: &'static str, path: &Path) -> Result<(), OciError> {
    fault::step(name).map_err(|errno| OciError::file(name, path)(errno.into()))
}

/// Written in one go, as whoever waits for the file expects it.
pub fn write_pid(path: &Path, pid: i32) -> Result<(), OciError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let _ = fs::remove_file(&new); // of one that was killed and had our number
    step("write", path)?;
    // Never through a link that others have put there.
    let written = File::create_new(&new)
        .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
        .and_then(|()| Ok(fault::step("rename")?))
        .and_then(|()| fs::rename(&new, path));
    written.map_err(|error| {
        let _ = fs::remove_file(&new);
        OciError::file("write process id to", path)(error)
    })
}

fn check_id(id: &str) -> Result<(), OciError> {
    let bad = |reason| {
        Err(OciError::BadId {
            id: id.into(),
            reason,
        })
    };
    let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !id.starts_with(first) {
        return bad("it begins with a letter, a digit or _");
    }
    if !id.chars().all(|c| first(c) || "+-.".contains(c)) {
        return bad("it has letters, digits, and _ + - .");
    }
    if id.len() > 200 {
        return bad("it is longer than 200 bytes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for id in ["a", "web.1", "0", "_x", "A-b+c_d.e"] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in [
            "",
            ".",
            "..",
            "-a",
            "a/b",
            "a b",
            "ä",
            "../x",
            "a\0",
            &"x".repeat(201),
        ] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }

    #[test]
    fn one_of_each() {
        let root = tempfile::tempdir().expect("tempdir");
        let store = Store::new(root.path().join("deep/er"));
        let saved = Saved {
            owner: 7,
            ..half_made("one")
        };
        let entry = store.add(saved.clone(), b"{}").expect("added");
        assert!(matches!(store.add(saved, b"{}"), Err(OciError::Exists(_))));
        drop(entry);
        let entry = store.get("one").expect("there");
        assert_eq!(entry.saved.owner, 7);
        assert_eq!(entry.status().expect("status"), ContainerState::Stopped);
        assert_eq!(store.ids().expect("ids"), ["one"]);
        entry.forget().expect("forgotten");
        assert!(matches!(store.get("one"), Err(OciError::NotFound(_))));
        assert!(store.ids().expect("ids").is_empty());
    }

    #[test]
    fn what_a_killed_creation_leaves_can_be_removed() {
        let root = tempfile::tempdir().expect("tempdir");
        let store = Store::new(root.path().into());
        fs::create_dir(root.path().join("half")).expect("mkdir");
        store
            .get("half")
            .expect("an entry")
            .forget()
            .expect("forgotten");
        fs::create_dir(root.path().join("empty")).expect("mkdir");
        fs::write(root.path().join("empty/state.json"), "").expect("write");
        store
            .get("empty")
            .expect("an entry")
            .forget()
            .expect("forgotten");
        fs::create_dir(root.path().join("torn")).expect("mkdir");
        fs::write(root.path().join("torn/state.json"), "{").expect("write");
        assert!(matches!(store.get("torn"), Err(OciError::Damaged { .. })));
        store
            .get_forced("torn")
            .expect("an entry")
            .forget()
            .expect("forgotten");
    }
}
