//! A table as a value, and the messages that bring the kernel to it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;

use super::attribute::Attributes;
use super::expression::Rule;
use super::set::{Data, Set};
use crate::netlink::{Message, NLM_F_CREATE};

/// Name of every table of ours, in every namespace and family.
pub(crate) const TABLE: &str = "fairlead";

/// Behind the rules that are there.
pub(super) const NLM_F_APPEND: u16 = 0x800;

/// `NFNL_SUBSYS_NFTABLES`.
pub(super) const SUBSYSTEM: u16 = 10;

pub(super) mod message {
    pub(in crate::nft) const NEW_TABLE: u16 = 0;
    pub(in crate::nft) const GET_TABLE: u16 = 1;
    pub(in crate::nft) const DEL_TABLE: u16 = 2;
    pub(in crate::nft) const NEW_CHAIN: u16 = 3;
    pub(in crate::nft) const GET_CHAIN: u16 = 4;
    pub(in crate::nft) const DEL_CHAIN: u16 = 5;
    pub(in crate::nft) const NEW_RULE: u16 = 6;
    pub(in crate::nft) const GET_RULE: u16 = 7;
    pub(in crate::nft) const DEL_RULE: u16 = 8;
    pub(in crate::nft) const NEW_SET: u16 = 9;
    pub(in crate::nft) const GET_SET: u16 = 10;
    pub(in crate::nft) const DEL_SET: u16 = 11;
    pub(in crate::nft) const NEW_SET_ELEMENT: u16 = 12;
    pub(in crate::nft) const GET_SET_ELEMENT: u16 = 13;
    pub(in crate::nft) const DEL_SET_ELEMENT: u16 = 14;
    pub(in crate::nft) const GET_GENERATION: u16 = 16;
}

/// Protocol family of a table (`NFPROTO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    Ipv4 = 2,
    Netdev = 5,
    Ipv6 = 10,
}

impl Family {
    /// Those that we have tables in.
    pub(crate) const ALL: [Self; 3] = [Self::Ipv4, Self::Netdev, Self::Ipv6];

    /// As `nft` says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ip",
            Self::Netdev => "netdev",
            Self::Ipv6 => "ip6",
        }
    }
}

/// Where a base chain sits. Numbers differ between families (`NF_INET_*`, `NF_NETDEV_*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    /// Of a device; family netdev.
    Ingress(String),
    /// Of a device; family netdev.
    Egress(String),
}

impl Hook {
    fn number(&self) -> u32 {
        match self {
            Self::Prerouting | Self::Ingress(_) => 0,
            Self::Input | Self::Egress(_) => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }
}

/// Type of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChainKind {
    Filter,
    Nat,
    Route,
}

/// Standard priorities (`enum nf_ip_hook_priorities`).
pub(crate) mod priority {
    pub(crate) const RAW: i32 = -300;
    pub(crate) const MANGLE: i32 = -150;
    pub(crate) const DSTNAT: i32 = -100;
    pub(crate) const FILTER: i32 = 0;
    pub(crate) const SRCNAT: i32 = 100;
}

/// What makes a chain a base chain. Its policy is accept: what we drop, we drop by a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) kind: ChainKind,
    pub(crate) hook: Hook,
    pub(crate) priority: i32,
}

/// A chain with its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: String,
    /// `None`: reached by jumps only.
    pub(crate) base: Option<Base>,
    pub(crate) rules: Vec<Rule>,
}

impl Chain {
    /// The device that it is hooked to.
    fn device(&self) -> Option<&str> {
        match &self.base.as_ref()?.hook {
            Hook::Ingress(device) | Hook::Egress(device) => Some(device),
            _ => None,
        }
    }
}

/// The table [`TABLE`] of a family, with everything in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) family: Family,
    pub(crate) sets: Vec<Set>,
    pub(crate) chains: Vec<Chain>,
}

/// Elements per message: an attribute's length has 16 bits.
const ELEMENT_BYTES: usize = 48 << 10;

impl Table {
    pub(crate) fn new(family: Family) -> Self {
        Self {
            family,
            sets: Vec::new(),
            chains: Vec::new(),
        }
    }

    /// Adds a base chain if it has rules: an empty one would only cost every packet a hook.
    pub(crate) fn base(
        &mut self,
        name: &str,
        kind: ChainKind,
        hook: Hook,
        priority: i32,
        rules: Vec<Rule>,
    ) {
        if !rules.is_empty() {
            let base = Some(Base {
                kind,
                hook,
                priority,
            });
            self.chains.push(Chain {
                name: name.to_owned(),
                base,
                rules,
            });
        }
    }

    /// Adds a chain that others jump to.
    pub(crate) fn chain(&mut self, name: &str, rules: Vec<Rule>) {
        self.chains.push(Chain {
            name: name.to_owned(),
            base: None,
            rules,
        });
    }

    /// Devices that chains are hooked to.
    pub(crate) fn devices(&self) -> impl Iterator<Item = &str> {
        self.chains.iter().filter_map(Chain::device)
    }

    /// The same without the chains of devices that are not there: a chain is hooked to a device
    /// that exists.
    pub(crate) fn hooked_to(&self, exists: impl Fn(&str) -> bool) -> Cow<'_, Self> {
        if self.devices().all(&exists) {
            return Cow::Borrowed(self);
        }
        let mut table = self.clone();
        table
            .chains
            .retain(|chain| chain.device().is_none_or(&exists));
        Cow::Owned(table)
    }

    /// Whether there is anything in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// A hash over all that makes it up. Equal for equal tables in every process of one build;
    /// between builds it may differ.
    pub(crate) fn content_hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for message in self.replacement() {
            hasher.write_u16(message.kind);
            hasher.write_u16(message.flags);
            hasher.write(&message.payload);
        }
        hasher.finish()
    }

    /// Messages that replace whatever is in the kernel by this.
    pub(super) fn replacement(&self) -> Vec<Message> {
        let mut messages = self.deletion();
        messages.push(self.table(message::NEW_TABLE, NLM_F_CREATE));
        for (id, set) in (1..).zip(&self.sets) {
            messages.push(self.new_set(set, id));
        }
        // Chains before anything that names them: verdicts in sets and rules.
        messages.extend(self.chains.iter().map(|chain| self.new_chain(chain)));
        for set in &self.sets {
            messages.extend(self.elements(message::NEW_SET_ELEMENT, set.name, set.elements.iter()));
        }
        for chain in &self.chains {
            messages.extend(
                chain
                    .rules
                    .iter()
                    .map(|rule| self.new_rule(&chain.name, rule)),
            );
        }
        messages
    }

    /// Messages that remove it, whether it exists or not: a table is created first, because
    /// deleting what is not there would fail the transaction.
    pub(super) fn deletion(&self) -> Vec<Message> {
        vec![
            self.table(message::NEW_TABLE, NLM_F_CREATE),
            self.table(message::DEL_TABLE, 0),
        ]
    }

    /// Messages that lead from `old`, which the kernel has, to this. `None` where a replacement
    /// is due: a set changed its type, or a base chain its place.
    pub(super) fn difference(&self, old: &Self) -> Option<Vec<Message>> {
        let find = |chains: &[Chain], name: &str| chains.iter().position(|c| c.name == name);
        let mut messages = Vec::new();
        for (id, set) in (1..).zip(&self.sets) {
            match old.set(set.name) {
                None => messages.push(self.new_set(set, id)),
                Some(before) if !set.same_definition(before) => return None,
                Some(_) => {}
            }
        }
        let mut rules = Vec::new();
        for chain in &self.chains {
            match find(&old.chains, &chain.name) {
                None => {
                    messages.push(self.new_chain(chain));
                    rules.extend(
                        chain
                            .rules
                            .iter()
                            .map(|rule| self.new_rule(&chain.name, rule)),
                    );
                }
                Some(at) if old.chains[at].base != chain.base => return None,
                Some(at) if old.chains[at].rules != chain.rules => {
                    rules.push(self.flush_chain(&chain.name));
                    rules.extend(
                        chain
                            .rules
                            .iter()
                            .map(|rule| self.new_rule(&chain.name, rule)),
                    );
                }
                Some(_) => {}
            }
        }
        for new in &self.sets {
            let none = BTreeMap::new();
            let before = old.set(new.name).map_or(&none, |set| &set.elements);
            let gone = before
                .iter()
                .filter(|(k, v)| new.elements.get(*k) != Some(*v));
            messages.extend(self.elements(message::DEL_SET_ELEMENT, new.name, gone));
            let come = new
                .elements
                .iter()
                .filter(|(k, v)| before.get(*k) != Some(*v));
            messages.extend(self.elements(message::NEW_SET_ELEMENT, new.name, come));
        }
        messages.extend(rules);
        let gone = || {
            let chains = old.chains.iter();
            chains.filter(|chain| find(&self.chains, &chain.name).is_none())
        };
        for chain in gone() {
            // Kernels before 6.16 take a chain away with its device. Without a hook this makes one
            // that is gone, and leaves one that is there as it is.
            if chain.device().is_some() {
                messages.push(self.new_chain(&Chain {
                    base: None,
                    ..chain.clone()
                }));
            }
            messages.push(self.flush_chain(&chain.name));
        }
        // Sets after the rules that look into them, before the chains that they lead to.
        let sets = old.sets.iter().filter(|set| self.set(set.name).is_none());
        messages.extend(sets.map(|set| self.delete_set(set.name)));
        messages.extend(gone().map(|chain| self.delete_chain(&chain.name)));
        Some(messages)
    }

    fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }

    /// Attributes that begin with the name of this table.
    fn start(&self) -> Attributes {
        Attributes::after(&header(self.family, 0)).string(1, TABLE)
    }

    fn table(&self, kind: u16, flags: u16) -> Message {
        Message {
            kind: SUBSYSTEM << 8 | kind,
            flags,
            payload: self.start().finish(),
        }
    }

    fn new_set(&self, set: &Set, id: u32) -> Message {
        let payload = set
            .definition(self.start().string(2, set.name), id)
            .finish();
        Message {
            kind: SUBSYSTEM << 8 | message::NEW_SET,
            flags: NLM_F_CREATE,
            payload,
        }
    }

    fn elements<'a>(
        &self,
        kind: u16,
        set: &str,
        elements: impl Iterator<Item = (&'a Vec<u8>, &'a Data)>,
    ) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut list = Attributes::new();
        let mut flush = |list: &mut Attributes| {
            if list.len() > 0 {
                let payload = self.start().string(2, set).nested(3, list).finish();
                messages.push(Message {
                    kind: SUBSYSTEM << 8 | kind,
                    flags: NLM_F_CREATE,
                    payload,
                });
                *list = Attributes::new();
            }
        };
        for (key, data) in elements {
            list = list.nested(1, &Set::element(key, data));
            if list.len() > ELEMENT_BYTES {
                flush(&mut list);
            }
        }
        flush(&mut list);
        messages
    }

    fn new_chain(&self, chain: &Chain) -> Message {
        const POLICY_ACCEPT: u32 = 1;
        let mut attributes = self.start().string(3, &chain.name);
        if let Some(base) = &chain.base {
            let mut hook = Attributes::new()
                .u32(1, base.hook.number())
                .u32(2, base.priority.cast_unsigned());
            if let Hook::Ingress(device) | Hook::Egress(device) = &base.hook {
                hook = hook.string(3, device);
            }
            let kind = match base.kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
                ChainKind::Route => "route",
            };
            attributes = attributes
                .nested(4, &hook)
                .u32(5, POLICY_ACCEPT)
                .string(7, kind);
        }
        let kind = SUBSYSTEM << 8 | message::NEW_CHAIN;
        Message {
            kind,
            flags: NLM_F_CREATE,
            payload: attributes.finish(),
        }
    }

    /// A message that says no more than which object, by the attribute for its name.
    fn about(&self, kind: u16, attribute: u16, name: &str) -> Message {
        Message {
            kind: SUBSYSTEM << 8 | kind,
            flags: 0,
            payload: self.start().string(attribute, name).finish(),
        }
    }

    fn delete_chain(&self, name: &str) -> Message {
        self.about(message::DEL_CHAIN, 3, name)
    }

    fn delete_set(&self, name: &str) -> Message {
        self.about(message::DEL_SET, 2, name)
    }

    fn flush_chain(&self, name: &str) -> Message {
        self.about(message::DEL_RULE, 2, name)
    }

    fn new_rule(&self, chain: &str, rule: &Rule) -> Message {
        let payload = self
            .start()
            .string(2, chain)
            .nested(4, &rule.encode())
            .bytes(7, &rule.user_data())
            .finish();
        let kind = SUBSYSTEM << 8 | message::NEW_RULE;
        Message {
            kind,
            flags: NLM_F_CREATE | NLM_F_APPEND,
            payload,
        }
    }
}

/// `struct nfgenmsg`.
pub(super) fn header(family: Family, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family as u8, 0, high, low]
}
