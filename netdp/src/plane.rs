//! The data plane of a node: every namespace of ours, brought to the desired state.

mod going;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::balancer::Balancer;
use crate::build::{self, Index, Underlay, View};
use crate::desired::{Backend, Desired, Engine, Node, Protocol};
use crate::error::NetdpError;
use crate::features::{Feature, best_engine, has, probe};
use crate::namespace::{Cleanup, Namespace, Spec, settle};
use crate::netns::Netns;
use crate::ports::PortTable;
use crate::published::Published;
use crate::report::{Healed, NetworkState, Object, Report};
use crate::underlay;

/// How long a backend drains before its flows of UDP are sent to another one: what it was asked before is
/// answered by then. Its connections stay as long as it does.
const FLOWS_STAY: Duration = Duration::from_secs(1);

/// How a data plane is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Directory for runtime files; the namespaces' files go to `netns` in it.
    pub run_dir: PathBuf,
    /// Name of the gwbridge's device.
    pub gwbridge: String,
    /// What balances published ports; `None`: IPVS where the kernel has it.
    pub engine: Option<Engine>,
}

/// A namespace that we hold.
#[derive(Debug)]
struct Held {
    namespace: Namespace,
    /// What it was last brought to; `None`: not yet without error.
    spec: Option<Spec>,
}

impl Held {
    fn new(namespace: Namespace) -> Self {
        Self {
            namespace,
            spec: None,
        }
    }
}

/// The data plane of one node. Blocking; made for a thread of its own.
#[derive(Debug)]
pub struct DataPlane {
    settings: Settings,
    engine: Engine,
    features: Vec<Feature>,
    desired: Arc<Desired>,
    node: Held,
    others: BTreeMap<Object, Held>,
    balancer: Option<Balancer>,
    ports: PortTable,
    published: Published,
    underlay: Option<Underlay>,
    /// What the underlay depends on is another than when it was looked at.
    probe_due: bool,
    /// Since when endpoints drain, by id; a data plane before this one is not asked.
    draining: BTreeMap<String, Instant>,
    /// Whether leftovers of an earlier process have been looked for.
    swept: bool,
}

impl DataPlane {
    /// Opens the data plane of the node whose network namespace the calling thread is in.
    /// Nothing is changed yet.
    ///
    /// # Errors
    /// When the kernel cannot do what every node needs, or the runtime directory cannot be made.
    pub fn open(settings: Settings) -> Result<Self, NetdpError> {
        let directory = settings.run_dir.join("netns");
        for directory in [directory, build::records(&settings.run_dir)] {
            fs::create_dir_all(&directory).map_err(NetdpError::file("create", &directory))?;
        }
        let features = probe();
        let engine = match settings.engine {
            Some(Engine::Ipvs) if !has(&features, "ipvs") => {
                return Err(NetdpError::Unsatisfiable(
                    "engine ipvs was asked for, but this kernel has no IPVS: load the module ip_vs, or use engine nft"
                        .to_owned(),
                ));
            }
            Some(engine) => engine,
            None => best_engine(&features),
        };
        let record = build::record_of_node(&settings.run_dir);
        let node = Namespace::open("the node".to_owned(), Netns::current()?, record)?;
        Ok(Self {
            published: Published::open(&settings.run_dir),
            settings,
            engine,
            features,
            desired: Arc::default(),
            node: Held::new(node),
            others: BTreeMap::new(),
            balancer: None,
            ports: PortTable::default(),
            underlay: None,
            probe_due: false,
            draining: BTreeMap::new(),
            swept: false,
        })
    }

    /// What balances published ports.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// What this kernel can do, by name.
    #[must_use]
    pub fn features(&self) -> Vec<Feature> {
        self.features.clone()
    }

    /// File of a task's network namespace.
    #[must_use]
    pub fn sandbox_path(&self, task: &str) -> PathBuf {
        build::netns_of_task(&self.settings.run_dir, task)
    }

    /// File of a network's namespace.
    #[must_use]
    pub fn network_path(&self, network: &str) -> PathBuf {
        build::netns_of_network(&self.settings.run_dir, network)
    }

    /// Reserves a port of the node for a task's host-mode port; 0 takes a free one from 30000 to
    /// 32767. The same holder may ask again.
    ///
    /// # Errors
    /// When somebody has the port.
    pub fn reserve_port(
        &mut self,
        holder: &str,
        protocol: Protocol,
        port: u16,
    ) -> Result<u16, NetdpError> {
        let holder = format!("task {holder}");
        self.ports
            .reserve(self.node.namespace.netns(), &holder, protocol, port)
    }

    /// Gives up the ports that a task reserved.
    pub fn release_ports(&mut self, holder: &str) {
        self.ports.release(&format!("task {holder}"));
    }

    /// Makes the kernel as `desired` says. Namespaces whose part of it did not change since the
    /// last call are left alone.
    pub fn apply(&mut self, desired: Arc<Desired>) -> Report {
        let vteps = |desired: &Desired| desired.node.as_ref().map(|node| node.vteps.clone());
        self.probe_due |=
            vteps(&self.desired) != vteps(&desired) || self.desired.peers != desired.peers;
        self.desired = desired;
        self.run(false)
    }

    /// Compares everything with the kernel, and repairs.
    pub fn reconcile(&mut self) -> Report {
        self.run(true)
    }

    fn run(&mut self, verify: bool) -> Report {
        let mut report = Report::default();
        let desired = Arc::clone(&self.desired);
        let taken = self.reserve_published(&desired, &mut report);
        let Some(node) = &desired.node else {
            // Its socket would keep the namespace alive.
            self.balancer = None;
            self.underlay = None;
            let unwanted = self.unwanted(&BTreeSet::new());
            self.disconnect(&unwanted, &mut report);
            self.retire(unwanted, &mut report);
            self.clear_node(verify, &mut report);
            let noted = self.published.set(BTreeSet::new());
            report.fail(&Object::Node, noted.err());
            return report;
        };
        let run_dir = self.settings.run_dir.clone();
        let gwbridge = self.settings.gwbridge.clone();
        let idle = Underlay::default();
        let nothing = BTreeMap::new();
        let index = Index::of(&desired, |endpoint| {
            let since = self.draining.get(endpoint);
            since.is_some_and(|since| since.elapsed() >= FLOWS_STAY)
        });
        let mut view = View {
            desired: &desired,
            index: &index,
            node,
            engine: self.engine,
            run_dir: &run_dir,
            gwbridge: &gwbridge,
            underlay: &idle,
            inodes: &nothing,
            taken: &taken,
        };
        // Without anything to build, an underlay that is not there yet is no fault.
        let underlay = if view.is_in_use() {
            if verify || self.probe_due || self.underlay.is_none() || self.node.spec.is_none() {
                self.probe_underlay(node, &desired, &mut report);
            }
            let Some(underlay) = self.underlay.clone() else {
                // Nothing can be built; what nobody wants any more goes all the same.
                let unwanted = self.unwanted(&objects(&view).into_iter().collect());
                self.disconnect(&unwanted, &mut report);
                self.retire(unwanted, &mut report);
                return report;
            };
            underlay
        } else {
            idle.clone()
        };
        view.underlay = &underlay;
        let wanted = objects(&view);
        // Also what could not be opened is somebody's. A VNI can be in one VXLAN device only: those of networks
        // that go make room for those that come.
        let unwanted = self.unwanted(&wanted.iter().cloned().collect());
        self.disconnect(&unwanted, &mut report);
        self.open_namespaces(&desired, &wanted, &mut report);
        let inodes = self.inodes();
        view.inodes = &inodes;
        let specs = specs(&view);
        let mut cleanups = Vec::new();

        // The node first: the tasks' gateway legs and the ingress' leg are made from there.
        let spec = build::node(&view);
        let cleanup = sync(
            &mut self.node,
            &Object::Node,
            spec,
            None,
            verify,
            &mut report,
        );
        cleanups.extend(cleanup.map(|cleanup| (Object::Node, cleanup)));
        // Then networks, in which tasks become reachable, then tasks, which reach them by VIPs.
        for (object, spec) in specs {
            let Some(held) = self.others.get_mut(&object) else {
                continue;
            };
            let socket = Some(&mut self.node.namespace.route);
            let cleanup = sync(held, &object, spec, socket, verify, &mut report);
            cleanups.extend(cleanup.map(|cleanup| (object.clone(), cleanup)));
        }
        let all = self.others.values_mut().chain([&mut self.node]);
        settle(all.filter_map(|held| Some((&mut held.namespace, held.spec.as_ref()?))));
        self.balance(&view, verify, &mut report);
        // From when the kernel knows of it.
        self.note_draining(&desired);
        for (object, cleanup) in cleanups {
            let held = match &object {
                Object::Node => Some(&mut self.node),
                other => self.others.get_mut(other),
            };
            if let Some(held) = held {
                report.fail(&object, held.namespace.clean(cleanup, verify));
            }
        }
        self.delete_halves(&mut report);
        self.list_networks(&view, &mut report);
        self.retire(unwanted, &mut report);
        let ports = view
            .published()
            .map(|(_, _, port)| (port.protocol, port.published));
        let noted = self.published.set(ports.collect());
        report.fail(&Object::Node, noted.err());
        report
    }

    fn note_draining(&mut self, desired: &Desired) {
        let endpoints = desired.endpoints.iter();
        let draining = endpoints.filter(|(_, endpoint)| endpoint.backend == Backend::Draining);
        let since = |id| self.draining.get(id).copied().unwrap_or_else(Instant::now);
        self.draining = draining.map(|(id, _)| (id.clone(), since(id))).collect();
    }

    /// Holds the services' published ports; the ones that somebody else has are returned, and are
    /// not published, unless they have been before.
    fn reserve_published(
        &mut self,
        desired: &Desired,
        report: &mut Report,
    ) -> BTreeSet<(Protocol, u16)> {
        let holder = |id: &str| format!("service {id}");
        let wanted: BTreeMap<(Protocol, u16), String> = desired
            .services
            .iter()
            .flat_map(|(id, s)| {
                s.ports
                    .iter()
                    .map(|p| ((p.protocol, p.published), holder(id)))
            })
            .collect();
        self.ports.retain(|holder, protocol, port| {
            !holder.starts_with("service ")
                || wanted
                    .get(&(protocol, port))
                    .is_some_and(|wanted| wanted == holder)
        });
        let mut taken = BTreeSet::new();
        for (id, service) in &desired.services {
            for port in &service.ports {
                let netns = self.node.namespace.netns();
                let reserved =
                    self.ports
                        .reserve(netns, &holder(id), port.protocol, port.published);
                if let Err(error) = reserved {
                    // Any other failure is no reason to withdraw a port that works.
                    let key = (port.protocol, port.published);
                    let withdrawn = match error {
                        NetdpError::PortTaken { .. } => !self.published.contains(key),
                        NetdpError::PortHeld { .. } => true,
                        _ => false,
                    };
                    if withdrawn {
                        taken.insert(key);
                    }
                    report.fail(&Object::Service(id.clone()), [error]);
                }
            }
        }
        taken
    }

    fn probe_underlay(&mut self, node: &Node, desired: &Desired, report: &mut Report) {
        // Tasks that only end, after everything left the assignment, this node's record too, ask for
        // no tunnel.
        if !(node.vteps.is_empty() && desired.endpoints.is_empty()) {
            let socket = &mut self.node.namespace.route;
            match underlay::probe(socket, node, desired.peers.values()) {
                Ok(underlay) => {
                    self.underlay = Some(underlay);
                    self.probe_due = false;
                }
                // What was known before is better than nothing: an address may come back.
                Err(error) => report.fail(&Object::Node, [error]),
            }
        }
        if self.underlay.is_none() {
            // A daemon before this one knew it.
            let built = self.node.namespace.mtu_as_built(&self.settings.gwbridge);
            match built {
                Ok(mtu) => self.underlay = mtu.map(|mtu| Underlay { mtu }),
                Err(error) => report.fail(&Object::Node, [error]),
            }
        }
    }

    /// Opens, or makes, every namespace that is wanted. One that was replaced behind our back is
    /// opened anew.
    fn open_namespaces(&mut self, desired: &Desired, objects: &[Object], report: &mut Report) {
        for object in objects {
            let (path, name) = match object {
                Object::Network(id) => {
                    let name = desired.networks.get(id).map_or(id, |network| &network.name);
                    (self.network_path(id), format!("network {name}"))
                }
                Object::Sandbox(id) => {
                    let name = desired
                        .sandboxes
                        .get(id)
                        .map_or(id, |sandbox| &sandbox.name);
                    (self.sandbox_path(id), format!("task {name}"))
                }
                Object::Node | Object::Service(_) => continue,
            };
            let held = self.others.get(object);
            let mounted = held.map_or(Ok(()), |held| held.namespace.netns().mount_again());
            let opened = mounted
                .and_then(|()| Netns::ensure(&path))
                .and_then(|netns| {
                    let inode = netns.inode()?;
                    let same =
                        |held: &Held| held.namespace.netns().inode().is_ok_and(|i| i == inode);
                    if !self.others.get(object).is_some_and(same) {
                        let record = build::record(&self.settings.run_dir, &path);
                        let held = Held::new(Namespace::open(name, netns, record)?);
                        self.others.insert(object.clone(), held);
                    }
                    Ok(())
                });
            if let Err(error) = opened {
                report.fail(object, [error]);
            }
        }
    }

    fn inodes(&self) -> BTreeMap<String, u64> {
        let inodes = self
            .others
            .iter()
            .filter_map(|(object, held)| match object {
                Object::Sandbox(id) => Some((id.clone(), held.namespace.netns().inode().ok()?)),
                _ => None,
            });
        inodes.collect()
    }

    fn balance(&mut self, view: &View<'_>, verify: bool, report: &mut Report) {
        let Some((id, _)) = view.ingress_network().filter(|_| view.has_ingress()) else {
            self.balancer = None;
            return;
        };
        let object = Object::Network(id.to_owned());
        let Some(held) = self.others.get(&object) else {
            return;
        };
        let netns = held.namespace.netns();
        let is_open = self
            .balancer
            .as_ref()
            .is_some_and(|balancer| balancer.is_for(netns));
        let services = match self.engine {
            Engine::Ipvs => build::virtual_services(view),
            // What a daemon with the other engine left would go on balancing.
            Engine::Nft if !is_open && has(&self.features, "ipvs") => Vec::new(),
            Engine::Nft => return,
        };
        if !is_open {
            match Balancer::open(netns) {
                Ok(balancer) => self.balancer = Some(balancer),
                Err(error) => return report.fail(&object, [error]),
            }
        }
        let Some(balancer) = &mut self.balancer else {
            return;
        };
        let (changes, refusals) = balancer.sync(&services, verify);
        let healed = changes.into_iter().map(|detail| Healed {
            object: object.clone(),
            detail,
        });
        report.healed.extend(healed);
        for (service, error) in refusals {
            let object = service.map_or_else(|| object.clone(), Object::Service);
            report.fail(&object, [error]);
        }
    }

    fn list_networks(&self, view: &View<'_>, report: &mut Report) {
        for (id, network) in &view.desired.networks {
            if self.others.contains_key(&Object::Network(id.clone())) && view.is_needed(id) {
                let state = NetworkState {
                    mtu: view.mtu(network),
                    netns: self.network_path(id),
                };
                report.networks.insert(id.clone(), state);
            }
        }
    }
}

/// Every namespace that should be, but the node's.
fn objects(view: &View<'_>) -> Vec<Object> {
    let networks = view.desired.networks.keys().filter(|id| view.is_needed(id));
    let sandboxes = view.desired.sandboxes.keys();
    let networks = networks.cloned().map(Object::Network);
    networks
        .chain(sandboxes.cloned().map(Object::Sandbox))
        .collect()
}

/// Their specs. Networks sort before sandboxes.
fn specs(view: &View<'_>) -> BTreeMap<Object, Spec> {
    let specs = objects(view).into_iter().filter_map(|object| {
        let spec = match &object {
            Object::Network(id) => build::overlay(view, id, view.desired.networks.get(id)?),
            Object::Sandbox(id) => build::task(view, id, view.desired.sandboxes.get(id)?),
            Object::Node | Object::Service(_) => return None,
        };
        Some((object, spec))
    });
    specs.collect()
}

/// Brings one namespace to its spec; what is to be removed later.
fn sync(
    held: &mut Held,
    object: &Object,
    spec: Spec,
    node: Option<&mut crate::netlink::RouteSocket>,
    verify: bool,
    report: &mut Report,
) -> Option<Cleanup> {
    let unchanged = held.spec.as_ref() == Some(&spec);
    if unchanged && !verify {
        return None;
    }
    let synced = held.namespace.sync(&spec, node, verify);
    // Nobody damages pins; what else had to be changed was damaged.
    let pins = spec.pins.clone();
    let before = held.spec.take().map(|before| Spec { pins, ..before });
    if before.as_ref() == Some(&spec) {
        let object = || object.clone();
        let healed = synced.changes.into_iter();
        report.healed.extend(healed.map(|detail| Healed {
            object: object(),
            detail,
        }));
    }
    held.spec = synced.errors.is_empty().then_some(spec);
    report.fail(object, synced.errors);
    Some(synced.cleanup)
}
