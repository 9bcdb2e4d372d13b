//! Pulls in a process of its own, which has variables of its own, and can be killed.

use std::{
    env,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use image::Registries;

use crate::bed::*;

const NAME: &str = "FAIRLEAD_TEST_PULL_NAME";
const STORE: &str = "FAIRLEAD_TEST_PULL_STORE";
const REGISTRIES: &str = "FAIRLEAD_TEST_PULL_REGISTRIES";

/// With this variable, the pull is cancelled after so many milliseconds.
pub const CANCEL: &str = "FAIRLEAD_TEST_PULL_CANCEL";

/// What the process says before the id of the image, and how much memory it took.
const PULLED: &str = "pulled ";
const PEAK: &str = "peak ";
const FAILED: &str = "failed ";

/// Starts one. `registries` may only have mirrors, and for TLS whom to trust.
pub fn pull(bed: &Bed, name: &str, registries: &Registries, variables: &[(&str, &str)]) -> Pull {
    let mirrors: Vec<_> = registries
        .mirrors
        .iter()
        .map(|(of, mirror)| (of, serde_json::json!({"endpoint": mirror.endpoints})))
        .collect();
    let mirrors: serde_json::Map<_, _> =
        mirrors.into_iter().map(|(of, m)| (of.clone(), m)).collect();
    let tls = |tls: &image::TlsConfig| {
        let (file, skip) = (&tls.ca_file, tls.insecure_skip_verify);
        serde_json::json!({"tls": {"ca_file": file, "insecure_skip_verify": skip}})
    };
    let hosts = registries.configs.iter();
    let hosts = hosts.map(|(of, host)| (of.clone(), tls(&host.tls)));
    let configs: serde_json::Map<_, _> = hosts.collect();
    let mut command = Command::new(env::current_exe().expect("a program"));
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    let child = command
        .args(["--exact", "child::in_the_process", "--nocapture"])
        .env(NAME, name)
        .env(STORE, bed.path("store"))
        .env(
            REGISTRIES,
            serde_json::json!({"mirrors": mirrors, "configs": configs}).to_string(),
        )
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process");
    Pull(Some(child))
}

/// A pull that is going on; it is killed with this.
pub struct Pull(Option<Child>);

impl Pull {
    /// Waits for the end: the image's id, or the error.
    pub fn outcome(mut self) -> Result<String, String> {
        let child = self.0.take().expect("it was started");
        let output = child.wait_with_output().expect("an end");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = |word: &str| {
            let found = text.split_once(word)?.1.lines().next()?;
            Some(found.to_owned())
        };
        match (said(PULLED), said(FAILED)) {
            (Some(id), _) => Ok(id),
            (None, Some(error)) => Err(error),
            (None, None) => panic!("{text}{}", String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// Waits for the end, which has to be a good one: bytes of memory that were in use at most.
    pub fn peak(mut self) -> u64 {
        let child = self.0.take().expect("it was started");
        let output = child.wait_with_output().expect("an end");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(PULLED), "{text}");
        let peak = text
            .split_once(PEAK)
            .and_then(|(_, rest)| rest.lines().next()?.parse().ok());
        peak.expect("a number")
    }

    /// As the kernel does it when there is no memory left.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        self.end();
    }
}

/// No test by itself: what [`pull`] starts.
#[test]
fn in_the_process() {
    let (Ok(text), Ok(root)) = (env::var(NAME), env::var(STORE)) else {
        return;
    };
    let registries = env::var(REGISTRIES).expect("registries");
    let options = image::Options {
        registries: serde_json::from_str(&registries).expect("registries"),
        ..image::Options::default()
    };
    let store = image::Store::open_with(root, options).expect("a store");
    // The runner writes, too: on a line of its own.
    let options = image::PullOptions::default();
    if let Ok(pause) = env::var(CANCEL) {
        let pause = Duration::from_millis(pause.parse().expect("a number"));
        let canceller = options.canceller();
        thread::spawn(move || {
            thread::sleep(pause);
            canceller.cancel();
        });
    }
    let outcome = store.pull(&name(&text), &options);
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let peak = status.split_once("VmHWM:").and_then(|(_, rest)| {
        let kilobytes: u64 = rest.split_whitespace().next()?.parse().ok()?;
        Some(kilobytes << 10)
    });
    println!("\n{PEAK}{}", peak.expect("a peak"));
    match outcome {
        Ok(image) => println!("\n{PULLED}{}", image.id),
        Err(error) => println!("\n{FAILED}{error}"),
    }
}
