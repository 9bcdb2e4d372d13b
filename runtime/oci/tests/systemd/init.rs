//! A systemd for one test, as init of a PID namespace with a cgroup namespace of its own. Whatever
//! becomes of the test, all that ran there ends with it.

use crate::common::{Bundle, RUNTIME, Said, until};
use container::Cgroup;
use container::cgroup::Layout;
use oci_spec::runtime::LinuxResources;
use serde_json::json;
use std::fs;
use std::io::Write;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

const SYSTEMD: &str = "/lib/systemd/systemd";

/// How long a command may take, in seconds: the machine may be an emulated one.
const PATIENCE: &str = "120";

/// Waits until it is in its cgroup, which becomes the root of the namespace.
const WAIT: &str = "read -r go && exec unshare --cgroup --mount --propagation=slave sh -c \"$1\"";

/// Units of the machine must not start here: the directory has only what systemd cannot be without.
const BEGIN: &str = r#"
set -e
mount -t tmpfs run /run
mount -t proc proc /proc
mkdir -p /run/lock /run/units /run/none
names=$(cd /sys/fs/cgroup && ls)
unified=$(cd /sys/fs/cgroup && echo cgroup.controllers*)
# In between: the kernel mounts no file system on itself.
mount -t tmpfs -o mode=755 cgroups /sys/fs/cgroup
if [ "$unified" = cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
    for name in $names; do
        mkdir "/sys/fs/cgroup/$name"
        case $name in
            unified) mount -t cgroup2 cgroup2 "/sys/fs/cgroup/$name" ;;
            systemd) mount -t cgroup -o none,name=systemd cgroup "/sys/fs/cgroup/$name" ;;
            *) mount -t cgroup -o "$name" cgroup "/sys/fs/cgroup/$name" ;;
        esac
    done
fi
for target in default sysinit basic sockets shutdown umount final; do
    printf '[Unit]\nDescription=Nothing\nDefaultDependencies=no\n' >"/run/units/$target.target"
done
exec env -i PATH="$PATH" container=fltest \
    SYSTEMD_UNIT_PATH=/run/systemd/system.control:/run/systemd/transient:/run/units \
    SYSTEMD_GENERATOR_PATH=/run/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/none \
    /lib/systemd/systemd --system --show-status=no --log-target=console --log-level=notice
"#;

pub struct Init {
    child: Child,
    /// The first process of the namespace, as this process sees it.
    pid: u32,
    name: String,
}

impl Init {
    /// `name` is the test's. `None` where systemd is not installed, which is told; on a machine
    /// that is there for testing, it is an error.
    pub fn new(name: &str) -> Option<Self> {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        for program in [SYSTEMD, "/usr/bin/systemd-run", "/usr/bin/dbus-daemon"] {
            if !Path::new(program).exists() {
                let ci = std::env::var("CI").as_deref() == Ok("true");
                assert!(!ci, "{program} is missing: run scripts/setup --test");
                eprintln!("skipped: {program} is missing: run scripts/setup --test");
                return None;
            }
        }
        // Tests of one name run side by side.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("fltest-{name}-{}-{number}", std::process::id());
        let none = LinuxResources::default();
        let root = Cgroup::create(&format!("/{name}"), "root", &none).expect("cgroup");
        let mut unshare = Command::new("unshare");
        // SAFETY: only a system call, between fork and exec.
        unsafe {
            use std::os::unix::process::CommandExt;
            unshare.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = unshare
            .args(["--pid", "--mount", "--ipc", "--uts", "--fork"])
            .args(["--kill-child", "--propagation=slave"])
            .args(["sh", "-c", WAIT, "sh", BEGIN])
            .stdin(Stdio::piped())
            .spawn()
            .expect("unshare");
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let first = || fs::read_to_string(&children).expect("children");
        until("the first process", || !first().trim().is_empty());
        let init = Self {
            pid: first().trim().parse().expect("one child"),
            name,
            child: {
                root.attach(first().trim().parse().expect("pid"))
                    .expect("attach");
                let mut stdin = child.stdin.take().expect("stdin");
                stdin.write_all(b"go\n").expect("write");
                child
            },
        };
        // Before that the namespace has not its own mounts, but perhaps the machine's systemd.
        let name = || fs::read_to_string(format!("/proc/{}/comm", init.pid));
        until("the start of systemd", || {
            let systemd = name().is_ok_and(|name| name == "systemd\n");
            systemd && init.inside("/run/systemd/private").exists()
        });
        let since = Instant::now();
        loop {
            let said = init.run(&["systemctl", "is-system-running"]);
            if said.stdout.trim() == "running" {
                return Some(init);
            }
            assert!(since.elapsed().as_secs() < 60, "systemd: {said:?}");
            sleep(Duration::from_millis(50));
        }
    }

    /// A command with this systemd.
    pub fn command(&self, words: &[&str]) -> Command {
        // Into a cgroup beside those of systemd's first, by the names that this process knows: who enters the namespace
        // from outside of its root cannot be moved by those inside (version 2).
        let enter = r#"enter() {
                # systemd sweeps away what is empty below its root (version 1), at any time.
                for try in 1 2 3 4 5; do
                    mkdir -p "${1%/*}"
                    for file in cpuset.cpus cpuset.mems; do
                        # Without these a cpuset takes no process (version 1).
                        cat "${1%/*/*}/$file" >"${1%/*}/$file"
                    done 2>/dev/null
                    { echo 0 >"$1"; } 2>/dev/null && return
                    sleep 0.2
                done
                echo "no way into $1" >&2
                return 1
            }
            while [ "$1" != -- ]; do
                [ ! -d "${1%/commands/*}" ] || enter "$1" || exit 99
                shift
            done
            shift
            exec "$@""#;
        let mut command = Command::new("sh");
        command.args(["-c", enter, "sh"]);
        for hierarchy in Layout::detect().expect("layout").hierarchies {
            let below = format!("{}/root/commands/cgroup.procs", self.name);
            command.arg(hierarchy.mountpoint.join(below));
        }
        command
            .args(["--", "nsenter", "--pid", "--mount", "--ipc", "--uts"])
            .args(["--cgroup", "--target", &self.pid.to_string()])
            .args(["timeout", "--kill-after=5", PATIENCE])
            .args(words)
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, words: &[&str]) -> Said {
        self.command(words).output().expect("nsenter").into()
    }

    /// A property of a unit, as systemd knows it.
    pub fn property(&self, unit: &str, name: &str) -> String {
        let shown = self.run(&["systemctl", "show", "--value", "-p", name, unit]);
        shown.ok().to_string()
    }

    /// Whether systemd knows the unit at all.
    pub fn knows(&self, unit: &str) -> bool {
        let units = self.run(&["systemctl", "list-units", "--all", "--no-legend", "--plain"]);
        let mut lines = units.ok().lines();
        lines.any(|line| line.split_whitespace().next() == Some(unit))
    }

    /// A file as the namespace sees it.
    pub fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    /// The directories of a cgroup, by its path from systemd's root.
    pub fn cgroups(&self, path: &str) -> Vec<PathBuf> {
        let hierarchies = Layout::detect().expect("layout").hierarchies.into_iter();
        let path = format!("{}/root/{}", self.name, path.trim_start_matches('/'));
        let all = hierarchies.map(|h| h.mountpoint.join(&path));
        all.filter(|path| path.exists()).collect()
    }

    /// The file of a cgroup, in whatever hierarchy it is.
    #[track_caller]
    pub fn limit(&self, path: &str, v1: &str, v2: &str) -> String {
        let cgroups = self.cgroups(path);
        let mut files = cgroups.iter().flat_map(|dir| [dir.join(v1), dir.join(v2)]);
        let file = files.find(|file| file.exists());
        let file = file.unwrap_or_else(|| panic!("neither {v1} nor {v2} in {cgroups:?}"));
        fs::read_to_string(file).expect("read").trim().to_string()
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        let _ = self.child.kill(); // and with it systemd, and with that all others
        let _ = self.child.wait();
        if let Ok(cgroup) = Cgroup::open(&format!("/{}", self.name), "root") {
            let _ = cgroup.kill();
            let _ = cgroup.delete();
        }
        for hierarchy in Layout::detect().expect("layout").hierarchies {
            let _ = fs::remove_dir(hierarchy.mountpoint.join(&self.name));
        }
    }
}

/// Whether a test is left out because this machine's processor is emulated: it shows nothing of
/// this kernel and its cgroups that others do not.
pub fn left_out() -> bool {
    let slow = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("QEMU"));
    if slow {
        eprintln!("skipped: too slow on an emulated processor");
    }
    slow
}

/// A bundle, and a systemd to run it with.
pub struct Machine {
    pub bundle: Bundle,
    pub init: Init,
}

impl Deref for Machine {
    type Target = Init;

    fn deref(&self) -> &Init {
        &self.init
    }
}

impl Machine {
    pub fn new(name: &str) -> Option<Self> {
        let init = Init::new(name)?;
        let bundle = Bundle::new(name);
        let path = format!("fl-test.slice:fl:{name}");
        bundle.change(json!({ "linux": { "cgroupsPath": path } }));
        bundle.script("sleep 1000");
        Some(Self { bundle, init })
    }

    fn line<'a>(&'a self, state: &'a str, args: &[&'a str]) -> Vec<&'a str> {
        [&[RUNTIME, "--systemd-cgroup", "--root", state], args].concat()
    }

    /// A command of the runtime.
    pub fn oci(&self, args: &[&str]) -> Said {
        let state = self.bundle.state();
        self.run(&self.line(state.to_str().expect("utf-8"), args))
    }

    /// `create` with the bundle. The container keeps the output open: it goes to a file.
    pub fn create(&self, id: &str) -> Said {
        let state = self.bundle.state();
        let words = ["create", "--bundle", self.bundle.path(), id];
        let mut command = self.command(&self.line(state.to_str().expect("utf-8"), &words));
        let err = self.bundle.dir.path().join("err");
        let file = || fs::File::create(&err).expect("file");
        let status = command.stdout(file()).stderr(file()).status();
        Said {
            code: status.expect("runtime").code().unwrap_or(-1),
            stdout: String::new(),
            stderr: fs::read_to_string(&err).expect("err"),
        }
    }

    /// Creates and starts it.
    #[track_caller]
    pub fn start(&self, id: &str) {
        self.create(id).ok();
        self.oci(&["start", id]).ok();
    }

    /// Nothing of the unit may be left, in systemd, in the cgroups or in the runtime's state.
    #[track_caller]
    pub fn assert_gone(&self, unit: &str, cgroup: &str) {
        assert!(!self.knows(unit), "{unit} is left");
        let left = self.cgroups(cgroup);
        assert!(left.is_empty(), "{left:?} are left");
        assert_eq!(self.oci(&["list", "-q"]).ok(), "");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The bundle would look for these containers among the processes out here.
        let _ = fs::remove_dir_all(self.bundle.state());
    }
}
