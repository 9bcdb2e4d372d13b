//! The devices of a namespace: made, set, found to be in excess.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;

use super::dump::{self, FoundLink};
use super::handle::{Namespace, Synced};
use super::links;
use super::spec::{Link, LinkKind, Spec};
use crate::error::NetdpError;
use crate::netlink::{NLM_F_CREATE, NLM_F_EXCL, Request, RouteSocket};
use crate::netns::Netns;

impl Namespace {
    /// Makes links that lack; whether any was made.
    pub(super) fn create_links(
        &mut self,
        spec: &Spec,
        node: &mut Option<&mut RouteSocket>,
        found: &mut BTreeMap<String, FoundLink>,
        synced: &mut Synced,
    ) -> Result<bool, NetdpError> {
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
                    let message = links::create(link, bridge, None, Some(netns.as_fd()));
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

    fn netns_fd(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    fn creation(&self, link: &Link, message: LinkMessage) -> Request {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let object = format!("link {}", link.name);
        self.request(
            "create",
            &object,
            flags,
            RouteNetlinkMessage::NewLink(message),
        )
    }

    pub(super) fn adjust_links(
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
                    synced.errors.push(NetdpError::NoLink {
                        namespace: self.name.clone(),
                        link: link.name.clone(),
                    });
                }
                // Its creation failed, and said so.
                None => {}
            }
        }
        self.execute(requests, synced);
    }

    /// Deletes the near ends of veths whose far ends lack: `lost` has the namespace's file and the
    /// name of each. Only both together can be made anew, which the next comparison does.
    pub(crate) fn delete_halves(
        &mut self,
        spec: &Spec,
        lost: &[(PathBuf, String)],
    ) -> Result<Vec<NetdpError>, NetdpError> {
        let is_lost = |link: &&Link| match &link.kind {
            LinkKind::Veth(peer) => {
                let mut lost = lost.iter();
                lost.any(|(netns, name)| *netns == peer.netns && *name == peer.name)
            }
            _ => false,
        };
        let halves: Vec<&Link> = spec.links.iter().filter(is_lost).collect();
        if halves.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.dump("links", dump::links)?;
        let found = halves.into_iter().filter_map(|half| found.get(&half.name));
        let requests = found.map(|half| {
            let message = RouteNetlinkMessage::DelLink(links::by_index(half.index));
            self.request("delete", &format!("link {}", half.name), 0, message)
        });
        let requests = requests.collect();
        Ok(self.route.execute(requests))
    }

    /// MTU of the devices here that are ours, whichever process made them; `bridge` is not asked,
    /// its MTU is that of its ports, or none in particular.
    pub(crate) fn mtu_as_built(&mut self, bridge: &str) -> Result<Option<u32>, NetdpError> {
        let found = self.dump("links", dump::links)?;
        let ours = found
            .values()
            .filter(|link| link.alias.starts_with(links::OWNER) && link.name != bridge);
        Ok(ours.map(|link| link.mtu).min())
    }

    pub(super) fn excess_links(
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
}

fn master(link: &Link, found: &BTreeMap<String, FoundLink>) -> Option<u32> {
    let port = link.port.as_ref()?;
    found.get(&port.bridge).map(|bridge| bridge.index)
}
