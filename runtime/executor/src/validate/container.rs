//! The container specification of a task.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Component, Path};

use fairlead_api::v1;

use super::health::check_health;
use super::network::unknown;
use super::violations::{At, Violations, check_name};
use super::{parse_capability, parse_signal};
use crate::task::capabilities;

/// Checks it; the stop signal's number, where one is named.
pub fn check_container(v: &mut Violations, at: At<'_>, c: &v1::ContainerSpec) -> Option<i32> {
    if c.image.is_empty() {
        v.add(at.field("image"), "missing");
    } else if let Err(error) = c.image.parse::<image::Reference>() {
        v.add(at.field("image"), error.to_string());
    }
    let auth = c
        .pull_options
        .as_ref()
        .map(|options| &options.registry_auth);
    if let Some(auth) = auth.filter(|auth| !auth.is_empty())
        && let Err(reason) = image::Credentials::from_registry_auth(auth)
    {
        v.add(at.field("pull_options").field("registry_auth"), reason);
    }
    for (name, list) in [("command", &c.command), ("args", &c.args)] {
        for (i, text) in list.iter().enumerate() {
            no_nul(v, at.field(name).index(i), text);
        }
    }
    // The image's command is taken where there is none; an empty name would run nothing.
    if c.command.first().is_some_and(String::is_empty) {
        v.add(at.field("command").index(0), "no program has an empty name");
    }
    for (i, text) in c.env.iter().enumerate() {
        let list = at.field("env");
        let at = list.index(i);
        no_nul(v, at, text);
        if text.is_empty() || text.starts_with('=') {
            v.add(
                at,
                format!("{text:?} is not of the form NAME=VALUE, or NAME to take it away"),
            );
        }
    }
    if !c.dir.is_empty() {
        absolute(v, at.field("dir"), &c.dir);
    }
    if !c.user.is_empty() {
        check_user(v, at.field("user"), &c.user);
    }
    for (i, group) in c.groups.iter().enumerate() {
        if group.parse::<u32>().is_err() {
            v.add(
                at.field("groups").index(i),
                format!("{group:?}: only numbers are supported yet"),
            );
        }
    }
    check_mounts(v, at.field("mounts"), &c.mounts);
    let hostname_ok = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if !c.hostname.is_empty() && (c.hostname.len() > 64 || !c.hostname.chars().all(hostname_ok)) {
        v.add(
            at.field("hostname"),
            format!("{:?}: at most 64 of a-z A-Z 0-9 - . _", c.hostname),
        );
    }
    refuse_unsupported(v, at, c);
    if let Some(check) = &c.healthcheck {
        check_health(v, at.field("healthcheck"), check);
    }
    if let Some(dns) = &c.dns_config {
        check_dns(v, at.field("dns_config"), dns);
    }
    for (i, line) in c.hosts.iter().enumerate() {
        check_host(v, at.field("hosts").index(i), line);
    }
    if let Some(privileges) = &c.privileges {
        check_privileges(v, at.field("privileges"), c, privileges);
    }
    if c.pids_limit < 0 {
        v.add(
            at.field("pids_limit"),
            format!("{} is negative; 0 is no limit", c.pids_limit),
        );
    }
    for (name, value) in &c.sysctls {
        check_sysctl(v, at.field("sysctls").key(name), name, value);
    }
    for (field, list) in [
        ("capability_add", &c.capability_add),
        ("capability_drop", &c.capability_drop),
    ] {
        for (i, name) in list.iter().enumerate() {
            if parse_capability(name).is_none() && !name.eq_ignore_ascii_case("all") {
                v.add(
                    at.field(field).index(i),
                    format!("{name:?} is no capability"),
                );
            }
        }
    }
    check_ulimits(v, at.field("ulimits"), &c.ulimits);
    if !(-1000..=1000).contains(&c.oom_score_adj) {
        v.add(
            at.field("oom_score_adj"),
            format!("{} is not in -1000 to 1000", c.oom_score_adj),
        );
    }
    if c.stop_signal.is_empty() {
        return None;
    }
    let signal = parse_signal(&c.stop_signal);
    if signal.is_none() {
        v.add(
            at.field("stop_signal"),
            format!("{:?} is no signal", c.stop_signal),
        );
    }
    signal
}

fn refuse_unsupported(v: &mut Violations, at: At<'_>, c: &v1::ContainerSpec) {
    v.unsupported(at.field("secrets"), !c.secrets.is_empty());
    v.unsupported(at.field("configs"), !c.configs.is_empty());
    v.unsupported(at.field("tty"), c.tty);
    v.unsupported(at.field("open_stdin"), c.open_stdin);
    v.unsupported(at.field("init"), c.init == Some(true));
}

fn check_privileges(
    v: &mut Violations,
    at: At<'_>,
    c: &v1::ContainerSpec,
    privileges: &v1::Privileges,
) {
    let profile = &privileges.seccomp_profile;
    match v1::SeccompMode::try_from(privileges.seccomp_mode) {
        Ok(v1::SeccompMode::Custom) => {
            let parsed = ::container::seccomp::parse_docker(profile, &capabilities(c));
            if let Err(error) = parsed.and_then(|p| ::container::seccomp::check(&p)) {
                v.add(at.field("seccomp_profile"), error.to_string());
            }
        }
        Ok(_) if !profile.is_empty() => {
            v.add(at.field("seccomp_profile"), "only with seccomp_mode CUSTOM");
        }
        Ok(_) => {}
        Err(_) => v.add(at.field("seccomp_mode"), unknown(privileges.seccomp_mode)),
    }
    if v1::AppArmorMode::try_from(privileges.apparmor_mode).is_err() {
        v.add(at.field("apparmor_mode"), unknown(privileges.apparmor_mode));
    }
    v.unsupported(
        at.field("selinux_context"),
        privileges.selinux_context.is_some(),
    );
}

fn check_mounts(v: &mut Violations, at: At<'_>, mounts: &[v1::Mount]) {
    let mut targets = BTreeSet::new();
    for (i, mount) in mounts.iter().enumerate() {
        let at = at.index(i);
        absolute(v, at.field("target"), &mount.target);
        let target = Path::new(&mount.target);
        if target == Path::new("/") {
            v.add(at.field("target"), "the root itself cannot be a mount");
        } else if target.starts_with("/proc") {
            v.add(at.field("target"), "nothing can be mounted in /proc");
        } else if !targets.insert(target.components().collect::<Vec<_>>()) {
            v.add(
                at.field("target"),
                format!("{} has two mounts", mount.target),
            );
        }
        let foreign = |v: &mut Violations, name, set: bool| {
            if set {
                v.add(at.field(name), "does not belong to this type of mount");
            }
        };
        match v1::MountType::try_from(mount.r#type) {
            Ok(v1::MountType::Bind) => {
                absolute(v, at.field("source"), &mount.source);
                if let Some(options) = &mount.bind_options {
                    check_bind(v, at.field("bind_options"), options);
                }
                foreign(v, "tmpfs_options", mount.tmpfs_options.is_some());
                foreign(v, "volume_options", mount.volume_options.is_some());
            }
            Ok(v1::MountType::Tmpfs) => {
                if !mount.source.is_empty() {
                    v.add(at.field("source"), "a tmpfs has none");
                }
                if let Some(options) = &mount.tmpfs_options {
                    check_tmpfs(v, at.field("tmpfs_options"), options);
                }
                foreign(v, "bind_options", mount.bind_options.is_some());
                foreign(v, "volume_options", mount.volume_options.is_some());
            }
            Ok(other) => {
                v.add(
                    at.field("type"),
                    format!("{} is not supported yet", other.as_str_name()),
                );
            }
            Err(_) => v.add(at.field("type"), unknown(mount.r#type)),
        }
    }
}

fn check_bind(v: &mut Violations, at: At<'_>, options: &v1::BindOptions) {
    match v1::Propagation::try_from(options.propagation) {
        Ok(kind @ (v1::Propagation::Shared | v1::Propagation::Rshared)) => v.add(
            at.field("propagation"),
            format!("{} is not supported yet", kind.as_str_name()),
        ),
        Ok(_) => {}
        Err(_) => v.add(at.field("propagation"), unknown(options.propagation)),
    }
    v.unsupported(
        at.field("read_only_non_recursive"),
        options.read_only_non_recursive,
    );
    v.unsupported(
        at.field("read_only_force_recursive"),
        options.read_only_force_recursive,
    );
}

fn check_tmpfs(v: &mut Violations, at: At<'_>, options: &v1::TmpfsOptions) {
    if options.size_bytes < 0 {
        v.add(
            at.field("size_bytes"),
            format!("{} is negative", options.size_bytes),
        );
    }
    if options.mode > 0o7777 {
        v.add(
            at.field("mode"),
            format!("{:o} are no permission bits", options.mode),
        );
    }
    for (i, option) in options.options.iter().enumerate() {
        let plain = ["exec", "noexec", "suid", "nosuid", "dev", "nodev"].contains(&option.as_str());
        let number = |value: &str| !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
        let valued = option.split_once('=').is_some_and(|(key, value)| {
            ["uid", "gid", "nr_inodes"].contains(&key) && number(value)
        });
        if !plain && !valued {
            v.add(
                at.field("options").index(i),
                format!("{option:?} is not supported"),
            );
        }
    }
}

fn check_dns(v: &mut Violations, at: At<'_>, dns: &v1::DnsConfig) {
    for (i, server) in dns.nameservers.iter().enumerate() {
        if server.parse::<IpAddr>().is_err() {
            v.add(
                at.field("nameservers").index(i),
                format!("{server:?} is no IP address"),
            );
        }
    }
    for (i, domain) in dns.search.iter().enumerate() {
        if domain != "." {
            check_name(v, at.field("search").index(i), domain.trim_end_matches('.'));
        }
    }
    for (i, option) in dns.options.iter().enumerate() {
        if option.is_empty() || option.contains(|c: char| c.is_whitespace() || c.is_control()) {
            v.add(
                at.field("options").index(i),
                format!("{option:?} is no option of resolv.conf"),
            );
        }
    }
}

fn check_host(v: &mut Violations, at: At<'_>, line: &str) {
    let mut words = line.split([' ', '\t']).filter(|w| !w.is_empty());
    let address = words.next().is_some_and(|w| w.parse::<IpAddr>().is_ok());
    let names: Vec<&str> = words.collect();
    let clean = |name: &&str| !name.contains(|c: char| c.is_control() || c == '#');
    if !address || names.is_empty() || !names.iter().all(clean) {
        v.add(
            at,
            format!("{line:?} is not of the form \"IP name [alias...]\""),
        );
    }
}

fn check_sysctl(v: &mut Violations, at: At<'_>, name: &str, value: &str) {
    let dotted = name.replace('/', ".");
    let namespaced = dotted.starts_with("net.")
        || dotted.starts_with("kernel.shm")
        || dotted.starts_with("kernel.msg")
        || dotted == "kernel.sem"
        || dotted.starts_with("fs.mqueue.");
    if !namespaced || dotted.split('.').any(str::is_empty) {
        v.add(
            at,
            "is not namespaced: net.*, kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*",
        );
    } else if value.contains(['\0', '\n']) {
        v.add(at, "the value holds a line end");
    }
}

fn check_ulimits(v: &mut Violations, at: At<'_>, ulimits: &[v1::Ulimit]) {
    let mut seen = BTreeSet::new();
    for (i, limit) in ulimits.iter().enumerate() {
        let at = at.index(i);
        if !ULIMITS.contains(&limit.name.as_str()) {
            v.add(
                at.field("name"),
                format!("{:?} is not one of {}", limit.name, ULIMITS.join(" ")),
            );
        } else if !seen.insert(&limit.name) {
            v.add(at.field("name"), "set twice");
        }
        for (name, value) in [("soft", limit.soft), ("hard", limit.hard)] {
            if value < -1 {
                v.add(at.field(name), format!("{value} is not -1 or more"));
            }
        }
        // As unsigned numbers -1 is the largest, which is what it means.
        if limit.soft.cast_unsigned() > limit.hard.cast_unsigned() {
            v.add(at.field("soft"), "above the hard limit");
        }
    }
}

/// Names of the limits of setrlimit(2), without prefix, in lower case.
const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn check_user(v: &mut Violations, at: At<'_>, user: &str) {
    let mut parts = user.split(':');
    for part in parts.by_ref().take(2) {
        check_user_part(v, at, part);
    }
    if parts.next().is_some() {
        v.add(
            at,
            format!("{user:?} is not of the form name|uid[:group|gid]"),
        );
    }
}

fn check_user_part(v: &mut Violations, at: At<'_>, part: &str) {
    let number = part.bytes().all(|b| b.is_ascii_digit());
    if part.is_empty()
        || part.contains(|c: char| c.is_whitespace() || c.is_control() || "/,:".contains(c))
        || (number && part.parse::<u32>().is_ok_and(|id| id == u32::MAX))
        || (number && part.parse::<u32>().is_err())
    {
        v.add(
            at,
            format!("{part:?} is neither the name nor the number of a user or group"),
        );
    }
}

fn absolute(v: &mut Violations, at: At<'_>, path: &str) {
    no_nul(v, at, path);
    if !path.starts_with('/')
        || Path::new(path)
            .components()
            .any(|c| c == Component::ParentDir)
    {
        v.add(
            at,
            format!("{path:?} is not an absolute path without \"..\""),
        );
    }
}

pub(super) fn no_nul(v: &mut Violations, at: At<'_>, text: &str) {
    if text.contains('\0') {
        v.add(at, "holds a NUL byte");
    }
}
