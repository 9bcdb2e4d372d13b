//! The signals that end the daemon.

use std::io;
use std::os::unix::net::UnixStream;

use nix::sys::signal::{SigSet, Signal};
use signal_hook::low_level::pipe;
use tokio::io::AsyncReadExt as _;

/// Keeps SIGTERM and SIGINT until they are waited for.
///
/// Not tokio's own signals: those lose the one that comes after its handler is there and before its first
/// listener is, and a daemon that is ended while it starts would go on.
pub struct Stop(UnixStream);

impl Stop {
    /// From here on these signals no longer end the process by themselves. To be called before there
    /// are other threads, which could take a signal while its handler is half there.
    ///
    /// # Errors
    /// When the kernel has no descriptors left.
    pub fn listen() -> io::Result<Self> {
        let (seen, told) = UnixStream::pair()?;
        seen.set_nonblocking(true)?;
        let signals = [Signal::SIGINT, Signal::SIGTERM];
        let before =
            SigSet::from_iter(signals).thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
        let registered = signals
            .into_iter()
            .try_for_each(|signal| pipe::register(signal as i32, told.try_clone()?).map(drop));
        before.thread_set_mask()?;
        registered.map(|()| Self(seen))
    }

    /// Until one of them has come. To be called within the runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch another descriptor.
    pub async fn wait(self) -> io::Result<()> {
        let mut seen = tokio::net::UnixStream::from_std(self.0)?;
        // The other end is open as long as the process is: this ends by a signal only.
        seen.read_u8().await.map(drop)
    }
}
