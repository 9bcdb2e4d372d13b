//! Finding and executing the program.

use crate::sys;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::path::Path;

/// Where a program without a slash is looked for when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program could not be executed.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExecFailure {
    pub message: String,
    pub exit_code: i32,
    pub errno: i32,
}

/// Argument list and environment, ready for the kernel.
pub struct Program {
    name: String,
    argv: Vec<CString>,
    envp: Vec<CString>,
    path: String,
}

impl Program {
    /// `None` where an argument or variable holds a NUL byte or there is no argument at all.
    pub fn new(args: &[String], env: &[String]) -> Option<Self> {
        let strings = |list: &[String]| -> Option<Vec<CString>> {
            list.iter().map(|s| CString::new(s.as_str()).ok()).collect()
        };
        let path = env
            .iter()
            .rev()
            .find_map(|v| v.strip_prefix("PATH="))
            .unwrap_or(DEFAULT_PATH);
        Some(Self {
            name: args.first()?.clone(),
            argv: strings(args)?,
            envp: strings(env)?,
            path: path.into(),
        })
    }

    /// Adds a variable unless it is there.
    pub fn default_env(&mut self, name: &str, value: &str) {
        let prefix = format!("{name}=");
        if !self
            .envp
            .iter()
            .any(|v| v.as_bytes().starts_with(prefix.as_bytes()))
            && let Ok(variable) = CString::new(prefix + value)
        {
            self.envp.push(variable);
        }
    }

    /// Becomes the program. Returns only when that failed.
    pub fn exec(&self) -> ExecFailure {
        if self.name.contains('/') {
            return self.failure(self.try_path(&self.name), false);
        }
        // As execvp(3): go on over what is missing or forbidden, but remember the latter.
        let mut remembered = Errno::ENOENT;
        for directory in self.path.split(':') {
            let directory = if directory.is_empty() { "." } else { directory };
            match self.try_path(&format!("{directory}/{}", self.name)) {
                Errno::ENOENT | Errno::ENOTDIR => {}
                Errno::EACCES => remembered = Errno::EACCES,
                errno => return self.failure(errno, false),
            }
        }
        self.failure(remembered, true)
    }

    fn try_path(&self, path: &str) -> Errno {
        if Path::new(path).is_dir() {
            return Errno::EACCES;
        }
        let Ok(path) = CString::new(path) else {
            return Errno::ENOENT;
        };
        // A file that was just written may be held open for writing for a moment by a process
        // that its writer forked in the meantime.
        for _ in 0..50 {
            match nix::unistd::execve(&path, &self.argv, &self.envp) {
                Err(Errno::ETXTBSY) => std::thread::sleep(std::time::Duration::from_millis(2)),
                Err(errno) => return errno,
                Ok(never) => match never {},
            }
        }
        Errno::ETXTBSY
    }

    fn failure(&self, errno: Errno, searched: bool) -> ExecFailure {
        let name = &self.name;
        let (message, exit_code) = match errno {
            Errno::ENOENT if searched => (
                format!("exec: {name:?}: executable file not found in $PATH"),
                127,
            ),
            Errno::ENOENT if Path::new(name).exists() => (
                format!("exec: {name:?}: its interpreter or loader does not exist in the image"),
                127,
            ),
            Errno::ENOENT | Errno::ENOTDIR => {
                (format!("exec: {name:?}: no such file or directory"), 127)
            }
            Errno::EACCES if Path::new(name).is_dir() => {
                (format!("exec: {name:?}: is a directory"), 126)
            }
            Errno::EACCES => (format!("exec: {name:?}: permission denied"), 126),
            Errno::ENOEXEC => (format!("exec: {name:?}: exec format error"), 126),
            errno => (format!("exec: {name:?}: {}", errno.desc()), 126),
        };
        ExecFailure {
            message,
            exit_code,
            errno: errno as i32,
        }
    }
}

/// The last things before an exec that must hold whatever was inherited.
pub fn prepare() -> Result<(), Errno> {
    sys::reset_signals();
    sys::cloexec_all()
}
