//! What all parts of the daemon share: what is held, what is known of each task, and the handles
//! to store and data plane.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use fairlead_api::v1;
use ipnet::IpNet;
use netdp::Report;
use tokio::sync::watch;

use crate::config::Options;
use crate::events::EventLog;
use crate::filters::Filters;
use crate::ipam;
use crate::model::Assignment;
use crate::plan::{self, Plan, View};
use crate::plane::{Host, Plane, PlaneError};
use crate::record::Local;
use crate::status::StatusBoard;
use crate::store::{Content, Op, Store, StoreError, Written};
use crate::task::Want;
use crate::validate::{self, Violations};

/// A daemon never gives out as many numbers between two starts.
const SEQUENCE_BLOCK: u64 = 1 << 32;

/// See the module.
#[derive(Debug)]
pub struct Node {
    /// Flags.
    pub options: Options,
    /// The shim's program.
    pub shim: PathBuf,
    /// What must be known after a crash.
    pub store: Store,
    /// Images and snapshots.
    pub images: Arc<image::Store>,
    /// Compiled filters of system calls.
    pub filters: Filters,
    /// The latest status of each task.
    pub statuses: StatusBoard,
    /// What the data plane did.
    pub events: EventLog,
    /// Probes of tasks' health that run at once.
    pub probes: tokio::sync::Semaphore,
    /// Images that are sent or received at once; each holds a thread as long as the other side likes.
    pub transfers: Arc<tokio::sync::Semaphore>,
    /// One assignment at a time.
    pub assigning: tokio::sync::Mutex<()>,
    held: Mutex<View>,
    wants: Mutex<HashMap<String, watch::Sender<Want>>>,
    plane: OnceLock<Plane>,
    /// The address that was given out last, by subnet.
    last_gateway: Mutex<BTreeMap<IpNet, IpAddr>>,
}

/// Why the daemon cannot go on from what it stored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its content.
    #[error("the stored {what} is not what this version writes: {reason}")]
    Content {
        /// Which part.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Archives of images that are sent or received at once; more wait for their turn.
const TRANSFERS: usize = 8;

/// Probes mostly wait for an answer, but each begins as a few processes.
fn probes_at_once() -> usize {
    4 * std::thread::available_parallelism().map_or(1, usize::from)
}

impl Node {
    /// Takes up what was stored.
    ///
    /// # Errors
    /// When it makes no sense to this version.
    pub async fn restore(
        options: Options,
        shim: PathBuf,
        images: image::Store,
        store: Store,
        content: Content,
    ) -> Result<Self, RestoreError> {
        let base = content.sequence_ceiling;
        store
            .write(vec![Op::SequenceCeiling(
                base.saturating_add(SEQUENCE_BLOCK),
            )])
            .await?;
        let assignment = restore_assignment(&content)?;
        let statuses = StatusBoard::new(base);
        let mut locals = BTreeMap::new();
        for (id, record) in content.records {
            let mut local = Local::restore(record).map_err(|reason| RestoreError::Content {
                what: format!("record of task {id:?}"),
                reason,
            })?;
            match assignment.tasks.get(&id) {
                // The assignment was written first; the record may not have followed any more.
                Some(def) if !local.record.removing => local.def = Arc::clone(def),
                _ => local.record.removing = true,
            }
            statuses.restore(local.status());
            locals.insert(id, Arc::new(local));
        }
        for (id, def) in &assignment.tasks {
            locals
                .entry(id.clone())
                .or_insert_with(|| Arc::new(Local::new(Arc::clone(def))));
        }
        let held = View {
            config: content.config,
            assignment: Arc::new(assignment),
            locals,
        };
        Ok(Self {
            options,
            filters: Filters::default(),
            shim,
            store,
            images: Arc::new(images),
            statuses,
            events: EventLog::new(base),
            transfers: Arc::new(tokio::sync::Semaphore::new(TRANSFERS)),
            probes: tokio::sync::Semaphore::new(probes_at_once()),
            assigning: tokio::sync::Mutex::new(()),
            held: Mutex::new(held),
            wants: Mutex::new(HashMap::new()),
            plane: OnceLock::new(),
            last_gateway: Mutex::new(BTreeMap::new()),
        })
    }

    /// Hands over the data plane; once, before anything else is begun.
    pub fn attach(&self, plane: Plane) {
        // A second one would be a mistake of the start-up code; the first stays in use.
        let _ = self.plane.set(plane);
    }

    /// The data plane.
    ///
    /// # Errors
    /// Before [`Node::attach`].
    pub fn plane(&self) -> Result<&Plane, PlaneError> {
        self.plane.get().ok_or(PlaneError::Ended)
    }

    fn lock(&self) -> MutexGuard<'_, View> {
        // Every change under this lock is one assignment of a finished value.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is held now.
    #[must_use]
    pub fn view(&self) -> View {
        self.lock().clone()
    }

    /// One task.
    #[must_use]
    pub fn local(&self, task: &str) -> Option<Arc<Local>> {
        self.lock().locals.get(task).cloned()
    }

    /// Sets who this node is.
    pub fn set_config(&self, config: v1::NodeConfig) {
        self.lock().config = Some(config);
    }

    /// Takes over an assignment that is in the store already; what is wanted now of each task that
    /// came, changed or left with it.
    ///
    /// The tasks' records are changed where they are, because their followers change them too. They
    /// are written after the assignment: what is said here follows from it ([`Node::restore`]).
    pub fn set_assignment(&self, assignment: Assignment) -> Vec<(String, Want)> {
        let mut held = self.lock();
        let held = &mut *held;
        let mut changed = Vec::new();
        for (id, def) in &assignment.tasks {
            let local = held.locals.entry(id.clone()).or_insert_with(|| {
                changed.push(id.clone());
                Arc::new(Local::new(Arc::clone(def)))
            });
            // A task on its way out stays on it; it begins anew when it has gone.
            if !local.record.removing && local.def.proto != def.proto {
                let local = Arc::make_mut(local);
                local.def = Arc::clone(def);
                local.record.task = Some(def.proto.clone());
                changed.push(id.clone());
            }
        }
        for (id, local) in &mut held.locals {
            if !assignment.tasks.contains_key(id) && !local.record.removing {
                Arc::make_mut(local).record.removing = true;
                changed.push(id.clone());
            }
        }
        held.assignment = Arc::new(assignment);
        let changed: Vec<&Arc<Local>> = changed
            .iter()
            .filter_map(|id| held.locals.get(id))
            .collect();
        let put = |l: &&Arc<Local>| Op::PutTask(l.def.proto.id.clone(), Box::new(l.record.clone()));
        self.store.write_later(changed.iter().map(put).collect());
        changed
            .iter()
            .map(|local| (local.def.proto.id.clone(), local.want()))
            .collect()
    }

    /// Changes what is known of a task and queues it for the store, in this order with all other
    /// changes. A changed status gets its number and is seen by the watchers. The future ends when
    /// it is on disk.
    pub fn update(&self, task: &str, change: impl FnOnce(&mut Local)) -> Written {
        self.change(task, change, |ops| self.store.write(ops))
    }

    /// As [`Node::update`], for what need not be on disk before the next step.
    pub fn note(&self, task: &str, change: impl FnOnce(&mut Local)) {
        self.change(task, change, |ops| self.store.write_later(ops));
    }

    fn change<T>(
        &self,
        task: &str,
        change: impl FnOnce(&mut Local),
        write: impl FnOnce(Vec<Op>) -> T,
    ) -> T {
        let mut held = self.lock();
        let mut ops = Vec::new();
        if let Some(local) = held.locals.get_mut(task) {
            let local = Arc::make_mut(local);
            let before = local.record.status.clone();
            change(local);
            if local.record.status != before
                && let Some(status) = &mut local.record.status
            {
                self.statuses.publish(status);
            }
            ops.push(Op::PutTask(task.to_owned(), Box::new(local.record.clone())));
        }
        // Sent to the store before the lock is given back: that keeps the order.
        write(ops)
    }

    /// Shows what a task's health check has found. Nothing of it is stored.
    pub fn show_health(&self, task: &str, health: v1::TaskHealth) {
        if let Some(local) = self.lock().locals.get_mut(task) {
            Arc::make_mut(local).health = Some(Arc::new(health));
        }
    }

    /// Gives a task an address of each subnet of the gwbridge, unless it has them; the future as
    /// in [`Node::update`].
    ///
    /// # Errors
    /// The subnet that is full.
    pub fn take_gateway(&self, task: &str, subnets: &[IpNet]) -> Result<Written, IpNet> {
        let mut last = self
            .last_gateway
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let used: BTreeSet<IpAddr> = self
            .lock()
            .locals
            .values()
            .filter(|local| local.def.proto.id != task)
            .flat_map(|local| local.gateway_addresses().collect::<Vec<_>>())
            .collect();
        let mut addresses = Vec::new();
        for subnet in subnets {
            let address =
                ipam::allocate(*subnet, &used, last.get(subnet).copied()).ok_or(*subnet)?;
            addresses.push(address);
        }
        for (subnet, address) in subnets.iter().zip(&addresses) {
            last.insert(*subnet, address.addr());
        }
        // Still under the lock of `last_gateway`, so nobody else has chosen meanwhile.
        Ok(self.update(task, |local| {
            if local.gateway.is_empty() {
                local.record.gateway = addresses.iter().map(ToString::to_string).collect();
                local.gateway = addresses;
            }
        }))
    }

    /// Forgets a task without any trace left. If the agent has assigned it again meanwhile, it
    /// begins anew: its new record is returned.
    pub fn forget(&self, task: &str) -> Option<Arc<Local>> {
        let mut held = self.lock();
        let held = &mut *held;
        held.locals.remove(task);
        self.statuses.remove(task);
        let again = held.assignment.tasks.get(task).map(|def| {
            let local = Arc::new(Local::new(Arc::clone(def)));
            held.locals.insert(task.to_owned(), Arc::clone(&local));
            local
        });
        let op = match &again {
            Some(local) => Op::PutTask(task.to_owned(), Box::new(local.record.clone())),
            None => Op::RemoveTask(task.to_owned()),
        };
        self.store.write_later(vec![op]);
        again
    }

    /// Tells the task what is wanted of it; `None` when it is followed already, else the receiver
    /// for a new follower.
    pub fn want(&self, task: &str, want: Want) -> Option<watch::Receiver<Want>> {
        let mut wants = self.wants.lock().unwrap_or_else(PoisonError::into_inner);
        match wants.get(task) {
            Some(sender) => {
                sender.send_if_modified(|old| std::mem::replace(old, want) != want);
                None
            }
            None => {
                let (sender, receiver) = watch::channel(want);
                wants.insert(task.to_owned(), sender);
                Some(receiver)
            }
        }
    }

    /// Nobody follows the task any more.
    pub fn unfollow(&self, task: &str) {
        self.wants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(task);
    }
}

/// The data plane's view of the node.
#[derive(Debug, Clone)]
pub struct PlaneHost(pub Arc<Node>);

impl Host for PlaneHost {
    fn plan(&self) -> Plan {
        plan::plan(&self.0.view())
    }

    fn applied(&self, plan: &Plan, report: &Report) {
        self.0.events.report(plan, report);
    }
}

fn restore_assignment(content: &Content) -> Result<Assignment, RestoreError> {
    let mut v = Violations::default();
    let mut assignment = Assignment {
        results_in: content.results_in.clone(),
        ..Assignment::default()
    };
    macro_rules! take {
        ($field:ident, $parse:path) => {
            for proto in &content.$field {
                if let Some(def) = $parse(&mut v, proto) {
                    assignment.$field.insert(proto.id.clone(), Arc::new(def));
                }
            }
        };
    }
    take!(tasks, validate::task);
    take!(networks, validate::network);
    take!(services, validate::service);
    take!(nodes, validate::node);
    take!(endpoints, validate::endpoint);
    if let Some(own) = &content.own_record
        && let Some(node) = assignment.nodes.get_mut(&own.node)
        && node.proto.version == own.version
    {
        Arc::make_mut(node).answers_since = own.answers_since;
    }
    match v.list().first() {
        None => Ok(assignment),
        Some(violation) => Err(RestoreError::Content {
            what: violation.field.clone(),
            reason: violation.reason.clone(),
        }),
    }
}
