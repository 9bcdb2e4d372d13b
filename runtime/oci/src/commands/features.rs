//! `features` (features.md, features-linux.md).

use super::state::print;
use crate::error::OciError;
use container::features;
use std::process::ExitCode;

pub fn run() -> Result<ExitCode, OciError> {
    print(&features::features())?;
    Ok(ExitCode::SUCCESS)
}
