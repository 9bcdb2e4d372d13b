//! A place for one client: namespaces, directories and a cgroup of the test's own. Whatever
//! becomes of the test, all that ran there ends with the place.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The runtime under test.
pub const RUNTIME: &str = env!("CARGO_BIN_EXE_fairlead-oci");

/// How long one command of a client may take, in seconds: the machine may be an emulated one.
const PATIENCE: &str = "120";
/// Which terminal it is, and that it gets the size of ours: that comes some time after the start.
pub const RESIZED: &str =
    "tty; until [ \"$(stty size 2>/dev/null)\" = \"33 77\" ]; do usleep 50000; done; stty size";

/// What the place begins with: everything that clients keep outside of the directories that they
/// are told is on a file system that only the place sees. The shell stays and reaps orphans.
///
/// Mounts are shared, as on a machine of systemd's.
const BEGIN: &str = "mount --make-rshared / \
    && mount -t tmpfs run /run && mount -t tmpfs shm /dev/shm \
    && mkdir -p /run/lock /var/lib/containers && mount -t tmpfs cache /var/lib/containers \
    && echo ready && while :; do sleep 1000 & wait $!; done";

pub struct Place {
    pub dir: tempfile::TempDir,
    /// The parent of all cgroups that the client makes.
    pub cgroup: String,
    init: Child,
    /// The first process of the place.
    pid: u32,
    mounts: BTreeSet<String>,
    /// Processes that belong to the place, by name.
    residents: BTreeSet<String>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// What it said, when it went well.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        self.out.trim_end()
    }

    /// It failed like this.
    #[track_caller]
    pub fn failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in {self:?}");
        }
    }
}

impl Place {
    /// `name` is the test's. `None` where one of the programs is missing, which is told; on a
    /// machine that is there for testing, it is an error.
    pub fn new(name: &str, programs: &[&str]) -> Option<Self> {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        if let Some(missing) = programs.iter().find(|program| !has(program)) {
            let ci = std::env::var("CI").as_deref() == Ok("true");
            assert!(!ci, "{missing} is missing: run scripts/setup --test");
            eprintln!("skipped: {missing} is missing: run scripts/setup --test");
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix(&format!("fl-{name}-"))
            .tempdir()
            .expect("tempdir");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let mut init = Command::new("unshare")
            .args(["--pid", "--mount", "--net", "--ipc", "--fork"])
            .args(["--kill-child", "--propagation=slave", "--mount-proc"])
            .args(["sh", "-c", BEGIN])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut line = String::new();
        let out = init.stdout.as_mut().expect("stdout");
        BufReader::new(out).read_line(&mut line).expect("read");
        let mut place = Self {
            pid: 0,
            cgroup: format!("/fltest-{name}-{}", std::process::id()),
            dir,
            init,
            mounts: BTreeSet::new(),
            residents: ["sh", "sleep"].map(String::from).into(),
        };
        assert_eq!(line, "ready\n", "the place cannot be made");
        let children = format!("/proc/{0}/task/{0}/children", place.init.id());
        let children = fs::read_to_string(children).expect("children");
        place.pid = children.trim().parse().expect("one child");
        place.mounts = place.mounts();
        Some(place)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// As [`Place::path`], for arguments.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("utf-8").to_string()
    }

    /// A command in the place.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--pid", "--mount", "--net", "--ipc", "--target"])
            .arg(self.pid.to_string())
            .args(["timeout", "--kill-after=5", PATIENCE])
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("TERM", "linux")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, words: &[&str]) -> Ended {
        ended(&mut self.command(words))
    }

    /// With this on stdin.
    pub fn run_with(&self, words: &[&str], input: &str) -> Ended {
        let file = self.path("stdin");
        fs::write(&file, input).expect("write");
        ended(
            self.command(words)
                .stdin(fs::File::open(file).expect("open")),
        )
    }

    /// On a terminal (script(1)), where stdout and stderr are one.
    pub fn run_on_terminal(&self, words: &[&str]) -> Ended {
        let quoted: Vec<_> = words
            .iter()
            .map(|word| format!("'{}'", word.replace('\'', r"'\''")))
            .collect();
        let command = format!("stty rows 33 cols 77; {}", quoted.join(" "));
        let mut command = self.command(&["script", "-qec", &command, "/dev/null"]);
        // At the end of its stdin script would type the end of a file.
        let (_open, nothing) = std::os::unix::net::UnixStream::pair().expect("pair");
        let mut ended = ended(command.stdin(OwnedFd::from(nothing)));
        ended.out = ended.out.replace('\r', "");
        ended
    }

    /// Ends a command that was started in the place.
    pub fn end(&self, mut child: Child) {
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let children = fs::read_to_string(children).expect("children");
        for pid in children.split_whitespace() {
            let pid = nix::unistd::Pid::from_raw(pid.parse().expect("a number"));
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        let _ = child.wait();
    }

    /// A daemon that stays until the place ends, with these processes of its own; ready when
    /// `socket` takes connections.
    pub fn start(&mut self, words: &[&str], socket: &str, processes: &[&str]) {
        let log = fs::File::create(self.path("daemon.log")).expect("log");
        let mut command = Command::new("nsenter");
        command
            .args(["--pid", "--mount", "--net", "--ipc", "--target"])
            .arg(self.pid.to_string())
            .args(words)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("dup"))
            .stderr(log);
        // The place's end is its end too.
        let mut daemon = command.spawn().expect("daemon");
        let socket = self.path(socket);
        until("the daemon", || {
            let status = daemon.try_wait().expect("wait");
            assert!(status.is_none(), "{status:?}: {}", self.log());
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        self.residents
            .extend(processes.iter().map(ToString::to_string));
    }

    /// What the daemon said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// A file as the place sees it.
    pub fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    /// A root file system of busybox in this directory of the place.
    pub fn rootfs(&self, name: &str) -> String {
        let root = self.path(name);
        for directory in ["bin", "etc", "tmp", "proc", "sys", "dev", "run", "root"] {
            fs::create_dir_all(root.join(directory)).expect("mkdir");
        }
        let busybox = fs::read("/bin/busybox").expect("busybox-static");
        fs::write(root.join("bin/busybox"), busybox).expect("write");
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(root.join("bin/busybox"), executable).expect("chmod");
        for applet in [
            "sh", "cat", "ls", "id", "true", "false", "sleep", "echo", "env", "pwd", "hostname",
            "mount", "touch", "mkdir", "stat", "dd", "mknod", "grep", "wc", "head", "kill", "ps",
            "tail", "chmod", "chown", "ln", "umount", "tr", "tty", "stty", "unshare", "readlink",
            "df", "seq", "usleep",
        ] {
            symlink("busybox", root.join("bin").join(applet)).expect("symlink");
        }
        let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:101:102::/:/bin/sh\n";
        fs::write(root.join("etc/passwd"), passwd).expect("passwd");
        fs::write(root.join("etc/group"), "root:x:0:\nweb:x:102:\n").expect("group");
        root.to_str().expect("utf-8").to_string()
    }

    /// A file of the cgroup whose path below the parent ends in `name`: of version 2 when there is
    /// no such controller.
    #[track_caller]
    pub fn limit(&self, name: &str, v1: (&str, &str), v2: &str) -> String {
        let (file, base) = if unified() {
            (v2, PathBuf::from("/sys/fs/cgroup"))
        } else {
            (v1.1, Path::new("/sys/fs/cgroup").join(v1.0))
        };
        let mut cgroups = Vec::new();
        below(
            &base.join(self.cgroup.trim_start_matches('/')),
            &mut cgroups,
        );
        let cgroup = cgroups
            .iter()
            .find(|path| path.to_string_lossy().ends_with(name))
            .unwrap_or_else(|| panic!("no cgroup {name} in {cgroups:?}"));
        let content = fs::read_to_string(cgroup.join(file));
        content.expect(file).trim().to_string()
    }

    /// Nothing of any container may be left: no process, no mount, no cgroup but those of the
    /// client's own with these names, nothing in the directories where the runtime keeps state.
    #[track_caller]
    pub fn assert_clean(&self, states: &[&str], cgroups: &[&str]) {
        let own: Vec<_> = cgroups.iter().map(|name| format!("/{name}")).collect();
        let left = || {
            let mut left: Vec<String> = self.processes();
            left.retain(|name| !self.residents.contains(name));
            let mounts = self.mounts();
            left.extend(mounts.difference(&self.mounts).cloned());
            let cgroups = self.cgroups();
            let cgroups = cgroups.iter().map(|path| path.display().to_string());
            left.extend(cgroups.filter(|path| !own.iter().any(|name| path.ends_with(name))));
            for root in states {
                let entries = fs::read_dir(self.inside(root)).into_iter().flatten();
                let names = entries.flatten().map(|entry| entry.file_name());
                let names = names.map(|name| format!("{root}/{}", name.to_string_lossy()));
                left.extend(names.filter(|name| !name.ends_with("/.seccomp")));
            }
            left
        };
        let since = Instant::now();
        while !left().is_empty() {
            // A client that was told of the end may still be cleaning up.
            assert!(since.elapsed().as_secs() < 20, "left: {:#?}", left());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The names of the processes of the place.
    fn processes(&self) -> Vec<String> {
        let names = fs::read_dir(self.inside("/proc")).expect("proc").flatten();
        let pids = names.filter_map(|e| e.file_name().into_string().ok());
        let pids = pids.filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
        let names = pids.filter_map(|pid| {
            let comm = fs::read_to_string(self.inside(&format!("/proc/{pid}/comm"))).ok()?;
            Some(comm.trim().to_string())
        });
        names.collect()
    }

    fn mounts(&self) -> BTreeSet<String> {
        let text = fs::read_to_string(format!("/proc/{}/mountinfo", self.pid));
        let text = text.expect("mountinfo");
        let place = |line: &str| line.split(' ').nth(4).map(|path| format!("mount {path}"));
        text.lines().filter_map(place).collect()
    }

    /// All cgroups below the parent, the deepest first.
    fn cgroups(&self) -> Vec<PathBuf> {
        let name = self.cgroup.trim_start_matches('/');
        let mut found = Vec::new();
        for parent in hierarchies().iter().map(|mount| mount.join(name)) {
            below(&parent, &mut found);
            found.retain(|path| *path != parent);
        }
        found
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().filter(|l| !l.contains("level=info")).collect();
            eprintln!(
                "the daemon: {:#?}",
                lines.iter().rev().take(20).collect::<Vec<_>>()
            );
        }
        let parents = hierarchies();
        let parents = parents
            .iter()
            .map(|mount| mount.join(self.cgroup.trim_start_matches('/')));
        let mut cgroups = self.cgroups();
        cgroups.extend(parents);
        for cgroup in &cgroups {
            // What is frozen cannot be killed (version 1).
            let _ = fs::write(cgroup.join("freezer.state"), "THAWED");
            let _ = fs::write(cgroup.join("cgroup.freeze"), "0");
        }
        let _ = self.init.kill();
        let _ = self.init.wait();
        for _ in 0..100 {
            cgroups.retain(|path| path.is_dir() && fs::remove_dir(path).is_err());
            if cgroups.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn ended(command: &mut Command) -> Ended {
    let output = command.output().expect("nsenter");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Where cgroups are mounted.
fn hierarchies() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let cgroups = text.lines().filter(|line| line.contains(" - cgroup"));
    let places = cgroups.filter_map(|line| line.split(' ').nth(4));
    places.map(PathBuf::from).collect()
}

/// A cgroup and all below it, the deepest first.
fn below(cgroup: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(cgroup) else {
        return;
    };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        below(&entry.path(), found);
    }
    found.push(cgroup.to_path_buf());
}

#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed().as_secs() < 60, "{what}: not within 60 s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether this machine's processor is emulated: what is repeated is repeated less.
pub fn emulated() -> bool {
    fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("QEMU"))
}

/// Whether a test is left out on such a machine, where a client takes seconds for a command: it
/// shows nothing of this kernel and its cgroups that others do not.
pub fn left_out() -> bool {
    let slow = emulated();
    if slow {
        eprintln!("skipped: too slow on an emulated processor");
    }
    slow
}

/// Writes a file of the place.
pub fn write(path: &Path, text: &str) {
    let mut file = fs::File::create(path).expect("create");
    file.write_all(text.as_bytes()).expect("write");
}

/// Whether this machine has cgroups of version 2 alone.
pub fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Whether every hierarchy of cgroups is mounted; where not, containerd finds none of them
/// (version 1).
pub fn all_mounted() -> bool {
    let mounted = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let own = fs::read_to_string("/proc/self/cgroup").expect("cgroup");
    let lists = own.lines().filter_map(|line| line.split(':').nth(1));
    let mut names = lists.flat_map(|list| list.split(',').filter(|name| !name.is_empty()));
    let all = names.all(|name| {
        let options = mounted
            .lines()
            .filter_map(|line| line.split(" - cgroup ").nth(1));
        options
            .flat_map(|options| options.split([' ', ',']))
            .any(|option| option == name)
    });
    if !all {
        eprintln!("skipped: a hierarchy of cgroups is not mounted: {own}");
    }
    all
}
