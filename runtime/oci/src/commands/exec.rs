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
    let master = match written.and_then(|()| master.transpose()) {
        Ok(master) => master,
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
    let relay = master.map(tty::Relay::new);
    let exit = foreground::wait(started.pid, &started.pidfd, relay)?;
    Ok(foreground::exit_code(exit))
}

/// The container's own, or one below it.
fn cgroup(args: &args::Exec, entry: &Entry) -> Result<Option<container::Cgroup>, OciError> {
    let cgroup = entry.cgroup()?;
    match (&args.cgroup, cgroup) {
        (Some(below), Some(cgroup)) => Ok(Some(cgroup.below(below)?)),
        (Some(_), None) => freeze::required(entry).map(Some),
        (None, cgroup) => Ok(cgroup),
    }
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
            if process.exec_cpu_affinity().is_none() {
                let own = spec.process().as_ref();
                process.set_exec_cpu_affinity(own.and_then(|p| p.exec_cpu_affinity().clone()));
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
        user.set_additional_gids(Some(args.additional_gids.clone()));
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
