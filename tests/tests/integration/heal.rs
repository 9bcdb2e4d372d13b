//! Kernel state that somebody damages comes back.

use std::path::Path;
use std::time::{Duration, Instant};

use fairlead_tests::witness::see;
use fairlead_tests::{Cluster, ask_tcp, ask_udp, wait_for};

struct Bed {
    cluster: Cluster,
    backend: String,
}

/// The task `asker` on node 1 and the backend `web-1` on node 2.
fn bed(test: &str) -> Bed {
    bed_on(Cluster::new(test, 2))
}

fn bed_on(mut cluster: Cluster) -> Bed {
    cluster.service("web").tcp(8080, 80).udp(5353, 53);
    cluster.replicas("web", &[2]);
    cluster.task("asker", 1);
    cluster.deploy();
    let backend = format!("{}:80", cluster.address("web-1", "app"));
    let bed = Bed { cluster, backend };
    bed.works().expect("it works before it is damaged");
    bed
}

impl Bed {
    /// From outside, through both nodes; from the task, to the backend and to the VIP.
    fn works(&self) -> Result<(), String> {
        let client = self.cluster.client();
        for node in self.cluster.nodes() {
            let tcp = ask_tcp(&client, &format!("{}:8080", node.v4));
            tcp.map_err(|error| format!("TCP through {}: {error}", node.id))?;
            let udp = ask_udp(&client, &format!("{}:5353", node.v4));
            udp.map_err(|error| format!("UDP through {}: {error}", node.id))?;
        }
        let node = self.cluster.node(1);
        node.task_asks("asker", "tcp", &self.backend)?;
        node.task_asks(
            "asker",
            "tcp",
            &format!("{}:80", self.cluster.vips("web")[0]),
        )?;
        Ok(())
    }

    /// Damages what `look` shows, and waits until it looks as before and works; how long it took to
    /// look so.
    fn damage(&self, node: usize, netns: &Path, look: &str, damage: &str) -> Duration {
        let node = self.cluster.node(node);
        let before = see(netns, look);
        assert!(!before.trim().is_empty(), "{look} shows nothing");
        let last = node.last_event();
        see(netns, damage);
        let damaged = Instant::now();
        wait_for(&format!("the repair of: {damage}"), || {
            let now = see(netns, look);
            if now == before {
                Ok(())
            } else {
                Err(format!("{now}instead of\n{before}"))
            }
        });
        let took = damaged.elapsed();
        node.await_event(last, &format!("for {damage}"), |event| {
            event["type"] == "driftHealed"
        });
        self.works()
            .unwrap_or_else(|error| panic!("after {damage}: {error}"));
        took
    }
}

/// The promise is seconds: the default interval is two, and the rest is far more than a busy machine
/// needs for the repair itself.
fn limit() -> Duration {
    // An emulated processor takes its time, for each look too.
    let emulated = std::env::var_os("FAIRLEAD_REQUIRE_IPVS").is_some();
    Duration::from_secs(if emulated { 30 } else { 10 })
}

/// With the default interval.
fn promised(test: &str) -> Bed {
    bed_on(Cluster::builder(test, 2).default_interval().start())
}

#[test]
fn within_seconds() {
    let bed = promised("heal-seconds");
    let app = bed.cluster.node(1).network_netns("app");
    let backend = bed.cluster.node(2).task_netns("web-1");
    let entries = "bridge fdb | grep ' dst ' | while read mac dev link rest; do bridge fdb del $mac dev $link; done";
    for (node, netns, look, damage) in [
        (1, &app, "bridge fdb | grep ' dst ' | sort", entries),
        (
            2,
            &backend,
            "nft list tables | sort; nft -s list ruleset | wc -l",
            "nft flush ruleset",
        ),
        (
            2,
            &backend,
            "ip -br link | awk '{print $1}' | sed 's/@.*//' | sort",
            "ip link del eth1",
        ),
    ] {
        let took = bed.damage(node, netns, look, damage);
        assert!(took < limit(), "{took:?} until it was repaired: {damage}");
    }
}

#[test]
fn forwarding_and_neighbour_entries() {
    let bed = bed("heal-fdb");
    let netns = bed.cluster.node(1).network_netns("app");
    let look = "bridge fdb | grep ' dst ' | sort";
    bed.damage(1, &netns, look, "bridge fdb | grep ' dst ' | while read mac dev link rest; do bridge fdb del $mac dev $link; done");
    let look = "ip neigh show nud permanent | sort; ip -6 neigh show nud permanent | sort";
    bed.damage(
        1,
        &netns,
        look,
        "ip neigh flush all nud permanent; ip -6 neigh flush all nud permanent",
    );
}

#[test]
fn rules() {
    let bed = bed("heal-rules");
    let node = bed.cluster.node(1);
    let names = "nft list tables | sort; nft -s list ruleset | wc -l";
    let (ingress, task) = (node.network_netns("ingress"), node.task_netns("asker"));
    let backend = bed.cluster.node(2).task_netns("web-1");
    for (number, netns) in [(1, &node.netns), (1, &ingress), (1, &task), (2, &backend)] {
        bed.damage(number, netns, names, "nft flush ruleset");
    }
    // One chain of many is missed as well.
    let chain = "nft -j list chains | jq -r '.nftables[] | select(.chain.hook) | .chain | \"\\(.family) \\(.table) \\(.name)\"' | head -n 1";
    let flush = format!("nft flush chain $({chain})");
    bed.damage(1, &node.netns.clone(), names, &flush);
}

#[test]
fn destinations_of_ipvs() {
    let bed = promised("heal-ipvs");
    let node = bed.cluster.node(1);
    let engine = node.engine();
    if engine != "ipvs" {
        println!("not tried: the engine is {engine}");
        return;
    }
    let netns = node.network_netns("ingress");
    let look = "ipvsadm -Sn | sort";
    let one = "set -- $(ipvsadm -Sn | grep -e '^-a' | head -n 1); ipvsadm -d $2 $3 -r $5";
    let weight =
        "set -- $(ipvsadm -Sn | grep -e '^-a' | head -n 1); ipvsadm -e $2 $3 -r $5 -w 77 -m";
    for damage in ["ipvsadm -C", one, weight] {
        let took = bed.damage(1, &netns, look, damage);
        assert!(took < limit(), "{took:?} until it was repaired: {damage}");
    }
}

#[test]
fn links() {
    let bed = bed("heal-links");
    let node = bed.cluster.node(1);
    let app = node.network_netns("app");
    let look = "ip -br link | awk '{print $1}' | sed 's/@.*//' | sort";
    let vxlan = "ip link del $(ip -br link show type vxlan | awk -F'[@ ]' 'NR == 1 {print $1}')";
    bed.damage(1, &app, look, vxlan);
    bed.damage(1, &node.network_netns("ingress"), look, vxlan);
    let task = node.task_netns("asker");
    bed.damage(1, &task, look, "ip link del eth0");
    let backend = bed.cluster.node(2).task_netns("web-1");
    bed.damage(2, &backend, look, "ip link del eth1");
    bed.damage(1, &node.netns.clone(), look, "ip link del fl_gwbridge");
    // Not gone, but of no use.
    let states = "ip -br link | awk '{print $1, $2}' | sort";
    bed.damage(1, &task, states, "ip link set eth0 down");
    let vxlan =
        "ip link set $(ip -br link show type vxlan | awk -F'[@ ]' 'NR == 1 {print $1}') down";
    bed.damage(1, &app, states, vxlan);
}

#[test]
fn addresses_routes_and_settings() {
    let bed = bed("heal-addresses");
    let backend = bed.cluster.node(2).task_netns("web-1");
    let look = "ip -o addr show scope global | awk '{print $2, $4}' | sort";
    bed.damage(2, &backend, look, "ip addr flush dev eth0 scope global");
    bed.damage(2, &backend, look, "ip addr flush dev eth1 scope global");
    let routes = "ip route show table all | sort; ip -6 route show table all | grep -v fe80 | sort";
    bed.damage(2, &backend, routes, "ip route del default");
    let rules = "ip rule; ip -6 rule";
    bed.damage(2, &backend, rules, "ip rule | awk -F: '$1 > 0 && $1 < 32766 {print $1}' | while read n; do ip rule del prio $n; done");
    let node = bed.cluster.node(1).netns.clone();
    bed.damage(
        1,
        &node,
        "sysctl net.ipv4.ip_forward",
        "sysctl -qw net.ipv4.ip_forward=0",
    );
}
