//! All names of the cluster that this node knows.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;

use crate::desired::{Backend, Desired};

/// All names of the cluster that this node knows: an immutable snapshot, shared by all servers.
///
/// Names are kept per network. A name that several owners have on one network (an alias of two
/// services, say) has the addresses of all of them. The ingress network has no names.
#[derive(Debug, Default)]
pub struct Directory {
    /// By network id.
    zones: HashMap<String, Zone>,
}

/// The names of one network.
#[derive(Debug, Default)]
struct Zone {
    /// The network's name.
    name: String,
    /// `.<network name>` in lower case.
    suffix: String,
    /// By name in lower case.
    names: HashMap<String, Addresses>,
    reverse: HashMap<IpAddr, Name>,
}

/// What a name stands for. A name may exist without any address.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    pub v4: Vec<Ipv4Addr>,
    pub v6: Vec<Ipv6Addr>,
}

impl Directory {
    /// The names of `desired`.
    #[must_use]
    pub fn new(desired: &Desired) -> Self {
        let mut zones: HashMap<String, Zone> = desired
            .networks
            .iter()
            .filter(|(_, network)| !network.ingress)
            .map(|(id, network)| (id.clone(), Zone::new(&network.name)))
            .collect();

        // VIPs by service and network: there a service's names stand for them.
        let mut vips: HashMap<(&str, &str), Vec<IpAddr>> = HashMap::new();
        for (id, service) in &desired.services {
            for (network, vip) in &service.vips {
                let Some(zone) = zones.get_mut(network) else {
                    continue;
                };
                zone.add(&service.name, &[*vip]);
                zone.add(&tasks(&service.name), &[]);
                zone.add_reverse(*vip, &service.name);
                vips.entry((id, network)).or_default().push(*vip);
            }
        }

        for endpoint in desired.endpoints.values() {
            let Some(zone) = zones.get_mut(&endpoint.network) else {
                continue;
            };
            // A task's own names hold in every state: members of a cluster find each other before
            // any of them is healthy, and a draining one finishes what it began.
            for name in std::iter::once(&endpoint.task_name).chain(&endpoint.task_aliases) {
                zone.add(name, &endpoint.addresses);
            }
            for address in &endpoint.addresses {
                zone.add_reverse(*address, &endpoint.task_name);
            }
            // A service's names exist without addresses too, else they would be asked outside.
            let enabled: &[IpAddr] = match endpoint.backend {
                Backend::Enabled(_) => &endpoint.addresses,
                Backend::Draining | Backend::Paused | Backend::Disabled => &[],
            };
            let service = endpoint.service.as_deref();
            let vips = service.and_then(|id| vips.get(&(id, endpoint.network.as_str())));
            let name = service
                .and_then(|id| desired.services.get(id))
                .map(|s| &s.name);
            for name in name.into_iter().chain(&endpoint.aliases) {
                zone.add(name, vips.map_or(enabled, Vec::as_slice));
                zone.add(&tasks(name), enabled);
            }
        }
        for addresses in zones.values_mut().flat_map(|zone| zone.names.values_mut()) {
            addresses.v4.sort_unstable();
            addresses.v4.dedup();
            addresses.v6.sort_unstable();
            addresses.v6.dedup();
        }
        Self { zones }
    }

    /// What `name` (lower case, no dot at the end) stands for on these networks: plain names come
    /// before `<name>.<network>`, and the first network wins on which the name has an address.
    pub(super) fn addresses(&self, networks: &[String], name: &str) -> Option<&Addresses> {
        let plain = self.zones(networks).filter_map(|zone| zone.names.get(name));
        let qualified = self
            .zones(networks)
            .filter_map(|zone| zone.names.get(name.strip_suffix(zone.suffix.as_str())?));
        let mut without_address = None;
        for found in plain.chain(qualified) {
            if !found.v4.is_empty() || !found.v6.is_empty() {
                return Some(found);
            }
            without_address.get_or_insert(found);
        }
        without_address
    }

    /// The name of an address on these networks.
    pub(super) fn reverse(&self, networks: &[String], address: IpAddr) -> Option<&Name> {
        self.zones(networks)
            .find_map(|zone| zone.reverse.get(&address))
    }

    fn zones(&self, networks: &[String]) -> impl Iterator<Item = &Zone> {
        networks.iter().filter_map(|id| self.zones.get(id))
    }
}

impl Zone {
    fn new(name: &str) -> Self {
        let suffix = format!(".{}", name.to_ascii_lowercase());
        Self {
            name: name.to_owned(),
            suffix,
            ..Self::default()
        }
    }

    fn add(&mut self, name: &str, addresses: &[IpAddr]) {
        if name.is_empty() {
            return;
        }
        let entry = self.names.entry(name.to_ascii_lowercase()).or_default();
        for address in addresses {
            match address {
                IpAddr::V4(v4) => entry.v4.push(*v4),
                IpAddr::V6(v6) => entry.v6.push(*v6),
            }
        }
    }

    /// Names that no DNS message can carry (a label over 63 bytes, say) have no PTR record.
    fn add_reverse(&mut self, address: IpAddr, name: &str) {
        let labels = name.split('.').chain(self.name.split('.'));
        if let Ok(name) = Name::from_labels(labels.map(str::as_bytes)) {
            self.reverse.insert(address, name);
        }
    }
}

fn tasks(name: &str) -> String {
    format!("tasks.{name}")
}

#[cfg(test)]
#[path = "directory_tests.rs"]
pub(super) mod tests;
