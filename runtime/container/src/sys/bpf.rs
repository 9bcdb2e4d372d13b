//! `bpf(2)`, as far as a device filter needs it (`linux/bpf.h`).

use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_REPLACE: u32 = 4;

/// The name of our programs in the kernel: another's on the same cgroup is left alone.
const NAME: &[u8; 16] = b"fairlead_device\0";

/// One instruction (`struct bpf_insn`). `registers` is destination in the low four bits, source
/// in the high four.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfInsn {
    pub code: u8,
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

#[repr(C, align(8))]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C, align(8))]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

#[repr(C, align(8))]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`, up to its name.
#[repr(C, align(8))]
#[derive(Default)]
struct ProgInfo {
    numbers: [u64; 8],
    name: [u8; 16],
}

/// # Safety
/// `attr` is a prefix of `union bpf_attr` for this command, with every pointer in it valid for
/// what the command does.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> Result<RawFd, Errno> {
    // SAFETY: by the caller; the size is that of the attribute.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    Errno::result(result).map(|fd| fd as RawFd)
}

fn number(fd: impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd() as u32
}

/// Loads a device program.
pub fn load_device_program(program: &[BpfInsn]) -> Result<OwnedFd, Errno> {
    let mut attr = LoadAttr {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        prog_name: *NAME,
        ..LoadAttr::default()
    };
    // SAFETY: the instructions and the licence outlive the call.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attr) }?;
    // SAFETY: a new descriptor that is ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The programs of [`load_device_program`] that are attached to this very cgroup.
pub fn our_device_programs(cgroup: impl AsFd) -> Result<Vec<OwnedFd>, Errno> {
    let mut ids = [0u32; 64]; // the kernel attaches no more to one cgroup
    let mut attr = QueryAttr {
        target_fd: number(cgroup),
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
    };
    // SAFETY: the array has as many places as said.
    unsafe { bpf(BPF_PROG_QUERY, &mut attr) }?;
    let mut ours = Vec::new();
    for id in ids.into_iter().take(attr.prog_cnt as usize) {
        let mut attr = IdAttr {
            prog_id: id,
            ..IdAttr::default()
        };
        // SAFETY: no pointers.
        let fd = match unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attr) } {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => continue, // detached meanwhile
            Err(errno) => return Err(errno),
        };
        // SAFETY: a new descriptor that is ours.
        let program = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut info = ProgInfo::default();
        let mut attr = InfoAttr {
            bpf_fd: number(&program),
            info_len: size_of::<ProgInfo>() as u32,
            info: (&raw mut info) as u64,
        };
        // SAFETY: the structure has the size given, and the kernel fills no more than that; its
        // input fields, the lengths of arrays, are zero.
        unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
        if info.name == *NAME {
            ours.push(program);
        }
    }
    Ok(ours)
}

/// Attaches a program to a cgroup, which keeps it alive; in place of `old` at one blow, so that
/// there is no moment without a filter (kernel 5.6).
pub fn attach_device_program(
    cgroup: impl AsFd,
    program: impl AsFd,
    old: Option<&OwnedFd>,
) -> Result<(), Errno> {
    let replace = if old.is_some() { BPF_F_REPLACE } else { 0 };
    let mut attr = AttachAttr {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI | replace,
        replace_bpf_fd: old.map_or(0, number),
    };
    // SAFETY: no pointers.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attr) }.map(drop)
}

/// Takes a program from a cgroup.
pub fn detach_device_program(cgroup: impl AsFd, program: impl AsFd) -> Result<(), Errno> {
    let mut attr = AttachAttr {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: 0,
        replace_bpf_fd: 0,
    };
    // SAFETY: no pointers.
    unsafe { bpf(BPF_PROG_DETACH, &mut attr) }.map(drop)
}
