use hickory_proto::op::{Edns, Message, OpCode};
use hickory_proto::rr::rdata::{A, CNAME, SOA};
use hickory_proto::rr::{RData, Record};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn address(ttl: u32) -> Record {
    Record::from_rdata(name("www.example."), ttl, RData::A(A::new(192, 0, 2, 1)))
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let data = SOA::new(
        name("ns.example."),
        name("root.example."),
        1,
        7200,
        900,
        86400,
        minimum,
    );
    Record::from_rdata(name("example."), ttl, RData::SOA(data))
}

fn reply(code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> Message {
    let mut message = Message::response(7, OpCode::Query);
    message.add_query(Query::query(name("www.example."), RecordType::A));
    message.metadata.response_code = code;
    message.answers = answers;
    message.authorities = authorities;
    message.edns = Some(Edns::new());
    message
}

/// For how many seconds a reply is kept.
fn kept(message: &Message) -> u32 {
    lifetime(&message.to_vec().unwrap())
        .unwrap()
        .map_or(0, |(_, keep)| keep)
}

#[test]
fn replies_are_kept_as_long_as_they_allow() {
    use ResponseCode::{NXDomain, NoError, Refused, ServFail};
    let alias = Record::from_rdata(
        name("www.example."),
        50,
        RData::CNAME(CNAME(name("x.example."))),
    );
    for (what, message, expected) in [
        (
            "the shortest record",
            reply(NoError, vec![address(60), address(20)], vec![]),
            20,
        ),
        (
            "not for ever",
            reply(NoError, vec![address(1_000_000)], vec![]),
            LONGEST_POSITIVE,
        ),
        (
            "zero",
            reply(NoError, vec![address(60), address(0)], vec![]),
            0,
        ),
        (
            "a negative TTL",
            reply(NoError, vec![address(1 << 31)], vec![]),
            0,
        ),
        (
            "absence: SOA minimum",
            reply(NXDomain, vec![], vec![soa(600, 12)]),
            12,
        ),
        (
            "absence: TTL of the SOA",
            reply(NXDomain, vec![], vec![soa(5, 12)]),
            5,
        ),
        (
            "absence: not for long",
            reply(NXDomain, vec![], vec![soa(600, 600)]),
            LONGEST_NEGATIVE,
        ),
        (
            "absence of a type",
            reply(NoError, vec![], vec![soa(600, 12)]),
            12,
        ),
        (
            "a CNAME to nowhere",
            reply(NXDomain, vec![alias], vec![soa(600, 12)]),
            12,
        ),
        ("absence without SOA", reply(NXDomain, vec![], vec![]), 0),
        (
            "SOA in the wrong place",
            reply(NXDomain, vec![soa(600, 12)], vec![]),
            0,
        ),
        ("nothing at all", reply(NoError, vec![], vec![]), 0),
        ("failure", reply(ServFail, vec![address(60)], vec![]), 0),
        ("refusal", reply(Refused, vec![], vec![soa(600, 12)]), 0),
    ] {
        assert_eq!(kept(&message), expected, "{what}");
    }
    let mut truncated = reply(NoError, vec![address(60)], vec![]);
    truncated.metadata.truncation = true;
    assert_eq!(kept(&truncated), 0);
}

#[test]
fn ttls_count_down() {
    let message = reply(
        ResponseCode::NoError,
        vec![address(60), address(90)],
        vec![],
    );
    let bytes: Arc<[u8]> = message.to_vec().unwrap().into();
    let (query, now) = (Key::from(&b"query"[..]), Instant::now());
    let mut cache = Cache::default();
    cache.put(&query, &bytes, now);

    assert_eq!(cache.get(&query, 512, now).unwrap(), *bytes);
    let later = Message::from_vec(&cache.get(&query, 512, now + 59 * SECOND).unwrap()).unwrap();
    assert_eq!(
        later.answers.iter().map(|r| r.ttl).collect::<Vec<_>>(),
        [1, 31]
    );
    assert_eq!(later.edns, message.edns, "flags of EDNS are no TTL");
    assert_eq!(cache.get(&query, 512, now + 60 * SECOND), None);

    assert_eq!(cache.get(b"other", 512, now), None);
    assert_eq!(
        cache.get(&query, 20, now),
        None,
        "longer than the client takes"
    );
}

#[test]
fn the_number_of_entries_is_bounded() {
    let now = Instant::now();
    let mut cache = Cache::default();
    let put = |cache: &mut Cache, index: usize, ttl: u32, now| {
        let bytes = reply(ResponseCode::NoError, vec![address(ttl)], vec![])
            .to_vec()
            .unwrap();
        cache.put(&Key::from(index.to_be_bytes()), &bytes.into(), now);
    };
    for index in 0..ENTRIES {
        put(&mut cache, index, 100 + u32::try_from(index).unwrap(), now);
    }
    // The one that ends first gives way.
    put(&mut cache, ENTRIES, 1000, now);
    assert_eq!(cache.entries.len(), ENTRIES);
    assert_eq!(cache.get(&0usize.to_be_bytes(), 512, now), None);
    assert!(cache.get(&ENTRIES.to_be_bytes(), 512, now).is_some());
    // All that are over go together.
    put(&mut cache, ENTRIES + 1, 1000, now + 900 * SECOND);
    assert_eq!(cache.entries.len(), 2);
    // Neither long queries nor long replies are kept.
    let bytes: Arc<[u8]> = reply(ResponseCode::NoError, vec![address(9); 300], vec![])
        .to_vec()
        .unwrap()
        .into();
    cache.put(&Key::from(&b"long reply"[..]), &bytes, now);
    let bytes: Arc<[u8]> = reply(ResponseCode::NoError, vec![address(9)], vec![])
        .to_vec()
        .unwrap()
        .into();
    cache.put(&Key::from(vec![0; LONGEST + 1]), &bytes, now);
    assert_eq!(cache.entries.len(), 2);
}

#[test]
fn broken_replies_are_not_kept() {
    let whole = reply(ResponseCode::NoError, vec![address(60)], vec![soa(600, 12)]);
    let whole = whole.to_vec().unwrap();
    for length in 0..whole.len() {
        assert!(lifetime(&whole[..length]).is_err(), "{length}");
    }
    for at in 0..whole.len() {
        for value in 0..=255 {
            let mut bytes = whole.clone();
            bytes[at] = value;
            // No panic, and TTLs only where bytes are.
            if let Ok(Some((ttls, _))) = lifetime(&bytes) {
                assert!(ttls.iter().all(|at| usize::from(*at) + 4 <= bytes.len()));
            }
        }
    }
}
