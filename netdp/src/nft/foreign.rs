//! Other people's firewalls.
//!
//! A packet passes every base chain of a hook, and one drop is final: an accept in our table
//! cannot save a packet from a chain of docker, firewalld or ufw whose policy or last rule drops
//! it. So each base chain of the forward and input hooks that can drop gets one rule of ours at its
//! head (`DOCKER-USER`, where docker offers it), which lets exactly our own interfaces' traffic
//! pass. It carries our mark in its comment, is found by it, and goes with us.

use super::attribute::{Attributes, find, integer, text};
use super::expression::Rule;
use super::socket::NftSocket;
use super::table::{Family, SUBSYSTEM, TABLE, header, message};
use crate::netlink::{Message, NLM_F_CREATE, NetlinkError};

/// A base chain that is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForeignChain {
    pub(crate) family: u8,
    pub(crate) table: String,
    pub(crate) name: String,
    hook: u32,
    /// Whether its policy lets pass what no rule decides.
    accepts: bool,
}

/// Our rules in foreign chains: for each hook, one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guard {
    /// Family of the packets: a chain of family `inet` gets the rules of both.
    pub(crate) family: Family,
    /// `NF_INET_LOCAL_IN` or `NF_INET_FORWARD`.
    pub(crate) hook: u32,
    pub(crate) rules: Vec<Rule>,
}

pub(crate) const HOOK_INPUT: u32 = 1;
pub(crate) const HOOK_FORWARD: u32 = 2;
const FAMILY_INET: u8 = 1;
/// `NF_ACCEPT`.
const POLICY_ACCEPT: u32 = 1;
/// Every rule of ours in a foreign chain has a comment that begins so.
pub(crate) const MARK: &str = "fairlead:";

struct FoundRule {
    handle: u64,
    comment: String,
}

impl NftSocket {
    /// Brings our rules into every foreign chain that needs them, and takes those away that are
    /// out of place. Returns the chains that were changed.
    pub(crate) fn guard(&mut self, guards: &[Guard]) -> Result<Vec<ForeignChain>, NetlinkError> {
        let mut changed = Vec::new();
        for chain in self.foreign_chains()? {
            let wanted: Vec<&Rule> = guards
                .iter()
                .filter(|guard| guard.hook == chain.hook && covers(chain.family, guard.family))
                .flat_map(|guard| &guard.rules)
                .collect();
            let found = self.rules_of(&chain)?;
            // What nobody can drop in need not be let pass.
            let harmless = chain.accepts && found.iter().all(|rule| rule.comment.starts_with(MARK));
            let wanted = if harmless { Vec::new() } else { wanted };
            // In place: ours, all of them, at the head, in order.
            let in_place = found.len() >= wanted.len()
                && found
                    .iter()
                    .zip(&wanted)
                    .all(|(found, rule)| found.comment == rule.comment)
                && !found[wanted.len()..]
                    .iter()
                    .any(|rule| rule.comment.starts_with(MARK));
            if in_place {
                continue;
            }
            let mut messages = Vec::new();
            for rule in found.iter().filter(|rule| rule.comment.starts_with(MARK)) {
                let payload = start(&chain).u64(3, rule.handle).finish();
                let kind = SUBSYSTEM << 8 | message::DEL_RULE;
                messages.push(Message {
                    kind,
                    flags: 0,
                    payload,
                });
            }
            // Without NLM_F_APPEND a rule goes to the head: the last one first.
            for rule in wanted.iter().rev() {
                let payload = start(&chain)
                    .nested(4, &rule.encode())
                    .bytes(7, &rule.user_data())
                    .finish();
                let kind = SUBSYSTEM << 8 | message::NEW_RULE;
                messages.push(Message {
                    kind,
                    flags: NLM_F_CREATE,
                    payload,
                });
            }
            self.commit(messages)?;
            changed.push(chain);
        }
        Ok(changed)
    }

    /// Base chains of type filter on the input and forward hooks, ours left out.
    fn foreign_chains(&mut self) -> Result<Vec<ForeignChain>, NetlinkError> {
        let mut chains = Vec::new();
        for family in [FAMILY_INET, Family::Ipv4 as u8, Family::Ipv6 as u8] {
            self.dump(message::GET_CHAIN, vec![family, 0, 0, 0], |attributes| {
                let name = |kind| find(attributes, kind).map(text).unwrap_or_default();
                let Some(hook) = find(attributes, 4).and_then(|hook| find(hook, 1)) else {
                    return;
                };
                let hook = integer(hook).unwrap_or(u32::MAX);
                let table = name(1);
                let ours = table == TABLE;
                let accepts = find(attributes, 5).and_then(integer) == Some(POLICY_ACCEPT);
                if !ours && name(7) == "filter" && matches!(hook, HOOK_INPUT | HOOK_FORWARD) {
                    chains.push(ForeignChain {
                        family,
                        table,
                        name: name(3),
                        hook,
                        accepts,
                    });
                }
            })?;
        }
        Ok(chains)
    }

    fn rules_of(&mut self, chain: &ForeignChain) -> Result<Vec<FoundRule>, NetlinkError> {
        let mut rules = Vec::new();
        self.dump(message::GET_RULE, start(chain).finish(), |attributes| {
            let name = |kind| find(attributes, kind).map(text).unwrap_or_default();
            // Older kernels ignore the filter.
            if name(1) != chain.table || name(2) != chain.name {
                return;
            }
            let handle = find(attributes, 3)
                .and_then(|value| value.try_into().ok().map(u64::from_be_bytes))
                .unwrap_or(0);
            let comment = find(attributes, 7)
                .filter(|data| data.first() == Some(&0))
                .and_then(|data| data.get(2..))
                .map(text)
                .unwrap_or_default();
            rules.push(FoundRule { handle, comment });
        })?;
        Ok(rules)
    }
}

fn covers(chain: u8, packets: Family) -> bool {
    chain == FAMILY_INET || chain == packets as u8
}

/// Table and chain, as every message about rules begins.
fn start(chain: &ForeignChain) -> Attributes {
    let mut head = header(Family::Ipv4, 0);
    head[0] = chain.family;
    Attributes::after(&head)
        .string(1, &chain.table)
        .string(2, &chain.name)
}
