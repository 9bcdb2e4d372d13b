//! What a filter does with a call.

use crate::error::ContainerError;
use crate::sys;
use libseccomp::ScmpAction;
use oci_spec::runtime::LinuxSeccompAction as Action;

/// All that the specification has a name for.
pub const ALL: [Action; 9] = [
    Action::ScmpActKill,
    Action::ScmpActKillThread,
    Action::ScmpActKillProcess,
    Action::ScmpActTrap,
    Action::ScmpActErrno,
    Action::ScmpActNotify,
    Action::ScmpActTrace,
    Action::ScmpActLog,
    Action::ScmpActAllow,
];

/// The largest error number that libseccomp takes. The kernel's own limit is one more (`MAX_ERRNO`,
/// `linux/err.h`), and the largest that has a meaning is 133.
const LARGEST_ERRNO: u32 = 4094;

/// The action with its number; `action_field` and `errno_field` name them in errors.
pub fn lower(
    action: Action,
    errno: Option<u32>,
    action_field: &str,
    errno_field: &str,
) -> Result<ScmpAction, ContainerError> {
    if !available(action) {
        let reason = format!(
            "{action}: the running kernel does not offer it (/proc/sys/kernel/seccomp/actions_avail)"
        );
        return Err(ContainerError::unsupported(action_field, reason));
    }
    let number = errno.unwrap_or(libc::EPERM as u32);
    let bounded = |largest: u32, what: &str| {
        if number <= largest {
            Ok(number)
        } else {
            let reason = format!("{number} is above {largest}, the largest {what}");
            Err(ContainerError::invalid(errno_field, reason))
        }
    };
    match action {
        Action::ScmpActErrno => {
            return Ok(ScmpAction::Errno(
                bounded(LARGEST_ERRNO, "error number")? as i32
            ));
        }
        Action::ScmpActTrace => {
            let message = bounded(u32::from(u16::MAX), "message for a tracer")?;
            return Ok(ScmpAction::Trace(message as u16));
        }
        _ => {}
    }
    if errno.is_some() {
        // The specification wants an error here, since the number would have no effect.
        let reason = format!("{action} takes no number, only ERRNO and TRACE do");
        return Err(ContainerError::invalid(errno_field, reason));
    }
    Ok(match action {
        Action::ScmpActKillProcess => ScmpAction::KillProcess,
        Action::ScmpActTrap => ScmpAction::Trap,
        Action::ScmpActNotify => ScmpAction::Notify,
        Action::ScmpActLog => ScmpAction::Log,
        Action::ScmpActAllow => ScmpAction::Allow,
        _ => ScmpAction::KillThread,
    })
}

/// Whether the running kernel offers the action (`SECCOMP_GET_ACTION_AVAIL`).
pub fn available(action: Action) -> bool {
    const ACTION: u32 = 0xffff_0000; // SECCOMP_RET_ACTION_FULL
    sys::seccomp_has_action(action.as_u32(None) & ACTION)
}
