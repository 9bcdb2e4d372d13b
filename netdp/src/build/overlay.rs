//! The namespace of an overlay network: bridges, VXLAN devices, the tasks' ports.

use std::collections::BTreeSet;

use super::ip::Ip;
use super::view::{View, segment_of, segment_of_address};
use super::{guard, ingress, names};
use crate::desired::{Mac, Network};
use crate::namespace::{Destination, FdbEntry, Link, LinkKind, Neighbour, Port, Spec, VethPeer};

/// An overlay network's namespace; for the ingress network with what only that has.
pub(crate) fn overlay(view: &View<'_>, id: &str, network: &Network) -> Spec {
    let mut spec = Spec {
        ours: true,
        ..Spec::default()
    };
    let mtu = view.mtu(network);
    // No packet is delivered here: bridged traffic needs no addresses, firewall or IPv6.
    spec.optional_sysctl("net/bridge/bridge-nf-call-iptables", "0");
    spec.optional_sysctl("net/bridge/bridge-nf-call-ip6tables", "0");
    spec.optional_sysctl("net/bridge/bridge-nf-call-arptables", "0");
    // IPv6 must be on for the VXLAN device to answer neighbour discovery, but no device here needs
    // an address of its own.
    spec.optional_sysctl(Ip::V6.sysctl("all", "addr_gen_mode"), "1");
    spec.optional_sysctl(Ip::V6.sysctl("default", "addr_gen_mode"), "1");
    for segment in &network.segments {
        let bridge = names::bridge(segment.vni);
        let steering = if network.ingress {
            view.node.ingress
        } else {
            None
        };
        spec.links.push(Link {
            name: bridge.clone(),
            kind: LinkKind::Bridge,
            mac: steering.map(|steering| steering.mac()),
            mtu: Some(mtu),
            port: None,
            alias: format!("network {}", network.name),
        });
        if let Some(local) = view.vtep() {
            let kind = LinkKind::Vxlan {
                vni: segment.vni,
                port: view.node.vxlan_port,
                local,
            };
            spec.links.push(Link {
                name: names::vxlan(segment.vni),
                kind,
                mac: None,
                mtu: Some(mtu),
                port: Some(Port {
                    bridge,
                    isolated: false,
                }),
                alias: format!("network {}, VNI {}", network.name, segment.vni),
            });
        }
    }
    local_legs(&mut spec, view, id, network, mtu);
    remote_endpoints(&mut spec, view, id, network);
    if network.ingress {
        ingress::extend(&mut spec, view, id, network);
    }
    let guard = guard::overlay_ports(view, id);
    if !guard.is_empty() {
        spec.tables.push(guard);
    }
    spec
}

fn local_legs(spec: &mut Spec, view: &View<'_>, id: &str, network: &Network, mtu: u32) {
    for (task, sandbox, leg) in view.legs(id) {
        let Some(segment) = segment_of(network, leg) else {
            continue;
        };
        let port = view.overlay_port(task);
        spec.links.push(Link {
            name: port.clone(),
            kind: LinkKind::Veth(VethPeer {
                netns: names::netns_of_task(view.run_dir, task),
                name: leg.ifname.clone(),
                mac: Some(leg.mac),
            }),
            mac: None,
            mtu: Some(mtu),
            port: Some(Port {
                bridge: names::bridge(segment.vni),
                isolated: false,
            }),
            alias: format!("task {}", sandbox.name),
        });
        spec.fdb.push(FdbEntry {
            link: port,
            mac: leg.mac,
            destination: Destination::Port,
        });
    }
}

fn remote_endpoints(spec: &mut Spec, view: &View<'_>, id: &str, network: &Network) {
    let mut macs: BTreeSet<(u32, Mac, std::net::IpAddr)> = BTreeSet::new();
    for endpoint in view.remote_endpoints(id) {
        // A node that is not known, or has no address of our family, cannot be reached.
        let Some(vtep) = view.vtep_of(&endpoint.node) else {
            continue;
        };
        for address in &endpoint.addresses {
            let Some(vni) = segment_of_address(network, *address) else {
                continue;
            };
            macs.insert((vni, endpoint.mac, vtep));
            spec.neighbours.push(Neighbour {
                link: names::vxlan(vni),
                address: *address,
                mac: endpoint.mac,
            });
        }
    }
    if network.ingress {
        for (node, peer) in &view.desired.peers {
            if let (Some(steering), Some(vtep)) = (peer.ingress, view.vtep_of(node)) {
                let segments = network.segments.iter();
                macs.extend(segments.map(|segment| (segment.vni, steering.mac(), vtep)));
            }
        }
    }
    for (vni, mac, vtep) in macs {
        let link = names::vxlan(vni);
        for destination in [Destination::Port, Destination::Vtep(vtep)] {
            spec.fdb.push(FdbEntry {
                link: link.clone(),
                mac,
                destination,
            });
        }
    }
}
