//! Classic BPF programs, as far as a filter of system calls is made of them (`linux/filter.h`,
//! `struct seccomp_data` of `linux/seccomp.h`).

use crate::sys::Instruction;
use libseccomp::ScmpAction;
use oci_spec::runtime::LinuxSeccompAction as Action;

/// The most that the kernel takes (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Size of `struct seccomp_data`: number, architecture, instruction pointer, six arguments.
const DATA_SIZE: u32 = 64;
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

pub mod code {
    pub const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    pub const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    pub const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
    pub const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    pub const IF_ABOVE: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
    pub const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    pub const IF_BITS: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
    pub const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
}

fn instruction(code: u16, jump_true: u8, jump_false: u8, k: u32) -> Instruction {
    Instruction {
        code,
        jump_true,
        jump_false,
        k,
    }
}

pub fn load_arch() -> Instruction {
    instruction(code::LOAD, 0, 0, ARCHITECTURE)
}

pub fn load_number() -> Instruction {
    instruction(code::LOAD, 0, 0, NUMBER)
}

pub fn jump(over: u32) -> Instruction {
    instruction(code::JUMP, 0, 0, over)
}

/// Skips `over` instructions unless what is loaded is `value`.
pub fn unless_equal(value: u32, over: u8) -> Instruction {
    instruction(code::IF_EQUAL, 0, over, value)
}

/// Goes on if what is loaded is above `value`, else skips the next instruction.
pub fn if_above(value: u32) -> Instruction {
    instruction(code::IF_ABOVE, 0, 1, value)
}

/// Skips `over` instructions unless one of these bits is set.
pub fn unless_bits(bits: u32, over: u8) -> Instruction {
    instruction(code::IF_BITS, 0, over, bits)
}

pub fn ret(action: ScmpAction) -> Instruction {
    let (action, number) = match action {
        ScmpAction::KillProcess => (Action::ScmpActKillProcess, None),
        ScmpAction::Trap => (Action::ScmpActTrap, None),
        ScmpAction::Errno(number) => (Action::ScmpActErrno, Some(number as u32 & 0xffff)),
        ScmpAction::Notify => (Action::ScmpActNotify, None),
        ScmpAction::Trace(message) => (Action::ScmpActTrace, Some(u32::from(message))),
        ScmpAction::Log => (Action::ScmpActLog, None),
        ScmpAction::Allow => (Action::ScmpActAllow, None),
        _ => (Action::ScmpActKillThread, None),
    };
    instruction(code::RETURN, 0, 0, action.as_u32(number))
}

/// Whether the kernel would take the program and every path through it ends: only instructions
/// that libseccomp and this crate make, loads within the data, jumps forward and within.
pub fn is_valid(program: &[Instruction]) -> bool {
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return false;
    }
    let each = program.iter().enumerate().all(|(at, one)| {
        let within = |over: u32| (over as usize) < program.len() - at - 1;
        match one.code {
            code::LOAD => one.k.is_multiple_of(4) && one.k < DATA_SIZE,
            code::RETURN | code::AND => true,
            code::JUMP => within(one.k),
            code::IF_EQUAL | code::IF_ABOVE | code::IF_AT_LEAST | code::IF_BITS => {
                within(one.jump_true.into()) && within(one.jump_false.into())
            }
            _ => false,
        }
    });
    each && program.last().is_some_and(|last| last.code == code::RETURN)
}
