//! The least that a container costs: the system calls that make one, in one go. Everything that
//! can be known before is: no specification is read, nothing is looked up or checked, nothing is
//! written down, and whatever fails ends the process. File systems are mounted by mount(2), which
//! takes fewer calls than what this crate does by descriptor.

use crate::floor_cgroup::{Groups, View};
use crate::{Options, Outcome, Stopwatch, Way, specs};
use container::seccomp;
use std::ffi::{CStr, CString};
use std::path::Path;

const NAMESPACES: i32 = libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNET;

/// Names and numbers of the devices.
const NODES: [(&CStr, u32, u32); 6] = [
    (c"dev/null", 1, 3),
    (c"dev/zero", 1, 5),
    (c"dev/full", 1, 7),
    (c"dev/random", 1, 8),
    (c"dev/urandom", 1, 9),
    (c"dev/tty", 5, 0),
];

const LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"dev/fd"),
    (c"/proc/self/fd/0", c"dev/stdin"),
    (c"/proc/self/fd/1", c"dev/stdout"),
    (c"/proc/self/fd/2", c"dev/stderr"),
    (c"pts/ptmx", c"dev/ptmx"),
];

/// A system call. One that fails ends the process.
pub fn call<const N: usize>(number: libc::c_long, arguments: [usize; N]) -> usize {
    let mut all = [0; 6];
    for (place, argument) in all.iter_mut().zip(arguments) {
        *place = argument;
    }
    let [a, b, c, d, e, f] = all;
    // SAFETY: what is passed as a pointer in this program is one to something of the kind that the
    // call wants, which outlives it.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 {
        let error = std::io::Error::last_os_error();
        eprintln!("runtime_cost: the floor's call {number}: {error}");
        std::process::abort();
    }
    result as usize
}

/// A string as an argument.
pub fn at(text: &CStr) -> usize {
    text.as_ptr() as usize
}

/// `mount(2)`.
pub fn mount(source: usize, target: &CStr, kind: usize, flags: libc::c_ulong, data: usize) {
    call(
        libc::SYS_mount,
        [source, at(target), kind, flags as usize, data],
    );
}

/// A container's first process, up to the exec.
struct Inside {
    full: bool,
    rootfs: CString,
    view: View,
    masked_files: Vec<CString>,
    masked_directories: Vec<CString>,
    read_only: Vec<CString>,
    null: std::fs::File,
    /// The numbers of the capabilities that no program may gain.
    dropped: Vec<usize>,
    /// Header and sets for `capset(2)`.
    header: [u32; 2],
    capabilities: [u32; 6],
    /// Instructions of `struct sock_filter`.
    filter: Vec<u64>,
}

pub struct Floor {
    groups: Groups,
    inside: Inside,
}

impl Floor {
    pub fn new(name: &str, options: &Options) -> Outcome<Self> {
        let full = name == "full";
        let spec = specs::spec(name, &options.rootfs, "floor");
        let linux = spec.linux().as_ref().ok_or("no linux")?;
        let paths = |list: &Option<Vec<String>>, wanted: fn(&Path) -> bool| {
            let list = list.iter().flatten().filter(|path| wanted(Path::new(path)));
            list.map(|path| CString::new(path.trim_start_matches('/')))
                .collect::<Result<Vec<_>, _>>()
        };
        let held: Vec<u32> = if full {
            vec![0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31]
        } else {
            vec![5, 10, 29]
        };
        let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")?;
        let last: u32 = last.trim().parse()?;
        let bits = held.iter().fold(0, |bits, number| bits | 1u32 << number);
        let filter = match linux.seccomp() {
            Some(profile) => instructions(&seccomp::compile(profile)?.to_bytes()),
            None => Vec::new(),
        };
        let groups = Groups::new(&format!("floor-{name}"), full)?;
        Ok(Self {
            inside: Inside {
                full,
                rootfs: CString::new(options.rootfs.as_os_str().as_encoded_bytes())?,
                view: groups.view()?,
                masked_files: paths(linux.masked_paths(), |path| path.exists() && !path.is_dir())?,
                masked_directories: paths(linux.masked_paths(), Path::is_dir)?,
                read_only: paths(linux.readonly_paths(), Path::exists)?,
                null: std::fs::File::options()
                    .read(true)
                    .write(true)
                    .open("/dev/null")?,
                dropped: (0..=last)
                    .filter(|number| !held.contains(number))
                    .map(|number| number as usize)
                    .collect(),
                header: [0x2008_0522, 0],
                capabilities: [bits, bits, 0, 0, 0, 0],
                filter,
            },
            groups,
        })
    }
}

/// The instructions in what `Filter::to_bytes` writes: behind a header of 60 bytes, whose number at
/// 48 tells how many.
fn instructions(bytes: &[u8]) -> Vec<u64> {
    let count = bytes.get(48..52).map_or(0, |number| {
        u32::from_le_bytes(number.try_into().unwrap_or_default())
    });
    let body = bytes.get(60..).unwrap_or_default().chunks_exact(8);
    body.take(count as usize)
        .map(|one| u64::from_le_bytes(one.try_into().unwrap_or_default()))
        .collect()
}

impl Way for Floor {
    fn once(&mut self) -> Outcome<Vec<(&'static str, f64)>> {
        let watch = Stopwatch::start()?;
        let birthplace = self.groups.make();
        let mut pipe = [0i32; 2];
        call(
            libc::SYS_pipe2,
            [(&raw mut pipe) as usize, libc::O_CLOEXEC as usize],
        );
        let [read, write] = pipe.map(|fd| fd as usize);
        let mut pidfd = -1i32;
        // `struct clone_args`.
        let mut clone = [0u64; 11];
        clone[0] = (NAMESPACES | libc::CLONE_PIDFD) as u64;
        clone[1] = (&raw mut pidfd) as u64;
        clone[4] = libc::SIGCHLD as u64;
        if let Some(cgroup) = birthplace {
            clone[0] |= 0x2_0000_0000; // CLONE_INTO_CGROUP
            clone[10] = cgroup as u64;
        }
        let child = call(
            libc::SYS_clone3,
            [(&raw mut clone) as usize, size_of_val(&clone)],
        );
        if child == 0 {
            self.inside.run(read);
        }
        self.groups.attach(child);
        call(libc::SYS_write, [write, at(c"a"), 1]);
        // `siginfo_t`, whose status is behind three numbers, two ids and padding.
        let mut info = [0i32; 32];
        call(
            libc::SYS_waitid,
            [
                libc::P_PIDFD as usize,
                pidfd as usize,
                (&raw mut info) as usize,
                libc::WEXITED as usize,
                0,
            ],
        );
        for fd in [read, write, pidfd as usize] {
            call(libc::SYS_close, [fd]);
        }
        self.groups.remove(birthplace);
        let took = watch.read()?;
        match (info[2], info[6]) {
            (libc::CLD_EXITED, 0) => Ok(took),
            (code, status) => Err(format!("the floor's program: {code}, {status}").into()),
        }
    }
}

impl Inside {
    /// Becomes the program.
    fn run(&self, go: usize) -> ! {
        call(
            libc::SYS_prctl,
            [libc::PR_SET_DUMPABLE as usize, 0, 0, 0, 0],
        );
        let mut word = 0u8;
        call(libc::SYS_read, [go, (&raw mut word) as usize, 1]);
        call(libc::SYS_umask, [0]);
        call(libc::SYS_setsid, []);
        call(libc::SYS_keyctl, [1, 0]);
        call(libc::SYS_unshare, [libc::CLONE_NEWCGROUP as usize]);
        self.mount_all();
        self.populate_dev();
        self.cover();
        call(libc::SYS_sethostname, [at(c"bench"), 5]);
        call(libc::SYS_pivot_root, [at(c"."), at(c".")]);
        call(libc::SYS_umount2, [at(c"."), libc::MNT_DETACH as usize]);
        call(libc::SYS_chdir, [at(c"/")]);
        if !self.full {
            let read_only = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
            mount(0, c"/", 0, read_only, 0);
            let limit = [1024u64; 2];
            let files = libc::RLIMIT_NOFILE as usize;
            call(libc::SYS_setrlimit, [files, limit.as_ptr() as usize]);
        }
        self.become_program()
    }

    fn mount_all(&self) {
        use libc::{MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_REC, MS_SLAVE};
        let none = MS_NOSUID | MS_NOEXEC | MS_NODEV;
        mount(0, c"/", 0, MS_REC | MS_SLAVE, 0);
        mount(at(&self.rootfs), &self.rootfs, 0, MS_BIND | MS_REC, 0);
        mount(0, &self.rootfs, 0, MS_PRIVATE | MS_REC, 0);
        call(libc::SYS_chdir, [at(&self.rootfs)]);
        let new = |kind: &CStr, target: &CStr, flags, data: &CStr| {
            mount(at(kind), target, at(kind), flags, at(data));
        };
        let dev = c"mode=755,size=65536k";
        let terminals = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
        new(c"proc", c"proc", none, c"");
        new(c"tmpfs", c"dev", MS_NOSUID | libc::MS_STRICTATIME, dev);
        for name in [c"dev/pts", c"dev/mqueue", c"dev/shm"] {
            call(libc::SYS_mkdir, [at(name), 0o755]);
        }
        new(c"devpts", c"dev/pts", MS_NOSUID | MS_NOEXEC, terminals);
        new(c"sysfs", c"sys", none | libc::MS_RDONLY, c"");
        self.view.mount(none);
        new(c"mqueue", c"dev/mqueue", none, c"");
        new(c"tmpfs", c"dev/shm", none, c"mode=1777,size=65536k");
    }

    fn populate_dev(&self) {
        for (name, major, minor) in NODES {
            let mode = (libc::S_IFCHR | 0o666) as usize;
            let number = libc::makedev(major, minor) as usize;
            call(libc::SYS_mknod, [at(name), mode, number]);
        }
        for (target, name) in LINKS {
            call(libc::SYS_symlink, [at(target), at(name)]);
        }
    }

    /// Masked and read-only paths.
    fn cover(&self) {
        let read_only = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
        for path in &self.read_only {
            mount(at(path), path, 0, libc::MS_BIND | libc::MS_REC, 0);
            mount(0, path, 0, read_only, 0);
        }
        for path in &self.masked_files {
            mount(at(c"/dev/null"), path, 0, libc::MS_BIND, 0);
        }
        let mut first: Option<&CString> = None;
        for path in &self.masked_directories {
            match first {
                Some(first) => mount(at(first), path, 0, libc::MS_BIND, 0),
                None => {
                    let (kind, data) = (at(c"tmpfs"), at(c"mode=755,nr_inodes=2"));
                    mount(kind, path, kind, libc::MS_RDONLY, data);
                    first = Some(path);
                }
            }
        }
    }

    /// Descriptors, capabilities, filter, exec.
    fn become_program(&self) -> ! {
        use std::os::fd::AsRawFd;
        for number in 0..3 {
            call(libc::SYS_dup2, [self.null.as_raw_fd() as usize, number]);
        }
        for capability in &self.dropped {
            call(
                libc::SYS_prctl,
                [libc::PR_CAPBSET_DROP as usize, *capability, 0, 0, 0],
            );
        }
        call(libc::SYS_setgroups, [0, 0]);
        call(libc::SYS_setresgid, [0, 0, 0]);
        call(libc::SYS_setresuid, [0, 0, 0]);
        let (header, sets) = (&raw const self.header, &raw const self.capabilities);
        call(libc::SYS_capset, [header as usize, sets as usize]);
        call(
            libc::SYS_prctl,
            [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0],
        );
        call(libc::SYS_close_range, [3, u32::MAX as usize, 4]);
        if self.full {
            // `struct sock_fprog`.
            let program = [self.filter.len(), self.filter.as_ptr() as usize];
            call(libc::SYS_seccomp, [1, 0, program.as_ptr() as usize]);
        }
        let argv = [at(c"/bin/true"), 0];
        let envp = [at(c"PATH=/usr/sbin:/usr/bin:/sbin:/bin"), 0];
        let (argv, envp) = (argv.as_ptr() as usize, envp.as_ptr() as usize);
        call(libc::SYS_execve, [at(c"/bin/true"), argv, envp]);
        std::process::abort()
    }
}
