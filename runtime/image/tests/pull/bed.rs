//! What every test stands on: a network and a folder of its own, and registries.

use std::{
    fs,
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use image::{
    Credentials, Image, ImageError, Name, Options, Platform, PullOptions, Registries, Snapshot,
    Store,
};
use nix::sched::{CloneFlags, unshare};

use crate::common::*;

/// Where the registry is, unless a test says otherwise.
pub const REGISTRY: &str = "127.0.0.1:5000";
/// Of the network, but not a loopback address.
pub const ELSEWHERE: &str = "10.77.0.1";

/// A folder for the test, while its thread is in a network of its own.
pub struct Bed {
    pub place: Place,
}

impl Bed {
    pub fn new(test: &str) -> Self {
        // Threads that this one starts, and programs, are there too.
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: root is needed");
        sh(&format!(
            "ip link set lo up; ip address add {ELSEWHERE}/32 dev lo"
        ));
        Self {
            place: Place::new(&format!("pull-{test}")),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// A registry at [`REGISTRY`] that anybody may use.
    pub fn registry(&self) -> Registry {
        self.registry_at(REGISTRY, "")
    }

    /// A registry; `more` are further sections of its configuration.
    pub fn registry_at(&self, address: &str, more: &str) -> Registry {
        let folder = self.path(&format!("registry-{address}"));
        fs::create_dir_all(&folder).expect("a folder");
        let config = folder.with_extension("yml");
        // `http` is last: `more` can go on with it.
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}}}\n\
             validation: {{manifests: {{urls: {{allow: ['.*']}}}}}}\n\
             http:\n  addr: '{address}'\n  secret: none\n{more}",
            folder.display()
        );
        fs::write(&config, text).expect("a configuration");
        let mut registry = Registry {
            address: address.to_owned(),
            config,
            process: None,
        };
        registry.start();
        registry
    }

    pub fn store(&self) -> Store {
        self.store_with(Registries::default())
    }

    pub fn store_with(&self, registries: Registries) -> Store {
        self.store_for(registries, Platform::host())
    }

    pub fn store_for(&self, registries: Registries, platform: Platform) -> Store {
        let options = Options {
            registries,
            platform,
            ..Options::default()
        };
        open_store(self.path("store"), options)
    }

    /// Removes the store.
    pub fn forget(&self) {
        let root = self.path("store");
        if root.exists() {
            fs::remove_dir_all(root).expect("removed");
        }
    }

    /// Nothing is left of a pull that failed, or of one that is complete, but `blobs` downloads that
    /// can go on.
    pub fn is_clean(&self, layers: usize, blobs: usize) {
        let count = |folder: &str| {
            let entries = fs::read_dir(self.path("store").join(folder)).expect(folder);
            entries.count()
        };
        assert_eq!(count("tmp"), 0, "work in progress is left");
        assert_eq!(count("blobs"), blobs, "downloads");
        assert_eq!(
            (count("l"), count("layers")),
            (layers, 2 * layers),
            "directories, records and recipes of layers"
        );
    }
}

pub fn name(text: &str) -> Name {
    text.parse().expect(text)
}

/// Pulls without anything special.
pub fn pull(store: &Store, text: &str) -> Result<Image, ImageError> {
    store.pull(&name(text), &PullOptions::default())
}

/// The error of a pull that has to fail, with what every one has to say: the image. What it must not
/// say is a password.
pub fn failure(outcome: Result<Image, ImageError>, text: &str) -> String {
    let error = outcome.expect_err("the pull must fail").to_string();
    let short = text.split('@').next().unwrap_or(text);
    assert!(error.contains(short), "{error}");
    assert!(!error.contains(PASSWORD), "{error}");
    error
}

/// Who the tests are, where it matters.
pub fn me() -> Credentials {
    Credentials {
        username: "me".into(),
        password: PASSWORD.into(),
        ..Credentials::default()
    }
}

/// A pull with credentials of its own.
pub fn with(credentials: Credentials) -> PullOptions {
    let mut options = PullOptions::default();
    options.credentials = Some(credentials);
    options
}

/// What no error may contain.
pub const PASSWORD: &str = "pass:word";

/// A snapshot that is called as the test wants.
pub fn snapshot(store: &Store, image: &Image, key: &str) -> Snapshot {
    store.snapshot(image, key).expect("a snapshot")
}

/// What a container of this image would see.
pub fn seen(bed: &Bed, store: &Store, image: &Image) -> String {
    let key = format!("see-{}", &image.id.hex()[..12]);
    let mount = snapshot(store, image, &key)
        .overlay_options()
        .expect("an overlay");
    mounted_listing(&mount, &bed.path(&key), false)
}

/// The content of a file of the image.
pub fn file(bed: &Bed, store: &Store, image: &Image, path: &str) -> String {
    let key = format!("file-{}", &image.id.hex()[..12]);
    let mount = snapshot(store, image, &key)
        .overlay_options()
        .expect("an overlay");
    let point = bed.path(&key);
    mounted(&mount, &point, &format!("cat '{}/{path}'", point.display()))
}

/// A running `docker-registry`; it ends with this.
pub struct Registry {
    pub address: String,
    config: PathBuf,
    process: Option<Child>,
}

impl Registry {
    pub fn start(&mut self) {
        let errors = fs::File::create(self.config.with_extension("log")).expect("a log");
        let child = Command::new("setpriv")
            // Should the test be killed, it goes too.
            .args(["--pdeathsig", "KILL", "/usr/bin/docker-registry", "serve"])
            .arg(&self.config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .expect("docker-registry: scripts/setup --test installs it");
        self.process = Some(child);
        let limit = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(&self.address).is_err() {
            let ended = self.process.as_mut().and_then(|p| p.try_wait().ok()?);
            assert!(
                ended.is_none() && Instant::now() < limit,
                "docker-registry does not answer: {}",
                fs::read_to_string(self.config.with_extension("log")).unwrap_or_default()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it, at once.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it runs");
            process.wait().expect("it ended");
        }
    }

    /// A name in it.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}
