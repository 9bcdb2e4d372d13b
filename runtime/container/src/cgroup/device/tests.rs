use super::*;
use crate::defaults;
use oci_spec::runtime::LinuxDeviceCgroupBuilder;

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    numbers: (i64, i64),
    access: &str,
) -> LinuxDeviceCgroup {
    let builder = LinuxDeviceCgroupBuilder::default()
        .allow(allow)
        .typ(kind)
        .access(access);
    let builder = if numbers.0 >= 0 {
        builder.major(numbers.0)
    } else {
        builder
    };
    let builder = if numbers.1 >= 0 {
        builder.minor(numbers.1)
    } else {
        builder
    };
    builder.build().expect("rule")
}

fn filter(rules: &[LinuxDeviceCgroup]) -> Filter {
    let mut filter = Filter::default();
    rules
        .iter()
        .for_each(|rule| filter.add(rule).expect("rule"));
    filter
}

/// Runs a program as the kernel would, for the instructions that are used.
fn run(program: &[BpfInsn], kind: Kind, access: u8, major: u32, minor: u32) -> bool {
    let context = [u32::from(access) << 16 | kind as u32, major, minor];
    let mut registers = [0u64; 11];
    let mut at = 0;
    loop {
        let insn = program[at];
        let (dst, src) = (
            usize::from(insn.registers & 15),
            usize::from(insn.registers >> 4),
        );
        let low = registers[dst] as u32;
        at += 1;
        match insn.code {
            0x61 => registers[dst] = u64::from(context[insn.offset as usize / 4]),
            0xbc => registers[dst] = u64::from(registers[src] as u32),
            0xb7 => registers[dst] = insn.immediate as u64,
            0x54 => registers[dst] = u64::from(low & insn.immediate as u32),
            0x74 => registers[dst] = u64::from(low >> insn.immediate),
            0x16 if low == insn.immediate as u32 => at += insn.offset as usize,
            0x56 if low != insn.immediate as u32 => at += insn.offset as usize,
            0x16 | 0x56 => {}
            0x95 => return registers[0] == 1,
            code => panic!("instruction {code:#x}"),
        }
    }
}

#[test]
fn defaults_allow_null_and_no_disk() {
    let program = filter(&defaults::device_rules()).program();
    assert!(run(&program, Kind::Char, READ | WRITE, 1, 3), "null");
    assert!(run(&program, Kind::Char, READ | WRITE, 136, 7), "a pty");
    assert!(
        run(&program, Kind::Char, MKNOD, 10, 200),
        "any node may be made"
    );
    assert!(!run(&program, Kind::Char, READ, 10, 200), "tun");
    assert!(!run(&program, Kind::Char, READ | MKNOD, 1, 1), "mem");
    assert!(run(&program, Kind::Block, MKNOD, 8, 0));
    assert!(!run(&program, Kind::Block, READ, 8, 0), "disk");
    assert!(
        !run(&program, Kind::Block, READ, 1, 3),
        "a block device is not null"
    );
}

#[test]
fn partial_access() {
    use LinuxDeviceType as T;
    let all = rule(false, T::A, (-1, -1), "rwm");
    let program = filter(&[
        all.clone(),
        rule(true, T::C, (1, 5), "r"),
        rule(true, T::C, (1, 5), "m"),
    ])
    .program();
    assert!(run(&program, Kind::Char, READ, 1, 5));
    assert!(
        run(&program, Kind::Char, READ | MKNOD, 1, 5),
        "rules for one device add up"
    );
    assert!(!run(&program, Kind::Char, READ | WRITE, 1, 5));
    let taken_back = filter(&[
        all,
        rule(true, T::C, (1, 5), "rwm"),
        rule(false, T::C, (1, 5), "w"),
    ])
    .program();
    assert!(run(&taken_back, Kind::Char, READ, 1, 5));
    assert!(!run(&taken_back, Kind::Char, WRITE, 1, 5));
}

#[test]
fn allow_all_but_one() {
    use LinuxDeviceType as T;
    let program = filter(&[
        rule(true, T::A, (-1, -1), "rwm"),
        rule(false, T::B, (8, -1), "w"),
    ])
    .program();
    assert!(run(&program, Kind::Char, READ | WRITE, 1, 1));
    assert!(run(&program, Kind::Block, READ, 8, 3));
    assert!(!run(&program, Kind::Block, READ | WRITE, 8, 3));
}

#[test]
fn lines_of_version_1() {
    use LinuxDeviceType as T;
    assert_eq!(
        line(&rule(true, T::C, (1, 3), "rwm")).expect("line"),
        "c 1:3 rwm"
    );
    assert_eq!(
        line(&rule(true, T::B, (8, -1), "m")).expect("line"),
        "b 8:* m"
    );
    assert_eq!(
        line(&rule(false, T::A, (-1, -1), "rwm")).expect("line"),
        "a"
    );
    assert!(line(&rule(false, T::A, (1, -1), "rwm")).is_err());
    assert!(line(&rule(true, T::C, (1, 3), "rx")).is_err());
    assert!(line(&rule(true, T::P, (1, 3), "r")).is_err());
}
