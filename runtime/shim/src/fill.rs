//! `fairlead-shim fill <bundle>`: gives new volumes the content that the image has at their places.
//!
//! A process of its own, because it sees the image through a mount that must be nobody else's, and must
//! go with it.

use crate::files::read_json;
use crate::lifeline;
use container::SetupFailure;
use container::shim::{FILL, FillOptions, FillReport};
use std::path::Path;
use std::process::ExitCode;

/// See the module.
pub fn run(bundle: &Path) -> ExitCode {
    let filled = match read_json::<FillOptions>(&bundle.join(FILL)) {
        Ok(options) => container::volume::fill(&options, &go_on),
        Err(message) => {
            let failed = FillReport::Failed { message, errno: 0 };
            lifeline::report(&failed);
            return ExitCode::FAILURE;
        }
    };
    let report = match filled {
        Ok(()) => FillReport::Filled,
        Err(failure) => FillReport::Failed {
            message: failure.to_string(),
            errno: failure.errno,
        },
    };
    if lifeline::report(&report) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn go_on() -> Result<(), SetupFailure> {
    if lifeline::is_cut() {
        // Nobody hears it; what is there so far is made anew by whoever comes next.
        return Err(SetupFailure {
            step: "fill".into(),
            object: "volumes".into(),
            errno: 0,
            reason: "nobody waits for it any more".into(),
        });
    }
    Ok(())
}
