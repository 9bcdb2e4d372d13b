//! Sets and maps.

use std::collections::BTreeMap;

use super::attribute::Attributes;
use super::expression::Verdict;

/// The type of one part of a key or of a value, as `nft` numbers them (its `enum datatypes`), so
/// that `nft list` prints what is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyType {
    Ipv4,
    Ipv6,
    L4Proto,
    Port,
    Mark,
}

impl KeyType {
    fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::L4Proto => 12,
            Self::Port => 13,
            Self::Mark => 19,
        }
    }

    /// Length in bytes.
    fn length(self) -> u32 {
        match self {
            Self::Ipv4 | Self::Mark => 4,
            Self::Ipv6 => 16,
            Self::L4Proto => 1,
            Self::Port => 2,
        }
    }
}

/// A part of a key or value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    Address(std::net::IpAddr),
    L4Proto(u8),
    Port(u16),
    /// Host order, as registers hold numbers.
    Mark(u32),
}

impl Value {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Address(std::net::IpAddr::V4(address)) => address.octets().to_vec(),
            Self::Address(std::net::IpAddr::V6(address)) => address.octets().to_vec(),
            Self::L4Proto(protocol) => vec![protocol],
            Self::Port(port) => port.to_be_bytes().to_vec(),
            Self::Mark(mark) => mark.to_ne_bytes().to_vec(),
        }
    }

    /// Parts one behind the other, as they lie in registers.
    fn concatenate(parts: &[Self]) -> Vec<u8> {
        if let [part] = parts {
            return part.bytes();
        }
        let mut key = Vec::new();
        for part in parts {
            key.extend(part.bytes());
            key.resize(key.len().next_multiple_of(4), 0);
        }
        key
    }
}

/// What a map holds for a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Data {
    /// A plain set.
    None,
    Value(Vec<u8>),
    Verdict(Verdict),
}

/// A named set or map with its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Set {
    pub(super) name: &'static str,
    pub(super) key: Vec<KeyType>,
    pub(super) data: DataType,
    pub(super) elements: BTreeMap<Vec<u8>, Data>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DataType {
    None,
    Value(Vec<KeyType>),
    Verdict,
}

impl Set {
    /// A set of keys.
    pub(crate) fn new(name: &'static str, key: &[KeyType]) -> Self {
        Self {
            name,
            key: key.to_vec(),
            data: DataType::None,
            elements: BTreeMap::new(),
        }
    }

    /// A map to values.
    pub(crate) fn map(name: &'static str, key: &[KeyType], data: &[KeyType]) -> Self {
        Self {
            data: DataType::Value(data.to_vec()),
            ..Self::new(name, key)
        }
    }

    /// A map to verdicts.
    pub(crate) fn verdicts(name: &'static str, key: &[KeyType]) -> Self {
        Self {
            data: DataType::Verdict,
            ..Self::new(name, key)
        }
    }

    pub(crate) fn insert(&mut self, key: &[Value]) {
        self.elements.insert(Value::concatenate(key), Data::None);
    }

    pub(crate) fn insert_value(&mut self, key: &[Value], value: &[Value]) {
        self.elements.insert(
            Value::concatenate(key),
            Data::Value(Value::concatenate(value)),
        );
    }

    pub(crate) fn insert_verdict(&mut self, key: &[Value], verdict: Verdict) {
        self.elements
            .insert(Value::concatenate(key), Data::Verdict(verdict));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Whether both are the same but for their elements.
    pub(super) fn same_definition(&self, other: &Self) -> bool {
        self.name == other.name && self.key == other.key && self.data == other.data
    }

    /// Attributes of `NFT_MSG_NEWSET` behind table and name.
    pub(super) fn definition(&self, attributes: Attributes, id: u32) -> Attributes {
        const FLAG_MAP: u32 = 0x8;
        const FLAG_CONCAT: u32 = 0x80;
        const DATA_VERDICT: u32 = 0xffff_ff00;
        let mut flags = 0;
        if self.data != DataType::None {
            flags |= FLAG_MAP;
        }
        if self.key.len() > 1 {
            flags |= FLAG_CONCAT;
        }
        let (key_type, key_length) = concatenation(&self.key);
        let mut attributes = attributes.u32(3, flags).u32(4, key_type).u32(5, key_length);
        match &self.data {
            DataType::None => {}
            DataType::Verdict => attributes = attributes.u32(6, DATA_VERDICT).u32(7, 16),
            DataType::Value(types) => {
                let (data_type, data_length) = concatenation(types);
                attributes = attributes.u32(6, data_type).u32(7, data_length);
            }
        }
        if self.key.len() > 1 {
            // NFTA_SET_DESC_CONCAT: a list of NFTA_SET_FIELD_LEN, one for each part.
            let fields = self.key.iter().fold(Attributes::new(), |fields, part| {
                fields.nested(1, &Attributes::new().u32(1, part.length()))
            });
            attributes = attributes.nested(9, &Attributes::new().nested(2, &fields));
        }
        // NFTA_SET_USERDATA for `nft list`: host order of marks (libnftnl's
        // NFTNL_UDATA_SET_KEYBYTEORDER and DATABYTEORDER, 1 = host, 2 = network).
        let order = |types: &[KeyType]| if types == [KeyType::Mark] { 1u32 } else { 2 };
        let mut user_data = vec![0, 4];
        user_data.extend(order(&self.key).to_ne_bytes());
        if let DataType::Value(types) = &self.data {
            user_data.extend([1, 4]);
            user_data.extend(order(types).to_ne_bytes());
        }
        attributes.u32(10, id).bytes(13, &user_data)
    }

    /// One `NFTA_LIST_ELEM` of `NFTA_SET_ELEM_LIST_ELEMENTS`.
    pub(super) fn element(key: &[u8], data: &Data) -> Attributes {
        let element = Attributes::new().nested(1, &Attributes::new().bytes(1, key));
        match data {
            Data::None => element,
            Data::Value(value) => element.nested(2, &Attributes::new().bytes(1, value)),
            Data::Verdict(verdict) => element.nested(2, &verdict.data()),
        }
    }
}

/// Type number and length of a concatenation: six bits a part, parts padded to registers.
fn concatenation(types: &[KeyType]) -> (u32, u32) {
    if let [only] = types {
        return (only.number(), only.length());
    }
    types.iter().fold((0, 0), |(number, length), part| {
        (
            number << 6 | part.number(),
            length + part.length().next_multiple_of(4),
        )
    })
}
