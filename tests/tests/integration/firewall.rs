//! A node with rules of its own.

use std::fs;
use std::net::Ipv4Addr;

use fairlead_tests::dns::Upstream;
use fairlead_tests::witness::see;
use fairlead_tests::{Cluster, ask_tcp, ask_udp, has_br_netfilter, wait_for};

/// What docker, ufw and others do: nothing passes that nobody has allowed.
const IPTABLES: &str = "
    for tables in iptables ip6tables; do
        $tables -P INPUT DROP; $tables -P FORWARD DROP
        $tables -A INPUT -i lo -j ACCEPT
        $tables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
    done
    iptables -A INPUT -p icmp -j ACCEPT
    ip6tables -A INPUT -p ipv6-icmp -j ACCEPT";

/// What firewalld does: chains of its own that end in a refusal.
const NATIVE: &str = "
    nft add table inet strict
    nft add chain inet strict input '{ type filter hook input priority 10; policy drop; }'
    nft add chain inet strict forward '{ type filter hook forward priority 10; policy drop; }'
    nft add rule inet strict input ct state established,related accept
    nft add rule inet strict input meta l4proto { icmp, ipv6-icmp } accept
    nft add rule inet strict forward reject with icmpx admin-prohibited";

fn deploy(cluster: &mut Cluster) {
    for node in cluster.nodes() {
        fs::write(node.resolv_conf(), "nameserver 192.0.2.100\n").expect("resolv.conf");
    }
    cluster.service("web").tcp(8080, 80).udp(5353, 53);
    cluster.replicas("web", &[1, 2]);
    cluster.task("asker", 1);
    cluster.deploy();
}

/// The mesh, the overlay and the way out.
fn works(cluster: &Cluster) -> Result<(), String> {
    let client = cluster.client();
    for node in cluster.nodes() {
        for to in [node.v4.clone(), format!("[{}]", node.v6)] {
            for _ in 0..4 {
                let tcp = ask_tcp(&client, &format!("{to}:8080"));
                tcp.map_err(|error| format!("TCP to {to}: {error}"))?;
                let udp = ask_udp(&client, &format!("{to}:5353"));
                udp.map_err(|error| format!("UDP to {to}: {error}"))?;
            }
        }
    }
    let asker = cluster.node(1);
    for task in ["web-1", "web-2"] {
        asker.task_asks(
            "asker",
            "tcp",
            &format!("{}:80", cluster.address(task, "app")),
        )?;
    }
    asker.task_asks("asker", "tcp", &format!("{}:80", cluster.vips("web")[0]))?;
    asker.task_asks("asker", "tcp", "192.0.2.2:8080")?;
    asker.task_asks("asker", "tcp", "192.0.2.1:8080")?;
    let name = asker.task_resolves("asker", "www.example.test")?;
    assert_eq!(name, ["203.0.113.7"]);
    see(&asker.task_netns("asker"), "ping -c 1 -W 20 192.0.2.100");
    Ok(())
}

fn survives(test: &str, rules: &str, remove_ours: &str) {
    let mut cluster = Cluster::builder(test, 2).without_daemons();
    let _upstream = Upstream::start(&cluster.client(), Ipv4Addr::new(203, 0, 113, 7));
    // At one node the rules are there before, at the other they come after.
    cluster.node(1).exec(rules);
    for number in 1..=2 {
        cluster.node_mut(number).start();
    }
    deploy(&mut cluster);
    cluster.node(2).exec(rules);
    wait_for("a way through the firewall", || works(&cluster));
    // They are still in force for everything else.
    let listener = fairlead_tests::inside(&cluster.node(1).netns, || {
        std::net::TcpListener::bind("[::]:9000")
    });
    let _listener = listener.expect("port 9000");
    fairlead_tests::witness::see_failing(
        &cluster.client(),
        "timeout 3 busybox nc -w 2 192.0.2.1 9000 </dev/null",
    );
    // Somebody loads them anew.
    cluster.node(1).exec(remove_ours);
    cluster.node(1).exec(rules);
    wait_for("a way through the firewall again", || works(&cluster));
}

#[test]
fn policies_of_iptables() {
    survives("iptables", IPTABLES, "iptables -F; ip6tables -F");
}

#[test]
fn chains_of_nftables() {
    survives("nftables", NATIVE, "nft delete table inet strict");
}

/// The switch that passes bridged packets through the IP rules, on or off in the node.
fn bridged(test: &str, value: u8) {
    if !has_br_netfilter() {
        println!(
            "not tried: br_netfilter is not loaded, which changes what the machine's bridges do"
        );
        return;
    }
    let mut cluster = Cluster::builder(test, 2).without_daemons();
    let _upstream = Upstream::start(&cluster.client(), Ipv4Addr::new(203, 0, 113, 7));
    for node in cluster.nodes() {
        node.exec(&format!("sysctl -qw net.bridge.bridge-nf-call-iptables={value} net.bridge.bridge-nf-call-ip6tables={value}"));
        node.exec(IPTABLES);
    }
    for number in 1..=2 {
        cluster.node_mut(number).start();
    }
    deploy(&mut cluster);
    wait_for("a way through", || works(&cluster));
    // The node's setting is the node's.
    let now = cluster
        .node(1)
        .exec("cat /proc/sys/net/bridge/bridge-nf-call-iptables");
    assert_eq!(now.trim(), value.to_string());
}

#[test]
fn bridged_packets_pass_the_rules() {
    bridged("bridge-nf-1", 1);
}

#[test]
fn bridged_packets_do_not_pass_the_rules() {
    bridged("bridge-nf-0", 0);
}
