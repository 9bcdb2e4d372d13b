//! What a query gets: an answer from the names of the cluster, or the way outside.

use hickory_proto::op::Query;
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, RecordType};

use super::directory::{Addresses, Directory};
use super::request::Request;
use super::server::View;
use super::{Transport, random};

/// What to do with a query.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Nothing: there is nobody to answer.
    Ignore,
    /// Send this.
    Reply(Vec<u8>),
    /// Ask the upstreams.
    Forward(Request),
}

impl From<Option<Vec<u8>>> for Verdict {
    fn from(reply: Option<Vec<u8>>) -> Self {
        reply.map_or(Self::Ignore, Self::Reply)
    }
}

/// Looks at a query and answers it where the cluster's names are enough.
pub(super) fn decide(
    bytes: &[u8],
    transport: Transport,
    view: &View,
    directory: &Directory,
) -> Verdict {
    let request = match Request::parse(bytes, transport) {
        Ok(request) => request,
        Err(reply) => return Verdict::from(reply),
    };
    let question = &request.question;
    let known = key(&question.name)
        .and_then(|name| directory.addresses(&view.networks, &name))
        .map(|addresses| records(question, addresses))
        .or_else(|| pointer(question, view, directory).map(|data| vec![data]));
    match known {
        Some(answers) => request.answer(&answers).into(),
        None if view.ndots > 0 && is_single_label_address(question) => request.answer(&[]).into(),
        None => Verdict::Forward(request),
    }
}

/// The records of a name of ours that a question asks for, in random order: clients take the first.
fn records(question: &Query, addresses: &Addresses) -> Vec<RData> {
    let (v4, v6) = match question.query_type {
        RecordType::A => (true, false),
        RecordType::AAAA => (false, true),
        RecordType::ANY => (true, true),
        _ => (false, false),
    };
    let v4 = addresses
        .v4
        .iter()
        .filter(|_| v4)
        .map(|v4| RData::A(A(*v4)));
    let v6 = addresses
        .v6
        .iter()
        .filter(|_| v6)
        .map(|v6| RData::AAAA(AAAA(*v6)));
    let mut records: Vec<RData> = v4.chain(v6).collect();
    // Fisher and Yates; the bias of the remainder is nothing against the number of addresses.
    for last in (1..records.len()).rev() {
        records.swap(last, usize::from(random()) % (last + 1));
    }
    records
}

/// The PTR record of an address of ours.
fn pointer(question: &Query, view: &View, directory: &Directory) -> Option<RData> {
    if question.query_type != RecordType::PTR {
        return None;
    }
    let net = question.name.parse_arpa_name().ok()?;
    // The name of a whole network has no host part to look up.
    if net.prefix_len() != net.max_prefix_len() {
        return None;
    }
    let name = directory.reverse(&view.networks, net.addr())?;
    Some(RData::PTR(PTR(name.clone())))
}

fn is_single_label_address(question: &Query) -> bool {
    question.name.iter().len() == 1
        && matches!(question.query_type, RecordType::A | RecordType::AAAA)
}

/// A name as the directory has it: lower case, no dot at the end. `None` where it cannot be one of
/// ours: the root, or labels with bytes that would make two different names look the same.
fn key(name: &Name) -> Option<String> {
    let mut key = String::with_capacity(name.len());
    for label in name.iter() {
        if !key.is_empty() {
            key.push('.');
        }
        for byte in label {
            if *byte == b'.' || !byte.is_ascii() {
                return None;
            }
            key.push(char::from(byte.to_ascii_lowercase()));
        }
    }
    (!key.is_empty()).then_some(key)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
pub(super) mod tests;
