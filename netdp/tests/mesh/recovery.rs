//! What is made again, or goes on, when devices, settings, the underlay or the daemon change.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::sync::Arc;

use netdp::{DataPlane, Desired, Report};

use crate::client::{ask, connect_from};
use crate::lab::{self, Lab, inside, ip};
use crate::{answers, both, web};

/// The end of a device that is in a task, or in the ingress network, gets another name, or is
/// taken elsewhere.
#[test]
fn a_far_end_that_went_is_made_again() {
    let lab = web("farend");
    let task = lab.task("t1-21");
    let ingress = lab.network(1, lab::INGRESS);
    let listener = inside(&lab.client(), || {
        TcpListener::bind("192.0.2.100:9000").unwrap()
    });
    for (netns, damage) in [
        (&task, "ip link set eth0 down; ip link set eth0 name x"),
        (&task, "ip link set eth1 down; ip link set eth1 name y"),
        (&task, "ip link set eth0 netns fl-farend-sw"),
        (&ingress, "ip link set node down; ip link set node name z"),
    ] {
        inside(netns, || lab::sh(damage));
        let report = lab.heal(damage);
        assert!(report.healed.is_empty(), "{damage}: {:?}", report.healed);
        assert_eq!(
            answers(&task, "10.1.0.2:80", 40),
            both("10.1.0.21"),
            "{damage}"
        );
        connect_from(&task, "0.0.0.0:0", "192.0.2.100:9000").expect(damage);
        let outside = answers(&lab.client(), "192.0.2.1:8080", 40);
        assert_eq!(outside, both("192.0.2.100"), "{damage}");
    }
    drop(listener);
}

fn only_the_vtep_is_missing(report: &Report) {
    let told = report.failures.iter().map(|f| f.error.to_string());
    let told: Vec<String> = told.collect();
    assert!(
        told.len() == 1 && told[0].contains("192.0.2.77"),
        "{told:?}"
    );
}

fn mtu_of(netns: &std::path::Path, link: &str) -> String {
    let shown = inside(netns, || lab::sh(&format!("ip -o link show {link}")));
    shown
        .split(" mtu ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned()
}

/// The node's record is gone from the assignment, as it is before a removal of everything, while a
/// task still ends; and a new daemon knows nothing of the underlay.
#[test]
fn a_removal_goes_on_after_a_restart() {
    let mut lab = web("uninstall");
    lab.exec("n1", "ip link set eth0 mtu 1400");
    let report = lab.nodes[0].with(DataPlane::reconcile);
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let ending = lab.task("t1-11");
    assert_eq!(mtu_of(&ending, "eth2"), "1400");
    let mut desired = lab.desired[0].clone();
    let node = desired.node.as_mut().unwrap();
    node.vteps.clear();
    node.ingress = None;
    desired.peers.clear();
    desired.services.clear();
    desired.endpoints.clear();
    desired.sandboxes.remove("t1-21");
    lab.nodes[0].open();
    let report = lab.nodes[0].apply(&desired);
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    for _ in 0..2 {
        let report = lab.nodes[0].with(DataPlane::reconcile);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
    }
    assert!(!lab.task("t1-21").exists());
    let error = ask(&lab.client(), "192.0.2.1:8080").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    // What still runs has its way out.
    assert_eq!(mtu_of(&ending, "eth2"), "1400");
    let _listener = inside(&lab.client(), || {
        TcpListener::bind("192.0.2.100:9000").unwrap()
    });
    connect_from(&ending, "0.0.0.0:0", "192.0.2.100:9000").unwrap();
}

/// Nothing of the node is known to be built, and its VTEP is not there: what is not wanted goes all the
/// same.
#[test]
fn an_unknown_underlay_keeps_nothing() {
    let mut lab = Lab::new("nounderlay", 1);
    let a = lab.add_task(1, 11, None);
    lab.add_task(1, 12, None);
    lab.apply();
    lab.exec("n1", "ip link del fl_gwbridge");
    lab.exec(
        "n1",
        "sh -c 'for l in $(ip -br link | grep -o ^flg[^@]*) fl_ingress; do ip link del $l; done'",
    );
    lab.nodes[0].open();
    let mut desired = lab.desired[0].clone();
    desired.node.as_mut().unwrap().vteps = vec![ip("192.0.2.77")];
    desired.sandboxes.remove(&a);
    let report = lab.nodes[0].apply(&desired);
    only_the_vtep_is_missing(&report);
    assert!(!lab.task(&a).exists());
}

/// A change of the node's VTEP is seen by the change itself, and nothing is known of the underlay
/// after the node was told nothing.
#[test]
fn another_vtep_is_looked_at_at_once() {
    let mut lab = Lab::new("revtep", 1);
    lab.add_task(1, 11, None);
    let mtu = |lab: &Lab, desired: &Desired| {
        let report = lab.nodes[0].apply(desired);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        report.networks[lab::APP].mtu
    };
    assert_eq!(mtu(&lab, &lab.desired[0]), 1450);
    lab.exec("n1", "ip link add second mtu 1400 up type bridge");
    lab.exec("n1", "ip addr add 198.51.100.1/24 dev second");
    let mut desired = lab.desired[0].clone();
    desired.node.as_mut().unwrap().vteps = vec![ip("198.51.100.1")];
    assert_eq!(mtu(&lab, &desired), 1350);
    desired.node.as_mut().unwrap().vteps = vec![ip("192.0.2.77")];
    let report = lab.nodes[0].apply(&desired);
    only_the_vtep_is_missing(&report);

    lab.nodes[0].with(|plane| plane.apply(Arc::default()));
    lab.exec("n1", "ip link set eth0 mtu 1360");
    assert_eq!(mtu(&lab, &lab.desired[0]), 1310);
}

/// Whoever has its routes from router advertisements keeps them, also by a device that comes later.
#[test]
fn router_advertisements_stay_accepted() {
    let mut lab = Lab::new("advertised", 2);
    let accepts = |lab: &Lab, node: &str, link: &str| {
        let read = format!("cat /proc/sys/net/ipv6/conf/{link}/accept_ra");
        lab.exec(node, &read).trim().to_owned()
    };
    // This one's administrator has a router, which learns no routes.
    lab.exec("n2", "sysctl -qw net.ipv6.conf.all.forwarding=1");
    lab.add_task(1, 11, None);
    lab.add_task(2, 12, None);
    lab.apply();
    assert_eq!(accepts(&lab, "n1", "eth0"), "2");
    assert_eq!(accepts(&lab, "n2", "eth0"), "1");
    for late in ["late1", "late2"] {
        for node in ["n1", "n2"] {
            lab.exec(node, &format!("ip link add {late} up type bridge"));
            lab.exec(node, "sysctl -qw net.ipv6.conf.eth0.accept_ra=1");
        }
        for (node, netns) in lab.nodes.iter().zip(["n1", "n2"]) {
            let report = node.with(DataPlane::reconcile);
            assert!(report.failures.is_empty(), "{:?}", report.failures);
            let healed = if netns == "n1" { 2 } else { 0 };
            assert_eq!(report.healed.len(), healed, "{:?}", report.healed);
            let value = if netns == "n1" { "2" } else { "1" };
            for link in [late, "eth0"] {
                assert_eq!(accepts(&lab, netns, link), value, "{netns} {link}");
            }
        }
        // A new data plane finds forwarding switched on, and goes on nevertheless.
        lab.take_over();
    }
}
