//! What goes: namespaces that nobody wants any more, and what is left of broken devices.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{DataPlane, Held, sync};
use crate::build;
use crate::error::NetdpError;
use crate::namespace::{Namespace, Spec, remove_record};
use crate::netns::Netns;
use crate::report::{Object, Report};

impl DataPlane {
    /// Every namespace that is not wanted, with its file; the first time also those that an earlier
    /// process left. Tasks come before the networks that they are in.
    pub(super) fn unwanted(&self, wanted: &BTreeSet<Object>) -> Vec<(Object, PathBuf)> {
        let mut unwanted: Vec<(Object, PathBuf)> = Vec::new();
        for object in self.others.keys().filter(|object| !wanted.contains(object)) {
            match object {
                Object::Sandbox(id) => unwanted.push((object.clone(), self.sandbox_path(id))),
                Object::Network(id) => unwanted.push((object.clone(), self.network_path(id))),
                Object::Node | Object::Service(_) => {}
            }
        }
        if !self.swept {
            unwanted.extend(self.leftovers(wanted));
        }
        unwanted.sort_by_key(|(object, _)| matches!(object, Object::Network(_)));
        unwanted.dedup();
        unwanted
    }

    /// Deletes the devices of these networks that matter outside of their namespaces.
    pub(super) fn disconnect(&mut self, networks: &[(Object, PathBuf)], report: &mut Report) {
        for (object, path) in networks {
            if matches!(object, Object::Network(_)) {
                let record = build::record(&self.settings.run_dir, path);
                let held = self.others.get_mut(object);
                report.fail(object, disconnect(held, path, &record));
            }
        }
    }

    /// Takes these namespaces down.
    pub(super) fn retire(&mut self, unwanted: Vec<(Object, PathBuf)>, report: &mut Report) {
        let mut all = true;
        for (object, path) in unwanted {
            let record = build::record(&self.settings.run_dir, &path);
            match remove_record(&record).and_then(|()| Netns::remove(&path)) {
                Ok(()) => drop(self.others.remove(&object)),
                Err(error) => {
                    all = false;
                    report.fail(&object, [error]);
                }
            }
        }
        self.swept |= all;
    }

    /// Takes everything of ours out of the node's own namespace.
    pub(super) fn clear_node(&mut self, verify: bool, report: &mut Report) {
        let nothing = Spec {
            shared: true,
            ..Spec::default()
        };
        let cleanup = sync(&mut self.node, &Object::Node, nothing, None, verify, report);
        if let Some(cleanup) = cleanup {
            let errors = self.node.namespace.clean(cleanup, true);
            report.fail(&Object::Node, errors);
        }
    }

    /// Namespaces of ours that nobody wants, by their files.
    fn leftovers(&self, wanted: &BTreeSet<Object>) -> Vec<(Object, PathBuf)> {
        let directory = self.settings.run_dir.join("netns");
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let objects = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let object = match name.split_once('-')? {
                ("net", id) => Object::Network(id.to_owned()),
                ("task", id) => Object::Sandbox(id.to_owned()),
                _ => return None,
            };
            Some((object, entry.path()))
        });
        objects
            .filter(|(object, _)| !wanted.contains(object))
            .collect()
    }

    /// Deletes what is left of devices whose far end is not where it should be, so that both ends are
    /// made anew.
    pub(super) fn delete_halves(&mut self, report: &mut Report) {
        let lost = report.failures.iter().filter_map(|failure| {
            let NetdpError::NoLink { link, .. } = &failure.error else {
                return None;
            };
            let path = match &failure.object {
                Object::Network(id) => self.network_path(id),
                Object::Sandbox(id) => self.sandbox_path(id),
                Object::Node | Object::Service(_) => return None,
            };
            Some((path, link.clone()))
        });
        let lost: Vec<(PathBuf, String)> = lost.collect();
        if lost.is_empty() {
            return;
        }
        let others = self.others.iter_mut();
        for (object, held) in others.chain([(&Object::Node, &mut self.node)]) {
            if let Some(spec) = &held.spec {
                let deleted = held.namespace.delete_halves(spec, &lost);
                report.fail(object, deleted.unwrap_or_else(|error| vec![error]));
            }
        }
    }
}

/// Deletes a network's devices that matter outside of its namespace, whether that is open or left by
/// an earlier process.
fn disconnect(held: Option<&mut Held>, path: &Path, record: &Path) -> Vec<NetdpError> {
    let delete = |namespace: &mut Namespace| match namespace.disconnect(build::NODE_LEG) {
        Ok(errors) => errors,
        Err(error) => vec![error],
    };
    match held {
        Some(held) => delete(&mut held.namespace),
        // A file that is no namespace: nothing is in it.
        None => {
            let name = "a leftover".to_owned();
            let open = |netns| Namespace::open(name, netns, record.to_owned());
            match Netns::open(path).and_then(open) {
                Ok(mut namespace) if Netns::is_mounted(path) => delete(&mut namespace),
                _ => Vec::new(),
            }
        }
    }
}
