//! `fairlead image`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ListArgs;

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List them
    Ls(ListArgs),
    /// Get one from its registry
    Pull(PullArgs),
    /// Load an archive or a layout that is on the node
    Load {
        /// `docker-archive:/PATH[:NAME]`, `oci-archive:/PATH[:TAG]` or `oci:/DIR[:TAG]`; a path alone
        /// is a docker-archive
        archive: String,
    },
    /// Show one, with its configuration
    Inspect {
        /// Name, id, or beginning of the id
        name: String,
    },
    /// Remove names, and images with their last name
    Rm {
        /// Names, ids, or beginnings of ids
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Also where an image has other names, or tasks use it
        #[arg(short, long)]
        force: bool,
    },
    /// Remove images that no task uses and that have no name, and what pulls left unfinished
    Prune {
        /// Also images that have a name
        #[arg(short, long)]
        all: bool,
        /// Only what was not used for so long
        #[arg(long, value_name = "DURATION", value_parser = super::duration)]
        until: Option<std::time::Duration>,
    },
    /// Show what they take on the disk
    Df,
}

/// Arguments of `image pull`.
#[derive(Args, Debug)]
pub struct PullArgs {
    /// As Docker writes it: nginx, registry.example:5000/team/app:1.0, name@sha256:...
    pub name: String,
    /// Tell nothing but the image's id
    #[arg(short, long)]
    pub quiet: bool,
    /// User name at the registry; the password is read from --password-file. Without it the node's
    /// own configuration counts
    #[arg(short, long, requires = "password_file")]
    pub username: Option<String>,
    /// File with the password; `-` is standard input
    #[arg(long, value_name = "FILE", requires = "username")]
    pub password_file: Option<PathBuf>,
}
