//! `fairlead ipvs`, with the options of `ipvsadm` where it has them.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What can be done with the kernel's IPVS.
#[derive(Debug, Subcommand)]
pub enum IpvsCommand {
    /// List services and destinations, as `ipvsadm -Ln` does
    #[command(visible_alias = "list")]
    Ls(IpvsLsArgs),
    /// Write services and destinations as `ipvsadm -Sn` does
    Save(IpvsPlace),
    /// Carry out the commands that `save` or `ipvsadm -Sn` wrote
    Restore(IpvsRestoreArgs),
    /// Zero the counters of one service, or all
    Zero(IpvsZeroArgs),
}

impl IpvsCommand {
    /// The namespace that it is about.
    pub fn place(&self) -> &IpvsPlace {
        match self {
            Self::Ls(args) => &args.place,
            Self::Save(place) => place,
            Self::Restore(args) => &args.place,
            Self::Zero(args) => &args.place,
        }
    }
}

/// Which network namespace.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub struct IpvsPlace {
    /// Network namespace: a name below /run/netns, or a path [default: that of this process]
    #[arg(long, value_name = "NAME|PATH")]
    pub netns: Option<PathBuf>,
    /// That of a network of the node, which the daemon is asked for
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
}

/// One service, or none for all.
#[derive(Args, Debug)]
pub struct IpvsService {
    /// Which.
    #[command(flatten)]
    pub id: IpvsServiceId,
    /// The mark is one of IPv6
    #[arg(short = '6', long, requires = "mark")]
    pub ipv6: bool,
}

/// What tells one service from another.
#[derive(Args, Debug)]
#[group(multiple = false, id = "ipvs_service")]
pub struct IpvsServiceId {
    /// Only this TCP service
    #[arg(short = 't', long = "tcp-service", value_name = "ADDRESS:PORT")]
    pub tcp: Option<String>,
    /// Only this UDP service
    #[arg(short = 'u', long = "udp-service", value_name = "ADDRESS:PORT")]
    pub udp: Option<String>,
    /// Only this SCTP service
    #[arg(long = "sctp-service", value_name = "ADDRESS:PORT")]
    pub sctp: Option<String>,
    /// Only this mark's service
    #[arg(short = 'f', long = "fwmark-service", value_name = "MARK")]
    pub mark: Option<String>,
}

/// Arguments of `ipvs ls`.
#[derive(Args, Debug)]
pub struct IpvsLsArgs {
    /// Where.
    #[command(flatten)]
    pub place: IpvsPlace,
    /// What.
    #[command(flatten)]
    pub service: IpvsService,
    /// How.
    #[command(flatten)]
    pub columns: IpvsColumns,
    /// Numbers in full, not in thousands
    #[arg(long)]
    pub exact: bool,
}

/// What is told.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub struct IpvsColumns {
    /// Connections, packets and bytes so far
    #[arg(long)]
    pub stats: bool,
    /// Connections, packets and bytes per second
    #[arg(long)]
    pub rate: bool,
    /// Thresholds
    #[arg(long)]
    pub thresholds: bool,
    /// Clients bound by persistence
    #[arg(long)]
    pub persistent_conn: bool,
    /// Types of tunnels
    #[arg(long)]
    pub tun_info: bool,
    /// The connection table
    #[arg(short, long, conflicts_with = "ipvs_service")]
    pub connections: bool,
    /// The time-outs
    #[arg(long, conflicts_with = "ipvs_service")]
    pub timeout: bool,
    /// The synchronisation daemons
    #[arg(long, conflicts_with = "ipvs_service")]
    pub daemon: bool,
}

/// Arguments of `ipvs restore`.
#[derive(Args, Debug)]
pub struct IpvsRestoreArgs {
    /// Where.
    #[command(flatten)]
    pub place: IpvsPlace,
    /// File with the commands; `-`, or none, is standard input
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Make the namespace have these services and no others, by the fewest changes; without, the
    /// commands are carried out in their order, as `ipvsadm -R` does
    #[arg(long)]
    pub replace: bool,
}

/// Arguments of `ipvs zero`.
#[derive(Args, Debug)]
pub struct IpvsZeroArgs {
    /// Where.
    #[command(flatten)]
    pub place: IpvsPlace,
    /// What.
    #[command(flatten)]
    pub service: IpvsService,
}
