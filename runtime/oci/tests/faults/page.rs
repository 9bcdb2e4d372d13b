//! The page that tells the runtime which of its steps fails (`container::fault`).

use super::common::Bundle;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Creator = 1,
    Stage = 2,
    Inside = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The step fails.
    Fail = 1,
    /// The process is killed there.
    Die = 2,
    /// The process waits there until the test lets it go on.
    Wait = 3,
}

pub struct Page(PathBuf);

impl Page {
    pub fn new(bundle: &Bundle) -> Self {
        let page = Self(bundle.dir.path().join("faults"));
        page.clear();
        page
    }

    /// No step from here on.
    pub fn clear(&self) {
        fs::write(&self.0, [0; 4096]).expect("page");
    }

    /// The step with this number of the processes of this role, counted from 1.
    pub fn choose(&self, role: Role, number: u32, action: Action) {
        // In place: processes of before may still have it mapped.
        let file = File::options().write(true).open(&self.0).expect("page");
        let words = [role as u32, number, action as u32, 0, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        file.write_all_at(&bytes, 0).expect("page");
    }

    /// The name of the step, once it was reached.
    pub fn fired(&self) -> Option<String> {
        let bytes = fs::read(&self.0).expect("page");
        let fired = bytes[12..16] != [0; 4];
        let name: Vec<u8> = bytes[64..192]
            .iter()
            .copied()
            .take_while(|b| *b != 0)
            .collect();
        fired.then(|| String::from_utf8_lossy(&name).into_owned())
    }

    /// Lets a process that waits go on.
    pub fn go(&self) {
        let file = File::options().write(true).open(&self.0).expect("page");
        file.write_all_at(&1u32.to_ne_bytes(), 16).expect("page");
    }

    pub fn path(&self) -> &str {
        self.0.to_str().expect("utf-8")
    }
}
