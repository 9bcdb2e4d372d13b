//! Where the programs under test are.

use std::path::PathBuf;

/// A program that the workspace builds.
///
/// # Panics
/// When it is not there: it is no dependency that cargo would build for a test.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let dir = match std::env::var_os("FAIRLEAD_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        // target/<profile>/deps/<test>
        None => std::env::current_exe()
            .ok()
            .and_then(|test| Some(test.parent()?.parent()?.to_owned()))
            .expect("the test's own path has two folders"),
    };
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "there is no {}: build the workspace first (cargo build --workspace), or name the folder of \
         the programs in FAIRLEAD_BIN_DIR",
        path.display()
    );
    path
}
