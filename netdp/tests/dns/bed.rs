//! A node and a task in namespaces of their own, with upstreams that do as they are told.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record};
use netdp::dns::{ADDRESS, Directory, PORT, Server, Sockets, View, bind};
use netdp::{Backend, Desired, Endpoint, Mac, Network, Service};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::sync::{oneshot, watch};

/// A task's namespace with its resolver, beside the node's namespace, which the test's thread is in.
pub struct Bed {
    pub netns: Netns,
    pub directory: watch::Sender<Arc<Directory>>,
    server: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Bed {
    /// Builds both namespaces; nothing is served yet.
    pub fn new(test: &str) -> Self {
        // The thread of this test, and all threads and processes that it starts from here on.
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (needs root)");
        run("ip", &["link", "set", "lo", "up"]);
        let netns = Netns::new(test);
        run("ip", &["-n", &netns.name, "link", "set", "lo", "up"]);
        let (directory, _) = watch::channel(Arc::new(Directory::new(&cluster())));
        Self {
            netns,
            directory,
            server: None,
        }
    }

    /// The same, and serves names of the cluster only.
    pub fn serving(test: &str) -> Self {
        let mut bed = Self::new(test);
        bed.forward_to(vec![]);
        bed
    }

    /// The server's sockets. What another test has just begun to start holds those of the last time until
    /// it executes its program.
    pub fn sockets(&self) -> Sockets {
        let mut tries = 0..100;
        loop {
            match bind(&self.netns.path, PORT) {
                Err(error) if tries.next().is_some() && error.to_string().contains("bind") => {
                    thread::sleep(Duration::from_millis(50));
                }
                bound => break bound.unwrap(),
            }
        }
    }

    /// Serves, with these upstreams asked from the node.
    pub fn forward_to(&mut self, upstreams: Vec<SocketAddr>) {
        self.serve(
            self.sockets(),
            View {
                upstreams,
                ..view()
            },
        );
    }

    /// Serves until [`Bed::stop`].
    pub fn serve(&mut self, sockets: Sockets, view: View) {
        let directory = self.directory.subscribe();
        let (stop, stopped) = oneshot::channel();
        let (started, wait) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let server = Server::start(sockets, view, directory).unwrap();
                started.send(()).unwrap();
                let _ = stopped.await;
                drop(server);
            });
        });
        wait.recv().unwrap();
        self.server = Some((stop, thread));
    }

    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.server.take() {
            let _ = stop.send(());
            thread.join().unwrap();
        }
    }

    /// What `dig` prints when the task runs it.
    pub fn dig(&self, arguments: &str) -> String {
        let port = PORT.to_string();
        let server = format!("@{ADDRESS}");
        let mut all = vec![
            "netns",
            "exec",
            &self.netns.name,
            "dig",
            &server,
            "-p",
            &port,
        ];
        all.extend(["+tries=1", "+time=8"]);
        all.extend(arguments.split_whitespace());
        run("ip", &all)
    }

    /// The records' data that `dig` gets, sorted.
    pub fn short(&self, arguments: &str) -> Vec<String> {
        let mut lines: Vec<String> = self
            .dig(&format!("+short {arguments}"))
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    }

    /// The response code that `dig` reports.
    pub fn status(&self, arguments: &str) -> String {
        let output = self.dig(arguments);
        let (_, rest) = output
            .split_once("status: ")
            .unwrap_or_else(|| panic!("{output}"));
        rest.split(',').next().unwrap().to_owned()
    }

    /// A UDP socket in the task, connected to the resolver.
    pub fn client(&self) -> UdpSocket {
        self.netns.inside(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect((ADDRESS, PORT)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(8)))
                .unwrap();
            socket
        })
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.server.take() {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

/// A named network namespace.
pub struct Netns {
    name: String,
    pub path: PathBuf,
}

impl Netns {
    fn new(test: &str) -> Self {
        let name = format!("fl-dns-{test}-{}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let path = Path::new("/run/netns").join(&name);
        Self { name, path }
    }

    /// Runs `work` on a thread in there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = std::fs::File::open(&self.path).unwrap();
                setns(file, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// What a program prints; it must succeed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let hint = "(dig is in Debian's package bind9-dnsutils)";
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {text}{errors} {hint}"
    );
    text
}

/// How an upstream behaves.
#[derive(Clone, Copy, PartialEq)]
pub enum Manner {
    /// Answers, see [`Upstream::answer`].
    Good,
    /// The same, this late.
    Slow(Duration),
    /// Says nothing.
    Silent,
    /// Says SERVFAIL.
    Failing,
    /// Before the answer come others: with another id, another question, and no reply at all.
    Forged,
}

/// A DNS server in the namespace of the thread that starts it.
pub struct Upstream {
    pub address: SocketAddr,
    udp: Arc<AtomicUsize>,
    tcp: Arc<AtomicUsize>,
}

impl Upstream {
    /// Its threads end with the test's process: they only wait on sockets.
    pub fn start(ip: &str, manner: Manner) -> Self {
        let address: SocketAddr = (ip.parse::<IpAddr>().unwrap(), 53).into();
        let (udp, tcp) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let socket = Arc::new(UdpSocket::bind(address).unwrap());
        let listener = TcpListener::bind(address).unwrap();
        let count = Arc::clone(&udp);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                let query = Message::from_vec(&buffer[..length]).unwrap();
                let socket = Arc::clone(&socket);
                thread::spawn(move || {
                    for reply in Self::replies(manner, &query, true) {
                        let _ = socket.send_to(&reply, client);
                    }
                });
            }
        });
        let count = Arc::clone(&tcp);
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                count.fetch_add(1, Ordering::SeqCst);
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut query).unwrap();
                let query = Message::from_vec(&query).unwrap();
                for reply in Self::replies(manner, &query, false) {
                    let length = u16::try_from(reply.len()).unwrap().to_be_bytes();
                    let _ = stream.write_all(&[&length[..], &reply].concat());
                }
            }
        });
        Self { address, udp, tcp }
    }

    /// Queries that came, over UDP and over TCP.
    pub fn asked(&self) -> (usize, usize) {
        (
            self.udp.load(Ordering::SeqCst),
            self.tcp.load(Ordering::SeqCst),
        )
    }

    fn replies(manner: Manner, query: &Message, udp: bool) -> Vec<Vec<u8>> {
        let answer = Self::answer(query, udp);
        let replies = match manner {
            Manner::Good => vec![answer],
            Manner::Slow(delay) => {
                thread::sleep(delay);
                vec![answer]
            }
            Manner::Silent => vec![],
            Manner::Failing => {
                let mut failure = answer;
                failure.answers.clear();
                failure.metadata.response_code = ResponseCode::ServFail;
                vec![failure]
            }
            Manner::Forged => {
                let mut forged = answer.clone();
                forged.answers.truncate(1);
                forged.answers[0].data = RData::A(A::new(6, 6, 6, 6));
                let mut other_id = forged.clone();
                other_id.metadata.id ^= 1;
                let mut other_name = forged.clone();
                other_name.queries[0].name = Name::from_ascii("other.test.").unwrap();
                let mut no_reply = forged;
                no_reply.metadata.message_type = MessageType::Query;
                vec![other_id, other_name, no_reply, answer]
            }
        };
        replies
            .iter()
            .map(|reply| reply.to_vec().unwrap())
            .collect()
    }

    /// `big.test` has 100 addresses and is truncated over UDP, `gone.*` does not exist, all other
    /// names have the address 192.0.2.1 for 300 seconds.
    fn answer(query: &Message, udp: bool) -> Message {
        let Query { name, .. } = query.queries[0].clone();
        let mut reply = query.clone().into_response();
        let text = name.to_ascii().to_ascii_lowercase();
        let address =
            |last| Record::from_rdata(name.clone(), 300, RData::A(A::new(192, 0, 2, last)));
        if text == "big.test." && udp {
            reply.metadata.truncation = true;
        } else if text == "big.test." {
            reply.answers = (1..=100).map(address).collect();
        } else if text.starts_with("gone.") {
            reply.metadata.response_code = ResponseCode::NXDomain;
            let zone = Name::from_ascii("test.").unwrap();
            let soa = SOA::new(zone.clone(), zone.clone(), 1, 2, 3, 4, 20);
            reply.authorities = vec![Record::from_rdata(zone, 300, RData::SOA(soa))];
        } else {
            reply.answers = vec![address(1)];
        }
        reply
    }
}

pub fn view() -> View {
    View {
        networks: vec!["id-app".into()],
        ..View::default()
    }
}

/// A network `app` with a service `web` (a VIP, 100 tasks).
pub fn cluster() -> Desired {
    let network = Network {
        name: "app".into(),
        segments: vec![],
        ingress: false,
        internal: false,
        mtu: None,
    };
    let vips = ["10.1.0.2", "fd01::2"].map(|vip| ("id-app".to_owned(), vip.parse().unwrap()));
    let service = Service {
        name: "web".into(),
        vips: vips.into(),
        ports: vec![],
        scheduler: None,
    };
    let endpoint = |task: u8| Endpoint {
        network: "id-app".into(),
        node: "n1".into(),
        task: format!("t{task}"),
        task_name: format!("web.{task}"),
        addresses: vec![[10, 1, 1, task].into()],
        mac: Mac([2, 0x42, 10, 1, 1, task]),
        service: Some("id-web".into()),
        aliases: BTreeSet::new(),
        task_aliases: BTreeSet::new(),
        backend: Backend::Enabled(1),
    };
    Desired {
        networks: [("id-app".to_owned(), network)].into(),
        services: [("id-web".to_owned(), service)].into(),
        endpoints: (1..=100)
            .map(|task| (format!("e{task}"), endpoint(task)))
            .collect(),
        ..Desired::default()
    }
}
