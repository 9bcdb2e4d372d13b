//! What shall be on the cluster, and the files that say so to each node.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Addresses of tasks begin here; the ones below are for VIPs and for the nodes' ingress.
const FIRST_TASK: u8 = 11;

/// A network: `<v4>.0/24` and `<v6>::/64`. Without IPv4 the first is empty, and so is the first
/// address of everything on it.
#[derive(Debug, Clone)]
pub(crate) struct NetworkSpec {
    pub v4: String,
    pub v6: String,
    pub vni: u32,
    pub extra: Map<String, Value>,
    next_task: u8,
    next_vip: u8,
}

impl NetworkSpec {
    pub(crate) fn new(v4: &str, v6: &str, vni: u32) -> Self {
        Self {
            v4: v4.to_owned(),
            v6: v6.to_owned(),
            vni,
            extra: Map::new(),
            next_task: FIRST_TASK,
            next_vip: 2,
        }
    }

    fn addresses(&self, last: u8) -> [String; 2] {
        let v4 = match self.v4.as_str() {
            "" => String::new(),
            v4 => format!("{v4}.{last}"),
        };
        [v4, format!("{}::{last:x}", self.v6)]
    }

    pub(crate) fn task(&mut self) -> [String; 2] {
        self.next_task += 1;
        self.addresses(self.next_task - 1)
    }

    pub(crate) fn vip(&mut self) -> [String; 2] {
        self.next_vip += 1;
        assert!(self.next_vip <= FIRST_TASK, "no addresses left for VIPs");
        self.addresses(self.next_vip - 1)
    }
}

/// A service.
#[derive(Debug, Clone)]
pub struct ServiceSpec {
    /// On which network; empty: on none.
    pub network: String,
    /// Its VIPs there: IPv4, IPv6.
    pub vips: [String; 2],
    /// Protocol, published port, target port.
    pub ports: Vec<(String, u16, u16)>,
    /// Further fields of the file.
    pub extra: Map<String, Value>,
}

impl ServiceSpec {
    /// Publishes a TCP port.
    pub fn tcp(&mut self, published: u16, target: u16) -> &mut Self {
        self.ports.push(("tcp".to_owned(), published, target));
        self
    }

    /// Publishes a UDP port.
    pub fn udp(&mut self, published: u16, target: u16) -> &mut Self {
        self.ports.push(("udp".to_owned(), published, target));
        self
    }

    /// Sets a field of the file.
    pub fn set(&mut self, field: &str, value: Value) -> &mut Self {
        self.extra.insert(field.to_owned(), value);
        self
    }
}

/// A task.
#[derive(Debug, Clone)]
pub struct TaskSpec {
    /// Number of its node, from 1.
    pub node: usize,
    /// Its service.
    pub service: Option<String>,
    /// Its networks with its addresses there: IPv4, IPv6.
    pub networks: Vec<(String, [String; 2])>,
    /// State of its endpoints.
    pub state: &'static str,
    /// Version of its endpoints.
    pub version: u64,
    /// Fields of the task in the file.
    pub fields: Map<String, Value>,
    /// Further fields of its endpoints.
    pub endpoint: Map<String, Value>,
}

impl TaskSpec {
    /// Sets a field of the file, such as `/container/pidsLimit`.
    ///
    /// # Panics
    /// When the path has more than two parts.
    pub fn set(&mut self, path: &str, value: Value) -> &mut Self {
        match path.split('/').collect::<Vec<_>>()[..] {
            ["", field] => {
                self.fields.insert(field.to_owned(), value);
            }
            ["", part, field] => {
                let part = self.fields.entry(part).or_insert_with(|| json!({}));
                part[field] = value;
            }
            _ => panic!("no path: {path}"),
        }
        self
    }

    /// What it runs instead of the tests' server.
    pub fn command(&mut self, command: &[&str]) -> &mut Self {
        self.set("/container/command", json!(command))
            .set("/container/args", json!([]))
    }

    /// A shell script that it runs.
    pub fn script(&mut self, script: &str) -> &mut Self {
        self.command(&["/bin/sh", "-c", script])
    }

    /// Ports of the tests' server, such as `tcp:80`.
    pub fn serves(&mut self, ports: &[&str]) -> &mut Self {
        self.set("/container/args", json!(ports))
    }

    /// The states of its endpoints change, everywhere.
    pub fn mark(&mut self, state: &'static str) -> &mut Self {
        self.state = state;
        self.version += 1;
        self
    }

    /// Whether it shall run the tests' server now.
    pub(crate) fn runs_server(&self) -> bool {
        let own = self
            .fields
            .get("container")
            .is_some_and(|container| !container["command"].is_null());
        let wanted = self
            .fields
            .get("desiredState")
            .is_none_or(|state| state == "running");
        wanted && !own
    }

    /// Its IPv4 address on a network.
    ///
    /// # Panics
    /// When it is not on the network.
    #[must_use]
    pub fn v4(&self, network: &str) -> &str {
        &self.addresses(network)[0]
    }

    /// Its IPv6 address on a network.
    ///
    /// # Panics
    /// When it is not on the network.
    #[must_use]
    pub fn v6(&self, network: &str) -> &str {
        &self.addresses(network)[1]
    }

    fn addresses(&self, network: &str) -> &[String; 2] {
        let found = self.networks.iter().find(|(id, _)| id == network);
        &found
            .unwrap_or_else(|| panic!("not on {network}: {self:?}"))
            .1
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Spec {
    pub networks: BTreeMap<String, NetworkSpec>,
    pub services: BTreeMap<String, ServiceSpec>,
    pub tasks: BTreeMap<String, TaskSpec>,
    /// Node records, in order.
    pub nodes: Vec<Value>,
    /// Fields of `node` of each file.
    pub config: Map<String, Value>,
}

impl Spec {
    /// What one node is told.
    pub(crate) fn assignment(&self, node: usize, socket: &str) -> Value {
        let id = format!("n{node}");
        let mut config = self.config.clone();
        config.insert("id".to_owned(), json!(id));
        config.insert("socket".to_owned(), json!(socket));
        let tasks = self.tasks.iter().filter(|(_, task)| task.node == node);
        json!({
            "version": 1,
            "node": config,
            "networks": self.networks.iter().map(network).collect::<Vec<_>>(),
            "services": self.services.iter().map(service).collect::<Vec<_>>(),
            "nodes": self.nodes,
            "endpoints": self.tasks.iter().flat_map(endpoints).collect::<Vec<_>>(),
            "tasks": tasks.map(|(id, spec)| self.task(id, spec)).collect::<Vec<_>>(),
        })
    }

    fn task(&self, id: &str, spec: &TaskSpec) -> Value {
        let mut fields = spec.fields.clone();
        fields.insert("id".to_owned(), json!(id));
        fields.insert("name".to_owned(), json!(id));
        if let Some(service) = &spec.service {
            fields.insert("serviceId".to_owned(), json!(service));
            fields.insert("serviceName".to_owned(), json!(service));
        }
        let networks = spec.networks.iter().map(|(network, addresses)| {
            let [v4, v6] = addresses;
            let v4 = Some(format!("{v4}/24")).filter(|_| !v4.is_empty());
            let cidrs: Vec<_> = v4.into_iter().chain([format!("{v6}/64")]).collect();
            let mut value = json!({"networkId": network, "addresses": cidrs});
            extend(&mut value, &mac(addresses));
            value
        });
        fields.insert("networks".to_owned(), networks.collect());
        let targets = spec
            .service
            .iter()
            .filter_map(|service| self.services.get(service))
            .flat_map(|service| &service.ports)
            .map(|(protocol, _, target)| format!("{protocol}:{target}"))
            .collect::<std::collections::BTreeSet<_>>();
        let container = fields.entry("container").or_insert_with(|| json!({}));
        let defaults = json!({
            "command": ["/bin/server"],
            "args": targets,
            "env": ["PATH=/bin", format!("REPLICA={id}")],
            "stopGracePeriod": "5s",
        });
        for (field, value) in defaults.as_object().into_iter().flatten() {
            if container.get(field).is_none() {
                container[field] = value.clone();
            }
        }
        Value::Object(fields)
    }
}

/// The field `mac`, where there is no IPv4 address to make one of.
fn mac([v4, v6]: &[String; 2]) -> Map<String, Value> {
    if !v4.is_empty() {
        return Map::new();
    }
    let address: std::net::Ipv6Addr = v6.parse().expect("an IPv6 address");
    let [.., last] = address.octets();
    Map::from_iter([(
        "mac".to_owned(),
        json!(format!("02:36:00:00:00:{last:02x}")),
    )])
}

fn network((id, spec): (&String, &NetworkSpec)) -> Value {
    let NetworkSpec { v4, v6, vni, .. } = spec;
    let mut subnets = vec![json!({"cidr": format!("{v6}::/64"), "vni": vni})];
    if !v4.is_empty() {
        let subnet =
            json!({"cidr": format!("{v4}.0/24"), "gateway": format!("{v4}.1"), "vni": vni});
        subnets.insert(0, subnet);
    }
    let mut value = json!({"id": id, "name": id, "subnets": subnets});
    extend(&mut value, &spec.extra);
    value
}

fn service((id, spec): (&String, &ServiceSpec)) -> Value {
    let port = |(protocol, published, target): &(String, u16, u16)| json!({"published": published, "target": target, "protocol": protocol});
    let vip = |address| json!({"networkId": spec.network, "address": address});
    let on_a_network = !spec.network.is_empty();
    let vips = spec
        .vips
        .iter()
        .filter(|vip| on_a_network && !vip.is_empty());
    let mut value = json!({
        "id": id,
        "name": id,
        "virtualIps": vips.map(vip).collect::<Vec<_>>(),
        "ports": spec.ports.iter().map(port).collect::<Vec<_>>(),
    });
    extend(&mut value, &spec.extra);
    value
}

fn endpoints((id, spec): (&String, &TaskSpec)) -> Vec<Value> {
    let endpoint = |(network, addresses): &(String, [String; 2])| {
        let mut value = json!({
            "id": format!("{id}-{network}"),
            "version": spec.version,
            "state": spec.state,
            "networkId": network,
            "nodeId": format!("n{}", spec.node),
            "taskId": id,
            "taskName": id,
            "addresses": addresses.iter().filter(|address| !address.is_empty()).collect::<Vec<_>>(),
        });
        if let Some(service) = &spec.service {
            value["serviceId"] = json!(service);
        }
        extend(&mut value, &mac(addresses));
        extend(&mut value, &spec.endpoint);
        value
    };
    spec.networks.iter().map(endpoint).collect()
}

fn extend(value: &mut Value, extra: &Map<String, Value>) {
    for (field, extra) in extra {
        value[field] = extra.clone();
    }
}
