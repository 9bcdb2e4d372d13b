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
            p.endpoint.mac = "02:42:0a:01:00:09".into();
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

/// An endpoint of another node's task.
fn far(address: &str, mac: &str) -> v1::EndpointRecord {
    v1::EndpointRecord {
        id: "e2".into(),
        task_id: "t2".into(),
        node_id: "n2".into(),
        addresses: vec![address.into()],
        mac: mac.into(),
        ..endpoint()
    }
}

#[test]
fn one_mac_one_holder_in_each_network() {
    let at = r#"endpoints["e2"].mac"#;
    // That of t1's leg, which nobody has written down.
    let second = far("10.1.0.6", "02:42:0a:01:00:05");
    refused(
        |p| p.more.push(Object::Endpoint(second)),
        at,
        "02:42:0a:01:00:05 belongs to task \"t1\" on this network already",
    );
    let explicit = "02:42:00:00:00:01";
    let mut third = far("10.1.0.7", explicit);
    (third.id, third.task_id) = ("e3".into(), "t3".into());
    refused(
        |p| {
            p.more.push(Object::Endpoint(far("10.1.0.6", explicit)));
            p.more.push(Object::Endpoint(third.clone()));
        },
        r#"endpoints["e3"].mac"#,
        "belongs to task \"t2\"",
    );
    let mut second = task();
    second.id = "t2".into();
    second.networks[0].addresses[0] = "10.1.0.6/24".into();
    second.networks[0].mac = "02:42:0a:01:00:05".into();
    refused(
        |p| p.more.push(Object::Task(second.clone())),
        r#"tasks["t2"].networks[0].mac"#,
        "belongs to task \"t1\"",
    );
    // Another network is another matter, and so is an endpoint that is gone.
    accepted(|p| {
        let mut elsewhere = far("10.0.0.6", "02:42:0a:01:00:05");
        elsewhere.network_id = "ingress".into();
        p.more.push(Object::Endpoint(elsewhere));
    });
    accepted(|p| {
        let mut gone = far("10.1.0.6", "02:42:0a:01:00:05");
        gone.state = v1::EndpointState::Gone as i32;
        p.more.push(Object::Endpoint(gone));
    });
}

#[test]
fn the_first_and_the_last_address_of_a_subnet_are_nobodys() {
    for (address, what) in [
        ("10.1.0.0", "is the address of 10.1.0.0/24 itself"),
        ("10.1.0.255", "is the broadcast address of 10.1.0.0/24"),
    ] {
        refused(
            |p| {
                let mac = "02:42:00:00:00:01";
                p.more.push(Object::Endpoint(far(address, mac)));
            },
            r#"endpoints["e2"].addresses[0]"#,
            what,
        );
        refused(
            |p| p.service.virtual_ips[0].address = address.into(),
            r#"services["s1"].virtual_ips[0].address"#,
            what,
        );
        refused(
            |p| {
                p.task.networks[0].addresses[0] = format!("{address}/24");
                p.endpoint.state = v1::EndpointState::Gone as i32;
            },
            r#"tasks["t1"].networks[0].addresses[0]"#,
            what,
        );
    }
    refused(
        |p| p.other.ingress_addresses[0] = "10.0.0.255".into(),
        r#"nodes["n2"].ingress_addresses"#,
        "is the broadcast address of 10.0.0.0/24",
    );
    // IPv6 has no broadcast; its first address is every router's.
    let v6 = |p: &mut Parts, address: &str| {
        p.network.subnets.push(v1::Subnet {
            cidr: "fd00:1::/120".into(),
            gateway: String::new(),
            vni: 4098,
        });
        let mut second = far("10.1.0.6", "");
        second.addresses.push(address.into());
        p.more.push(Object::Endpoint(second));
    };
    refused(
        |p| v6(p, "fd00:1::"),
        r#"endpoints["e2"].addresses[1]"#,
        "is the address of fd00:1::/120 itself",
    );
    accepted(|p| v6(p, "fd00:1::ff"));
}
