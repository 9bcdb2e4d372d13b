//! One value for one file, and how several that depend on each other get there.

use crate::cgroup::dir::Dir;
use crate::cgroup::error::{CgroupError, Result};
use std::io;

/// A value for a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// The field of the specification below `linux.resources` that asks for it.
    pub field: String,
    /// The file.
    pub file: String,
    /// What is written.
    pub value: String,
    /// Whether the file may be missing, because without it the value is what holds anyway.
    pub optional: bool,
}

impl Setting {
    pub fn new(field: impl Into<String>, file: impl Into<String>, value: impl ToString) -> Self {
        Self {
            field: field.into(),
            file: file.into(),
            value: value.to_string(),
            optional: false,
        }
    }

    pub fn optional(mut self, optional: bool) -> Self {
        self.optional = optional;
        self
    }
}

/// Writes all. A value may be refused because of the old value of another (memory above memory
/// and swap, quota above the period's share, burst above the quota, weight of an idle cgroup):
/// it is written again when another has been taken, so that each order that works is found.
pub fn settle(dir: &Dir, mut settings: Vec<Setting>) -> Result<()> {
    while !settings.is_empty() {
        let before = settings.len();
        let mut refused = Vec::new();
        let mut first = None;
        for setting in settings {
            match dir.write(&setting.file, &setting.value) {
                Ok(()) => {}
                Err(error) if setting.optional && error.is_gone() => {}
                Err(error) if error.errno() == Some(nix::errno::Errno::EINVAL) => {
                    first.get_or_insert_with(|| explain(&setting, error));
                    refused.push(setting);
                }
                Err(error) => return Err(explain(&setting, error)),
            }
        }
        settings = refused;
        if let Some(error) = first
            && settings.len() == before
        {
            return Err(error);
        }
    }
    Ok(())
}

fn explain(setting: &Setting, error: CgroupError) -> CgroupError {
    match error {
        CgroupError::File { path, source, .. } => CgroupError::Limit {
            field: setting.field.clone(),
            path,
            value: setting.value.clone(),
            source: io::Error::from_raw_os_error(source.raw_os_error().unwrap_or(libc::EIO)),
        },
        error => error,
    }
}
