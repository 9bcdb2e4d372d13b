//! What becomes of an assignment, and what it acknowledges.

use std::sync::Arc;

use fairlead_api::v1::{self, EndpointState, TaskState};
use netdp::{Backend, Engine, Failure, Object, Report};
use v1::change::Object as Sent;

use super::*;
use crate::events::EventLog;
use crate::validate;

fn attachment() -> v1::NetworkAttachment {
    v1::NetworkAttachment {
        network_id: "app".into(),
        addresses: vec!["10.1.0.5/24".into()],
        ..Default::default()
    }
}

fn endpoint(id: &str, task: &str, node: &str, address: &str) -> v1::EndpointRecord {
    v1::EndpointRecord {
        id: id.into(),
        version: 1,
        state: EndpointState::Active as i32,
        network_id: "app".into(),
        task_id: task.into(),
        service_id: "s1".into(),
        node_id: node.into(),
        addresses: vec![address.into()],
        ..Default::default()
    }
}

/// This node is n1 with task t1; n2 has t2, and has acknowledged `acknowledged` of n1's version 3.
fn view(acknowledged: u64, change: impl FnOnce(&mut Vec<Sent>)) -> View {
    let node = |id: &str, n: u32, acknowledged_version| v1::NodeRecord {
        id: id.into(),
        version: 3,
        vteps: vec![format!("192.0.2.{n}")],
        steering_id: n,
        acknowledged_version,
        ..Default::default()
    };
    let mut objects = vec![
        Sent::Endpoint(endpoint("e1", "t1", "n1", "10.1.0.5")),
        Sent::Endpoint(endpoint("e2", "t2", "n2", "10.1.0.6")),
        Sent::Task(v1::Task {
            id: "t1".into(),
            container: Some(v1::ContainerSpec {
                image: "dir:/srv".into(),
                ..Default::default()
            }),
            networks: vec![attachment()],
            desired_state: TaskState::Running as i32,
            ..Default::default()
        }),
        Sent::Network(v1::Network {
            id: "app".into(),
            subnets: vec![v1::Subnet {
                cidr: "10.1.0.0/24".into(),
                vni: 4097,
                ..Default::default()
            }],
            ..Default::default()
        }),
        Sent::Network(v1::Network {
            id: "ingress".into(),
            ingress: true,
            subnets: vec![v1::Subnet {
                cidr: "10.0.0.0/24".into(),
                vni: 4096,
                ..Default::default()
            }],
            ..Default::default()
        }),
        Sent::Service(v1::Service {
            id: "s1".into(),
            name: "web".into(),
            ..Default::default()
        }),
        Sent::Node(node("n1", 1, 0)),
        Sent::Node(node("n2", 2, acknowledged)),
    ];
    change(&mut objects);
    let request = v1::AssignRequest {
        results_in: "1".into(),
        changes: objects
            .into_iter()
            .map(|object| v1::Change {
                action: 0,
                object: Some(object),
            })
            .collect(),
        ..Default::default()
    };
    let config = v1::NodeConfig {
        node_id: "n1".into(),
        ..Default::default()
    };
    let assignment = validate::assignment(
        &request,
        &Assignment::default(),
        &BTreeMap::new(),
        &config,
        Engine::Nft,
    )
    .unwrap();
    View {
        config: Some(config),
        assignment: Arc::new(assignment),
        locals: BTreeMap::new(),
    }
}

fn with_task(mut view: View, state: TaskState, stopping: bool) -> View {
    let mut local = Local::new(Arc::clone(&view.assignment.tasks["t1"]));
    local.networks = vec![Arc::clone(&view.assignment.networks["app"])];
    local.gateway = vec!["172.18.0.2/16".parse().unwrap()];
    local.host_ports = vec![netdp::Port {
        protocol: netdp::Protocol::Tcp,
        published: 30_000,
        target: 80,
    }];
    local.record.sandbox = true;
    local.record.stopping = stopping;
    if let Some(status) = &mut local.record.status {
        status.state = state as i32;
    }
    view.locals.insert("t1".into(), Arc::new(local));
    view
}

fn backend_of(plan: &Plan, id: &str) -> Backend {
    plan.desired.endpoints[id].backend
}

#[test]
fn nothing_before_the_node_is_known() {
    assert_eq!(*plan(&View::default()).desired, Desired::default());
    let unknown = View {
        config: Some(v1::NodeConfig::default()),
        ..View::default()
    };
    assert_eq!(*plan(&unknown).desired, Desired::default());
}

#[test]
fn the_node_its_peers_and_a_sandbox() {
    let plan = plan(&with_task(view(3, |_| {}), TaskState::Running, false));
    let node = plan.desired.node.as_ref().unwrap();
    assert_eq!(node.vxlan_port, 4789);
    assert_eq!(node.gwbridge, ["172.18.0.1/16".parse().unwrap()]);
    assert_eq!(node.ingress, netdp::Steering::new(1));
    assert_eq!(plan.desired.peers["n2"].ingress, netdp::Steering::new(2));
    assert!(!plan.desired.peers.contains_key("n1"));
    let sandbox = &plan.desired.sandboxes["t1"];
    assert_eq!(
        (
            sandbox.legs[0].ifname.as_str(),
            sandbox.legs[0].network.as_str()
        ),
        ("eth0", "app")
    );
    assert_eq!(sandbox.legs[0].mac.to_string(), "02:42:0a:01:00:05");
    assert_eq!(sandbox.gateway.as_ref().unwrap().ifname, "eth1");
    assert_eq!(sandbox.host_ports.len(), 1);
}

#[test]
fn a_local_backend_is_enabled_while_its_task_runs() {
    for (state, stopping, wanted) in [
        (TaskState::Ready, false, Backend::Disabled),
        (TaskState::Starting, false, Backend::Disabled),
        (TaskState::Running, false, Backend::Enabled(1)),
        // What is established lives through the grace period.
        (TaskState::Running, true, Backend::Draining),
        (TaskState::Complete, false, Backend::Disabled),
    ] {
        let plan = plan(&with_task(view(3, |_| {}), state, stopping));
        let enabled = wanted == Backend::Enabled(1);
        assert_eq!(backend_of(&plan, "e1"), wanted, "{state:?} {stopping}");
        assert_eq!(
            plan.endpoints["e1"].complete, enabled,
            "{state:?} {stopping}"
        );
        assert_eq!(plan.desired.sandboxes["t1"].host_ports.is_empty(), !enabled);
    }
}

#[test]
fn a_remote_backend_waits_for_its_nodes_acknowledgement() {
    let never = plan(&view(0, |_| {}));
    assert_eq!(backend_of(&never, "e2"), Backend::Disabled);
    assert!(!never.endpoints["e2"].complete);
    // Our record changed since: no new connections, but the established ones stay.
    let early = view(2, |_| {});
    let (before, after) = (plan(&early), plan(&view(3, |_| {})));
    assert_eq!(backend_of(&before, "e2"), Backend::Paused);
    assert!(!before.endpoints["e2"].complete);
    assert_eq!(backend_of(&after, "e2"), Backend::Enabled(1));
    let config = early.config.as_ref().unwrap();
    let (_, reason) = backend(&early, config, &early.assignment.endpoints["e2"]);
    assert!(
        reason
            .unwrap()
            .contains("acknowledged version 2 of this node's record, not 3")
    );
    // Without its sandbox a local endpoint is nowhere.
    assert!(!after.desired.endpoints.contains_key("e1"));
    assert!(!after.endpoints["e1"].complete);
}

/// The same with another record of n1 in the place of version 3.
fn renewed(view: &View, change: impl FnOnce(&mut v1::NodeRecord)) -> View {
    let mut record = view.assignment.nodes["n1"].proto.clone();
    record.version += 1;
    change(&mut record);
    let request = v1::AssignRequest {
        r#type: v1::AssignmentType::Incremental as i32,
        results_in: "2".into(),
        changes: vec![v1::Change {
            action: 0,
            object: Some(Sent::Node(record)),
        }],
        ..Default::default()
    };
    let config = view.config.clone().unwrap();
    let new = validate::assignment(
        &request,
        &view.assignment,
        &view.locals,
        &config,
        Engine::Nft,
    )
    .unwrap();
    View {
        assignment: Arc::new(new),
        ..view.clone()
    }
}

#[test]
fn only_what_replies_depend_on_has_to_be_acknowledged_again() {
    let enabled = view(3, |_| {});
    let both = view(3, |objects| {
        for object in objects {
            match object {
                Sent::Network(network) if network.ingress => network.subnets.push(v1::Subnet {
                    cidr: "fd00::/64".into(),
                    vni: 4096,
                    ..Default::default()
                }),
                Sent::Node(node) if node.id == "n1" => {
                    node.ingress_addresses = vec!["10.0.0.9".into(), "fd00::9".into()];
                }
                _ => {}
            }
        }
    });
    for (what, base, change) in [
        (
            "a higher version",
            &enabled,
            (|_| {}) as fn(&mut v1::NodeRecord),
        ),
        ("the same again", &enabled, |record| record.version += 40),
        ("another order", &both, |record| {
            record.ingress_addresses.reverse();
        }),
    ] {
        let before = backend_of(&plan(base), "e2");
        let after = renewed(base, change);
        assert_eq!(backend_of(&plan(&after), "e2"), before, "{what}");
        // Nor does a second one.
        let again = renewed(&after, |_| {});
        assert_eq!(backend_of(&plan(&again), "e2"), before, "{what}, again");
    }
    for (what, change) in [
        (
            "another VTEP",
            (|record| record.vteps = vec!["192.0.2.9".into()]) as fn(&mut v1::NodeRecord),
        ),
        ("another steering id", |record| record.steering_id = 9),
        ("another ingress address", |record| {
            record.ingress_addresses = vec!["10.0.0.9".into()];
        }),
    ] {
        let after = renewed(&enabled, change);
        assert_eq!(backend_of(&plan(&after), "e2"), Backend::Paused, "{what}");
        // What is waited for stays the same when only the version grows.
        let again = renewed(&after, |_| {});
        let config = again.config.as_ref().unwrap();
        let (_, reason) = backend(&again, config, &again.assignment.endpoints["e2"]);
        let reason = reason.unwrap();
        assert!(reason.contains("not 4"), "{what}: {reason}");
    }
}

/// A tunnel has the IP version of a node's first VTEP.
#[test]
fn nodes_with_tunnels_of_different_ip_versions_are_not_joined() {
    let v6 = "2001:db8::1".to_owned();
    let enabled = view(3, |_| {});
    assert!(plan(&enabled).nodes.contains_key("n2"));
    let second = renewed(&enabled, |record| record.vteps.push(v6.clone()));
    assert!(plan(&second).nodes.contains_key("n2"));
    // The same addresses in another order are another tunnel.
    let came = renewed(&enabled, |record| record.vteps.insert(0, v6.clone()));
    let swapped = renewed(&second, |record| record.vteps.reverse());
    for first in [came, swapped] {
        let plan = plan(&first);
        assert!(!plan.nodes.contains_key("n2"));
        assert_eq!(backend_of(&plan, "e2"), Backend::Disabled);
        assert!(!plan.endpoints["e2"].complete);
        let config = first.config.as_ref().unwrap();
        let (_, reason) = backend(&first, config, &first.assignment.endpoints["e2"]);
        assert!(reason.unwrap().contains("no tunnel"));
    }
}

#[test]
fn draining_and_gone() {
    let change = |state: EndpointState| {
        move |objects: &mut Vec<Sent>| {
            let mut record = endpoint("e2", "t2", "n2", "10.1.0.6");
            record.state = state as i32;
            record.weight = 7;
            objects[1] = Sent::Endpoint(record);
        }
    };
    assert_eq!(
        backend_of(&plan(&view(3, change(EndpointState::Active))), "e2"),
        Backend::Enabled(7)
    );
    assert_eq!(
        backend_of(&plan(&view(0, change(EndpointState::Draining))), "e2"),
        Backend::Draining
    );
    let gone = plan(&view(3, change(EndpointState::Gone)));
    assert!(!gone.desired.endpoints.contains_key("e2"));
    assert!(gone.endpoints["e2"].complete);
}

#[test]
fn a_network_stays_while_a_leaving_task_is_in_it() {
    let mut view = with_task(view(3, |_| {}), TaskState::Running, true);
    view.assignment = Arc::new(Assignment {
        nodes: view.assignment.nodes.clone(),
        ..Assignment::default()
    });
    let plan = plan(&view);
    assert!(plan.desired.networks.contains_key("app"));
    assert!(plan.desired.sandboxes.contains_key("t1"));
    assert!(plan.desired.endpoints.is_empty());
}

#[test]
fn who_needs_a_way_out() {
    let held = view(3, |_| {});
    let network = |internal, ingress| {
        let mut network = NetworkDef::clone(&held.assignment.networks["app"]);
        (network.proto.internal, network.proto.ingress) = (internal, ingress);
        network
    };
    let (open, closed, ingress) = (
        network(false, false),
        network(true, false),
        network(false, true),
    );
    assert!(needs_gateway([], false));
    assert!(needs_gateway([&open, &closed], false));
    assert!(!needs_gateway([&closed], false));
    assert!(needs_gateway([&closed], true));
    assert!(needs_gateway([&closed, &ingress], false));
}

#[test]
fn acknowledgements_follow_what_is_in_the_kernel() {
    use v1::event::Event::{EndpointApplied, NodeApplied};
    let kinds = |events: &[v1::Event]| -> Vec<String> {
        let name = |event: &v1::Event| match event.event.as_ref().unwrap() {
            NodeApplied(n) => format!("{} {}", n.node_id, n.version),
            EndpointApplied(e) => format!("{} {}", e.endpoint_id, e.version),
            other => format!("{other:?}")
                .split('(')
                .next()
                .unwrap_or_default()
                .to_owned(),
        };
        events.iter().map(name).collect()
    };
    let log = EventLog::new(1000);
    let first = plan(&view(3, |_| {}));
    let failing = |object| {
        let error = netdp::NetdpError::Unsatisfiable("busy".into());
        Report {
            failures: vec![Failure { object, error }],
            ..Report::default()
        }
    };
    // A published port that another program has keeps nothing back.
    let other = EventLog::new(1000);
    other.report(&first, &failing(Object::Service("s1".into())));
    assert_eq!(
        kinds(&other.after(1000).0),
        ["DataPlaneError", "n2 3", "e2 1"]
    );
    // One that IPVS refused leads elsewhere than the records say; those of other networks are not its affair.
    let refused = EventLog::new(1000);
    let meshed = plan(&view(3, |objects| {
        objects.push(Sent::Endpoint(v1::EndpointRecord {
            network_id: "ingress".into(),
            ..endpoint("e3", "t2", "n2", "10.0.0.22")
        }));
    }));
    let error = netdp::NetdpError::Ipvs {
        object: "the ingress network".into(),
        source: ipvs::IpvsError::NotAvailable,
    };
    let object = Object::Service("s1".into());
    let report = Report {
        failures: vec![Failure { object, error }],
        ..Report::default()
    };
    refused.report(&meshed, &report);
    assert_eq!(
        kinds(&refused.after(1000).0),
        ["DataPlaneError", "n2 3", "e2 1"]
    );
    refused.report(&meshed, &Report::default());
    assert!(kinds(&refused.after(1000).0).contains(&"e3 1".to_owned()));
    // Without the node there is no mesh, and VIPs are balanced where their clients are.
    let mesh = EventLog::new(1000);
    mesh.report(&first, &failing(Object::Node));
    assert_eq!(kinds(&mesh.after(1000).0), ["DataPlaneError"]);
    let with_client = plan(&with_task(view(3, |_| {}), TaskState::Running, false));
    let clients = EventLog::new(1000);
    clients.report(&with_client, &failing(Object::Sandbox("t1".into())));
    assert_eq!(kinds(&clients.after(1000).0), ["DataPlaneError", "n2 3"]);
    // What failed is not acknowledged; the same error is told once.
    log.report(&first, &failing(Object::Network("app".into())));
    log.report(&first, &failing(Object::Network("app".into())));
    assert_eq!(kinds(&log.after(1000).0), ["DataPlaneError", "n2 3"]);
    log.report(&first, &Report::default());
    let (all, last) = log.after(0);
    assert_eq!(kinds(&all), ["n2 3", "e2 1"]);
    // Nothing new: nothing told.
    log.report(&first, &Report::default());
    assert_eq!(log.after(last), (Vec::new(), last));
    // A reader that was away for too long gets the state.
    assert_eq!(kinds(&log.after(7).0), ["n2 3", "e2 1"]);
    log.report(&first, &failing(Object::Node));
    assert_eq!(kinds(&log.after(last).0), ["DataPlaneError"]);
}
