//! By the command line of a runtime: `run`, and `create`, `start` and `delete` as three commands.

use crate::{Options, Outcome, Stopwatch, Way, specs};
use container::process;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

pub struct Runtime {
    program: PathBuf,
    /// Where it keeps its state.
    root: PathBuf,
    bundle: PathBuf,
    id: String,
}

/// A bundle for a runtime, whose cgroup is named like the container.
pub fn write_bundle(spec: &str, id: &str, options: &Options) -> Outcome<PathBuf> {
    let bundle = options.work.join(id);
    std::fs::create_dir_all(&bundle)?;
    let spec = specs::spec(spec, &options.rootfs, id);
    std::fs::write(bundle.join("config.json"), serde_json::to_vec(&spec)?)?;
    Ok(bundle)
}

impl Runtime {
    pub fn new(spec: &str, name: &str, program: &Path, options: &Options) -> Outcome<Self> {
        let id = format!("{name}-{spec}");
        process::become_subreaper()?; // of what the commands leave running
        Ok(Self {
            program: program.into(),
            root: options.work.join(format!("{name}.state")),
            bundle: write_bundle(spec, &id, options)?,
            id,
        })
    }

    /// The command, with what must stand before it.
    pub fn command(&self, prefix: Option<&Path>, arguments: &[&str]) -> Command {
        let mut command = match prefix {
            Some(own) => {
                let mut command = Command::new(own);
                command.arg("peak").arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.arg("--root").arg(&self.root).args(arguments);
        command.stdin(Stdio::null()).current_dir(&self.bundle);
        command
    }

    fn call(&self, arguments: &[&str]) -> Outcome<()> {
        let mut command = self.command(None, arguments);
        // Not caught: a container that stays would hold the pipe open.
        match command.stdout(Stdio::null()).status()? {
            status if status.success() => Ok(()),
            status => Err(format!("{} {arguments:?}: {status}", self.program.display()).into()),
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Way for Runtime {
    fn once(&mut self) -> Outcome<Vec<(&'static str, f64)>> {
        let watch = Stopwatch::start()?;
        self.call(&["run", &self.id])?;
        let mut took = watch.read()?;
        std::thread::sleep(crate::PAUSE);
        let pid_file = self.bundle.join("pid");
        let pid_path = pid_file.to_string_lossy();
        let begin = Instant::now();
        self.call(&["create", "--pid-file", &pid_path, &self.id])?;
        let created = begin.elapsed();
        let pid = std::fs::read_to_string(&pid_file)?.trim().parse()?;
        let pid = nix::unistd::Pid::from_raw(pid);
        let begin = Instant::now();
        self.call(&["start", &self.id])?;
        // Its parent has ended, so it is a child of this process.
        nix::sys::wait::waitpid(pid, None)?;
        self.call(&["delete", &self.id])?;
        let rest = begin.elapsed();
        took.push(("commands", (created + rest).as_secs_f64() * 1e3));
        Ok(took)
    }
}
