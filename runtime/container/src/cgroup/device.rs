//! Which devices a container may use: by files in version 1, by a small program in version 2.

use super::error::{CgroupError, Result};
use super::tree::{file_error, write};
use super::{Cgroup, Version};
use crate::sys::{self, BpfInsn};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// Applies the rules in order; the last that matches decides. Without any rule nothing is
/// filtered.
pub(super) fn apply(cgroup: &Cgroup, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    if let Some((Version::V1, dir)) = cgroup.controller("devices") {
        for rule in rules {
            let file = if rule.allow() {
                "devices.allow"
            } else {
                "devices.deny"
            };
            write(&dir.join(file), &line(rule)?)?;
        }
        return Ok(());
    }
    let Some(dir) = cgroup.v2_directory() else {
        return Err(CgroupError::NoController {
            field: "devices",
            controller: "devices",
        });
    };
    let mut filter = Filter::default();
    for rule in rules {
        filter.add(rule)?;
    }
    let fd = std::fs::File::open(&dir).map_err(|error| file_error("open", &dir, None, error))?;
    sys::attach_device_program(&fd, &filter.program())
        .map_err(|errno| CgroupError::DeviceFilter { path: dir, errno })
}

/// A rule as version 1 writes it: `c 1:3 rwm`.
fn line(rule: &LinuxDeviceCgroup) -> Result<String> {
    let kind = match kind(rule)? {
        None => return Ok("a".into()),
        Some(Kind::Block) => 'b',
        Some(Kind::Char) => 'c',
    };
    let number = |n: Option<i64>| n.filter(|n| *n >= 0).map_or("*".into(), |n| n.to_string());
    let access = access(rule)?;
    let letters: String = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
        .iter()
        .filter(|(bit, _)| access & bit != 0)
        .map(|(_, letter)| letter)
        .collect();
    Ok(format!(
        "{kind} {}:{} {letters}",
        number(rule.major()),
        number(rule.minor())
    ))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Block = 1,
    Char = 2,
}

/// `None` is every device.
fn kind(rule: &LinuxDeviceCgroup) -> Result<Option<Kind>> {
    match rule.typ() {
        None | Some(LinuxDeviceType::A) => {
            let partial = rule.major().is_some_and(|n| n >= 0)
                || rule.minor().is_some_and(|n| n >= 0)
                || access(rule)? != ALL;
            if partial {
                let reason = "a rule for all types of device can only be for all devices";
                return Err(CgroupError::Unsupported {
                    field: "devices".into(),
                    reason,
                });
            }
            Ok(None)
        }
        Some(LinuxDeviceType::B) => Ok(Some(Kind::Block)),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Ok(Some(Kind::Char)),
        Some(LinuxDeviceType::P) => {
            let reason = "a FIFO is no device";
            Err(CgroupError::Unsupported {
                field: "devices".into(),
                reason,
            })
        }
    }
}

fn access(rule: &LinuxDeviceCgroup) -> Result<u8> {
    let mut bits = 0;
    for letter in rule.access().as_deref().unwrap_or("rwm").chars() {
        bits |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => {
                let reason = "access is made of the letters r, w and m";
                return Err(CgroupError::Unsupported {
                    field: "devices.access".into(),
                    reason,
                });
            }
        };
    }
    Ok(if bits == 0 { ALL } else { bits })
}

/// The state that version 1's files would lead to (kernel: security/device_cgroup.c): a default
/// and exceptions from it.
#[derive(Debug, Default)]
struct Filter {
    allow: bool,
    exceptions: Vec<Exception>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exception {
    kind: Kind,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

impl Filter {
    fn add(&mut self, rule: &LinuxDeviceCgroup) -> Result<()> {
        let Some(kind) = kind(rule)? else {
            self.allow = rule.allow();
            self.exceptions.clear();
            return Ok(());
        };
        let number = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
        let (major, minor) = (number(rule.major()), number(rule.minor()));
        let access = access(rule)?;
        let known = self
            .exceptions
            .iter_mut()
            .find(|e| (e.kind, e.major, e.minor) == (kind, major, minor));
        if rule.allow() == self.allow {
            // Takes an earlier exception back.
            if let Some(known) = known {
                known.access &= !access;
            }
            self.exceptions.retain(|e| e.access != 0);
        } else if let Some(known) = known {
            known.access |= access;
        } else {
            self.exceptions.push(Exception {
                kind,
                major,
                minor,
                access,
            });
        }
        Ok(())
    }

    /// The program. Its context is `struct bpf_cgroup_dev_ctx`: access and type in one word, then
    /// major, then minor. It returns 1 to allow.
    fn program(&self) -> Vec<BpfInsn> {
        use op::*;
        // r2 type, r3 access, r4 major, r5 minor; r1 is free after these.
        let mut program = vec![
            load(R2, R1, 0),
            mov(R3, R2),
            and(R2, 0xffff),
            shift_right(R3, 16),
            load(R4, R1, 4),
            load(R5, R1, 8),
        ];
        for exception in &self.exceptions {
            // Each test that fails jumps behind this exception's verdict.
            let mut tests = vec![Test::NotEqual(R2, exception.kind as i32)];
            tests.extend(
                exception
                    .major
                    .map(|major| Test::NotEqual(R4, major as i32)),
            );
            tests.extend(
                exception
                    .minor
                    .map(|minor| Test::NotEqual(R5, minor as i32)),
            );
            if exception.access != ALL {
                // Allowed is only what the exception covers completely; denied what it touches.
                let mask = i32::from(exception.access);
                tests.push(if self.allow {
                    Test::NoneOf(mask)
                } else {
                    Test::Beyond(!mask & 7)
                });
            }
            let length: usize = tests.iter().map(Test::length).sum::<usize>() + 2;
            let mut at = 0;
            for test in tests {
                at += test.length();
                program.extend(test.code((length - at) as i16));
            }
            program.extend([mov_immediate(R0, i32::from(!self.allow)), exit()]);
        }
        program.extend([mov_immediate(R0, i32::from(self.allow)), exit()]);
        program
    }
}

enum Test {
    NotEqual(u8, i32),
    /// No bit of the mask is in the access.
    NoneOf(i32),
    /// A bit of the mask is in the access.
    Beyond(i32),
}

impl Test {
    fn length(&self) -> usize {
        match self {
            Self::NotEqual(..) => 1,
            Self::NoneOf(_) | Self::Beyond(_) => 3,
        }
    }

    fn code(&self, skip: i16) -> Vec<BpfInsn> {
        use op::*;
        match *self {
            Self::NotEqual(register, value) => vec![jump_not_equal(register, value, skip)],
            Self::NoneOf(mask) => vec![mov(R1, R3), and(R1, mask), jump_equal(R1, 0, skip)],
            Self::Beyond(mask) => vec![mov(R1, R3), and(R1, mask), jump_not_equal(R1, 0, skip)],
        }
    }
}

/// Instructions by their codes in `linux/bpf.h`. All arithmetic and comparison is of 32 bits:
/// device numbers are, and immediates would be sign-extended to 64.
mod op {
    use crate::sys::BpfInsn;

    pub const R0: u8 = 0;
    pub const R1: u8 = 1;
    pub const R2: u8 = 2;
    pub const R3: u8 = 3;
    pub const R4: u8 = 4;
    pub const R5: u8 = 5;

    const fn insn(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> BpfInsn {
        BpfInsn {
            code,
            registers: src << 4 | dst,
            offset,
            immediate,
        }
    }
    /// `BPF_LDX | BPF_W | BPF_MEM`
    pub const fn load(dst: u8, src: u8, offset: i16) -> BpfInsn {
        insn(0x61, dst, src, offset, 0)
    }
    /// `BPF_ALU | BPF_MOV | BPF_X`
    pub const fn mov(dst: u8, src: u8) -> BpfInsn {
        insn(0xbc, dst, src, 0, 0)
    }
    /// `BPF_ALU64 | BPF_MOV | BPF_K`
    pub const fn mov_immediate(dst: u8, value: i32) -> BpfInsn {
        insn(0xb7, dst, 0, 0, value)
    }
    /// `BPF_ALU | BPF_AND | BPF_K`
    pub const fn and(dst: u8, value: i32) -> BpfInsn {
        insn(0x54, dst, 0, 0, value)
    }
    /// `BPF_ALU | BPF_RSH | BPF_K`
    pub const fn shift_right(dst: u8, bits: i32) -> BpfInsn {
        insn(0x74, dst, 0, 0, bits)
    }
    /// `BPF_JMP32 | BPF_JEQ | BPF_K`
    pub const fn jump_equal(dst: u8, value: i32, offset: i16) -> BpfInsn {
        insn(0x16, dst, 0, offset, value)
    }
    /// `BPF_JMP32 | BPF_JNE | BPF_K`
    pub const fn jump_not_equal(dst: u8, value: i32, offset: i16) -> BpfInsn {
        insn(0x56, dst, 0, offset, value)
    }
    /// `BPF_JMP | BPF_EXIT`
    pub const fn exit() -> BpfInsn {
        insn(0x95, 0, 0, 0, 0)
    }
}

#[cfg(test)]
mod tests;
