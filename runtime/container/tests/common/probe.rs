//! A program of nothing but system calls: it makes those it is given, writes what each returned,
//! and exits with 0. It needs no call of its own but `write` and `exit`.

use super::{Sandbox, set_linux, set_process};
use oci_spec::runtime::{LinuxSeccomp, Spec};

/// How a call is made.
#[derive(Clone, Copy)]
enum Gate {
    /// The `syscall` instruction.
    Native,
    /// `int 0x80`: the calls of 32-bit x86, which programs of 64 bits can make, too.
    Int80,
}

/// One call.
#[derive(Clone)]
pub struct Call {
    gate: Gate,
    number: u64,
    args: Vec<u64>,
    path: Option<String>,
}

impl Call {
    pub fn new(number: libc::c_long, args: &[u64]) -> Self {
        Self {
            gate: Gate::Native,
            number: number as u64,
            args: args.to_vec(),
            path: None,
        }
    }

    /// With a path before the arguments.
    pub fn path(number: libc::c_long, path: &str, args: &[u64]) -> Self {
        Self {
            args: [&[0], args].concat(),
            path: Some(path.into()),
            ..Self::new(number, &[])
        }
    }

    /// By the numbers of 32-bit x86.
    pub fn int80(number: u32, args: &[u64]) -> Self {
        Self {
            gate: Gate::Int80,
            ..Self::new(number.into(), args)
        }
    }
}

const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 120;

/// The program as an ELF file for x86-64.
pub fn program(calls: &[Call]) -> Vec<u8> {
    let paths_at = BASE + 0x8000;
    let results_at = BASE + 0xc000;
    let text_at = BASE + 0xd000;
    let mut paths = Vec::new();
    let mut code = Vec::new();
    let load = |code: &mut Vec<u8>, opcode: [u8; 2], value: u64| {
        code.extend(opcode);
        code.extend(value.to_le_bytes());
    };
    const RAX: [u8; 2] = [0x48, 0xb8];
    const RDI: [u8; 2] = [0x48, 0xbf];
    const RSI: [u8; 2] = [0x48, 0xbe];
    const RDX: [u8; 2] = [0x48, 0xba];
    // Argument registers of both conventions: rdi rsi rdx r10 r8 r9, rbx rcx rdx rsi rdi rbp.
    let native = [RDI, RSI, RDX, [0x49, 0xba], [0x49, 0xb8], [0x49, 0xb9]];
    let int80 = [[0x48, 0xbb], [0x48, 0xb9], RDX, RSI, RDI, [0x48, 0xbd]];
    for (i, call) in calls.iter().enumerate() {
        let mut args = call.args.clone();
        if let Some(path) = &call.path {
            args[0] = paths_at + paths.len() as u64;
            paths.extend(path.as_bytes());
            paths.push(0);
        }
        let (registers, gate) = match call.gate {
            Gate::Native => (native, [0x0f, 0x05]),
            Gate::Int80 => (int80, [0xcd, 0x80]),
        };
        args.resize(6, 0);
        for (register, value) in registers.into_iter().zip(args) {
            load(&mut code, register, value);
        }
        load(&mut code, RAX, call.number);
        code.extend(gate);
        load(&mut code, [0x48, 0xa3], results_at + 8 * i as u64); // mov [...], rax
    }
    // Each byte as two letters from A to P.
    let size = 8 * calls.len() as u64;
    load(&mut code, RSI, results_at);
    load(&mut code, RDI, text_at);
    load(&mut code, [0x48, 0xb9], size); // rcx
    code.extend([0xac, 0x88, 0xc2, 0xc0, 0xe8, 0x04, 0x04, 0x41, 0xaa]); // lodsb: high half
    code.extend([0x88, 0xd0, 0x24, 0x0f, 0x04, 0x41, 0xaa, 0xe2, 0xee]); // low half, loop
    let finish = [
        (libc::SYS_write, [1, text_at, 2 * size]),
        (libc::SYS_exit, [0; 3]),
    ];
    for (number, args) in finish {
        for (register, value) in [RDI, RSI, RDX].into_iter().zip(args) {
            load(&mut code, register, value);
        }
        load(&mut code, RAX, number as u64);
        code.extend([0x0f, 0x05]);
    }
    assert!(
        HEADERS + (code.len() as u64) < paths_at - BASE,
        "too many calls"
    );
    let mut elf = header(0x1_2000);
    elf.extend(code);
    elf.resize((paths_at - BASE) as usize, 0);
    elf.extend(paths);
    elf.resize(0xc000, 0);
    elf
}

/// One segment that may be read, written and executed.
fn header(memory: u64) -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([2u8, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64, version
    elf.extend((BASE + HEADERS).to_le_bytes());
    elf.extend(64u64.to_le_bytes()); // program headers
    elf.extend(0u64.to_le_bytes());
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend([1u8, 0, 0, 0, 7, 0, 0, 0]);
    for value in [0, BASE, BASE, 0xc000, memory, 0x1000] {
        elf.extend(u64::to_le_bytes(value));
    }
    elf
}

/// What the calls returned, from what the program wrote.
pub fn results(text: &str) -> Vec<i64> {
    let letters = text.trim_end().as_bytes();
    let bytes: Vec<u8> = letters
        .chunks(2)
        .map(|pair| ((pair[0] - b'A') << 4) | (pair[1] - b'A'))
        .collect();
    bytes
        .chunks(8)
        .map(|eight| i64::from_le_bytes(eight.try_into().expect("eight bytes")))
        .collect()
}

pub fn profile(value: serde_json::Value) -> LinuxSeccomp {
    container::seccomp::parse(value.to_string().as_bytes()).expect("profile")
}

pub fn set_profile(spec: &mut Spec, profile: Option<LinuxSeccomp>) {
    set_linux(spec, |linux| {
        linux.set_seccomp(profile);
    });
}

/// A container whose program makes these calls under this profile.
pub fn probing(sandbox: &Sandbox, profile: Option<LinuxSeccomp>, calls: &[Call]) -> Spec {
    super::install(&sandbox.root().join("bin/probe"), &program(calls));
    let mut spec = sandbox.command(&["/bin/probe"]);
    set_profile(&mut spec, profile);
    spec
}

/// Whether its program may not gain privileges.
pub fn set_no_new_privileges(spec: &mut Spec, on: bool) {
    set_process(spec, |p| {
        p.set_no_new_privileges(Some(on));
    });
}

/// Options with what an agent is told.
pub fn asking(sandbox: &Sandbox) -> container::CreateOptions {
    let mut options = sandbox.options();
    options.identity = Some(container::Identity {
        id: "the-container".into(),
        bundle: "/the/bundle".into(),
    });
    options
}
