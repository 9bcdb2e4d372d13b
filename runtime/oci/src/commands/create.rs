//! `create`.

use super::Context;
use crate::args::{self, CgroupManager};
use crate::bundle::{self, Bundle};
use crate::error::OciError;
use crate::store::{Entry, Saved, write_pid};
use crate::time;
use crate::tty;
use container::cgroup::Existing;
use container::hooks::{self, Point};
use container::{
    CgroupPath, ContainerError, CreateOptions, Created, Rootfs, connect_console, process,
};
use oci_spec::runtime::{ContainerState, Spec};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use systemd::{Manager, UnitPath};

pub fn run(context: &Context<'_>, args: args::Create) -> Result<ExitCode, OciError> {
    let console = args
        .console_socket
        .as_deref()
        .map(connect_console)
        .transpose()?;
    let bundle = Bundle::read(&args.bundle)?;
    create(
        context,
        &args,
        &bundle,
        console,
        Starter::Anyone,
        Created::detach,
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Who starts the program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Starter {
    /// This process.
    Own,
    /// Whoever comes to the container's start socket.
    Anyone,
}

/// A container that waits for its start, and what `last` makes of it: if that fails, the container
/// is unmade.
pub fn create<T>(
    context: &Context<'_>,
    args: &args::Create,
    bundle: &Bundle,
    console: Option<OwnedFd>,
    starter: Starter,
    last: impl FnOnce(Created) -> Result<T, ContainerError>,
) -> Result<(Entry, T), OciError> {
    let place = place(context, &args.id, &bundle.spec)?;
    let (cgroup, systemd) = match place {
        Place::None => (None, None),
        Place::Cgroup(path) => (Some(path), None),
        Place::Unit(unit, manager) => (Some(manager.cgroup(&unit)?), Some((unit, manager))),
    };
    let own = nix::unistd::getpid().as_raw();
    let saved = Saved {
        id: args.id.clone(),
        bundle: bundle.directory.clone(),
        rootfs: bundle.root()?,
        created: time::rfc3339(time::now()),
        owner: nix::unistd::geteuid().as_raw(),
        cgroup,
        unit: systemd.as_ref().map(|(unit, _)| unit.clone()),
        creator: Some((own, process::start_time(own)?)),
        process: None,
    };
    let cgroup = saved.cgroup.as_ref().map(ToString::to_string);
    let (root, cgroup) = (saved.rootfs.display(), cgroup.unwrap_or_default());
    context.log.debug(&format!(
        "create {}: root {root}, cgroup {cgroup}",
        saved.id
    ));
    let mut entry = context.store.add(saved, &bundle.text)?;
    let make = |entry| {
        let created = make(context, args, bundle, console, starter, entry)?;
        let done = last(created);
        if let (Err(_), Some(path)) = (&done, &args.pid_file) {
            let _ = std::fs::remove_file(path); // the error that led here is the one to report
        }
        Ok(done?)
    };
    let made = match systemd {
        None => make(&mut entry),
        Some((unit, mut manager)) => {
            in_unit(context, &unit, &mut manager, &bundle.spec, &args.id, || {
                make(&mut entry)
            })
        }
    };
    match made {
        Ok(done) => Ok((entry, done)),
        Err(error) => {
            // Nothing is left but the entry; the error that led here is the one to report.
            run_poststop(context, &bundle.spec, &entry);
            entry.forget()?;
            Err(error)
        }
    }
}

fn make(
    context: &Context<'_>,
    args: &args::Create,
    bundle: &Bundle,
    console: Option<OwnedFd>,
    starter: Starter,
    entry: &mut Entry,
) -> Result<Created, OciError> {
    let mut spec = bundle.spec.clone();
    let mut options = CreateOptions::new(Rootfs::Directory(entry.saved.rootfs.clone()));
    let listening = inherited(&mut spec, args.preserve_fds);
    resolve_sources(&mut spec, &bundle.directory);
    options.cgroup = entry.saved.cgroup.clone();
    if context.cgroups == CgroupManager::Disabled
        && let Some(linux) = spec.linux_mut()
    {
        // Who says so knows that there are no limits then.
        linux.set_cgroups_path(None).set_resources(None);
    }
    options.existing_cgroup = match entry.saved.unit {
        Some(_) => Existing::Managed,
        None => Existing::UseEmpty,
    };
    options.stdio = tty::stdio(console.is_some())?;
    options.console = console;
    options.seccomp = context.filter(&spec)?;
    options.preserve_fds = listening;
    options.identity = Some(entry.identity());
    options.start_socket = (starter == Starter::Anyone).then(|| entry.start_socket());
    options.no_pivot = args.no_pivot;
    options.no_new_keyring = args.no_new_keyring;
    let created = container::create(&spec, options)?;
    entry.saved.process = Some((created.pid(), process::start_time(created.pid())?));
    entry.save()?;
    if let Some(path) = &args.pid_file {
        write_pid(path, created.pid())?;
    }
    let unknown = bundle::warning(&bundle.unknown).into_iter();
    let warnings = created.warnings().iter().map(ToString::to_string);
    for warning in unknown.chain(warnings) {
        context.log.warning(&warning);
    }
    Ok(created)
}

/// How many descriptors the program inherits, those of LISTEN_FDS among them
/// (sd_listen_fds(3)); tells the program of these.
fn inherited(spec: &mut Spec, preserve: u32) -> u32 {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    // Those of somebody else, who has left the variables to us, are not there.
    let ours = number("LISTEN_PID") == Some(std::process::id());
    let count = number("LISTEN_FDS").filter(|_| ours).unwrap_or(0);
    if let Some(process) = spec.process_mut()
        && count > 0
    {
        let env = process.env_mut().get_or_insert_with(Vec::new);
        env.retain(|v| !v.starts_with("LISTEN_FDS=") && !v.starts_with("LISTEN_PID="));
        env.push(format!("LISTEN_FDS={count}"));
        env.push("LISTEN_PID=1".into());
        if let Ok(names) = std::env::var("LISTEN_FDNAMES") {
            env.push(format!("LISTEN_FDNAMES={names}"));
        }
    }
    preserve.saturating_add(count) // those that are not open are told by the library
}

/// Sources of bind mounts are relative to the bundle (config.md, "Mounts").
fn resolve_sources(spec: &mut Spec, bundle: &Path) {
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let mut options = mount.options().iter().flatten();
        let bind = mount.typ().as_deref() == Some("bind")
            || options.any(|option| option == "bind" || option == "rbind");
        if let Some(source) = mount.source().as_ref().filter(|s| s.is_relative())
            && bind
            && !source.as_os_str().is_empty()
        {
            let source = bundle.join(source);
            mount.set_source(Some(source));
        }
    }
}

/// Where the configuration puts its cgroup; nowhere without one.
pub fn cgroup(
    context: &Context<'_>,
    id: &str,
    spec: &Spec,
) -> Result<Option<CgroupPath>, OciError> {
    Ok(match place(context, id, spec)? {
        Place::None => None,
        Place::Cgroup(path) => Some(path),
        Place::Unit(unit, manager) => Some(manager.cgroup(&unit)?),
    })
}

/// Where the container's cgroup is to be, and who makes it.
enum Place {
    None,
    Cgroup(CgroupPath),
    Unit(UnitPath, Manager),
}

fn place(context: &Context<'_>, id: &str, spec: &Spec) -> Result<Place, OciError> {
    let linux = spec.linux().as_ref();
    let path = linux.and_then(|l| l.cgroups_path().as_ref());
    let path = path.map(|path| path.to_string_lossy());
    Ok(match context.cgroups {
        CgroupManager::Disabled => Place::None,
        CgroupManager::Cgroupfs => Place::Cgroup(CgroupPath::from_spec(path.as_deref(), id)?),
        CgroupManager::Systemd => {
            let unit = UnitPath::from_spec(path.as_deref(), id)?;
            Place::Unit(unit, Manager::connect()?)
        }
    })
}

/// Has systemd make the unit, and then makes the container in it.
fn in_unit<T>(
    context: &Context<'_>,
    unit: &UnitPath,
    manager: &mut Manager,
    spec: &Spec,
    id: &str,
    make: impl FnOnce() -> Result<T, OciError>,
) -> Result<T, OciError> {
    let held = manager.start(unit, id, spec)?; // a unit that is not ours is not touched
    let made = make();
    drop(held); // from now on the container holds it
    if made.is_err()
        && let Err(error) = manager.stop(unit)
    {
        context.log.warning(&error.to_string());
    }
    made
}

/// A hook that fails then cannot change anything any more.
pub fn run_poststop(context: &Context<'_>, spec: &Spec, entry: &Entry) {
    let state = entry.identity().state(spec, ContainerState::Stopped, None);
    for failure in hooks::run_all(spec, Point::Poststop, &state) {
        context.log.warning(&failure.to_string());
    }
}
