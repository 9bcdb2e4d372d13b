//! Architectures of the specification, of the library, and of the kernel.

use libseccomp::ScmpArch;
use oci_spec::runtime::Arch;

/// `__X32_SYSCALL_BIT` (`asm/unistd.h`): how x86-64 tells the calls of x32 from its own.
pub const X32_BIT: u32 = 0x4000_0000;

/// All that the specification has a name for.
pub const ALL: [Arch; 24] = [
    Arch::ScmpArchNative,
    Arch::ScmpArchX86,
    Arch::ScmpArchX86_64,
    Arch::ScmpArchX32,
    Arch::ScmpArchArm,
    Arch::ScmpArchAarch64,
    Arch::ScmpArchMips,
    Arch::ScmpArchMips64,
    Arch::ScmpArchMips64n32,
    Arch::ScmpArchMipsel,
    Arch::ScmpArchMipsel64,
    Arch::ScmpArchMipsel64n32,
    Arch::ScmpArchPpc,
    Arch::ScmpArchPpc64,
    Arch::ScmpArchPpc64le,
    Arch::ScmpArchS390,
    Arch::ScmpArchS390x,
    Arch::ScmpArchParisc,
    Arch::ScmpArchParisc64,
    Arch::ScmpArchRiscv64,
    Arch::ScmpArchLoongarch64,
    Arch::ScmpArchM68k,
    Arch::ScmpArchSh,
    Arch::ScmpArchSheb,
];

/// The library's word for it.
pub fn library(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
    }
}

/// What this program was built for.
pub fn native() -> Arch {
    let name = std::env::consts::ARCH;
    let little = cfg!(target_endian = "little");
    let wide = cfg!(target_pointer_width = "64");
    match (name, little, wide) {
        ("x86_64", _, true) => Arch::ScmpArchX86_64,
        ("x86_64", _, false) => Arch::ScmpArchX32,
        ("x86", ..) => Arch::ScmpArchX86,
        ("arm", ..) => Arch::ScmpArchArm,
        ("aarch64", ..) => Arch::ScmpArchAarch64,
        ("mips", false, _) => Arch::ScmpArchMips,
        ("mips", true, _) => Arch::ScmpArchMipsel,
        ("mips64", false, _) => Arch::ScmpArchMips64,
        ("mips64", true, _) => Arch::ScmpArchMipsel64,
        ("powerpc", ..) => Arch::ScmpArchPpc,
        ("powerpc64", false, _) => Arch::ScmpArchPpc64,
        ("powerpc64", true, _) => Arch::ScmpArchPpc64le,
        ("s390x", ..) => Arch::ScmpArchS390x,
        ("riscv64", ..) => Arch::ScmpArchRiscv64,
        ("loongarch64", ..) => Arch::ScmpArchLoongarch64,
        ("m68k", ..) => Arch::ScmpArchM68k,
        // The library finds out by itself.
        _ => Arch::ScmpArchNative,
    }
}

/// The architectures a filter for this list covers: what the program was built for comes first,
/// whether listed or not, and none comes twice.
pub fn covered(list: &[Arch]) -> Vec<Arch> {
    let mut covered = vec![native()];
    for arch in list {
        let arch = match arch {
            Arch::ScmpArchNative => native(),
            arch => *arch,
        };
        if !covered.contains(&arch) {
            covered.push(arch);
        }
    }
    covered
}

/// `AUDIT_ARCH_*` (`linux/audit.h`), which is what a filter sees.
pub fn audit(arch: Arch) -> u32 {
    match arch {
        Arch::ScmpArchX32 => Arch::ScmpArchX86_64 as u32,
        arch => arch as u32,
    }
}
