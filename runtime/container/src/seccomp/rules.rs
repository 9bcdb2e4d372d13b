//! From the specification's list of system calls to rules that do not contradict each other.
//!
//! The library takes contradicting rules silently: an unconditional one always wins over one with
//! conditions, and of two unconditional ones the first. Somebody who forbids one use of a call that
//! the list allows in general would believe to be protected. So such lists are refused here, but
//! for the last kind: the default profile of podman (containers-common, `seccomp.json`) both allows
//! `setns` and forbids it, in this order, and allows it everywhere.

use super::action;
use crate::error::ContainerError;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpSyscall};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use std::collections::HashMap;

/// More rules than that cannot be compiled: each needs an instruction, and the kernel takes 4096
/// (`BPF_MAXINSNS`).
const MAX_RULES: usize = 4096;

/// How many arguments a system call has at most.
const ARGUMENTS: usize = 6;

/// Where the profile says something about a call. Written out only in errors: there are hundreds.
#[derive(Clone, Copy)]
pub struct Place {
    entry: usize,
    name: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { entry, name } = self;
        write!(f, "linux.seccomp.syscalls[{entry}].names[{name}]")
    }
}

/// One rule for one system call.
pub struct Rule<'a> {
    pub place: Place,
    pub name: &'a str,
    /// The native number; negative where only another architecture has the call.
    pub call: ScmpSyscall,
    pub action: ScmpAction,
    /// All must hold.
    pub conditions: Vec<ScmpArgCompare>,
}

/// A checked profile.
pub struct Rules<'a> {
    pub default: ScmpAction,
    pub list: Vec<Rule<'a>>,
    /// Whether any rule asks an agent.
    pub notifies: bool,
}

impl<'a> Rules<'a> {
    /// Checks everything about the profile's actions and calls, and lowers them.
    pub fn of(profile: &'a LinuxSeccomp) -> Result<Self, ContainerError> {
        let default = action::lower(
            profile.default_action(),
            profile.default_errno_ret(),
            "linux.seccomp.defaultAction",
            "linux.seccomp.defaultErrnoRet",
        )?;
        if default == ScmpAction::Notify {
            let reason = "SCMP_ACT_NOTIFY: the runtime itself could not report that the filter is \
                          in place; name the calls that it is meant for";
            return Err(ContainerError::unsupported(
                "linux.seccomp.defaultAction",
                reason,
            ));
        }
        let mut builder = Builder {
            default,
            calls: HashMap::new(),
            list: Vec::new(),
        };
        for (i, entry) in profile.syscalls().iter().flatten().enumerate() {
            builder.add_entry(i, entry)?;
        }
        let notifies = builder.list.iter().any(|r| r.action == ScmpAction::Notify);
        Ok(Self {
            default,
            list: builder.list,
            notifies,
        })
    }
}

/// What is decided about one call so far, and where.
#[derive(Default)]
struct Decided {
    always: Option<(ScmpAction, Place)>,
    /// By conditions.
    sometimes: HashMap<Vec<ScmpArgCompare>, (ScmpAction, Place)>,
}

struct Builder<'a> {
    default: ScmpAction,
    calls: HashMap<&'a str, Decided>,
    list: Vec<Rule<'a>>,
}

impl<'a> Builder<'a> {
    fn add_entry(&mut self, i: usize, entry: &'a LinuxSyscall) -> Result<(), ContainerError> {
        let field = format!("linux.seccomp.syscalls[{i}]");
        let action = action::lower(
            entry.action(),
            entry.errno_ret(),
            &format!("{field}.action"),
            &format!("{field}.errnoRet"),
        )?;
        let alternatives = alternatives(&field, entry.args().as_deref().unwrap_or_default())?;
        if entry.names().is_empty() {
            return Err(ContainerError::invalid(
                format!("{field}.names"),
                "names no system call",
            ));
        }
        for (j, name) in entry.names().iter().enumerate() {
            let place = Place { entry: i, name: j };
            if name.is_empty() {
                return Err(ContainerError::invalid(place.to_string(), "is empty"));
            }
            if name == "write" && entry.action() == LinuxSeccompAction::ScmpActNotify {
                let reason = "SCMP_ACT_NOTIFY for write: the runtime needs it to report that the \
                              filter is in place, before the agent can answer";
                return Err(ContainerError::unsupported(place.to_string(), reason));
            }
            for conditions in &alternatives {
                self.add(place, name, action, conditions)?;
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        place: Place,
        name: &'a str,
        action: ScmpAction,
        conditions: &[ScmpArgCompare],
    ) -> Result<(), ContainerError> {
        let decided = self.calls.entry(name).or_default();
        let contradiction = |other: &Place, what: &str| {
            let reason = format!("{name}: {other} {what}, with another action");
            Err(ContainerError::invalid(place.to_string(), reason))
        };
        match &decided.always {
            // Which of the two counts where one is the default's, implementations do not agree on.
            Some((other, at))
                if *other != action
                    && (!conditions.is_empty() || [action, *other].contains(&self.default)) =>
            {
                return contradiction(at, "decides about this call already");
            }
            Some(_) => return Ok(()), // said already; the first counts
            None => {}
        }
        if conditions.is_empty() {
            if let Some((_, at)) = decided.sometimes.values().find(|(a, _)| *a != action) {
                return contradiction(at, "decides about some uses of this call");
            }
            decided.always = Some((action, place));
        } else {
            match decided.sometimes.get(conditions) {
                Some((other, at)) if *other != action => {
                    return contradiction(at, "has the same conditions");
                }
                Some(_) => return Ok(()),
                None => {}
            }
            let value = (action, place);
            decided.sometimes.insert(conditions.to_vec(), value);
        }
        if action == self.default {
            return Ok(()); // what happens anyway; the library refuses to be told
        }
        // A name that the library does not know is of a newer kernel or another system: passed
        // over, as the specification's other implementations do.
        let Ok(call) = ScmpSyscall::from_name(name) else {
            return Ok(());
        };
        if self.list.len() == MAX_RULES {
            let reason = format!("more than {MAX_RULES} rules, which no program can hold");
            return Err(ContainerError::invalid(place.to_string(), reason));
        }
        self.list.push(Rule {
            place,
            name,
            call,
            action,
            conditions: conditions.to_vec(),
        });
        Ok(())
    }
}

/// The sets of conditions of which one has to hold. Conditions on different arguments belong
/// together; as soon as two are about the same argument, each stands for itself, as the
/// specification's first implementation has it and profiles rely on.
fn alternatives(
    field: &str,
    args: &[LinuxSeccompArg],
) -> Result<Vec<Vec<ScmpArgCompare>>, ContainerError> {
    let mut conditions = Vec::new();
    let mut seen = [false; ARGUMENTS];
    let mut repeated = false;
    for (i, arg) in args.iter().enumerate() {
        let field = format!("{field}.args[{i}]");
        let Some(seen) = seen.get_mut(arg.index()) else {
            let reason = format!("{} is not an argument: they are 0 to 5", arg.index());
            return Err(ContainerError::invalid(format!("{field}.index"), reason));
        };
        repeated |= std::mem::replace(seen, true);
        conditions.push(condition(&field, arg)?);
    }
    Ok(if repeated {
        conditions.into_iter().map(|one| vec![one]).collect()
    } else {
        vec![conditions]
    })
}

fn condition(field: &str, arg: &LinuxSeccompArg) -> Result<ScmpArgCompare, ContainerError> {
    use LinuxSeccompOperator as Op;
    let second = arg.value_two().unwrap_or(0);
    if second != 0 && arg.op() != Op::ScmpCmpMaskedEq {
        let reason = format!(
            "only SCMP_CMP_MASKED_EQ takes a second value, not {}",
            arg.op()
        );
        return Err(ContainerError::invalid(format!("{field}.valueTwo"), reason));
    }
    let (op, value) = match arg.op() {
        Op::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        Op::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        Op::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        Op::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        Op::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        Op::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        Op::ScmpCmpMaskedEq => (ScmpCompareOp::MaskedEqual(arg.value()), second),
    };
    Ok(ScmpArgCompare::new(arg.index() as u32, op, value))
}
