//! Steps that a test makes fail, or at which it ends a process: see `tests/faults` of the crate
//! `fairlead-oci`.
//!
//! Without the feature `fault-points`, which no program that is installed has, a step is an empty
//! function. With it, the processes of a runtime share a page: the file that `FAIRLEAD_FAULTS`
//! names, mapped by the first step. It stays mapped when a process has left the host's root and
//! has closed its descriptors, and goes away with the exec of the program.

use nix::errno::Errno;

/// Which process of a runtime this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    /// The one that was called.
    Creator = 1,
    /// The short-lived one between the creator and the container's.
    Stage = 2,
    /// The container's first, or one that enters it.
    Inside = 3,
}

/// Said before, or right after, each thing that can fail.
///
/// # Errors
/// `ENOTRECOVERABLE`, if this is the step that is to fail.
#[inline]
pub fn step(name: &str) -> Result<(), Errno> {
    #[cfg(feature = "fault-points")]
    return points::step(name);
    #[cfg(not(feature = "fault-points"))]
    {
        let _ = name;
        Ok(())
    }
}

/// Said by a process that has just been cloned: its steps count from here.
#[inline]
pub fn begin(role: Role) {
    #[cfg(feature = "fault-points")]
    points::begin(role);
    #[cfg(not(feature = "fault-points"))]
    let _ = role;
}

#[cfg(feature = "fault-points")]
mod points {
    use super::Role;
    use crate::sys;
    use nix::errno::Errno;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    /// Words of the page; the name of the step that was chosen follows at [`NAME`].
    const ROLE: usize = 0;
    const NUMBER: usize = 1;
    const ACTION: usize = 2;
    const FIRED: usize = 3;
    const GO: usize = 4;
    const NAME: usize = 16;
    const NAME_WORDS: usize = 32;

    const FAIL: u32 = 1;
    const DIE: u32 = 2;

    static OWN_ROLE: AtomicU32 = AtomicU32::new(Role::Creator as u32);
    static STEPS: AtomicU32 = AtomicU32::new(0);
    static PAGE: OnceLock<Option<&'static [AtomicU32; 1024]>> = OnceLock::new();

    pub fn begin(role: Role) {
        OWN_ROLE.store(role as u32, SeqCst);
        STEPS.store(0, SeqCst);
    }

    pub fn step(name: &str) -> Result<(), Errno> {
        let page = PAGE.get_or_init(|| {
            let path = std::env::var_os("FAIRLEAD_FAULTS")?;
            let file = std::fs::File::options().read(true).write(true).open(path);
            sys::shared_page(&file.ok()?).ok()
        });
        let Some(page) = page else { return Ok(()) };
        let number = STEPS.fetch_add(1, SeqCst) + 1;
        let chosen = page[ROLE].load(SeqCst) == OWN_ROLE.load(SeqCst)
            && page[NUMBER].load(SeqCst) == number
            // The same number in the next process of this role is another step.
            && page[FIRED].load(SeqCst) == 0;
        if !chosen {
            return Ok(());
        }
        for (word, bytes) in page[NAME..NAME + NAME_WORDS]
            .iter()
            .zip(name.as_bytes().chunks(4))
        {
            let mut four = [0; 4];
            four[..bytes.len()].copy_from_slice(bytes);
            word.store(u32::from_ne_bytes(four), SeqCst);
        }
        page[FIRED].store(1, SeqCst);
        match page[ACTION].load(SeqCst) {
            FAIL => Err(Errno::ENOTRECOVERABLE),
            DIE => die(),
            // Until the test has done what it wants to do at this moment.
            _ => {
                for _ in 0..20_000 {
                    if page[GO].load(SeqCst) != 0 {
                        break;
                    }
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                Ok(())
            }
        }
    }

    fn die() -> ! {
        let own = nix::unistd::Pid::this();
        let _ = nix::sys::signal::kill(own, nix::sys::signal::Signal::SIGKILL);
        sys::exit_now(137) // process 1 of a PID namespace cannot kill itself
    }
}
