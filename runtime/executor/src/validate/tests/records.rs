//! Services, nodes and endpoints.

use super::*;

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
