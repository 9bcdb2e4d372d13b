//! What other people's tools see.

use std::fs;
use std::path::{Path, PathBuf};

use crate::node::{Background, in_netns};
use crate::tools::{sh, wait_for};

/// The packets that pass an interface.
#[derive(Debug)]
pub struct Capture {
    file: PathBuf,
    tcpdump: Option<Background>,
}

impl Capture {
    /// Begins to listen on an interface, for what a filter of `tcpdump` takes.
    ///
    /// # Panics
    /// When `tcpdump` does not start.
    #[must_use]
    pub fn start(netns: &Path, interface: &str, filter: &str, dir: &Path) -> Self {
        let file = dir.join(format!("{interface}.pcap"));
        let log = dir.join(format!("{interface}.tcpdump"));
        let path = file.display().to_string();
        let program = [
            "tcpdump",
            "--immediate-mode",
            "-Unpi",
            interface,
            "-w",
            &path,
            filter,
        ];
        let tcpdump = Background::start(netns, &log, &program);
        wait_for("tcpdump to listen", || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if text.contains("listening on") {
                Ok(())
            } else {
                Err(text)
            }
        });
        Self {
            file,
            tcpdump: Some(tcpdump),
        }
    }

    /// Ends listening; what has passed can be looked at again and again then.
    ///
    /// # Panics
    /// When `tcpdump` does not end.
    pub fn end(&mut self) {
        if let Some(tcpdump) = self.tcpdump.take() {
            tcpdump.end();
        }
    }

    /// What `tcpdump` says of each packet that its filter takes. A filter sees what is outside of a
    /// tunnel, and nothing else.
    ///
    /// # Panics
    /// When `tcpdump` fails.
    #[must_use]
    pub fn packets(&self, filter: &str) -> Vec<String> {
        let file = self.file.display();
        let text = sh(&format!("tcpdump -enr {file} '{filter}' 2>/dev/null"));
        text.lines().map(str::to_owned).collect()
    }
}

/// Runs a shell script in a network namespace; its output.
///
/// # Panics
/// When it fails.
pub fn see(netns: &Path, script: &str) -> String {
    in_netns(netns, script).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a shell script in a network namespace that has to fail; all it said.
///
/// # Panics
/// When it does not fail.
pub fn see_failing(netns: &Path, script: &str) -> String {
    match in_netns(netns, script) {
        Ok(output) => panic!("{script} does not fail: {output}"),
        Err(error) => error,
    }
}

/// The settings of a node that a removal leaves as they are (docs/operations.md), and what the kernel
/// sets along with them.
const STAYS: &str = "net\\.ipv4\\.ip_forward|net\\.ipv[46]\\.conf\\.[^.]*\\.forwarding|\
    net\\.ipv4\\.conf\\.all\\.accept_redirects|net\\.ipv6\\.conf\\.[^.]*\\.accept_ra";

/// The state of a node's network namespace that a removal has to restore: links, addresses, routes,
/// rules, nftables, and all settings but those of [`stays`].
#[must_use]
pub fn state(netns: &Path) -> String {
    // Handles and counters of nftables only grow; indices and queue lengths say nothing. The route of
    // a link-local address comes when the kernel has made sure that it is the only one. A router
    // also answers to the anycast address of each prefix, and a count is no setting.
    let script = format!(
        "ip -br link | awk '{{print $1, $3}}' | sort
         ip -br addr | awk '{{$2 = \"\"; print}}' | sort
         ip -4 route show table all | sort
         ip -6 route show table all | grep -v -e ^anycast -e '^local fe80:' | sort
         ip rule; ip -6 rule; nft -s list ruleset
         sysctl -a 2>/dev/null | grep '^net\\.' |
             grep -Ev '^({STAYS}|.*\\.nf_conntrack_count) = '"
    );
    see(netns, &script)
}

/// Those settings of a node that a removal leaves as they are, a line of `name = value` for each.
#[must_use]
pub fn stays(netns: &Path) -> Vec<String> {
    let script = format!("sysctl -a 2>/dev/null | grep -E '^({STAYS}) = '");
    see(netns, &script).lines().map(str::to_owned).collect()
}

/// The value of a cgroup's limit in whatever version is there: the file of v2, or that of v1.
///
/// # Panics
/// When neither is there.
#[must_use]
pub fn cgroup_file(pid: u64, v2: &str, controller: &str, v1: &str) -> String {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroups of the task");
    for line in table.lines() {
        let parts: Vec<&str> = line.splitn(3, ':').collect();
        let [_, controllers, path] = parts[..] else {
            continue;
        };
        let file = if controllers.split(',').any(|name| name == controller) {
            format!("/sys/fs/cgroup/{controller}{path}/{v1}")
        } else if controllers.is_empty() {
            format!("/sys/fs/cgroup{path}/{v2}")
        } else {
            continue;
        };
        if let Ok(value) = fs::read_to_string(file) {
            return value.trim().to_owned();
        }
    }
    panic!("no limit of {controller} for {pid}: {table}")
}
