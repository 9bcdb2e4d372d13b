//! Finding and executing the program.

use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};
use serde::{Deserialize, Serialize};
use std::ffi::CString;

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

    /// The files that the program may be, in the order in which they are to be tried. Afterwards
    /// [`Self::exec`] needs no other system call than `execve`.
    pub fn locate(&self) -> Result<Vec<CString>, ExecFailure> {
        let searched = !self.name.contains('/');
        let places: Vec<String> = if searched {
            let directories = self.path.split(':');
            let directories = directories.map(|d| if d.is_empty() { "." } else { d });
            directories.map(|d| format!("{d}/{}", self.name)).collect()
        } else {
            vec![self.name.clone()]
        };
        let mut found = Vec::new();
        // As execvp(3): go on over what is missing or forbidden, but remember the latter.
        let mut remembered = Errno::ENOENT;
        for place in places {
            match std::fs::metadata(&place) {
                Ok(file) if file.is_dir() => {
                    remembered = if searched {
                        Errno::EACCES
                    } else {
                        Errno::EISDIR
                    };
                }
                Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
                    remembered = Errno::EACCES;
                }
                Err(error) if missing(&error) => {}
                Ok(_) if may_not_execute(&place) => remembered = Errno::EACCES,
                // Whatever else is the matter, the exec will say.
                _ => found.extend(CString::new(place)),
            }
        }
        if found.is_empty() {
            return Err(self.failure(remembered, searched, false));
        }
        Ok(found)
    }

    /// Becomes the program, which [`Self::locate`] has found. Returns only when that failed.
    pub fn exec(&self, places: &[CString]) -> ExecFailure {
        let searched = !self.name.contains('/');
        let mut remembered = Errno::ENOENT;
        for place in places {
            match self.try_path(place) {
                Errno::ENOENT | Errno::ENOTDIR if searched => {}
                Errno::EACCES => remembered = Errno::EACCES,
                errno => return self.failure(errno, false, true),
            }
        }
        self.failure(remembered, searched, true)
    }

    fn try_path(&self, path: &CString) -> Errno {
        // A file that was just written may be held open for writing for a moment by a process
        // that its writer forked in the meantime.
        for _ in 0..50 {
            match nix::unistd::execve(path, &self.argv, &self.envp) {
                // A millisecond or two. To sleep would be a system call, which the program's filter,
                // in force by now, may answer with the end of the process.
                Err(Errno::ETXTBSY) => (0..50_000).for_each(|_| std::hint::spin_loop()),
                Err(errno) => return errno,
                Ok(never) => match never {},
            }
        }
        Errno::ETXTBSY
    }

    fn failure(&self, errno: Errno, searched: bool, found: bool) -> ExecFailure {
        let name = &self.name;
        let (message, exit_code) = match errno {
            Errno::ENOENT if searched => (
                format!("exec: {name:?}: executable file not found in $PATH"),
                127,
            ),
            Errno::ENOENT if found => (
                format!("exec: {name:?}: its interpreter or loader does not exist in the image"),
                127,
            ),
            Errno::ENOENT | Errno::ENOTDIR => {
                (format!("exec: {name:?}: no such file or directory"), 127)
            }
            Errno::EISDIR => (format!("exec: {name:?}: is a directory"), 126),
            Errno::EACCES => (format!("exec: {name:?}: permission denied"), 126),
            Errno::ENOEXEC => (format!("exec: {name:?}: exec format error"), 126),
            errno => (format!("exec: {name:?}: {}", errno.desc()), 126),
        };
        ExecFailure {
            message,
            exit_code,
            // Of a directory the kernel says that it may not be executed.
            errno: if errno == Errno::EISDIR {
                libc::EACCES
            } else {
                errno as i32
            },
        }
    }
}

fn may_not_execute(place: &str) -> bool {
    let flags = AtFlags::AT_EACCESS;
    faccessat(AT_FDCWD, place, AccessFlags::X_OK, flags) == Err(Errno::EACCES)
}

fn missing(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

/// The last things before an exec that must hold whatever was inherited.
///
/// `first` is the first descriptor that the program does not inherit.
pub fn prepare(first: u32) -> Result<(), Errno> {
    sys::reset_signals();
    sys::cloexec_from(first)
}
