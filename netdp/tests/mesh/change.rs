//! What changes, is damaged, drains or goes while it is used.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use netdp::{Backend, DataPlane, Engine, Port, Protocol};

use crate::client;
use crate::lab::{self, inside};
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
        // A node that is told nothing at all, not even who it is, has nothing of ours either.
        if node.netns.ends_with("fl-removal-n2") {
            empty.node = None;
        }
        let report = node.apply(&empty);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        let report = node.with(DataPlane::reconcile);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        for directory in ["netns", "tables"] {
            let files = std::fs::read_dir(node.run_dir.join(directory)).unwrap();
            assert_eq!(files.count(), 0, "{directory}");
        }
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
    let quiet = lab.nodes[0].with(DataPlane::reconcile);
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
        lab.heal(damage);
        works();
    }
}

/// While no data plane is there, somebody else gets a published port as that of his own connection.
#[test]
fn a_port_in_use_stays_published_after_a_restart() {
    let mut lab = web("busy");
    let node = lab.nodes[0].netns.clone();
    lab.nodes[0].close();
    let listener = inside(&lab.client(), || {
        std::net::TcpListener::bind("192.0.2.100:9000").unwrap()
    });
    let theirs = client::connect_from(&node, "192.0.2.1:8080", "192.0.2.100:9000").unwrap();
    lab.nodes[0].open();
    let report = lab.nodes[0].apply(&lab.desired[0]);
    let told: Vec<String> = report
        .failures
        .iter()
        .map(|f| f.error.to_string())
        .collect();
    assert!(
        told.len() == 1 && told[0].contains("8080/tcp is already in use"),
        "{told:?}"
    );
    let works = || answers(&lab.client(), "192.0.2.1:8080", 40);
    assert_eq!(works(), both("192.0.2.100"));
    drop(theirs);
    drop(listener);
}

/// A VNI goes from one network to another in one step, and from one that a data plane before left.
#[test]
fn a_vni_changes_hands() {
    let mut lab = lab::Lab::new("vni", 1);
    lab.add_task(1, 11, None);
    lab.apply();
    for (from, to) in [(lab::APP, "second"), ("second", "third")] {
        if to == "third" {
            lab.nodes[0].open();
        }
        let mut desired = lab.desired[0].clone();
        let network = desired.networks.remove(from).unwrap();
        desired.networks.insert(to.to_owned(), network);
        // With it a task goes, and another one comes.
        let (_, mut sandbox) = desired.sandboxes.pop_first().unwrap();
        sandbox.legs[0].network = to.to_owned();
        let task = format!("task-of-{to}");
        desired.sandboxes.insert(task.clone(), sandbox);
        for endpoint in desired.endpoints.values_mut() {
            endpoint.network = to.to_owned();
            endpoint.task.clone_from(&task);
        }
        let report = lab.nodes[0].apply(&desired);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        let there = inside(&lab.network(1, to), || {
            lab::sh("ip -d link show type vxlan")
        });
        assert!(there.contains("id 4097"), "{there}");
        lab.desired[0] = desired;
    }
}

/// A namespace that lost its name keeps what is in it.
#[test]
fn a_namespace_is_named_again() {
    use std::os::unix::fs::MetadataExt;
    let lab = web("named");
    let task = lab.task("t1-21");
    let inode = || std::fs::metadata(&task).unwrap().ino();
    let before = inode();
    for damage in ["umount -l", "umount -l $f; rm"] {
        lab::sh(&format!("f={}; {damage} $f", task.display()));
        let report = lab.nodes[0].with(DataPlane::reconcile);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert_eq!(inode(), before, "{damage}");
    }
    assert_eq!(
        answers(&task, "10.1.0.2:80", 40),
        both("10.1.0.21"),
        "it is connected as before"
    );
}

/// Every namespace that the nodes of [`web`] have.
fn namespaces(lab: &lab::Lab) -> Vec<PathBuf> {
    let mut namespaces: Vec<PathBuf> = lab.nodes.iter().map(|node| node.netns.clone()).collect();
    for node in &lab.nodes {
        let files = std::fs::read_dir(node.run_dir.join("netns")).unwrap();
        namespaces.extend(files.map(|file| file.unwrap().path()));
    }
    namespaces.sort();
    namespaces
}

/// Rulesets with the handles of all that is in them: an object that was made again has another.
fn rulesets(lab: &lab::Lab) -> Vec<(PathBuf, String)> {
    let ruleset = |netns: PathBuf| {
        let ruleset = inside(&netns, || lab::sh("nft -a list ruleset"));
        (netns, ruleset)
    };
    namespaces(lab).into_iter().map(ruleset).collect()
}

/// What an earlier data plane programmed is not touched while it is as wanted; what was damaged
/// while there was none, or is wanted otherwise by now, is programmed again.
#[test]
fn a_new_data_plane_leaves_equal_tables_alone() {
    let mut lab = web("untouched");
    let before = rulesets(&lab);
    // A network's namespace may have none: where IPVS balances, and no task has a port.
    let network = |netns: &Path| netns.to_string_lossy().contains("/net-");
    for (netns, rules) in &before {
        assert!(rules.contains("handle") || network(netns), "{netns:?}");
    }
    lab.take_over();
    assert_eq!(rulesets(&lab), before);

    let task = lab.task("t1-21");
    let server = lab.task("t1-11");
    let ingress = lab.network(1, lab::INGRESS);
    let node = lab.nodes[0].netns.clone();
    for (netns, damage) in [
        (&task, "nft flush chain ip fairlead vips"),
        (&task, "nft delete table ip fairlead"),
        (&server, "nft delete table netdev fairlead"),
        (&ingress, "nft delete table netdev fairlead"),
        (
            &node,
            "nft add rule ip fairlead forward tcp dport 7777 drop",
        ),
        (&node, "nft flush ruleset"),
    ] {
        lab.nodes[0].open();
        inside(netns, || lab::sh(damage));
        lab.apply();
        for from in [&lab.client(), &task] {
            answers(from, "192.0.2.1:8080", 4);
        }
        answers(&task, "10.1.0.2:80", 4);
        let after = inside(netns, || lab::sh("nft list ruleset"));
        assert!(
            after.contains("fairlead") && !after.contains("7777"),
            "{damage}: {after}"
        );
    }

    // Something else is wanted than what the dead one programmed.
    lab.nodes[0].open();
    lab.set_backend("t2-12", Backend::Disabled);
    lab.apply();
    let only: BTreeSet<String> = ["t1-11 192.0.2.100".to_owned()].into();
    assert_eq!(answers(&lab.client(), "192.0.2.1:8080", 20), only);
}

/// A data plane that dies and a new one that takes over: connections stay, and nothing fails
/// meanwhile.
#[test]
fn a_new_data_plane_takes_over() {
    let mut lab = web("takeover");
    let load = client::Load::start(&lab.client(), &["192.0.2.1:8080", "192.0.2.3:8080"]);
    let inner = client::Load::start(&lab.task("t1-21"), &["10.1.0.2:80"]);
    // A busy machine answers little in the time that a take-over lasts.
    for i in 0..1000 {
        lab.take_over();
        if i >= 2 && load.answered() > 20 && inner.answered() > 20 {
            break;
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

/// A daemon with the other engine takes over; nothing of the first goes on balancing.
#[test]
fn another_engine_takes_over() {
    let mut lab = web("engines");
    if lab.nodes[0].with(|plane| plane.engine()) != Engine::Ipvs {
        println!("not tried: the engine is nft");
        return;
    }
    let ingress = lab.network(1, lab::INGRESS);
    let services = || inside(&ingress, || lab::sh("ipvsadm -Ln")).contains(":8080");
    let table = || inside(&ingress, || lab::sh("nft list ruleset")).contains("chain balance");
    for (engine, ipvs) in [(Engine::Nft, false), (Engine::Ipvs, true)] {
        lab.nodes[0].open_with(Some(engine));
        lab.apply();
        assert_eq!((services(), table()), (ipvs, !ipvs), "{engine:?}");
        assert_eq!(
            answers(&lab.client(), "192.0.2.1:8080", 40),
            both("192.0.2.100")
        );
    }
}

/// A change of one published port asks the kernel for nothing else; whoever has damaged something is
/// found by the verification, or by a change that it stands in the way of.
#[test]
fn a_change_of_the_balancing_is_planned_from_what_was_committed() {
    let mut lab = web("onechange");
    if lab.nodes[0].with(|plane| plane.engine()) != Engine::Ipvs {
        println!("not tried: the engine is nft");
        return;
    }
    let port = |protocol, published, target| Port {
        protocol,
        published,
        target,
    };
    let (web, dns) = (port(Protocol::Tcp, 8080, 80), port(Protocol::Udp, 5353, 53));
    let more = port(Protocol::Tcp, 8081, 80);
    let ingress = lab.network(1, lab::INGRESS);
    let table = || inside(&ingress, || lab::sh("ipvsadm -Sn | sort"));
    let damage = |what: &str| inside(&ingress, || lab::sh(what));
    let whole = table();
    let lines = |text: &str, start: &str| text.lines().filter(|l| l.starts_with(start)).count();

    // Idle connections live for five days; somebody sets what the kernel begins with.
    let timeouts = || inside(&ingress, || lab::sh("ipvsadm -L --timeout"));
    damage("ipvsadm --set 900 120 300");
    assert!(!timeouts().contains("432000"), "{}", timeouts());
    lab.nodes[0].with(DataPlane::reconcile);
    assert!(timeouts().contains("432000"), "{}", timeouts());

    damage("set -- $(ipvsadm -Sn | grep -e '^-a -u' | head -n 1); ipvsadm -d -u $3 -r $5");
    assert_eq!(lines(&table(), "-a -u"), lines(&whole, "-a -u") - 1);
    lab.set_ports(&[web, dns, more]);
    lab.apply();
    // The new one is there, in both protocols of IP; the other was not looked at.
    assert_eq!(lines(&table(), "-A -t"), lines(&whole, "-A -t") + 2);
    assert_eq!(lines(&table(), "-a -u"), lines(&whole, "-a -u") - 1);
    let report = lab.nodes[0].with(DataPlane::reconcile);
    assert_eq!(report.healed.len(), 1, "{report:?}");
    assert_eq!(lines(&table(), "-a -u"), lines(&whole, "-a -u"));

    // What is to be removed is not there: then everything is compared.
    damage("ipvsadm -C");
    lab.set_ports(&[web, dns]);
    lab.apply();
    assert_eq!(table(), whole);
    let seen = answers(&lab.client(), "192.0.2.1:8080", 40);
    assert_eq!(seen, both("192.0.2.100"));
}
