//! Other firewalls on the node: their drops, and what an administrator filters.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use netdp::DataPlane;

use crate::client::ask;
use crate::lab::{self, Lab, WAIT, inside};

fn reconcile(lab: &Lab) {
    for node in &lab.nodes {
        let report = node.with(DataPlane::reconcile);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
    }
}

/// Runs a script in a node's namespace.
fn script(lab: &Lab, node: usize, script: &str) {
    inside(&lab.nodes[node - 1].netns, || lab::sh(script));
}

/// Policies of DROP; what an administrator forbids tasks stays forbidden, wherever in the ruleset it is
/// written, and nothing else is.
#[test]
fn an_administrators_rules_come_first() {
    let mut lab = Lab::new("admin", 1);
    // As docker has it, and with what many add: what is established returns early.
    script(
        &lab,
        1,
        "iptables-nft -P INPUT DROP; iptables-nft -P FORWARD DROP
         iptables-nft -N DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-USER
         iptables-nft -A DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
         iptables-nft -A DOCKER-USER -j RETURN
         iptables-nft -N MINE; iptables-nft -A FORWARD -j MINE",
    );
    let task = lab.add_task(1, 21, None);
    lab.apply();
    let listen = |port| {
        inside(&lab.client(), || {
            TcpListener::bind(("192.0.2.100", port)).unwrap()
        })
    };
    let _listeners = [listen(9000), listen(9001)];
    let connect = |port, limit| {
        let to = SocketAddr::from(([192, 0, 2, 100], port));
        inside(&lab.task(&task), || TcpStream::connect_timeout(&to, limit))
    };
    let drop = "-i fl_gwbridge -p tcp --dport 9000 -j DROP";
    connect(9000, WAIT).unwrap();
    for (place, taken_back) in [
        ("-I DOCKER-USER", "-D DOCKER-USER"),
        ("-A MINE", "-D MINE"),
        ("-I FORWARD", "-D FORWARD"),
        ("-A FORWARD", "-D FORWARD"),
    ] {
        script(&lab, 1, &format!("iptables-nft {place} {drop}"));
        for _ in 0..2 {
            reconcile(&lab);
            let refused = connect(9000, Duration::from_millis(500)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::TimedOut, "{place}");
            connect(9001, WAIT).unwrap();
        }
        script(&lab, 1, &format!("iptables-nft {taken_back} {drop}"));
        reconcile(&lab);
        connect(9000, WAIT).unwrap();
    }
    // Nothing is put in place again that is in place.
    let quiet = lab.nodes[0].with(DataPlane::reconcile);
    assert!(quiet.healed.is_empty(), "{:?}", quiet.healed);
    let rules = lab.exec("n1", "nft list table ip filter");
    assert_eq!(rules.matches("fairlead:").count(), 6, "{rules}");
}

/// Rulesets that let pass by policy, or not, and drop by rules: as plain iptables, firewalld and ufw
/// write them.
#[test]
fn rulesets_that_drop_in_the_end() {
    const IPTABLES: &str = "
        for chain in INPUT FORWARD; do
          iptables-nft -A $chain -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
          iptables-nft -A $chain -m limit --limit 3/min -j LOG
          iptables-nft -A $chain -m comment --comment 'the rest' -j REJECT
        done";
    const FIREWALLD: &str = "nft -f - <<'END'
        table inet firewalld {
          chain in_public { tcp dport 22 accept; meta l4proto { icmp, ipv6-icmp } accept; reject with icmpx admin-prohibited; }
          chain forward_public { meta l4proto { icmp, ipv6-icmp } accept; reject with icmpx admin-prohibited; }
          chain in_zones { iifname \"eth0\" goto in_public; goto in_public; }
          chain forward_zones { iifname \"eth0\" goto forward_public; goto forward_public; }
          chain filter_INPUT {
            type filter hook input priority 10; policy accept;
            ct state established,related accept; iifname \"lo\" accept
            jump in_zones; ct state invalid drop; reject with icmpx admin-prohibited
          }
          chain filter_FORWARD {
            type filter hook forward priority 10; policy accept;
            ct state established,related accept; iifname \"lo\" accept
            jump forward_zones; ct state invalid drop; reject with icmpx admin-prohibited
          }
        }
END";
    const UFW: &str = "
        iptables-nft -P INPUT DROP; iptables-nft -P FORWARD DROP
        iptables-nft -N ufw-not-local; iptables-nft -N ufw-user-input; iptables-nft -N ufw-before-input
        iptables-nft -N ufw-user-forward; iptables-nft -N ufw-reject-forward
        iptables-nft -A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
        iptables-nft -A ufw-not-local -j DROP
        iptables-nft -A ufw-before-input -j ufw-not-local
        iptables-nft -A ufw-before-input -j ufw-user-input
        iptables-nft -A INPUT -j ufw-before-input
        iptables-nft -A ufw-user-forward -i fl_gwbridge -p tcp --dport 7777 -j DROP
        iptables-nft -A FORWARD -j ufw-user-forward
        iptables-nft -A ufw-reject-forward -j REJECT
        iptables-nft -A FORWARD -j ufw-reject-forward";
    let mut lab = Lab::new("rulesets", 2);
    let client = lab.add_task(1, 21, None);
    let server = lab.add_task(2, 12, Some("web"));
    lab.apply();
    lab.serve(&server);
    let _listener = inside(&lab.client(), || {
        TcpListener::bind("192.0.2.100:9000").unwrap()
    });
    for (ruleset, rules) in [("true", 0), (IPTABLES, 6), (FIREWALLD, 12), (UFW, 6)] {
        for node in [1, 2] {
            script(&lab, node, "nft flush ruleset");
            script(&lab, node, ruleset);
        }
        // It is the ruleset that hinders.
        if rules > 0 {
            assert!(
                ask(&lab.task(&client), "10.1.0.12:80").is_err(),
                "{ruleset}"
            );
        }
        reconcile(&lab);
        let asked = |from: &Path, to: &str| {
            ask(from, to).unwrap_or_else(|error| panic!("{to}: {error}: {ruleset}"))
        };
        asked(&lab.task(&client), "10.1.0.12:80");
        asked(&lab.client(), "192.0.2.1:8080");
        asked(&lab.client(), "192.0.2.2:8080");
        let outside = "192.0.2.100:9000".parse().unwrap();
        inside(&lab.task(&client), || {
            TcpStream::connect_timeout(&outside, WAIT).expect(ruleset)
        });
        let all = lab.exec("n2", "nft list ruleset");
        assert_eq!(
            all.matches("\"fairlead:").count(),
            rules,
            "{ruleset}: {all}"
        );
    }
}

/// Another port for the tunnels while tasks run; rules of a daemon that was told otherwise.
#[test]
fn outdated_rules_go() {
    let mut lab = Lab::new("outdated", 2);
    for node in [1, 2] {
        script(
            &lab,
            node,
            "iptables-nft -P INPUT DROP; iptables-nft -P FORWARD DROP
             nft insert rule ip filter INPUT udp dport 4788 accept comment '\"fairlead: tunnel\"'
             nft insert rule ip filter FORWARD iifname old accept comment '\"fairlead: from our device\"'
             nft insert rule ip filter FORWARD oifname old accept comment '\"fairlead: to our device\"'",
        );
    }
    let (a, b) = (lab.add_task(1, 11, None), lab.add_task(2, 12, None));
    lab.apply();
    lab.serve(&b);
    assert!(ask(&lab.task(&a), "10.1.0.12:80").is_ok());
    for desired in &mut lab.desired {
        desired.node.as_mut().unwrap().vxlan_port = 4790;
    }
    lab.apply();
    assert_eq!(
        ask(&lab.task(&a), "10.1.0.12:80").unwrap(),
        "t2-12 10.1.0.11"
    );
    let rules = lab.exec("n1", "nft list table ip filter");
    for outdated in ["4788", "4789", "\"old\""] {
        assert!(!rules.contains(outdated), "{rules}");
    }
}
