//! The floor's part in cgroups: directories, limits, the filter of devices, and what the container
//! sees of them.

use crate::floor::{at, call, mount};
use crate::{Outcome, specs};
use container::cgroup::{Layout, Version};
use std::ffi::CString;
use std::path::Path;

/// `O_WRONLY`, `O_RDONLY` of a directory, as `openat` takes them.
const WRITE: usize = (libc::O_WRONLY | libc::O_CLOEXEC) as usize;
const DIRECTORY: usize = (libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC) as usize;

/// What each container may do with devices: type, numbers, access.
const DEVICES: [(u8, Option<u32>, Option<u32>, &str); 11] = [
    (b'c', None, None, "m"),
    (b'b', None, None, "m"),
    (b'c', Some(1), Some(3), "rwm"),
    (b'c', Some(1), Some(5), "rwm"),
    (b'c', Some(1), Some(7), "rwm"),
    (b'c', Some(1), Some(8), "rwm"),
    (b'c', Some(1), Some(9), "rwm"),
    (b'c', Some(5), Some(0), "rwm"),
    (b'c', Some(5), Some(1), "rwm"),
    (b'c', Some(5), Some(2), "rwm"),
    (b'c', Some(136), None, "rwm"),
];

/// One cgroup in all hierarchies.
pub struct Groups {
    directories: Vec<CString>,
    /// Files and what is written to them, in this order.
    writes: Vec<(CString, String)>,
    /// Where the process is put in version 1.
    procs: Vec<CString>,
    /// The one of version 2 and the program that filters its devices.
    v2: Option<CString>,
    program: Vec<u64>,
    layout: Layout,
}

/// What the container sees.
pub struct View {
    /// Version 2 alone has none of these.
    v1: Vec<Seen>,
}

/// One hierarchy inside.
struct Seen {
    directory: CString,
    place: CString,
    /// Target and name.
    links: Vec<(CString, CString)>,
}

fn text(path: impl AsRef<Path>) -> Outcome<CString> {
    Ok(CString::new(path.as_ref().as_os_str().as_encoded_bytes())?)
}

impl Groups {
    /// Made once: the parents, and what is known before.
    pub fn new(name: &str, full: bool) -> Outcome<Self> {
        let layout = Layout::detect()?;
        let mut groups = Self {
            directories: Vec::new(),
            writes: Vec::new(),
            procs: Vec::new(),
            v2: None,
            program: device_program(),
            layout: layout.clone(),
        };
        let parent_name = specs::CGROUP_PARENT.trim_start_matches('/');
        for hierarchy in &layout.hierarchies {
            let parent = hierarchy.mountpoint.join(parent_name);
            let own = parent.join(name);
            // The library makes the parent as it should be.
            container::cgroup::Cgroup::create_at(
                &container::CgroupPath::new(specs::CGROUP_PARENT, format!("{name}-first")),
                &container::defaults::resources(),
                container::cgroup::Existing::UseEmpty,
            )?
            .delete()?;
            groups.directories.push(text(&own)?);
            let has = |controller: &str| hierarchy.controllers.iter().any(|c| c == controller);
            let mut write = |file: &str, value: String| -> Outcome<()> {
                groups.writes.push((text(own.join(file))?, value));
                Ok(())
            };
            if hierarchy.version == Version::V2 {
                let limits = [
                    ("memory", "memory.max", specs::MEMORY.to_string()),
                    (
                        "cpu",
                        "cpu.max",
                        format!("{} {}", specs::QUOTA, specs::PERIOD),
                    ),
                    ("pids", "pids.max", specs::PIDS.to_string()),
                ];
                for (controller, file, value) in limits {
                    if full && has(controller) {
                        write(file, value)?;
                    }
                }
                groups.v2 = Some(text(&own)?);
                continue;
            }
            if has("cpuset") {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    write(file, std::fs::read_to_string(parent.join(file))?)?;
                }
            }
            if has("devices") {
                write("devices.deny", "a".into())?;
                for (kind, major, minor, access) in DEVICES {
                    let number = |n: Option<u32>| n.map_or("*".into(), |n| n.to_string());
                    let kind = char::from(kind);
                    let line = format!("{kind} {}:{} {access}", number(major), number(minor));
                    write("devices.allow", line)?;
                }
            }
            let limits = [
                ("memory", "memory.limit_in_bytes", specs::MEMORY.to_string()),
                ("cpu", "cpu.cfs_period_us", specs::PERIOD.to_string()),
                ("cpu", "cpu.cfs_quota_us", specs::QUOTA.to_string()),
                ("pids", "pids.max", specs::PIDS.to_string()),
            ];
            for (controller, file, value) in limits {
                if full && has(controller) {
                    write(file, value)?;
                }
            }
            groups.procs.push(text(own.join("cgroup.procs"))?);
        }
        Ok(groups)
    }

    pub fn view(&self) -> Outcome<View> {
        let mut v1 = Vec::new();
        let mixed = !self.procs.is_empty();
        let all = self.layout.hierarchies.iter().zip(&self.directories);
        for (hierarchy, directory) in all.filter(|_| mixed) {
            let name = hierarchy.name();
            let aliases = name.split(',').filter(|alias| *alias != name);
            let links = aliases
                .map(|alias| Ok((text(&name)?, text(format!("sys/fs/cgroup/{alias}"))?)))
                .collect::<Outcome<_>>()?;
            let place = text(format!("sys/fs/cgroup/{name}"))?;
            v1.push(Seen {
                directory: directory.clone(),
                place,
                links,
            });
        }
        Ok(View { v1 })
    }

    /// Directories and limits; returns the descriptor of the one of version 2.
    pub fn make(&self) -> Option<usize> {
        for directory in &self.directories {
            call(libc::SYS_mkdir, [at(directory), 0o755]);
        }
        for (file, value) in &self.writes {
            write(file, value);
        }
        let directory = call(libc::SYS_open, [at(self.v2.as_ref()?), DIRECTORY]);
        // `union bpf_attr` of BPF_PROG_LOAD, then of BPF_PROG_ATTACH.
        let count = self.program.len() as u64;
        let mut load = [0u64; 6];
        load[0] = 15 | count << 32; // BPF_PROG_TYPE_CGROUP_DEVICE
        load[1] = self.program.as_ptr() as u64;
        load[2] = at(c"Apache-2.0") as u64;
        let size = size_of_val(&load);
        let program = call(libc::SYS_bpf, [5, load.as_ptr() as usize, size]);
        let attach = [directory as u32, program as u32, 6, 2]; // BPF_CGROUP_DEVICE, ALLOW_MULTI
        let size = size_of_val(&attach);
        call(libc::SYS_bpf, [8, attach.as_ptr() as usize, size]);
        call(libc::SYS_close, [program]);
        // There may be version 1 beside it, whose rules for devices hold as well then.
        Some(directory)
    }

    /// Version 1: the process does not begin in its cgroups.
    pub fn attach(&self, pid: usize) {
        let pid = pid.to_string();
        for file in &self.procs {
            write(file, &pid);
        }
    }

    pub fn remove(&self, birthplace: Option<usize>) {
        if let Some(fd) = birthplace {
            call(libc::SYS_close, [fd]);
        }
        for directory in &self.directories {
            call(libc::SYS_rmdir, [at(directory)]);
        }
    }
}

fn write(file: &CString, value: &str) {
    let fd = call(libc::SYS_open, [at(file), WRITE]);
    let (start, length) = (value.as_ptr() as usize, value.len());
    call(libc::SYS_write, [fd, start, length]);
    call(libc::SYS_close, [fd]);
}

impl View {
    /// At `sys/fs/cgroup`, where the sysfs of the container is.
    pub fn mount(&self, none: libc::c_ulong) {
        let place = c"sys/fs/cgroup";
        if self.v1.is_empty() {
            let kind = at(c"cgroup2");
            return mount(kind, place, kind, none | libc::MS_RDONLY, 0);
        }
        let kind = at(c"tmpfs");
        mount(kind, place, kind, none, at(c"mode=755,size=64k"));
        let read_only = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | none;
        for seen in &self.v1 {
            call(libc::SYS_mkdir, [at(&seen.place), 0o755]);
            mount(at(&seen.directory), &seen.place, 0, libc::MS_BIND, 0);
            mount(0, &seen.place, 0, read_only, 0);
            for (target, name) in &seen.links {
                call(libc::SYS_symlink, [at(target), at(name)]);
            }
        }
        mount(0, place, 0, read_only, 0);
    }
}

/// What this crate loads for the same rules (`struct bpf_insn`).
fn device_program() -> Vec<u64> {
    let insn = |code: u8, to: u8, from: u8, offset: u16, immediate: u32| {
        u64::from(code)
            | u64::from(to | from << 4) << 8
            | u64::from(offset) << 16
            | u64::from(immediate) << 32
    };
    let leave = |verdict: u32| [insn(0xb7, 0, 0, 0, verdict), insn(0x95, 0, 0, 0, 0)];
    let mut program = vec![
        insn(0x61, 2, 1, 0, 0), // r2 and r3: access and type
        insn(0xbc, 3, 2, 0, 0),
        insn(0x54, 2, 0, 0, 0xffff),
        insn(0x74, 3, 0, 0, 16),
        insn(0x61, 4, 1, 4, 0), // r4: major
        insn(0x61, 5, 1, 8, 0), // r5: minor
    ];
    for (kind, major, minor, access) in DEVICES {
        let mut equal = vec![(2, if kind == b'b' { 1 } else { 2 })];
        equal.extend(major.map(|number| (4, number)));
        equal.extend(minor.map(|number| (5, number)));
        let partial = access == "m";
        // Each test that fails jumps behind the verdict.
        let mut left = equal.len() as u16 + if partial { 3 } else { 0 } + 2;
        for (register, number) in equal {
            left -= 1;
            program.push(insn(0x56, register, 0, left, number));
        }
        if partial {
            // r1: access beyond making nodes (1)
            program.push(insn(0xbc, 1, 3, 0, 0));
            program.push(insn(0x54, 1, 0, 0, 6));
            program.push(insn(0x56, 1, 0, 2, 0));
        }
        program.extend(leave(1));
    }
    program.extend(leave(0));
    program
}
