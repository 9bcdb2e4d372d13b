//! Published ports that come, go and lead elsewhere, and datagrams of any size through them.

use std::io::ErrorKind;
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use netdp::{Backend, Port, Protocol, Service};

use crate::client::{self, ask, ask_udp, exchange, exchange_udp};
use crate::lab::Lab;

fn tcp(published: u16, target: u16) -> Port {
    Port {
        protocol: Protocol::Tcp,
        published,
        target,
    }
}

fn udp(published: u16, target: u16) -> Port {
    Port {
        protocol: Protocol::Udp,
        ..tcp(published, target)
    }
}

/// The node that has the replica and one that has not, in both protocols of IP; and the client's
/// address.
const WAYS: [(&str, &str, &str); 4] = [
    ("0.0.0.0:0", "192.0.2.1", "192.0.2.100"),
    ("0.0.0.0:0", "192.0.2.2", "192.0.2.100"),
    ("[::]:0", "[2001:db8::1]", "2001:db8::100"),
    ("[::]:0", "[2001:db8::2]", "2001:db8::100"),
];

/// One replica, on node 2 of two.
fn one_replica(test: &str, ports: &[Port]) -> Lab {
    let mut lab = Lab::new(test, 2);
    lab.add_task(2, 12, Some("web"));
    lab.set_ports(ports);
    lab.apply();
    lab.serve("t2-12");
    lab
}

/// The ports of another service.
fn set_other(lab: &mut Lab, ports: &[Port]) {
    for desired in &mut lab.desired {
        let service = Service {
            name: "other".into(),
            vips: Vec::new(),
            ports: ports.to_vec(),
            scheduler: None,
        };
        desired.services.insert("other".into(), service);
    }
}

/// Connections to a port on all ways, each of which has been used.
fn connections(lab: &Lab, port: u16) -> Vec<(String, TcpStream)> {
    let open = |(local, node, _): &(&str, &str, &str)| {
        let to = format!("{node}:{port}");
        let mut stream = client::connect_from(&lab.client(), local, &to)
            .unwrap_or_else(|e| panic!("connect to {to}: {e}"));
        exchange(&mut stream).unwrap_or_else(|e| panic!("{to}: {e}"));
        (to, stream)
    };
    WAYS.iter().map(open).collect()
}

/// The same of UDP.
fn flows(lab: &Lab, port: u16) -> Vec<(String, UdpSocket)> {
    let open = |(local, node, _): &(&str, &str, &str)| {
        let to = format!("{node}:{port}");
        let flow = client::flow(&lab.client(), local, &to).unwrap();
        exchange_udp(&flow).unwrap_or_else(|e| panic!("udp {to}: {e}"));
        (to, flow)
    };
    WAYS.iter().map(open).collect()
}

fn all_go_on(when: &str, connections: &mut [(String, TcpStream)]) {
    for (to, stream) in connections {
        let answer = exchange(stream).unwrap_or_else(|e| panic!("{when}, {to}: {e}"));
        assert!(answer.starts_with("t2-12 "), "{when}, {to}: {answer:?}");
    }
}

fn all_break_off(when: &str, connections: Vec<(String, TcpStream)>) {
    for (to, mut stream) in connections {
        let error = exchange(&mut stream).expect_err(&to);
        let kind = error.kind();
        assert_eq!(kind, ErrorKind::ConnectionReset, "{when}, {to}: {error}");
    }
}

/// Every flow is answered by `name`. IPVS lets go of a flow when its next packet comes, which is
/// lost.
fn flows_lead_to(name: &str, flows: &[(String, UdpSocket)]) {
    for (to, flow) in flows {
        flow.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let _ = exchange_udp(flow);
        let answer = exchange_udp(flow).unwrap_or_else(|e| panic!("udp {to}: {e}"));
        assert_eq!(answer.split(' ').next(), Some(name), "udp {to}");
    }
}

fn all_answer(name: &str, port: u16) -> impl Fn(&Lab) {
    let name = name.to_owned();
    move |lab| {
        for (_, node, client) in WAYS {
            let to = format!("{node}:{port}");
            let answer = ask(&lab.client(), &to).unwrap_or_else(|e| panic!("{to}: {e}"));
            assert_eq!(answer, format!("{name} {client}"), "{to}");
        }
    }
}

#[test]
fn datagrams_of_any_size() {
    let lab = one_replica("large", &[udp(5353, 53)]);
    let mut lost = Vec::new();
    for (local, node, _) in WAYS {
        let flow = client::flow(&lab.client(), local, &format!("{node}:5353")).unwrap();
        flow.set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        for size in [1400, 1472, 4000, 9000] {
            let question = vec![b'?'; size];
            let mut answer = vec![0; 1 << 16];
            // The first tells the client that the path is narrower than its link.
            let answered = (0..3).any(|_| {
                flow.send(&question).is_ok()
                    && flow.recv(&mut answer).is_ok_and(|length| length == size)
            });
            if !answered {
                lost.push(format!("{node}: {size}"));
            }
        }
    }
    assert!(lost.is_empty(), "lost: {lost:?}");
}

/// Ports that lead to one target come and go; whoever uses another one of them does not notice.
#[test]
fn ports_with_one_target_come_and_go() {
    let mut lab = one_replica(
        "onetarget",
        &[tcp(8080, 80), tcp(8081, 80), udp(5353, 53), udp(5354, 53)],
    );
    lab.serve_as("t2-12", "another", 8081, 5354);
    let gone = connections(&lab, 8080);
    let mut kept = connections(&lab, 8081);
    let kept_flows = flows(&lab, 5354);
    let go_on = |when: &str, kept: &mut [(String, TcpStream)]| {
        all_go_on(when, kept);
        for (to, flow) in &kept_flows {
            let answer = exchange_udp(flow).unwrap_or_else(|e| panic!("{when}, udp {to}: {e}"));
            assert!(answer.starts_with("t2-12 "), "{when}, udp {to}: {answer:?}");
        }
    };
    lab.set_ports(&[tcp(8081, 80), udp(5354, 53)]);
    lab.apply();
    go_on("the first one removed", &mut kept);
    all_break_off("removed", gone);
    all_answer("t2-12", 8081)(&lab);
    let refused = ask(&lab.client(), "192.0.2.1:8080").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    // Others to the same target, before and behind it, and one whose target has its number.
    lab.set_ports(&[
        tcp(8000, 80),
        udp(5300, 53),
        tcp(8081, 80),
        udp(5354, 53),
        tcp(9000, 8081),
        udp(9053, 5354),
        tcp(8082, 80),
    ]);
    lab.apply();
    go_on("others added", &mut kept);
    for port in [8000, 8081, 8082] {
        all_answer("t2-12", port)(&lab);
    }
    all_answer("another", 9000)(&lab);
    flows_lead_to("another", &flows(&lab, 9053));

    // One that has the target's number itself.
    lab.set_ports(&[tcp(8081, 80), udp(5354, 53), tcp(80, 80), udp(53, 53)]);
    lab.apply();
    go_on("the target itself added", &mut kept);
    for port in [80, 8081] {
        all_answer("t2-12", port)(&lab);
    }
    lab.set_ports(&[tcp(80, 80), udp(53, 53)]);
    lab.apply();
    all_break_off("the last one removed", kept);
}

#[test]
fn a_target_port_changes() {
    let mut lab = one_replica("target", &[tcp(8080, 80), udp(5353, 53)]);
    lab.serve_as("t2-12", "new", 81, 54);
    let open = connections(&lab, 8080);
    let flows = flows(&lab, 5353);
    lab.set_ports(&[tcp(8080, 81), udp(5353, 54)]);
    lab.apply();
    flows_lead_to("new", &flows);
    all_answer("new", 8080)(&lab);
    all_break_off("changed", open);
}

#[test]
fn a_port_moves_to_another_service() {
    let mut lab = one_replica("moved", &[tcp(8080, 80), tcp(8090, 80), udp(5353, 53)]);
    let other = lab.add_task(1, 13, Some("other"));
    set_other(&mut lab, &[tcp(9090, 80), udp(9053, 53)]);
    lab.apply();
    lab.serve(&other);
    all_answer(&other, 9090)(&lab);
    let moved = connections(&lab, 8080);
    let mut kept = connections(&lab, 8090);
    let flows = flows(&lab, 5353);
    lab.set_ports(&[tcp(8090, 80)]);
    set_other(
        &mut lab,
        &[tcp(9090, 80), udp(9053, 53), tcp(8080, 80), udp(5353, 53)],
    );
    lab.apply();
    flows_lead_to(&other, &flows);
    all_answer(&other, 8080)(&lab);
    all_go_on("others moved", &mut kept);
    all_break_off("moved", moved);
    let answer = ask_udp(&lab.client(), "0.0.0.0:0", "192.0.2.2:9053").unwrap();
    assert_eq!(answer, format!("{other} 192.0.2.100"));
}

/// A flow that has been refused, and is not given up, reaches the first backend that comes.
#[test]
fn a_refused_flow_reaches_the_first_backend() {
    let mut lab = one_replica("first", &[udp(5353, 53)]);
    // Without any backend nothing would be tracked.
    lab.add_task(1, 13, Some("other"));
    set_other(&mut lab, &[udp(9053, 53)]);
    lab.set_backend("t2-12", Backend::Disabled);
    lab.apply();
    let refused = |(local, node, _): &(&str, &str, &str)| {
        let to = format!("{node}:5353");
        let flow = client::flow(&lab.client(), local, &to).unwrap();
        let error = exchange_udp(&flow).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
        (to, flow)
    };
    let flows: Vec<_> = WAYS.iter().map(refused).collect();
    lab.set_backend("t2-12", Backend::Enabled(1));
    lab.apply();
    for (to, flow) in flows {
        let answer = exchange_udp(&flow).unwrap_or_else(|e| panic!("udp {to}: {e}"));
        assert!(answer.starts_with("t2-12 "), "udp {to}: {answer}");
    }
}
