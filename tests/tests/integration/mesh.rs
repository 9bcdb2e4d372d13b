//! Published ports, from outside.

use std::collections::BTreeSet;
use std::path::Path;

use fairlead_tests::{Answer, Cluster, ask_tcp, ask_udp};

pub const CLIENT: &str = "192.0.2.100";
pub const CLIENT6: &str = "2001:db8::100";

/// Which replicas answer, and whom they see.
pub fn seen(count: usize, ask: impl Fn() -> std::io::Result<Answer>) -> BTreeSet<String> {
    let one = |_| {
        ask()
            .unwrap_or_else(|error| panic!("no answer: {error}"))
            .to_string()
    };
    (0..count).map(one).collect()
}

fn each(replicas: &[&str], client: &str) -> BTreeSet<String> {
    replicas
        .iter()
        .map(|replica| format!("{replica} saw {client}"))
        .collect()
}

/// A service on two of three nodes, and a task of no service on the first and the third.
fn web(test: &str) -> Cluster {
    let mut cluster = Cluster::new(test, 3);
    cluster.service("web").tcp(8080, 80).udp(5353, 53);
    cluster.replicas("web", &[1, 2, 2]);
    cluster.task("other", 1);
    cluster.task("third", 3);
    cluster.deploy();
    cluster
}

const WEB: [&str; 3] = ["web-1", "web-2", "web-3"];

#[test]
fn each_replica_through_each_node() {
    let cluster = web("each-replica");
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
    }
    curl(&client, "192.0.2.3:8080");
}

/// Another's HTTP client comes through as well.
fn curl(client: &Path, to: &str) {
    let text =
        fairlead_tests::witness::see(client, &format!("curl -sS --max-time 20 http://{to}/"));
    let answer = Answer::parse(&text).expect("an answer");
    assert!(
        WEB.contains(&answer.replica.as_str()) && answer.client.to_string() == CLIENT,
        "{text}"
    );
}
