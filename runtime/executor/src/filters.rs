//! Compiled filters of system calls.
//!
//! Compiling one takes longer than all else that the start of a task does, and most tasks have the
//! same one.

use std::sync::{Mutex, PoisonError};

use container::ContainerError;
use container::seccomp::{self, Filter};
use oci_spec::runtime::LinuxSeccomp;

/// How many are kept: profiles differ by the capabilities of their tasks, or are a task's own.
const KEPT: usize = 16;

/// The filters that were used last, the latest at the end.
#[derive(Debug, Default)]
pub struct Filters(Mutex<Vec<Filter>>);

impl Filters {
    /// The filter of `profile`. Who asks for one that is being compiled waits for it.
    ///
    /// # Errors
    /// The profile is refused.
    pub fn get(&self, profile: &LinuxSeccomp) -> Result<Filter, ContainerError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let filter = match kept.iter().position(|filter| filter.is_for(profile)) {
            Some(at) => kept.remove(at),
            None => seccomp::compile(profile)?,
        };
        kept.push(filter.clone());
        if kept.len() > KEPT {
            kept.remove(0);
        }
        Ok(filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept() {
        let filters = Filters::default();
        let profile = |call: usize| {
            let text = format!(
                r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["mkdir"],
                    "action":"SCMP_ACT_ERRNO","errnoRet":{call}}}]}}"#
            );
            seccomp::parse(text.as_bytes()).expect("valid")
        };
        for call in 1..=KEPT + 3 {
            let filter = filters.get(&profile(call)).expect("compiled");
            assert!(filter.is_for(&profile(call)));
        }
        let again = filters.get(&profile(KEPT)).expect("kept");
        let kept = filters.0.lock().expect("lock");
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept.last().map(Filter::to_bytes), Some(again.to_bytes()));
    }
}
