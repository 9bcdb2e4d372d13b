//! Balancing by nftables: flat maps, one small chain for each number of backends.
//!
//! ```text
//! chain  dnat        key                  vmap @services     { key : goto pick-3 }
//! chain  pick-3      key . numgen random mod 3   map  @backends     { key . 0 : a, key . 1 : b, key . 2 : c }
//! ```
//!
//! A chain per service would cost seconds to load for thousands of them; here a service is elements
//! only, and a change of one backend changes the elements of its service and nothing else. The next
//! backend is drawn at random: a counter would be shared by all services with as many backends, and
//! two services called in turn would each always get the same one.

use std::collections::BTreeSet;

use super::ip::Ip;
use crate::desired::Scheduler;
use crate::nft::{Expr, KeyType, Register, Rule, Set, Table, Value, Verdict, rule};

/// One virtual service: a key, and where it leads.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) key: Vec<Value>,
    pub(super) backends: Vec<Vec<Value>>,
    pub(super) scheduler: Option<Scheduler>,
}

/// How the key gets into registers, and what comes out of the map.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) ip: Ip,
    pub(super) key: Vec<KeyType>,
    /// Puts the key into registers from 0 on.
    pub(super) load: Vec<Expr>,
    /// The register behind the key.
    pub(super) slot: Register,
}

/// Where a map's value is put: free of keys and slots.
const RESULT: u8 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Pick {
    Random,
    Source,
}

impl Pick {
    /// VIPs are balanced here also where the engine of published ports is another: what only that
    /// can do becomes a random choice, and either way of hashing a hash.
    fn of(scheduler: Option<Scheduler>) -> Self {
        match scheduler {
            Some(Scheduler::SourceHash | Scheduler::Maglev) => Self::Source,
            _ => Self::Random,
        }
    }

    fn chain(self, count: u32) -> String {
        match self {
            Self::Random => format!("pick-{count}"),
            Self::Source => format!("pick-source-{count}"),
        }
    }
}

/// Adds the sets and chains to `table`, and returns the rules for the base chain. Choices without
/// backends get no new connections, and keep those that are established.
pub(super) fn add(table: &mut Table, layout: &Layout, choices: &[Choice]) -> Vec<Rule> {
    let mut services = Set::verdicts("services", &layout.key);
    let mut key = layout.key.clone();
    key.push(KeyType::Mark);
    let mut backends = Set::map("backends", &key, &[layout.ip.key()]);
    let mut picks = BTreeSet::new();
    for choice in choices.iter().filter(|choice| !choice.backends.is_empty()) {
        let count = u32::try_from(choice.backends.len()).unwrap_or(u32::MAX);
        let pick = Pick::of(choice.scheduler);
        picks.insert((pick, count));
        services.insert_verdict(&choice.key, Verdict::Goto(pick.chain(count)));
        for (slot, backend) in (0..).zip(&choice.backends) {
            let mut key = choice.key.clone();
            key.push(Value::Mark(slot));
            backends.insert_value(&key, backend);
        }
    }
    if choices.is_empty() {
        return Vec::new();
    }
    if picks.is_empty() {
        // Nothing leads there. But the kernel tracks and translates connections only where a rule could
        // translate one (nft_nat_init), and those of a last backend that drains are to go on.
        picks.insert((Pick::Random, 1));
    }
    for (pick, count) in picks {
        table.chain(&pick.chain(count), vec![pick_rule(layout, pick, count)]);
    }
    table.sets.push(services);
    table.sets.push(backends);
    let mut dispatch = layout.load.clone();
    dispatch.push(Expr::verdict_map("services", Register(0)));
    vec![rule("choose a backend", dispatch)]
}

fn pick_rule(layout: &Layout, pick: Pick, count: u32) -> Rule {
    let mut expressions = Vec::new();
    match pick {
        Pick::Random => {
            expressions.extend(layout.load.clone());
            expressions.push(Expr::random(layout.slot, count));
        }
        Pick::Source => {
            let source = Register(RESULT);
            expressions.push(layout.ip.source(source));
            expressions.push(Expr::hash(source, layout.ip.length(), layout.slot, count));
            expressions.extend(layout.load.clone());
        }
    }
    let address = Register(RESULT);
    expressions.push(Expr::map("backends", Register(0), address));
    let family = layout.ip.family() as u8;
    expressions.push(Expr::dnat(family, address, None));
    rule("the chosen one", expressions)
}
