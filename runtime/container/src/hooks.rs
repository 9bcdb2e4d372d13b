//! Hooks: programs of the bundle's author that run at points of a container's life (config.md,
//! "POSIX-platform Hooks").

use crate::error::{ContainerError, Context, Setup, SetupFailure};
use crate::process;
use crate::sys;
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::{ContainerState, Hook, Spec, State, StateBuilder};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// How much of a failed hook's output an error shows, in bytes; its end says most.
const SHOWN: u64 = 2048;

/// What a state says of a container that its specification does not.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The container's id.
    pub id: String,
    /// The directory of its bundle.
    pub bundle: PathBuf,
}

impl Identity {
    /// The state as hooks read it on their standard input (runtime.md, "State").
    pub fn state(&self, spec: &Spec, status: ContainerState, pid: Option<i32>) -> State {
        let mut state = StateBuilder::default()
            .version(crate::defaults::OCI_VERSION)
            .id(self.id.clone())
            .status(status)
            .bundle(self.bundle.clone());
        if let Some(pid) = pid {
            state = state.pid(pid);
        }
        if let Some(annotations) = spec.annotations() {
            state = state.annotations(annotations.clone());
        }
        state.build().unwrap_or_default() // version, id, status and bundle are all it wants
    }
}

/// The points in a container's life, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Namespaces and mounts stand; called in those of the runtime. Deprecated.
    Prestart,
    /// The same moment, after those.
    CreateRuntime,
    /// The same moment, inside the container's namespaces, before its root is entered.
    CreateContainer,
    /// Inside the container, before its program is executed.
    StartContainer,
    /// In the runtime's namespaces, when the program runs.
    Poststart,
    /// In the runtime's namespaces, when the container is deleted.
    Poststop,
}

impl Point {
    /// Its name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];
}

/// The hooks of a specification for one point.
#[allow(deprecated)] // prestart, which bundles still have
pub fn at(spec: &Spec, point: Point) -> &[Hook] {
    let Some(hooks) = spec.hooks() else {
        return &[];
    };
    let list = match point {
        Point::Prestart => hooks.prestart(),
        Point::CreateRuntime => hooks.create_runtime(),
        Point::CreateContainer => hooks.create_container(),
        Point::StartContainer => hooks.start_container(),
        Point::Poststart => hooks.poststart(),
        Point::Poststop => hooks.poststop(),
    };
    list.as_deref().unwrap_or_default()
}

/// Refuses hooks that cannot be run.
pub fn check(spec: &Spec) -> Result<(), ContainerError> {
    for point in Point::ALL {
        for (i, hook) in at(spec, point).iter().enumerate() {
            let invalid = |field: &str, reason: &str| {
                let field = format!("hooks.{}[{i}].{field}", point.name());
                Err(ContainerError::invalid(field, reason))
            };
            if !hook.path().is_absolute() {
                return invalid("path", "not an absolute path");
            }
            if hook.path().as_os_str().as_encoded_bytes().contains(&0) {
                return invalid("path", "holds a NUL byte");
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                return invalid("timeout", "must be above zero");
            }
            let strings = hook.args().iter().chain(hook.env().iter()).flatten();
            if strings.into_iter().any(|text| text.contains('\0')) {
                return invalid("args", "holds a NUL byte");
            }
        }
    }
    Ok(())
}

/// Runs the hooks of one point, one after the other, each with `state` on its standard input.
///
/// # Errors
/// One could not be started, failed, or took too long (then it is killed); those after it do not
/// run.
pub fn run(spec: &Spec, point: Point, state: &State) -> Setup<()> {
    let mut failed = Ok(());
    each(spec, point, state, |outcome| {
        failed = outcome;
        failed.is_ok()
    });
    failed
}

/// As [`run`], but those after one that failed run too, and what failed is told: for
/// [`Point::Poststop`], after which life goes on (runtime.md, "Lifecycle", 13).
pub fn run_all(spec: &Spec, point: Point, state: &State) -> Vec<SetupFailure> {
    let mut failures = Vec::new();
    each(spec, point, state, |outcome| {
        failures.extend(outcome.err());
        true
    });
    failures
}

/// Runs the hooks of one point as long as `go_on`, which is told what became of each, says so.
fn each(spec: &Spec, point: Point, state: &State, mut go_on: impl FnMut(Setup<()>) -> bool) {
    let hooks = at(spec, point);
    if hooks.is_empty() {
        return;
    }
    let state = match serde_json::to_vec(state) {
        Ok(state) => state,
        Err(error) => {
            let reason = error.to_string();
            go_on(Err(SetupFailure::because(
                "write state for",
                point.name(),
                reason,
            )));
            return;
        }
    };
    for (i, hook) in hooks.iter().enumerate() {
        let name = format!("{}[{i}] ({})", point.name(), hook.path().display());
        if !go_on(one(hook, &state, &name)) {
            return;
        }
    }
}

/// A file without a name: whoever reads or writes it blocks nobody.
fn unnamed(name: &Path) -> Setup<File> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC).step("make", "file in memory")?;
    Ok(fd.into())
}

fn one(hook: &Hook, state: &[u8], name: &str) -> Setup<()> {
    let mut input = unnamed(Path::new("state"))?;
    input
        .write_all(state)
        .and_then(|()| input.rewind())
        .step("write state for hook", name)?;
    let output = unnamed(Path::new("output"))?;
    let duplicate = || output.try_clone().step("duplicate", "file in memory");
    let mut command = Command::new(hook.path());
    let mut args = hook.args().iter().flatten();
    if let Some(first) = args.next() {
        command.arg0(first);
    }
    command.args(args).env_clear();
    for variable in hook.env().iter().flatten() {
        let (key, value) = variable.split_once('=').unwrap_or((variable, ""));
        command.env(key, value);
    }
    command
        .stdin(input)
        .stdout(duplicate()?)
        .stderr(duplicate()?);
    // A foreground `run` has blocked its signals. And who ends the runtime ends what hangs with it.
    sys::set_apart(&mut command);
    let mut child = command.spawn().step("start hook", name)?;
    let pidfd = sys::pidfd_open(child.id() as i32).step("open process of hook", name)?;
    let timeout = hook
        .timeout()
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(Duration::from_secs);
    let ended = process::wait_ended(&pidfd, timeout)
        .map_err(|error| SetupFailure::because("wait for hook", name, error.to_string()))?;
    if !ended {
        let _ = child.kill(); // ended in this moment is as good
    }
    let status = child.wait().step("wait for hook", name)?;
    if ended && status.success() {
        return Ok(());
    }
    let mut reason = if ended {
        outcome(status)
    } else {
        format!("killed after {} s", timeout.map_or(0, |t| t.as_secs()))
    };
    let said = tail(output);
    if !said.is_empty() {
        reason = format!("{reason}: {said}");
    }
    Err(SetupFailure::because("run hook", name, reason))
}

fn outcome(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    process::Exit::from_wait_status(status.into_raw()).to_string()
}

fn tail(mut output: File) -> String {
    let mut text = Vec::new();
    let length = output.metadata().map_or(0, |data| data.len());
    let from = std::io::SeekFrom::Start(length.saturating_sub(SHOWN));
    let read = output
        .seek(from)
        .and_then(|_| (&output).take(SHOWN).read_to_end(&mut text));
    match read {
        Ok(_) => String::from_utf8_lossy(&text).trim().to_string(),
        Err(_) => String::new(),
    }
}
