//! Tasks among themselves: VIPs, networks, and what is on the wire.

use std::collections::BTreeSet;

use fairlead_tests::witness::{Capture, see, see_failing};
use fairlead_tests::{Answer, Background, Client, Cluster, Node, ask_tcp, wait_for};

/// Which replicas a task reaches, and whom they see.
fn seen_by(node: &Node, task: &str, protocol: &str, to: &str) -> BTreeSet<String> {
    let one = |_| {
        let text = node.task_asks(task, protocol, to);
        let text = text.unwrap_or_else(|error| panic!("{protocol} {to} from {task}: {error}"));
        Answer::parse(&text).expect("an answer").to_string()
    };
    (0..30).map(one).collect()
}

fn each(replicas: &[&str], client: &str) -> BTreeSet<String> {
    replicas
        .iter()
        .map(|replica| format!("{replica} saw {client}"))
        .collect()
}

#[test]
fn a_vip_is_balanced_and_keeps_the_tasks_address() {
    let mut cluster = Cluster::new("vip", 3);
    cluster.service("web");
    cluster.replicas("web", &[1, 2]);
    for task in ["web-1", "web-2"] {
        // No port of it is published: a VIP is for every port.
        cluster
            .spec_of(task)
            .serves(&["tcp:80", "tcp:8000", "udp:53"]);
    }
    cluster.task("asker", 3);
    cluster.deploy();
    let [v4, v6] = cluster.vips("web");
    for task in ["asker", "web-1", "web-2"] {
        let from4 = cluster.spec_of(task).v4("app").to_owned();
        let from6 = cluster.address6(task, "app");
        let node = cluster.node_of(task);
        for (to, from) in [(v4.clone(), from4), (format!("[{v6}]"), from6)] {
            for (protocol, port) in [("tcp", 80), ("tcp", 8000), ("udp", 53)] {
                let seen = seen_by(node, task, protocol, &format!("{to}:{port}"));
                // A replica reaches its own service, itself included.
                assert_eq!(
                    seen,
                    each(&["web-1", "web-2"], &from),
                    "{task}: {protocol} {to}:{port}"
                );
            }
        }
        let netns = node.task_netns(task);
        see(
            &netns,
            &format!("ping -c 1 -W 20 {v4}; ping -c 1 -W 20 {v6}"),
        );
    }
}

#[test]
fn overlapping_subnets_on_two_networks() {
    let mut cluster = Cluster::new("overlap", 2);
    for (network, vni) in [("red", 5001), ("blue", 5002)] {
        cluster.network(network, "10.9.0", "fd09", vni);
        cluster
            .service_on(network, network)
            .tcp(if vni == 5001 { 8080 } else { 8081 }, 80);
        cluster.replicas(network, &[1, 2]);
        cluster.task_on(&format!("{network}-asker"), 1, &[network]);
    }
    cluster.deploy();
    assert_eq!(
        cluster.address("red-1", "red"),
        cluster.address("blue-1", "blue")
    );
    for network in ["red", "blue"] {
        let asker = format!("{network}-asker");
        let replicas = [format!("{network}-1"), format!("{network}-2")];
        let replicas = replicas.each_ref().map(String::as_str);
        let [v4, v6] = cluster.vips(network);
        let node = cluster.node(1);
        let from4 = cluster.address(&asker, network);
        assert_eq!(
            seen_by(node, &asker, "tcp", &format!("{v4}:80")),
            each(&replicas, &from4)
        );
        let vip6 = seen_by(node, &asker, "tcp", &format!("[{v6}]:80"));
        assert_eq!(vip6.len(), 2, "{vip6:?}");
        for replica in replicas {
            let to = format!("{}:80", cluster.address(replica, network));
            assert_eq!(
                seen_by(node, &asker, "tcp", &to),
                each(&[replica], &from4),
                "{to}"
            );
        }
        let port = if network == "red" { 8080 } else { 8081 };
        let outside: BTreeSet<String> = (0..30)
            .map(|_| {
                ask_tcp(&cluster.client(), &format!("192.0.2.1:{port}"))
                    .expect("an answer")
                    .replica
            })
            .collect();
        assert_eq!(outside, replicas.map(str::to_owned).into(), "port {port}");
    }
}

#[test]
fn a_network_with_ipv6_only() {
    let mut cluster = Cluster::new("six", 2);
    cluster.network("six", "", "fd00:6", 4106);
    cluster.service_on("web", "six").tcp(8080, 80).udp(5353, 53);
    cluster.replicas("web", &[1, 2]);
    cluster.task_on("asker", 1, &["six"]);
    cluster.deploy();
    let node = cluster.node(1);
    let own = cluster.address6("asker", "six");
    let [none, vip] = cluster.vips("web");
    assert_eq!(none, "");
    for (protocol, port) in [("tcp", 80), ("udp", 53)] {
        assert_eq!(
            seen_by(node, "asker", protocol, &format!("[{vip}]:{port}")),
            each(&["web-1", "web-2"], &own),
            "{protocol}"
        );
    }
    assert_eq!(node.task_resolves("asker", "web"), Ok(vec![vip]));
    let mut tasks = node.task_resolves("asker", "tasks.web").expect("names");
    tasks.sort();
    assert_eq!(
        tasks,
        ["web-1", "web-2"].map(|task| cluster.address6(task, "six"))
    );
    // The mesh is the ingress network's, which has both.
    let client = cluster.client();
    for to in ["192.0.2.1:8080", "[2001:db8::2]:8080"] {
        ask_tcp(&client, to).expect(to);
    }
}

#[test]
fn tasks_of_different_networks_do_not_reach_each_other() {
    let mut cluster = Cluster::new("isolation", 1);
    cluster.network("other", "10.2.0", "fd02", 4098);
    cluster.task("a", 1).serves(&["tcp:80"]);
    cluster.task_on("b", 1, &["other"]).serves(&["tcp:80"]);
    cluster.deploy();
    let node = cluster.node(1);
    // The same server answers where it may be asked.
    let own = format!("{}:80", cluster.address("b", "other"));
    node.task_asks("b", "tcp", &own).expect("b reaches itself");
    let netns = node.task_netns("a");
    let gateway = node.task("b")["gatewayAddresses"][0]
        .as_str()
        .expect("an address")
        .to_owned();
    let gateway = gateway.split('/').next().expect("an address").to_owned();
    for to in [
        cluster.address("b", "other"),
        gateway,
        cluster.address6("b", "other"),
    ] {
        // Silence or refusal: both will do.
        see_failing(
            &netns,
            &format!("timeout 3 busybox nc -w 2 {to} 80 </dev/null"),
        );
        see_failing(&netns, &format!("ping -c 1 -W 1 {to}"));
    }
}

/// On the underlay: everything whose addresses, outside of any tunnel, are not all the underlay's.
const NAKED: &str = "not (arp and net 192.0.2.0/24) \
    and not (src net 192.0.2.0/24 and (dst net 192.0.2.0/24 or dst net 224.0.0.0/24)) \
    and not (ip6 and (src net 2001:db8::/64 or src net fe80::/10 or src host ::) \
        and (dst net 2001:db8::/64 or dst net fe80::/10 or dst net ff02::/16))";

/// On a link that has no part in it: everything but what a link's own kernel says of itself.
const FOREIGN: &str = "not (arp and net 198.51.100.0/24) and not igmp \
    and not (ip6 and (src net fe80::/10 or src host ::) and dst net ff02::/16)";

#[test]
fn the_wire_carries_the_networks_number_and_other_links_nothing() {
    let mut cluster = Cluster::builder("wire", 2).without_daemons();
    for node in cluster.nodes() {
        node.exec("ip link add lan type veth peer name lan-peer; ip link set lan up; ip link set lan-peer up; ip addr add 198.51.100.1/24 dev lan");
    }
    for number in 1..=2 {
        cluster.node_mut(number).start();
    }
    cluster.service("web").tcp(8080, 80);
    cluster.replicas("web", &[2]);
    cluster.task("asker", 1);
    cluster.deploy();
    let dir = cluster.dir();
    let mut wire = Capture::start(&cluster.underlay(), "pn1", "", &dir);
    let mut lan = Capture::start(&cluster.node(1).netns, "lan-peer", "", &dir);
    let mut lan2 = Capture::start(&cluster.node(2).netns, "lan", "", &dir);
    let node = cluster.node(1);
    let client = cluster.client();
    let [vip, vip6] = cluster.vips("web");
    let backend6 = cluster.address6("web-1", "app");
    for _ in 0..5 {
        for to in [
            format!("{}:80", cluster.address("web-1", "app")),
            format!("[{backend6}]:80"),
            format!("{vip}:80"),
            format!("[{vip6}]:80"),
        ] {
            node.task_asks("asker", "tcp", &to).expect(&to);
        }
        for to in ["192.0.2.1:8080", "[2001:db8::1]:8080"] {
            ask_tcp(&client, to).expect(to);
        }
    }
    wire.end();
    let tunnels = wire.packets("udp port 4789");
    for vni in ["vni 4097", "vni 4096"] {
        assert!(tunnels.iter().any(|l| l.contains(vni)), "{tunnels:#?}");
    }
    let naked = wire.packets(NAKED);
    assert!(naked.is_empty(), "not in VXLAN: {naked:#?}");
    for (node, lan) in [(1, &mut lan), (2, &mut lan2)] {
        lan.end();
        let foreign = lan.packets(FOREIGN);
        assert!(foreign.is_empty(), "node {node}: {foreign:#?}");
    }
    // What leaks would have been seen, of both protocols.
    let mut leak = Capture::start(&cluster.underlay(), "pn1", "", &dir);
    let netns = &cluster.node(2).netns;
    for (source, kind, to) in [
        ("10.1.0.99", "", "192.0.2.1"),
        // Else it cannot be used at once.
        ("fd01::99", "nodad", "2001:db8::1"),
    ] {
        see(netns, &format!("ip addr add {source} dev lo {kind}"));
        see(
            netns,
            &format!("ping -c 3 -i 0.3 -W 1 -I {source} {to} || true"),
        );
        see(netns, &format!("ip addr del {source} dev lo"));
    }
    leak.end();
    let naked = leak.packets(NAKED);
    for source in ["10.1.0.99", "fd01::99"] {
        assert!(naked.iter().any(|l| l.contains(source)), "{naked:#?}");
    }
    // The tunnel is the one that the records say, and nothing is learned.
    let netns = cluster.node(1).network_netns("app");
    let links = see(&netns, "ip -d link show type vxlan");
    assert!(
        links.contains("vxlan id 4097") && links.contains("nolearning"),
        "{links}"
    );
    let mac = "02:42:0a:01:00";
    let fdb = see(&netns, "bridge fdb");
    assert!(
        fdb.lines()
            .any(|l| l.starts_with(mac) && l.contains("dst 192.0.2.2")),
        "{fdb}"
    );
    assert!(!fdb.contains("00:00:00:00:00:00"), "flooded: {fdb}");
}

fn mtu(test: &str, underlay: u32, overlay: u32) {
    let mut cluster = Cluster::builder(test, 2).mtu(underlay).start();
    cluster.service("web").tcp(8080, 80);
    cluster.replicas("web", &[2]);
    cluster.task("asker", 1).serves(&["tcp:80"]);
    cluster.deploy();
    let netns = cluster.node(2).task_netns("web-1");
    let link = see(&netns, "ip link show eth0");
    assert!(link.contains(&format!("mtu {overlay} ")), "{link}");
    let network = cluster.node(2).json(&["network", "inspect", "app"]);
    assert_eq!(network[0]["mtu"], overlay, "{network}");
    // Much more than a packet gets through, over the overlay and through the port.
    let to = format!("{}:80", cluster.address("web-1", "app"));
    let asker = cluster.node(1).task_netns("asker");
    let mut client = Client::tcp(&asker, None, &to).expect("task to task");
    client.fetch(1 << 20).expect("task to task");
    for to in ["192.0.2.1:8080", "[2001:db8::1]:8080"] {
        let mut client = Client::tcp(&cluster.client(), None, to).expect(to);
        client.fetch(1 << 20).expect(to);
    }
    // The largest packet passes whole, and nothing larger.
    let backend = cluster.address("web-1", "app");
    let most = overlay - 28;
    see(
        &asker,
        &format!("ping -M do -c 1 -W 20 -s {most} {backend}"),
    );
    see_failing(
        &asker,
        &format!("ping -M do -c 1 -W 5 -s {} {backend}", most + 1),
    );
}

// Both families may be the outer one, and IPv6 takes 70.
#[test]
fn a_small_underlay_makes_small_overlays() {
    mtu("mtu-small", 1400, 1350);
}

#[test]
fn a_big_underlay_makes_big_overlays() {
    mtu("mtu-big", 9000, 8950);
}

/// The first VTEP says what the tunnels go over.
#[test]
fn an_underlay_of_ipv6() {
    let mut cluster = Cluster::builder("underlay6", 2).ipv6_underlay().start();
    cluster.service("web").tcp(8080, 80).udp(5353, 53);
    cluster.replicas("web", &[2]);
    cluster.task("asker", 1);
    cluster.deploy();
    let node = cluster.node(1);
    let netns = node.network_netns("app");
    let links = see(&netns, "ip -d link show type vxlan");
    assert!(links.contains("local 2001:db8::1"), "{links}");
    let fdb = see(&netns, "bridge fdb");
    assert!(fdb.contains("dst 2001:db8::2"), "{fdb}");
    let network = node.json(&["network", "inspect", "app"]);
    assert_eq!(network[0]["mtu"], 1430, "{network}");

    let mut wire = Capture::start(&cluster.underlay(), "pn1", "udp port 4789", &cluster.dir());
    let [vip, vip6] = cluster.vips("web");
    for (to, from) in [
        (
            cluster.address("web-1", "app"),
            cluster.address("asker", "app"),
        ),
        (vip, cluster.address("asker", "app")),
        (
            format!("[{}]", cluster.address6("web-1", "app")),
            cluster.address6("asker", "app"),
        ),
        (format!("[{vip6}]"), cluster.address6("asker", "app")),
    ] {
        for (protocol, port) in [("tcp", 80), ("udp", 53)] {
            let seen = seen_by(node, "asker", protocol, &format!("{to}:{port}"));
            assert_eq!(seen, each(&["web-1"], &from), "{protocol} {to}");
        }
    }
    // Much more than a packet gets through, from nodes of either kind of address.
    let client = cluster.client();
    for to in ["192.0.2.1:8080", "192.0.2.2:8080", "[2001:db8::1]:8080"] {
        let mut client = Client::tcp(&client, None, to).expect(to);
        client.fetch(1 << 20).expect(to);
    }
    wire.end();
    assert!(
        !wire.packets("ip6").is_empty(),
        "nothing in tunnels of IPv6"
    );
    let other = wire.packets("not ip6");
    assert!(other.is_empty(), "{other:#?}");
}

/// To create a device and then move it is many times slower, and `ip monitor` tells it as a deletion in
/// the namespace that it leaves. The devices of tasks and networks are never in the node's.
#[test]
fn devices_are_created_where_they_live() {
    let mut cluster = Cluster::new("in-place", 1);
    let netns = cluster.node(1).netns.clone();
    let log = cluster.dir().join("monitor");
    let told = || std::fs::read_to_string(&log).unwrap_or_default();
    let monitor = Background::start(&netns, &log, &["ip", "monitor", "link"]);
    wait_for("ip monitor to listen", || {
        see(&netns, "ip link set lo mtu 65000; ip link set lo mtu 65536");
        if told().contains("lo:") {
            Ok(())
        } else {
            Err(told())
        }
    });
    cluster.service("web").tcp(8080, 80);
    cluster.replicas("web", &[1, 1]);
    cluster.deploy();
    for device in ["fl_gwbridge", "fl_ingress"] {
        wait_for(device, || {
            if told().contains(device) {
                Ok(())
            } else {
                Err(told())
            }
        });
    }
    let deleted = |text: &str| text.lines().filter(|l| l.starts_with("Deleted")).count();
    assert_eq!(deleted(&told()), 0, "{}", told());
    // A move would have been told.
    let client = cluster.client();
    let other = client.file_name().expect("a name").display();
    see(
        &netns,
        &format!("ip link add moves type veth peer name stays; ip link set moves netns {other}"),
    );
    wait_for("the move", || {
        if deleted(&told()) > 0 {
            Ok(())
        } else {
            Err(told())
        }
    });
    monitor.end();
}
