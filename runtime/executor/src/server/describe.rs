//! What this node offers. What cannot change while the daemon runs is looked up once.

use std::fs;

use container::cgroup::{Layout, LayoutKind};
use fairlead_api::v1;
use tonic::Status;

use crate::node::Node;

#[derive(Debug, Clone)]
pub(super) struct Machine {
    hostname: String,
    architecture: String,
    kernel: String,
    cgroups: String,
    nano_cpus: i64,
    memory_bytes: i64,
    /// What tasks need beside the network.
    features: Vec<v1::Feature>,
}

impl Machine {
    pub(super) fn detect() -> Self {
        let (hostname, architecture, kernel) = match nix::sys::utsname::uname() {
            Ok(names) => {
                let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
                (
                    text(names.nodename()),
                    text(names.machine()),
                    text(names.release()),
                )
            }
            Err(_) => Default::default(),
        };
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
        let layout = Layout::detect();
        let mut features = vec![overlayfs(&kernel)];
        for (controller, purpose) in CONTROLLERS {
            let there = layout
                .as_ref()
                .is_ok_and(|layout| layout.with_controller(controller).is_some());
            features.push(feature(
                &format!("cgroup-{controller}"),
                purpose,
                there,
                "the cgroup controller: it may be disabled on the kernel's command line",
            ));
        }
        let cgroups = match layout.map(|layout| layout.kind()) {
            Ok(LayoutKind::V2) => "v2",
            Ok(LayoutKind::V1) => "v1",
            Ok(LayoutKind::Mixed) => "mixed",
            Err(_) => "",
        };
        Self {
            hostname,
            architecture,
            kernel,
            cgroups: cgroups.to_owned(),
            nano_cpus: i64::try_from(cpus)
                .unwrap_or(1)
                .saturating_mul(1_000_000_000),
            memory_bytes: memory_bytes().unwrap_or(0),
            features,
        }
    }
}

/// Controllers that limits need, and what for.
const CONTROLLERS: [(&str, &str); 3] = [
    ("cpu", "limits of processor time"),
    ("memory", "limits of memory"),
    ("pids", "limits of processes"),
];

fn feature(name: &str, purpose: &str, available: bool, needs: &str) -> v1::Feature {
    v1::Feature {
        name: name.to_owned(),
        available,
        detail: if available {
            purpose.to_owned()
        } else {
            format!("{purpose}; needs {needs}")
        },
    }
}

/// In the kernel, or a module that it loads at the first mount.
fn overlayfs(release: &str) -> v1::Feature {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let known = read("/proc/filesystems")
        .lines()
        .any(|line| line.split_whitespace().last() == Some("overlay"));
    let module = || read(&format!("/lib/modules/{release}/modules.dep")).contains("/overlay.ko");
    feature(
        "overlayfs",
        "root file systems of tasks from images",
        known || module(),
        "CONFIG_OVERLAY_FS, module overlay",
    )
}

/// proc_meminfo(5), in KiB there.
fn memory_bytes() -> Option<i64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<i64>()
        .ok()?
        .checked_mul(1024)
}

pub(super) fn describe(node: &Node, machine: &Machine) -> Result<v1::DescribeResponse, Status> {
    let config = node.view().config;
    let facts = node.plane()?.facts();
    let own_name = config
        .as_ref()
        .map(|c| c.hostname.clone())
        .filter(|name| !name.is_empty());
    let network = facts.features.iter().map(|feature| v1::Feature {
        name: feature.name.to_owned(),
        available: feature.available,
        detail: feature.detail.clone(),
    });
    let mut features: Vec<v1::Feature> = network.chain(machine.features.clone()).collect();
    features.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(v1::DescribeResponse {
        hostname: own_name.unwrap_or_else(|| machine.hostname.clone()),
        architecture: machine.architecture.clone(),
        os: "linux".to_owned(),
        resources: Some(v1::Resources {
            nano_cpus: machine.nano_cpus,
            memory_bytes: machine.memory_bytes,
            ..Default::default()
        }),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: machine.kernel.clone(),
        engine: facts.engine.name().to_owned(),
        cgroups: machine.cgroups.clone(),
        features,
        config,
    })
}
