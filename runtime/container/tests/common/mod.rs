//! A root file system of busybox, a cgroup parent of the test's own, and a way to run a container
//! from a process with one thread.
#![allow(dead_code)] // each test file uses its part

pub mod agent;
pub mod probe;

use container::{CreateOptions, Rootfs, Stdio, create, defaults, process};
use oci_spec::runtime::{
    LinuxIdMappingBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder, Process,
    Spec,
};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What became of a container.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub code: i32,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub warnings: Vec<String>,
    pub oom_kills: u64,
    /// Set when it could not be created or started.
    pub error: Option<String>,
}

impl Outcome {
    pub fn ok(&self) -> &str {
        assert!(self.error.is_none() && self.code == 0, "{self:?}");
        self.stdout.trim_end()
    }
}

pub struct Sandbox {
    pub dir: tempfile::TempDir,
    pub parent: String,
}

impl Sandbox {
    /// `name` is the test's.
    pub fn new(name: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        let dir = tempfile::Builder::new()
            .prefix(&format!("fl-{name}-"))
            .tempdir()
            .expect("tempdir");
        let root = dir.path().join("rootfs");
        for directory in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
            fs::create_dir_all(root.join(directory)).expect("mkdir");
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        install(
            &root.join("bin/busybox"),
            &fs::read("/bin/busybox").expect("busybox-static"),
        );
        for applet in [
            "sh", "cat", "ls", "id", "true", "false", "sleep", "echo", "env", "pwd", "hostname",
            "mount", "touch", "mkdir", "readlink", "stat", "dd", "mknod", "grep", "wc", "head",
            "kill", "ps", "tail", "chmod", "ln", "umount", "tr",
        ] {
            symlink("/bin/busybox", root.join("bin").join(applet)).expect("symlink");
        }
        let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:101:102::/srv:/bin/sh\n";
        fs::write(root.join("etc/passwd"), passwd).expect("passwd");
        fs::write(
            root.join("etc/group"),
            "root:x:0:\nweb:x:102:\naudio:x:29:web\n",
        )
        .expect("group");
        Self {
            dir,
            parent: format!("/fltest-{name}-{}", std::process::id()),
        }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// A specification that runs this shell script.
    pub fn script(&self, script: &str) -> Spec {
        self.command(&["/bin/sh", "-c", script])
    }

    pub fn command(&self, args: &[&str]) -> Spec {
        let mut spec = defaults::default_spec();
        set_process(&mut spec, |p| {
            p.set_args(Some(args.iter().map(|a| (*a).to_string()).collect()));
        });
        spec
    }

    pub fn options(&self) -> CreateOptions {
        let mut options = CreateOptions::new(Rootfs::Directory(self.root()));
        options.cgroup = Some(container::CgroupPath::new(&self.parent, "task"));
        options
    }

    pub fn run(&self, spec: &Spec) -> Outcome {
        self.run_with(spec, self.options())
    }

    pub fn run_with(&self, spec: &Spec, options: CreateOptions) -> Outcome {
        in_process(|| run_here(spec, options))
    }

    /// Nothing of this sandbox may be left in the kernel.
    pub fn assert_clean(&self) {
        for hierarchy in container::cgroup::Layout::detect()
            .expect("layout")
            .hierarchies
        {
            let task = hierarchy
                .mountpoint
                .join(self.parent.trim_start_matches('/'))
                .join("task");
            assert!(!task.exists(), "{} is left", task.display());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let here = self.dir.path().to_str().expect("utf-8");
        assert!(!mounts.contains(here), "a mount is left: {mounts}");
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for name in ["task", container::cgroup::SHIMS] {
            if let Ok(cgroup) = container::Cgroup::open(&self.parent, name) {
                let _ = cgroup.kill();
            }
        }
        let _ = container::cgroup::remove_parent(&self.parent);
    }
}

pub fn mount(to: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    MountBuilder::default()
        .destination(to)
        .typ(kind)
        .source(source)
        .options(options.iter().map(|o| (*o).to_string()).collect::<Vec<_>>())
        .build()
        .expect("mount")
}

pub fn set_process(spec: &mut Spec, change: impl FnOnce(&mut Process)) {
    let mut process = spec.process().clone().expect("process");
    change(&mut process);
    spec.set_process(Some(process));
}

pub fn set_linux(spec: &mut Spec, change: impl FnOnce(&mut oci_spec::runtime::Linux)) {
    let mut linux = spec.linux().clone().expect("linux");
    change(&mut linux);
    spec.set_linux(Some(linux));
}

/// A new user namespace, whose root is an ordinary user here.
pub fn with_user_namespace(spec: &mut Spec) {
    set_linux(spec, |linux| {
        let user = LinuxNamespaceBuilder::default()
            .typ(LinuxNamespaceType::User)
            .build();
        let mut list = linux.namespaces().clone().expect("namespaces");
        list.push(user.expect("namespace"));
        let map = LinuxIdMappingBuilder::default()
            .container_id(0u32)
            .host_id(100_000u32)
            .size(65536u32)
            .build();
        let map = Some(vec![map.expect("map")]);
        linux
            .set_namespaces(Some(list))
            .set_uid_mappings(map.clone())
            .set_gid_mappings(map);
    });
}

pub fn set_resources(spec: &mut Spec, change: impl FnOnce(&mut oci_spec::runtime::LinuxResources)) {
    set_linux(spec, |linux| {
        let mut resources = linux.resources().clone().expect("resources");
        change(&mut resources);
        linux.set_resources(Some(resources));
    });
}

/// Creates, runs and removes a container in this process, which has one thread.
pub fn run_here(spec: &Spec, mut options: CreateOptions) -> Outcome {
    let (out_read, out_write) = nix::unistd::pipe().expect("pipe");
    let (err_read, err_write) = nix::unistd::pipe().expect("pipe");
    let stdin = File::open("/dev/null").expect("null");
    options.stdio = Some(Stdio {
        stdin: stdin.into(),
        stdout: out_write,
        stderr: err_write,
    });
    let started = match create(spec, options).and_then(container::Created::start) {
        Ok(started) => started,
        Err(error) => {
            return Outcome {
                code: error.exit_code(),
                error: Some(format!("{}: {error}", error.step())),
                ..Outcome::default()
            };
        }
    };
    let read = |fd: OwnedFd| {
        let mut text = Vec::new();
        File::from(fd).read_to_end(&mut text).expect("read");
        String::from_utf8_lossy(&text).into_owned()
    };
    let (stdout, stderr) = (read(out_read), read(err_read));
    let exit = process::wait_child(&started.pidfd).expect("wait");
    let mut oom_kills = 0;
    if let Some(cgroup) = started.cgroup {
        oom_kills = cgroup.oom_kills().expect("oom");
        cgroup.kill().expect("kill");
        cgroup.delete().expect("delete");
    }
    Outcome {
        code: exit.code(),
        signal: match exit {
            process::Exit::Signal(signal) => Some(signal),
            process::Exit::Code(_) => None,
        },
        stdout,
        stderr,
        warnings: started.warnings.iter().map(ToString::to_string).collect(),
        oom_kills,
        error: None,
    }
}

/// Runs `work` in a forked process, whose only thread is this one, and returns its result. Killed
/// after a minute.
pub fn in_process<T: Serialize + serde::de::DeserializeOwned>(work: impl FnOnce() -> T) -> T {
    let (read, write) = nix::unistd::pipe().expect("pipe");
    let guard = FORK
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    // SAFETY: the C library's fork leaves its allocator usable in the child, which calls nothing
    // that depends on other threads and ends with _exit.
    let fork = unsafe { nix::unistd::fork() };
    match fork.expect("fork") {
        nix::unistd::ForkResult::Child => {
            drop(read);
            // SAFETY: resets nothing that the closure relies on; a hang ends by the signal.
            unsafe { libc::alarm(60) };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let code = match result {
                Ok(result) => {
                    let bytes = serde_json::to_vec(&result).expect("json");
                    File::from(write).write_all(&bytes).map_or(1, |()| 0)
                }
                Err(_) => 101,
            };
            // SAFETY: ends the copy at once.
            unsafe { libc::_exit(code) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            drop(guard);
            drop(write);
            let mut bytes = Vec::new();
            File::from(read).read_to_end(&mut bytes).expect("read");
            nix::sys::wait::waitpid(child, None).expect("wait");
            serde_json::from_slice(&bytes).expect("the helper process failed, see above")
        }
    }
}

/// Writes an executable file. Not while another test forks: the copy would hold the file open
/// for writing, and it could not be executed.
pub fn install(path: &Path, content: &[u8]) {
    let _guard = FORK
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    fs::write(path, content).expect("write");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
}

static FORK: std::sync::Mutex<()> = std::sync::Mutex::new(());

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what}: not within 30 s");
}

pub fn exists(path: impl AsRef<Path>) -> bool {
    path.as_ref().symlink_metadata().is_ok()
}
