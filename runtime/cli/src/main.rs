//! The command line of a Fairlead node. It talks to the daemon's socket; only `fairlead ipvs` talks
//! to the kernel.

mod args;
mod commands;
mod error;
mod format;
mod output;
mod socket;

use std::process::ExitCode;

use clap::Parser;

use args::Cli;
use error::CliError;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(commands::run(cli));
            // A thread may wait for standard input, which nobody ends.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(CliError::Start(error)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, CliError::OutputClosed) {
                output::progress(&format!("fairlead: {error}"));
            }
            error.into()
        }
    }
}
