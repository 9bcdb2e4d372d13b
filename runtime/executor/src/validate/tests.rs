//! Each bad input is refused at its field with its reason.

use fairlead_api::v1;
use v1::change::Object;

use super::*;

fn config() -> v1::NodeConfig {
    v1::NodeConfig {
        node_id: "n1".into(),
        ..Default::default()
    }
}

fn task() -> v1::Task {
    v1::Task {
        id: "t1".into(),
        container: Some(v1::ContainerSpec {
            image: "dir:/srv".into(),
            ..Default::default()
        }),
        networks: vec![v1::NetworkAttachment {
            network_id: "app".into(),
            addresses: vec!["10.1.0.5/24".into()],
            ..Default::default()
        }],
        desired_state: v1::TaskState::Running as i32,
        ..Default::default()
    }
}

fn network() -> v1::Network {
    v1::Network {
        id: "app".into(),
        name: "app".into(),
        subnets: vec![v1::Subnet {
            cidr: "10.1.0.0/24".into(),
            gateway: "10.1.0.1".into(),
            vni: 4097,
        }],
        ..Default::default()
    }
}

fn ingress() -> v1::Network {
    v1::Network {
        id: "ingress".into(),
        ingress: true,
        subnets: vec![v1::Subnet {
            cidr: "10.0.0.0/24".into(),
            gateway: String::new(),
            vni: 4096,
        }],
        ..Default::default()
    }
}

fn service() -> v1::Service {
    v1::Service {
        id: "s1".into(),
        name: "web".into(),
        virtual_ips: vec![v1::VirtualIp {
            network_id: "app".into(),
            address: "10.1.0.2".into(),
        }],
        ports: vec![v1::PortConfig {
            target_port: 80,
            published_port: 8080,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn node(id: &str, n: u32) -> v1::NodeRecord {
    v1::NodeRecord {
        id: id.into(),
        version: 3,
        vteps: vec![format!("192.0.2.{n}")],
        ingress_addresses: vec![format!("10.0.0.{n}")],
        steering_id: n,
        ..Default::default()
    }
}

fn endpoint() -> v1::EndpointRecord {
    v1::EndpointRecord {
        id: "e1".into(),
        version: 2,
        state: v1::EndpointState::Active as i32,
        network_id: "app".into(),
        task_id: "t1".into(),
        service_id: "s1".into(),
        node_id: "n1".into(),
        addresses: vec!["10.1.0.5".into()],
        ..Default::default()
    }
}

/// The parts of a good assignment.
#[derive(Clone)]
struct Parts {
    task: v1::Task,
    network: v1::Network,
    ingress: v1::Network,
    service: v1::Service,
    own: v1::NodeRecord,
    other: v1::NodeRecord,
    endpoint: v1::EndpointRecord,
    more: Vec<Object>,
}

impl Parts {
    fn good() -> Self {
        Self {
            task: task(),
            network: network(),
            ingress: ingress(),
            service: service(),
            own: node("n1", 1),
            other: node("n2", 2),
            endpoint: endpoint(),
            more: Vec::new(),
        }
    }

    fn request(self) -> v1::AssignRequest {
        let objects = [
            Object::Task(self.task),
            Object::Network(self.network),
            Object::Network(self.ingress),
            Object::Service(self.service),
            Object::Node(self.own),
            Object::Node(self.other),
            Object::Endpoint(self.endpoint),
        ];
        complete(objects.into_iter().chain(self.more))
    }
}

fn complete(objects: impl IntoIterator<Item = Object>) -> v1::AssignRequest {
    let change = |object| v1::Change {
        action: 0,
        object: Some(object),
    };
    v1::AssignRequest {
        r#type: v1::AssignmentType::Complete as i32,
        results_in: "1".into(),
        changes: objects.into_iter().map(change).collect(),
        ..Default::default()
    }
}

fn check(request: &v1::AssignRequest, held: &Assignment) -> Result<Assignment, Vec<String>> {
    assignment(request, held, &config(), Engine::Nft).map_err(|v| {
        v.list()
            .iter()
            .map(|v| format!("{}: {}", v.field, v.reason))
            .collect()
    })
}

/// The good assignment, changed by `change`, is refused with exactly one violation, at `field`
/// (a path, after the object's own), and a reason that contains `reason`.
#[track_caller]
fn refused(change: impl FnOnce(&mut Parts), field: &str, reason: &str) {
    let mut parts = Parts::good();
    change(&mut parts);
    let violations = check(&parts.request(), &Assignment::default()).expect_err("accepted");
    let fits = |v: &String| v.starts_with(&format!("{field}: ")) && v.contains(reason);
    assert!(
        violations.iter().any(fits),
        "{field}: {reason}\n  not in {violations:#?}"
    );
    assert_eq!(violations.len(), 1, "{violations:#?}");
}

#[track_caller]
fn accepted(change: impl FnOnce(&mut Parts)) -> Assignment {
    let mut parts = Parts::good();
    change(&mut parts);
    check(&parts.request(), &Assignment::default()).unwrap()
}

#[test]
fn the_good_one_is_good() {
    let new = accepted(|_| {});
    assert_eq!(new.results_in, "1");
    assert_eq!(new.tasks["t1"].legs[0].mac.to_string(), "02:42:0a:01:00:05");
    assert_eq!(
        new.services["s1"].vips,
        [("app".to_owned(), "10.1.0.2".parse().unwrap())]
    );
}

#[test]
fn tasks() {
    refused(|p| p.own = node("n3", 3), r#"nodes["n1"]"#, "is missing");
    let c = |parts: &mut Parts, f: &dyn Fn(&mut v1::ContainerSpec)| {
        f(parts.task.container.as_mut().unwrap());
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
        healthcheck = Some(v1::HealthConfig::default()) => "healthcheck", "not supported yet";
        pull_options = Some(v1::PullOptions::default()) => "pull_options", "not supported yet";
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
        privileges = Some(v1::Privileges { seccomp_mode: 2, ..Default::default() }) => "privileges.seccomp_mode", "not supported yet";
        privileges = Some(v1::Privileges { selinux_context: Some(v1::SelinuxContext::default()), ..Default::default() }) => "privileges.selinux_context", "not supported yet";
    }
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

#[test]
fn networks() {
    let at = r#"networks["app"]"#;
    fn subnet(p: &mut Parts) -> &mut v1::Subnet {
        &mut p.network.subnets[0]
    }
    for vni in [0, 4095, 16_777_216] {
        refused(
            |p| subnet(p).vni = vni,
            &format!("{at}.subnets[0].vni"),
            "4096 to 16777215",
        );
    }
    refused(
        |p| subnet(p).vni = 4096,
        r#"networks["ingress"].subnets"#,
        "belongs to network \"app\"",
    );
    refused(
        |p| subnet(p).cidr = "10.1.0.5/24".into(),
        &format!("{at}.subnets[0].cidr"),
        "10.1.0.0/24",
    );
    refused(
        |p| subnet(p).cidr = "10.1.0.0/31".into(),
        &format!("{at}.subnets[0].cidr"),
        "no room",
    );
    refused(
        |p| subnet(p).cidr = "240.0.0.0/24".into(),
        &format!("{at}.subnets[0].cidr"),
        "reserved",
    );
    refused(
        |p| subnet(p).cidr = "app".into(),
        &format!("{at}.subnets[0].cidr"),
        "no subnet",
    );
    refused(
        |p| subnet(p).gateway = "10.2.0.1".into(),
        &format!("{at}.subnets[0].gateway"),
        "not in",
    );
    let overlap = v1::Subnet {
        cidr: "10.1.0.128/25".into(),
        gateway: String::new(),
        vni: 4098,
    };
    refused(
        |p| p.network.subnets.push(overlap),
        &format!("{at}.subnets[1].cidr"),
        "overlaps",
    );
    refused(
        |p| p.network.encrypted = true,
        &format!("{at}.encrypted"),
        "not supported yet",
    );
    refused(|p| p.network.mtu = 100, &format!("{at}.mtu"), "576");
    refused(
        |p| p.ingress.internal = true,
        r#"networks["ingress"].internal"#,
        "cannot be internal",
    );
    refused(
        |p| {
            p.network.ingress = true;
            p.own.ingress_addresses.clear();
            p.other.ingress_addresses.clear();
        },
        r#"networks["ingress"].ingress"#,
        "\"app\"",
    );
    let other = v1::Network {
        id: "other".into(),
        subnets: vec![v1::Subnet {
            cidr: "10.1.0.0/24".into(),
            gateway: String::new(),
            vni: 5000,
        }],
        ..Default::default()
    };
    accepted(|p| p.more.push(Object::Network(other)));
}

#[test]
fn services() {
    let at = r#"services["s1"]"#;
    refused(
        |p| p.service.name = "a b".into(),
        &format!("{at}.name"),
        "no DNS name",
    );
    refused(
        |p| p.service.endpoint_mode = 7,
        &format!("{at}.endpoint_mode"),
        "no value",
    );
    refused(
        |p| {
            p.service.endpoint_mode = 1;
            p.service.ports.clear();
        },
        &format!("{at}.virtual_ips"),
        "DNSRR",
    );
    refused(
        |p| p.service.virtual_ips[0].address = "10.2.0.2".into(),
        &format!("{at}.virtual_ips[0].address"),
        "in no subnet",
    );
    refused(
        |p| p.service.virtual_ips[0].network_id = "x".into(),
        &format!("{at}.virtual_ips[0].network_id"),
        "no network \"x\"",
    );
    refused(
        |p| p.service.ports[0].published_port = 0,
        &format!("{at}.ports[0].published_port"),
        "agent",
    );
    refused(
        |p| p.service.ports[0].protocol = 9,
        &format!("{at}.ports[0].protocol"),
        "no value",
    );
    accepted(|p| p.service.ports[0].protocol = v1::Protocol::Sctp as i32);
    let label = |value: &str| [("fairlead.scheduler".to_owned(), value.to_owned())].into();
    let key = format!("{at}.labels[\"fairlead.scheduler\"]");
    refused(|p| p.service.labels = label("best"), &key, "no scheduler");
    refused(
        |p| p.service.labels = label("wlc"),
        &key,
        "nft, has no scheduler wlc",
    );
    accepted(|p| p.service.labels = label("source"));
    let mut second = service();
    second.id = "s2".into();
    second.virtual_ips.clear();
    refused(
        |p| p.more.push(Object::Service(second)),
        r#"services["s2"].ports[0].published_port"#,
        "8080/tcp",
    );
    let mut second = service();
    second.id = "s2".into();
    second.ports.clear();
    refused(
        |p| p.more.push(Object::Service(second)),
        r#"services["s2"].virtual_ips[0]"#,
        "service \"s1\"",
    );
}

#[test]
fn node_records() {
    let at = r#"nodes["n2"]"#;
    refused(
        |p| p.other.version = 0,
        &format!("{at}.version"),
        "begin at 1",
    );
    refused(
        |p| p.other.kind = 1,
        &format!("{at}.kind"),
        "docker nodes are not supported yet",
    );
    refused(|p| p.other.kind = 5, &format!("{at}.kind"), "no value");
    refused(
        |p| p.other.vteps.clear(),
        &format!("{at}.vteps"),
        "at least one",
    );
    refused(
        |p| p.other.vteps[0] = "192.0.2.1".into(),
        &format!("{at}.vteps"),
        "node \"n1\"",
    );
    refused(
        |p| p.other.vteps[0] = "x".into(),
        &format!("{at}.vteps[0]"),
        "no IP address",
    );
    refused(
        |p| p.other.steering_id = 1,
        &format!("{at}.steering_id"),
        "node \"n1\"",
    );
    refused(
        |p| p.other.steering_id = 1 << 28,
        &format!("{at}.steering_id"),
        "1 to 268435454",
    );
    refused(
        |p| p.other.ingress_addresses[0] = "10.0.0.1".into(),
        &format!("{at}.ingress_addresses"),
        "node \"n1\"",
    );
}

#[test]
fn endpoint_records() {
    let at = r#"endpoints["e1"]"#;
    refused(
        |p| p.endpoint.version = 0,
        &format!("{at}.version"),
        "begin at 1",
    );
    refused(|p| p.endpoint.state = 0, &format!("{at}.state"), "ACTIVE");
    refused(
        |p| p.endpoint.network_id = "x".into(),
        &format!("{at}.network_id"),
        "no network \"x\"",
    );
    refused(
        |p| p.endpoint.service_id = "x".into(),
        &format!("{at}.service_id"),
        "no service \"x\"",
    );
    refused(
        |p| p.endpoint.node_id = "n3".into(),
        &format!("{at}.node_id"),
        "assigned to this node",
    );
    refused(
        |p| p.endpoint.node_id = "n2".into(),
        &format!("{at}.node_id"),
        "assigned to this node",
    );
    refused(
        |p| p.endpoint.mac = "02:42:0a:01:00:06".into(),
        &format!("{at}.mac"),
        "02:42:0a:01:00:05",
    );
    refused(
        |p| p.endpoint.weight = 65_536,
        &format!("{at}.weight"),
        "65535",
    );
    refused(
        |p| {
            p.endpoint.network_id = "ingress".into();
            p.endpoint.addresses[0] = "10.0.0.9".into();
        },
        &format!("{at}.network_id"),
        "does not join",
    );
    refused(
        |p| {
            p.endpoint.task_id = "t9".into();
            p.endpoint.node_id = "n2".into();
        },
        &format!("{at}.addresses"),
        "belongs to task \"t1\"",
    );
    accepted(|p| {
        p.endpoint = v1::EndpointRecord {
            id: "e1".into(),
            version: 5,
            state: 3,
            ..Default::default()
        };
    });
}

#[test]
fn the_set_as_a_whole() {
    let again = Object::Network(network());
    refused(
        |p| p.more.push(again),
        r#"networks["app"]"#,
        "appears twice",
    );
    let secret = Object::Secret(v1::Secret {
        id: "x".into(),
        ..Default::default()
    });
    refused(
        |p| p.more.push(secret),
        r#"secrets["x"]"#,
        "not supported yet",
    );
    let held = Assignment::default();
    let mut request = Parts::good().request();
    request.results_in.clear();
    request.applies_to = "0".into();
    request.changes[0].action = 1;
    request.changes[1].object = None;
    request.r#type = 0;
    let all = check(&request, &held).unwrap_err();
    for wanted in [
        "results_in: must not be empty",
        "applies_to: ",
        "tasks[\"t1\"]: a COMPLETE set has no REMOVE",
        "changes[1]: names no object",
    ] {
        assert!(
            all.iter().any(|v| v.starts_with(wanted)),
            "{wanted} not in {all:#?}"
        );
    }
    request.r#type = 9;
    assert!(check(&request, &held).unwrap_err()[0].starts_with("type: 9"));
}

#[test]
fn what_is_held_only_grows() {
    let held = accepted(|_| {});
    #[track_caller]
    fn next(held: &Assignment, change: impl FnOnce(&mut Parts), wanted: Option<&str>) {
        let mut parts = Parts::good();
        change(&mut parts);
        match (check(&parts.request(), held), wanted) {
            (Ok(_), None) => {}
            (Err(all), Some(wanted)) => {
                assert!(
                    all.len() == 1 && all[0].contains(wanted),
                    "{wanted} not in {all:#?}"
                );
            }
            (result, _) => panic!("{wanted:?}: {result:?}"),
        }
    }
    next(
        &held,
        |p| p.other.version = 2,
        Some(r#"nodes["n2"].version: 2 is older than 3"#),
    );
    next(
        &held,
        |p| p.other.steering_id = 9,
        Some(r#"nodes["n2"].version: 3 is held with another"#),
    );
    next(&held, |p| p.other.acknowledged_version = 3, None);
    next(
        &held,
        |p| p.endpoint.version = 1,
        Some(r#"endpoints["e1"].version: 1 is older than 2"#),
    );
    next(
        &held,
        |p| p.endpoint.state = 2,
        Some(r#"endpoints["e1"].version: 2 is held with another"#),
    );
    next(
        &held,
        |p| (p.endpoint.state, p.endpoint.version) = (2, 3),
        None,
    );
    next(
        &held,
        |p| p.task.desired_state = 384,
        Some("it never decreases"),
    );
    next(&held, |p| p.task.desired_state = 640, None);
    next(&held, |p| p.task.slot = 4, Some("only desired_state"));
    next(
        &held,
        |p| p.network.subnets[0].vni = 4099,
        Some("cannot change while a task"),
    );
}

#[test]
fn an_increment_changes_only_what_it_names() {
    let held = accepted(|_| {});
    let change = |action, object| v1::Change {
        action,
        object: Some(object),
    };
    let named = |id: &str| {
        Object::Endpoint(v1::EndpointRecord {
            id: id.into(),
            ..Default::default()
        })
    };
    let request = v1::AssignRequest {
        r#type: v1::AssignmentType::Incremental as i32,
        applies_to: "1".into(),
        results_in: "2".into(),
        changes: vec![change(1, named("e1")), change(1, named("never-there"))],
    };
    let new = check(&request, &held).unwrap();
    assert!(new.endpoints.is_empty());
    assert!(Arc::ptr_eq(&new.tasks["t1"], &held.tasks["t1"]));
    let object = Object::Network(v1::Network {
        id: "app".into(),
        ..Default::default()
    });
    let request = v1::AssignRequest {
        changes: vec![change(1, object)],
        ..request
    };
    let all = check(&request, &held).unwrap_err();
    assert!(
        all.iter()
            .any(|v| v.contains("there is no network \"app\"")),
        "{all:#?}"
    );
}

#[test]
fn configurations() {
    let bad = |change: &dyn Fn(&mut v1::NodeConfig), field: &str| {
        let mut config = config();
        change(&mut config);
        let v = node_config(&config).unwrap_err();
        assert_eq!(v.list()[0].field, field);
    };
    assert!(node_config(&config()).is_ok());
    bad(&|c| c.node_id.clear(), "config.node_id");
    bad(&|c| c.data_path_port = 65_536, "config.data_path_port");
    bad(
        &|c| c.gwbridge_subnets = vec!["x".into()],
        "config.gwbridge_subnets[0]",
    );
    bad(
        &|c| c.gwbridge_subnets = vec!["fd00::/64".into()],
        "config.gwbridge_subnets",
    );
    bad(
        &|c| c.gwbridge_subnets = vec!["10.0.0.0/8".into(), "172.18.0.0/16".into()],
        "config.gwbridge_subnets[1]",
    );
    bad(&|c| c.engine = "haproxy".into(), "config.engine");
}
