use super::super::answer::Verdict;
use super::super::answer::tests::{Bench, query};
use super::super::directory::Directory;
use super::*;

/// A service `many` with this many tasks.
fn crowd(tasks: u16) -> Bench {
    let mut desired = super::super::directory::tests::cluster();
    let model = desired.endpoints["e5"].clone();
    for task in 0..tasks {
        let [high, low] = task.to_be_bytes();
        let mut endpoint = model.clone();
        endpoint.addresses = vec![[10, 2, high + 1, low].into()];
        endpoint.task_name = format!("crowd.{task}");
        endpoint.aliases = ["many".to_owned()].into();
        desired.endpoints.insert(format!("crowd{task}"), endpoint);
    }
    Bench {
        directory: Directory::new(&desired),
        ..Bench::new()
    }
}

#[test]
fn long_answers_are_truncated_to_what_the_client_takes() {
    let bench = crowd(300);
    let mut asked = query("tasks.many.", RecordType::A);
    for payload in [None, Some(0), Some(1232), Some(4096)] {
        asked.edns = payload.map(|payload| {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            edns
        });
        let limit = payload.unwrap_or(512).max(512);
        let Verdict::Reply(bytes) = bench.decide(&asked.to_vec().unwrap(), Transport::Udp) else {
            panic!("no reply");
        };
        let reply = Message::from_vec(&bytes).unwrap();
        assert!(
            bytes.len() <= usize::from(limit),
            "{} bytes for {limit}",
            bytes.len()
        );
        // Not one address less than fits.
        assert!(
            bytes.len() + 16 > usize::from(limit),
            "{} bytes for {limit}",
            bytes.len()
        );
        assert!(reply.metadata.truncation);
        assert_eq!(reply.edns.is_some(), payload.is_some());
    }
    let Verdict::Reply(bytes) = bench.decide(&asked.to_vec().unwrap(), Transport::Tcp) else {
        panic!("no reply");
    };
    let reply = Message::from_vec(&bytes).unwrap();
    assert_eq!(
        (reply.answers.len(), reply.metadata.truncation),
        (300, false)
    );
}

#[test]
fn even_tcp_has_an_end() {
    let bench = crowd(5000);
    let asked = query("tasks.many.", RecordType::A).to_vec().unwrap();
    let Verdict::Reply(bytes) = bench.decide(&asked, Transport::Tcp) else {
        panic!("no reply")
    };
    let reply = Message::from_vec(&bytes).unwrap();
    assert!(
        bytes.len() <= 65535 && bytes.len() + 16 > 65535,
        "{} bytes",
        bytes.len()
    );
    assert!(reply.metadata.truncation);
}

#[test]
fn what_is_no_plain_query_is_refused() {
    let bench = Bench::new();
    let code = |message: &Message| bench.ask(message).map(|reply| reply.metadata.response_code);

    let mut several = query("web.", RecordType::A);
    several.add_query(Query::query(
        Name::from_ascii("db.").unwrap(),
        RecordType::A,
    ));
    assert_eq!(code(&several), Some(ResponseCode::FormErr));

    assert_eq!(code(&Message::query()), Some(ResponseCode::FormErr));

    for class in [
        DNSClass::CH,
        DNSClass::ANY,
        DNSClass::NONE,
        DNSClass::Unknown(9),
    ] {
        let mut other = query("web.", RecordType::A);
        other.queries[0].query_class = class;
        assert_eq!(code(&other), Some(ResponseCode::Refused), "{class}");
    }
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        assert_eq!(
            code(&query("example.com.", kind)),
            Some(ResponseCode::Refused)
        );
    }

    let mut update = query("web.", RecordType::SOA);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(code(&update), Some(ResponseCode::NotImp));

    let mut future = query("web.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    future.edns = Some(edns);
    // 16 is BADVERS here and BADSIG in TSIG records (RFC 6895, 2.3).
    assert_eq!(
        code(&future).map(u16::from),
        Some(u16::from(ResponseCode::BADVERS))
    );

    let mut response = query("web.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    let verdict = bench.decide(&response.to_vec().unwrap(), Transport::Udp);
    assert!(matches!(verdict, Verdict::Ignore));
}

#[test]
fn hostile_bytes_get_an_error_or_nothing() {
    let bench = Bench::new();
    let plain = query("tasks.web.", RecordType::A).to_vec().unwrap();
    // Cut off anywhere.
    for length in 0..plain.len() {
        match bench.decide(&plain[..length], Transport::Udp) {
            Verdict::Ignore => assert!(length < 12, "{length}"),
            Verdict::Reply(reply) => {
                let header = Header::read(&mut BinDecoder::new(&reply)).unwrap();
                assert_eq!(header.response_code, ResponseCode::FormErr, "{length}");
                assert_eq!(reply[..2], plain[..2], "the id");
            }
            Verdict::Forward(_) => panic!("forwarded at {length}"),
        }
    }
    // Counts that promise far more than there is, in each section.
    for count in [4, 6, 8, 10] {
        let mut bytes = plain.clone();
        bytes[count..count + 2].copy_from_slice(&[0xff, 0xff]);
        let Verdict::Reply(reply) = bench.decide(&bytes, Transport::Tcp) else {
            panic!("{count}")
        };
        let header = Header::read(&mut BinDecoder::new(&reply)).unwrap();
        assert_eq!(header.response_code, ResponseCode::FormErr, "{count}");
    }
    // A name that points at itself, and one that points behind the end.
    for pointer in [[0xc0, 12], [0xff, 0xff]] {
        let bytes = [&plain[..12], &pointer, &[0, 1, 0, 1]].concat();
        let Verdict::Reply(reply) = bench.decide(&bytes, Transport::Udp) else {
            panic!()
        };
        let header = Header::read(&mut BinDecoder::new(&reply)).unwrap();
        assert_eq!(header.response_code, ResponseCode::FormErr);
    }
    // Every byte turned into every other value: whatever comes, it is no panic, and no reply is
    // longer than allowed.
    for at in 0..plain.len() {
        for value in 0..=255 {
            let mut bytes = plain.clone();
            bytes[at] = value;
            if let Verdict::Reply(reply) = bench.decide(&bytes, Transport::Udp) {
                assert!((12..=512).contains(&reply.len()));
            }
        }
    }
}

#[test]
fn failures_repeat_the_question() {
    let bench = Bench::new();
    let asked = query("Example.com.", RecordType::A);
    let Verdict::Forward(request) = bench.decide(&asked.to_vec().unwrap(), Transport::Udp) else {
        panic!("answered")
    };
    let reply = Message::from_vec(&request.failure(ResponseCode::ServFail).unwrap()).unwrap();
    assert_eq!(reply.metadata.id, asked.metadata.id);
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(reply.queries, asked.queries);
}
