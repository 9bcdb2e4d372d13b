//! Flags of `seccomp(2)`.

use crate::error::ContainerError;
use crate::sys::{self, filter_flag};
use oci_spec::runtime::LinuxSeccompFilterFlag as Flag;

/// All that the specification has a name for.
pub const ALL: [Flag; 4] = [
    Flag::SeccompFilterFlagLog,
    Flag::SeccompFilterFlagTsync,
    Flag::SeccompFilterFlagSpecAllow,
    Flag::SeccompFilterFlagWaitKillableRecv,
];

fn bit(flag: Flag) -> u32 {
    match flag {
        Flag::SeccompFilterFlagLog => filter_flag::LOG,
        Flag::SeccompFilterFlagTsync => filter_flag::TSYNC,
        Flag::SeccompFilterFlagSpecAllow => filter_flag::SPEC_ALLOW,
        Flag::SeccompFilterFlagWaitKillableRecv => filter_flag::WAIT_KILLABLE_RECV,
    }
}

/// Whether the running kernel knows the flag.
pub fn available(flag: Flag) -> bool {
    // This one is refused without a listener, known or not.
    let with = match flag {
        Flag::SeccompFilterFlagWaitKillableRecv => filter_flag::NEW_LISTENER,
        _ => 0,
    };
    sys::seccomp_has_flags(bit(flag) | with)
}

/// The flags for the system call. A flag that the kernel lacks is refused by name.
///
/// A profile without a list (which is another thing than an empty one) gets `SPEC_ALLOW`, as with
/// runc: before 5.16 kernels slow down every program under a filter else, by a mitigation that
/// programs which need it can ask for themselves.
pub fn lower(flags: Option<&[Flag]>, notifies: bool) -> Result<u32, ContainerError> {
    let mut bits = 0;
    if flags.is_none() && available(Flag::SeccompFilterFlagSpecAllow) {
        bits |= filter_flag::SPEC_ALLOW;
    }
    for (i, flag) in flags.into_iter().flatten().enumerate() {
        if !available(*flag) {
            let reason = format!("{flag}: the running kernel does not offer it");
            return Err(ContainerError::unsupported(
                format!("linux.seccomp.flags[{i}]"),
                reason,
            ));
        }
        bits |= bit(*flag);
    }
    if notifies {
        bits |= filter_flag::NEW_LISTENER;
        if bits & filter_flag::TSYNC != 0 {
            // Both would be told by the one result; with this one the thread is not.
            bits |= filter_flag::TSYNC_ESRCH;
        }
    } else {
        // It is about waiting for an answer to a notification, of which there are none; the
        // kernel refuses it then.
        bits &= !filter_flag::WAIT_KILLABLE_RECV;
    }
    Ok(bits)
}
