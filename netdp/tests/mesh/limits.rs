//! What must stay apart, and what others on the node do and see.

use std::io::ErrorKind;

use netdp::Backend;

use crate::client::{self, ask, ask_udp};
use crate::lab::{self, Lab, inside};
use crate::{answers, web};

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

/// What cannot be passed is told.
#[test]
fn legacy_iptables_is_reported() {
    let mut lab = Lab::new("legacy", 1);
    let reported = |lab: &Lab| {
        let features = lab.nodes[0].with(|plane| plane.features());
        let firewalls = features.into_iter().find(|f| f.name == "firewalls");
        firewalls.map(|f| (f.available, f.detail)).unwrap()
    };
    assert!(reported(&lab).0);
    let made = lab.exec(
        "n1",
        "iptables-legacy -P FORWARD DROP 2>&1 || echo no table",
    );
    if made.contains("no table") {
        eprintln!("skipped: this kernel has no legacy iptables: {made}");
        return;
    }
    lab.nodes[0].open();
    let (available, detail) = reported(&lab);
    assert!(!available && detail.contains("iptables-nft"), "{detail}");
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
    let _stream = client::connect_from(&lab.task(&a), "0.0.0.0:0", "192.0.2.100:9000").unwrap();
    assert_eq!(listener.accept().unwrap().1.ip().to_string(), "192.0.2.1");
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
    let lie = client::connect_from(&lab.task(&a), "10.1.0.99:0", "10.1.0.12:80");
    assert!(lie.is_err(), "another address");
    inside(&lab.task(&a), || {
        lab::sh("ip link set eth0 address 02:42:0a:01:00:63")
    });
    assert!(ask(&lab.task(&a), "10.1.0.12:80").is_err(), "another MAC");
}

/// A frame for a task, from whomever, in a packet of a tunnel that another task has made.
#[test]
fn a_task_makes_no_tunnel() {
    let mut lab = Lab::new("tunnel", 1);
    let a = lab.add_task(1, 11, None);
    let b = lab.add_task(1, 12, None);
    lab.apply();
    let socket = inside(&lab.task(&b), || {
        std::net::UdpSocket::bind("0.0.0.0:9003").unwrap()
    });
    // RFC 7348, Ethernet, IPv4 (RFC 791) and UDP without a checksum, from an address that nobody has.
    let mut ip = [
        &[0x45, 0, 0, 33, 0, 0, 0, 0, 64, 17, 0, 0][..],
        &[10, 1, 0, 99, 10, 1, 0, 12],
    ]
    .concat();
    let sum: u32 = ip
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let sum = !u16::try_from((sum >> 16) + (sum & 0xffff)).unwrap();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let packet = [
        &[8, 0, 0, 0, 0, 0x10, 0x01, 0][..],
        &[0x02, 0x42, 0x0a, 1, 0, 12, 0x02, 0x42, 0x0a, 1, 0, 99, 8, 0],
        &ip,
        &[0x23, 0x29, 0x23, 0x2b, 0, 13, 0, 0],
        b"hello",
    ]
    .concat();
    let send = || {
        inside(&lab.task(&a), || {
            for node in ["192.0.2.1:4789", "172.18.0.1:4789"] {
                let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.send_to(&packet, node).unwrap();
            }
        });
    };
    let mut buffer = [0; 16];
    let wait = |limit| socket.set_read_timeout(Some(limit)).unwrap();
    wait(std::time::Duration::from_secs(1));
    send();
    assert!(socket.recv(&mut buffer).is_err());
    // It is the guard that hinders it.
    lab.exec("n1", "nft delete table netdev fairlead");
    wait(lab::WAIT);
    send();
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"hello");
    assert_eq!(from.ip().to_string(), "10.1.0.99");
}

/// Nobody else gets a port that is held, and whoever asks there is refused at once.
#[test]
fn a_held_port_refuses() {
    let lab = Lab::new("held", 1);
    lab.apply();
    lab.nodes[0].with(|plane| {
        let reserve = plane.reserve_port("task", netdp::Protocol::Udp, 9004);
        assert_eq!(reserve.unwrap(), 9004);
    });
    for address in ["0.0.0.0:9004", "[::]:9004", "192.0.2.1:9004"] {
        let bound = inside(&lab.nodes[0].netns, || {
            std::net::UdpSocket::bind(address).map_err(|e| e.kind())
        });
        assert_eq!(bound.unwrap_err(), ErrorKind::AddrInUse, "{address}");
    }
    for (from, to) in [
        (lab.client(), "192.0.2.1:9004"),
        (lab.client(), "[2001:db8::1]:9004"),
        (lab.nodes[0].netns.clone(), "127.0.0.1:9004"),
        (lab.nodes[0].netns.clone(), "[::1]:9004"),
    ] {
        let local = if to.starts_with('[') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        };
        let refused = ask_udp(&from, local, to).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{to}");
    }
}

/// What only the node's own programs may reach: a task that has raw sockets can send there, which
/// is done here by routes of its namespace.
#[test]
fn the_nodes_loopback_is_its_own() {
    let mut lab = Lab::new("loopback", 1);
    let a = lab.add_task(1, 11, None);
    lab.apply();
    let node = lab.nodes[0].netns.clone();
    let listener = inside(&node, || {
        std::net::TcpListener::bind("127.0.0.1:9001").unwrap()
    });
    inside(&lab.task(&a), || {
        lab::sh(
            "sysctl -qw net.ipv4.conf.all.route_localnet=1
             ip addr del 127.0.0.1/8 dev lo
             ip route add 127.0.0.0/8 via 172.18.0.1 dev eth1",
        );
    });
    let connect = || client::connect_from(&lab.task(&a), "0.0.0.0:0", "127.0.0.1:9001");
    assert!(connect().is_err());
    // It is the guard that hinders it.
    lab.exec("n1", "nft delete table netdev fairlead");
    assert!(connect().is_ok());
    drop(listener);
}

/// By its ingress leg a task sends answers, and begins nothing.
#[test]
fn the_ingress_leads_answers_only() {
    let lab = web("answers");
    let node = lab.nodes[1].netns.clone();
    let socket = inside(&node, || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:9002").unwrap();
        let limit = std::time::Duration::from_secs(1);
        socket.set_read_timeout(Some(limit)).unwrap();
        socket
    });
    // The alias of node 2: what is sent from it goes to that node's ingress.
    let send = || {
        inside(&lab.task("t1-11"), || {
            let socket = std::net::UdpSocket::bind("240.0.0.2:0").unwrap();
            socket.send_to(b"hello", "192.0.2.2:9002").unwrap();
        });
    };
    send();
    let mut buffer = [0; 16];
    assert!(socket.recv(&mut buffer).is_err());
    // It is this rule that hinders it.
    lab.exec("n2", "nft flush chain ip fairlead input");
    socket.set_read_timeout(Some(lab::WAIT)).unwrap();
    send();
    assert_eq!(socket.recv(&mut buffer).unwrap(), 5);
}

/// A neighbour advertisement about somebody else's address goes nowhere.
#[test]
fn a_task_does_not_speak_for_others() {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, setsockopt,
        socket, sockopt,
    };
    use std::os::fd::AsRawFd;
    let mut lab = Lab::new("advert", 1);
    let (liar, victim, other) = (
        lab.add_task(1, 11, None),
        lab.add_task(1, 12, None),
        lab.add_task(1, 13, None),
    );
    lab.apply();
    lab.serve(&other);
    let neighbour = || inside(&lab.task(&victim), || lab::sh("ip -6 neigh show fd01::d"));
    assert!(ask(&lab.task(&victim), "[fd01::d]:80").is_ok());
    assert!(neighbour().contains("02:42:0a:01:00:0d"), "{}", neighbour());
    // RFC 4861, 4.4: type 136, override; target fd01::d; option: the liar's link-layer address.
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend("fd01::d".parse::<std::net::Ipv6Addr>().unwrap().octets());
    message.extend([2, 1, 0x02, 0x42, 0x0a, 0x01, 0x00, 0x0b]);
    let send = || {
        inside(&lab.task(&liar), || {
            let socket = socket(
                AddressFamily::Inet6,
                SockType::Raw,
                SockFlag::empty(),
                SockProtocol::IcmpV6,
            )
            .unwrap();
            setsockopt(&socket, sockopt::Ipv6Ttl, &255).unwrap();
            let to: std::net::SocketAddrV6 = "[fd01::c]:0".parse().unwrap();
            let to = SockaddrIn6::from(to);
            sendto(socket.as_raw_fd(), &message, &to, MsgFlags::empty()).unwrap();
        });
        std::thread::sleep(std::time::Duration::from_millis(200));
    };
    send();
    assert!(neighbour().contains("02:42:0a:01:00:0d"), "{}", neighbour());
    // It is the guard that hinders it.
    let app = lab.network(1, lab::APP);
    inside(&app, || lab::sh("nft delete table netdev fairlead"));
    send();
    assert!(neighbour().contains("02:42:0a:01:00:0b"), "{}", neighbour());
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
    let guard = inside(&app, || lab::sh("nft list table netdev fairlead"));
    let own = "ip saddr 10.1.0.11 @ll,48,48 0x2420a01000b accept";
    assert!(guard.contains(own) && guard.contains("\t\tdrop"), "{guard}");
    let published = lab.exec("n1", "nft list table ip fairlead");
    assert!(published.contains("tcp . 8080"), "{published}");
    let engine = lab.nodes[0].with(|plane| plane.engine());
    match engine {
        netdp::Engine::Ipvs => {
            let services = inside(&ingress, || lab::sh("ipvsadm -Ln"));
            for line in [
                "TCP  169.254.8.2:8080 rr",
                "10.0.0.11:8080               Masq    1",
                "UDP  169.254.8.2:5353 rr",
            ] {
                assert!(services.contains(line), "{line}: {services}");
            }
        }
        netdp::Engine::Nft => {
            let map = inside(&ingress, || lab::sh("nft list table ip fairlead"));
            assert!(map.contains(" : 10.0.0.11"), "{map}");
        }
    }
}
