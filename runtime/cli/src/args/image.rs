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
    /// Load the images of an archive
    Load(LoadArgs),
    /// Save images as an archive that `docker load` and `image load` take
    Save(SaveArgs),
    /// Make an image of an archive of a root file system
    Import(ImportArgs),
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

/// Arguments of `image load`.
#[derive(Args, Debug)]
pub struct LoadArgs {
    /// An archive or a layout on the node: `docker-archive:/PATH[:NAME]`, `oci-archive:/PATH[:TAG]` or
    /// `oci:/DIR[:TAG]`; a path alone is a docker-archive. All its images are loaded, or the one that is
    /// chosen. Without it, or with `-`: what comes on standard input, of either kind
    #[arg(value_name = "ARCHIVE|-")]
    pub archive: Option<String>,
    /// An archive of either kind that is read here and sent to the node; `-` is standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "archive")]
    pub input: Option<PathBuf>,
}

/// Arguments of `image save`.
#[derive(Args, Debug)]
pub struct SaveArgs {
    /// Names, ids, or beginnings of ids. One that is named by its id has no name in the archive
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// File to write, which appears when it is complete; standard output without it
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Arguments of `image import`.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// A tar archive, plain or compressed with gzip or zstd; `-` is standard input
    #[arg(value_name = "FILE|-")]
    pub file: PathBuf,
    /// What the image is called, as Docker writes it: web, team/web:1
    pub name: Option<String>,
    /// A line of a Dockerfile that goes into the configuration: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK,
    /// LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR; may be given more than once
    #[arg(short, long = "change", value_name = "LINE")]
    pub changes: Vec<String>,
    /// What the image's history says
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// What the image is for: os/architecture[/variant]. Without it: the node
    #[arg(long)]
    pub platform: Option<String>,
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
