//! `exec`.

use super::{Context, foreground, freeze};
use crate::args;
use crate::bundle;
use crate::error::OciError;
use crate::numbers;
use crate::store::{Entry, write_pid};
use crate::tty;
use container::{EnterOptions, Target, connect_console, enter, parse_capability, process};
use oci_spec::runtime::{BoxBuilder, Capabilities, LinuxCapabilities, Process, Spec};
use std::process::ExitCode;

pub fn run(context: &Context<'_>, args: Box<args::Exec>) -> Result<ExitCode, OciError> {
    let entry = context.store.look(&args.id)?;
    let (pid, pidfd) = entry.running()?;
    if !args.ignore_paused && freeze::is_frozen(&entry)? {
        return Err(OciError::WrongStatus {
            id: args.id.clone(),
            status: "paused",
            wanted: "resume it first, or give --ignore-paused",
        });
    }
    let spec = entry.spec()?;
    let (mut program, unknown) = program(&args, &spec)?;
    if let Some(warning) = bundle::warning(&unknown) {
        context.log.warning(&warning);
    }
    let terminal = program.terminal() == Some(true);
    let (console, ours) = match &args.console_socket {
        Some(path) => (Some(connect_console(path)?), None),
        None if terminal && args.detach => {
            return Err(OciError::Option {
                option: "--detach",
                reason: "the program gets a terminal; give --console-socket too".into(),
            });
        }
        None if terminal => {
            // The program runs before we have the other side, and may ask for the size at once.
            if let Ok((rows, columns)) = container::size_of_terminal(std::io::stdin()) {
                let size = BoxBuilder::default().height(rows).width(columns).build();
                program.set_console_size(size.ok());
            }
            let (theirs, ours) = tty::console()?;
            (Some(theirs), Some(ours))
        }
        None => (None, None),
    };
    if !args.detach {
        foreground::prepare(false)?;
    }
    let cgroup = cgroup(&args, &entry)?;
    let identity = entry.identity();
    let target = Target {
        spec: &spec,
        pid,
        pidfd: &pidfd,
        cgroup: cgroup.as_ref(),
        identity: Some(&identity),
    };
    let options = EnterOptions {
        stdio: tty::stdio(console.is_some())?,
        console,
        preserve_fds: args.preserve_fds,
        seccomp: context.filter(&spec)?,
    };
    // Others may look at the container while the program runs.
    let _ = entry.unlock();
    let started = enter(&target, &program, options)?;
    for warning in &started.warnings {
        context.log.warning(&warning.to_string());
    }
    let written = match &args.pid_file {
        Some(path) => write_pid(path, started.pid),
        None => Ok(()),
    };
    let master = ours.as_ref().map(tty::receive);
    let relay = written.and_then(|()| {
        let master = master.transpose()?;
        master.map(tty::Relay::new).transpose()
    });
    let relay = match relay {
        Ok(relay) => relay,
        Err(error) => {
            // Nobody would know of it.
            process::signal(&started.pidfd, libc::SIGKILL)?;
            let _ = process::wait_child(&started.pidfd);
            return Err(error);
        }
    };
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let exit = foreground::wait(started.pid, &started.pidfd, relay)?;
    Ok(foreground::exit_code(exit))
}

/// The container's own, or one below it.
fn cgroup(args: &args::Exec, entry: &Entry) -> Result<Option<container::Cgroup>, OciError> {
    let below = match args.cgroup.as_slice() {
        [] => return entry.cgroup(),
        [path] if !path.contains(':') => path,
        // runc takes CONTROLLER:PATH too, more than once.
        several => {
            return Err(OciError::Option {
                option: "--cgroup",
                reason: format!(
                    "\"{}\": give one path, for all controllers; one for a single controller \
                     (CONTROLLER:PATH) is not supported",
                    several.join(" ")
                ),
            });
        }
    };
    Ok(Some(freeze::required(entry)?.below(below)?))
}

/// The process as the file says it, or the container's own with another command; and names of
/// capabilities in that file that nobody knows.
fn program(args: &args::Exec, spec: &Spec) -> Result<(Process, Vec<String>), OciError> {
    let option = |option: &'static str| move |reason| OciError::Option { option, reason };
    let mut unknown = Vec::new();
    let mut process = match &args.process {
        Some(path) => {
            let text = bundle::read_any(path)?;
            let mut process: Process;
            (process, unknown) = bundle::parse_known(path, &text, "")?;
            if let Some(own) = spec.process() {
                inherit(&mut process, own);
            }
            process
        }
        None => {
            let mut process = spec.process().clone().unwrap_or_default();
            process.set_args(Some(args.command.clone()));
            process.set_terminal(Some(false));
            process
        }
    };
    if args.tty {
        process.set_terminal(Some(true));
    }
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    if !args.env.is_empty() {
        let env = process.env_mut().get_or_insert_with(Vec::new);
        env.extend(args.env.iter().cloned());
    }
    if let Some(user) = &args.user {
        let (uid, gid) = numbers::user(user).map_err(option("--user"))?;
        process.user_mut().set_uid(uid);
        if let Some(gid) = gid {
            process.user_mut().set_gid(gid);
        }
    }
    if !args.additional_gids.is_empty() {
        let user = process.user_mut();
        let mut gids = user.additional_gids().clone().unwrap_or_default();
        gids.extend(&args.additional_gids);
        user.set_additional_gids(Some(gids));
    }
    if let Some(label) = &args.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if let Some(profile) = &args.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if args.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if !args.cap.is_empty() {
        let mut sets = process
            .capabilities()
            .clone()
            .unwrap_or_else(no_capabilities);
        add(&mut sets, &args.cap).map_err(option("--cap"))?;
        process.set_capabilities(Some(sets));
    }
    Ok((process, unknown))
}

/// What a file leaves out is the container's own: it would be less confined than the container else. As
/// with runc, but for `noNewPrivileges`, which runc takes for false then.
fn inherit(process: &mut Process, own: &Process) {
    let missing = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
    if missing(process.apparmor_profile()) {
        process.set_apparmor_profile(own.apparmor_profile().clone());
    }
    if missing(process.selinux_label()) {
        process.set_selinux_label(own.selinux_label().clone());
    }
    if process.no_new_privileges().is_none() {
        process.set_no_new_privileges(own.no_new_privileges());
    }
    if process.capabilities().is_none() {
        process.set_capabilities(own.capabilities().clone());
    }
    if process.rlimits().iter().flatten().next().is_none() {
        process.set_rlimits(own.rlimits().clone());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(own.exec_cpu_affinity().clone());
    }
}

fn no_capabilities() -> LinuxCapabilities {
    container::defaults::capability_sets(Capabilities::new())
}

fn add(sets: &mut LinuxCapabilities, names: &[String]) -> Result<(), String> {
    for name in names {
        let capability =
            parse_capability(name).ok_or_else(|| format!("\"{name}\" is no capability"))?;
        let with = |set: &Option<Capabilities>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        let (bounding, effective) = (with(sets.bounding()), with(sets.effective()));
        let permitted = with(sets.permitted());
        sets.set_bounding(bounding);
        sets.set_effective(effective);
        sets.set_permitted(permitted);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_leaves_out() {
        let process = |more: &str| -> Process {
            let text = format!(r#"{{"cwd":"/","user":{{"uid":0,"gid":0}}{more}}}"#);
            serde_json::from_str(&text).expect("process")
        };
        let own = process(
            r#","apparmorProfile":"own","selinuxLabel":"a:b:c","noNewPrivileges":true,
            "capabilities":{"bounding":["CAP_KILL"]},
            "rlimits":[{"type":"RLIMIT_CORE","soft":0,"hard":0}]"#,
        );
        for little in [
            "",
            r#","apparmorProfile":"","selinuxLabel":"","rlimits":[]"#,
        ] {
            let mut program = process(little);
            inherit(&mut program, &own);
            assert_eq!(program, own);
        }
        let full = process(
            r#","apparmorProfile":"other","selinuxLabel":"d:e:f","noNewPrivileges":false,
            "capabilities":{},"rlimits":[{"type":"RLIMIT_CORE","soft":1,"hard":1}]"#,
        );
        let mut program = full.clone();
        inherit(&mut program, &own);
        assert_eq!(program, full);
    }
}
