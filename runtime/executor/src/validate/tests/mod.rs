//! Each bad input is refused at its field with its reason.

mod network;
mod records;
mod set;
mod task;

use fairlead_api::v1;
use v1::change::Object;

use super::*;

fn config() -> v1::NodeConfig {
    v1::NodeConfig {
        node_id: "n1".into(),
        ..Default::default()
    }
}

fn task() -> v1::Task {
    v1::Task {
        id: "t1".into(),
        container: Some(v1::ContainerSpec {
            image: "dir:/srv".into(),
            ..Default::default()
        }),
        networks: vec![v1::NetworkAttachment {
            network_id: "app".into(),
            addresses: vec!["10.1.0.5/24".into()],
            ..Default::default()
        }],
        desired_state: v1::TaskState::Running as i32,
        ..Default::default()
    }
}

fn network() -> v1::Network {
    v1::Network {
        id: "app".into(),
        name: "app".into(),
        subnets: vec![v1::Subnet {
            cidr: "10.1.0.0/24".into(),
            gateway: "10.1.0.1".into(),
            vni: 4097,
        }],
        ..Default::default()
    }
}

fn ingress() -> v1::Network {
    v1::Network {
        id: "ingress".into(),
        ingress: true,
        subnets: vec![v1::Subnet {
            cidr: "10.0.0.0/24".into(),
            gateway: String::new(),
            vni: 4096,
        }],
        ..Default::default()
    }
}

fn service() -> v1::Service {
    v1::Service {
        id: "s1".into(),
        name: "web".into(),
        virtual_ips: vec![v1::VirtualIp {
            network_id: "app".into(),
            address: "10.1.0.2".into(),
        }],
        ports: vec![v1::PortConfig {
            target_port: 80,
            published_port: 8080,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn node(id: &str, n: u32) -> v1::NodeRecord {
    v1::NodeRecord {
        id: id.into(),
        version: 3,
        vteps: vec![format!("192.0.2.{n}")],
        ingress_addresses: vec![format!("10.0.0.{n}")],
        steering_id: n,
        ..Default::default()
    }
}

fn endpoint() -> v1::EndpointRecord {
    v1::EndpointRecord {
        id: "e1".into(),
        version: 2,
        state: v1::EndpointState::Active as i32,
        network_id: "app".into(),
        task_id: "t1".into(),
        service_id: "s1".into(),
        node_id: "n1".into(),
        addresses: vec!["10.1.0.5".into()],
        ..Default::default()
    }
}

/// The parts of a good assignment.
#[derive(Clone)]
struct Parts {
    task: v1::Task,
    network: v1::Network,
    ingress: v1::Network,
    service: v1::Service,
    own: v1::NodeRecord,
    other: v1::NodeRecord,
    endpoint: v1::EndpointRecord,
    more: Vec<Object>,
}

impl Parts {
    fn good() -> Self {
        Self {
            task: task(),
            network: network(),
            ingress: ingress(),
            service: service(),
            own: node("n1", 1),
            other: node("n2", 2),
            endpoint: endpoint(),
            more: Vec::new(),
        }
    }

    fn request(self) -> v1::AssignRequest {
        let objects = [
            Object::Task(self.task),
            Object::Network(self.network),
            Object::Network(self.ingress),
            Object::Service(self.service),
            Object::Node(self.own),
            Object::Node(self.other),
            Object::Endpoint(self.endpoint),
        ];
        complete(objects.into_iter().chain(self.more))
    }
}

fn complete(objects: impl IntoIterator<Item = Object>) -> v1::AssignRequest {
    let change = |object| v1::Change {
        action: 0,
        object: Some(object),
    };
    v1::AssignRequest {
        r#type: v1::AssignmentType::Complete as i32,
        results_in: "1".into(),
        changes: objects.into_iter().map(change).collect(),
        ..Default::default()
    }
}

fn check(request: &v1::AssignRequest, held: &Assignment) -> Result<Assignment, Vec<String>> {
    assignment(request, held, &BTreeMap::new(), &config(), Engine::Nft).map_err(|v| {
        v.list()
            .iter()
            .map(|v| format!("{}: {}", v.field, v.reason))
            .collect()
    })
}

/// The good assignment, changed by `change`, is refused with exactly one violation, at `field`
/// (a path, after the object's own), and a reason that contains `reason`.
#[track_caller]
fn refused(change: impl FnOnce(&mut Parts), field: &str, reason: &str) {
    let mut parts = Parts::good();
    change(&mut parts);
    let violations = check(&parts.request(), &Assignment::default()).expect_err("accepted");
    let fits = |v: &String| v.starts_with(&format!("{field}: ")) && v.contains(reason);
    assert!(
        violations.iter().any(fits),
        "{field}: {reason}\n  not in {violations:#?}"
    );
    assert_eq!(violations.len(), 1, "{violations:#?}");
}

#[track_caller]
fn accepted(change: impl FnOnce(&mut Parts)) -> Assignment {
    let mut parts = Parts::good();
    change(&mut parts);
    check(&parts.request(), &Assignment::default()).unwrap()
}

#[test]
fn the_good_one_is_good() {
    let new = accepted(|_| {});
    assert_eq!(new.results_in, "1");
    assert_eq!(new.tasks["t1"].legs[0].mac.to_string(), "02:42:0a:01:00:05");
    assert_eq!(
        new.services["s1"].vips,
        [("app".to_owned(), "10.1.0.2".parse().unwrap())]
    );
}
