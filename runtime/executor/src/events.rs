//! What the data plane did: numbered, the recent ones kept, and the state of every acknowledgement
//! for a reader that comes new or comes too late.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fairlead_api::v1::event::Event as What;
use fairlead_api::v1::{
    DataPlaneError, DriftHealed, EndpointApplied, EndpointState, Event, HealthState, NodeApplied,
    TaskHealthChanged, TaskOom,
};
use netdp::{NetdpError, Object, Report};
use tokio::sync::watch;

use crate::plan::Plan;
use crate::record::now;

/// How many events are kept for readers that were away.
const KEPT: usize = 4096;

/// The same error of the same object is told again only after this time.
const QUIET: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct EventLog {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    last: u64,
    /// Every event after this one is in the ring.
    floor: u64,
    ring: VecDeque<Event>,
    nodes: BTreeMap<String, (u64, Event)>,
    endpoints: BTreeMap<String, (u64, EndpointState, Event)>,
    told: HashMap<String, (String, Instant)>,
}

impl EventLog {
    /// Numbers given out are above `base`, and above 1.
    #[must_use]
    pub fn new(base: u64) -> Self {
        // A reader that has seen nothing yet goes on from the base, and 0 would be a new reader's.
        let base = base.max(1);
        let inner = Inner {
            last: base,
            floor: base,
            ring: VecDeque::new(),
            nodes: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            told: HashMap::new(),
        };
        Self {
            inner: Mutex::new(inner),
            changed: watch::Sender::new(base),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change below is complete or not begun when it could panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events after the number, and the number to go on from. For 0, for one that is too old to be
    /// complete, and for one that was never given out: the state of every acknowledgement.
    #[must_use]
    pub fn after(&self, sequence: u64) -> (Vec<Event>, u64) {
        let inner = self.lock();
        if (inner.floor..=inner.last).contains(&sequence) {
            let start = inner
                .ring
                .partition_point(|event| event.sequence <= sequence);
            return (inner.ring.range(start..).cloned().collect(), inner.last);
        }
        let mut state: Vec<Event> = (inner.nodes.values().map(|(_, event)| event))
            .chain(inner.endpoints.values().map(|(_, _, event)| event))
            .cloned()
            .collect();
        state.sort_unstable_by_key(|event| event.sequence);
        (state, inner.last)
    }

    /// Wakes when there are more.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The last number given out.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.lock().last
    }

    /// The kernel killed a process of the task for lack of memory.
    pub fn task_oom(&self, task: &str) {
        self.tell(What::TaskOom(TaskOom {
            task_id: task.to_owned(),
        }));
    }

    /// The task became healthy or unhealthy.
    pub fn task_health(&self, task: &str, state: HealthState) {
        self.tell(What::TaskHealthChanged(TaskHealthChanged {
            task_id: task.to_owned(),
            state: state as i32,
        }));
    }

    fn tell(&self, what: What) {
        let last = {
            let mut inner = self.lock();
            inner.push(what);
            inner.last
        };
        self.changed.send_replace(last);
    }

    /// Notes what a run of the data plane did.
    pub fn report(&self, plan: &Plan, report: &Report) {
        let last = {
            let mut inner = self.lock();
            let before = inner.last;
            for healed in &report.healed {
                inner.push(What::DriftHealed(DriftHealed {
                    object: healed.object.to_string(),
                    detail: healed.detail.clone(),
                }));
            }
            inner.errors(report);
            inner.acknowledge(plan, report);
            if inner.last == before {
                return;
            }
            inner.last
        };
        self.changed.send_replace(last);
    }
}

impl Inner {
    fn push(&mut self, what: What) -> Event {
        self.last += 1;
        let event = Event {
            sequence: self.last,
            timestamp: now(),
            event: Some(what),
        };
        if self.ring.len() == KEPT
            && let Some(oldest) = self.ring.pop_front()
        {
            self.floor = oldest.sequence;
        }
        self.ring.push_back(event.clone());
        event
    }

    fn errors(&mut self, report: &Report) {
        let failing: BTreeSet<String> = report
            .failures
            .iter()
            .map(|failure| failure.object.to_string())
            .collect();
        self.told.retain(|object, _| failing.contains(object));
        for failure in &report.failures {
            let (object, error) = (failure.object.to_string(), chain(&failure.error));
            let known = self
                .told
                .get(&object)
                .is_some_and(|(text, at)| *text == error && at.elapsed() < QUIET);
            if !known {
                tracing::warn!(%object, %error, "the data plane is not as it should be");
                self.told
                    .insert(object.clone(), (error.clone(), Instant::now()));
                self.push(What::DataPlaneError(DataPlaneError { object, error }));
            }
        }
    }

    /// An acknowledgement means: the record is in the kernel, and nothing that it needs has failed.
    /// A published port that another program has is no reason to withhold one: nothing comes in by
    /// it, and a drained replica must not wait for it.
    fn acknowledge(&mut self, plan: &Plan, report: &Report) {
        let failed: BTreeSet<&Object> = report.failures.iter().map(|f| &f.object).collect();
        let node_failed = failed.contains(&Object::Node);
        // VIPs are balanced in the tasks' own namespaces.
        let clients: BTreeSet<&str> = plan
            .desired
            .sandboxes
            .iter()
            .filter(|(id, _)| failed.contains(&Object::Sandbox((*id).clone())))
            .flat_map(|(_, sandbox)| sandbox.legs.iter().map(|leg| leg.network.as_str()))
            .collect();
        let network_failed =
            |id: &str| clients.contains(id) || failed.contains(&Object::Network(id.to_owned()));
        self.nodes.retain(|id, _| plan.nodes.contains_key(id));
        // One that IPVS refused leads where it led before, or nowhere.
        let unbalanced: BTreeSet<&str> = report
            .failures
            .iter()
            .filter_map(|failure| match (&failure.object, &failure.error) {
                (Object::Service(id), NetdpError::Ipvs { .. }) => Some(id.as_str()),
                _ => None,
            })
            .collect();
        let ingress = plan.ingress.as_deref().is_some_and(network_failed);
        if !ingress && !node_failed {
            for (id, version) in &plan.nodes {
                if self.nodes.get(id).is_none_or(|(known, _)| known != version) {
                    let applied = NodeApplied {
                        node_id: id.clone(),
                        version: *version,
                    };
                    let event = self.push(What::NodeApplied(applied));
                    self.nodes.insert(id.clone(), (*version, event));
                }
            }
        }
        self.endpoints
            .retain(|id, _| plan.endpoints.contains_key(id));
        for (id, covered) in &plan.endpoints {
            if !covered.complete || node_failed || network_failed(&covered.network) {
                continue;
            }
            let is_published = plan.ingress.as_ref() == Some(&covered.network);
            if is_published && unbalanced.contains(covered.service.as_str()) {
                continue;
            }
            let known = self.endpoints.get(id).is_some_and(|(version, state, _)| {
                *version == covered.version && *state == covered.state
            });
            if !known {
                let event = self.push(What::EndpointApplied(EndpointApplied {
                    endpoint_id: id.clone(),
                    version: covered.version,
                    state: covered.state as i32,
                }));
                self.endpoints
                    .insert(id.clone(), (covered.version, covered.state, event));
            }
        }
    }
}

/// An error and what caused it, in one line. A cause that its effect quotes is not told twice.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_for_the_first_event_gets_it() {
        let events = EventLog::new(0);
        let (none, next) = events.after(0);
        assert!(none.is_empty());
        events.task_oom("t1");
        let (first, next) = events.after(next);
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].sequence, next);
        events.task_oom("t2");
        assert_eq!(events.after(next).0.len(), 1);
        // From the beginning means the acknowledgements, of which there are none.
        assert!(events.after(0).0.is_empty());
    }

    #[test]
    fn a_number_that_was_never_given_out_is_the_beginning() {
        let events = EventLog::new(7);
        events.task_oom("t1");
        for never in [9, u64::MAX] {
            assert_eq!(events.after(never), (Vec::new(), 8));
        }
        assert_eq!(events.after(8), (Vec::new(), 8));
        assert_eq!(events.after(7).0.len(), 1);
    }
}
