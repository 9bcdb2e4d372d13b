//! `run`.

use super::{Context, create, delete, foreground, start};
use crate::args;
use crate::bundle::Bundle;
use crate::error::OciError;
use crate::tty;
use std::process::ExitCode;

pub fn run(context: &Context<'_>, args: args::Run) -> Result<ExitCode, OciError> {
    let bundle = Bundle::read(&args.create.bundle)?;
    let terminal = bundle.spec.process().as_ref().and_then(|p| p.terminal()) == Some(true);
    let (console, ours) = match &args.create.console_socket {
        Some(path) => (Some(container::connect_console(path)?), None),
        None if terminal && args.detach => {
            return Err(OciError::Option {
                option: "--detach",
                reason: "the container wants a terminal; give --console-socket too".into(),
            });
        }
        None if terminal => {
            let (theirs, ours) = tty::console()?;
            (Some(theirs), Some(ours))
        }
        None => (None, None),
    };
    if !args.detach {
        foreground::prepare(!args.no_subreaper)?;
    }
    // The container's process and this one know each other: nobody has to listen for the start.
    let (entry, created) = create::create(
        context,
        &args.create,
        &bundle,
        console,
        create::Starter::Own,
        Ok,
    )?;
    let relay = ours.as_ref().map(tty::receive);
    let begun = relay.transpose().and_then(|master| {
        // It gives the terminal its size, which the program may ask for at once.
        let relay = master.map(tty::Relay::new).transpose()?;
        Ok((relay, created.start()?))
    });
    // The error that led to a deletion is the one to report.
    let delete = |entry| {
        if let Err(error) = delete::delete(context, entry) {
            context.log.warning(&error.to_string());
        }
    };
    let (relay, started) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            delete(entry);
            return Err(error);
        }
    };
    let saved = entry.unlock();
    if let Err(error) = start::has_begun(context, &saved, &bundle.spec, started.pid) {
        match context.store.again(&saved) {
            Ok(entry) => drop(entry.map(delete)),
            Err(error) => context.log.warning(&error.to_string()),
        }
        return Err(error);
    }
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let exit = foreground::wait(started.pid, &started.pidfd, relay)?;
    if !args.keep {
        match context.store.again(&saved)? {
            None => {} // somebody else was faster
            Some(entry) => delete::delete_known(context, entry, &bundle.spec, started.cgroup)?,
        }
    }
    Ok(foreground::exit_code(exit))
}
