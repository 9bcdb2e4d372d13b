//! What can be written on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::format::quantity::parse_duration;

mod image;
mod ipvs;

pub use image::{ImageCommand, ImportArgs, LoadArgs, PullArgs, SaveArgs};
pub use ipvs::{IpvsColumns, IpvsCommand, IpvsLsArgs, IpvsPlace, IpvsRestoreArgs, IpvsService};

/// The command line of a Fairlead node.
#[derive(Debug, Parser)]
#[command(name = "fairlead", version, propagate_version = true)]
pub struct Cli {
    /// Socket of the daemon; `apply` takes one per file [default: $FAIRLEAD_SOCKET, else
    /// /run/fairlead/executor.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Vec<PathBuf>,
    /// How to print [default: table, for `inspect` json]
    #[arg(long, global = true, value_enum)]
    pub format: Option<Format>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs: one document, or one per line for streams.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make nodes be what files say
    Apply(ApplyArgs),
    /// List the tasks of the node
    Ps(ListArgs),
    /// Show everything about one object
    Inspect(InspectArgs),
    /// Show the output of a task
    Logs(LogsArgs),
    /// Show what the data plane did
    Events(EventsArgs),
    /// Networks
    #[command(subcommand)]
    Network(ObjectCommand),
    /// Services
    #[command(subcommand)]
    Service(ObjectCommand),
    /// This node and the ones it knows
    #[command(subcommand)]
    Node(NodeCommand),
    /// Endpoints: one task on one network
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Images
    #[command(subcommand)]
    Image(ImageCommand),
    /// The kernel's IPVS in this network namespace or another; needs root, and no daemon
    #[command(subcommand)]
    Ipvs(IpvsCommand),
    /// Print the JSON schema of the files that `apply` reads
    Schema,
}

/// Arguments of `apply`.
#[derive(Args, Debug)]
pub struct ApplyArgs {
    /// Assignment of one node as YAML or JSON; `-` reads standard input. With several, the
    /// acknowledgements between their nodes are passed on
    #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1..)]
    pub file: Vec<PathBuf>,
    /// Wait until each endpoint record of the file is in the node's kernel
    #[arg(long)]
    pub wait: bool,
    /// Wait until each task has reached its desired state
    #[arg(long)]
    pub wait_tasks: bool,
    /// How long each wait may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub timeout: std::time::Duration,
}

/// Arguments of the lists.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Do not shorten ids
    #[arg(long)]
    pub no_trunc: bool,
}

/// Arguments of `inspect`.
#[derive(Args, Debug)]
#[command(override_usage = "fairlead inspect [OPTIONS] [KIND] NAME")]
pub struct InspectArgs {
    /// The name, the id, or the beginning of the id; before it, where that is not enough, the kind:
    /// task, network, service, node or endpoint
    #[arg(value_name = "NAME", num_args = 1..=2, required = true)]
    pub object: Vec<String>,
}

/// Arguments of `logs`.
#[derive(Args, Debug)]
pub struct LogsArgs {
    /// Name, id, or beginning of the id
    pub task: String,
    /// Go on until the task ends
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u64>,
    /// Only what was written since: 10m (ago), 2026-01-02T15:04:05Z, or seconds since the epoch
    #[arg(long, value_name = "TIME", value_parser = crate::output::time::parse_since)]
    pub since: Option<u64>,
    /// Begin each line with its time
    #[arg(short, long)]
    pub timestamps: bool,
}

/// Arguments of `events`.
#[derive(Args, Debug)]
pub struct EventsArgs {
    /// Go on until interrupted
    #[arg(short, long)]
    pub follow: bool,
    /// Only events after this sequence number; otherwise every acknowledgement comes first
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    pub since: u64,
}

/// What can be done with networks and services.
#[derive(Debug, Subcommand)]
pub enum ObjectCommand {
    /// List them
    Ls(ListArgs),
    /// Show one
    Inspect {
        /// Name, id, or beginning of the id
        name: String,
    },
}

/// What can be done with nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Show what this node offers
    Describe,
    /// List the nodes of the cluster
    Ls(ListArgs),
}

/// What can be done with endpoints.
#[derive(Debug, Subcommand)]
pub enum EndpointCommand {
    /// List them
    Ls(ListArgs),
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    parse_duration(text).map(std::time::Duration::from_nanos)
}
