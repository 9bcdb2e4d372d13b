//! The nftables part of a namespace: what was committed, and whether it still is there.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::record::{Programmed, Record};
use crate::error::NetdpError;
use crate::netlink::NetlinkError;
use crate::nft::{Family, NftSocket, TABLE, Table};

/// What the kernel was last brought to, by family.
#[derive(Debug, Default)]
pub(super) struct Committed {
    tables: BTreeMap<Family, Table>,
    /// Index of each device when chains were hooked to it. Kernels before 6.16 take the chains away
    /// with the device, without a new generation.
    hooked: BTreeMap<String, u32>,
    /// Whether tables that an earlier process left have been looked for.
    swept: bool,
    /// The ruleset's generation when all of `fingerprints` were taken.
    generation: Option<u32>,
    fingerprints: BTreeMap<Family, u64>,
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
        record: &mut Record,
        namespace: &str,
        wanted: &[Table],
        links: &BTreeMap<String, u32>,
        verify: bool,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let wanted: Vec<Cow<'_, Table>> = wanted
            .iter()
            .map(|table| table.hooked_to(|device| links.contains_key(device)))
            .collect();
        self.forget_unhooked(links);
        if verify {
            self.verify(socket, namespace, &mut outcome);
        }
        let mut gone: Vec<_> = self.tables.keys().copied().collect();
        if !self.swept {
            match self.adopt(socket, record, &wanted) {
                Ok(left) => {
                    outcome.adopted = !left.is_empty();
                    gone.extend(left);
                }
                Err(source) => outcome.errors.push(NetdpError::Netlink {
                    action: format!("list the nftables tables of {namespace}"),
                    source,
                }),
            }
            self.swept = outcome.errors.is_empty();
        }
        gone.retain(|family| !wanted.iter().any(|table| table.family == *family));
        gone.dedup();
        for table in wanted.iter().map(Cow::as_ref) {
            let family = table.family;
            let done = match self.tables.get(&family) {
                Some(old) if old == table => continue,
                // A partial change that fails may find the kernel in another state than we think.
                Some(old) => socket.update(old, table).or_else(|_| socket.replace(table)),
                None => socket.replace(table),
            };
            self.forget_fingerprint(family);
            match done {
                Ok(()) => drop(self.tables.insert(family, table.clone())),
                Err(error) => {
                    self.tables.remove(&family);
                    outcome.errors.push(failed(namespace, family, error));
                }
            }
        }
        for family in gone {
            self.forget_fingerprint(family);
            match socket.delete(&Table::new(family)) {
                Ok(()) => drop(self.tables.remove(&family)),
                Err(error) => outcome.errors.push(failed(namespace, family, error)),
            }
        }
        if self.generation.is_none() {
            self.take_fingerprints(socket);
            record.set_tables(self.programmed());
        }
        outcome
    }

    /// Looks for the tables of an earlier process, and takes those over that are as wanted.
    /// Returns the families that there are tables in.
    fn adopt(
        &mut self,
        socket: &mut NftSocket,
        record: &Record,
        wanted: &[Cow<'_, Table>],
    ) -> Result<Vec<Family>, NetlinkError> {
        let left = socket.own_tables()?;
        for table in wanted.iter().map(Cow::as_ref) {
            if !left.contains(&table.family) {
                continue;
            }
            let Some(programmed) = record.table(table.family) else {
                continue;
            };
            if programmed.wanted == table.content_hash()
                && socket.fingerprint(table)? == programmed.kernel
            {
                self.tables.insert(table.family, table.clone());
                self.fingerprints.insert(table.family, programmed.kernel);
            }
        }
        Ok(left)
    }

    /// Forgets tables with chains on a device that is another one now.
    fn forget_unhooked(&mut self, links: &BTreeMap<String, u32>) {
        let hooked = &self.hooked;
        let (tables, fingerprints) = (&mut self.tables, &mut self.fingerprints);
        tables.retain(|family, table| {
            let same =
                table
                    .devices()
                    .all(|device| match (links.get(device), hooked.get(device)) {
                        (Some(now), then) => Some(now) == then,
                        // The chain is not wanted either.
                        (None, _) => true,
                    });
            if !same {
                fingerprints.remove(family);
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
            let family = table.family;
            match (socket.fingerprint(&table), self.fingerprints.get(&family)) {
                (Ok(now), Some(then)) if now == *then => continue,
                // It could not be looked at after our own commit: sent again, but no damage.
                (_, None) => {}
                _ => outcome.healed.push(name_of(family)),
            }
            self.tables.remove(&family);
            self.fingerprints.remove(&family);
        }
        self.generation = (self.fingerprints.len() == self.tables.len()).then_some(generation);
    }

    /// Fingerprints of what was just committed.
    fn take_fingerprints(&mut self, socket: &mut NftSocket) {
        let Ok(before) = socket.generation() else {
            return;
        };
        for (family, table) in &self.tables {
            if !self.fingerprints.contains_key(family)
                && let Ok(fingerprint) = socket.fingerprint(table)
            {
                self.fingerprints.insert(*family, fingerprint);
            }
        }
        if socket.generation() == Ok(before) && self.fingerprints.len() == self.tables.len() {
            self.generation = Some(before);
        }
    }

    /// A commit makes the fingerprint of its table, and the generation, void.
    fn forget_fingerprint(&mut self, family: Family) {
        self.generation = None;
        self.fingerprints.remove(&family);
    }

    fn programmed(&self) -> BTreeMap<Family, Programmed> {
        let programmed = self.fingerprints.iter().filter_map(|(family, kernel)| {
            let wanted = self.tables.get(family)?.content_hash();
            let kernel = *kernel;
            Some((*family, Programmed { wanted, kernel }))
        });
        programmed.collect()
    }
}

fn name_of(family: Family) -> String {
    format!("nftables table {} {TABLE}", family.name())
}

fn failed(namespace: &str, family: Family, source: NetlinkError) -> NetdpError {
    NetdpError::Refused {
        action: "program",
        object: format!("{} in {namespace}", name_of(family)),
        source,
    }
}
