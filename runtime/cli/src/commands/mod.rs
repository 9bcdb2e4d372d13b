//! What each command does.

mod apply;
mod changes;
mod describe;
mod events;
mod image;
mod inspect;
mod ipvs;
mod list;
mod logs;
mod relay;
mod wait;

use std::future::Future;

use fairlead_api::v1::Kind;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Cli, Command, EndpointCommand, Format, NodeCommand, ObjectCommand};
use crate::error::CliError;
use crate::format;
use crate::output::print;
use crate::socket::Daemon;

/// Does what the command line says.
pub async fn run(cli: Cli) -> Result<(), CliError> {
    let json = cli.format == Some(Format::Json);
    let as_table = cli.format == Some(Format::Table);
    match &cli.command {
        Command::Schema => return print(&format::schema()?),
        Command::Apply(args) => return apply::run(&cli.socket, args, json).await,
        Command::Ipvs(command) => return ipvs::run(&cli.socket, command, json).await,
        _ => {}
    }
    let mut daemon = Daemon::connect_one(&cli.socket).await?;
    match cli.command {
        Command::Apply(_) | Command::Ipvs(_) | Command::Schema => Ok(()),
        Command::Ps(args) => list::list(&mut daemon, Kind::Task, args.no_trunc, json).await,
        Command::Inspect(args) => inspect::run(&mut daemon, &args.object, !as_table).await,
        Command::Logs(args) => {
            until_interrupted(args.follow, logs::run(&mut daemon, &args, json)).await
        }
        Command::Events(args) => {
            until_interrupted(args.follow, events::run(&mut daemon, &args, json)).await
        }
        Command::Network(ObjectCommand::Ls(args)) => {
            list::list(&mut daemon, Kind::Network, args.no_trunc, json).await
        }
        Command::Network(ObjectCommand::Inspect { name }) => {
            inspect::network(&mut daemon, &name, json).await
        }
        Command::Service(ObjectCommand::Ls(args)) => {
            list::list(&mut daemon, Kind::Service, args.no_trunc, json).await
        }
        Command::Service(ObjectCommand::Inspect { name }) => {
            inspect::service(&mut daemon, &name, json).await
        }
        Command::Image(command) => image::run(&daemon, command, json).await,
        Command::Node(NodeCommand::Describe) => describe::run(&mut daemon, json).await,
        Command::Node(NodeCommand::Ls(args)) => {
            list::list(&mut daemon, Kind::Node, args.no_trunc, json).await
        }
        Command::Endpoint(EndpointCommand::Ls(args)) => {
            list::list(&mut daemon, Kind::Endpoint, args.no_trunc, json).await
        }
    }
}

/// Work that leaves nothing behind when somebody ends the program in the middle.
async fn unless_ended<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let mut terminated = signal(SignalKind::terminate()).map_err(CliError::Start)?;
    tokio::select! {
        result = work => result,
        Ok(()) = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
        Some(()) = terminated.recv() => Err(CliError::Interrupted),
    }
}

/// An interrupt is how a person ends what goes on without end, so then it is no failure.
async fn until_interrupted(
    follow: bool,
    work: impl Future<Output = Result<(), CliError>>,
) -> Result<(), CliError> {
    if !follow {
        return work.await;
    }
    tokio::select! {
        result = work => result,
        Ok(()) = tokio::signal::ctrl_c() => Ok(()),
    }
}
