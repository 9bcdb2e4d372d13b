//! What an assignment changes on a node, told by kind and id.

use std::collections::BTreeMap;

use fairlead_api::v1;
use serde::Serialize;

use crate::format::network::{EndpointRecord, Network, NodeRecord, Service};
use crate::format::task::Task;
use crate::format::{Assignment, Mirror};

/// One object.
#[derive(Debug, PartialEq, Serialize)]
pub struct ObjectName {
    /// Its kind, such as `task`.
    pub kind: &'static str,
    /// Its id.
    pub id: String,
}

/// What an assignment changes. Secrets and configs are not counted: a node does not show them.
#[derive(Debug, Default, Serialize)]
pub struct Changes {
    /// New on the node.
    pub added: Vec<ObjectName>,
    /// Other than before.
    pub changed: Vec<ObjectName>,
    /// No longer wanted.
    pub removed: Vec<ObjectName>,
    /// How many objects stay as they are.
    pub unchanged: usize,
}

impl Changes {
    /// Compares what a node holds with what it shall hold.
    pub fn between(held: &v1::InspectResponse, wanted: &Assignment) -> Self {
        let mut changes = Self::default();
        let networks = held.networks.iter().filter_map(|view| view.network.clone());
        changes.compare::<_, Network>("network", networks, &wanted.networks, |o| &o.id);
        let services = held.services.iter().filter_map(|view| view.service.clone());
        changes.compare::<_, Service>("service", services, &wanted.services, |o| &o.id);
        let nodes = held.nodes.iter().cloned();
        changes.compare::<_, NodeRecord>("node", nodes, &wanted.nodes, |o| &o.id);
        let endpoints = held.endpoints.iter().cloned();
        changes.compare::<_, EndpointRecord>("endpoint", endpoints, &wanted.endpoints, |o| &o.id);
        let tasks = held.tasks.iter().filter_map(|view| view.task.clone());
        changes.compare::<_, Task>("task", tasks, &wanted.tasks, |o| &o.id);
        changes
    }

    fn compare<P, T: Mirror<P> + PartialEq>(
        &mut self,
        kind: &'static str,
        held: impl Iterator<Item = P>,
        wanted: &[T],
        id: fn(&T) -> &String,
    ) {
        let name = |object: &T| ObjectName {
            kind,
            id: id(object).clone(),
        };
        let mut held: BTreeMap<String, T> = held
            .map(T::from_proto)
            .map(|object| (id(&object).clone(), object))
            .collect();
        for object in wanted {
            match held.remove(id(object)) {
                None => self.added.push(name(object)),
                Some(other) if other == *object => self.unchanged += 1,
                Some(_) => self.changed.push(name(object)),
            }
        }
        self.removed.extend(held.values().map(name));
    }

    /// One line per change, for people.
    pub fn lines(&self) -> String {
        let mut text = String::new();
        for (sign, names) in [
            ('+', &self.added),
            ('~', &self.changed),
            ('-', &self.removed),
        ] {
            for ObjectName { kind, id } in names {
                text += &format!("  {sign} {kind} {id}\n");
            }
        }
        if self.unchanged > 0 {
            text += &format!("  = {} unchanged\n", self.unchanged);
        }
        text
    }
}
