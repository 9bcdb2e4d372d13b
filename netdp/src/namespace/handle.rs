//! Comparing a namespace with its spec, and making it so.

use std::collections::BTreeMap;
use std::path::Path;

use netlink_packet_route::RouteNetlinkMessage;

use super::dump::{self, FoundLink};
use super::spec::{Destination, FdbEntry, Link, LinkKind, Neighbour, Spec, Sysctl};
use super::tables::Committed;
use super::{links, parts};
use crate::error::Error;
use crate::netlink::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NetlinkError, Request, RouteSocket};
use crate::netns::Netns;
use crate::nft::NftSocket;

/// Where our rule for the local table goes when ours come first.
const LOCAL_RULE: u32 = 1000;

/// One namespace with its sockets.
#[derive(Debug)]
pub(crate) struct Namespace {
    /// For messages: `network app`, `task web.1`, `the node`.
    name: String,
    netns: Netns,
    pub(crate) route: RouteSocket,
    pub(crate) nft: NftSocket,
    tables: Committed,
    sysctls: Vec<Sysctl>,
}

/// What a comparison led to.
#[derive(Debug, Default)]
pub(crate) struct Synced {
    /// What was not as the spec says, and was changed. Removals are not in it.
    pub(crate) changes: Vec<String>,
    pub(crate) errors: Vec<Error>,
    pub(crate) cleanup: Cleanup,
}

/// What is to be removed, after everything else is in place: balancing must not point to what is
/// no longer reachable.
#[derive(Debug, Default)]
pub(crate) struct Cleanup {
    entries: Vec<Request>,
    /// Deleting a device waits for every CPU, 20 ms and more; most are going anyway, with the
    /// namespace of their other end.
    links: Vec<Request>,
}

impl Namespace {
    /// Opens the sockets of a namespace.
    pub(crate) fn open(name: String, netns: Netns) -> Result<Self, Error> {
        let sockets = netns.run(|| Ok((RouteSocket::open()?, NftSocket::open()?)))?;
        let (route, nft) =
            sockets.map_err(Error::system(format!("open netlink sockets in {name}")))?;
        let tables = Committed::default();
        Ok(Self {
            name,
            netns,
            route,
            nft,
            tables,
            sysctls: Vec::new(),
        })
    }

    pub(crate) fn netns(&self) -> &Netns {
        &self.netns
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Makes what lacks and sets what differs. `node` is the node's own socket, for devices whose
    /// other side belongs there. With `verify`, also compares what this process knows to have
    /// programmed with what the kernel has.
    pub(crate) fn sync(
        &mut self,
        spec: &Spec,
        mut node: Option<&mut RouteSocket>,
        verify: bool,
    ) -> Synced {
        let mut synced = Synced::default();
        if let Err(error) = self.sync_devices(spec, &mut node, verify, &mut synced) {
            synced.errors.push(error);
            return synced;
        }
        let tables = self
            .tables
            .sync(&mut self.nft, &self.name, &spec.tables, verify);
        synced.changes.extend(tables.healed);
        synced.errors.extend(tables.errors);
        if !spec.guards.is_empty() {
            let own = spec.tables.first().map_or("", |table| table.name.as_str());
            match self.nft.guard(own, &spec.guards) {
                Ok(changed) => synced.changes.extend(
                    changed
                        .iter()
                        .map(|c| format!("our rules in chain {} {}", c.table, c.name)),
                ),
                Err(source) => synced.errors.push(Error::Netlink {
                    action: "add our rules to the node's other firewalls".to_owned(),
                    source,
                }),
            }
        }
        synced
    }

    /// Removes what an earlier [`Namespace::sync`] found to be in excess; devices only if `links`.
    pub(crate) fn clean(&mut self, cleanup: Cleanup, links: bool) -> Vec<Error> {
        let mut errors = self.route.execute(cleanup.entries);
        if links {
            errors.extend(self.route.execute(cleanup.links));
        }
        errors
    }

    /// Deletes the VXLAN devices, so that their VNIs are free at once: devices that go with their
    /// namespace go some time later.
    pub(crate) fn delete_tunnels(&mut self) -> Result<Vec<Error>, Error> {
        let found = self.dump("links", dump::links)?;
        let tunnels = found.values().filter(|link| link.vxlan.is_some());
        let requests = tunnels.map(|link| {
            let message = RouteNetlinkMessage::DelLink(links::by_index(link.index));
            self.request("delete", &format!("link {}", link.name), 0, message)
        });
        let requests = requests.collect();
        Ok(self.route.execute(requests))
    }

    fn sync_devices(
        &mut self,
        spec: &Spec,
        node: &mut Option<&mut RouteSocket>,
        verify: bool,
        synced: &mut Synced,
    ) -> Result<(), Error> {
        let mut found = self.dump("links", dump::links)?;
        if (spec.ours || spec.loopback) && found.get("lo").is_some_and(|lo| !lo.up) {
            let up = links::by_index(found["lo"].index);
            self.set_up(up, synced);
        }
        let sysctls = verify || self.sysctls != spec.sysctls;
        // What holds for all links, before there are any.
        if sysctls {
            self.sync_sysctls(spec, |sysctl| !sysctl.is_of_a_link(), synced)?;
        }
        if self.create_links(spec, node, &mut found, synced)? {
            found = self.dump("links", dump::links)?;
        }
        self.adjust_links(spec, &found, synced);
        self.excess_links(spec, &found, synced);
        if sysctls {
            let errors = synced.errors.len();
            self.sync_sysctls(spec, Sysctl::is_of_a_link, synced)?;
            if synced.errors.len() == errors {
                self.sysctls.clone_from(&spec.sysctls);
            }
        }
        let by_index: BTreeMap<u32, String> = found
            .values()
            .map(|link| (link.index, link.name.clone()))
            .collect();
        self.sync_addresses(spec, &found, &by_index, synced)?;
        self.sync_neighbours(spec, &found, &by_index, synced)?;
        self.sync_fdb(spec, &found, &by_index, synced)?;
        self.sync_routes(spec, &found, &by_index, synced)?;
        self.sync_rules(spec, synced)
    }

    fn dump<T>(
        &mut self,
        what: &str,
        dump: impl FnOnce(&mut RouteSocket) -> Result<T, NetlinkError>,
    ) -> Result<T, Error> {
        dump(&mut self.route).map_err(|source| Error::Netlink {
            action: format!("list the {what} of {}", self.name),
            source,
        })
    }

    fn request(
        &self,
        action: &'static str,
        object: &str,
        flags: u16,
        message: RouteNetlinkMessage,
    ) -> Request {
        let object = format!("{object} in {}", self.name);
        let accept: &[i32] = match action {
            // Gone already, or with the link that it was on.
            "delete" => &[libc::ENOENT, libc::ENODEV, libc::ESRCH, libc::EADDRNOTAVAIL],
            _ => &[],
        };
        Request {
            action,
            object,
            flags,
            message,
            accept,
        }
    }

    fn execute(&mut self, requests: Vec<Request>, synced: &mut Synced) {
        synced.changes.extend(
            requests
                .iter()
                .map(|r| format!("{} {}", r.action, r.object)),
        );
        synced.errors.extend(self.route.execute(requests));
    }

    fn set_up(&mut self, mut link: netlink_packet_route::link::LinkMessage, synced: &mut Synced) {
        use netlink_packet_route::link::LinkFlags;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        let request = self.request("set", "link lo", 0, RouteNetlinkMessage::SetLink(link));
        self.execute(vec![request], synced);
    }

    /// Makes links that lack; whether any was made.
    fn create_links(
        &mut self,
        spec: &Spec,
        node: &mut Option<&mut RouteSocket>,
        found: &mut BTreeMap<String, FoundLink>,
        synced: &mut Synced,
    ) -> Result<bool, Error> {
        let mut anew = Vec::new();
        for link in &spec.links {
            if let Some(old) = found.get(&link.name)
                && links::must_recreate(link, old)
            {
                let delete = RouteNetlinkMessage::DelLink(links::by_index(old.index));
                anew.push(self.request("delete", &format!("link {}", link.name), 0, delete));
                found.remove(&link.name);
            }
        }
        self.execute(anew, synced);
        let missing = |bridge: bool| {
            spec.links.iter().filter(move |link| {
                (link.kind == LinkKind::Bridge) == bridge && link.kind != LinkKind::VethEnd
            })
        };
        let mut made = false;
        let bridges: Vec<&Link> = missing(true)
            .filter(|link| !found.contains_key(&link.name))
            .collect();
        if !bridges.is_empty() {
            let requests = bridges
                .iter()
                .map(|link| self.creation(link, links::create(link, None, None, None)));
            let requests = requests.collect();
            self.execute(requests, synced);
            *found = self.dump("links", dump::links)?;
            made = true;
        }
        let mut here = Vec::new();
        let mut from_node = Vec::new();
        // Held until the requests are out.
        let mut peers = Vec::new();
        for link in missing(false).filter(|link| !found.contains_key(&link.name)) {
            let bridge = master(link, found);
            match &link.kind {
                LinkKind::Vxlan { .. } => {
                    let message = links::create(link, bridge, Some(self.netns_fd()), None);
                    from_node.push(self.creation(link, message));
                }
                LinkKind::Veth(peer) => {
                    let netns = match Netns::open(&peer.netns) {
                        Ok(netns) => netns,
                        Err(error) => {
                            synced.errors.push(error);
                            continue;
                        }
                    };
                    let message = links::create(link, bridge, None, Some(as_fd(&netns)));
                    here.push(self.creation(link, message));
                    peers.push(netns);
                }
                LinkKind::Bridge | LinkKind::VethEnd => {}
            }
        }
        made |= !(here.is_empty() && from_node.is_empty());
        self.execute(here, synced);
        if !from_node.is_empty() {
            synced.changes.extend(
                from_node
                    .iter()
                    .map(|r| format!("{} {}", r.action, r.object)),
            );
            let socket = node.as_deref_mut().unwrap_or(&mut self.route);
            synced.errors.extend(socket.execute(from_node));
        }
        Ok(made)
    }

    fn netns_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        as_fd(&self.netns)
    }

    fn creation(&self, link: &Link, message: netlink_packet_route::link::LinkMessage) -> Request {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let object = format!("link {}", link.name);
        self.request(
            "create",
            &object,
            flags,
            RouteNetlinkMessage::NewLink(message),
        )
    }

    fn adjust_links(
        &mut self,
        spec: &Spec,
        found: &BTreeMap<String, FoundLink>,
        synced: &mut Synced,
    ) {
        let mut requests = Vec::new();
        for link in &spec.links {
            match found.get(&link.name) {
                Some(is) => {
                    let messages = links::adjust(link, is, master(link, found));
                    requests.extend(messages.into_iter().map(|message| {
                        // RTM_NEWLINK, because RTM_SETLINK knows no settings of ports.
                        let message = RouteNetlinkMessage::NewLink(message);
                        self.request("set", &format!("link {}", link.name), 0, message)
                    }));
                }
                None if link.kind == LinkKind::VethEnd => {
                    synced.errors.push(Error::Unsatisfiable(format!(
                        "{} has no link {}: its other end could not be made",
                        self.name, link.name
                    )));
                }
                // Its creation failed, and said so.
                None => {}
            }
        }
        self.execute(requests, synced);
    }

    fn excess_links(
        &mut self,
        spec: &Spec,
        found: &BTreeMap<String, FoundLink>,
        synced: &mut Synced,
    ) {
        for link in found.values() {
            let wanted = spec.links.iter().any(|wanted| wanted.name == link.name);
            if !wanted && link.alias.starts_with(links::OWNER) {
                let message = RouteNetlinkMessage::DelLink(links::by_index(link.index));
                let request = self.request("delete", &format!("link {}", link.name), 0, message);
                synced.cleanup.links.push(request);
            }
        }
    }

    fn sync_sysctls(
        &self,
        spec: &Spec,
        which: fn(&Sysctl) -> bool,
        synced: &mut Synced,
    ) -> Result<(), Error> {
        if !spec.sysctls.iter().any(which) {
            return Ok(());
        }
        let outcome = self.netns.run(|| {
            let mut changed = Vec::new();
            let mut errors = Vec::new();
            for sysctl in spec.sysctls.iter().filter(|sysctl| which(sysctl)) {
                match write_sysctl(sysctl) {
                    Ok(true) => changed.push(format!("sysctl {}", sysctl.path)),
                    Ok(false) => {}
                    Err(error) => errors.push(error),
                }
            }
            (changed, errors)
        })?;
        synced.changes.extend(outcome.0);
        synced.errors.extend(outcome.1);
        Ok(())
    }

    fn sync_addresses(
        &mut self,
        spec: &Spec,
        found: &BTreeMap<String, FoundLink>,
        by_index: &BTreeMap<u32, String>,
        synced: &mut Synced,
    ) -> Result<(), Error> {
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
        for (index, address) in have.into_iter().filter(|_| spec.ours) {
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

    fn sync_neighbours(
        &mut self,
        spec: &Spec,
        found: &BTreeMap<String, FoundLink>,
        by_index: &BTreeMap<u32, String>,
        synced: &mut Synced,
    ) -> Result<(), Error> {
        if spec.neighbours.is_empty() && !spec.ours {
            return Ok(());
        }
        let have = self.dump("neighbours", dump::neighbours)?;
        let have: BTreeMap<(u32, std::net::IpAddr), Option<crate::desired::Mac>> = have
            .into_iter()
            .map(|(index, address, mac)| ((index, address), mac))
            .collect();
        let mut wanted = std::collections::BTreeSet::new();
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
                let mac = mac.unwrap_or(crate::desired::Mac([0; 6]));
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

    fn sync_fdb(
        &mut self,
        spec: &Spec,
        found: &BTreeMap<String, FoundLink>,
        by_index: &BTreeMap<u32, String>,
        synced: &mut Synced,
    ) -> Result<(), Error> {
        if !spec.ours && spec.fdb.is_empty() {
            return Ok(());
        }
        let have: std::collections::BTreeSet<_> = self
            .dump("forwarding entries", dump::fdb)?
            .into_iter()
            .collect();
        let mut wanted = std::collections::BTreeSet::new();
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
            wanted.insert(key);
        }
        self.execute(requests, synced);
        for (index, mac, destination) in have {
            let Some(name) = by_index.get(&index).filter(|name| spec.has_link(name)) else {
                continue;
            };
            // One MAC has one place: replacing it moved it.
            let moved = matches!(destination, Destination::Vtep(_))
                && wanted
                    .iter()
                    .any(|(i, m, d)| (*i, *m) == (index, mac) && matches!(d, Destination::Vtep(_)));
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

    fn sync_routes(
        &mut self,
        spec: &Spec,
        found: &BTreeMap<String, FoundLink>,
        by_index: &BTreeMap<u32, String>,
        synced: &mut Synced,
    ) -> Result<(), Error> {
        // The node's own namespace may hold a whole internet of routes, none of them ours.
        if !spec.ours && spec.routes.is_empty() {
            return Ok(());
        }
        let have = dump::routes(&mut self.route, by_index).map_err(|source| Error::Netlink {
            action: format!("list the routes of {}", self.name),
            source,
        })?;
        let mut requests = Vec::new();
        for route in &spec.routes {
            let Some(link) = found.get(&route.link) else {
                continue;
            };
            if !have.iter().any(|(is, _)| is == route) {
                let message = RouteNetlinkMessage::NewRoute(parts::route(link.index, route));
                let object = format!("route {} (table {})", route.destination, route.table);
                requests.push(self.request("add", &object, NLM_F_CREATE | NLM_F_REPLACE, message));
            }
        }
        self.execute(requests, synced);
        for (route, message) in have {
            let same = |wanted: &&super::spec::Route| {
                (wanted.destination, wanted.table) == (route.destination, route.table)
            };
            if !spec.routes.iter().any(|wanted| same(&wanted)) {
                let object = format!("route {} (table {})", route.destination, route.table);
                let message = RouteNetlinkMessage::DelRoute(message);
                let request = self.request("delete", &object, 0, message);
                synced.cleanup.entries.push(request);
            }
        }
        Ok(())
    }

    fn sync_rules(&mut self, spec: &Spec, synced: &mut Synced) -> Result<(), Error> {
        if !spec.ours && spec.rules.is_empty() {
            return Ok(());
        }
        let have = self.dump("routing rules", dump::rules)?;
        let mut requests = Vec::new();
        for rule in &spec.rules {
            if !have.ours.iter().any(|(is, _)| is == rule) {
                let message = RouteNetlinkMessage::NewRule(parts::rule(rule));
                let object = format!("routing rule {}", rule.priority);
                requests.push(self.request("add", &object, NLM_F_CREATE | NLM_F_EXCL, message));
            }
        }
        if spec.local_last {
            for ipv6 in [false, true] {
                // A kernel without IPv6 has no rule to move.
                let first = have.local.iter().any(|rule| *rule == (ipv6, 0));
                let moved = have.local.iter().any(|rule| *rule == (ipv6, LOCAL_RULE));
                if first && !moved {
                    let message = RouteNetlinkMessage::NewRule(parts::local_rule(ipv6, LOCAL_RULE));
                    let object = "routing rule for the local table";
                    requests.push(self.request("add", object, NLM_F_CREATE | NLM_F_EXCL, message));
                }
                if first {
                    let message = RouteNetlinkMessage::DelRule(parts::local_rule(ipv6, 0));
                    requests.push(self.request("delete", "routing rule 0", 0, message));
                }
            }
        }
        self.execute(requests, synced);
        for (rule, message) in have.ours {
            if !spec.rules.contains(&rule) {
                let object = format!("routing rule {}", rule.priority);
                let message = RouteNetlinkMessage::DelRule(message);
                let request = self.request("delete", &object, 0, message);
                synced.cleanup.entries.push(request);
            }
        }
        Ok(())
    }
}

fn as_fd(netns: &Netns) -> std::os::fd::BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(netns)
}

fn master(link: &Link, found: &BTreeMap<String, FoundLink>) -> Option<u32> {
    let port = link.port.as_ref()?;
    found.get(&port.bridge).map(|bridge| bridge.index)
}

fn describe_fdb(entry: &FdbEntry) -> String {
    match &entry.destination {
        Destination::Port => format!("forwarding entry {} on {}", entry.mac, entry.link),
        Destination::Vtep(vtep) => {
            format!("forwarding entry {} at {vtep} on {}", entry.mac, entry.link)
        }
    }
}

/// Writes a setting if it differs; whether it did.
fn write_sysctl(sysctl: &Sysctl) -> Result<bool, Error> {
    let path = Path::new("/proc/sys").join(&sysctl.path);
    match std::fs::read_to_string(&path) {
        Ok(value) if value.trim() == sysctl.value => return Ok(false),
        Err(error) if sysctl.optional && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(false);
        }
        _ => {}
    }
    std::fs::write(&path, sysctl.value).map_err(Error::file("write", path))?;
    Ok(true)
}
