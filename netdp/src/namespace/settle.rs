//! Waiting until links that were brought up carry packets.
//!
//! A veth or a bridge gets its carrier while a request brings its other side up, but the kernel takes
//! notice of that some time after the request's answer, in a work item (`net/core/link_watch.c`).
//! Until then it drops whatever is sent through the link, without a word. On a busy machine this
//! has lasted long enough to lose the first datagrams to a port that was said to be served.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use super::dump::{self, FoundLink};
use super::handle::Namespace;
use super::spec::{LinkKind, Spec};

/// The first pause; each further one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// A link whose other side could not be made never carries anything, and that was told already.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits until the links that the last [`Namespace::sync`] of each brought up carry packets. Costs
/// one list of links for each namespace that has such links, and usually no pause.
pub(crate) fn settle<'a>(namespaces: impl Iterator<Item = (&'a mut Namespace, &'a Spec)>) {
    let mut waiting: Vec<_> = namespaces
        .filter(|(namespace, _)| namespace.unsettled)
        .collect();
    for (namespace, _) in &mut waiting {
        namespace.unsettled = false;
    }
    let end = Instant::now() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    loop {
        waiting.retain_mut(|(namespace, spec)| !namespace.carries(spec));
        if waiting.is_empty() {
            return;
        }
        if Instant::now() > end {
            for (namespace, _) in waiting {
                tracing::warn!(namespace = namespace.name, "a link carries no packets yet");
            }
            return;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl Namespace {
    /// Whether all links of the spec carry packets. What cannot be asked counts as if they did: the
    /// next comparison meets the same error and tells it.
    fn carries(&mut self, spec: &Spec) -> bool {
        let found = self.dump("links", dump::links);
        found.map_or(true, |found| all_carry(spec, &found))
    }
}

fn all_carry(spec: &Spec, found: &BTreeMap<String, FoundLink>) -> bool {
    let carries = |link: &FoundLink| link.running || !link.up;
    spec.links.iter().all(|link| match found.get(&link.name) {
        None => true,
        // Without a port that carries packets a bridge has nothing to carry them to.
        Some(bridge) if link.kind == LinkKind::Bridge => {
            let mut ports = found.values().filter(|l| l.master == Some(bridge.index));
            carries(bridge) || !ports.any(|port| port.up && port.running)
        }
        Some(link) => carries(link),
    })
}

#[cfg(test)]
mod tests {
    use super::super::spec::Link;
    use super::*;

    #[test]
    fn a_bridge_without_ports_is_not_waited_for() {
        let link = |name: &str, kind| Link {
            name: name.to_owned(),
            kind,
            mac: None,
            mtu: None,
            port: None,
            alias: String::new(),
        };
        let spec = Spec {
            links: vec![link("br", LinkKind::Bridge), link("v", LinkKind::VethEnd)],
            ..Spec::default()
        };
        let is = |index, up, running, master| FoundLink {
            index,
            up,
            running,
            master,
            ..FoundLink::default()
        };
        let carry = |br: FoundLink, v: FoundLink| {
            all_carry(&spec, &[("br".to_owned(), br), ("v".to_owned(), v)].into())
        };
        let (up, down) = (is(1, true, true, None), is(1, true, false, None));
        assert!(carry(down.clone(), is(2, true, true, None)));
        assert!(!carry(down.clone(), is(2, true, true, Some(1))));
        assert!(carry(up.clone(), is(2, true, true, Some(1))));
        assert!(!carry(up.clone(), is(2, true, false, Some(1))));
        assert!(carry(up, is(2, false, false, None)));
        assert!(all_carry(&spec, &BTreeMap::new()));
    }
}
