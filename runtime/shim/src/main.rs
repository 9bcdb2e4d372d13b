//! The supervisor of one task: parent of its first process, owner of its output and of its exit
//! status. It outlives the daemon that started it.
//!
//! `fairlead-shim run <bundle>`: the bundle holds `config.json` (OCI runtime specification) and
//! `shim.json` ([`container::shim::ShimOptions`]). One line of JSON on stdout says whether the
//! task runs ([`container::shim::StartReport`]); then the shim goes on in the background.
//!
//! Two more commands are for the daemon, which has many threads and therefore cannot do these things
//! itself. They end as soon as their stdin is closed, and say one line of JSON on stdout:
//! `fairlead-shim probe <bundle>` runs a task's health check once, `fairlead-shim fill <bundle>` gives
//! new volumes the content of the image.

mod files;
mod fill;
mod lifeline;
mod log;
mod probe;
mod pump;
mod queue;
mod start;
mod supervise;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: fairlead-shim run|probe|fill <bundle-directory>";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [command, bundle]
            if ["run", "probe", "fill"]
                .iter()
                .any(|known| command == known) =>
        {
            // First of all: what runs in the container must not reach this file for writing.
            if let Err(errno) = container::protect::protect() {
                eprintln!("fairlead-shim: protect own executable: {errno}");
                return ExitCode::FAILURE;
            }
            let bundle = Path::new(bundle);
            match command.to_str() {
                Some("probe") => probe::run(bundle),
                Some("fill") => fill::run(bundle),
                _ => start::run(bundle),
            }
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
