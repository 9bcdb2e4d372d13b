//! What this runtime knows of seccomp, for the `features` command of the specification.

use super::{action, arch, flags};
use libseccomp::{ScmpAction, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{Arch, LinuxSeccompOperator as Op, Seccomp};

/// All that the specification has a name for.
const OPERATORS: [Op; 7] = [
    Op::ScmpCmpNe,
    Op::ScmpCmpLt,
    Op::ScmpCmpLe,
    Op::ScmpCmpEq,
    Op::ScmpCmpGe,
    Op::ScmpCmpGt,
    Op::ScmpCmpMaskedEq,
];

/// Actions, operators, architectures and flags. Actions and `knownFlags` are those of this
/// runtime; `supportedFlags` those of them that the running kernel offers, and `archs` those that
/// the installed libseccomp can put into a filter here.
pub fn known() -> Seccomp {
    let mut known = Seccomp::default();
    let names = |list: &[oci_spec::runtime::LinuxSeccompFilterFlag]| {
        list.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let supported: Vec<_> = flags::ALL
        .into_iter()
        .filter(|flag| flags::available(*flag))
        .collect();
    known
        .set_enabled(Some(true))
        .set_actions(Some(action::ALL.into()))
        .set_operators(Some(OPERATORS.iter().map(ToString::to_string).collect()))
        .set_archs(Some(arch::ALL.into_iter().filter(usable).collect()))
        .set_known_flags(Some(names(&flags::ALL)))
        .set_supported_flags(Some(names(&supported)));
    known
}

fn usable(arch: &Arch) -> bool {
    let arch = arch::library(*arch);
    // Both, since old versions of the library add what they do not know.
    ScmpSyscall::from_name_by_arch("read", arch).is_ok()
        && ScmpFilterContext::new(ScmpAction::Allow)
            .is_ok_and(|mut context| context.add_arch(arch).is_ok())
}
