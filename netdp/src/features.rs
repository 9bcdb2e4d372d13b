//! What this kernel can do, found out by doing it in a namespace that is thrown away.

use std::{fs, io};

use nix::sched::{CloneFlags, unshare};

use crate::desired::Engine;
use crate::namespace::{Link, LinkKind, probe_link};
use crate::netlink::RouteSocket;
use crate::nft::{
    ChainKind, Expr, Family, Hook, NftSocket, Register, Table, Verdict, priority, rule,
};

/// Something that a kernel has or has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Short and stable: `ipvs`, `vxlan`.
    pub name: &'static str,
    /// Whether it works.
    pub available: bool,
    /// What it is for; if it lacks, why, and what can be done.
    pub detail: String,
}

/// All features, by name.
pub(crate) fn probe() -> Vec<Feature> {
    let outcomes = std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> io::Result<_> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let nft = NftSocket::open();
            let links = (bridge_works(), vxlan_works());
            Ok((ipvs_works(), nft.map(nft_works), links))
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the probe panicked")))
    });
    let (ipvs, nft, (bridge, vxlan)) = match outcomes {
        Ok((ipvs, nft, links)) => {
            let nft = nft.unwrap_or_else(|e| (Err(e.to_string()), Err(e.to_string())));
            (ipvs, nft, links)
        }
        Err(error) => {
            let error = format!("no network namespace can be made: {error}");
            (
                Err(error.clone()),
                (Err(error.clone()), Err(error.clone())),
                (Err(error.clone()), Err(error)),
            )
        }
    };
    let mut features = vec![
        feature(
            "bridge",
            "joins the tasks of a node",
            bridge,
            "CONFIG_BRIDGE, module bridge",
        ),
        feature(
            "firewalls",
            "what other firewalls drop, and is ours, passes",
            no_legacy_filter(),
            "iptables by nftables (iptables-nft), or rules there that accept fl_gwbridge, fl_ingress and the \
             tunnel's UDP port",
        ),
        feature(
            "ipvs",
            "balances published ports",
            ipvs,
            "CONFIG_IP_VS, module ip_vs",
        ),
        feature(
            "nft",
            "address translation",
            nft.0,
            "CONFIG_NF_TABLES, CONFIG_NFT_NAT, CONFIG_NFT_NUMGEN",
        ),
        feature(
            "nft-egress",
            "keeps the client's address through the mesh",
            nft.1,
            "Linux 5.16 with CONFIG_NETFILTER_EGRESS",
        ),
        feature(
            "vxlan",
            "overlay networks",
            vxlan,
            "CONFIG_VXLAN, module vxlan",
        ),
    ];
    features.sort_by_key(|feature| feature.name);
    features
}

/// Tables of the legacy iptables tools are not reached by netlink. They are listed where somebody has used one
/// in this namespace (`net/netfilter/x_tables.c`).
fn no_legacy_filter() -> Result<(), String> {
    for list in ["ip_tables_names", "ip6_tables_names"] {
        let tables = fs::read_to_string(format!("/proc/thread-self/net/{list}"));
        if tables.is_ok_and(|tables| tables.lines().any(|table| table == "filter")) {
            return Err("legacy iptables has a table filter here".to_owned());
        }
    }
    Ok(())
}

/// Whether the kernel can do this.
pub(crate) fn has(features: &[Feature], name: &str) -> bool {
    features.iter().any(|f| f.name == name && f.available)
}

/// What balances published ports where nobody chose: IPVS where the kernel has it.
#[must_use]
pub fn best_engine(features: &[Feature]) -> Engine {
    if has(features, "ipvs") {
        Engine::Ipvs
    } else {
        Engine::Nft
    }
}

fn feature(name: &'static str, purpose: &str, outcome: Result<(), String>, needs: &str) -> Feature {
    match outcome {
        Ok(()) => Feature {
            name,
            available: true,
            detail: purpose.to_owned(),
        },
        Err(error) => Feature {
            name,
            available: false,
            detail: format!("{purpose}; needs {needs}: {error}"),
        },
    }
}

fn ipvs_works() -> Result<(), String> {
    let mut client = ipvs::Client::open().map_err(|error| error.to_string())?;
    client.info().map(drop).map_err(|error| error.to_string())
}

/// Address translation with a number generator; a chain on a device's egress.
fn nft_works(mut socket: NftSocket) -> (Result<(), String>, Result<(), String>) {
    let mut nat = Table::new(Family::Ipv4);
    let expressions = vec![Expr::random(Register(0), 2), Expr::masquerade()];
    nat.base(
        "source",
        ChainKind::Nat,
        Hook::Postrouting,
        priority::SRCNAT,
        vec![rule("", expressions)],
    );
    let mut egress = Table::new(Family::Netdev);
    let accept = vec![rule("", vec![Expr::verdict(&Verdict::Accept)])];
    egress.base(
        "out",
        ChainKind::Filter,
        Hook::Egress("lo".to_owned()),
        priority::FILTER,
        accept,
    );
    let mut works = |table| socket.replace(table).map_err(|error| error.to_string());
    (works(&nat), works(&egress))
}

fn bridge_works() -> Result<(), String> {
    link_works("bridge", LinkKind::Bridge)
}

fn vxlan_works() -> Result<(), String> {
    let kind = LinkKind::Vxlan {
        vni: 4096,
        port: 4789,
        local: [127, 0, 0, 1].into(),
    };
    link_works("vxlan", kind)
}

fn link_works(name: &str, kind: LinkKind) -> Result<(), String> {
    let mut socket = RouteSocket::open().map_err(|error| error.to_string())?;
    let link = Link {
        name: format!("probe-{name}"),
        kind,
        mac: None,
        mtu: None,
        port: None,
        alias: String::new(),
    };
    let errors = socket.execute(vec![probe_link(&link)]);
    errors
        .into_iter()
        .next()
        .map_or(Ok(()), |error| Err(error.to_string()))
}
