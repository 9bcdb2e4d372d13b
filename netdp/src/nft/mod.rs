//! nftables over netlink: tables as values, changed in atomic transactions.
//!
//! A [`Table`] says what should be; [`NftSocket::replace`] and [`NftSocket::update`] make it so in
//! one transaction, so that no packet ever meets half of it. Written by hand because the packet
//! crate for this protocol knows neither `nat` nor `numgen`, `fib`, `ct`, `reject` nor writing to a
//! payload; the wire format is `linux/netfilter/nf_tables.h`.

mod attribute;
mod expression;
mod foreign;
mod set;
mod socket;
mod table;

pub(crate) use attribute::{Attributes, find};
pub(crate) use expression::{CtKey, Direction, Expr, Meta, Register, Rule, Verdict, load, rule};
pub(crate) use foreign::{Foreign, Guard, HOOK_FORWARD, HOOK_INPUT};
pub(crate) use set::{KeyType, Set, Value};
pub(crate) use socket::NftSocket;
pub(crate) use table::{ChainKind, Family, Hook, TABLE, Table, priority};
