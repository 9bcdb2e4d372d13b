//! A cgroup below another, made by whoever is in that.

use super::error::{CgroupError, Result};
use super::group::Cgroup;
use super::path::components;

impl Cgroup {
    /// A cgroup below this one, which exists: `path` is from here.
    ///
    /// # Errors
    /// The path is not one, or no hierarchy has such a cgroup.
    pub fn below(&self, path: &str) -> Result<Self> {
        let path = components(path)?;
        let mut found = self.clone();
        let mut missing = Ok(());
        found.places.retain_mut(|place| {
            place.path.push(&path);
            match place.find() {
                Ok(directory) => directory.is_some(),
                Err(error) => {
                    missing = Err(error);
                    false
                }
            }
        });
        missing?;
        if found.places.is_empty() {
            return Err(CgroupError::NotFound(path));
        }
        Ok(found)
    }
}
