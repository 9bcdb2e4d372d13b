//! Scheduling, priorities, NUMA placement and the execution domain of the calling process.

use nix::errno::Errno;

/// `struct sched_attr` of `linux/sched/types.h`, as of `SCHED_ATTR_SIZE_VER1`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
    pub util_min: u32,
    pub util_max: u32,
}

/// `sched_setattr(2)` for the calling process.
pub fn sched_setattr(attr: SchedAttr) -> Result<(), Errno> {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        ..attr
    };
    // SAFETY: `attr` is a valid sched_attr of the size it says.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) })
        .map(drop)
}

/// `ioprio_set(2)` for the calling process: class (1 to 3) and priority (0 to 7).
pub fn ioprio_set(class: u8, priority: u16) -> Result<(), Errno> {
    const WHO_PROCESS: libc::c_int = 1;
    let value = libc::c_int::from(class) << 13 | libc::c_int::from(priority);
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) }).map(drop)
}

/// `personality(2)`.
pub fn personality(persona: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::personality(persona) }).map(drop)
}

/// `set_mempolicy(2)`; bit *n* of `nodes` is NUMA node *n*.
pub fn set_mempolicy(mode: i32, nodes: &[libc::c_ulong]) -> Result<(), Errno> {
    // The kernel reads one bit less than told (get_nodes() in mm/mempolicy.c).
    let bits = nodes.len() * libc::c_ulong::BITS as usize + usize::from(!nodes.is_empty());
    let mask = if nodes.is_empty() {
        std::ptr::null()
    } else {
        nodes.as_ptr()
    };
    // SAFETY: the mask is null with no bits, or as long as said.
    Errno::result(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// Allows these CPUs; the kernel cuts them down to those of the cpuset.
pub fn set_affinity(mask: &[u8]) -> Result<(), Errno> {
    // SAFETY: `mask` is as long as said.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, mask.len(), mask.as_ptr()) };
    Errno::result(result).map(drop)
}
