//! Networks.

use super::*;

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
