//! Tasks and how they are attached.

use super::*;

#[test]
fn tasks() {
    refused(|p| p.own = node("n3", 3), r#"nodes["n1"]"#, "is missing");
    let c = |parts: &mut Parts, f: &dyn Fn(&mut v1::ContainerSpec)| {
        f(parts.task.container.as_mut().unwrap());
    };
    let test = |test: &[&str]| {
        Some(v1::HealthConfig {
            test: test.iter().map(ToString::to_string).collect(),
            ..Default::default()
        })
    };
    macro_rules! container {
        ($($field:ident = $value:expr => $at:expr, $reason:expr;)*) => {$(
            refused(
                |p| c(p, &|c| c.$field = $value),
                concat!("tasks[\"t1\"].container.", $at),
                $reason,
            );
        )*};
    }
    container! {
        image = String::new() => "image", "missing";
        image = "dir:srv".into() => "image", "absolute";
        env = vec!["=x".into()] => "env[0]", "NAME=VALUE";
        args = vec!["a\0b".into()] => "args[0]", "NUL";
        command = vec![String::new(), "x".into()] => "command[0]", "empty name";
        dir = "srv".into() => "dir", "absolute";
        user = "a:b:c".into() => "user", "name|uid";
        user = "4294967295".into() => "user", "neither";
        groups = vec!["wheel".into()] => "groups[0]", "numbers";
        hostname = "a b".into() => "hostname", "at most 64";
        hosts = vec!["10.0.0.1".into()] => "hosts[0]", "IP name";
        stop_signal = "SIGNOPE".into() => "stop_signal", "no signal";
        pids_limit = -2 => "pids_limit", "negative";
        oom_score_adj = 1001 => "oom_score_adj", "-1000 to 1000";
        tty = true => "tty", "not supported yet";
        open_stdin = true => "open_stdin", "not supported yet";
        init = Some(true) => "init", "not supported yet";
        healthcheck = test(&["TCP", "80"]) => "healthcheck.test", "none of NONE, CMD and CMD-SHELL";
        healthcheck = test(&["CMD"]) => "healthcheck.test", "no program";
        healthcheck = test(&["CMD-SHELL", "a", "b"]) => "healthcheck.test", "one line";
        healthcheck = test(&["NONE", "a"]) => "healthcheck.test", "nothing can follow";
        healthcheck = test(&["CMD", "a\0b"]) => "healthcheck.test[1]", "NUL";
        healthcheck = Some(v1::HealthConfig { interval: 999_999, ..Default::default() }) => "healthcheck.interval", "less than 1 ms";
        healthcheck = Some(v1::HealthConfig { timeout: (-5_i64).cast_unsigned(), ..Default::default() }) => "healthcheck.timeout", "-5 ns is negative";
        healthcheck = Some(v1::HealthConfig { start_period: 1, ..Default::default() }) => "healthcheck.start_period", "less than 1 ms";
        healthcheck = Some(v1::HealthConfig { start_interval: 1, ..Default::default() }) => "healthcheck.start_interval", "less than 1 ms";
        healthcheck = Some(v1::HealthConfig { retries: 1 << 31, ..Default::default() }) => "healthcheck.retries", "not in 0 to";
        pull_options = Some(v1::PullOptions { registry_auth: "%".into() }) => "pull_options.registry_auth", "not base64";
        secrets = vec![v1::SecretReference::default()] => "secrets", "not supported yet";
        configs = vec![v1::ConfigReference::default()] => "configs", "not supported yet";
        capability_add = vec!["FLY".into()] => "capability_add[0]", "no capability";
        capability_drop = vec!["CAP_FLY".into()] => "capability_drop[0]", "no capability";
        sysctls = [("vm.swappiness".into(), "1".into())].into() => "sysctls[\"vm.swappiness\"]", "not namespaced";
        ulimits = vec![v1::Ulimit { name: "files".into(), soft: 1, hard: 1 }] => "ulimits[0].name", "nofile";
        ulimits = vec![v1::Ulimit { name: "nofile".into(), soft: -1, hard: 1 }] => "ulimits[0].soft", "above";
        mounts = vec![v1::Mount { target: "/a".into(), source: "b".into(), ..Default::default() }] => "mounts[0].source", "absolute";
        mounts = vec![v1::Mount { target: "../a".into(), source: "/b".into(), ..Default::default() }] => "mounts[0].target", "absolute";
        mounts = vec![v1::Mount { target: "/a".into(), r#type: 1, ..Default::default() }] => "mounts[0].type", "MOUNT_TYPE_VOLUME is not supported yet";
        mounts = vec![v1::Mount { target: "/a".into(), r#type: 77, ..Default::default() }] => "mounts[0].type", "no value";
        dns_config = Some(v1::DnsConfig { nameservers: vec!["x".into()], ..Default::default() }) => "dns_config.nameservers[0]", "no IP address";
        privileges = Some(v1::Privileges { seccomp_mode: 2, ..Default::default() }) => "privileges.seccomp_profile", "linux.seccomp";
        privileges = Some(v1::Privileges { seccomp_mode: 2, seccomp_profile: br#"{"defaultAction":"SCMP_ACT_NOPE"}"#.into(), ..Default::default() }) => "privileges.seccomp_profile", "defaultAction";
        privileges = Some(v1::Privileges { seccomp_mode: 2, seccomp_profile: br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"x","action":"SCMP_ACT_LOG","includes":{"minKernel":"new"}}]}"#.into(), ..Default::default() }) => "privileges.seccomp_profile", "includes.minKernel";
        privileges = Some(v1::Privileges { seccomp_profile: b"{}".into(), ..Default::default() }) => "privileges.seccomp_profile", "only with";
        privileges = Some(v1::Privileges { seccomp_mode: 9, ..Default::default() }) => "privileges.seccomp_mode", "no value";
        privileges = Some(v1::Privileges { selinux_context: Some(v1::SelinuxContext::default()), ..Default::default() }) => "privileges.selinux_context", "not supported yet";
    }
    refused(
        |p| {
            p.task.networks.push(v1::NetworkAttachment {
                network_id: "other".into(),
                addresses: vec!["10.1.0.9/16".into()],
                ..Default::default()
            });
        },
        r#"tasks["t1"].networks[1].addresses[0]"#,
        "overlaps that of network \"app\"",
    );
    refused(
        |p| p.task.container = None,
        r#"tasks["t1"].container"#,
        "missing",
    );
    refused(
        |p| p.task.desired_state = 0,
        r#"tasks["t1"].desired_state"#,
        "cannot be asked for",
    );
    refused(
        |p| p.task.desired_state = 513,
        r#"tasks["t1"].desired_state"#,
        "no value",
    );
    refused(
        |p| {
            p.task.log_driver = Some(v1::LogDriver {
                name: "syslog".into(),
                ..Default::default()
            })
        },
        r#"tasks["t1"].log_driver.name"#,
        "json-file",
    );
    refused(
        |p| p.task.volumes = vec![v1::VolumeAttachment::default()],
        r#"tasks["t1"].volumes"#,
        "not supported yet",
    );
    let limits = |limits| {
        Some(v1::ResourceRequirements {
            limits: Some(limits),
            ..Default::default()
        })
    };
    refused(
        |p| {
            p.task.resources = limits(v1::Resources {
                memory_bytes: -1,
                ..Default::default()
            })
        },
        r#"tasks["t1"].resources.limits.memory_bytes"#,
        "negative",
    );
    refused(
        |p| {
            p.task.resources = limits(v1::Resources {
                storage_bytes: -1,
                ..Default::default()
            })
        },
        r#"tasks["t1"].resources.limits.storage_bytes"#,
        "negative",
    );
    refused(
        |p| {
            p.task.resources = Some(v1::ResourceRequirements {
                reservations: Some(v1::Resources {
                    storage_bytes: 1,
                    ..Default::default()
                }),
                ..Default::default()
            })
        },
        r#"tasks["t1"].resources.reservations.storage_bytes"#,
        "not reserved",
    );
    refused(
        |p| {
            p.task.resources = limits(v1::Resources {
                generic: vec![Default::default()],
                ..Default::default()
            });
        },
        r#"tasks["t1"].resources.limits.generic"#,
        "not supported yet",
    );
    let host = |published, target| v1::PortConfig {
        published_port: published,
        target_port: target,
        publish_mode: 1,
        ..Default::default()
    };
    let ports = r#"tasks["t1"].host_ports[0]"#;
    refused(
        |p| p.task.host_ports = vec![host(80, 0)],
        &format!("{ports}.target_port"),
        "1 to 65535",
    );
    refused(
        |p| p.task.host_ports = vec![host(70_000, 80)],
        &format!("{ports}.published_port"),
        "1 to 65535",
    );
    refused(
        |p| p.task.host_ports = vec![host(8080, 80)],
        &format!("{ports}.published_port"),
        "service \"s1\"",
    );
    let ingress = v1::PortConfig {
        publish_mode: 0,
        ..host(81, 80)
    };
    refused(
        |p| p.task.host_ports = vec![ingress],
        &format!("{ports}.publish_mode"),
        "service",
    );
    accepted(|p| p.task.host_ports = vec![host(0, 80), host(0, 80)]);
    for fine in [
        &[][..],
        &["NONE"],
        &["CMD", "x", ""],
        &["CMD-SHELL", "x | y"],
    ] {
        accepted(|p| c(p, &|c| c.healthcheck = test(fine)));
    }
}

#[test]
fn attachments() {
    let at = r#"tasks["t1"].networks[0]"#;
    fn first(p: &mut Parts) -> &mut v1::NetworkAttachment {
        &mut p.task.networks[0]
    }
    refused(
        |p| first(p).addresses[0] = "10.1.0.5".into(),
        &format!("{at}.addresses[0]"),
        "10.1.0.5/24",
    );
    refused(
        |p| first(p).addresses[0] = "10.1.0.5/16".into(),
        &format!("{at}.addresses[0]"),
        "is 24",
    );
    refused(
        |p| first(p).addresses.clear(),
        &format!("{at}.addresses"),
        "at least one",
    );
    refused(
        |p| first(p).addresses = vec!["10.1.0.5/24".into(), "10.1.0.6/24".into()],
        &format!("{at}.addresses[1]"),
        "same family",
    );
    refused(|p| first(p).mac = "x".into(), &format!("{at}.mac"), "no");
    refused(
        |p| first(p).mac = "02:4c:00:00:00:01".into(),
        &format!("{at}.mac"),
        "ingress",
    );
    let mut endpoint = Parts::good();
    endpoint.endpoint.addresses[0] = "10.9.0.5".into();
    refused(
        |p| {
            first(p).addresses[0] = "10.9.0.5/24".into();
            p.endpoint.state = v1::EndpointState::Gone as i32;
        },
        &format!("{at}.addresses[0]"),
        "in no subnet",
    );
    let second = v1::NetworkAttachment {
        network_id: "app".into(),
        addresses: vec!["10.1.0.6/24".into()],
        ..Default::default()
    };
    refused(
        |p| p.task.networks.push(second),
        r#"tasks["t1"].networks[1].network_id"#,
        "twice",
    );
}
