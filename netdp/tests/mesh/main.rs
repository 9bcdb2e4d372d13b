//! The data path, packet by packet: nodes as network namespaces, real servers and clients in them.
//! Needs root. Engine: what the kernel has, or `FAIRLEAD_TEST_ENGINE`.

mod lab;

use std::collections::BTreeSet;
use std::io::ErrorKind;

use lab::{Lab, ask, ask_udp, exchange, inside};
use netdp::{Backend, Port, Protocol};

/// Both nodes, two replicas; a third node with nothing but its ingress.
fn web(test: &str) -> Lab {
    let mut lab = Lab::new(test, 3);
    lab.add_task(1, 11, Some("web"));
    lab.add_task(2, 12, Some("web"));
    lab.add_task(1, 21, None);
    lab.apply();
    lab.serve("t1-11");
    lab.serve("t2-12");
    lab
}

fn answers(from: &std::path::Path, to: &str, count: usize) -> BTreeSet<String> {
    (0..count)
        .map(|_| ask(from, to).unwrap_or_else(|error| panic!("{to} from {from:?}: {error}")))
        .collect()
}

fn both(client: &str) -> BTreeSet<String> {
    [format!("t1-11 {client}"), format!("t2-12 {client}")].into()
}

#[test]
fn published_port_on_every_node() {
    let lab = web("published");
    for node in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        assert_eq!(
            answers(&lab.client(), &format!("{node}:8080"), 40),
            both("192.0.2.100"),
            "{node}"
        );
    }
    for node in ["[2001:db8::1]", "[2001:db8::2]", "[2001:db8::3]"] {
        assert_eq!(
            answers(&lab.client(), &format!("{node}:8080"), 40),
            both("2001:db8::100"),
            "{node}"
        );
    }
}

#[test]
fn published_udp_port_on_every_node() {
    let lab = web("udp");
    for (local, node, client) in [
        ("0.0.0.0:0", "192.0.2.1", "192.0.2.100"),
        ("0.0.0.0:0", "192.0.2.3", "192.0.2.100"),
        ("[::]:0", "[2001:db8::1]", "2001:db8::100"),
        ("[::]:0", "[2001:db8::3]", "2001:db8::100"),
    ] {
        let seen: BTreeSet<String> = (0..40)
            .map(|_| {
                ask_udp(&lab.client(), local, &format!("{node}:5353"))
                    .unwrap_or_else(|e| panic!("{node}: {e}"))
            })
            .collect();
        assert_eq!(seen, both(client), "{node}");
    }
}

#[test]
fn virtual_address_from_a_task() {
    let lab = web("vip");
    assert_eq!(
        answers(&lab.task("t1-21"), "10.1.0.2:80", 40),
        both("10.1.0.21")
    );
    assert_eq!(
        answers(&lab.task("t1-21"), "[fd01::2]:80", 40),
        both("fd01::15")
    );
    // A replica reaches its own service, itself included.
    let own = answers(&lab.task("t1-11"), "10.1.0.2:80", 40);
    assert_eq!(own, both("10.1.0.11"));
}

#[test]
fn a_service_without_backends_refuses_at_once() {
    let mut lab = web("refuse");
    lab.set_backend("t1-11", Backend::Disabled);
    lab.set_backend("t2-12", Backend::Disabled);
    lab.apply();
    let client = lab.client();
    for (from, to) in [
        (&client, "192.0.2.1:8080"),
        (&client, "[2001:db8::1]:8080"),
        (&lab.task("t1-21"), "10.1.0.2:80"),
        (&lab.task("t1-21"), "[fd01::2]:80"),
    ] {
        let error = ask(from, to).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
    }
}

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

/// One client port, towards two nodes and two published ports at once: four connections that stay
/// apart, also where two published ports lead to one target port.
#[test]
fn one_client_port_through_everything_at_once() {
    let mut lab = Lab::new("oneport", 2);
    // One backend, so that only the paths differ.
    lab.add_task(2, 12, Some("web"));
    let tcp = |published| Port {
        protocol: Protocol::Tcp,
        published,
        target: 80,
    };
    let udp = |published| Port {
        protocol: Protocol::Udp,
        published,
        target: 53,
    };
    lab.set_ports(&[tcp(8080), tcp(8081), udp(5353), udp(5354)]);
    lab.apply();
    lab.serve("t2-12");
    for (local, nodes) in [
        ("192.0.2.100:41000", ["192.0.2.1", "192.0.2.2"]),
        ("[2001:db8::100]:41000", ["[2001:db8::1]", "[2001:db8::2]"]),
    ] {
        let client = local.rsplit_once(':').unwrap().0.trim_matches(['[', ']']);
        let mut open = Vec::new();
        for node in nodes {
            for port in [8080, 8081] {
                let to = format!("{node}:{port}");
                let stream = lab::connect_from(&lab.client(), local, &to);
                open.push((to.clone(), stream.unwrap_or_else(|e| panic!("{to}: {e}"))));
            }
        }
        // All are open; each still answers, twice.
        for _ in 0..2 {
            for (to, stream) in &mut open {
                let answer = exchange(stream).unwrap_or_else(|e| panic!("{to}: {e}"));
                assert_eq!(answer, format!("t2-12 {client}"), "{to}");
            }
        }
        for node in nodes {
            for port in [5353, 5354] {
                let to = format!("{node}:{port}");
                let answer = ask_udp(&lab.client(), local, &to);
                let answer = answer.unwrap_or_else(|e| panic!("udp {to}: {e}"));
                assert_eq!(answer, format!("t2-12 {client}"), "udp {to}");
            }
        }
    }
}

/// A task uses published ports of its own and of another node, while its gwbridge address is also
/// the backend's on the other node.
#[test]
fn a_task_uses_published_ports() {
    let mut lab = Lab::new("taskports", 2);
    lab.add_task(1, 33, None);
    lab.add_task(2, 33 + 1, Some("web"));
    // Gateway addresses are chosen by each node for itself, and repeat.
    let twin = lab.desired[0].sandboxes["t1-33"]
        .gateway
        .clone()
        .unwrap()
        .addresses;
    let sandbox = lab.desired[1].sandboxes.get_mut("t2-34").unwrap();
    sandbox.gateway.as_mut().unwrap().addresses = twin;
    lab.apply();
    lab.serve("t2-34");
    let task = lab.task("t1-33");
    for filtered in [0, 1] {
        for node in ["n1", "n2"] {
            let setting = format!("sysctl -qew net.bridge.bridge-nf-call-iptables={filtered}");
            lab.exec(node, &setting);
        }
        for (to, seen) in [
            ("192.0.2.1:8080", "t2-34 192.0.2.1"),
            ("192.0.2.2:8080", "t2-34 192.0.2.1"),
            ("[2001:db8::1]:8080", "t2-34 2001:db8::1"),
            ("[2001:db8::2]:8080", "t2-34 2001:db8::1"),
        ] {
            assert_eq!(
                ask(&task, to).unwrap_or_else(|e| panic!("{to}: {e}")),
                seen,
                "{to}"
            );
        }
    }
}

/// The node itself, by its own address and by loopback.
#[test]
fn the_node_uses_its_published_ports() {
    let lab = web("nodeports");
    let node = lab.nodes[2].netns.clone();
    assert_eq!(answers(&node, "192.0.2.3:8080", 40), both("192.0.2.3"));
    assert_eq!(answers(&node, "127.0.0.1:8080", 40), both("192.0.2.3"));
    assert_eq!(
        answers(&node, "[2001:db8::3]:8080", 40),
        both("2001:db8::3")
    );
}

/// The underlay and the client have addresses of the ingress network's subnet, the client even a
/// backend's.
#[test]
fn the_ingress_subnet_is_also_the_underlays() {
    let mut lab = Lab::on("overlap", 2, "10.0.0");
    lab.add_task(1, 100, Some("web"));
    lab.add_task(2, 2, Some("web"));
    lab.apply();
    lab.serve("t1-100");
    lab.serve("t2-2");
    for node in ["10.0.0.1:8080", "10.0.0.2:8080"] {
        let seen = answers(&lab.client(), node, 40);
        let both = ["t1-100 10.0.0.100".to_owned(), "t2-2 10.0.0.100".to_owned()].into();
        assert_eq!(seen, both, "{node}");
    }
    for _ in 0..10 {
        let answer = ask_udp(&lab.client(), "0.0.0.0:0", "10.0.0.2:5353").unwrap();
        assert!(answer.ends_with(" 10.0.0.100"), "{answer}");
    }
    // Refusals of our own reach such a client too.
    for task in ["t1-100", "t2-2"] {
        lab.set_backend(task, Backend::Disabled);
    }
    lab.apply();
    let error = ask(&lab.client(), "10.0.0.1:8080").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

/// Other firewalls on the node drop everything that nobody accepted.
#[test]
fn policies_of_drop_on_the_node() {
    let mut lab = Lab::new("drop", 2);
    for node in ["n1", "n2"] {
        lab.exec(node, "iptables-nft -P INPUT DROP");
        lab.exec(node, "iptables-nft -P FORWARD DROP");
        lab.exec(node, "ip6tables-nft -P INPUT DROP");
        lab.exec(node, "ip6tables-nft -P FORWARD DROP");
        // Neighbour discovery and the node's own loopback are the administrator's to allow.
        lab.exec(node, "ip6tables-nft -A INPUT -p icmpv6 -j ACCEPT");
    }
    lab.add_task(1, 21, None);
    lab.add_task(2, 12, Some("web"));
    lab.apply();
    lab.serve("t2-12");
    for to in ["192.0.2.1:8080", "192.0.2.2:8080"] {
        assert_eq!(ask(&lab.client(), to).unwrap(), "t2-12 192.0.2.100", "{to}");
        assert_eq!(
            ask(&lab.task("t1-21"), to).unwrap(),
            "t2-12 192.0.2.1",
            "{to}"
        );
    }
    assert_eq!(
        ask(&lab.task("t1-21"), "10.1.0.2:80").unwrap(),
        "t2-12 10.1.0.21"
    );
    // Somebody flushes: ours come back, and theirs are as they left them.
    lab.exec("n2", "iptables-nft -F");
    let report = lab.nodes[1].with(netdp::DataPlane::reconcile);
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(
        ask(&lab.client(), "192.0.2.2:8080").unwrap(),
        "t2-12 192.0.2.100"
    );
    let rules = lab.exec("n2", "nft list chain ip filter FORWARD");
    assert_eq!(rules.matches("fairlead:").count(), 4, "{rules}");
}

/// Two networks use the same addresses.
#[test]
fn overlapping_subnets_stay_apart() {
    let mut lab = Lab::new("subnets", 2);
    let a = lab.add_task(1, 11, None);
    let b = lab.add_task(2, 12, None);
    let c = lab.add_task(2, 13, None);
    // Task c is in a second network that has the first one's subnet, with b's address.
    for desired in &mut lab.desired {
        let mut twin = desired.networks[lab::APP].clone();
        twin.name = "twin".into();
        twin.segments[0].vni = 5000;
        desired.networks.insert("twin".into(), twin);
        let (b, c) = (format!("{b}-app"), format!("{c}-app"));
        let addresses = desired.endpoints[&b].addresses.clone();
        let mac = desired.endpoints[&b].mac;
        let endpoint = desired.endpoints.get_mut(&c).unwrap();
        (endpoint.network, endpoint.addresses, endpoint.mac) = ("twin".into(), addresses, mac);
    }
    let leg = lab.desired[1].sandboxes[&b].legs[0].clone();
    let twin = &mut lab.desired[1].sandboxes.get_mut(&c).unwrap().legs[0];
    *twin = netdp::Leg {
        network: "twin".into(),
        ..leg
    };
    lab.apply();
    lab.serve(&b);
    lab.serve(&c);
    assert_eq!(
        ask(&lab.task(&a), "10.1.0.12:80").unwrap(),
        format!("{b} 10.1.0.11")
    );
}

/// Tasks do not see each other on the gwbridge, neither bridged nor through the node.
#[test]
fn the_gwbridge_isolates() {
    let mut lab = Lab::new("isolate", 1);
    let a = lab.add_task(1, 11, None);
    let b = lab.add_task(1, 12, None);
    lab.apply();
    lab.serve(&b);
    // It is there, on the network that both are in.
    assert!(ask(&lab.task(&a), "10.1.0.12:80").is_ok());
    for to in ["172.18.0.12:80", "[fd18::c]:80"] {
        assert!(ask(&lab.task(&a), to).is_err(), "{to}");
    }
    // Nor by sending to the node what is for the other.
    inside(&lab.task(&a), || {
        lab::sh("ip route add 172.18.0.12/32 via 172.18.0.1 dev eth1");
    });
    assert!(ask(&lab.task(&a), "172.18.0.12:80").is_err());
    // Both reach the outside, by the node's address.
    let listener = inside(&lab.client(), || {
        std::net::TcpListener::bind("192.0.2.100:9000").unwrap()
    });
    let _stream = lab::connect_from(&lab.task(&a), "0.0.0.0:0", "192.0.2.100:9000").unwrap();
    assert_eq!(listener.accept().unwrap().1.ip().to_string(), "192.0.2.1");
}

/// A host-mode port leads to its one task, from outside, from the node and from another task.
#[test]
fn host_mode_ports() {
    let mut lab = Lab::new("hostport", 1);
    let a = lab.add_task(1, 11, None);
    let b = lab.add_task(1, 12, None);
    let port = Port {
        protocol: Protocol::Tcp,
        published: 8000,
        target: 80,
    };
    lab.desired[0]
        .sandboxes
        .get_mut(&a)
        .unwrap()
        .host_ports
        .push(port);
    lab.apply();
    lab.serve(&a);
    let node = lab.nodes[0].netns.clone();
    // With it, netfilter sends a frame from one port of a bridge to another without routing it, and
    // ports are isolated (docs/networking.md, limits).
    lab.exec("n1", "sysctl -qew net.bridge.bridge-nf-call-iptables=0");
    assert_eq!(
        ask(&lab.client(), "192.0.2.1:8000").unwrap(),
        format!("{a} 192.0.2.100")
    );
    assert_eq!(
        ask(&lab.client(), "[2001:db8::1]:8000").unwrap(),
        format!("{a} 2001:db8::100")
    );
    assert!(ask(&node, "192.0.2.1:8000").is_ok());
    assert!(ask(&node, "127.0.0.1:8000").is_ok());
    assert!(ask(&lab.task(&b), "192.0.2.1:8000").is_ok());
    assert!(ask(&lab.task(&a), "192.0.2.1:8000").is_ok(), "itself");
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

/// A task that claims another's address is not heard.
#[test]
fn a_task_cannot_lie() {
    let mut lab = Lab::new("lie", 2);
    let a = lab.add_task(1, 11, None);
    let b = lab.add_task(2, 12, None);
    lab.apply();
    lab.serve(&b);
    assert!(ask(&lab.task(&a), "10.1.0.12:80").is_ok());
    inside(&lab.task(&a), || {
        lab::sh("ip addr add 10.1.0.99/24 dev eth0")
    });
    let lie = lab::connect_from(&lab.task(&a), "10.1.0.99:0", "10.1.0.12:80");
    assert!(lie.is_err(), "another address");
    inside(&lab.task(&a), || {
        lab::sh("ip link set eth0 address 02:42:0a:01:00:63")
    });
    assert!(ask(&lab.task(&a), "10.1.0.12:80").is_err(), "another MAC");
}

/// What other tools say of what we programmed.
#[test]
fn witnesses_agree() {
    let lab = web("witness");
    let app = lab.network(1, lab::APP);
    let ingress = lab.network(1, lab::INGRESS);
    let fdb = inside(&app, || lab::sh("bridge fdb show dev vx4097"));
    assert!(fdb.contains("02:42:0a:01:00:0c dst 192.0.2.2"), "{fdb}");
    assert!(
        fdb.contains("02:42:0a:01:00:0c master br4097 static"),
        "{fdb}"
    );
    assert!(
        !fdb.contains("00:00:00:00:00:00"),
        "nothing is flooded: {fdb}"
    );
    let link = inside(&app, || lab::sh("ip -d link show vx4097"));
    for option in [
        "mtu 1450",
        "id 4097",
        "local 192.0.2.1",
        "dstport 4789",
        "nolearning",
        "proxy",
        "link-netns",
    ] {
        assert!(link.contains(option), "{option}: {link}");
    }
    let published = lab.exec("n1", "nft list table ip fairlead");
    assert!(published.contains("tcp . 8080"), "{published}");
    let engine = lab.nodes[0].with(|plane| plane.engine());
    match engine {
        netdp::Engine::Ipvs => {
            let services = inside(&ingress, || lab::sh("ipvsadm -Ln"));
            for line in [
                "TCP  169.254.8.2:8080 rr",
                "10.0.0.11:80                 Masq    1",
                "UDP  169.254.8.2:5353 rr",
            ] {
                assert!(services.contains(line), "{line}: {services}");
            }
        }
        netdp::Engine::Nft => {
            let map = inside(&ingress, || lab::sh("nft list table ip fairlead"));
            assert!(map.contains("10.0.0.11 . 80"), "{map}");
        }
    }
}
