use hickory_proto::op::{Message, OpCode};
use hickory_proto::rr::{Name, RecordType};

use super::*;

fn question(name: &str, kind: RecordType) -> Query {
    Query::query(Name::from_ascii(name).unwrap(), kind)
}

fn reply(id: u16, code: ResponseCode, questions: &[Query]) -> Message {
    let mut message = Message::error_msg(id, OpCode::Query, code);
    message.queries = questions.to_vec();
    message
}

#[test]
fn only_replies_to_the_question_are_taken() {
    use ResponseCode::{FormErr, NXDomain, NoError, ServFail};
    let asked = question("www.example.", RecordType::A);
    let asked_once = std::slice::from_ref(&asked);
    let other_case = question("WWW.example.", RecordType::A);
    let other_name = question("ww.example.", RecordType::A);
    let other_type = question("www.example.", RecordType::AAAA);
    let mut other_class = asked.clone();
    other_class.query_class = hickory_proto::rr::DNSClass::CH;
    for (what, message, expected) in [
        ("a reply", reply(7, NoError, asked_once), Some(NoError)),
        ("a failure", reply(7, ServFail, asked_once), Some(ServFail)),
        (
            "another case",
            reply(7, NXDomain, &[other_case]),
            Some(NXDomain),
        ),
        ("another id", reply(8, NoError, asked_once), None),
        ("another name", reply(7, NoError, &[other_name]), None),
        (
            "another type",
            reply(7, NoError, std::slice::from_ref(&other_type)),
            None,
        ),
        ("another class", reply(7, NoError, &[other_class]), None),
        (
            "two questions",
            reply(7, NoError, &[asked.clone(), other_type]),
            None,
        ),
        ("no question", reply(7, NoError, &[]), None),
        (
            "a failure without question",
            reply(7, FormErr, &[]),
            Some(FormErr),
        ),
    ] {
        assert_eq!(
            accept(&message.to_vec().unwrap(), 7, &asked),
            expected,
            "{what}"
        );
    }
    let mut query = reply(7, NoError, asked_once);
    query.metadata.message_type = MessageType::Query;
    assert_eq!(accept(&query.to_vec().unwrap(), 7, &asked), None);

    let whole = reply(7, NoError, asked_once).to_vec().unwrap();
    for length in 0..whole.len() {
        assert_eq!(accept(&whole[..length], 7, &asked), None, "{length}");
    }
}
