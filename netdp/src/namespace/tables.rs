//! The nftables part of a namespace: what was committed, and whether it still is there.

use std::collections::BTreeMap;

use crate::error::NetdpError;
use crate::nft::{Family, NftSocket, TABLE, Table};

/// What the kernel was last brought to, by family and name.
#[derive(Debug, Default)]
pub(super) struct Committed {
    tables: BTreeMap<(Family, String), Table>,
    /// Index of each device when chains were hooked to it. Kernels before 6.16 take the chains away
    /// with the device, without a new generation.
    hooked: BTreeMap<String, u32>,
    /// Whether tables that an earlier process left have been looked for.
    swept: bool,
    /// The ruleset's generation when all of `fingerprints` were taken.
    generation: Option<u32>,
    fingerprints: BTreeMap<(Family, String), u64>,
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Tables that somebody else had changed, and that are as programmed again.
    pub(super) healed: Vec<String>,
    /// There were tables of an earlier process.
    pub(super) adopted: bool,
    pub(super) errors: Vec<NetdpError>,
}

impl Committed {
    /// Brings the namespace's tables to `wanted`. With `verify`, also looks whether the kernel
    /// still has what was committed; without, only what differs from then is sent.
    pub(super) fn sync(
        &mut self,
        socket: &mut NftSocket,
        namespace: &str,
        wanted: &[Table],
        links: &BTreeMap<String, u32>,
        verify: bool,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        self.forget_unhooked(links);
        if verify {
            self.verify(socket, namespace, &mut outcome);
        }
        let mut gone: Vec<_> = self.tables.keys().cloned().collect();
        if !self.swept {
            match socket.own_tables() {
                Ok(left) => {
                    outcome.adopted = !left.is_empty();
                    gone.extend(left.into_iter().map(|family| (family, TABLE.to_owned())));
                }
                Err(source) => outcome.errors.push(NetdpError::Netlink {
                    action: format!("list the nftables tables of {namespace}"),
                    source,
                }),
            }
            self.swept = outcome.errors.is_empty();
        }
        gone.retain(|key| !wanted.iter().any(|table| key_of(table) == *key));
        gone.dedup();
        for table in wanted {
            let key = key_of(table);
            let done = match self.tables.get(&key) {
                Some(old) if old == table => continue,
                // A partial change that fails may find the kernel in another state than we think.
                Some(old) => socket.update(old, table).or_else(|_| socket.replace(table)),
                None => socket.replace(table),
            };
            self.generation = None;
            self.fingerprints.remove(&key);
            match done {
                Ok(()) => drop(self.tables.insert(key, table.clone())),
                Err(error) => {
                    self.tables.remove(&key);
                    outcome.errors.push(failed(namespace, table, error));
                }
            }
        }
        for key in gone {
            let empty = Table::new(key.0, &key.1);
            self.generation = None;
            self.fingerprints.remove(&key);
            match socket.delete(&empty) {
                Ok(()) => drop(self.tables.remove(&key)),
                Err(error) => outcome.errors.push(failed(namespace, &empty, error)),
            }
        }
        if self.generation.is_none() {
            self.take_fingerprints(socket);
        }
        outcome
    }

    /// Forgets tables with chains on a device that is another one now.
    fn forget_unhooked(&mut self, links: &BTreeMap<String, u32>) {
        let hooked = &self.hooked;
        let (tables, fingerprints) = (&mut self.tables, &mut self.fingerprints);
        tables.retain(|key, table| {
            let same = table
                .devices()
                .all(|device| links.get(device) == hooked.get(device));
            if !same {
                fingerprints.remove(key);
            }
            same
        });
        self.hooked.clone_from(links);
    }

    /// Forgets tables that are no longer as committed, so that they are sent again.
    fn verify(&mut self, socket: &mut NftSocket, namespace: &str, outcome: &mut Outcome) {
        if self.tables.is_empty() {
            return;
        }
        let generation = match socket.generation() {
            Ok(generation) => generation,
            Err(source) => {
                let action = format!("ask for the ruleset's generation in {namespace}");
                outcome.errors.push(NetdpError::Netlink { action, source });
                return;
            }
        };
        // No commit since the fingerprints were taken: nothing can have changed.
        if self.generation == Some(generation) {
            return;
        }
        let tables: Vec<Table> = self.tables.values().cloned().collect();
        for table in tables {
            let key = key_of(&table);
            match (socket.fingerprint(&table), self.fingerprints.get(&key)) {
                (Ok(now), Some(then)) if now == *then => continue,
                // It could not be looked at after our own commit: sent again, but no damage.
                (_, None) => {}
                _ => outcome.healed.push(format!(
                    "nftables table {} {}",
                    table.family.name(),
                    table.name
                )),
            }
            self.tables.remove(&key);
            self.fingerprints.remove(&key);
        }
        self.generation = (self.fingerprints.len() == self.tables.len()).then_some(generation);
    }

    /// Fingerprints of what was just committed.
    fn take_fingerprints(&mut self, socket: &mut NftSocket) {
        let Ok(before) = socket.generation() else {
            return;
        };
        for (key, table) in &self.tables {
            if !self.fingerprints.contains_key(key)
                && let Ok(fingerprint) = socket.fingerprint(table)
            {
                self.fingerprints.insert(key.clone(), fingerprint);
            }
        }
        if socket.generation() == Ok(before) && self.fingerprints.len() == self.tables.len() {
            self.generation = Some(before);
        }
    }
}

fn key_of(table: &Table) -> (Family, String) {
    (table.family, table.name.clone())
}

fn failed(namespace: &str, table: &Table, source: crate::netlink::NetlinkError) -> NetdpError {
    let object = format!(
        "nftables table {} {} in {namespace}",
        table.family.name(),
        table.name
    );
    NetdpError::Refused {
        action: "program",
        object,
        source,
    }
}
