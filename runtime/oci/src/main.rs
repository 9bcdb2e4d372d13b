//! `fairlead-oci`: a container runtime with the command line of runc, for podman, containerd,
//! Docker and whoever else drives a runtime by it.
//!
//! Each command is a short-lived process; what it must know of a container it finds in a directory
//! of the container ([`store`]). The work is done by the library `container`.

mod args;
mod bundle;
mod commands;
#[cfg(entry)]
mod entry;
mod error;
mod lock;
mod log;
mod numbers;
mod store;
mod time;
mod tty;

use args::{Cli, Command};
use error::OciError;
use std::process::ExitCode;

fn main() -> ExitCode {
    let protected = protect();
    let cli = match Cli::of_process() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print(); // a closed stderr hears nothing
            if error.use_stderr() {
                log_mistake(&error);
            }
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let log = log::Log::new(&cli.global);
    match protected.and_then(|()| run(cli, &log)) {
        Ok(code) => code,
        Err(error) => {
            log.error(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

/// Who calls us looks into the log. What is wrong is in the first lines, before the usage.
fn log_mistake(error: &clap::Error) {
    let text = error.to_string();
    let lines = text.lines().take_while(|line| !line.is_empty());
    let message = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    if let Some(global) = args::Global::of_broken(std::env::args_os()) {
        log::Log::new(&global).error_in_file(message);
    }
}

/// What runs in a container must not reach this file for writing. First of all, and so before it is
/// known what the words of the command line mean: this may execute the program once more.
fn protect() -> Result<(), OciError> {
    let making = ["create", "run", "exec"];
    if !std::env::args_os().any(|word| making.iter().any(|name| word == *name)) {
        return Ok(());
    }
    container::protect::protect().map_err(|errno| OciError::System {
        step: "protect own executable",
        errno,
    })
}

fn run(cli: Cli, log: &log::Log) -> Result<ExitCode, OciError> {
    let context = commands::Context::new(cli.global, log)?;
    match cli.command {
        Command::Create(args) => commands::create::run(&context, args),
        Command::Start(args) => commands::start::run(&context, &args.id),
        Command::Run(args) => commands::run::run(&context, args),
        Command::State(args) => commands::state::run(&context, &args.id),
        Command::Kill(args) => commands::kill::run(&context, &args),
        Command::Delete(args) => commands::delete::run(&context, &args),
        Command::Exec(args) => commands::exec::run(&context, args),
        Command::Ps(args) => commands::ps::run(&context, &args),
        Command::List(args) => commands::list::run(&context, &args),
        Command::Pause(args) => commands::freeze::pause(&context, &args.id),
        Command::Resume(args) => commands::freeze::resume(&context, &args.id),
        Command::Update(args) => commands::update::run(&context, &args),
        Command::Events(args) => commands::events::run(&context, &args),
        Command::Spec(args) => commands::spec::run(&args),
        Command::Features => commands::features::run(),
        Command::Checkpoint(_) => Err(OciError::NoCheckpoints("checkpoint")),
        Command::Restore(_) => Err(OciError::NoCheckpoints("restore")),
    }
}
