//! Backends that drain or go, and who has connections and flows with them.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::mpsc::{self, TryRecvError};
use std::time::Duration;

use netdp::{Backend, DataPlane, Scheduler};

use crate::client::{self, ask_udp, exchange};
use crate::lab;
use crate::{answers, web};

/// Draining under load loses nothing; a drained backend gets nothing new.
#[test]
fn draining_loses_nothing() {
    let mut lab = web("drain");
    let load = client::Load::start(
        &lab.client(),
        &["192.0.2.1:8080", "192.0.2.2:8080", "192.0.2.3:8080"],
    );
    let inner = client::Load::start(&lab.task("t1-21"), &["10.1.0.2:80"]);
    let mut kept = client::connect_from(&lab.client(), "0.0.0.0:0", "192.0.2.3:8080").unwrap();
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
        // However slow the machine is.
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while load.answered() <= 10 && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
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

/// Flows of UDP leave a backend that has drained for a while, and nothing is lost when it goes. The last
/// backend keeps them, and its connections.
#[test]
fn udp_flows_leave_a_backend_that_drains() {
    let mut lab = web("udpdrain");
    let (client, task) = (lab.client(), lab.task("t1-21"));
    let places = [
        (&client, "192.0.2.1:5353"),
        (&client, "192.0.2.3:5353"),
        (&client, "[2001:db8::2]:5353"),
        (&task, "10.1.0.2:53"),
    ];
    let open = |(from, to): (&PathBuf, &str)| {
        let any = if to.starts_with('[') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        };
        client::flow(from, any, to).unwrap()
    };
    let flows: Vec<_> = places
        .iter()
        .cycle()
        .take(32)
        .map(|place| open(*place))
        .collect();
    let servers = |when: &str| -> BTreeSet<String> {
        let answer =
            |flow| client::exchange_udp(flow).unwrap_or_else(|e| panic!("{when}, {flow:?}: {e}"));
        let server = |answer: String| answer.split(' ').next().unwrap().to_owned();
        flows.iter().map(answer).map(server).collect()
    };
    let only = |task: &str| BTreeSet::from([task.to_owned()]);
    assert_eq!(servers("before").len(), 2);
    let connections_to = |backend: &str| {
        [(&client, "192.0.2.3:8080"), (&task, "10.1.0.2:80")].map(|(from, to)| {
            loop {
                let mut kept = client::connect_from(from, "0.0.0.0:0", to).unwrap();
                if exchange(&mut kept).unwrap().starts_with(backend) {
                    break kept;
                }
            }
        })
    };
    let [first, last] = ["t1-11", "t2-12"].map(connections_to);
    let all_answer = |connections: [TcpStream; 2], backend: &str| {
        for mut kept in connections {
            assert!(exchange(&mut kept).unwrap().starts_with(backend));
        }
    };

    let under_load = |change: &dyn Fn()| {
        let (done, told) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let servers = &servers;
            scope.spawn(move || {
                while told.try_recv() == Err(TryRecvError::Empty) {
                    servers("meanwhile");
                }
            });
            change();
            // Also when it panics.
            drop(done);
        });
    };
    let drain_on = |lab: &lab::Lab| {
        std::thread::sleep(Duration::from_secs(1));
        for node in &lab.nodes {
            let report = node.with(DataPlane::reconcile);
            assert!(report.healed.is_empty(), "{report:?}");
        }
    };
    lab.set_backend("t1-11", Backend::Draining);
    under_load(&|| lab.apply());
    assert_eq!(servers("begun").len(), 2, "answers that are on their way");
    // What is on its way just now would be lost: a flow is translated in one way at a time.
    drain_on(&lab);
    assert_eq!(servers("drained"), only("t2-12"));
    all_answer(first, "t1-11");
    for desired in &mut lab.desired {
        desired
            .endpoints
            .retain(|_, endpoint| endpoint.task != "t1-11");
        desired.sandboxes.remove("t1-11");
    }
    under_load(&|| lab.apply());
    assert_eq!(servers("removed"), only("t2-12"));
    lab.set_backend("t2-12", Backend::Draining);
    under_load(&|| {
        lab.apply();
        drain_on(&lab);
    });
    assert_eq!(servers("alone"), only("t2-12"));
    all_answer(last, "t2-12");
}

/// Whatever a scheduler computes from the client: one that drains is not chosen, and nobody is refused.
#[test]
fn schedulers_by_the_client_leave_out_who_drains() {
    let mut lab = web("bysource");
    for i in 1..=20 {
        lab.exec(
            "c",
            &format!("ip address add 192.0.2.{}/24 dev eth0", 100 + i),
        );
    }
    let engine = lab.nodes[0].with(|plane| plane.engine());
    for scheduler in [Scheduler::SourceHash, Scheduler::Maglev] {
        if !engine.supports(scheduler) {
            continue;
        }
        for (drains, stays) in [("t1-11", "t2-12"), ("t2-12", "t1-11")] {
            for desired in &mut lab.desired {
                desired.services.get_mut("web").unwrap().scheduler = Some(scheduler);
            }
            lab.set_backend(drains, Backend::Draining);
            lab.set_backend(stays, Backend::Enabled(1));
            lab.apply();
            for i in 1..=20 {
                let from = format!("192.0.2.{}:0", 100 + i);
                let mut stream = client::connect_from(&lab.client(), &from, "192.0.2.3:8080")
                    .unwrap_or_else(|e| panic!("{scheduler:?}, {drains} drains, {from}: {e}"));
                assert!(
                    exchange(&mut stream).unwrap().starts_with(stays),
                    "{scheduler:?}"
                );
            }
        }
    }
}

/// A UDP client that keeps its port is not pinned to a removed backend, nor to the time before the
/// port was published.
fn flows_follow(test: &str, restart: bool) {
    let mut lab = web(test);
    let client = lab.client();
    let ask = |to: &str| ask_udp(&client, "0.0.0.0:42424", to);
    let task = lab.task("t1-21");
    let ask_vip = || ask_udp(&task, "0.0.0.0:42425", "10.1.0.2:53");
    for _ in 0..2 {
        ask("192.0.2.3:5353").unwrap();
        ask_vip().unwrap();
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
    if restart {
        for node in &mut lab.nodes {
            node.open();
        }
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

#[test]
fn udp_flows_follow_the_backends() {
    flows_follow("udpflow", false);
}

/// The backend goes while no data plane is there.
#[test]
fn udp_flows_follow_the_backends_of_a_new_data_plane() {
    flows_follow("udpagain", true);
}
