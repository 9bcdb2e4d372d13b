use std::collections::{BTreeMap, HashSet};

use super::*;
use crate::testing::Random;
use crate::{DestinationId, Forward, Scheduler};

/// What the kernel would do with operations: the same refusals, no more.
#[derive(Clone, PartialEq, Debug)]
struct Model(BTreeMap<ServiceId, (Service, BTreeMap<DestinationId, Destination>)>);

impl Model {
    fn new(pools: &[Pool]) -> Self {
        let of = |pool: &Pool| pool.destinations.iter().map(|d| (d.id, *d)).collect();
        Self(
            pools
                .iter()
                .map(|pool| (pool.service.id, (pool.service, of(pool))))
                .collect(),
        )
    }

    fn apply(&mut self, operation: &Operation) {
        let fits = match operation {
            Operation::AddService(s) => self.0.insert(s.id, (*s, BTreeMap::new())).is_none(),
            Operation::SetService(s) => self.0.get_mut(&s.id).map(|old| old.0 = *s).is_some(),
            Operation::DeleteService(id) => self.0.remove(id).is_some(),
            Operation::AddDestination(id, d) => self.destinations(id).insert(d.id, *d).is_none(),
            Operation::SetDestination(id, d) => self.destinations(id).insert(d.id, *d).is_some(),
            Operation::DeleteDestination(id, d) => self.destinations(id).remove(d).is_some(),
            other => panic!("{other} is no part of a plan"),
        };
        assert!(fits, "{operation} does not fit {self:?}");
    }

    fn destinations(&mut self, id: &ServiceId) -> &mut BTreeMap<DestinationId, Destination> {
        &mut self.0.get_mut(id).expect("a service").1
    }

    /// The services that have destinations, and those that have some with weight.
    fn alive(&self) -> (HashSet<ServiceId>, HashSet<ServiceId>) {
        let with = |test: fn(&Destination) -> bool| {
            let services = self.0.iter().filter(|(_, (_, all))| all.values().any(test));
            services.map(|(id, _)| *id).collect()
        };
        (with(|_| true), with(|d| d.weight > 0))
    }
}

fn both<T: std::hash::Hash + Eq + Copy>(a: &HashSet<T>, b: &HashSet<T>) -> HashSet<T> {
    a.intersection(b).copied().collect()
}

#[test]
fn leads_from_any_state_to_any_other_without_a_gap() {
    let mut random = Random(1);
    for round in 0..3000 {
        let (current, desired) = (random.pools(), random.pools());
        let operations = plan(&current, &desired);

        let target = Model::new(&desired);
        let mut model = Model::new(&current);
        let (before, after) = (model.alive(), target.alive());
        let always = (both(&before.0, &after.0), both(&before.1, &after.1));
        for operation in &operations {
            if let Operation::DeleteService(id) = operation {
                assert!(!target.0.contains_key(id), "{operation} although it stays");
            }
            if let Operation::DeleteDestination(id, d) = operation {
                assert!(
                    !target.0[id].1.contains_key(d),
                    "{operation} although it stays"
                );
            }
            let unchanged = model.clone();
            model.apply(operation);
            assert_ne!(model, unchanged, "{operation} is of no use");
            let now = model.alive();
            assert!(
                always.0.is_subset(&now.0),
                "round {round}: empty after {operation}"
            );
            assert!(
                always.1.is_subset(&now.1),
                "round {round}: no weight after {operation}"
            );
        }
        assert_eq!(model, target, "round {round}: {operations:#?}");
        assert_eq!(plan(&desired, &desired), [], "round {round}");
    }
}

#[test]
fn new_services_come_with_their_destinations_and_old_ones_go_last() {
    let pool = |port, last: &[u8]| Pool {
        service: Service::new(ServiceId::tcp([10, 0, 0, 1], port), Scheduler::RR),
        destinations: last
            .iter()
            .map(|l| Destination::new(DestinationId::new([10, 0, 1, *l], 80), Forward::Masquerade))
            .collect(),
    };
    let (old, kept, new) = (pool(1, &[1]), pool(2, &[1, 2]), pool(3, &[1]));
    let changed = pool(2, &[2, 3]);
    assert_eq!(
        plan(
            &[old.clone(), kept.clone()],
            &[changed.clone(), new.clone()]
        ),
        [
            Operation::AddDestination(kept.service.id, changed.destinations[1]),
            Operation::AddService(new.service),
            Operation::AddDestination(new.service.id, new.destinations[0]),
            Operation::DeleteDestination(kept.service.id, kept.destinations[0].id),
            Operation::DeleteService(old.service.id),
        ]
    );
}

#[test]
fn of_duplicates_the_last_counts() {
    let id = ServiceId::tcp([10, 0, 0, 1], 80);
    let light = Destination::new(DestinationId::new([10, 0, 1, 1], 80), Forward::Masquerade);
    let heavy = Destination { weight: 7, ..light };
    let pool = |scheduler, destinations| Pool {
        service: Service::new(id, scheduler),
        destinations,
    };
    let desired = [
        pool(Scheduler::RR, vec![light]),
        pool(Scheduler::WRR, vec![light, heavy]),
    ];
    assert_eq!(
        plan(&[], &desired),
        [
            Operation::AddService(Service::new(id, Scheduler::WRR)),
            Operation::AddDestination(id, heavy),
        ]
    );
    assert_eq!(plan(&desired, &desired[1..]), []);
    assert_eq!(plan(&desired, &[]), [Operation::DeleteService(id)]);
}
