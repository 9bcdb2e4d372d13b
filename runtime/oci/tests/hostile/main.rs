//! Input that means harm, or that somebody has damaged: it gives an error that names what is
//! wrong, at once, and leaves nothing.

#[path = "../common/mod.rs"]
mod common;
mod config;
mod names;
mod state;
mod values;

use common::{Bundle, Said};
use std::time::Duration;

/// Runs a command that must come to its end soon, and must not panic.
fn bounded(bundle: &Bundle, args: &[&str]) -> Said {
    let mut command = std::process::Command::new("timeout");
    let seconds = Duration::from_secs(600).as_secs().to_string();
    command.args(["--signal=KILL", &seconds, common::RUNTIME, "--root"]);
    command.arg(bundle.state()).args(args);
    command.current_dir(bundle.dir.path());
    let said: Said = command
        .stdin(std::process::Stdio::null())
        .output()
        .expect("runtime")
        .into();
    assert!(
        said.code != -1 && said.code != 137,
        "{args:?} does not come to its end"
    );
    assert!(
        said.code != 101 && !said.stderr.contains("panicked"),
        "{args:?}: {said:?}"
    );
    said
}
