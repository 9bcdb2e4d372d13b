//! The signals that end the daemon, in a process of their own.

use std::time::Duration;

use executor::stop::Stop;
use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;

/// Also one that comes before there is anybody who waits for it, and before there is a runtime.
#[test]
fn a_signal_is_kept_until_it_is_waited_for() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let stop = Stop::listen().unwrap();
        kill(getpid(), signal).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let waited = async { tokio::time::timeout(Duration::from_secs(60), stop.wait()).await };
        let waited = runtime.block_on(waited);
        assert!(matches!(waited, Ok(Ok(()))), "{signal}: {waited:?}");
    }
}
