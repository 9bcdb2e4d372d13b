//! `ps`.

use super::list::{say, table};
use super::state::print;
use super::{Context, freeze};
use crate::args::{self, ListFormat};
use crate::error::OciError;
use std::fs;
use std::process::ExitCode;

pub fn run(context: &Context<'_>, args: &args::Ps) -> Result<ExitCode, OciError> {
    let entry = context.store.look(&args.id)?;
    let pids = freeze::required(&entry)?.procs()?;
    if args.format == ListFormat::Json {
        print(&pids)?;
    } else {
        // One that ends while we look is not there.
        let rows = pids.into_iter().filter_map(row);
        say(&table(&["PID", "PPID", "UID", "STATE", "COMMAND"], rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(pid: i32) -> Option<Vec<String>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let mut lines = status.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value
            .and_then(|value| value.split_whitespace().next())
            .unwrap_or("?")
            .to_string()
    };
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = String::from_utf8_lossy(&words).replace('\0', " ");
    // A kernel thread or a zombie has no command line.
    let command = match words.trim() {
        "" => format!("[{}]", field("Name")),
        words => words
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect(),
    };
    Some(vec![
        pid.to_string(),
        field("PPid"),
        field("Uid"),
        field("State"),
        command,
    ])
}
