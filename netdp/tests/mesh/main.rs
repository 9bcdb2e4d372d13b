//! The data path, packet by packet: nodes as network namespaces, real servers and clients in them.
//! Needs root. Engine: what the kernel has, or `FAIRLEAD_TEST_ENGINE`.

mod change;
mod client;
mod drain;
mod firewalls;
mod lab;
mod limits;
mod ports;
mod recovery;

use std::collections::BTreeSet;
use std::io::ErrorKind;

use client::{ask, ask_udp, exchange};
use lab::Lab;
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
                let stream = client::connect_from(&lab.client(), local, &to);
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
    for filtered in [false, true] {
        for node in ["n1", "n2"] {
            if !lab.filter_bridges(node, filtered) {
                println!("without br_netfilter, bridge-nf-call-iptables={filtered}");
            }
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
    lab.filter_bridges("n1", false);
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
