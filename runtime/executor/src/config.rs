//! Flags of the daemon. Each path is one, so that several nodes run on one machine.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// The executor daemon of a Fairlead node.
#[derive(Debug, Clone, Parser)]
#[command(name = "fairleadd", version, about)]
pub struct Options {
    /// Where what must outlive a reboot is kept: store, images, logs, exit statuses.
    #[arg(long, env = "FAIRLEAD_STATE_DIR", default_value = "/var/lib/fairlead")]
    pub state_dir: PathBuf,
    /// Where what lives as long as the machine is kept: socket, namespaces, bundles. A tmpfs.
    #[arg(long, env = "FAIRLEAD_RUN_DIR", default_value = "/run/fairlead")]
    pub run_dir: PathBuf,
    /// Socket to serve; default: executor.sock in the run directory.
    #[arg(long, env = "FAIRLEAD_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Group whose members may use the socket beside root.
    #[arg(long, env = "FAIRLEAD_SOCKET_GROUP")]
    pub socket_group: Option<String>,
    /// cgroup below which the tasks' cgroups are made; different for each node of a machine.
    #[arg(long, env = "FAIRLEAD_CGROUP_PARENT", default_value = "/fairlead")]
    pub cgroup_parent: String,
    /// The shim's program; default: fairlead-shim beside this program, then in PATH.
    #[arg(long, env = "FAIRLEAD_SHIM")]
    pub shim: Option<PathBuf>,
    /// Name of the bridge that gives tasks their way out.
    #[arg(long, env = "FAIRLEAD_GWBRIDGE", default_value = "fl_gwbridge", value_parser = interface)]
    pub gwbridge: String,
    /// What balances published ports, where the node's configuration does not say; default: ipvs
    /// where the kernel has it.
    #[arg(long, env = "FAIRLEAD_ENGINE")]
    pub engine: Option<EngineName>,
    /// How often everything is compared with the kernel: 500ms, 2s, 1m.
    #[arg(long, env = "FAIRLEAD_RECONCILE_INTERVAL", default_value = "2s", value_parser = duration)]
    pub reconcile_interval: Duration,
    /// Where the servers for names outside the cluster are read from.
    #[arg(long, env = "FAIRLEAD_RESOLV_CONF", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// Mirrors, credentials and TLS of registries, as k3s reads them; default:
    /// /etc/fairlead/registries.yaml, if it is there.
    #[arg(long, env = "FAIRLEAD_REGISTRIES", value_name = "FILE")]
    pub registries: Option<PathBuf>,
    /// Do not ask a registry whether a tag means another image by now than the one that is here.
    #[arg(long, env = "FAIRLEAD_PREFER_LOCAL_IMAGES")]
    pub prefer_local_images: bool,
    /// How the layers of images become root file systems; default: as the state directory is used
    /// already, else by overlayfs where that works.
    #[arg(long, env = "FAIRLEAD_SNAPSHOTTER")]
    pub snapshotter: Option<SnapshotterName>,
    /// Remove images that no task uses and that nobody has used for so long: 36h, 30d; default: never.
    #[arg(long, env = "FAIRLEAD_PRUNE_IMAGES_AFTER", value_name = "DURATION", value_parser = age)]
    pub prune_images_after: Option<Duration>,
    /// What to log: error, warn, info, debug, trace, or a filter such as info,executor=debug.
    #[arg(long, env = "FAIRLEAD_LOG", default_value = "info")]
    pub log: String,
}

/// A way to make root file systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SnapshotterName {
    /// Mounts of overlayfs.
    Overlayfs,
    /// Copies.
    Native,
}

impl From<SnapshotterName> for image::Snapshotter {
    fn from(name: SnapshotterName) -> Self {
        match name {
            SnapshotterName::Overlayfs => Self::Overlayfs,
            SnapshotterName::Native => Self::Native,
        }
    }
}

/// A load-balancer implementation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    /// The kernel's IP virtual server.
    Ipvs,
    /// nftables maps.
    Nft,
}

impl From<EngineName> for netdp::Engine {
    fn from(name: EngineName) -> Self {
        match name {
            EngineName::Ipvs => Self::Ipvs,
            EngineName::Nft => Self::Nft,
        }
    }
}

impl Options {
    /// Path of the socket.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.socket
            .clone()
            .unwrap_or_else(|| self.run_dir.join("executor.sock"))
    }

    /// What lives as long as a task's container does.
    #[must_use]
    pub fn task_run_dir(&self, task: &str) -> PathBuf {
        self.run_dir.join("tasks").join(task)
    }

    /// Log and exit status of a task, until it leaves the assignment.
    #[must_use]
    pub fn task_state_dir(&self, task: &str) -> PathBuf {
        self.state_dir.join("tasks").join(task)
    }

    /// A task's output.
    #[must_use]
    pub fn log_path(&self, task: &str) -> PathBuf {
        self.task_state_dir(task).join("log.json")
    }
}

fn interface(name: &str) -> Result<String, String> {
    // IFNAMSIZ with its NUL (linux/if.h); "/" and white space are refused by the kernel.
    let fine = (1..=15).contains(&name.len())
        && !name.contains(|c: char| c == '/' || c.is_whitespace())
        && !matches!(name, "." | "..");
    if fine {
        Ok(name.to_owned())
    } else {
        Err("no interface name: 1 to 15 bytes".to_owned())
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let limits = Duration::from_millis(100)..=Duration::from_secs(3600);
    let duration = with_unit(text)?;
    let fits = limits.contains(&duration);
    fits.then_some(duration)
        .ok_or_else(|| "out of range: 100ms to 60m".to_owned())
}

fn age(text: &str) -> Result<Duration, String> {
    let limits = Duration::from_secs(1)..=Duration::from_secs(100 * 366 * DAY);
    let age = with_unit(text)?;
    let fits = limits.contains(&age);
    fits.then_some(age)
        .ok_or_else(|| "out of range: 1s to a hundred years".to_owned())
}

/// Seconds of a day.
const DAY: u64 = 24 * 3600;

fn with_unit(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number
        .parse()
        .map_err(|_| "no duration: 500ms, 2s, 1m, 36h, 30d".to_owned())?;
    let seconds = match unit {
        "ms" => return Ok(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => DAY,
        _ => return Err("a duration needs a unit: 500ms, 2s, 1m, 36h, 30d".to_owned()),
    };
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        for bad in ["", "2", "s", "0s", "2h", "-1s", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ages_are_long() {
        assert_eq!(age("36h"), Ok(Duration::from_secs(36 * 3600)));
        assert_eq!(age("30d"), Ok(Duration::from_secs(30 * 24 * 3600)));
        for bad in [
            "",
            "2",
            "999ms",
            "0d",
            "40000d",
            "2w",
            "-1d",
            "99999999999999999999d",
        ] {
            assert!(age(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_have_defaults_and_the_socket_follows_the_run_directory() {
        let options = Options::try_parse_from(["fairleadd", "--run-dir", "/run/n1"]).unwrap();
        assert_eq!(
            options.socket_path(),
            PathBuf::from("/run/n1/executor.sock")
        );
        assert!(Options::try_parse_from(["fairleadd", "--gwbridge", "a/b"]).is_err());
        assert!(Options::try_parse_from(["fairleadd", "--engine", "haproxy"]).is_err());
    }
}
