//! Routes and policy routing rules of a namespace.

use std::collections::BTreeMap;

use netlink_packet_route::RouteNetlinkMessage;

use super::dump::{self, FoundLink};
use super::handle::{Namespace, Synced};
use super::parts;
use super::spec::{Route, Spec};
use crate::error::NetdpError;
use crate::netlink::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

/// Where our rule for the local table goes when ours come first.
const LOCAL_RULE: u32 = 1000;

impl Namespace {
    pub(super) fn sync_routes(
        &mut self,
        spec: &Spec,
        found: &BTreeMap<String, FoundLink>,
        by_index: &BTreeMap<u32, String>,
        synced: &mut Synced,
    ) -> Result<(), NetdpError> {
        // The node's own namespace may hold a whole internet of routes, none of them ours.
        if !spec.ours && spec.routes.is_empty() {
            return Ok(());
        }
        let have =
            dump::routes(&mut self.route, by_index).map_err(|source| NetdpError::Netlink {
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
            let same = |wanted: &&Route| {
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

    pub(super) fn sync_rules(
        &mut self,
        spec: &Spec,
        synced: &mut Synced,
    ) -> Result<(), NetdpError> {
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
                let first = have.local.contains(&(ipv6, 0));
                let moved = have.local.contains(&(ipv6, LOCAL_RULE));
                // A kernel without IPv6 has no rule to move.
                let used = first || spec.rules.iter().any(|rule| rule.ipv6 == ipv6);
                if used && !moved {
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
