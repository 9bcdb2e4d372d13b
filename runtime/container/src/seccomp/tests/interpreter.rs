//! Classic BPF, as far as [`crate::seccomp::program::is_valid`] lets through.

use crate::seccomp::program::code;
use crate::sys::Instruction;

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: u32,
    pub arch: u32,
    pub args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        let mut bytes = [0u8; 64];
        bytes[0..4].copy_from_slice(&self.number.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.arch.to_ne_bytes());
        for (i, arg) in self.args.iter().enumerate() {
            bytes[16 + 8 * i..24 + 8 * i].copy_from_slice(&arg.to_ne_bytes());
        }
        let at = offset as usize;
        u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    }
}

/// What the program returns: `SECCOMP_RET_*` with its data.
pub fn run(program: &[Instruction], call: Call) -> u32 {
    let (mut at, mut loaded) = (0, 0u32);
    loop {
        let one = program[at];
        at += 1;
        let mut branch = |taken: bool| {
            at += usize::from(if taken { one.jump_true } else { one.jump_false });
        };
        match one.code {
            code::LOAD => loaded = call.word(one.k),
            code::AND => loaded &= one.k,
            code::RETURN => return one.k,
            code::JUMP => at += one.k as usize,
            code::IF_EQUAL => branch(loaded == one.k),
            code::IF_ABOVE => branch(loaded > one.k),
            code::IF_AT_LEAST => branch(loaded >= one.k),
            code::IF_BITS => branch(loaded & one.k != 0),
            other => panic!("instruction {other:#x}"),
        }
    }
}
