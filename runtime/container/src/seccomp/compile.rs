//! From a profile to a program.

use super::assemble::{Part, assemble};
use super::filter::{Filter, Listener};
use super::rules::Rules;
use super::{arch, digest, flags, program};
use crate::error::ContainerError;
use crate::sys::Instruction;
use libseccomp::{ScmpAction, ScmpArch, ScmpFilterContext, ScmpSyscall};
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::{Arch, LinuxSeccomp};
use std::fs::File;
use std::io::{Read, Seek};

/// The longest path of a Unix socket (`sun_path`, unix(7)), without the final NUL.
const MAX_SOCKET_PATH: usize = 107;

/// Far more than an agent is told; a bound for files of compiled filters.
pub const MAX_METADATA: usize = 1 << 20;

/// Below this the library is left at its default: at 0 rules its binary tree is broken (up to
/// 2.5.4), and short lists gain nothing.
const TREE_FROM: usize = 32;

/// Everything about a profile that can be refused before it is compiled.
pub struct Checked<'a> {
    rules: Rules<'a>,
    archs: Vec<Arch>,
    flags: u32,
    listener: Option<Listener>,
}

impl<'a> Checked<'a> {
    pub fn new(profile: &'a LinuxSeccomp) -> Result<Self, ContainerError> {
        let rules = Rules::of(profile)?;
        let listed = profile.architectures().as_deref().unwrap_or_default();
        check_archs(listed, rules.default)?;
        Ok(Self {
            archs: arch::covered(listed),
            flags: flags::lower(profile.flags().as_deref(), rules.notifies)?,
            listener: listener(profile, rules.notifies)?,
            rules,
        })
    }

    /// Each architecture for itself: the library's time grows with more than the square of what
    /// it has in hand at once.
    pub fn compile(self, profile: &LinuxSeccomp) -> Result<Filter, ContainerError> {
        let parts = self.archs.iter().map(|arch| self.part(profile, *arch));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let instructions = assemble(&parts, self.rules.default);
        let count = instructions.len();
        if count > program::MAX_INSTRUCTIONS {
            let most = program::MAX_INSTRUCTIONS;
            let reason =
                format!("makes {count} instructions, the kernel takes {most} (BPF_MAXINSNS)");
            return Err(ContainerError::invalid("linux.seccomp.syscalls", reason));
        }
        if !program::is_valid(&instructions) {
            let reason = "the library made a program that the kernel would not take".to_string();
            return Err(ContainerError::unsupported("linux.seccomp", reason));
        }
        Ok(Filter {
            instructions,
            flags: self.flags,
            digest: digest::of(profile),
            listener: self.listener,
        })
    }

    fn part(&self, profile: &LinuxSeccomp, on: Arch) -> Result<Part, ContainerError> {
        let failed = |error| library("begin", &error);
        let mut context = ScmpFilterContext::new(self.rules.default).map_err(failed)?;
        context
            .set_act_badarch(ScmpAction::KillProcess)
            .map_err(failed)?;
        if on != arch::native() {
            context.add_arch(arch::library(on)).map_err(failed)?;
            context.remove_arch(ScmpArch::Native).map_err(failed)?;
        }
        // Negative numbers stand for calls that the architecture does not have.
        let number = |name: &str| -> Option<u32> {
            let call = ScmpSyscall::from_name_by_arch(name, arch::library(on)).ok()?;
            u32::try_from(call.as_raw_syscall()).ok()
        };
        let rules = &self.rules.list;
        if rules
            .iter()
            .filter_map(|rule| number(rule.name))
            .nth(TREE_FROM)
            .is_some()
        {
            context.set_ctl_optimize(2).map_err(failed)?;
        }
        for rule in rules {
            context
                .add_rule_conditional(rule.action, rule.call, &rule.conditions)
                .map_err(|error| {
                    ContainerError::invalid(
                        rule.place.to_string(),
                        format!("{}: {error}", rule.name),
                    )
                })?;
        }
        let names = profile.syscalls().iter().flatten().flat_map(|s| s.names());
        Ok(Part {
            arch: on,
            highest: names.filter_map(|name| number(name)).max(),
            program: export(&context)?,
        })
    }

    pub fn into_listener(self) -> Option<Listener> {
        self.listener
    }
}

/// Whether the library knows them and can put them into one filter.
fn check_archs(archs: &[Arch], default: ScmpAction) -> Result<(), ContainerError> {
    let mut context = ScmpFilterContext::new(default).map_err(|error| library("begin", &error))?;
    for (i, arch) in archs.iter().enumerate() {
        context.add_arch(arch::library(*arch)).map_err(|error| {
            let native = arch::native();
            let reason = format!(
                "{arch}: libseccomp does not know it, or it does not go with {native} (other byte \
                 order): {error}"
            );
            ContainerError::unsupported(format!("linux.seccomp.architectures[{i}]"), reason)
        })?;
    }
    Ok(())
}

fn listener(profile: &LinuxSeccomp, notifies: bool) -> Result<Option<Listener>, ContainerError> {
    let path = profile
        .listener_path()
        .as_ref()
        .filter(|path| !path.as_os_str().is_empty());
    let metadata = profile.listener_metadata().clone();
    let field = "linux.seccomp.listenerPath";
    match path {
        None if metadata.as_ref().is_some_and(|m| !m.is_empty()) => Err(ContainerError::invalid(
            "linux.seccomp.listenerMetadata",
            "is only for an agent, and there is no listenerPath",
        )),
        _ if metadata.as_ref().is_some_and(|m| m.len() > MAX_METADATA) => {
            let reason = format!("longer than {MAX_METADATA} bytes");
            Err(ContainerError::invalid(
                "linux.seccomp.listenerMetadata",
                reason,
            ))
        }
        None if notifies => {
            let reason = "missing: SCMP_ACT_NOTIFY needs an agent that listens there";
            Err(ContainerError::invalid(field, reason))
        }
        // The specification has it ignored then.
        _ if !notifies => Ok(None),
        Some(path) if path.as_os_str().len() > MAX_SOCKET_PATH => {
            let reason = format!("longer than {MAX_SOCKET_PATH} bytes");
            Err(ContainerError::invalid(field, reason))
        }
        Some(path) if path.as_os_str().as_encoded_bytes().contains(&0) => {
            Err(ContainerError::invalid(field, "holds a NUL byte"))
        }
        path => Ok(path.map(|path| Listener {
            path: path.clone(),
            metadata,
        })),
    }
}

/// The library's program. It can only be written to a descriptor (before libseccomp 2.6).
fn export(context: &ScmpFilterContext) -> Result<Vec<Instruction>, ContainerError> {
    let system = |step| move |errno| ContainerError::System { step, errno };
    let memory = memfd_create(c"seccomp", MFdFlags::MFD_CLOEXEC)
        .map_err(system("make memory file for seccomp program"))?;
    let mut file = File::from(memory);
    context
        .export_bpf(&file)
        .map_err(|error| library("write", &error))?;
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .map_err(|error| ContainerError::System {
            step: "read back seccomp program",
            errno: error
                .raw_os_error()
                .map_or(nix::errno::Errno::EIO, nix::errno::Errno::from_raw),
        })?;
    let (all, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        let reason = "the library's program ends within an instruction";
        return Err(ContainerError::unsupported("linux.seccomp", reason));
    }
    Ok(all
        .iter()
        .map(|[c0, c1, jump_true, jump_false, k @ ..]| Instruction {
            code: u16::from_ne_bytes([*c0, *c1]),
            jump_true: *jump_true,
            jump_false: *jump_false,
            k: u32::from_ne_bytes(*k),
        })
        .collect())
}

fn library(step: &str, error: &libseccomp::error::SeccompError) -> ContainerError {
    ContainerError::unsupported(
        "linux.seccomp",
        format!("libseccomp: {step} filter: {error}"),
    )
}
