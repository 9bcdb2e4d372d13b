//! Nodes, the underlay that joins them, and a client that is no node.

use std::collections::BTreeMap;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::Uid;
use serde_json::{Map, Value, json};

use crate::cleanup::Names;
use crate::client::tell_task;
use crate::image;
use crate::node::Node;
use crate::spec::{NetworkSpec, ServiceSpec, Spec, TaskSpec};
use crate::tools::{output, result, sh, wait_for};

/// The overlay network that every cluster has.
pub const APP: &str = "app";
/// The ingress network that every cluster has.
pub const INGRESS: &str = "ingress";

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Builder {
    test: String,
    nodes: usize,
    underlay: String,
    mtu: Option<u32>,
    interval: Option<&'static str>,
}

impl Builder {
    /// The daemons repair as often as they do by default, not as often as is good for tests.
    #[must_use]
    pub fn default_interval(mut self) -> Self {
        self.interval = None;
        self
    }

    /// First three bytes of the underlay's IPv4 addresses; by default 192.0.2.
    #[must_use]
    pub fn underlay(mut self, first_three_bytes: &str) -> Self {
        self.underlay = first_three_bytes.to_owned();
        self
    }

    /// MTU of the underlay in bytes.
    #[must_use]
    pub fn mtu(mut self, bytes: u32) -> Self {
        self.mtu = Some(bytes);
        self
    }

    /// Makes the namespaces, and starts the daemons.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn start(self) -> Cluster {
        let mut cluster = self.without_daemons();
        for node in &mut cluster.nodes {
            node.start();
        }
        cluster
    }

    /// Makes the namespaces only.
    ///
    /// # Panics
    /// When they cannot be made.
    #[must_use]
    pub fn without_daemons(self) -> Cluster {
        assert!(Uid::effective().is_root(), "these tests need root");
        let names = Names::new(&self.test);
        let only = only_one(&names.prefix);
        let problems = names.remove_all();
        assert!(problems.is_empty(), "an earlier run has left: {problems:?}");
        fs::create_dir_all(&names.dir).expect("folder");
        let switch = format!("{}-sw", names.prefix);
        sh(&format!(
            "ip netns add {switch}; ip -n {switch} link set lo up
             ip -n {switch} link add sw0 type bridge mcast_snooping 0; ip -n {switch} link set sw0 up"
        ));
        let mut cluster = Cluster {
            root: image::root(&names.dir),
            names,
            nodes: Vec::new(),
            spec: Spec::default(),
            _only: only,
        };
        cluster.attach(&self, "c", 100);
        for number in 1..=self.nodes {
            let id = format!("n{number}");
            cluster.attach(&self, &id, number);
            cluster.spec.nodes.push(json!({
                "id": id,
                "version": 1,
                "vteps": [format!("{}.{number}", self.underlay), format!("2001:db8::{number}")],
                "ingressAddresses": [format!("10.0.0.{}", number + 1), format!("fd00::{:x}", number + 1)],
                "steeringId": number,
            }));
            let node = Node::new(
                id.clone(),
                cluster.names.netns(&id),
                cluster.names.dir.join(&id),
                format!("{}.{number}", self.underlay),
                format!("2001:db8::{number}"),
                format!("{}/{id}", cluster.names.cgroup),
            );
            cluster.nodes.push(node.with_interval(self.interval));
        }
        let gwbridge = json!(["172.18.0.0/16", "fd18::/64"]);
        cluster
            .spec
            .config
            .insert("gwbridgeSubnets".to_owned(), gwbridge);
        cluster.network(INGRESS, "10.0.0", "fd00", 4096);
        cluster
            .spec_of_network(INGRESS)
            .insert("ingress".to_owned(), json!(true));
        cluster.network(APP, "10.1.0", "fd01", 4097);
        cluster
    }
}

/// Nodes, the underlay that joins them, and a client.
#[derive(Debug)]
pub struct Cluster {
    names: Names,
    nodes: Vec<Node>,
    spec: Spec,
    root: PathBuf,
    /// Held as long as the cluster exists: see [`only_one`].
    _only: UnixListener,
}

impl Cluster {
    /// A cluster of so many nodes, with daemons and without anything on it. `test` is in all names.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(test: &str, nodes: usize) -> Self {
        Self::builder(test, nodes).start()
    }

    /// A cluster that is not quite as the others.
    #[must_use]
    pub fn builder(test: &str, nodes: usize) -> Builder {
        Builder {
            test: test.to_owned(),
            nodes,
            underlay: "192.0.2".to_owned(),
            mtu: None,
            interval: Some("500ms"),
        }
    }

    fn attach(&self, builder: &Builder, part: &str, number: usize) {
        let (prefix, underlay) = (&self.names.prefix, &builder.underlay);
        sh(&format!(
            "ip netns add {prefix}-{part}; ip -n {prefix}-{part} link set lo up
             ip -n {prefix}-sw link add p{part} type veth peer name eth0 netns {prefix}-{part}
             ip -n {prefix}-sw link set p{part} master sw0 up
             ip -n {prefix}-{part} link set eth0 up
             ip -n {prefix}-{part} addr add {underlay}.{number}/24 dev eth0
             ip -n {prefix}-{part} addr add 2001:db8::{number}/64 dev eth0 nodad"
        ));
        if let Some(mtu) = builder.mtu {
            sh(&format!(
                "ip -n {prefix}-sw link set p{part} mtu {mtu}; ip -n {prefix}-{part} link set eth0 mtu {mtu}"
            ));
        }
    }

    /// A node, from 1.
    ///
    /// # Panics
    /// When there is none of that number.
    #[must_use]
    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    /// A node, from 1.
    ///
    /// # Panics
    /// When there is none of that number.
    pub fn node_mut(&mut self, number: usize) -> &mut Node {
        &mut self.nodes[number - 1]
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node that a task is on.
    ///
    /// # Panics
    /// When there is no such task.
    #[must_use]
    pub fn node_of(&self, task: &str) -> &Node {
        self.node(self.spec.tasks[task].node)
    }

    /// The network namespace of the client, `192.0.2.100` and `2001:db8::100`.
    #[must_use]
    pub fn client(&self) -> PathBuf {
        self.names.netns("c")
    }

    /// The network namespace of the underlay: the bridge `sw0`, with a port `pn1` to each node.
    #[must_use]
    pub fn underlay(&self) -> PathBuf {
        self.names.netns("sw")
    }

    /// A folder of the test's own.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.names.dir.clone()
    }

    /// The root file system of the tasks.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.root.clone()
    }

    /// An archive of that root file system, made when called.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn archive(&self) -> PathBuf {
        image::archive(&self.names.dir, &self.root)
    }

    /// Below which the nodes make their cgroups.
    #[must_use]
    pub fn cgroup(&self) -> String {
        self.names.cgroup.clone()
    }

    /// Processes, mounts and cgroups of this test, for comparison.
    #[must_use]
    pub fn traces(&self) -> Traces {
        let daemons: Vec<i32> = self
            .nodes
            .iter()
            .map(|node| node.daemon_pid().as_raw())
            .collect();
        let mut cgroups = Vec::new();
        for cgroup in self.names.cgroups() {
            // The topmost is the test's own, not the nodes'.
            cgroups.extend(folders(&cgroup).into_iter().skip(1));
        }
        Traces {
            processes: self
                .names
                .processes()
                .into_iter()
                .filter(|pid| !daemons.contains(pid))
                .map(|pid| {
                    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                    format!(
                        "{pid} {}",
                        String::from_utf8_lossy(&command).replace('\0', " ")
                    )
                })
                .collect(),
            mounts: self.names.mounts(),
            cgroups,
        }
    }

    /// Adds a network `<v4>.0/24` and `<v6>::/64`; without IPv4 when `v4` is empty.
    pub fn network(&mut self, id: &str, v4: &str, v6: &str, vni: u32) {
        self.spec
            .networks
            .insert(id.to_owned(), NetworkSpec::new(v4, v6, vni));
    }

    /// Further fields of a network.
    ///
    /// # Panics
    /// When there is no such network.
    pub fn spec_of_network(&mut self, id: &str) -> &mut Map<String, Value> {
        &mut self
            .spec
            .networks
            .get_mut(id)
            .expect("the network exists")
            .extra
    }

    /// Adds a service on network `app`; further calls return the same one.
    pub fn service(&mut self, id: &str) -> &mut ServiceSpec {
        self.service_on(id, APP)
    }

    /// Adds a service on a network; further calls return the same one.
    ///
    /// # Panics
    /// When there is no such network.
    pub fn service_on(&mut self, id: &str, network: &str) -> &mut ServiceSpec {
        if !self.spec.services.contains_key(id) {
            let vips = self
                .spec
                .networks
                .get_mut(network)
                .expect("the network exists")
                .vip();
            let service = ServiceSpec {
                network: network.to_owned(),
                vips,
                ports: Vec::new(),
                extra: Map::new(),
            };
            self.spec.services.insert(id.to_owned(), service);
        }
        self.spec.services.get_mut(id).expect("just added")
    }

    /// Takes a service away.
    pub fn remove_service(&mut self, id: &str) {
        self.spec.services.remove(id);
    }

    /// Adds a task of a service to each of these nodes, called `<service>-<number>` from 1.
    ///
    /// # Panics
    /// When there is no such service.
    pub fn replicas(&mut self, service: &str, nodes: &[usize]) {
        for node in nodes {
            let count = self
                .spec
                .tasks
                .values()
                .filter(|t| t.service.as_deref() == Some(service));
            let id = format!("{service}-{}", count.count() + 1);
            let spec = &self.spec.services[service];
            let mut networks = vec![spec.network.clone()];
            if !spec.ports.is_empty() {
                networks.push(INGRESS.to_owned());
            }
            self.add_task(&id, *node, Some(service.to_owned()), &networks);
        }
    }

    /// Adds a task of no service on network `app` to a node; it runs the tests' server.
    pub fn task(&mut self, id: &str, node: usize) -> &mut TaskSpec {
        self.add_task(id, node, None, &[APP.to_owned()])
    }

    /// Adds a task of no service on other networks to a node.
    pub fn task_on(&mut self, id: &str, node: usize, networks: &[&str]) -> &mut TaskSpec {
        let networks: Vec<String> = networks.iter().map(|&id| id.to_owned()).collect();
        self.add_task(id, node, None, &networks)
    }

    fn add_task(
        &mut self,
        id: &str,
        node: usize,
        service: Option<String>,
        networks: &[String],
    ) -> &mut TaskSpec {
        let mut addresses = |network: &String| {
            self.spec
                .networks
                .get_mut(network)
                .expect("the network exists")
                .task()
        };
        let networks = networks
            .iter()
            .map(|id| (id.clone(), addresses(id)))
            .collect();
        let mut spec = TaskSpec {
            node,
            service,
            networks,
            state: "active",
            version: 1,
            fields: Map::new(),
            endpoint: Map::new(),
        };
        spec.set(
            "/container/image",
            json!(format!("dir:{}", self.root.display())),
        );
        self.spec.tasks.insert(id.to_owned(), spec);
        self.spec.tasks.get_mut(id).expect("just added")
    }

    /// A task that was added.
    ///
    /// # Panics
    /// When there is none.
    pub fn spec_of(&mut self, task: &str) -> &mut TaskSpec {
        self.spec.tasks.get_mut(task).expect("the task exists")
    }

    /// The IPv4 address of a task on a network.
    ///
    /// # Panics
    /// When it is not on that network.
    #[must_use]
    pub fn address(&self, task: &str, network: &str) -> String {
        self.spec.tasks[task].v4(network).to_owned()
    }

    /// The IPv6 address of a task on a network.
    ///
    /// # Panics
    /// When it is not on that network.
    #[must_use]
    pub fn address6(&self, task: &str, network: &str) -> String {
        self.spec.tasks[task].v6(network).to_owned()
    }

    /// The VIPs of a service: IPv4, IPv6.
    ///
    /// # Panics
    /// When there is no such service.
    #[must_use]
    pub fn vips(&self, service: &str) -> [String; 2] {
        self.spec.services[service].vips.clone()
    }

    /// A node's record, of which every node is told; from 1.
    pub fn record_of(&mut self, number: usize) -> &mut Value {
        &mut self.spec.nodes[number - 1]
    }

    /// Takes a task away, with its endpoints.
    pub fn remove_task(&mut self, id: &str) {
        self.spec.tasks.remove(id);
    }

    /// Takes all tasks and services away.
    pub fn clear(&mut self) {
        self.spec.tasks.clear();
        self.spec.services.clear();
    }

    /// Takes away all but who the nodes are.
    pub fn clear_all(&mut self) {
        self.clear();
        self.spec.networks.clear();
    }

    /// Sets a field of `node` in every file.
    pub fn configure(&mut self, field: &str, value: Value) {
        self.spec.config.insert(field.to_owned(), value);
    }

    /// What a node is told by [`Cluster::deploy`].
    #[must_use]
    pub fn assignment(&self, number: usize) -> Value {
        self.spec
            .assignment(number, &self.node(number).socket().display().to_string())
    }

    /// Applies everything to all nodes, and waits until tasks run and endpoints are in the kernel,
    /// and until the tests' servers in the tasks listen, which is some time later.
    ///
    /// # Panics
    /// When a node refuses, or does not get there.
    pub fn deploy(&self) {
        self.apply(&["--wait", "--wait-tasks"])
            .unwrap_or_else(|error| panic!("{error}"));
        for (index, node) in self.nodes.iter().enumerate() {
            let serving = self
                .spec
                .tasks
                .iter()
                .filter(|(_, task)| task.node == index + 1 && task.runs_server());
            if serving.clone().next().is_none() {
                continue;
            }
            let tasks = node.json(&["ps"]);
            for task in tasks.as_array().into_iter().flatten() {
                if serving.clone().any(|(id, _)| task["id"] == id.as_str()) {
                    let netns = PathBuf::from(task["netns"].as_str().unwrap_or_default());
                    wait_for(&format!("the server in {}", task["id"]), || {
                        tell_task(&netns, "resolve localhost")
                    });
                }
            }
        }
    }

    /// Applies everything to all nodes, with flags of `fairlead apply`.
    ///
    /// # Errors
    /// What `fairlead apply` said.
    ///
    /// # Panics
    /// When the files cannot be written.
    pub fn apply(&self, flags: &[&str]) -> Result<String, String> {
        let mut command = Command::new(crate::programs::program("fairlead"));
        command.arg("apply").args(["--timeout", "90s"]).args(flags);
        for (index, node) in self.nodes.iter().enumerate() {
            let path = node.dir.join("assignment.yaml");
            fs::write(&path, format!("{:#}", self.assignment(index + 1))).expect("assignment");
            command.arg("-f").arg(path);
        }
        let output = output("fairlead apply", &mut command)?;
        result("fairlead apply", &output)
    }

    /// Networks, by id, as the files have them.
    #[must_use]
    pub fn networks(&self) -> BTreeMap<String, u32> {
        self.spec
            .networks
            .iter()
            .map(|(id, spec)| (id.clone(), spec.vni))
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            for node in &self.nodes {
                eprintln!("{}", node.report());
            }
            if std::env::var_os("FAIRLEAD_TEST_KEEP").is_some() {
                eprintln!("everything of {} is left as it is", self.names.prefix);
                return;
            }
        }
        for node in &mut self.nodes {
            node.abandon();
        }
        let problems = self.names.remove_all();
        if !problems.is_empty() {
            eprintln!("cannot clean up: {problems:#?}");
            assert!(failed, "cannot clean up: {problems:#?}");
        }
    }
}

/// What a test has in the kernel, beside its namespaces and daemons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// Processes: number and command line.
    pub processes: Vec<String>,
    /// Mount points.
    pub mounts: Vec<PathBuf>,
    /// cgroups, in every hierarchy.
    pub cgroups: Vec<PathBuf>,
}

fn folders(path: &std::path::Path) -> Vec<PathBuf> {
    let mut all = vec![path.to_owned()];
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries.filter_map(Result::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                all.extend(folders(&entry.path()));
            }
        }
    }
    all
}

/// Waits until no other run of the same test is under way. The kernel forgets the name when the
/// process ends, in whatever way.
fn only_one(name: &str) -> UnixListener {
    let address = SocketAddr::from_abstract_name(name).expect("a short name");
    wait_for("the end of another run of this test", || {
        UnixListener::bind_addr(&address).map_err(|error| error.to_string())
    })
}
