//! Short-lived helpers: the shim's program, doing what only a process with one thread can do.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// A helper that runs. It ends when this is dropped, and when the daemon is killed: it hangs on a pipe.
#[derive(Debug)]
pub(super) struct Helper {
    child: Child,
    _lifeline: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
}

/// Why a helper has not said what came of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelperError {
    /// It could not be started or heard.
    #[error("cannot run {program} {command}: {source}")]
    Io {
        program: String,
        command: &'static str,
        source: io::Error,
    },
    /// It ended without a word that makes sense.
    #[error("the helper ended ({status}) without a report; it said {said:?}")]
    Silent { status: String, said: String },
    /// It was killed: it took too long.
    #[error("the helper did not end within {0:?}")]
    Late(Duration),
}

impl Helper {
    /// Starts one. Forks, which may take a moment: not for the runtime's own threads, but within the
    /// runtime.
    pub fn spawn(
        program: &Path,
        command: &'static str,
        bundle: &Path,
    ) -> Result<Self, HelperError> {
        let mut child = Command::new(program)
            .arg(command)
            .arg(bundle)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A signal from the daemon's terminal is not meant for it.
            .process_group(0)
            .spawn()
            .map_err(|source| HelperError::Io {
                program: program.display().to_string(),
                command,
                source,
            })?;
        Ok(Self {
            _lifeline: child.stdin.take(),
            stdout: child.stdout.take(),
            child,
        })
    }

    /// What it says, once it has ended.
    pub async fn report<T: DeserializeOwned>(mut self, limit: Duration) -> Result<T, HelperError> {
        /// No report is larger.
        const MAX: u64 = 1 << 20;
        let all = async {
            let mut said = Vec::new();
            if let Some(stdout) = self.stdout.take() {
                stdout.take(MAX).read_to_end(&mut said).await?;
            }
            let status = self.child.wait().await?;
            Ok::<_, io::Error>((said, status))
        };
        let Ok(ended) = timeout(limit, all).await else {
            // What it leaves is ended by whoever asked. It may itself be in a wait that no signal ends, so
            // nobody waits for it but the runtime.
            let _ = self.child.start_kill();
            return Err(HelperError::Late(limit));
        };
        let (said, status) = ended.map_err(|source| HelperError::Io {
            program: "the helper".to_owned(),
            command: "",
            source,
        })?;
        serde_json::from_slice(&said).map_err(|_| HelperError::Silent {
            status: status.to_string(),
            said: String::from_utf8_lossy(&said).chars().take(200).collect(),
        })
    }
}
