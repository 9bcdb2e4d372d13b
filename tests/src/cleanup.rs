//! Removes everything that carries a test's name: also what an earlier run has left that was killed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a test's things are called.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// Network namespaces are called `<prefix>-<part>`.
    pub prefix: String,
    /// All files.
    pub dir: PathBuf,
    /// cgroup parent of all nodes, such as `/fairlead-test-x`.
    pub cgroup: String,
}

impl Names {
    pub(crate) fn new(test: &str) -> Self {
        let prefix = format!("fairlead-test-{test}");
        Self {
            dir: std::env::temp_dir().join(&prefix),
            cgroup: format!("/{prefix}"),
            prefix,
        }
    }

    pub(crate) fn netns(&self, part: &str) -> PathBuf {
        Path::new("/run/netns").join(format!("{}-{part}", self.prefix))
    }

    /// Removes everything. What cannot be removed is told.
    pub(crate) fn remove_all(&self) -> Vec<String> {
        let mut problems = Vec::new();
        self.kill_processes(&mut problems);
        for mount in self.mounts() {
            if let Err(error) = umount2(&mount, MntFlags::MNT_DETACH) {
                problems.push(format!("cannot unmount {}: {error}", mount.display()));
            }
        }
        for file in self.namespaces() {
            // Not a mount any more if somebody was interrupted in between.
            let _ = umount2(&file, MntFlags::MNT_DETACH);
            if let Err(error) = fs::remove_file(&file) {
                problems.push(format!("cannot remove {}: {error}", file.display()));
            }
        }
        for cgroup in self.cgroups() {
            remove_cgroup(&cgroup, &mut problems);
        }
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                problems.push(format!("cannot remove {}: {error}", self.dir.display()));
            }
            _ => {}
        }
        problems
    }

    /// Mount points below our folder, the innermost first.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut mounts: Vec<PathBuf> = table
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .map(PathBuf::from)
            .filter(|mount| mount.starts_with(&self.dir))
            .collect();
        mounts.reverse();
        mounts
    }

    pub(crate) fn namespaces(&self) -> Vec<PathBuf> {
        let start = format!("{}-", self.prefix);
        let Ok(entries) = fs::read_dir("/run/netns") else {
            return Vec::new();
        };
        let mine = |name: &str| {
            // `a` is no leftover of `a-b`: the parts that we name have no hyphen.
            name.strip_prefix(&start)
                .is_some_and(|part| !part.contains('-'))
        };
        entries
            .filter_map(|entry| entry.ok())
            .filter(|entry| entry.file_name().to_str().is_some_and(mine))
            .map(|entry| entry.path())
            .collect()
    }

    /// Our cgroup in each hierarchy where it exists.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        table
            .lines()
            .filter(|line| line.contains(" - cgroup"))
            .filter_map(|line| line.split(' ').nth(4))
            .map(|mount| Path::new(mount).join(self.cgroup.trim_start_matches('/')))
            .filter(|path| path.exists())
            .collect()
    }

    /// Processes in our cgroups, in our namespaces, or that were started with a path of ours.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let namespaces: Vec<u64> = self
            .namespaces()
            .iter()
            .filter_map(|file| Some(fs::metadata(file).ok()?.ino()))
            .collect();
        let below = format!("{}/", self.dir.display());
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        let own = std::process::id();
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| u32::try_from(*pid) != Ok(own))
            .filter(|pid| {
                let proc = PathBuf::from(format!("/proc/{pid}"));
                let net = fs::metadata(proc.join("ns/net")).map(|file| file.ino());
                let command = fs::read(proc.join("cmdline")).unwrap_or_default();
                let cgroups = fs::read_to_string(proc.join("cgroup")).unwrap_or_default();
                // Without a command line: a thread of the kernel, or ended and not yet waited for.
                if command.is_empty() {
                    return false;
                }
                net.is_ok_and(|net| namespaces.contains(&net))
                    || String::from_utf8_lossy(&command).contains(&below)
                    || cgroups.lines().any(|line| {
                        let path = line.splitn(3, ':').nth(2).unwrap_or_default();
                        Path::new(path).starts_with(&self.cgroup)
                    })
            })
            .collect()
    }

    fn kill_processes(&self, problems: &mut Vec<String>) {
        let limit = Instant::now() + Duration::from_secs(20);
        loop {
            let processes = self.processes();
            if processes.is_empty() {
                return;
            }
            if Instant::now() > limit {
                problems.push(format!("processes do not end: {processes:?}"));
                return;
            }
            for pid in processes {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn remove_cgroup(path: &Path, problems: &mut Vec<String>) {
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries.filter_map(Result::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_cgroup(&entry.path(), problems);
            }
        }
    }
    // The last process may still be on its way out of it.
    let limit = Instant::now() + Duration::from_secs(5);
    while let Err(error) = fs::remove_dir(path) {
        if error.kind() == std::io::ErrorKind::NotFound {
            return;
        }
        if Instant::now() > limit {
            problems.push(format!("cannot remove {}: {error}", path.display()));
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
