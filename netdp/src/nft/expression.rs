//! Expressions: the instructions of a rule, as values that know their bytes.

use std::borrow::Cow;

use super::attribute::Attributes;

/// A 32-bit register of the nftables machine; longer values fill the ones behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Register(pub(crate) u8);

impl Register {
    /// `NFT_REG32_00`.
    const FIRST: u32 = 8;

    fn number(self) -> u32 {
        Self::FIRST + u32::from(self.0)
    }
}

/// What `meta` reads or sets (`enum nft_meta_keys`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meta {
    /// EtherType, network order.
    Protocol = 1,
    Mark = 3,
    IifName = 6,
    OifName = 7,
    L4Proto = 16,
}

/// What `ct` reads (`enum nft_ct_keys`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CtKey {
    State = 0,
    Direction = 1,
    Status = 2,
    /// Needs a direction.
    DestinationIp = 20,
    /// Needs a direction.
    DestinationIp6 = 22,
}

/// Of a connection: `IP_CT_DIR_ORIGINAL`, `IP_CT_DIR_REPLY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Original = 0,
    Reply = 1,
}

/// What `fib` finds (`enum nft_fib_result`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FibResult {
    AddressType = 3,
}

/// Where the packet goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    Return,
    Goto(String),
}

impl Verdict {
    /// As an `NFTA_DATA_VERDICT` inside `NFTA_*_DATA`.
    pub(super) fn data(&self) -> Attributes {
        // Netfilter's verdicts are small numbers, nftables' own are negative.
        let code: i32 = match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Goto(_) => -4,
            Self::Return => -5,
        };
        let mut verdict = Attributes::new().u32(1, code.cast_unsigned());
        if let Self::Goto(chain) = self {
            verdict = verdict.string(2, chain);
        }
        Attributes::new().nested(2, &verdict)
    }
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expr {
    name: &'static str,
    data: Attributes,
}

/// Header that an offset counts from (`enum nft_payload_bases`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    Link = 0,
    Network = 1,
    Transport = 2,
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::new().bytes(1, bytes)
}

impl Expr {
    fn new(name: &'static str, data: Attributes) -> Self {
        Self { name, data }
    }

    pub(super) fn encode(&self) -> Attributes {
        Attributes::new().string(1, self.name).nested(2, &self.data)
    }

    /// Compares a register with bytes: goes on only when they are equal.
    pub(crate) fn equals(register: Register, bytes: &[u8]) -> Self {
        Self::compare(register, 0, bytes)
    }

    /// Goes on only when they differ.
    pub(crate) fn differs(register: Register, bytes: &[u8]) -> Self {
        Self::compare(register, 1, bytes)
    }

    fn compare(register: Register, operator: u32, bytes: &[u8]) -> Self {
        let data = Attributes::new()
            .u32(1, register.number())
            .u32(2, operator)
            .nested(3, &value(bytes));
        Self::new("cmp", data)
    }

    /// `register = (register & mask) ^ xor`.
    pub(crate) fn bitwise(register: Register, mask: &[u8], xor: &[u8]) -> Self {
        let data = Attributes::new()
            .u32(1, register.number())
            .u32(2, register.number())
            .u32(3, u32::try_from(mask.len()).unwrap_or(0))
            .nested(4, &value(mask))
            .nested(5, &value(xor));
        Self::new("bitwise", data)
    }

    /// Puts bytes into a register.
    pub(crate) fn immediate(register: Register, bytes: &[u8]) -> Self {
        let data = Attributes::new()
            .u32(1, register.number())
            .nested(2, &value(bytes));
        Self::new("immediate", data)
    }

    /// Ends the rule.
    pub(crate) fn verdict(verdict: &Verdict) -> Self {
        Self::new(
            "immediate",
            Attributes::new().u32(1, 0).nested(2, &verdict.data()),
        )
    }

    /// Goes on only when the set has (or, inverted, has not) the key in `register`.
    pub(crate) fn in_set(set: &str, register: Register, inverted: bool) -> Self {
        let mut data = Attributes::new().string(1, set).u32(2, register.number());
        if inverted {
            data = data.u32(5, 1);
        }
        Self::new("lookup", data)
    }

    /// Looks the key in `from` up and puts the value into `to`; goes on only when there is one.
    pub(crate) fn map(set: &str, from: Register, to: Register) -> Self {
        let data = Attributes::new()
            .string(1, set)
            .u32(2, from.number())
            .u32(3, to.number());
        Self::new("lookup", data)
    }

    /// Looks the key up in a verdict map and follows it.
    pub(crate) fn verdict_map(set: &str, from: Register) -> Self {
        Self::new(
            "lookup",
            Attributes::new()
                .string(1, set)
                .u32(2, from.number())
                .u32(3, 0),
        )
    }

    pub(crate) fn meta(key: Meta, register: Register) -> Self {
        Self::new(
            "meta",
            Attributes::new()
                .u32(1, register.number())
                .u32(2, key as u32),
        )
    }

    pub(crate) fn set_meta(key: Meta, register: Register) -> Self {
        Self::new(
            "meta",
            Attributes::new()
                .u32(2, key as u32)
                .u32(3, register.number()),
        )
    }

    pub(crate) fn ct(key: CtKey, direction: Option<Direction>, register: Register) -> Self {
        let mut data = Attributes::new()
            .u32(1, register.number())
            .u32(2, key as u32);
        if let Some(direction) = direction {
            data = data.bytes(3, &[direction as u8]);
        }
        Self::new("ct", data)
    }

    /// Type of the destination address (`RTN_*`, host order), as the routing table of any
    /// interface says.
    pub(crate) fn fib_destination_type(register: Register) -> Self {
        const FLAG_DADDR: u32 = 2;
        let data = Attributes::new()
            .u32(1, register.number())
            .u32(2, FibResult::AddressType as u32)
            .u32(3, FLAG_DADDR);
        Self::new("fib", data)
    }

    /// A random number below `modulus`.
    pub(crate) fn random(register: Register, modulus: u32) -> Self {
        Self::new(
            "numgen",
            Attributes::new()
                .u32(1, register.number())
                .u32(2, modulus)
                .u32(3, 1),
        )
    }

    /// Jenkins' hash of `length` bytes at `from`, below `modulus`. The seed is fixed, so that
    /// every node picks the same backend for a client.
    pub(crate) fn hash(from: Register, length: u32, to: Register, modulus: u32) -> Self {
        const SEED: u32 = 0x6661_6972;
        let data = Attributes::new()
            .u32(1, from.number())
            .u32(2, to.number())
            .u32(3, length)
            .u32(4, modulus)
            .u32(5, SEED);
        Self::new("hash", data)
    }

    /// Destination NAT to the address, and port, in registers.
    pub(crate) fn dnat(family: u8, address: Register, port: Option<Register>) -> Self {
        Self::nat(1, family, address, port)
    }

    /// Source NAT to the address in a register.
    pub(crate) fn snat(family: u8, address: Register) -> Self {
        Self::nat(0, family, address, None)
    }

    fn nat(kind: u32, family: u8, address: Register, port: Option<Register>) -> Self {
        let mut data = Attributes::new()
            .u32(1, kind)
            .u32(2, u32::from(family))
            .u32(3, address.number());
        if let Some(port) = port {
            data = data.u32(5, port.number());
        }
        Self::new("nat", data)
    }

    /// Destination NAT to another port; the address stays.
    pub(crate) fn dnat_port(family: u8, port: Register) -> Self {
        let data = Attributes::new()
            .u32(1, 1)
            .u32(2, u32::from(family))
            .u32(5, port.number());
        Self::new("nat", data)
    }

    /// No connection tracking for this packet.
    pub(crate) fn notrack() -> Self {
        Self::new("notrack", Attributes::new())
    }

    pub(crate) fn masquerade() -> Self {
        Self::new("masq", Attributes::new())
    }

    /// Answers a TCP segment with RST.
    pub(crate) fn reject_tcp() -> Self {
        Self::new("reject", Attributes::new().u32(1, 1).bytes(2, &[0]))
    }

    /// Answers with ICMP or ICMPv6 port unreachable.
    pub(crate) fn reject_port_unreachable(ipv6: bool) -> Self {
        let code = if ipv6 { 4 } else { 3 };
        Self::new("reject", Attributes::new().u32(1, 0).bytes(2, &[code]))
    }

    fn read(header: Header, offset: u32, length: u32, register: Register) -> Self {
        let data = Attributes::new()
            .u32(1, register.number())
            .u32(2, header as u32)
            .u32(3, offset)
            .u32(4, length);
        Self::new("payload", data)
    }

    fn write(header: Header, offset: u32, length: u32, register: Register) -> Attributes {
        Attributes::new()
            .u32(2, header as u32)
            .u32(3, offset)
            .u32(4, length)
            .u32(5, register.number())
    }

    /// Reads two bytes of an IPv6 extension header; goes on only when the packet has it.
    pub(crate) fn ipv6_extension(header: u8, offset: u32, register: Register) -> Self {
        let data = Attributes::new()
            .u32(1, register.number())
            .bytes(2, &[header])
            .u32(3, offset)
            .u32(4, 2);
        Self::new("exthdr", data)
    }

    /// Writes a part of the IPv4 header, and mends its checksum and that of the layer above.
    pub(crate) fn write_ipv4_address(offset: u32, register: Register) -> Self {
        const CHECKSUM_INET: u32 = 1;
        const IPV4_CHECKSUM_OFFSET: u32 = 10;
        const PSEUDO_HEADER: u32 = 1;
        let data = Self::write(Header::Network, offset, 4, register)
            .u32(6, CHECKSUM_INET)
            .u32(7, IPV4_CHECKSUM_OFFSET)
            .u32(8, PSEUDO_HEADER);
        Self::new("payload", data)
    }

    /// Writes a part of an IPv6 address, and mends the checksum of the layer above.
    pub(crate) fn write_ipv6_address(offset: u32, length: u32, register: Register) -> Self {
        const PSEUDO_HEADER: u32 = 1;
        let data = Self::write(Header::Network, offset, length, register)
            .u32(6, 0)
            .u32(8, PSEUDO_HEADER);
        Self::new("payload", data)
    }

    /// Writes a part of the Ethernet header.
    pub(crate) fn write_link(offset: u32, length: u32, register: Register) -> Self {
        Self::new(
            "payload",
            Self::write(Header::Link, offset, length, register).u32(6, 0),
        )
    }

    /// Writes a port of TCP (checksum at byte 16) or UDP (at byte 6).
    pub(crate) fn write_port(offset: u32, checksum: u32, register: Register) -> Self {
        const CHECKSUM_INET: u32 = 1;
        let data = Self::write(Header::Transport, offset, 2, register)
            .u32(6, CHECKSUM_INET)
            .u32(7, checksum);
        Self::new("payload", data)
    }
}

/// Loads of packet fields. Offsets are those of the headers' RFCs.
pub(crate) mod load {
    use super::{Expr, Header, Register};

    pub(crate) fn link_source(to: Register) -> Expr {
        Expr::read(Header::Link, 6, 6, to)
    }

    /// A part of the Ethernet header.
    pub(crate) fn link(offset: u32, length: u32, to: Register) -> Expr {
        Expr::read(Header::Link, offset, length, to)
    }

    pub(crate) fn network(offset: u32, length: u32, to: Register) -> Expr {
        Expr::read(Header::Network, offset, length, to)
    }

    pub(crate) fn transport(offset: u32, length: u32, to: Register) -> Expr {
        Expr::read(Header::Transport, offset, length, to)
    }

    pub(crate) fn destination_port(to: Register) -> Expr {
        Expr::read(Header::Transport, 2, 2, to)
    }

    pub(crate) fn source_port(to: Register) -> Expr {
        Expr::read(Header::Transport, 0, 2, to)
    }
}

/// A rule: its instructions, and a comment that `nft list` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(super) expressions: Vec<Expr>,
    pub(super) comment: Cow<'static, str>,
}

/// Shorthand.
pub(crate) fn rule(comment: impl Into<Cow<'static, str>>, expressions: Vec<Expr>) -> Rule {
    Rule {
        expressions,
        comment: comment.into(),
    }
}

impl Rule {
    /// The same behind more conditions.
    pub(crate) fn after(mut self, mut conditions: Vec<Expr>) -> Self {
        conditions.append(&mut self.expressions);
        Self {
            expressions: conditions,
            ..self
        }
    }

    /// `NFTA_RULE_EXPRESSIONS`.
    pub(super) fn encode(&self) -> Attributes {
        self.expressions
            .iter()
            .fold(Attributes::new(), |list, expression| {
                list.nested(1, &expression.encode())
            })
    }

    /// `NFTA_RULE_USERDATA`: type 0, length, text with NUL (libnftnl's `NFTNL_UDATA_RULE_COMMENT`).
    pub(super) fn user_data(&self) -> Vec<u8> {
        let mut data = vec![0, u8::try_from(self.comment.len() + 1).unwrap_or(u8::MAX)];
        data.extend_from_slice(self.comment.as_bytes());
        data.push(0);
        data
    }
}
