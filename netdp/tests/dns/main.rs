//! A task's DNS in real namespaces, with `dig` as the one who asks. Needs root.

mod bed;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bed::{Bed, Manner, Upstream, cluster, run, view};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use netdp::dns::{ADDRESS, Directory, PORT, Sockets, View, bind};

fn query(name: &str) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message
}

#[test]
fn names_of_the_cluster() {
    let bed = Bed::serving("local");
    for transport in ["+notcp", "+tcp"] {
        let short = |rest: &str| bed.short(&format!("{transport} {rest}"));
        assert_eq!(short("web A"), ["10.1.0.2"]);
        assert_eq!(short("WEB.App AAAA"), ["fd01::2"]);
        assert_eq!(short("web.7 A"), ["10.1.1.7"]);
        assert_eq!(short("-x 10.1.1.7"), ["web.7.app."]);
        assert_eq!(short("-x fd01::2"), ["web.app."]);
        assert_eq!(bed.status(&format!("{transport} web.7 AAAA")), "NOERROR");
        assert_eq!(bed.status(&format!("{transport} web MX")), "NOERROR");
        assert_eq!(bed.status(&format!("{transport} web CH A")), "REFUSED");
    }
}

#[test]
fn long_answers_go_over_to_tcp() {
    let bed = Bed::serving("long");
    let cut = bed.dig("+ignore +noedns tasks.web A");
    assert!(
        cut.contains("flags: qr aa tc rd ra;") && cut.contains("ANSWER: 30,"),
        "{cut}"
    );
    // dig repeats a truncated question over TCP by itself.
    let whole = bed.dig("+noedns tasks.web A");
    assert!(
        whole.contains("ANSWER: 100,") && whole.contains("(TCP)"),
        "{whole}"
    );
    let whole = bed.dig("+bufsize=4096 tasks.web A");
    assert!(
        whole.contains("ANSWER: 100,") && whole.contains("(UDP)"),
        "{whole}"
    );
}

#[test]
fn other_names_are_asked_of_the_upstream() {
    let mut bed = Bed::new("forward");
    let upstream = Upstream::start("127.0.0.53", Manner::Good);
    bed.forward_to(vec![upstream.address]);

    assert_eq!(bed.short("+nocookie one.test A"), ["192.0.2.1"]);
    assert_eq!(upstream.asked(), (1, 0));
    // Kept, for either transport; only for the very same question.
    assert_eq!(bed.short("+nocookie one.test A"), ["192.0.2.1"]);
    assert_eq!(bed.short("+nocookie +tcp one.test A"), ["192.0.2.1"]);
    assert_eq!(upstream.asked(), (1, 0));
    assert_eq!(bed.short("+nocookie +tcp two.test A"), ["192.0.2.1"]);
    assert_eq!(upstream.asked(), (1, 1));

    // A name that does not exist is passed on as such, and kept too.
    assert_eq!(bed.status("+nocookie gone.test A"), "NXDOMAIN");
    assert_eq!(bed.status("+nocookie gone.test A"), "NXDOMAIN");
    assert_eq!(upstream.asked(), (2, 1));

    // A truncated reply is passed on; the client comes back over TCP, and so does its question.
    assert_eq!(bed.short("+nocookie big.test A").len(), 100);
    assert_eq!(upstream.asked(), (3, 2));

    // Ours never leave.
    assert_eq!(bed.status("web MX"), "NOERROR");
    assert_eq!(upstream.asked(), (3, 2));
}

#[test]
fn kept_answers_grow_old() {
    let mut bed = Bed::new("ttl");
    let upstream = Upstream::start("127.0.0.53", Manner::Good);
    bed.forward_to(vec![upstream.address]);
    let ttl = || -> u32 {
        let line = bed.dig("+noall +answer +nocookie one.test A");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    assert_eq!(ttl(), 300);
    std::thread::sleep(Duration::from_millis(1100));
    assert!(ttl() < 300);
    assert_eq!(upstream.asked(), (1, 0));
}

#[test]
fn a_bad_upstream_is_passed_over() {
    let mut bed = Bed::new("bad");
    let good = Upstream::start("127.0.0.53", Manner::Good);
    let silent = Upstream::start("127.0.0.54", Manner::Silent);
    let failing = Upstream::start("127.0.0.55", Manner::Failing);
    let closed = "127.0.0.56:53".parse().unwrap();
    let own = (ADDRESS, 53).into();
    for (first, transport) in [
        (vec![silent.address], "+notcp"),
        (vec![failing.address], "+notcp"),
        (vec![closed], "+notcp"),
        (vec![silent.address, failing.address], "+notcp"),
        (vec![silent.address], "+tcp"),
        (vec![failing.address], "+tcp"),
        (vec![closed], "+tcp"),
        // The resolver itself does not count against the three.
        (vec![own, own, own, closed], "+notcp"),
    ] {
        let upstreams = [&first[..], &[good.address]].concat();
        bed.forward_to(upstreams);
        let answer = bed.short(&format!("{transport} one.test A"));
        assert_eq!(answer, ["192.0.2.1"], "{first:?} {transport}");
        bed.stop();
    }
}

#[test]
fn without_an_answer_it_is_a_failure() {
    let mut bed = Bed::new("none");
    let silent = Upstream::start("127.0.0.54", Manner::Silent).address;
    let failing = Upstream::start("127.0.0.55", Manner::Failing).address;
    let own = (ADDRESS, 53).into();
    for upstreams in [
        vec![],
        vec![own],
        vec![failing],
        vec![silent],
        vec![silent, failing],
    ] {
        bed.forward_to(upstreams);
        assert_eq!(bed.status("one.test A"), "SERVFAIL");
        assert_eq!(bed.short("web A"), ["10.1.0.2"]);
        bed.stop();
    }
}

#[test]
fn single_labels_stay_inside_where_ndots_says_so() {
    let mut bed = Bed::new("ndots");
    let upstream = Upstream::start("127.0.0.53", Manner::Good);
    for (ndots, expected) in [(0, &["192.0.2.1"][..]), (1, &[])] {
        let upstreams = vec![upstream.address];
        let view = View {
            ndots,
            upstreams,
            ..view()
        };
        bed.serve(bed.sockets(), view);
        assert_eq!(bed.short("single A"), expected);
        assert_eq!(bed.status("single A"), "NOERROR");
        assert_eq!(bed.short("one.test A"), ["192.0.2.1"]);
        bed.stop();
    }
}

#[test]
fn forged_replies_are_not_believed() {
    let mut bed = Bed::new("forged");
    let upstream = Upstream::start("127.0.0.53", Manner::Forged);
    bed.forward_to(vec![upstream.address]);
    assert_eq!(bed.short("one.test A"), ["192.0.2.1"]);
}

#[test]
fn upstreams_can_be_asked_from_the_task() {
    let mut bed = Bed::new("from-task");
    let upstream = bed
        .netns
        .inside(|| Upstream::start("127.0.0.53", Manner::Good));
    let upstreams = vec![upstream.address];
    let path = bed.netns.path.clone();
    bed.serve(
        bed.sockets(),
        View {
            upstreams: upstreams.clone(),
            ..view()
        },
    );
    assert_eq!(
        bed.status("one.test A"),
        "SERVFAIL",
        "nothing is there on the node"
    );
    bed.stop();

    let view = View {
        upstreams,
        upstreams_from: Some(path.clone()),
        ..view()
    };
    bed.serve(bed.sockets(), view);
    assert_eq!(bed.short("one.test A"), ["192.0.2.1"]);
    assert_eq!(bed.short("+tcp two.test A"), ["192.0.2.1"]);
    assert_eq!(upstream.asked(), (1, 1));
}

#[test]
fn a_new_directory_counts_at_once() {
    let bed = Bed::serving("swap");
    assert_eq!(bed.short("web A"), ["10.1.0.2"]);
    let mut desired = cluster();
    let service = desired.services.get_mut("id-web").unwrap();
    service.vips = vec![("id-app".into(), "10.1.0.3".parse().unwrap())];
    bed.directory
        .send_replace(Arc::new(Directory::new(&desired)));
    assert_eq!(bed.short("web A"), ["10.1.0.3"]);
}

#[test]
fn queries_wait_for_the_next_server() {
    let mut bed = Bed::new("restart");
    let sockets = bind(&bed.netns.path, PORT).unwrap();
    let again = Sockets {
        udp: sockets.udp.try_clone().unwrap(),
        tcp: sockets.tcp.try_clone().unwrap(),
    };
    bed.serve(sockets, view());
    assert_eq!(bed.short("web A"), ["10.1.0.2"]);
    bed.stop();

    let client = bed.client();
    let asked = query("web.");
    client.send(&asked.to_vec().unwrap()).unwrap();
    let mut stream = bed
        .netns
        .inside(|| TcpStream::connect((ADDRESS, PORT)).unwrap());
    let bytes = asked.to_vec().unwrap();
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length[..], &bytes].concat()).unwrap();

    bed.serve(again, view());
    let mut buffer = [0; 512];
    let got = client.recv(&mut buffer).unwrap();
    let reply = Message::from_vec(&buffer[..got]).unwrap();
    assert_eq!(
        (reply.metadata.id, reply.answers.len()),
        (asked.metadata.id, 1)
    );
    stream.read_exact(&mut buffer[..2 + got]).unwrap();
    let reply = Message::from_vec(&buffer[2..2 + got]).unwrap();
    assert_eq!(
        (reply.metadata.id, reply.answers.len()),
        (asked.metadata.id, 1)
    );
}

#[test]
fn one_question_asked_often_goes_out_once() {
    let mut bed = Bed::new("once");
    let upstream = Upstream::start("127.0.0.53", Manner::Slow(Duration::from_millis(300)));
    bed.forward_to(vec![upstream.address]);
    let client = bed.client();
    let mut asked = query("one.test.");
    for id in 0..50 {
        asked.metadata.id = id;
        client.send(&asked.to_vec().unwrap()).unwrap();
    }
    let mut buffer = [0; 512];
    let ids: HashSet<u16> = (0..50)
        .map(|_| {
            let length = client.recv(&mut buffer).unwrap();
            let reply = Message::from_vec(&buffer[..length]).unwrap();
            assert_eq!(reply.answers.len(), 1);
            reply.metadata.id
        })
        .collect();
    assert_eq!(ids.len(), 50, "each gets the reply under its own id");
    assert_eq!(upstream.asked(), (1, 0));
}

#[test]
fn too_many_questions_are_refused() {
    let mut bed = Bed::new("many");
    let silent = Upstream::start("127.0.0.54", Manner::Silent);
    bed.forward_to(vec![silent.address]);
    // In portions with a socket each, so that no socket's buffer overflows.
    let clients: Vec<_> = (0..10).map(|_| bed.client()).collect();
    let other = bed.client();
    let mut buffer = [0; 512];
    let began = Instant::now();
    for (portion, client) in clients.iter().enumerate() {
        for number in 0..30 {
            let name = format!("n{portion}-{number}.test.");
            client.send(&query(&name).to_vec().unwrap()).unwrap();
        }
        // In the meantime names of the cluster are answered as ever.
        other.send(&query("web.").to_vec().unwrap()).unwrap();
        let length = other.recv(&mut buffer).unwrap();
        assert_eq!(
            Message::from_vec(&buffer[..length]).unwrap().answers.len(),
            1
        );
    }
    let took = began.elapsed();
    let mut refused = 0;
    for _ in 0..30 {
        for client in &clients {
            let length = client.recv(&mut buffer).unwrap();
            match Message::from_vec(&buffer[..length])
                .unwrap()
                .metadata
                .response_code
            {
                ResponseCode::Refused => refused += 1,
                ResponseCode::ServFail => {}
                other => panic!("{other}"),
            }
        }
    }
    // 256 may be out at a time, and nobody replies to them. After 4.5 s the first of them are given up.
    assert!(refused <= 300 - 256, "{refused}");
    assert!(
        refused == 300 - 256 || took > Duration::from_secs(4),
        "{refused}, {took:?}"
    );
}

#[test]
fn rubbish_does_not_stop_it() {
    let bed = Bed::serving("rubbish");
    let client = bed.client();
    let plain = query("web.").to_vec().unwrap();
    for length in [0, 1, 11, 12, 13, plain.len() - 1] {
        client.send(&plain[..length]).unwrap();
    }
    client.send(&[0xff; 9000]).unwrap();
    // Connections that say nothing, too little, rubbish, and one cut off.
    let connections: Vec<TcpStream> = bed.netns.inside(|| {
        [
            &[][..],
            &[0],
            &[0, 0],
            &[0, 20, 1],
            &[0, 12, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0],
            &[0xff; 300],
        ]
        .map(|bytes| {
            let mut stream = TcpStream::connect((ADDRESS, PORT)).unwrap();
            stream.write_all(bytes).unwrap();
            stream
        })
        .into()
    });
    assert_eq!(bed.short("web A"), ["10.1.0.2"]);
    assert_eq!(bed.short("+tcp web A"), ["10.1.0.2"]);
    drop(connections);
    assert_eq!(bed.short("+tcp web A"), ["10.1.0.2"]);
}

#[test]
fn several_questions_share_a_connection() {
    let bed = Bed::serving("pipeline");
    let mut stream = bed
        .netns
        .inside(|| TcpStream::connect((ADDRESS, PORT)).unwrap());
    stream
        .set_read_timeout(Some(Duration::from_secs(8)))
        .unwrap();
    let asked = [query("web."), query("web.1."), query("tasks.web.")];
    let mut bytes = Vec::new();
    for message in &asked {
        let message = message.to_vec().unwrap();
        bytes.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
        bytes.extend(message);
    }
    // In pieces that end where no message does.
    for piece in bytes.chunks(7) {
        stream.write_all(piece).unwrap();
    }
    for (message, answers) in asked.iter().zip([1, 1, 100]) {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply).unwrap();
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!(reply.metadata.id, message.metadata.id);
        assert_eq!(reply.answers.len(), answers);
    }
}

#[test]
fn binding_says_what_is_wrong() {
    let bed = Bed::new("bind");
    let path = bed.netns.path.as_path();
    let error = bind("/nonexistent/netns".as_ref(), PORT)
        .unwrap_err()
        .to_string();
    assert!(error.contains("/nonexistent/netns"), "{error}");
    let error = bind("/etc/passwd".as_ref(), PORT).unwrap_err().to_string();
    assert!(error.contains("/etc/passwd"), "{error}");

    let _first = bind(path, PORT).unwrap();
    let error = bind(path, PORT).unwrap_err().to_string();
    assert!(
        error.contains("127.0.0.11:61053") && error.contains("in use"),
        "{error}"
    );
    // Another port is free, and 53 is not ours.
    bind(path, 53).unwrap();

    let name = path.file_name().unwrap().to_str().unwrap();
    run("ip", &["-n", name, "link", "set", "lo", "down"]);
    run("ip", &["-n", name, "address", "flush", "dev", "lo"]);
    let error = bind(path, 61054).unwrap_err().to_string();
    assert!(error.contains("lo up"), "{error}");
}

#[test]
fn starting_without_a_runtime_is_an_error() {
    let bed = Bed::new("no-runtime");
    let sockets = bind(&bed.netns.path, PORT).unwrap();
    let error = netdp::dns::Server::start(sockets, view(), bed.directory.subscribe()).unwrap_err();
    assert!(
        error.to_string().contains("start the DNS server"),
        "{error}"
    );
}
