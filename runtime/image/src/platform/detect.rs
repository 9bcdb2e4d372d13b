//! Which variant of its architecture this machine is.
//!
//! The kernel has asked the processor, and `/proc/cpuinfo` tells what it found. How that is read is
//! containerd's `platforms` package, so that one index leads to one image with both.

use std::{fs::File, io::Read, sync::OnceLock, thread};

use nix::{errno::Errno, sys::utsname::uname};
use oci_spec::image::Arch;

/// The first processor is described in less; the others are as it is.
const MAX_CPUINFO: u64 = 64 << 10;

/// x86-64 psABI, section 3.1.1: what a processor has from each level on, in the kernel's words. Level 1
/// is what every processor has.
const AMD64_LEVELS: [(&str, &[&str]); 3] = [
    (
        "v2",
        &[
            "cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3",
        ],
    ),
    (
        "v3",
        &[
            "abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave",
        ],
    ),
    (
        "v4",
        &["avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"],
    ),
];

/// Of the machine that this is, asked once.
pub(super) fn of_this_machine() -> Option<String> {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let mut cpuinfo = Vec::new();
        if let Ok(file) = File::open("/proc/cpuinfo") {
            // What cannot be read tells nothing, and then the least is meant.
            let _ = file.take(MAX_CPUINFO).read_to_end(&mut cpuinfo);
        }
        let machine = uname().map(|name| name.machine().to_string_lossy().into_owned());
        variant(
            &Arch::default(),
            &String::from_utf8_lossy(&cpuinfo),
            &machine.unwrap_or_default(),
        )
    });
    found.clone()
}

/// The variant that `/proc/cpuinfo` and the machine name of `uname(2)` tell of, as it stands in
/// indexes (`v7`). `None` for architectures without variants, and where it cannot be told.
fn variant(architecture: &Arch, cpuinfo: &str, machine: &str) -> Option<String> {
    let found = match architecture {
        Arch::Amd64 => amd64(field(cpuinfo, "flags")?),
        Arch::ARM | Arch::ARM64 => arm(architecture, cpuinfo, machine)?,
        _ => return None,
    };
    Some(found.to_owned())
}

fn amd64(flags: &str) -> &'static str {
    let flags: Vec<_> = flags.split_whitespace().collect();
    let reached = AMD64_LEVELS
        .iter()
        .take_while(|(_, needs)| needs.iter().all(|need| flags.contains(need)));
    reached.last().map_or("v1", |(level, _)| level)
}

fn arm(architecture: &Arch, cpuinfo: &str, machine: &str) -> Option<&'static str> {
    let Some(said) = field(cpuinfo, "CPU architecture") else {
        // An emulator on another machine shows that one's processor.
        return arm_machine(machine);
    };
    match said.to_ascii_lowercase().as_str() {
        "8" | "aarch64" => Some("v8"),
        // Processors of the first Raspberry Pi: ARMv6 whose memory management is that of ARMv7, which is
        // where the kernel looks.
        "7" if *architecture == Arch::ARM && is_armv6(cpuinfo) => Some("v6"),
        // With a question mark, it is the number of a part that the kernel has no name for.
        "7" | "7m" | "?(12)" | "?(13)" | "?(14)" | "?(15)" | "?(16)" | "?(17)" => Some("v7"),
        "6" | "6tej" => Some("v6"),
        "5" | "5t" | "5te" | "5tej" => Some("v5"),
        _ => None,
    }
}

fn is_armv6(cpuinfo: &str) -> bool {
    field(cpuinfo, "model name")
        .is_some_and(|name| name.to_ascii_lowercase().starts_with("armv6-compatible"))
}

/// Such as `aarch64`, `armv8l` or `armv7l`.
fn arm_machine(machine: &str) -> Option<&'static str> {
    if machine == "aarch64" {
        return Some("v8");
    }
    match machine.strip_prefix("armv")?.chars().next()? {
        '8' => Some("v8"),
        '7' => Some("v7"),
        '6' => Some("v6"),
        '5' => Some("v5"),
        _ => None,
    }
}

/// The value of the first line with this name.
fn field<'a>(cpuinfo: &'a str, wanted: &str) -> Option<&'a str> {
    cpuinfo.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim()
            .eq_ignore_ascii_case(wanted)
            .then(|| value.trim())
    })
}

/// Whether the kernel runs 32-bit ARM programs, as far as it tells. An arm64 kernel on a processor that
/// does not run them refuses the personality of their machine; of others it is believed.
pub(super) fn runs_arm32() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| !cfg!(target_arch = "aarch64") || takes_personality(PER_LINUX32))
}

/// `linux/personality.h`.
const PER_LINUX32: libc::c_ulong = 8;

fn takes_personality(wanted: libc::c_ulong) -> bool {
    // It is the thread's own: one that ends with it tries.
    let asked = thread::Builder::new().spawn(move || {
        // SAFETY: takes a number and touches no memory.
        let answer = unsafe { libc::personality(wanted) };
        Errno::result(answer) != Err(Errno::EINVAL)
    });
    asked
        .ok()
        .is_none_or(|thread| thread.join().unwrap_or(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `/proc/cpuinfo` describes a processor, of which only some flags matter.
    fn x86(flags: &str) -> String {
        format!(
            "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\n\
             model name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\nflags\t\t: {flags}\n\
             vmx flags\t: ept vpid\nbugs\t\t: spectre_v1\n\n\
             processor\t: 1\nflags\t\t: {flags} avx512f\n"
        )
    }

    const V1: &str = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush mmx \
                      fxsr sse sse2 ht syscall nx rdtscp lm";
    const V2: &str = "pni ssse3 cx16 sse4_1 sse4_2 x2apic popcnt lahf_lm";
    const V3: &str = "fma movbe aes xsave avx f16c rdrand abm bmi1 avx2 smep bmi2 erms";
    const V4: &str = "avx512f avx512dq rdseed avx512cd avx512bw avx512vl";

    #[test]
    fn an_amd64_machine_has_the_level_of_its_flags() {
        let of = |flags: &str| variant(&Arch::Amd64, &x86(flags), "x86_64");
        let is = |flags: String, level: &str| {
            assert_eq!(of(&flags).as_deref(), Some(level), "{flags}");
        };
        is(V1.to_owned(), "v1");
        is(format!("{V1} {V2}"), "v2");
        is(format!("{V1} {V2} {V3}"), "v3");
        is(format!("{V1} {V2} {V3} {V4}"), "v4");
        // A level is all of it, and all below it.
        is(format!("{V1} {V2} {}", V3.replace("movbe", "")), "v2");
        is(format!("{V1} {V2} {}", V3.replace("avx2", "avx2x")), "v2");
        is(format!("{V1} {V3} {V4}"), "v1");
        is(format!("{V1} {V2} {V4}"), "v2");
        is(
            format!("{V1} {V2} {V3} {}", V4.replace("avx512vl", "")),
            "v3",
        );
        assert_eq!(variant(&Arch::Amd64, "", "x86_64"), None);
    }

    #[test]
    fn an_arm_machine_has_the_version_that_the_kernel_says() {
        let pi1 = "processor\t: 0\nmodel name\t: ARMv6-compatible processor rev 7 (v6l)\n\
                   BogoMIPS\t: 697.95\nFeatures\t: half thumb fastmult vfp edsp java tls\n\
                   CPU implementer\t: 0x41\nCPU architecture: 7\nCPU variant\t: 0x0\n\n\
                   Hardware\t: BCM2835\n";
        let pi2 = "processor\t: 0\nmodel name\t: ARMv7 Processor rev 5 (v7l)\n\
                   Features\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt\n\
                   CPU implementer\t: 0x41\nCPU architecture: 7\nCPU part\t: 0xc07\n";
        // Kernels before 3.8 begin with what all processors share.
        let old = "Processor\t: ARMv7 Processor rev 10 (v7l)\nprocessor\t: 0\nBogoMIPS\t: 1581.05\n\n\
                   Features\t: swp half thumb\nCPU implementer\t: 0x41\nCPU architecture: 7\n";
        let graviton = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd evtstrm aes\n\
                        CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\n";
        let first64 = graviton.replace(": 8", ": AArch64");
        let said = |text: &str| format!("processor\t: 0\nCPU architecture: {text}\n");
        for (architecture, cpuinfo, machine, expected) in [
            (Arch::ARM, pi1, "armv6l", Some("v6")),
            (Arch::ARM, pi2, "armv7l", Some("v7")),
            (Arch::ARM, old, "armv7l", Some("v7")),
            // A 32-bit program of a 64-bit kernel.
            (Arch::ARM, graviton, "armv8l", Some("v8")),
            (Arch::ARM64, graviton, "aarch64", Some("v8")),
            (Arch::ARM64, &first64, "aarch64", Some("v8")),
            (Arch::ARM, &said("5TEJ"), "armv5tejl", Some("v5")),
            (Arch::ARM, &said("6TEJ"), "armv6l", Some("v6")),
            (Arch::ARM, &said("?(17)"), "armv7l", Some("v7")),
            (Arch::ARM, &said("?(99)"), "armv7l", None),
            // On an emulated machine, the name tells it.
            (Arch::ARM, &x86(V1), "armv7l", Some("v7")),
            (Arch::ARM, "", "armv8l", Some("v8")),
            (Arch::ARM, "", "armv6l", Some("v6")),
            (Arch::ARM, "", "armv5tel", Some("v5")),
            (Arch::ARM64, &x86(V1), "aarch64", Some("v8")),
            (Arch::ARM, "", "armv", None),
            (Arch::ARM, "", "x86_64", None),
            (Arch::RISCV64, graviton, "riscv64", None),
            (Arch::s390x, graviton, "armv7l", None),
        ] {
            let found = variant(&architecture, cpuinfo, machine);
            assert_eq!(found.as_deref(), expected, "{machine}: {cpuinfo}");
        }
    }

    #[test]
    fn the_kernel_is_asked_without_changing_this_thread() {
        let own = || std::fs::read_to_string("/proc/thread-self/personality").expect("a number");
        let before = own();
        // PER_LINUX, which every kernel has.
        assert!(takes_personality(0));
        if cfg!(target_arch = "x86_64") {
            assert!(takes_personality(PER_LINUX32));
        }
        assert_eq!(own(), before);
    }
}
