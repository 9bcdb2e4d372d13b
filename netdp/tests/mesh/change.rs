//! What changes, is damaged, drains or goes while it is used.

use netdp::Backend;

use crate::lab::{self, ask_udp, exchange, inside};
use crate::{answers, both, web};

#[test]
fn removal_leaves_nothing() {
    let lab = web("removal");
    let before = lab.exec("n2", "ip -o link");
    assert!(before.contains("fl_gwbridge"), "{before}");
    for (node, desired) in lab.nodes.iter().zip(&lab.desired) {
        let mut empty = desired.clone();
        empty.networks.clear();
        empty.sandboxes.clear();
        empty.endpoints.clear();
        empty.services.clear();
        let report = node.apply(&empty);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        let report = node.with(netdp::DataPlane::reconcile);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        let files = std::fs::read_dir(node.run_dir.join("netns"))
            .unwrap()
            .count();
        assert_eq!(files, 0);
        let left = inside(&node.netns, || {
            lab::sh("nft list tables; ip -o link; ip rule")
        });
        assert!(
            !left.contains("fairlead") && !left.contains("fl_"),
            "{left}"
        );
        let links = inside(&node.netns, || lab::sh("ip -o link"));
        assert!(
            !links.contains("flg") && !links.contains("fl_ingress"),
            "{links}"
        );
    }
}

/// What somebody damages comes back, and is reported.
#[test]
fn damage_is_repaired() {
    let lab = web("heal");
    let works = || {
        for node in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            assert_eq!(
                answers(&lab.client(), &format!("{node}:8080"), 40),
                both("192.0.2.100"),
                "{node}"
            );
        }
        assert_eq!(
            answers(&lab.task("t1-21"), "10.1.0.2:80", 40),
            both("10.1.0.21")
        );
    };
    works();
    let quiet = lab.nodes[0].with(netdp::DataPlane::reconcile);
    assert!(
        quiet.healed.is_empty(),
        "nothing was damaged: {:?}",
        quiet.healed
    );
    assert!(quiet.failures.is_empty(), "{:?}", quiet.failures);
    let task = lab.task("t1-21");
    let ingress = lab.network(1, lab::INGRESS);
    let app = lab.network(1, lab::APP);
    let node = lab.nodes[0].netns.clone();
    let damages = [
        (&app, "bridge fdb del 02:42:0a:01:00:0c dev vx4097 self"),
        (
            &app,
            "bridge fdb replace 02:42:0a:01:00:0c dev vx4097 dst 192.0.2.77 self",
        ),
        (&app, "ip neigh del 10.1.0.12 dev vx4097"),
        (&app, "ip link del vx4097"),
        (&app, "ip link set br4097 down"),
        (&app, "nft flush ruleset"),
        (&ingress, "ip neigh flush nud permanent dev br4096"),
        (&ingress, "ip rule del pref 10"),
        (&ingress, "ip route flush table 100"),
        (&ingress, "ip link del node"),
        (&task, "nft flush ruleset"),
        (&task, "ip link del eth0"),
        (&task, "ip addr flush dev eth0"),
        (&task, "ip route del default"),
        (&node, "nft flush ruleset"),
        (&node, "ip link del fl_gwbridge"),
        (&node, "sysctl -qw net.ipv4.ip_forward=0"),
    ];
    for (netns, damage) in damages {
        inside(netns, || lab::sh(damage));
        // A link that a bridge's or veth's loss takes along may need a second look.
        let mut healed = Vec::new();
        for _ in 0..3 {
            let report = lab.nodes[0].with(netdp::DataPlane::reconcile);
            healed.extend(report.healed);
            if report.failures.is_empty() {
                break;
            }
        }
        assert!(!healed.is_empty(), "{damage}: nothing was reported");
        let report = lab.nodes[0].with(netdp::DataPlane::reconcile);
        assert!(
            report.failures.is_empty(),
            "{damage}: {:?}",
            report.failures
        );
        works();
    }
}

/// A data plane that dies and a new one that takes over: connections stay, and nothing fails
/// meanwhile.
#[test]
fn a_new_data_plane_takes_over() {
    let mut lab = web("takeover");
    let load = lab::Load::start(&lab.client(), &["192.0.2.1:8080", "192.0.2.3:8080"]);
    let inner = lab::Load::start(&lab.task("t1-21"), &["10.1.0.2:80"]);
    for _ in 0..3 {
        for node in &mut lab.nodes {
            node.open();
        }
        lab.apply();
        for node in &lab.nodes {
            let report = node.with(netdp::DataPlane::reconcile);
            assert!(
                report.failures.is_empty() && report.healed.is_empty(),
                "{report:?}"
            );
        }
    }
    for load in [load, inner] {
        let (good, bad) = load.stop();
        assert!(good > 20, "{good}");
        assert!(
            bad.is_empty(),
            "{} of {}: {:?}",
            bad.len(),
            good + bad.len(),
            bad[0]
        );
    }
}

/// Draining under load loses nothing; a drained backend gets nothing new.
#[test]
fn draining_loses_nothing() {
    let mut lab = web("drain");
    let load = lab::Load::start(
        &lab.client(),
        &["192.0.2.1:8080", "192.0.2.2:8080", "192.0.2.3:8080"],
    );
    let inner = lab::Load::start(&lab.task("t1-21"), &["10.1.0.2:80"]);
    let mut kept = lab::connect_from(&lab.client(), "0.0.0.0:0", "192.0.2.3:8080").unwrap();
    let served_by = exchange(&mut kept).unwrap();
    let task = served_by.split(' ').next().unwrap().to_owned();
    lab.set_backend(&task, Backend::Draining);
    lab.apply();
    let other = if task == "t1-11" { "t2-12" } else { "t1-11" };
    assert_eq!(
        answers(&lab.client(), "192.0.2.3:8080", 20),
        [format!("{other} 192.0.2.100")].into()
    );
    assert_eq!(
        exchange(&mut kept).unwrap(),
        served_by,
        "an open connection stays"
    );
    for desired in &mut lab.desired {
        desired
            .endpoints
            .retain(|_, endpoint| endpoint.task != task);
        desired.sandboxes.remove(&task);
    }
    drop(kept);
    lab.apply();
    for load in [load, inner] {
        let (good, bad) = load.stop();
        assert!(good > 10, "{good}");
        assert!(
            bad.is_empty(),
            "{} of {}: {:?}",
            bad.len(),
            good + bad.len(),
            bad[0]
        );
    }
}

/// A UDP client that keeps its port is not pinned to a removed backend, nor to the time before the
/// port was published.
#[test]
fn udp_flows_follow_the_backends() {
    let mut lab = web("udpflow");
    let client = lab.client();
    let ask = |to: &str| ask_udp(&client, "0.0.0.0:42424", to);
    let task = lab.task("t1-21");
    let ask_vip = || ask_udp(&task, "0.0.0.0:42425", "10.1.0.2:53");
    for _ in 0..2 {
        assert!(ask("192.0.2.3:5353").is_ok());
        assert!(ask_vip().is_ok());
    }
    let first = ask("192.0.2.3:5353").unwrap();
    let gone = first.split(' ').next().unwrap().to_owned();
    let stays = if gone == "t1-11" { "t2-12" } else { "t1-11" };
    for desired in &mut lab.desired {
        desired
            .endpoints
            .retain(|_, endpoint| endpoint.task != gone);
        desired.sandboxes.remove(&gone);
    }
    lab.apply();
    // IPVS lets go of a connection when the next packet of it comes, which is lost.
    let _ = ask("192.0.2.3:5353");
    for _ in 0..3 {
        assert_eq!(
            ask("192.0.2.3:5353").unwrap(),
            format!("{stays} 192.0.2.100")
        );
        assert_eq!(ask_vip().unwrap(), format!("{stays} 10.1.0.21"));
    }
}
