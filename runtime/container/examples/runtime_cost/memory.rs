//! Memory: the most that a runtime's process takes, and what its supervisor keeps for each task
//! that runs.

use crate::commands::{Runtime, write_bundle};
use crate::{Options, Outcome, Way, library, specs, tell};
use container::process;
use container::shim::{LogOptions, ShimOptions, ShimState, StartReport};
use container::{Rootfs, shim};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Tasks at a time: with one alone, the pages of the program would count as its own.
const TASKS: usize = 3;

pub fn measure(options: &Options, round: usize) -> Outcome<()> {
    let own = std::env::current_exe()?;
    for spec in specs::NAMES {
        let mut once = Command::new(&own);
        once.arg("peak").arg(&own).arg("once").arg(spec);
        once.arg(&options.rootfs).arg(&options.work);
        tell(spec, "library", "peak", round, peak(&mut once)?);
        for (name, path) in &options.runtimes {
            let runtime = Runtime::new(spec, name, path, options)?;
            let mut run = runtime.command(Some(&own), &["run", runtime.id()]);
            tell(spec, name, "peak", round, peak(&mut run)?);
        }
    }
    if let Some(program) = &options.shim {
        tell("task", "shim", "private", round, shims(program, options)?);
    }
    if let (Some(conmon), Some((_, runtime))) = (in_path("conmon"), options.runtimes.first()) {
        let kept = conmons(&conmon, runtime, options)?;
        tell("task", "conmon", "private", round, kept);
    }
    Ok(())
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|directory| directory.join(name));
    places.find(|place| place.exists())
}

/// What a `peak` of this program says.
fn peak(command: &mut Command) -> Outcome<f64> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// Runs a command and says the most memory, in KiB, that it or one of its children had. What the
/// kernel counts begins with that of whoever makes the process: so this is a small one.
pub fn peak_of_command(mut words: impl Iterator<Item = String>) -> Outcome<()> {
    let program = words.next().ok_or("peak PROGRAM [ARGUMENT]...")?;
    let mut command = Command::new(program);
    let status = command.args(words).stdout(Stdio::null()).status()?;
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    println!("{}", getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss());
    Ok(())
}

/// `once SPEC ROOTFS WORK`: one container by the library.
pub fn once_by_library(words: impl Iterator<Item = String>) -> Outcome<()> {
    let words: Vec<String> = words.collect();
    let [spec, rootfs, work] = words.as_slice() else {
        return Err("once SPEC ROOTFS WORK".into());
    };
    let options = Options {
        rootfs: rootfs.into(),
        work: work.into(),
        rounds: 1,
        samples: 1,
        shim: None,
        runtimes: Vec::new(),
        only: None,
    };
    library::Library::new(spec, &options)?.once().map(drop)
}

/// Private memory in KiB: what would come back if the process ended.
fn private(pid: i32) -> Outcome<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let lines = text.lines().filter(|line| line.starts_with("Private_"));
    let numbers = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    Ok(numbers.sum())
}

fn sleeper(spec_of: &str, id: &str, options: &Options) -> Outcome<PathBuf> {
    let bundle = write_bundle(spec_of, id, options)?;
    let path = bundle.join("config.json");
    let text = fs::read_to_string(&path)?;
    let asleep = text.replacen("[\"/bin/true\"]", "[\"/bin/sleep\",\"infinity\"]", 1);
    fs::write(&path, asleep)?;
    Ok(bundle)
}

/// Tasks under `fairlead-shim`, as the daemon starts them.
fn shims(program: &Path, options: &Options) -> Outcome<f64> {
    let mut running: Vec<ShimState> = Vec::new();
    for number in 0..TASKS {
        let id = format!("task-{number}");
        let bundle = sleeper("full", &id, options)?;
        let path = bundle.join("config.json");
        let mut spec: oci_spec::runtime::Spec = serde_json::from_slice(&fs::read(&path)?)?;
        if let Some(linux) = spec.linux_mut() {
            linux.set_cgroups_path(None); // the daemon says it in shim.json
            if let Some(profile) = linux.seccomp() {
                let filter = container::seccomp::compile(profile)?;
                fs::write(bundle.join(shim::FILTER), filter.to_bytes())?;
            }
        }
        fs::write(&path, serde_json::to_vec(&spec)?)?;
        let shim_options = ShimOptions {
            id: id.clone(),
            cgroup_parent: specs::CGROUP_PARENT.into(),
            cgroup_name: id,
            rootfs: Rootfs::Directory(options.rootfs.clone()),
            user: None,
            log: LogOptions {
                path: bundle.join("log"),
                max_bytes: 0,
                max_files: 1,
            },
            state_path: bundle.join("state.json"),
            exit_path: bundle.join("exit.json"),
            hold_fds: Vec::new(),
        };
        fs::write(bundle.join("shim.json"), serde_json::to_vec(&shim_options)?)?;
        let output = Command::new(program).arg("run").arg(&bundle).output()?;
        match serde_json::from_slice(&output.stdout)? {
            StartReport::Started(started) => running.push(started.state),
            StartReport::Failed(failed) => return Err(failed.message.into()),
        }
    }
    let pids: Vec<i32> = running.iter().map(|state| state.shim_pid).collect();
    let kept = average(&pids);
    for state in running {
        if let Some(pid) = state.init_pid {
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        }
        waitpid(Pid::from_raw(state.shim_pid), None)?;
    }
    kept
}

/// Tasks under `conmon`, as podman starts them.
fn conmons(program: &Path, runtime: &Path, options: &Options) -> Outcome<f64> {
    process::become_subreaper()?;
    let sockets = options.work.join("conmon.sockets");
    fs::create_dir_all(&sockets)?;
    let mut pids = Vec::new();
    let call = |id: &str, arguments: &[&str]| -> Outcome<()> {
        let mut command = Command::new(runtime);
        command.arg("--root").arg(options.work.join("conmon.state"));
        let status = command.args(arguments).arg(id).status()?;
        if status.success() {
            return Ok(());
        }
        Err(format!("{command:?}: {status}").into())
    };
    for number in 0..TASKS {
        let id = format!("conmon-{number}");
        let bundle = sleeper("full", &id, options)?;
        let mut command = Command::new(program);
        command.args(["--api-version", "1", "-c", &id, "-u", &id, "-r"]);
        command.arg(runtime).arg("-b").arg(&bundle);
        command.arg("-p").arg(bundle.join("pid"));
        command.arg("-P").arg(bundle.join("conmon"));
        command.arg("--exit-dir").arg(&bundle);
        command.arg("--socket-dir-path").arg(&sockets);
        command
            .arg("-l")
            .arg(format!("k8s-file:{}", bundle.join("log").display()));
        command.args(["--runtime-arg", "--root", "--runtime-arg"]);
        command.arg(options.work.join("conmon.state"));
        let status = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        if !status.success() {
            return Err(format!("{command:?}: {status}").into());
        }
        wait_for(&bundle.join("pid"))?;
        call(&id, &["start"])?;
        let pid = fs::read_to_string(wait_for(&bundle.join("conmon"))?)?;
        pids.push(pid.trim().parse()?);
    }
    let kept = average(&pids);
    for number in 0..TASKS {
        call(&format!("conmon-{number}"), &["delete", "--force"])?;
    }
    for pid in pids {
        waitpid(Pid::from_raw(pid), None)?;
    }
    for number in 0..TASKS {
        // In the next round it must not be taken for a new one.
        fs::remove_dir_all(options.work.join(format!("conmon-{number}")))?;
    }
    kept
}

fn average(pids: &[i32]) -> Outcome<f64> {
    // Not in the middle of their start.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let kept = pids
        .iter()
        .map(|pid| private(*pid))
        .collect::<Outcome<Vec<_>>>()?;
    Ok(kept.iter().sum::<f64>() / kept.len().max(1) as f64)
}

/// Until a file has something in it.
fn wait_for(path: &Path) -> Outcome<&Path> {
    for _ in 0..1000 {
        if fs::metadata(path).is_ok_and(|file| file.len() > 0) {
            return Ok(path);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Err(format!("{} does not appear", path.display()).into())
}
