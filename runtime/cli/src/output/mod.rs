//! What is printed, for people and for programs.

pub mod detail;
pub mod image;
pub mod ipvs;
pub mod object;
pub mod pull;
pub mod table;
pub mod time;

use std::io::{self, Write};

use serde::Serialize;

use crate::error::CliError;

/// Prints text to standard output. A reader that has gone is told apart from other errors.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Prints one JSON document.
pub fn print_json<T: Serialize>(value: &T) -> Result<(), CliError> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Prints one line of a stream of JSON documents.
pub fn print_json_line<T: Serialize>(value: &T) -> Result<(), CliError> {
    print(&(serde_json::to_string(value)? + "\n"))
}

/// Tells a person what goes on, on standard error. That nobody may read it is no failure.
pub fn progress(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
