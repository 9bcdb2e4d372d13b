//! Other people's firewalls.
//!
//! A packet passes every base chain of a hook, and one drop is final: an accept in our table
//! cannot save a packet from a chain of docker, firewalld or ufw whose policy or last rule drops
//! it. So each base chain of the forward and input hooks that drops what no rule decides gets rules
//! of ours, which let exactly our own interfaces' traffic pass. They come last: what the
//! administrator filters in that chain, or in one that it leads to (`DOCKER-USER`,
//! `ufw-user-forward`), is decided before. They are not put into those chains themselves: a packet
//! that returns from there early would miss them, and one that meets them would miss what comes
//! behind, such as docker's rules that keep its own containers apart. They carry our mark in their
//! comments, are found by it, and go with us.

use std::collections::BTreeMap;

use super::attribute::{Attributes, find, integer, parse, text};
use super::expression::Rule;
use super::socket::NftSocket;
use super::table::{Family, NLM_F_APPEND, SUBSYSTEM, TABLE, header, message};
use crate::error::NetdpError;
use crate::netlink::{Message, NLM_F_CREATE, NetlinkError};

/// Our rules in foreign chains: for each hook, one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guard {
    /// Family of the packets: a chain of family `inet` gets the rules of both.
    pub(crate) family: Family,
    /// `NF_INET_LOCAL_IN` or `NF_INET_FORWARD`.
    pub(crate) hook: u32,
    /// Each is known by its comment, which begins with [`MARK`] and names all that the rule compares with.
    pub(crate) rules: Vec<Rule>,
}

pub(crate) const HOOK_INPUT: u32 = 1;
pub(crate) const HOOK_FORWARD: u32 = 2;
const FAMILY_INET: u8 = 1;
/// `NF_ACCEPT`.
const POLICY_ACCEPT: u32 = 1;
/// Every rule of ours in a foreign chain has a comment that begins so.
const MARK: &str = "fairlead:";
/// Chains do not nest deeper (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;

/// What the last comparison found in place; nothing need be read until somebody commits.
#[derive(Debug, Default)]
pub(crate) struct Foreign {
    in_place: Option<(u32, Vec<Guard>)>,
}

impl Foreign {
    /// Brings our rules into every foreign chain that needs them, and takes those away that are
    /// out of place or outdated. Returns the chains that were changed, and what could not be done.
    pub(crate) fn sync(
        &mut self,
        socket: &mut NftSocket,
        guards: &[Guard],
    ) -> (Vec<String>, Vec<NetdpError>) {
        let (mut changed, mut errors) = (Vec::new(), Vec::new());
        let generation = socket.generation().ok();
        let before = self.in_place.take();
        if let (Some(now), Some((then, known))) = (generation, &before)
            && now == *then
            && known == guards
        {
            self.in_place = before;
            return (changed, errors);
        }
        for family in [FAMILY_INET, Family::Ipv4 as u8, Family::Ipv6 as u8] {
            let tables = match socket.foreign_tables(family) {
                Ok(tables) => tables,
                Err(source) => {
                    errors.push(NetdpError::Netlink {
                        action: "look for the node's other firewalls".to_owned(),
                        source,
                    });
                    continue;
                }
            };
            for (name, table) in &tables {
                for (chain, messages) in table.corrections(family, name, guards) {
                    match socket.commit(messages) {
                        Ok(()) => changed.push(format!("our rules in chain {name} {chain}")),
                        Err(source) => errors.push(NetdpError::Netlink {
                            action: format!(
                                "set our rules in chain {chain} of table {name}, which is another firewall's (without them it may drop our packets: docs/networking.md)"
                            ),
                            source,
                        }),
                    }
                }
            }
        }
        if changed.is_empty() && errors.is_empty() {
            self.in_place = generation.map(|generation| (generation, guards.to_vec()));
        }
        (changed, errors)
    }
}

impl NftSocket {
    /// Tables of a family that are not ours and have rules to look at.
    fn foreign_tables(
        &mut self,
        family: u8,
    ) -> Result<BTreeMap<String, ForeignTable>, NetlinkError> {
        let mut tables: BTreeMap<String, ForeignTable> = BTreeMap::new();
        let request = vec![family, 0, 0, 0];
        self.dump(message::GET_CHAIN, request.clone(), |attributes| {
            let name = |kind| find(attributes, kind).map(text).unwrap_or_default();
            let table = name(1);
            if table == TABLE {
                return;
            }
            let table = tables.entry(table).or_default();
            let chain = table.chains.entry(name(3)).or_default();
            let hook = find(attributes, 4).and_then(|hook| find(hook, 1));
            let hook = hook.and_then(integer).filter(|_| name(7) == "filter");
            if let Some(hook @ (HOOK_INPUT | HOOK_FORWARD)) = hook {
                let accepts = find(attributes, 5).and_then(integer) == Some(POLICY_ACCEPT);
                chain.base = Some(Base { hook, accepts });
            }
        })?;
        // Our rules are in base chains only; others' tables for NAT may have thousands.
        tables.retain(|_, table| table.chains.values().any(|chain| chain.base.is_some()));
        for (table, ForeignTable { chains }) in &mut tables {
            let request = Attributes::after(&request).string(1, table).finish();
            self.dump(message::GET_RULE, request, |attributes| {
                let name = |kind| find(attributes, kind).map(text).unwrap_or_default();
                // Older kernels ignore the filter.
                if name(1) == *table
                    && let Some(chain) = chains.get_mut(&name(2))
                {
                    chain.rules.push(FoundRule::read(attributes));
                }
            })?;
        }
        Ok(tables)
    }
}

#[derive(Debug, Default)]
struct ForeignTable {
    chains: BTreeMap<String, ForeignChain>,
}

#[derive(Debug, Default)]
struct ForeignChain {
    /// Of a chain on one of the hooks that we care for.
    base: Option<Base>,
    rules: Vec<FoundRule>,
}

#[derive(Debug, Clone, Copy)]
struct Base {
    hook: u32,
    /// Whether its policy lets pass what no rule decides.
    accepts: bool,
}

impl ForeignTable {
    /// For each chain that is not as it should be, its name and the messages that make it so.
    fn corrections(&self, family: u8, table: &str, guards: &[Guard]) -> Vec<(&str, Vec<Message>)> {
        let mut corrections = Vec::new();
        for (name, chain) in &self.chains {
            let (at, drops) = self.end(name, 0);
            let wanted: Vec<&Rule> = match chain.base {
                // Where nothing drops what no rule decides, the administrator's rules are all there is.
                Some(base) if !base.accepts || drops => guards
                    .iter()
                    .filter(|guard| guard.hook == base.hook && covers(family, guard.family))
                    .flat_map(|guard| &guard.rules)
                    .collect(),
                _ => Vec::new(),
            };
            let ours = chain.rules.iter().filter(|rule| rule.is_ours());
            let others: Vec<&FoundRule> =
                chain.rules.iter().filter(|rule| !rule.is_ours()).collect();
            let place = chain.rules.get(at..at + wanted.len()).unwrap_or_default();
            let in_place = ours.clone().count() == wanted.len()
                && place.len() == wanted.len()
                && place
                    .iter()
                    .zip(&wanted)
                    .all(|(found, rule)| found.comment == rule.comment);
            if in_place {
                continue;
            }
            let start = || {
                let mut head = header(Family::Ipv4, 0);
                head[0] = family;
                Attributes::after(&head).string(1, table).string(2, name)
            };
            let message = |kind, flags, payload: Attributes| Message {
                kind: SUBSYSTEM << 8 | kind,
                flags,
                payload: payload.finish(),
            };
            let mut messages: Vec<Message> = ours
                .map(|rule| message(message::DEL_RULE, 0, start().u64(3, rule.handle)))
                .collect();
            messages.extend(wanted.iter().map(|rule| {
                let payload = start()
                    .nested(4, &rule.encode())
                    .bytes(7, &rule.user_data());
                match others.get(at) {
                    // With a position and without NLM_F_APPEND: before that rule.
                    Some(next) => {
                        message(message::NEW_RULE, NLM_F_CREATE, payload.u64(6, next.handle))
                    }
                    None => message(message::NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, payload),
                }
            }));
            corrections.push((name.as_str(), messages));
        }
        corrections
    }

    /// Where, of the rules that are not ours, every packet that came so far leaves the chain; and
    /// whether it is dropped there.
    fn end(&self, chain: &str, depth: usize) -> (usize, bool) {
        let rules = self.chains.get(chain).map_or(&[][..], |chain| &chain.rules);
        let others = rules.iter().filter(|rule| !rule.is_ours());
        let mut count = 0;
        for rule in others {
            match &rule.always {
                Some(Fate::Drop) => return (count, true),
                Some(Fate::Accept | Fate::Return) => return (count, false),
                Some(Fate::Goto(to)) => return (count, self.drops(to, depth + 1)),
                Some(Fate::Jump(to)) if self.drops(to, depth + 1) => return (count, true),
                Some(Fate::Jump(_)) | None => {}
            }
            count += 1;
        }
        (count, false)
    }

    /// Whether a chain drops, in the end, whatever enters it and is not accepted there. One that
    /// some packets return from does not.
    fn drops(&self, chain: &str, depth: usize) -> bool {
        let (at, drops) = if depth < DEEPEST {
            self.end(chain, depth)
        } else {
            (0, false)
        };
        let rules = self.chains.get(chain).map_or(&[][..], |chain| &chain.rules);
        drops
            && !rules
                .iter()
                .filter(|rule| !rule.is_ours())
                .take(at)
                .any(|rule| rule.returns)
    }
}

#[derive(Debug)]
struct FoundRule {
    handle: u64,
    comment: String,
    /// What it does with every packet; `None`: it has a condition, or decides nothing.
    always: Option<Fate>,
    /// Whether packets return from the chain by it.
    returns: bool,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

impl FoundRule {
    fn read(attributes: &[u8]) -> Self {
        let handle = find(attributes, 3)
            .and_then(|value| value.try_into().ok().map(u64::from_be_bytes))
            .unwrap_or(0);
        let comment = find(attributes, 7)
            .filter(|data| data.first() == Some(&0))
            .and_then(|data| data.get(2..))
            .map(text)
            .unwrap_or_default();
        let mut conditional = false;
        let mut fate = None;
        for (_, expression) in parse(find(attributes, 4).unwrap_or_default()) {
            let name = find(expression, 1).map(text).unwrap_or_default();
            let data = find(expression, 2).unwrap_or_default();
            // Extensions of iptables have their name in the first attribute.
            let extension = || find(data, 1).map(text).unwrap_or_default();
            match name.as_str() {
                "immediate" => fate = verdict(data).or(fate),
                "reject" => fate = Some(Fate::Drop),
                "target" if extension() == "REJECT" => fate = Some(Fate::Drop),
                "target" | "counter" | "log" => {}
                "match" if extension() == "comment" => {}
                _ => conditional = true,
            }
        }
        Self {
            handle,
            comment,
            returns: fate == Some(Fate::Return),
            always: fate.filter(|_| !conditional),
        }
    }

    fn is_ours(&self) -> bool {
        self.comment.starts_with(MARK)
    }
}

/// The verdict that an expression `immediate` sets, if it sets one.
fn verdict(data: &[u8]) -> Option<Fate> {
    let verdict = find(data, 2).and_then(|value| find(value, 2))?;
    let chain = || find(verdict, 2).map(text).unwrap_or_default();
    // Netfilter's verdicts are small numbers, nftables' own are negative.
    match find(verdict, 1).and_then(integer)?.cast_signed() {
        0 => Some(Fate::Drop),
        1 => Some(Fate::Accept),
        -3 => Some(Fate::Jump(chain())),
        -4 => Some(Fate::Goto(chain())),
        -5 => Some(Fate::Return),
        _ => None,
    }
}

fn covers(chain: u8, packets: Family) -> bool {
    chain == FAMILY_INET || chain == packets as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_chain_is_where_nothing_passes() {
        use Fate::{Accept, Drop, Goto, Jump, Return};
        let to = |chain: &str| chain.to_owned();
        let always = |fate| (true, fate);
        let sometimes = |fate| (false, fate);
        let chains = [
            ("empty", vec![], (0, false)),
            (
                "mine",
                vec![sometimes(Drop), sometimes(Goto(to("last")))],
                (2, false),
            ),
            ("last", vec![sometimes(Accept), always(Drop)], (1, true)),
            ("returns", vec![sometimes(Return), always(Drop)], (1, true)),
            (
                "passes",
                vec![always(Jump(to("mine"))), always(Accept), always(Drop)],
                (1, false),
            ),
            (
                "asks",
                vec![always(Jump(to("returns"))), always(Return), always(Drop)],
                (1, false),
            ),
            (
                "zones",
                vec![sometimes(Goto(to("mine"))), always(Goto(to("last")))],
                (1, true),
            ),
            (
                "forward",
                vec![sometimes(Accept), always(Jump(to("zones"))), always(Drop)],
                (1, true),
            ),
            (
                "elsewhere",
                vec![always(Goto(to("mine"))), always(Drop)],
                (0, false),
            ),
            // The kernel has none of these; a dump that was disturbed may.
            ("loop", vec![always(Jump(to("loop")))], (1, false)),
            (
                "nowhere",
                vec![always(Jump(to("gone"))), always(Drop)],
                (1, true),
            ),
        ];
        let rule = |(always, fate): &(bool, Fate)| FoundRule {
            handle: 0,
            comment: String::new(),
            returns: *fate == Return,
            always: always.then(|| fate.clone()),
        };
        let found = chains.iter().map(|(name, rules, _)| {
            let rules = rules.iter().map(rule).collect();
            (to(name), ForeignChain { base: None, rules })
        });
        let table = ForeignTable {
            chains: found.collect(),
        };
        for (name, _, end) in &chains {
            assert_eq!(table.end(name, 0), *end, "{name}");
        }
        assert!(!table.drops("returns", 0));
    }
}
