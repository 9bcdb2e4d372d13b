use hickory_proto::op::{Message, MessageType, ResponseCode};

use super::super::directory::tests::cluster;
use super::super::request::LOCAL_TTL;
use super::*;

/// A server for the test cluster, seen from both networks.
pub(crate) struct Bench {
    pub directory: Directory,
    pub view: View,
}

impl Bench {
    pub fn new() -> Self {
        let networks = vec!["id-app".into(), "id-back".into()];
        let view = View {
            networks,
            ..View::default()
        };
        Self {
            directory: Directory::new(&cluster()),
            view,
        }
    }

    pub fn decide(&self, bytes: &[u8], transport: Transport) -> Verdict {
        decide(bytes, transport, &self.view, &self.directory)
    }

    /// The reply over UDP; `None`: forwarded.
    pub fn ask(&self, message: &Message) -> Option<Message> {
        match self.decide(&message.to_vec().unwrap(), Transport::Udp) {
            Verdict::Reply(bytes) => Some(Message::from_vec(&bytes).unwrap()),
            Verdict::Forward(_) => None,
            Verdict::Ignore => panic!("no reply to {message}"),
        }
    }
}

pub(crate) fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn data(reply: &Message) -> Vec<String> {
    let mut data: Vec<String> = reply.answers.iter().map(|r| r.data.to_string()).collect();
    data.sort();
    data
}

#[test]
fn local_names_are_answered() {
    let bench = Bench::new();
    for (name, kind, expected) in [
        ("web.", RecordType::A, &["10.1.0.2"][..]),
        ("WEB.", RecordType::A, &["10.1.0.2"]),
        ("wEb.aPP.", RecordType::AAAA, &["fd01::2"]),
        ("web.", RecordType::ANY, &["10.1.0.2", "fd01::2"]),
        ("tasks.web.", RecordType::A, &["10.1.0.11", "10.1.0.12"]),
        ("tasks.web.", RecordType::AAAA, &["fd01::11"]),
        ("db.", RecordType::A, &["10.2.0.21", "10.2.0.22"]),
        ("task.w3.", RecordType::A, &["10.1.0.13"]),
        // Exists, but not so.
        ("db.", RecordType::AAAA, &[]),
        ("task.w2.", RecordType::AAAA, &[]),
        ("web.", RecordType::MX, &[]),
        ("web.", RecordType::HTTPS, &[]),
        ("tasks.idle.", RecordType::A, &[]),
        (
            "11.0.1.10.in-addr.arpa.",
            RecordType::PTR,
            &["Task.w1.App."],
        ),
        ("2.0.1.10.IN-ADDR.arpa.", RecordType::PTR, &["Web.App."]),
        (
            "1.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.d.f.ip6.arpa.",
            RecordType::PTR,
            &["Task.w1.App."],
        ),
    ] {
        let asked = query(name, kind);
        let reply = bench
            .ask(&asked)
            .unwrap_or_else(|| panic!("{name} {kind} is forwarded"));
        assert_eq!(data(&reply), expected, "{name} {kind}");
        assert_eq!(
            reply.metadata.response_code,
            ResponseCode::NoError,
            "{name} {kind}"
        );
        assert_eq!(reply.metadata.id, asked.metadata.id);
        assert_eq!(reply.metadata.message_type, MessageType::Response);
        assert!(reply.metadata.recursion_desired && reply.metadata.recursion_available);
        assert!(
            reply.queries[0].name.eq_case(&asked.queries[0].name),
            "the question as it was"
        );
        assert!(
            reply
                .answers
                .iter()
                .all(|r| r.ttl == LOCAL_TTL && r.name == asked.queries[0].name)
        );
        assert!(reply.edns.is_none());
    }
}

#[test]
fn everything_else_is_forwarded() {
    let bench = Bench::new();
    for (name, kind) in [
        ("example.com.", RecordType::A),
        ("nothing.", RecordType::A),
        ("web.example.com.", RecordType::A),
        ("web.ingress.", RecordType::A),
        (".", RecordType::NS),
        ("99.0.1.10.in-addr.arpa.", RecordType::PTR),
        ("1.10.in-addr.arpa.", RecordType::PTR),
        ("x.0.1.10.in-addr.arpa.", RecordType::PTR),
        ("11.0.1.10.in-addr.arpa.", RecordType::TXT),
        ("_http._tcp.web.", RecordType::SRV),
    ] {
        assert!(bench.ask(&query(name, kind)).is_none(), "{name} {kind}");
    }
}

#[test]
fn labels_with_dots_in_them_are_other_names() {
    let bench = Bench::new();
    let name = Name::from_labels([&b"tasks.web"[..]]).unwrap();
    let mut message = Message::query();
    message.add_query(Query::query(name, RecordType::A));
    assert!(bench.ask(&message).is_none());
}

#[test]
fn ndots_keeps_single_labels_inside() {
    let mut bench = Bench::new();
    bench.view.ndots = 1;
    for kind in [RecordType::A, RecordType::AAAA] {
        let reply = bench.ask(&query("nothing.", kind)).unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert_eq!(data(&reply), [""; 0]);
    }
    assert!(bench.ask(&query("nothing.", RecordType::TXT)).is_none());
    assert!(bench.ask(&query("nothing.else.", RecordType::A)).is_none());
    assert_eq!(
        data(&bench.ask(&query("web.", RecordType::A)).unwrap()),
        ["10.1.0.2"]
    );
}

#[test]
fn answers_come_in_every_order() {
    let bench = Bench::new();
    let mut first = std::collections::BTreeSet::new();
    // 2 to the power of -199: the chance that this fails with a fair shuffle.
    for _ in 0..200 {
        let reply = bench.ask(&query("db.", RecordType::A)).unwrap();
        first.insert(reply.answers[0].data.to_string());
    }
    assert_eq!(first.len(), 2);
}
