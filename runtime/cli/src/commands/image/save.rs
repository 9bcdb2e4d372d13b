//! `image save`: what the daemon sends goes to a file or to standard output.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use fairlead_api::v1;
use tempfile::NamedTempFile;

use crate::args::SaveArgs;
use crate::commands::unless_ended;
use crate::error::CliError;
use crate::socket::Daemon;

/// Saves images.
pub async fn run(daemon: &Daemon, args: &SaveArgs) -> Result<(), CliError> {
    let mut target = Target::open(args.output.as_deref())?;
    let request = v1::SaveImagesRequest {
        names: args.names.clone(),
    };
    let doing = format!("save {}", args.names.join(", "));
    let receive = async {
        let answer = daemon.images.clone().save_images(request).await;
        let mut pieces = answer
            .map_err(|status| daemon.error(&doing, &status))?
            .into_inner();
        while let Some(response) = pieces
            .message()
            .await
            .map_err(|status| daemon.error(&doing, &status))?
        {
            target.write(response.piece).await?;
        }
        Ok(())
    };
    // What is dropped here leaves no file.
    unless_ended(receive).await?;
    target.finish()
}

/// Where the archive goes.
enum Target {
    Stdout,
    /// A device or a pipe: there is nothing that a half archive could replace.
    Direct(File, PathBuf),
    /// Beside the file that it becomes once it is complete.
    Beside(NamedTempFile, PathBuf),
}

impl Target {
    fn open(output: Option<&Path>) -> Result<Self, CliError> {
        let path = match output {
            Some(path) if path != Path::new("-") => path,
            _ if io::stdout().is_terminal() => {
                return Err(CliError::Usage(
                    "an archive is not written to a terminal: redirect it, or name a file with -o"
                        .to_owned(),
                ));
            }
            _ => return Ok(Self::Stdout),
        };
        // A link stays one, and what it leads to is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let failed = |error| failed(&path, error);
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => {
                return Err(failed(io::ErrorKind::IsADirectory.into()));
            }
            Ok(found) if !found.is_file() => {
                let file = File::options().write(true).open(&path).map_err(failed)?;
                return Ok(Self::Direct(file, path));
            }
            _ => {}
        }
        let folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let name = path.file_name().unwrap_or_default();
        let begin = [".".as_ref(), name, ".".as_ref()].join("".as_ref());
        let file = tempfile::Builder::new()
            .prefix(&begin)
            .tempfile_in(folder)
            .map_err(failed)?;
        Ok(Self::Beside(file, path))
    }

    async fn write(&mut self, piece: Vec<u8>) -> Result<(), CliError> {
        match self {
            // Not as with texts: an archive is of no use if its reader has gone.
            Self::Stdout => aside(move || io::stdout().write_all(&piece))
                .await
                .map_err(CliError::Output),
            Self::Direct(file, path) => {
                let cloned = file.try_clone();
                let written = match cloned {
                    Ok(mut file) => aside(move || file.write_all(&piece)).await,
                    Err(error) => Err(error),
                };
                written.map_err(|error| failed(path, error))
            }
            Self::Beside(file, path) => file.write_all(&piece).map_err(|error| failed(path, error)),
        }
    }

    fn finish(self) -> Result<(), CliError> {
        match self {
            Self::Stdout => io::stdout().flush().map_err(CliError::Output),
            Self::Direct(..) => Ok(()),
            Self::Beside(file, path) => file
                .as_file()
                .sync_all()
                .and_then(|()| Ok(file.persist(&path)?))
                .map(drop)
                .map_err(|error| failed(&path, error)),
        }
    }
}

/// In another thread: a reader that reads nothing must not keep this one from hearing signals.
async fn aside(write: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    let written = tokio::task::spawn_blocking(write).await;
    written.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn failed(path: &Path, error: io::Error) -> CliError {
    CliError::Document(format!("{}: {error}", path.display()))
}
