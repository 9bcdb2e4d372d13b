//! Addresses, neighbours and forwarding entries of a namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;

use super::dump::{self, FoundLink};
use super::handle::{Namespace, Synced};
use super::parts;
use super::spec::{Destination, FdbEntry, Neighbour, Spec};
use crate::desired::Mac;
use crate::error::NetdpError;
use crate::netlink::{NLM_F_CREATE, NLM_F_REPLACE};

impl Namespace {
    pub(super) fn sync_addresses(
        &mut self,
        spec: &Spec,
        found: &BTreeMap<String, FoundLink>,
        by_index: &BTreeMap<u32, String>,
        synced: &mut Synced,
    ) -> Result<(), NetdpError> {
        let have = self.dump("addresses", dump::addresses)?;
        let mut requests = Vec::new();
        for (name, address) in &spec.addresses {
            let Some(link) = found.get(name) else {
                continue;
            };
            if !have.contains(&(link.index, *address)) {
                let message = RouteNetlinkMessage::NewAddress(parts::address(link.index, *address));
                let object = format!("address {address} of {name}");
                let flags = NLM_F_CREATE | NLM_F_REPLACE;
                requests.push(self.request("add", &object, flags, message));
            }
        }
        self.execute(requests, synced);
        for (index, address) in have.into_iter().filter(|_| spec.ours || spec.shared) {
            let Some(name) = by_index.get(&index).filter(|name| spec.has_link(name)) else {
                continue;
            };
            if !spec
                .addresses
                .iter()
                .any(|(link, wanted)| link == name && *wanted == address)
            {
                let message = RouteNetlinkMessage::DelAddress(parts::address(index, address));
                let object = format!("address {address} of {name}");
                let request = self.request("delete", &object, 0, message);
                synced.cleanup.entries.push(request);
            }
        }
        Ok(())
    }

    pub(super) fn sync_neighbours(
        &mut self,
        spec: &Spec,
        found: &BTreeMap<String, FoundLink>,
        by_index: &BTreeMap<u32, String>,
        synced: &mut Synced,
    ) -> Result<(), NetdpError> {
        if spec.neighbours.is_empty() && !spec.ours {
            return Ok(());
        }
        let have = self.dump("neighbours", dump::neighbours)?;
        let have: BTreeMap<(u32, IpAddr), Option<Mac>> = have
            .into_iter()
            .map(|(index, address, mac)| ((index, address), mac))
            .collect();
        let mut wanted = BTreeSet::new();
        let mut requests = Vec::new();
        for entry in &spec.neighbours {
            let Some(link) = found.get(&entry.link) else {
                continue;
            };
            wanted.insert((link.index, entry.address));
            if have.get(&(link.index, entry.address)) != Some(&Some(entry.mac)) {
                let message = parts::neighbour(link.index, entry);
                let object = format!(
                    "neighbour {} ({}) of {}",
                    entry.address, entry.mac, entry.link
                );
                let flags = NLM_F_CREATE | NLM_F_REPLACE;
                let message = RouteNetlinkMessage::NewNeighbour(message);
                requests.push(self.request("add", &object, flags, message));
            }
        }
        self.execute(requests, synced);
        for ((index, address), mac) in have {
            let Some(name) = by_index.get(&index) else {
                continue;
            };
            if spec.has_link(name) && !wanted.contains(&(index, address)) {
                let mac = mac.unwrap_or(Mac([0; 6]));
                let entry = Neighbour {
                    link: name.clone(),
                    address,
                    mac,
                };
                let message = RouteNetlinkMessage::DelNeighbour(parts::neighbour(index, &entry));
                let object = format!("neighbour {address} of {name}");
                let request = self.request("delete", &object, 0, message);
                synced.cleanup.entries.push(request);
            }
        }
        Ok(())
    }

    pub(super) fn sync_fdb(
        &mut self,
        spec: &Spec,
        found: &BTreeMap<String, FoundLink>,
        by_index: &BTreeMap<u32, String>,
        synced: &mut Synced,
    ) -> Result<(), NetdpError> {
        if !spec.ours && spec.fdb.is_empty() {
            return Ok(());
        }
        let have: BTreeSet<_> = self
            .dump("forwarding entries", dump::fdb)?
            .into_iter()
            .collect();
        let mut placed = BTreeSet::new();
        let mut wanted = BTreeSet::new();
        let mut requests = Vec::new();
        for entry in &spec.fdb {
            let Some(link) = found.get(&entry.link) else {
                continue;
            };
            let key = (link.index, entry.mac, entry.destination.clone());
            if !have.contains(&key) {
                let message = RouteNetlinkMessage::NewNeighbour(parts::fdb(link.index, entry));
                let object = describe_fdb(entry);
                requests.push(self.request("add", &object, NLM_F_CREATE | NLM_F_REPLACE, message));
            }
            if matches!(entry.destination, Destination::Vtep(_)) {
                placed.insert((link.index, entry.mac));
            }
            wanted.insert(key);
        }
        self.execute(requests, synced);
        for (index, mac, destination) in have {
            let Some(name) = by_index.get(&index).filter(|name| spec.has_link(name)) else {
                continue;
            };
            // One MAC has one place: replacing it moved it.
            let moved =
                matches!(destination, Destination::Vtep(_)) && placed.contains(&(index, mac));
            if !moved && !wanted.contains(&(index, mac, destination.clone())) {
                let entry = FdbEntry {
                    link: name.clone(),
                    mac,
                    destination,
                };
                let message = RouteNetlinkMessage::DelNeighbour(parts::fdb(index, &entry));
                let request = self.request("delete", &describe_fdb(&entry), 0, message);
                synced.cleanup.entries.push(request);
            }
        }
        Ok(())
    }
}

fn describe_fdb(entry: &FdbEntry) -> String {
    match &entry.destination {
        Destination::Port => format!("forwarding entry {} on {}", entry.mac, entry.link),
        Destination::Vtep(vtep) => {
            format!("forwarding entry {} at {vtep} on {}", entry.mac, entry.link)
        }
    }
}
