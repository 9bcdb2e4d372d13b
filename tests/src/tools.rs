//! Other people's programs, threads in other namespaces, and waiting.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a condition may take. Far more than it needs anywhere: it only bounds a failing test.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Runs a shell script; its output.
///
/// # Panics
/// When it fails, with all it said.
pub fn sh(script: &str) -> String {
    match try_sh(script) {
        Ok(output) => output,
        Err(error) => panic!("{error}"),
    }
}

/// Runs a shell script; its output, or all it said when it failed.
///
/// # Errors
/// When it ends with another status than 0.
pub fn try_sh(script: &str) -> Result<String, String> {
    let output = output(script, Command::new("sh").arg("-ec").arg(script))?;
    result(script, &output)
}

/// Runs a command; its end and all it said.
///
/// # Errors
/// When it cannot be started, or has not ended after [`PATIENCE`]: it is killed then.
pub fn output(what: &str, command: &mut Command) -> Result<Output, String> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {what}: {error}"))?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let (sender, receiver) = mpsc::channel();
    // It may say more than a pipe holds, on both streams.
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match receiver.recv_timeout(PATIENCE) {
        Ok(output) => output.map_err(|error| format!("{what}: {error}")),
        Err(_) => {
            let _ = kill(pid, Signal::SIGKILL);
            Err(format!("waited {PATIENCE:?} for the end of {what}"))
        }
    }
}

/// The output of a command that has ended, or all it said when it failed.
pub(crate) fn result(what: &str, output: &Output) -> Result<String, String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{what}: {}\n{text}{errors}", output.status))
}

/// Whether the kernel can pass bridged packets through the IP rules. A machine of its own (scripts/vm,
/// told by `FAIRLEAD_REQUIRE_IPVS`) must have the module, and it is loaded there; for a person's
/// machine that would change what all bridges do.
///
/// # Panics
/// Where it is required and cannot be loaded.
#[must_use]
pub fn has_br_netfilter() -> bool {
    if std::env::var_os("FAIRLEAD_REQUIRE_IPVS").is_some_and(|value| value == "1") {
        sh("modprobe br_netfilter");
    }
    Path::new("/proc/sys/net/bridge").exists()
}

/// Runs `work` on a thread inside a network namespace.
///
/// # Panics
/// When the namespace cannot be entered, or `work` panics.
pub fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(netns);
            work()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Puts the calling thread into a network namespace.
///
/// # Panics
/// When that cannot be done.
pub fn enter(netns: &Path) {
    let file = File::open(netns).unwrap_or_else(|e| panic!("cannot open {}: {e}", netns.display()));
    setns(file, CloneFlags::CLONE_NEWNET)
        .unwrap_or_else(|e| panic!("cannot enter {}: {e}", netns.display()));
}

/// Waits until `probe` has a value.
///
/// # Panics
/// After [`PATIENCE`], with what was missing at last.
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let limit = Instant::now() + PATIENCE;
    // Rarer and rarer: what is waited for needs the processors too.
    let mut pause = Duration::from_millis(20);
    loop {
        match probe() {
            Ok(value) => return value,
            Err(missing) if Instant::now() > limit => {
                panic!("waited {PATIENCE:?} for {what}; at last: {missing}")
            }
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 3 / 2).min(Duration::from_millis(500));
    }
}
