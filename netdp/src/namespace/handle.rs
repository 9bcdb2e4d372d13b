//! Comparing a namespace with its spec, and making it so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkFlags, LinkMessage};

use super::dump::{self, FoundLink};
use super::links;
use super::record::Record;
use super::spec::{Link, Spec, Sysctl};
use super::tables::Committed;
use crate::conntrack::{self, Pin};
use crate::error::NetdpError;
use crate::netlink::{NetlinkError, Request, RouteSocket};
use crate::netns::Netns;
use crate::nft::{Foreign, NftSocket};

/// One namespace with its sockets.
#[derive(Debug)]
pub(crate) struct Namespace {
    /// For messages: `network app`, `task web.1`, `the node`.
    pub(super) name: String,
    pub(super) netns: Netns,
    pub(crate) route: RouteSocket,
    pub(crate) nft: NftSocket,
    tables: Committed,
    foreign: Foreign,
    pub(super) record: Record,
    /// It was us who switched forwarding of IPv6 on.
    pub(super) router: bool,
    pub(super) sysctls: Vec<Sysctl>,
    /// Links were brought up since the last [`super::settle`].
    pub(super) unsettled: bool,
}

/// What a comparison led to.
#[derive(Debug, Default)]
pub(crate) struct Synced {
    /// What was not as the spec says, and was changed. Removals are not in it.
    pub(crate) changes: Vec<String>,
    pub(crate) errors: Vec<NetdpError>,
    pub(crate) cleanup: Cleanup,
}

/// What is to be removed, after everything else is in place: balancing must not point to what is
/// no longer reachable.
#[derive(Debug, Default)]
pub(crate) struct Cleanup {
    pub(super) entries: Vec<Request>,
    /// Deleting a device waits for every CPU, 20 ms and more; most are going anyway, with the
    /// namespace of their other end.
    pub(super) links: Vec<Request>,
}

impl Namespace {
    /// Opens the sockets of a namespace. `record`: file for what a later process must know of it.
    pub(crate) fn open(name: String, netns: Netns, record: PathBuf) -> Result<Self, NetdpError> {
        let sockets = netns.run(|| Ok((RouteSocket::open()?, NftSocket::open()?)))?;
        let (route, nft) = sockets.map_err(NetdpError::system(format!(
            "open netlink sockets in {name}"
        )))?;
        let record = Record::open(record);
        Ok(Self {
            router: record.router(),
            name,
            netns,
            route,
            nft,
            tables: Committed::default(),
            foreign: Foreign::default(),
            record,
            sysctls: Vec::new(),
            unsettled: false,
        })
    }

    pub(crate) fn netns(&self) -> &Netns {
        &self.netns
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
        let links = match self.sync_devices(spec, &mut node, verify, &mut synced) {
            Ok(links) => links,
            Err(error) => {
                synced.errors.push(error);
                return synced;
            }
        };
        let tables = self.tables.sync(
            &mut self.nft,
            &mut self.record,
            &self.name,
            &spec.tables,
            &links,
            verify,
        );
        if tables.errors.is_empty() {
            let errors = self.unpin(&spec.pins, tables.adopted);
            synced.errors.extend(errors.err());
        }
        synced.changes.extend(tables.healed);
        synced.errors.extend(tables.errors);
        if spec.shared {
            let (changed, errors) = self.foreign.sync(&mut self.nft, &spec.guards);
            synced.changes.extend(changed);
            synced.errors.extend(errors);
        }
        synced
    }

    /// Ends the tracked connections that are pinned to what is there no more. Not before the tables
    /// lead elsewhere.
    fn unpin(&mut self, wanted: &BTreeSet<Pin>, adopted: bool) -> Result<(), NetdpError> {
        let stale = match self.record.pins() {
            Some(old) => conntrack::changed(old, wanted),
            // What an unknown process programmed has its connections where they belong.
            None if adopted => BTreeSet::new(),
            None => conntrack::changed(&BTreeSet::new(), wanted),
        };
        if !stale.is_empty() {
            self.nft
                .flush(&stale)
                .map_err(|source| NetdpError::Netlink {
                    action: format!("flush tracked connections of {}", self.name),
                    source,
                })?;
        }
        self.record.set_pins(wanted);
        Ok(())
    }

    /// Removes what an earlier [`Namespace::sync`] found to be in excess; devices only if `links`.
    pub(crate) fn clean(&mut self, cleanup: Cleanup, links: bool) -> Vec<NetdpError> {
        let mut errors = self.route.execute(cleanup.entries);
        if links {
            errors.extend(self.route.execute(cleanup.links));
        }
        errors
    }

    /// Deletes the devices that matter outside: devices that go with their namespace go some time
    /// later. A VXLAN device would hold its VNI meanwhile, and the far end of the leg to the node
    /// would be taken for that of the next namespace.
    pub(crate) fn disconnect(&mut self, leg: &str) -> Result<Vec<NetdpError>, NetdpError> {
        let found = self.dump("links", dump::links)?;
        let outside = |link: &&FoundLink| link.vxlan.is_some() || link.name == leg;
        let requests = found.values().filter(outside).map(|link| {
            let message = RouteNetlinkMessage::DelLink(links::by_index(link.index));
            self.request("delete", &format!("link {}", link.name), 0, message)
        });
        let requests = requests.collect();
        Ok(self.route.execute(requests))
    }

    /// Everything but the tables; the links by name, with their indices.
    fn sync_devices(
        &mut self,
        spec: &Spec,
        node: &mut Option<&mut RouteSocket>,
        verify: bool,
        synced: &mut Synced,
    ) -> Result<BTreeMap<String, u32>, NetdpError> {
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
            self.unsettled = true;
        }
        let is_down = |link: &Link| found.get(&link.name).is_some_and(|link| !link.up);
        self.unsettled |= spec.links.iter().any(is_down);
        self.adjust_links(spec, &found, synced);
        self.excess_links(spec, &found, synced);
        if sysctls {
            let errors = synced.errors.len();
            self.sync_sysctls(spec, Sysctl::is_of_a_link, synced)?;
            self.keep_routes(spec, &found, synced)?;
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
        self.sync_rules(spec, synced)?;
        Ok(by_index
            .into_iter()
            .map(|(index, name)| (name, index))
            .collect())
    }

    pub(super) fn dump<T>(
        &mut self,
        what: &str,
        dump: impl FnOnce(&mut RouteSocket) -> Result<T, NetlinkError>,
    ) -> Result<T, NetdpError> {
        dump(&mut self.route).map_err(|source| NetdpError::Netlink {
            action: format!("list the {what} of {}", self.name),
            source,
        })
    }

    pub(super) fn request(
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

    pub(super) fn execute(&mut self, requests: Vec<Request>, synced: &mut Synced) {
        synced.changes.extend(
            requests
                .iter()
                .map(|r| format!("{} {}", r.action, r.object)),
        );
        synced.errors.extend(self.route.execute(requests));
    }

    fn set_up(&mut self, mut link: LinkMessage, synced: &mut Synced) {
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        let request = self.request("set", "link lo", 0, RouteNetlinkMessage::SetLink(link));
        self.execute(vec![request], synced);
    }
}
