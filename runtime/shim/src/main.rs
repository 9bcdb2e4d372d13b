//! The supervisor of one task: parent of its first process, owner of its output and of its exit
//! status. It outlives the daemon that started it.
//!
//! `fairlead-shim run <bundle>`: the bundle holds `config.json` (OCI runtime specification) and
//! `shim.json` ([`container::shim::ShimOptions`]). One line of JSON on stdout says whether the
//! task runs ([`container::shim::StartReport`]); then the shim goes on in the background.

mod files;
mod log;
mod pump;
mod queue;
mod start;
mod supervise;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: fairlead-shim run <bundle-directory>";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [command, bundle] if command == "run" => {
            // First of all: what runs in the container must not reach this file for writing.
            if let Err(errno) = container::protect::protect() {
                eprintln!("fairlead-shim: protect own executable: {errno}");
                return ExitCode::FAILURE;
            }
            start::run(Path::new(bundle))
        }
        [command] if command == "--version" => {
            println!("fairlead-shim {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
