//! Lists services and destinations as `ipvsadm -Ln` does.
//!
//! `cargo run --example list -- [--stats | --rate | --thresholds | --persistent-conn | --tun-info]
//! [--exact] [/run/netns/NAME]`. Needs root.

use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd;

use ipvs::Client;
use ipvs::text::{Columns, Table};

fn main() -> Result<(), Box<dyn Error>> {
    let mut columns = Columns::Connections;
    let mut exact = false;
    let mut namespace = None;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--stats" => columns = Columns::Stats,
            "--rate" => columns = Columns::Rates,
            "--thresholds" => columns = Columns::Thresholds,
            "--persistent-conn" => columns = Columns::Persistence,
            "--tun-info" => columns = Columns::Tunnels,
            "--exact" => exact = true,
            path if !path.starts_with('-') => namespace = Some(File::open(path)?),
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    let mut client = match namespace {
        Some(namespace) => Client::open_in(namespace.as_fd())?,
        None => Client::open()?,
    };
    let (info, pools) = (client.info()?, client.pool_entries()?);
    let table = Table::new(&pools)
        .version(info)
        .columns(columns)
        .exact(exact);
    // As one text: line by line it would be a system call each.
    let text = table.to_string();
    print!("{text}");
    Ok(())
}
