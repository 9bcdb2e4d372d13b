//! From what is to what should be.

use std::collections::{HashMap, HashSet};

use crate::destination::{Destination, DestinationEntry, DestinationId};
use crate::operation::Operation;
use crate::service::{Service, ServiceEntry, ServiceId};

/// A service and the destinations behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The service.
    pub service: Service,
    /// Its destinations, in any order.
    pub destinations: Vec<Destination>,
}

/// A service and its destinations as the kernel reports them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolEntry {
    /// The service.
    pub service: ServiceEntry,
    /// Its destinations, in the kernel's order.
    pub destinations: Vec<DestinationEntry>,
}

/// The smallest list of operations that turns `current` into `desired`.
///
/// What stays is never deleted, and what changes is changed in place. The order is such that a
/// service which has destinations before and after has some at every moment between, and likewise
/// destinations with a weight above 0:
///
/// 1. services that are new or whose settings change, each directly followed by its new
///    destinations;
/// 2. destinations whose settings change, those that keep or get weight before those that lose it;
/// 3. destinations that go;
/// 4. services that go.
///
/// Of several pools with the same service, and of several destinations with the same address and
/// port in one pool, the last counts.
pub fn plan(current: &[Pool], desired: &[Pool]) -> Vec<Operation> {
    let have = index(current);
    let want = index(desired);

    let mut operations = Vec::new();
    let mut raised = Vec::new();
    let mut lowered = Vec::new();
    let mut deleted = Vec::new();

    for pool in last_of_each(desired, |pool| pool.service.id) {
        let id = pool.service.id;
        let old = have.get(&id);
        match old {
            None => operations.push(Operation::AddService(pool.service)),
            Some(old) if old.service != pool.service => {
                operations.push(Operation::SetService(pool.service));
            }
            Some(_) => {}
        }
        let mut old: HashMap<DestinationId, &Destination> = old
            .iter()
            .flat_map(|pool| &pool.destinations)
            .map(|d| (d.id, d))
            .collect();
        for destination in last_of_each(&pool.destinations, |d| d.id) {
            match old.remove(&destination.id) {
                None => operations.push(Operation::AddDestination(id, *destination)),
                Some(old) if old != destination => {
                    let list = if destination.weight > 0 {
                        &mut raised
                    } else {
                        &mut lowered
                    };
                    list.push(Operation::SetDestination(id, *destination));
                }
                Some(_) => {}
            }
        }
        // In the order in which they were given, so that the same input gives the same plan.
        if let Some(pool) = have.get(&id) {
            deleted.extend(
                last_of_each(&pool.destinations, |d| d.id)
                    .filter(|d| old.contains_key(&d.id))
                    .map(|d| Operation::DeleteDestination(id, d.id)),
            );
        }
    }
    operations.append(&mut raised);
    operations.append(&mut lowered);
    operations.append(&mut deleted);
    operations.extend(
        last_of_each(current, |pool| pool.service.id)
            .filter(|pool| !want.contains_key(&pool.service.id))
            .map(|pool| Operation::DeleteService(pool.service.id)),
    );
    operations
}

fn index(pools: &[Pool]) -> HashMap<ServiceId, &Pool> {
    pools.iter().map(|pool| (pool.service.id, pool)).collect()
}

/// The items whose key no later item has, in their order.
fn last_of_each<T, K: std::hash::Hash + Eq>(
    items: &[T],
    key: impl Fn(&T) -> K,
) -> impl Iterator<Item = &T> {
    let mut seen = HashSet::with_capacity(items.len());
    let mut kept: Vec<&T> = items
        .iter()
        .rev()
        .filter(|item| seen.insert(key(item)))
        .collect();
    kept.reverse();
    kept.into_iter()
}

#[cfg(test)]
mod tests;
