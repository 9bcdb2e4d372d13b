//! The compiled program does what the profile says, for every number of every architecture.

use super::interpreter::{Call, run};
use super::profile;
use crate::defaults;
use crate::seccomp::{arch, compile};
use libseccomp::ScmpSyscall;
use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator,
    LinuxSyscall,
};

const ENOSYS: u32 = 0x5_0026;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x5_0001;
const KILL_PROCESS: u32 = 0x8000_0000;

fn holds(arg: &LinuxSeccompArg, args: [u64; 6]) -> bool {
    use LinuxSeccompOperator as Op;
    let (given, value) = (args[arg.index()], arg.value());
    match arg.op() {
        Op::ScmpCmpNe => given != value,
        Op::ScmpCmpLt => given < value,
        Op::ScmpCmpLe => given <= value,
        Op::ScmpCmpEq => given == value,
        Op::ScmpCmpGe => given >= value,
        Op::ScmpCmpGt => given > value,
        Op::ScmpCmpMaskedEq => given & value == arg.value_two().unwrap_or(0),
    }
}

fn matches(entry: &LinuxSyscall, name: &str, args: [u64; 6]) -> bool {
    let list = entry.args().as_deref().unwrap_or_default();
    let repeated = list
        .iter()
        .any(|a| list.iter().filter(|b| a.index() == b.index()).count() > 1);
    entry.names().iter().any(|n| n == name)
        && match repeated {
            true => list.iter().any(|arg| holds(arg, args)),
            false => list.iter().all(|arg| holds(arg, args)),
        }
}

/// The highest number that the profile names.
fn highest(profile: &LinuxSeccomp, on: Arch) -> u32 {
    let names = profile.syscalls().iter().flatten().flat_map(|s| s.names());
    names
        .filter_map(|n| ScmpSyscall::from_name_by_arch(n, arch::library(on)).ok())
        .filter_map(|n| u32::try_from(n.as_raw_syscall()).ok())
        .max()
        .expect("calls")
}

/// What the profile says, read by itself.
fn expected(profile: &LinuxSeccomp, on: Arch, highest: u32, call: Call) -> u32 {
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    if call.number > highest && default != ALLOW {
        return ENOSYS;
    }
    let number = ScmpSyscall::from_raw_syscall(call.number as i32);
    let Ok(name) = number.get_name_by_arch(arch::library(on)) else {
        return default;
    };
    let mut entries = profile.syscalls().iter().flatten();
    entries
        .find(|entry| matches(entry, &name, call.args))
        .map_or(default, |entry| entry.action().as_u32(entry.errno_ret()))
}

const ARGS: [[u64; 6]; 8] = [
    [0; 6],
    [1, 2, 3, 4, 5, 6],
    [16, 1, 9, 0, 0, 0],
    [38, 3, 0, 0, 0, 0],
    [40, 0, 0, 0, 0, 0],
    [0x1000_0000, 0x1000_0000, 0, 0, 0, 0],
    [0x1_0000_0028, 0, 0, 0, 0, 0],
    [u64::MAX; 6],
];

fn compare(profile: &LinuxSeccomp) {
    let filter = compile(profile).expect("compiled");
    let listed = profile.architectures().as_deref().unwrap_or_default();
    for on in arch::covered(listed) {
        let offset = if on == Arch::ScmpArchX32 {
            arch::X32_BIT
        } else {
            0
        };
        // The library looks at no more of an argument than the architecture's words have.
        let mask = match on {
            Arch::ScmpArchX86_64 => u64::MAX,
            _ => u64::from(u32::MAX),
        };
        let highest = highest(profile, on);
        for number in 0..600 {
            for args in ARGS {
                let call = Call {
                    number: offset + number,
                    arch: arch::audit(on),
                    args: args.map(|arg| arg & mask),
                };
                let got = run(&filter.instructions, call);
                let wanted = expected(profile, on, highest, call);
                assert_eq!(got, wanted, "{on} {call:x?}: {got:#x}, not {wanted:#x}");
            }
        }
    }
}

#[test]
fn dockers_policy() {
    compare(&defaults::seccomp(&defaults::capabilities()));
    compare(&defaults::seccomp(&Capabilities::new()));
    let all: Capabilities = [
        Capability::SysAdmin,
        Capability::SysPtrace,
        Capability::SysNice,
        Capability::Bpf,
        Capability::Syslog,
        Capability::Perfmon,
        Capability::SysTime,
        Capability::SysModule,
        Capability::DacReadSearch,
    ]
    .into_iter()
    .collect();
    compare(&defaults::seccomp(&all));
}

#[test]
fn every_action_and_operator() {
    compare(&profile(
        r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 99,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["mkdir"], "action": "SCMP_ACT_KILL"},
            {"names": ["rmdir"], "action": "SCMP_ACT_KILL_PROCESS"},
            {"names": ["chmod"], "action": "SCMP_ACT_TRAP"},
            {"names": ["chown"], "action": "SCMP_ACT_TRACE", "errnoRet": 7},
            {"names": ["uname"], "action": "SCMP_ACT_LOG"},
            {"names": ["link"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0},
            {"names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4094},
            {"names": ["kill"], "action": "SCMP_ACT_ALLOW", "args":
                [{"index": 0, "value": 1, "op": "SCMP_CMP_NE"}, {"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}]},
            {"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args":
                [{"index": 0, "value": 16, "op": "SCMP_CMP_LT"}]},
            {"names": ["dup2"], "action": "SCMP_ACT_ALLOW", "args":
                [{"index": 0, "value": 16, "op": "SCMP_CMP_LE"}]},
            {"names": ["dup3"], "action": "SCMP_ACT_ALLOW", "args":
                [{"index": 0, "value": 38, "op": "SCMP_CMP_GE"}]},
            {"names": ["fcntl"], "action": "SCMP_ACT_ALLOW", "args":
                [{"index": 0, "value": 38, "op": "SCMP_CMP_GT"}]},
            {"names": ["unshare"], "action": "SCMP_ACT_ALLOW", "args":
                [{"index": 0, "value": 268435456, "valueTwo": 268435456, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args":
                [{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]}
        ]}"#,
    ));
}

#[test]
fn an_allowing_default_has_no_unknown_calls() {
    compare(&profile(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "no_such_call_yet"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#,
    ));
}

#[test]
fn other_architectures_end_the_process() {
    let filter = compile(&profile(
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}"#,
    ))
    .expect("compiled");
    let call = |number, arch| Call {
        number,
        arch,
        args: [0; 6],
    };
    let program = &filter.instructions;
    if arch::native() == Arch::ScmpArchX86_64 {
        assert_eq!(run(program, call(0, 0xc000_003e)), ALLOW);
        assert_eq!(run(program, call(1, 0xc000_003e)), ENOSYS);
        assert_eq!(run(program, call(arch::X32_BIT, 0xc000_003e)), KILL_PROCESS);
    }
    assert_eq!(run(program, call(3, 0x4000_0003)), KILL_PROCESS);
    assert_eq!(run(program, call(0, 0x1234)), KILL_PROCESS);
}

#[test]
fn capabilities_decide() {
    let outcome = |held: &[Capability], name: &str, args| {
        let policy = defaults::seccomp(&held.iter().copied().collect());
        let filter = compile(&policy).expect("compiled");
        let number = ScmpSyscall::from_name(name)
            .expect("known")
            .as_raw_syscall() as u32;
        let arch = arch::audit(arch::native());
        run(&filter.instructions, Call { number, arch, args })
    };
    const NEWUSER: [u64; 6] = [0x1000_0000; 6];
    for (held, name, args, wanted) in [
        (&[][..], "mount", [0; 6], EPERM),
        (&[Capability::SysAdmin], "mount", [0; 6], ALLOW),
        (&[], "clone", NEWUSER, EPERM),
        (&[], "clone", [0x11; 6], ALLOW),
        (&[Capability::SysAdmin], "clone", NEWUSER, ALLOW),
        (&[], "clone3", [0; 6], ENOSYS),
        (&[Capability::SysAdmin], "clone3", [0; 6], ALLOW),
        (&[], "bpf", [0; 6], EPERM),
        (&[Capability::Bpf], "bpf", [0; 6], ALLOW),
        (&[Capability::SysBoot], "reboot", [0; 6], ALLOW),
        (&[Capability::SysRawio], "iopl", [0; 6], ALLOW),
        (&[Capability::SysPacct], "acct", [0; 6], ALLOW),
        (&[Capability::SysChroot], "chroot", [0; 6], ALLOW),
        (&[Capability::SysTtyConfig], "vhangup", [0; 6], ALLOW),
        (&[Capability::SysAdmin], "io_uring_setup", [0; 6], EPERM),
        (&[Capability::SysAdmin], "keyctl", [0; 6], EPERM),
        (&[], "socket", [1, 1, 0, 0, 0, 0], ALLOW),
        (&[], "socket", [38, 5, 0, 0, 0, 0], EPERM),
        (&[], "socket", [40, 1, 0, 0, 0, 0], EPERM),
        (&[], "socket", [0x1_0000_0028, 1, 0, 0, 0, 0], EPERM),
        (&[], "personality", [0xffff_ffff, 0, 0, 0, 0, 0], ALLOW),
        (&[], "personality", [0x4_0000, 0, 0, 0, 0, 0], EPERM),
    ] {
        let got = outcome(held, name, args);
        assert_eq!(got, wanted, "{name} {args:x?} with {held:?}: {got:#x}");
    }
}

#[test]
fn the_first_of_two_counts() {
    // The default profile of podman does so.
    for (first, second) in [
        (
            r#""SCMP_ACT_ALLOW""#,
            r#""SCMP_ACT_ERRNO","args":[],"errnoRet":1"#,
        ),
        (r#""SCMP_ACT_ERRNO","errnoRet":1"#, r#""SCMP_ACT_ALLOW""#),
    ] {
        compare(&profile(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64"],
                "syscalls":[{{"names":["read","setns"],"action":{first}}},
                    {{"names":["setns"],"action":{second}}}]}}"#
        )));
    }
}
