//! Which devices a container may use: by files in version 1, by a small program in version 2.

use super::dir::Dir;
use super::error::{CgroupError, Result};
use super::group::Cgroup;
use super::layout::Version;
use crate::sys::{self, BpfInsn};
use nix::errno::Errno;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// Refuses rules that make no sense.
pub(super) fn check(rules: &[LinuxDeviceCgroup]) -> Result<()> {
    Filter::of(rules).map(drop)
}

/// What rules allow, in the form of version 1's files (`c 1:3 rwm`, with `*` for every number);
/// `None` when that is everything but some.
///
/// # Errors
/// A rule makes no sense.
pub fn allowed_devices(rules: &[LinuxDeviceCgroup]) -> Result<Option<Vec<String>>> {
    let filter = Filter::of(rules)?;
    let lines = filter.exceptions.iter().map(Exception::line).collect();
    Ok((!filter.allow).then_some(lines))
}

/// Applies the rules in order; the last that matches decides. Without any rule nothing is
/// changed. In place of rules applied before there is no moment in which more is allowed than
/// by the old or the new ones.
pub(super) fn apply(cgroup: &Cgroup, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    let filter = Filter::of(rules)?;
    if let Some((Version::V1, dir)) = cgroup.controller_dir("devices")? {
        return apply_v1(&dir, &filter, rules);
    }
    match cgroup.v2_dir()? {
        Some(dir) => apply_v2(&dir, &filter),
        None => Err(CgroupError::NoController {
            field: "devices".into(),
            controller: "devices".into(),
        }),
    }
}

fn apply_v1(dir: &Dir, filter: &Filter, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    let write = |allow: bool, line: &str| {
        let file = if allow {
            "devices.allow"
        } else {
            "devices.deny"
        };
        dir.write(file, line)
    };
    if filter.allow {
        return rules
            .iter()
            .try_for_each(|rule| write(rule.allow(), &line(rule)?));
    }
    // Of a list of what is denied the kernel does not tell the entries.
    let Some(current) = Filter::of_list(&dir.read("devices.list")?) else {
        // What the rules come to: there may be several for a device.
        write(false, "a")?;
        let lines = filter.exceptions.iter().map(Exception::line);
        return dir.write_each("devices.allow", lines);
    };
    // Only the difference: what stays allowed is never denied in between.
    let added = filter.exceptions.iter().map(|e| (true, *e, &current));
    let removed = current.exceptions.iter().map(|e| (false, *e, filter));
    for (allow, exception, other) in added.chain(removed) {
        let known = other.access_of(&exception);
        let access = exception.access & !known;
        if access != 0 {
            write(
                allow,
                &Exception {
                    access,
                    ..exception
                }
                .line(),
            )?;
        }
    }
    Ok(())
}

fn apply_v2(dir: &Dir, filter: &Filter) -> Result<()> {
    let failed = |action| {
        move |errno: Errno| CgroupError::DeviceFilter {
            action,
            path: dir.path().into(),
            errno,
        }
    };
    let fd = dir.readable()?;
    let program =
        sys::load_device_program(&filter.program()).map_err(failed("load device filter"))?;
    let mut old = sys::our_device_programs(&fd)
        .map_err(failed("look for older device filters"))?
        .into_iter();
    sys::attach_device_program(&fd, &program, old.next().as_ref())
        .map_err(failed("attach device filter"))?;
    // All attached programs must allow; one that is left over would forbid what is allowed now.
    for program in old {
        sys::detach_device_program(&fd, &program).map_err(failed("detach older device filter"))?;
    }
    Ok(())
}

/// A rule as version 1 writes it: `c 1:3 rwm`.
fn line(rule: &LinuxDeviceCgroup) -> Result<String> {
    let Some(kind) = kind(rule)? else {
        return Ok("a".into());
    };
    let exception = Exception {
        kind,
        major: number(rule.major())?,
        minor: number(rule.minor())?,
        access: access(rule)?,
    };
    Ok(exception.line())
}

/// `None` is every number.
fn number(number: Option<i64>) -> Result<Option<u32>> {
    match number.filter(|number| *number != -1) {
        None => Ok(None),
        Some(number) => u32::try_from(number).map(Some).map_err(|_| {
            let reason = format!("{number} is no major or minor number");
            CgroupError::invalid("devices", reason)
        }),
    }
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
                return Err(CgroupError::unsupported("devices", reason));
            }
            Ok(None)
        }
        Some(LinuxDeviceType::B) => Ok(Some(Kind::Block)),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Ok(Some(Kind::Char)),
        Some(LinuxDeviceType::P) => {
            let reason = "a FIFO is no device";
            Err(CgroupError::unsupported("devices", reason))
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
                return Err(CgroupError::unsupported("devices.access", reason));
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

impl Exception {
    fn is_for(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    /// As version 1 writes it: `c 1:3 rwm`.
    fn line(&self) -> String {
        let kind = match self.kind {
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        let number = |n: Option<u32>| n.map_or("*".into(), |n| n.to_string());
        let letters: String = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
            .iter()
            .filter(|(bit, _)| self.access & bit != 0)
            .map(|(_, letter)| letter)
            .collect();
        let (major, minor) = (number(self.major), number(self.minor));
        format!("{kind} {major}:{minor} {letters}")
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let kind = match fields.next()? {
            "b" => Kind::Block,
            "c" => Kind::Char,
            _ => return None,
        };
        let (major, minor) = fields.next()?.split_once(':')?;
        let number = |text: &str| match text {
            "*" => Some(None),
            text => text.parse::<u32>().ok().map(Some),
        };
        let mut access = 0;
        for letter in fields.next()?.chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                _ => return None,
            };
        }
        Some(Self {
            kind,
            major: number(major)?,
            minor: number(minor)?,
            access,
        })
    }
}

impl Filter {
    fn of(rules: &[LinuxDeviceCgroup]) -> Result<Self> {
        let mut filter = Self::default();
        for rule in rules {
            filter.add(rule)?;
        }
        Ok(filter)
    }

    /// From `devices.list` of version 1; `None` when all but some is allowed.
    fn of_list(list: &str) -> Option<Self> {
        let exceptions = list.lines().map(Exception::parse).collect::<Option<_>>()?;
        Some(Self {
            allow: false,
            exceptions,
        })
    }

    /// The access to exactly these devices that is an exception.
    fn access_of(&self, exception: &Exception) -> u8 {
        let mut exceptions = self.exceptions.iter();
        exceptions
            .find(|known| known.is_for(exception))
            .map_or(0, |known| known.access)
    }

    fn add(&mut self, rule: &LinuxDeviceCgroup) -> Result<()> {
        let Some(kind) = kind(rule)? else {
            self.allow = rule.allow();
            self.exceptions.clear();
            return Ok(());
        };
        let new = Exception {
            kind,
            major: number(rule.major())?,
            minor: number(rule.minor())?,
            access: access(rule)?,
        };
        let known = self.exceptions.iter_mut().find(|e| e.is_for(&new));
        if rule.allow() == self.allow {
            // Takes an earlier exception back.
            if let Some(known) = known {
                known.access &= !new.access;
            }
            self.exceptions.retain(|e| e.access != 0);
        } else if let Some(known) = known {
            known.access |= new.access;
        } else {
            self.exceptions.push(new);
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
