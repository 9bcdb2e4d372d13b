//! One program out of those of the architectures.
//!
//! In front of each comes what makes new system calls answer "not implemented". A C library tries
//! a new call first and falls back to an old one on `ENOSYS`; another error it hands to the
//! program. A profile that was written before the call existed would therefore break programs as
//! soon as the C library becomes newer, by its default of `EPERM`. So a number above the highest
//! that the profile names on this architecture (in any rule) returns `ENOSYS`.
//!
//! What the profile does say is not touched, and neither is a default that lets calls pass or a
//! tracer decide: `ALLOW`, `LOG`, `TRACE`. Holes below the highest number get the default action:
//! what is meant by the profile's author to be refused and what was unknown cannot be told apart.

use super::arch;
use super::program::{self, ret};
use crate::sys::Instruction;
use libseccomp::ScmpAction;
use oci_spec::runtime::Arch;

/// The part of one architecture.
pub struct Part {
    pub arch: Arch,
    /// The highest number that the profile names; `None` where it names none.
    pub highest: Option<u32>,
    /// The library's program for this architecture alone.
    pub program: Vec<Instruction>,
}

/// Joins the parts; calls of any other architecture end the process.
pub fn assemble(parts: &[Part], default: ScmpAction) -> Vec<Instruction> {
    let new_calls = match default {
        ScmpAction::Allow | ScmpAction::Log | ScmpAction::Trace(_) => false,
        ScmpAction::Errno(number) => number != libc::ENOSYS,
        _ => true,
    };
    let x32 = parts.iter().find(|part| part.arch == Arch::ScmpArchX32);
    let mut table = vec![program::load_arch()];
    let mut bodies = Vec::new();
    let own_audit = |part: &&Part| part.arch as u32 == arch::audit(part.arch);
    let entries: Vec<&Part> = parts.iter().filter(own_audit).collect();
    for (i, part) in entries.iter().enumerate() {
        // Over the rest of the table (two for each that follows, and its end) to the body.
        let rest = 2 * (entries.len() - i - 1) + 1;
        table.push(program::unless_equal(arch::audit(part.arch), 1));
        table.push(program::jump((rest + bodies.len()) as u32));
        let own = body(part, new_calls);
        match x32.filter(|_| part.arch == Arch::ScmpArchX86_64) {
            None => bodies.extend(own),
            // Two tables behind one architecture, told apart by a bit of the number.
            Some(x32) => {
                bodies.push(program::load_number());
                bodies.push(program::unless_bits(arch::X32_BIT, 1));
                bodies.push(program::jump(own.len() as u32));
                bodies.extend(own);
                bodies.extend(body(x32, new_calls));
            }
        }
    }
    table.push(ret(ScmpAction::KillProcess));
    table.extend(bodies);
    table
}

fn body(part: &Part, new_calls: bool) -> Vec<Instruction> {
    let mut body = Vec::new();
    if let Some(highest) = part.highest.filter(|_| new_calls) {
        let refuse = ret(ScmpAction::Errno(libc::ENOSYS));
        body.push(program::load_number());
        if matches!(part.arch, Arch::ScmpArchS390 | Arch::ScmpArchS390x) {
            // There a number that the kernel does not know arrives as 0, which is no call that
            // programs make.
            body.extend([program::unless_equal(0, 1), refuse]);
        }
        if part.arch == Arch::ScmpArchX86_64 {
            // Where x32 is not listed, its calls are not new but forbidden, as the program says.
            body.extend([program::unless_bits(arch::X32_BIT, 1), program::jump(2)]);
        }
        body.extend([program::if_above(highest), refuse]);
    }
    body.extend(&part.program);
    body
}
