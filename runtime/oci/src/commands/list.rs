//! `list`.

use super::Context;
use super::state::{Shown, print, shown};
use crate::args::{self, ListFormat};
use crate::error::OciError;
use std::io::Write;
use std::process::ExitCode;

pub fn run(context: &Context<'_>, args: &args::List) -> Result<ExitCode, OciError> {
    let mut all: Vec<Shown> = Vec::new();
    for id in context.store.ids()? {
        match context.store.look(&id).and_then(|entry| shown(&entry)) {
            Ok(shown) => all.push(shown),
            Err(OciError::NotFound(_)) => {} // deleted meanwhile
            Err(error) => context.log.warning(&format!("{id}: {error}")),
        }
    }
    if args.quiet {
        let ids: String = all.iter().map(|one| format!("{}\n", one.id)).collect();
        say(&ids)?;
    } else if args.format == ListFormat::Json {
        print(&all)?;
    } else {
        let rows = all.iter().map(|one| {
            let bundle = one.bundle.display().to_string();
            let columns = [
                &one.id,
                &one.pid.to_string(),
                one.status,
                &bundle,
                &one.created,
                &one.owner,
            ]
            .map(ToString::to_string);
            columns.to_vec()
        });
        say(&table(
            &["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"],
            rows,
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Columns as wide as they must be.
pub fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head = head.iter().map(ToString::to_string).collect();
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |line: &Vec<String>| {
        let cells = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
    };
    lines.iter().map(line).collect()
}

/// To stdout. Whoever closed it does not want more.
pub fn say(text: &str) -> Result<(), OciError> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(OciError::File {
            action: "write",
            path: "stdout".into(),
            source: error,
        }),
        _ => Ok(()),
    }
}
