//! Published ports, from outside.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read};
use std::net::TcpListener;

use fairlead_tests::witness::{see, see_failing};
use fairlead_tests::{Answer, Client, Cluster, ask_tcp, ask_udp, inside, wait_for};

const CLIENT: &str = "192.0.2.100";
const CLIENT6: &str = "2001:db8::100";

/// Which replicas answer, and whom they see.
pub fn seen(count: usize, ask: impl Fn() -> io::Result<Answer>) -> BTreeSet<String> {
    let one = |_| {
        ask()
            .unwrap_or_else(|error| panic!("no answer: {error}"))
            .to_string()
    };
    (0..count).map(one).collect()
}

/// What [`seen`] should be.
pub fn each(replicas: &[&str], client: &str) -> BTreeSet<String> {
    replicas
        .iter()
        .map(|replica| format!("{replica} saw {client}"))
        .collect()
}

/// These servers, asked in turn over flows from the same client port: each sees the client.
///
/// `port` is what the server sees, where that is promised: where two flows would be one to the
/// server's socket, the second gets another.
fn at_once(mut flows: Vec<(&str, Client)>, client: &str, port: Option<u16>) {
    let mut ports = vec![None; flows.len()];
    for _ in 0..5 {
        for ((to, flow), seen) in flows.iter_mut().zip(&mut ports) {
            let answer = flow.ask().unwrap_or_else(|error| panic!("{to}: {error}"));
            assert_eq!(answer.client.to_string(), client, "{to}");
            assert_eq!(answer.port, port.unwrap_or(answer.port), "{to}");
            // It stays the same flow.
            assert_eq!(*seen.get_or_insert(answer.port), answer.port, "{to}");
        }
    }
}

#[test]
fn each_replica_through_each_node() {
    const WEB: [&str; 3] = ["web-1", "web-2", "web-3"];
    let mut cluster = Cluster::new("each-replica", 3);
    cluster.service("web").tcp(8080, 80).udp(5353, 53);
    cluster.replicas("web", &[1, 2, 2]);
    cluster.deploy();
    let client = cluster.client();
    for node in cluster.nodes() {
        for (to, from) in [
            (node.v4.clone(), CLIENT),
            (format!("[{}]", node.v6), CLIENT6),
        ] {
            let tcp = seen(40, || ask_tcp(&client, &format!("{to}:8080")));
            assert_eq!(tcp, each(&WEB, from), "TCP through {to}");
            let udp = seen(40, || ask_udp(&client, &format!("{to}:5353")));
            assert_eq!(udp, each(&WEB, from), "UDP through {to}");
        }
        // Another's HTTP client comes through as well.
        let text = see(
            &client,
            &format!("curl -sS --max-time 20 http://{}:8080/", node.v4),
        );
        let answer = Answer::parse(&text).expect("an answer");
        assert!(WEB.contains(&answer.replica.as_str()), "{text}");
        assert_eq!(answer.client.to_string(), CLIENT);
    }
}

/// A datagram is not sent again: whatever `apply` has waited for must be there.
#[test]
fn the_first_datagram_arrives() {
    for (test, to) in [
        ("first-v4", "192.0.2.1:5353"),
        ("first-v6", "[2001:db8::1]:5353"),
    ] {
        let mut cluster = Cluster::new(test, 2);
        cluster.service("one").udp(5353, 53);
        cluster.replicas("one", &[2]);
        cluster.deploy();
        let mut client = Client::udp(&cluster.client(), None, to).expect(to);
        client.ask().expect(to);
    }
}

#[test]
fn the_same_client_port_through_three_nodes_at_once() {
    let mut cluster = Cluster::new("same-port-nodes", 3);
    cluster.service("one").tcp(8080, 80).udp(5353, 53);
    cluster.replicas("one", &[2]);
    cluster.deploy();
    let client = cluster.client();
    let tcp = |to| (to, Client::tcp(&client, Some(40_000), to).expect(to));
    at_once(
        ["192.0.2.1:8080", "192.0.2.2:8080", "192.0.2.3:8080"]
            .map(tcp)
            .into(),
        CLIENT,
        Some(40_000),
    );
    at_once(
        [
            "[2001:db8::1]:8080",
            "[2001:db8::2]:8080",
            "[2001:db8::3]:8080",
        ]
        .map(tcp)
        .into(),
        CLIENT6,
        Some(40_000),
    );
    let udp = |to| (to, Client::udp(&client, Some(40_000), to).expect(to));
    at_once(
        ["192.0.2.1:5353", "192.0.2.2:5353", "192.0.2.3:5353"]
            .map(udp)
            .into(),
        CLIENT,
        None,
    );
    at_once(
        [
            "[2001:db8::1]:5353",
            "[2001:db8::2]:5353",
            "[2001:db8::3]:5353",
        ]
        .map(udp)
        .into(),
        CLIENT6,
        None,
    );
}

#[test]
fn the_same_client_port_towards_two_services_at_once() {
    let mut cluster = Cluster::new("same-port-services", 2);
    cluster.service("red").tcp(8080, 80).udp(5353, 53);
    cluster.service("blue").tcp(8081, 80).udp(5354, 53);
    cluster.replicas("red", &[2]);
    cluster.replicas("blue", &[2]);
    cluster.deploy();
    let client = cluster.client();
    let tcp = |to| (to, Client::tcp(&client, Some(40_000), to).expect(to));
    at_once(
        ["192.0.2.1:8080", "192.0.2.1:8081"].map(tcp).into(),
        CLIENT,
        Some(40_000),
    );
    let udp = |to| (to, Client::udp(&client, Some(40_000), to).expect(to));
    at_once(
        ["192.0.2.1:5353", "192.0.2.1:5354"].map(udp).into(),
        CLIENT,
        Some(40_000),
    );
}

/// Both lead to port 80 of the same task: only the way there differs.
#[test]
fn the_same_client_port_towards_two_ports_of_a_service_at_once() {
    let mut cluster = Cluster::new("same-port-ports", 2);
    cluster
        .service("one")
        .tcp(8080, 80)
        .tcp(8081, 80)
        .udp(5353, 53)
        .udp(5354, 53);
    cluster.replicas("one", &[2]);
    cluster.deploy();
    let client = cluster.client();
    for node in ["192.0.2.1", "192.0.2.2"] {
        let (first, second) = (format!("{node}:8080"), format!("{node}:8081"));
        let tcp = |to| (to, Client::tcp(&client, Some(40_000), to).expect(to));
        at_once([first.as_str(), &second].map(tcp).into(), CLIENT, None);
        let (first, second) = (format!("{node}:5353"), format!("{node}:5354"));
        let udp = |to| (to, Client::udp(&client, Some(40_000), to).expect(to));
        at_once([first.as_str(), &second].map(udp).into(), CLIENT, None);
    }
}

/// Both tasks are the first of their nodes, so both have the gwbridge's second address.
#[test]
fn a_task_whose_gwbridge_address_is_the_backends() {
    let mut cluster = Cluster::new("gwbridge-twin", 2);
    cluster.service("one").tcp(8080, 80).udp(5353, 53);
    cluster.replicas("one", &[2]);
    cluster.task("asker", 1);
    cluster.deploy();
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    let addresses = n1.task("asker")["gatewayAddresses"].clone();
    assert_eq!(addresses, n2.task("one-1")["gatewayAddresses"]);
    assert_eq!(addresses.as_array().map(Vec::len), Some(2), "{addresses}");
    for (node, from) in [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.2", "192.0.2.1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::2]", "2001:db8::1"),
    ] {
        for (protocol, port) in [("tcp", 8080), ("udp", 5353)] {
            let to = format!("{node}:{port}");
            let text = n1.task_asks("asker", protocol, &to);
            let answer = Answer::parse(&text.unwrap_or_else(|e| panic!("{protocol} {to}: {e}")));
            // The address repeats on every node, so the node's own stands for it.
            assert_eq!(
                answer.expect("an answer").to_string(),
                format!("one-1 saw {from}"),
                "{to}"
            );
        }
    }
    // The backend itself, through its own node and through the other.
    for to in ["192.0.2.1:8080", "192.0.2.2:8080"] {
        let text = n2
            .task_asks("one-1", "tcp", to)
            .unwrap_or_else(|e| panic!("{to}: {e}"));
        assert!(text.starts_with("one-1 192.0.2.2 "), "{to}: {text}");
    }
}

#[test]
fn the_node_reaches_its_published_ports() {
    let mut cluster = Cluster::new("localhost", 2);
    cluster.service("web").tcp(8080, 80).udp(5353, 53);
    cluster.replicas("web", &[1, 2]);
    cluster.deploy();
    for node in cluster.nodes() {
        for to in [
            "127.0.0.1",
            "192.0.2.1",
            "192.0.2.2",
            "[2001:db8::1]",
            "[2001:db8::2]",
        ] {
            let tcp: BTreeSet<String> = (0..20)
                .map(|_| {
                    ask_tcp(&node.netns, &format!("{to}:8080"))
                        .unwrap_or_else(|e| panic!("{to} from {}: {e}", node.id))
                        .replica
                })
                .collect();
            assert_eq!(tcp.len(), 2, "{to} from {}: {tcp:?}", node.id);
            ask_udp(&node.netns, &format!("{to}:5353"))
                .unwrap_or_else(|e| panic!("UDP {to} from {}: {e}", node.id));
        }
    }
}

/// The kernel cannot translate `::1`: it refuses, and whoever has asked goes on to 127.0.0.1.
#[test]
fn the_node_reaches_its_published_ports_by_the_name_localhost() {
    let mut cluster = Cluster::new("localhost-name", 1);
    cluster.service("web").tcp(8080, 80);
    cluster.replicas("web", &[1]);
    cluster.deploy();
    let netns = &cluster.node(1).netns;
    let text = see(netns, "curl -sS --max-time 20 http://localhost:8080/");
    assert!(text.starts_with("web-1 "), "{text}");
    let error = ask_tcp(netns, "[::1]:8080").expect_err("::1");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
}

#[test]
fn a_service_without_backends_refuses_at_once() {
    let mut cluster = Cluster::new("refuses", 2);
    cluster.service("web").tcp(8080, 80).udp(5353, 53);
    cluster.task("asker", 1);
    cluster.deploy();
    let refused = |cluster: &Cluster| {
        let client = cluster.client();
        for to in ["192.0.2.1", "192.0.2.2", "[2001:db8::1]", "[2001:db8::2]"] {
            let error = ask_tcp(&client, &format!("{to}:8080")).expect_err(to);
            assert_eq!(
                error.kind(),
                ErrorKind::ConnectionRefused,
                "TCP to {to}: {error}"
            );
            let error = ask_udp(&client, &format!("{to}:5353")).expect_err(to);
            assert_eq!(
                error.kind(),
                ErrorKind::ConnectionRefused,
                "UDP to {to}: {error}"
            );
        }
        let [v4, v6] = cluster.vips("web");
        for to in [format!("{v4}:80"), format!("[{v6}]:80")] {
            for protocol in ["tcp", "udp"] {
                let error = cluster
                    .node(1)
                    .task_asks("asker", protocol, &to)
                    .expect_err(&to);
                // A datagram that a rule rejects on its way out is refused to the sender as such.
                let refusals = ["ConnectionRefused", "PermissionDenied"];
                assert!(
                    refusals.iter().any(|refusal| error.starts_with(refusal)),
                    "{protocol} to {to}: {error}"
                );
            }
        }
    };
    refused(&cluster);
    // It had one, and has none again.
    cluster.replicas("web", &[2]);
    cluster.deploy();
    ask_tcp(&cluster.client(), "192.0.2.1:8080").expect("a backend");
    ask_udp(&cluster.client(), "192.0.2.1:5353").expect("a backend");
    cluster.remove_task("web-1");
    cluster.deploy();
    cluster.node(2).await_no_task("web-1");
    refused(&cluster);
}

/// The ingress network's default subnet is many people's LAN.
#[test]
fn an_underlay_with_the_subnet_of_the_ingress_network() {
    let mut cluster = Cluster::builder("same-subnet", 2)
        .underlay("10.0.0")
        .start();
    cluster.service("web").tcp(8080, 80).udp(5353, 53);
    cluster.replicas("web", &[1, 2]);
    cluster.task("asker", 1);
    cluster.deploy();
    let client = cluster.client();
    for node in ["10.0.0.1", "10.0.0.2"] {
        let web = each(&["web-1", "web-2"], "10.0.0.100");
        assert_eq!(
            seen(20, || ask_tcp(&client, &format!("{node}:8080"))),
            web,
            "TCP {node}"
        );
        assert_eq!(
            seen(20, || ask_udp(&client, &format!("{node}:5353"))),
            web,
            "UDP {node}"
        );
        let text = cluster
            .node(1)
            .task_asks("asker", "tcp", &format!("{node}:8080"));
        assert!(
            text.clone().is_ok_and(|text| text.contains(" 10.0.0.1 ")),
            "{node}: {text:?}"
        );
    }
}

#[test]
fn ports_come_and_go_with_the_assignment() {
    let mut cluster = Cluster::new("ports", 2);
    cluster.service("web").tcp(8080, 80).udp(5353, 53);
    cluster.replicas("web", &[2]);
    cluster
        .spec_of("web-1")
        .serves(&["tcp:80", "tcp:81", "udp:53"]);
    cluster.deploy();
    let client = cluster.client();
    ask_tcp(&client, "192.0.2.1:8080").expect("published");
    ask_udp(&client, "192.0.2.1:5353").expect("published");
    let tracked = |cluster: &Cluster| {
        let script = "conntrack -L -p udp --orig-port-dst 5353 2>/dev/null";
        see(&cluster.node(1).netns, script)
    };
    assert!(tracked(&cluster).contains("dport=5353"), "not tracked");
    // A process of the node cannot take it as well.
    let taken = see_failing(&cluster.node(1).netns, "timeout 5 busybox nc -l -p 8080");
    assert!(taken.contains("in use"), "{taken}");
    let service = cluster.service("web");
    service.ports = vec![("tcp".to_owned(), 8081, 81)];
    cluster.deploy();
    // No acknowledgement tells when a changed service is in the kernel.
    wait_for("the new port", || {
        ask_tcp(&client, "192.0.2.1:8081").map_err(|error| error.to_string())
    });
    let error = ask_tcp(&client, "192.0.2.1:8080").expect_err("published no more");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    // A flow of UDP would go on as it was tracked.
    assert_eq!(tracked(&cluster), "");
}

/// A port that a process of the node has keeps it; all else of the service works, and so does the
/// port as soon as it is free.
#[test]
fn a_port_that_somebody_has_is_not_taken_away() {
    let mut cluster = Cluster::builder("port-held", 2).without_daemons();
    let netns = cluster.node(1).netns.clone();
    let mut held = inside(&netns, || TcpListener::bind("0.0.0.0:8080")).ok();
    for number in [1, 2] {
        cluster.node_mut(number).start();
    }
    cluster.service("web").tcp(8080, 80).udp(5353, 53);
    cluster.replicas("web", &[1]);
    cluster.task("asker", 1);
    cluster.deploy();
    let client = cluster.client();
    let vip = format!("{}:80", cluster.vips("web")[0]);
    if let Some(listener) = &held {
        let peer = Client::tcp(&client, None, "192.0.2.1:8080").expect("its own listener");
        let (mut stream, _) = listener.accept().expect("a connection");
        // Whoever closes first keeps the port busy for a minute (TIME_WAIT).
        drop(peer);
        assert_eq!(stream.read(&mut [0]).expect("its end"), 0);
    }
    ask_udp(&client, "192.0.2.1:5353").expect("the other port");
    ask_tcp(&client, "192.0.2.2:8080").expect("the other node");
    cluster.node(1).task_asks("asker", "tcp", &vip).expect(&vip);
    let errors = || cluster.node(1).json(&["service", "inspect", "web"])[0]["errors"].clone();
    let told = errors().to_string();
    assert!(told.contains("8080/tcp is already in use"), "{told}");
    assert!(!told.contains("5353"), "{told}");
    held.take();
    wait_for("the port to be published", || {
        ask_tcp(&client, "192.0.2.1:8080").map_err(|error| error.to_string())
    });
    wait_for("no error to be told", || match errors() {
        none if none == serde_json::json!([]) => Ok(()),
        some => Err(some.to_string()),
    });
}

/// Where the balancing shows, by each engine's own tool.
#[test]
fn the_engine_is_seen_by_its_own_tool() {
    let mut cluster = Cluster::new("engine", 2);
    cluster.service("web").tcp(8080, 80).udp(5353, 53);
    cluster.replicas("web", &[1, 2]);
    cluster.deploy();
    let addresses = ["web-1", "web-2"].map(|task| cluster.address(task, "ingress"));
    let look = |script| see(&cluster.node(1).network_netns("ingress"), script);
    let engine = cluster.node(1).engine();
    println!("engine: {engine}");
    // The one that was asked for; else IPVS where it must be there.
    if let Ok(asked) = std::env::var("FAIRLEAD_TEST_ENGINE") {
        assert_eq!(engine, asked);
    } else if std::env::var_os("FAIRLEAD_REQUIRE_IPVS").is_some() {
        assert_eq!(engine, "ipvs");
    }
    match engine.as_str() {
        "ipvs" => {
            let table = look("ipvsadm -Ln");
            // Ours finds the namespace by the network's name, and says the same.
            let ours = |command: &[&str]| {
                let arguments = [&["ipvs"], command, &["--network", "ingress"]].concat();
                cluster.node(1).fairlead(&arguments).unwrap()
            };
            assert_eq!(ours(&["ls"]), table);
            assert_eq!(ours(&["save"]), look("ipvsadm -Sn"));
            for address in &addresses {
                // The published ports: a task's namespace knows where they lead.
                for port in [8080, 5353] {
                    let destination = format!("{address}:{port} ");
                    assert!(table.contains(&destination), "{destination}: {table}");
                }
            }
        }
        "nft" => {
            let table = look("nft list ruleset");
            for address in &addresses {
                assert!(table.contains(address.as_str()), "{address}: {table}");
            }
        }
        other => panic!("no engine: {other}"),
    }
    let services = cluster.node(1).json(&["service", "inspect", "web"]);
    assert_eq!(services[0]["engine"], engine.as_str());
    let backends = services[0]["backends"].as_array().expect("backends");
    assert_eq!(backends.len(), 4, "{services}");
    assert!(
        backends.iter().all(|backend| backend["enabled"] == true),
        "{services}"
    );
}
