//! Nodes, an underlay and a client as network namespaces of the test's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use ipnet::IpNet;
use netdp::{
    Backend, DataPlane, Desired, Endpoint, Engine, Gateway, Leg, Mac, Network, Node, Peer, Port,
    Protocol, Report, Sandbox, Segment, Service, Settings, Steering,
};
use nix::sched::{CloneFlags, setns};

pub const WAIT: Duration = Duration::from_secs(5);

/// Runs a tool; its output. Panics when it fails.
pub fn sh(command: &str) -> String {
    let output = Command::new("sh")
        .arg("-c")
        .arg(command)
        .output()
        .expect("sh runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command}: {}\n{text}{errors}",
        output.status
    );
    text
}

/// Runs `work` on a thread inside a namespace.
pub fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(
                File::open(netns).expect("namespace opens"),
                CloneFlags::CLONE_NEWNET,
            )
            .expect("namespace is entered");
            work()
        });
        thread.join().expect("work in a namespace")
    })
}

type Job = Box<dyn FnOnce(&mut DataPlane) + Send>;

/// A node: a namespace, and a thread in it that owns a data plane.
pub struct NodeUnderTest {
    pub netns: PathBuf,
    pub run_dir: PathBuf,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl NodeUnderTest {
    fn start(netns: PathBuf, run_dir: PathBuf) -> Self {
        let mut node = Self {
            netns,
            run_dir,
            jobs: None,
            thread: None,
        };
        node.open();
        node
    }

    /// Opens a data plane; an earlier one is dropped without any farewell, as a crash would.
    pub fn open(&mut self) {
        self.open_with(match std::env::var("FAIRLEAD_TEST_ENGINE").as_deref() {
            Ok("nft") => Some(Engine::Nft),
            Ok("ipvs") => Some(Engine::Ipvs),
            _ => None,
        });
    }

    /// The same, with an engine of the test's choice.
    pub fn open_with(&mut self, engine: Option<Engine>) {
        self.close();
        let (sender, receiver) = mpsc::channel::<Job>();
        let (netns, run_dir) = (self.netns.clone(), self.run_dir.clone());
        let thread = std::thread::spawn(move || {
            setns(File::open(netns).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            let settings = Settings {
                run_dir,
                gwbridge: "fl_gwbridge".to_owned(),
                engine,
            };
            let mut plane = DataPlane::open(settings).expect("data plane opens");
            for job in receiver {
                job(&mut plane);
            }
        });
        self.jobs = Some(sender);
        self.thread = Some(thread);
    }

    pub fn close(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    pub fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut DataPlane) -> T + Send + 'static,
    ) -> T {
        let (sender, receiver) = mpsc::channel();
        let job: Job = Box::new(move |plane| drop(sender.send(work(plane))));
        self.jobs
            .as_ref()
            .unwrap()
            .send(job)
            .expect("the data plane's thread lives");
        receiver.recv().expect("the data plane's thread answers")
    }

    pub fn apply(&self, desired: &Desired) -> Report {
        let desired = Arc::new(desired.clone());
        self.with(move |plane| plane.apply(desired))
    }
}

/// The whole cluster.
pub struct Lab {
    name: String,
    dir: PathBuf,
    pub nodes: Vec<NodeUnderTest>,
    pub desired: Vec<Desired>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.close();
        }
        self.clear();
    }
}

pub const APP: &str = "app";
pub const INGRESS: &str = "ingress";

pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Lab {
    /// Nodes `192.0.2.1` and so on, and a client `192.0.2.100`.
    pub fn new(test: &str, count: usize) -> Self {
        Self::on(test, count, "192.0.2")
    }

    /// The same on another underlay subnet of 24 bits.
    pub fn on(test: &str, count: usize, subnet: &str) -> Self {
        let name = format!("fl-{test}");
        let dir = std::env::temp_dir().join(&name);
        let mut lab = Self {
            name,
            dir,
            nodes: Vec::new(),
            desired: Vec::new(),
        };
        // Of a run that was killed.
        lab.clear();
        std::fs::create_dir_all(&lab.dir).unwrap();
        let name = lab.name.clone();
        sh(&format!(
            "ip netns add {name}-sw; ip -n {name}-sw link set lo up; ip -n {name}-sw link add sw0 type bridge; ip -n {name}-sw link set sw0 up"
        ));
        lab.attach("c", &format!("{subnet}.100"));
        for i in 1..=count {
            lab.attach(&format!("n{i}"), &format!("{subnet}.{i}"));
            let node = NodeUnderTest::start(
                PathBuf::from(format!("/run/netns/{name}-n{i}")),
                lab.dir.join(format!("n{i}")),
            );
            lab.nodes.push(node);
        }
        lab.desired = (1..=count).map(|i| desired(i, count, subnet)).collect();
        lab
    }

    /// Takes away all that has its name.
    fn clear(&self) {
        let _ = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "for f in {0}/*/netns/*; do umount -l $f; done; rm -rf {0}; for n in $(ip netns ls | awk '{{print $1}}' | grep '^{1}-'); do ip netns del $n; done",
                self.dir.display(), self.name
            ))
            .output();
    }

    fn attach(&self, who: &str, address: &str) {
        let name = &self.name;
        let last = address.rsplit('.').next().unwrap();
        sh(&format!(
            "ip netns add {name}-{who}; ip -n {name}-{who} link set lo up
             ip -n {name}-sw link add p{who} type veth peer name eth0 netns {name}-{who}
             ip -n {name}-sw link set p{who} master sw0 up
             ip -n {name}-{who} link set eth0 up
             ip -n {name}-{who} addr add {address}/24 dev eth0
             ip -n {name}-{who} addr add 2001:db8::{last}/64 dev eth0 nodad"
        ));
    }

    pub fn client(&self) -> PathBuf {
        PathBuf::from(format!("/run/netns/{}-c", self.name))
    }

    pub fn exec(&self, who: &str, command: &str) -> String {
        sh(&format!("ip netns exec {}-{who} {command}", self.name))
    }

    /// Whether bridged packets of a node pass its IP rules. False where the kernel does not have that
    /// switch: a machine of its own (scripts/vm, told by `FAIRLEAD_REQUIRE_IPVS`) must have it; on
    /// others the module is not loaded, as it changes what all bridges do.
    pub fn filter_bridges(&self, who: &str, on: bool) -> bool {
        if std::env::var_os("FAIRLEAD_REQUIRE_IPVS").is_some_and(|value| value == "1") {
            sh("modprobe br_netfilter");
        }
        let there = Path::new("/proc/sys/net/bridge").exists();
        if there {
            let value = u8::from(on);
            let setting = format!(
                "sysctl -qw net.bridge.bridge-nf-call-iptables={value} net.bridge.bridge-nf-call-ip6tables={value}"
            );
            self.exec(who, &setting);
        }
        there
    }

    /// File of a task's namespace; tasks are named `t<node>-<n>`.
    pub fn task(&self, task: &str) -> PathBuf {
        let node = task[1..].split('-').next().unwrap();
        self.dir.join(format!("n{node}/netns/task-{task}"))
    }

    pub fn network(&self, node: usize, network: &str) -> PathBuf {
        self.dir.join(format!("n{node}/netns/net-{network}"))
    }

    /// Adds a task of service `web` (on app and ingress) or of none (on app) to a node, known to
    /// all.
    pub fn add_task(&mut self, node: usize, number: u8, service: Option<&str>) -> String {
        let id = format!("t{node}-{number}");
        let app4 = IpAddr::from([10, 1, 0, number]);
        let app6: IpAddr = format!("fd01::{number:x}").parse().unwrap();
        let in4 = IpAddr::from([10, 0, 0, number]);
        let in6: IpAddr = format!("fd00::{number:x}").parse().unwrap();
        let mac = |address| match address {
            IpAddr::V4(address) => Mac::of_ipv4(address),
            IpAddr::V6(_) => unreachable!(),
        };
        let mut legs = vec![Leg {
            network: APP.into(),
            ifname: "eth0".into(),
            addresses: vec![IpNet::new(app4, 24).unwrap(), IpNet::new(app6, 64).unwrap()],
            mac: mac(app4),
        }];
        let mut networks = vec![(APP, [app4, app6])];
        if service.is_some() {
            legs.push(Leg {
                network: INGRESS.into(),
                ifname: "eth1".into(),
                addresses: vec![IpNet::new(in4, 24).unwrap(), IpNet::new(in6, 64).unwrap()],
                mac: mac(in4),
            });
            networks.push((INGRESS, [in4, in6]));
        }
        let host = number;
        let gateway = Gateway {
            ifname: format!("eth{}", legs.len()),
            addresses: vec![
                net(&format!("172.18.0.{host}/16")),
                net(&format!("fd18::{host:x}/64")),
            ],
        };
        let sandbox = Sandbox {
            name: id.clone(),
            legs,
            gateway: Some(gateway),
            host_ports: Vec::new(),
            resolver: None,
        };
        self.desired[node - 1].sandboxes.insert(id.clone(), sandbox);
        for desired in &mut self.desired {
            for (network, addresses) in &networks {
                let endpoint = Endpoint {
                    network: (*network).into(),
                    node: format!("n{node}"),
                    task: id.clone(),
                    task_name: id.clone(),
                    addresses: addresses.to_vec(),
                    mac: mac(addresses[0]),
                    service: service.map(str::to_owned),
                    aliases: BTreeSet::new(),
                    task_aliases: BTreeSet::new(),
                    backend: Backend::Enabled(1),
                };
                desired
                    .endpoints
                    .insert(format!("{id}-{network}"), endpoint);
            }
        }
        id
    }

    pub fn set_backend(&mut self, task: &str, backend: Backend) {
        for desired in &mut self.desired {
            for endpoint in desired.endpoints.values_mut().filter(|e| e.task == task) {
                endpoint.backend = backend;
            }
        }
    }

    pub fn set_ports(&mut self, ports: &[Port]) {
        for desired in &mut self.desired {
            desired.services.get_mut("web").unwrap().ports = ports.to_vec();
        }
    }

    /// Has the first node repair `damage`, which it has to tell; what a last look then finds.
    pub fn heal(&self, damage: &str) -> Report {
        let mut healed = Vec::new();
        // A link that a bridge's or veth's loss takes along may need a second look.
        for _ in 0..3 {
            let report = self.nodes[0].with(DataPlane::reconcile);
            healed.extend(report.healed);
            if report.failures.is_empty() {
                break;
            }
        }
        assert!(!healed.is_empty(), "{damage}: nothing was reported");
        let report = self.nodes[0].with(DataPlane::reconcile);
        assert!(
            report.failures.is_empty(),
            "{damage}: {:?}",
            report.failures
        );
        report
    }

    /// Applies on all nodes; nothing may fail.
    pub fn apply(&self) {
        for (i, (node, desired)) in self.nodes.iter().zip(&self.desired).enumerate() {
            let mut tries = 0..100;
            loop {
                let report = node.apply(desired);
                let failures = report.failures.iter();
                let failures: Vec<String> = failures
                    .map(|failure| format!("{}: {}", failure.object, failure.error))
                    .collect();
                // What another test has just begun to start holds the ports of a data plane before this one
                // until it executes its program.
                let held = failures.iter().all(|text| text.contains("already in use"));
                if failures.is_empty() || !held || tries.next().is_none() {
                    assert!(failures.is_empty(), "node {}: {failures:#?}", i + 1);
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// New data planes in the place of the old ones. They find nothing to repair.
    pub fn take_over(&mut self) {
        for node in &mut self.nodes {
            node.open();
        }
        self.apply();
        for node in &self.nodes {
            let report = node.with(DataPlane::reconcile);
            assert!(
                report.failures.is_empty() && report.healed.is_empty(),
                "{report:?}"
            );
        }
    }

    /// A server on port 80 TCP and 53 UDP of a task, that says who it is and whom it saw.
    pub fn serve(&self, task: &str) {
        self.serve_as(task, task, 80, 53);
    }

    /// The same under another name and on other ports. Over UDP it says at least as much as it was
    /// asked.
    pub fn serve_as(&self, task: &str, name: &str, tcp: u16, udp: u16) {
        let (tcp, udp) = inside(&self.task(task), || {
            (
                TcpListener::bind(("::", tcp)).unwrap(),
                UdpSocket::bind(("::", udp)).unwrap(),
            )
        });
        let udp_name = name.to_owned();
        let name = name.to_owned();
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let Ok(mut stream) = stream else { return };
                let name = name.clone();
                std::thread::spawn(move || {
                    let Ok(peer) = stream.peer_addr() else { return };
                    let answer = format!("{name} {}", plain(peer.ip()));
                    let mut buffer = [0; 1024];
                    while let Ok(n) = stream.read(&mut buffer) {
                        if n == 0 || stream.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 1 << 16];
            while let Ok((asked, peer)) = udp.recv_from(&mut buffer) {
                let mut answer = format!("{udp_name} {}", plain(peer.ip())).into_bytes();
                answer.resize(answer.len().max(asked), b' ');
                let _ = udp.send_to(&answer, peer);
            }
        });
    }
}

fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn desired(i: usize, count: usize, subnet: &str) -> Desired {
    let segment = |vni, v4: &str, v6: &str| Segment {
        vni,
        subnets: vec![net(v4), net(v6)],
    };
    let network = |name: &str, ingress, segment| Network {
        name: name.into(),
        segments: vec![segment],
        ingress,
        internal: false,
        mtu: None,
    };
    let steering = |i: usize| Steering::new(u32::try_from(i).unwrap());
    let peers = (1..=count).filter(|peer| *peer != i).map(|peer| {
        let vteps = vec![
            ip(&format!("{subnet}.{peer}")),
            ip(&format!("2001:db8::{peer}")),
        ];
        (
            format!("n{peer}"),
            Peer {
                vteps,
                ingress: steering(peer),
            },
        )
    });
    let web = Service {
        name: "web".into(),
        vips: vec![(APP.into(), ip("10.1.0.2")), (APP.into(), ip("fd01::2"))],
        ports: vec![
            Port {
                protocol: Protocol::Tcp,
                published: 8080,
                target: 80,
            },
            Port {
                protocol: Protocol::Udp,
                published: 5353,
                target: 53,
            },
        ],
        scheduler: None,
    };
    Desired {
        node: Some(Node {
            id: format!("n{i}"),
            vteps: vec![ip(&format!("{subnet}.{i}")), ip(&format!("2001:db8::{i}"))],
            vxlan_port: 4789,
            gwbridge: vec![net("172.18.0.1/16"), net("fd18::1/64")],
            ingress: steering(i),
        }),
        peers: peers.collect(),
        networks: BTreeMap::from([
            (
                APP.into(),
                network("app", false, segment(4097, "10.1.0.0/24", "fd01::/64")),
            ),
            (
                INGRESS.into(),
                network("ingress", true, segment(4096, "10.0.0.0/24", "fd00::/64")),
            ),
        ]),
        sandboxes: BTreeMap::new(),
        endpoints: BTreeMap::new(),
        services: BTreeMap::from([("web".into(), web)]),
    }
}
