//! Packets through services made by the crate, and the connections that they leave. Needs root and
//! `ip_vs`.

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use common::{in_new_namespace, run, this_namespace, visit};
use ipvs::text::{Columns, Table};
use ipvs::{
    Client, Connection, ConnectionState, ConnectionTable, Destination, DestinationId, Forward,
    Netmask, PoolEntry, Protocol, Scheduler, Service, ServiceFlags, ServiceId, Timeouts, sysctl,
};
use socket2::{Domain, Socket, Type};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Two virtual and three servers' addresses of each family, on `lo`.
fn addresses() {
    for last in [1, 2, 11, 12, 13] {
        run("ip", &format!("address add 10.0.0.{last}/32 dev lo"));
        run("ip", &format!("address add fd00::{last}/128 dev lo nodad"));
    }
}

fn at(v6: bool, last: u8) -> IpAddr {
    match v6 {
        false => [10, 0, 0, last].into(),
        true => format!("fd00::{last}").parse().unwrap(),
    }
}

/// A service on port 80 in front of port 8080 of two servers.
fn serve(client: &mut Client, protocol: Protocol, v6: bool) -> (ServiceId, [DestinationId; 2]) {
    let id = ServiceId::Address {
        protocol,
        address: at(v6, 1),
        port: 80,
    };
    let servers = [11, 12].map(|last| DestinationId::new(at(v6, last), 8080));
    client.add_service(Service::new(id, Scheduler::RR)).unwrap();
    for server in servers {
        let server = Destination::new(server, Forward::Masquerade);
        client.add_destination(id, server).unwrap();
    }
    (id, servers)
}

/// Connections as `ipvsadm` lists them, and as the table shows them, without the time left. A list
/// can tell a connection twice while those of other tests' namespaces come and go.
fn assert_same_connections(count: usize) -> Vec<Connection> {
    let without_time = |line: &str| {
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        words.remove(1);
        words.join(" ")
    };
    for last in (0..20).map(|attempt| attempt == 19) {
        let shown = run("ipvsadm", "-Lnc");
        assert!(shown.starts_with(ipvs::text::CONNECTIONS_HEAD), "{shown}");
        let mut shown: Vec<String> = shown.lines().skip(2).map(without_time).collect();
        let mut table = ConnectionTable::open().unwrap();
        let read: Vec<Connection> = table.read().unwrap().map(Result::unwrap).collect();
        let mut lines: Vec<String> = read.iter().map(|c| without_time(&c.to_string())).collect();
        shown.sort();
        lines.sort();
        if lines == shown && lines.len() == count {
            return read;
        }
        assert!(!last, "{count} expected, {lines:#?} and {shown:#?}");
        thread::sleep(Duration::from_millis(100));
    }
    unreachable!("the last attempt returns or panics")
}

/// What `ipvsadm` shows with an option is what the table shows, once `there` finds something to show.
/// The kernel brings counters and rates up to date every two seconds.
fn assert_same_view(
    client: &mut Client,
    columns: Columns,
    option: &str,
    there: impl Fn(&PoolEntry) -> bool,
) {
    for _ in 0..100 {
        let mut ours = || {
            let entries = client.pool_entries().unwrap();
            let table = Table::new(&entries).columns(columns);
            (there(&entries[0]), table.exact(true).to_string())
        };
        let ((counted, before), theirs, (_, after)) = (
            ours(),
            run("ipvsadm", &format!("-Ln {option} --exact")),
            ours(),
        );
        if counted && before == after {
            assert!(theirs.ends_with(&before), "{before} and {theirs}");
            return;
        }
        thread::sleep(Duration::from_millis(500));
    }
    panic!("{option}: nothing, or it never rests");
}

fn assert_same_counters(client: &mut Client) {
    let counted = |pool: &PoolEntry| pool.service.stats.packets_in > 0;
    assert_same_view(client, Columns::Stats, "--stats", counted);
}

/// A stream socket of TCP or SCTP.
fn stream(protocol: Protocol, address: IpAddr) -> Socket {
    let protocol = socket2::Protocol::from(i32::from(protocol.0));
    Socket::new(
        Domain::for_address((address, 0).into()),
        Type::STREAM,
        Some(protocol),
    )
    .unwrap()
}

fn streams(protocol: Protocol) {
    in_new_namespace(|mut client| {
        if protocol == Protocol::SCTP {
            run("modprobe", "sctp");
        }
        addresses();
        sysctl::EXPIRE_NODEST_CONN.set(true).unwrap();
        for v6 in [false, true] {
            let (id, servers) = serve(&mut client, protocol, v6);
            let listeners = servers.map(|server| {
                let listener = stream(protocol, server.address);
                let address = SocketAddr::new(server.address, server.port);
                listener.bind(&address.into()).unwrap();
                listener.listen(8).unwrap();
                listener
            });
            let mut open = Vec::new();
            for turn in 0..4 {
                let connection = stream(protocol, servers[0].address);
                let virtual_address = SocketAddr::new(at(v6, 1), 80);
                connection.connect(&virtual_address.into()).unwrap();
                let mut connection = TcpStream::from(connection);
                connection.write_all(b"ping").unwrap();
                // Which of the two is the turn of is up to the kernel; each is every other time.
                let entries = client.destinations(&id).unwrap();
                let given: u32 = entries
                    .iter()
                    .map(|entry| entry.active_connections + entry.inactive_connections)
                    .sum();
                assert_eq!(given, turn + 1);
                open.push(connection);
            }
            let mut accepted = Vec::new();
            for listener in &listeners {
                for _ in 0..2 {
                    let (socket, peer) = listener.accept().unwrap();
                    let mut socket = TcpStream::from(socket);
                    let mut got = [0; 4];
                    socket.read_exact(&mut got).unwrap();
                    assert_eq!(&got, b"ping");
                    let clients = open.iter().map(|c| c.local_addr().unwrap());
                    let peer = peer.as_socket().unwrap();
                    assert!(clients.clone().any(|client| client == peer), "{peer}");
                    socket.write_all(b"pong").unwrap();
                    accepted.push(socket);
                }
            }
            for connection in &mut open {
                let mut got = [0; 4];
                connection.read_exact(&mut got).unwrap();
                assert_eq!(&got, b"pong");
            }
            let read = assert_same_connections(4);
            for server in servers {
                let of_server = read.iter().filter(|c| c.belongs_to(&id, &server));
                assert_eq!(of_server.count(), 2, "{server}");
            }
            assert!(read.iter().all(|c| c.state == ConnectionState::ESTABLISHED
                && c.protocol == protocol
                && !c.is_template()));
            assert_same_counters(&mut client);
            drop((open, accepted));
            client.delete_service(id).unwrap();
            // The next family begins with an empty table.
            let mut table = ConnectionTable::open().unwrap();
            assert_eq!(table.wait_until_gone(PATIENCE, |_| true).unwrap(), 0);
        }
    });
}

#[test]
fn tcp_is_balanced_over_both_families() {
    streams(Protocol::TCP);
}

#[test]
fn sctp_is_balanced_over_both_families() {
    streams(Protocol::SCTP);
}

#[test]
fn udp_is_balanced_and_its_connections_end() {
    in_new_namespace(|mut client| {
        addresses();
        let udp = |seconds| Timeouts {
            udp: Some(seconds),
            ..Timeouts::default()
        };
        for v6 in [false, true] {
            let (id, servers) = serve(&mut client, Protocol::UDP, v6);
            client.set_timeouts(udp(300)).unwrap();
            let bound = |address, port| {
                let socket = UdpSocket::bind((address, port)).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket
            };
            let sockets = servers.map(|server| bound(server.address, server.port));
            let senders: Vec<UdpSocket> = (0..4)
                .map(|_| {
                    let sender = bound(at(v6, 2), 0);
                    sender.connect((at(v6, 1), 80)).unwrap();
                    sender.send(b"ping").unwrap();
                    sender
                })
                .collect();
            for socket in &sockets {
                for _ in 0..2 {
                    let mut got = [0; 8];
                    let (length, peer) = socket.recv_from(&mut got).unwrap();
                    assert_eq!(&got[..length], b"ping");
                    socket.send_to(b"pong", peer).unwrap();
                }
            }
            for sender in &senders {
                let mut got = [0; 8];
                assert_eq!(sender.recv(&mut got).unwrap(), 4);
            }
            // The next packet of a connection gives it the time that is then set.
            client.set_timeouts(udp(1)).unwrap();
            for sender in &senders {
                sender.send(b"last").unwrap();
            }
            for server in servers {
                assert_eq!(client.wait_drained(&id, &server, PATIENCE).unwrap(), 0);
            }
            assert_same_connections(0);
        }
    });
}

#[test]
fn a_drained_destination_keeps_its_connections_to_their_end() {
    in_new_namespace(|mut client| {
        addresses();
        let (id, servers) = serve(&mut client, Protocol::TCP, false);
        let listener = std::net::TcpListener::bind("10.0.0.11:8080").unwrap();
        let other = std::net::TcpListener::bind("10.0.0.12:8080").unwrap();
        let first = TcpStream::connect("10.0.0.1:80").unwrap();
        let second = TcpStream::connect("10.0.0.1:80").unwrap();
        let ends = (listener.accept().unwrap().0, other.accept().unwrap().0);

        // Nothing new to the first, and what it has goes on.
        let drained = Destination {
            weight: 0,
            ..Destination::new(servers[0], Forward::Masquerade)
        };
        client.set_destination(id, drained).unwrap();
        for _ in 0..3 {
            drop(TcpStream::connect("10.0.0.1:80").unwrap());
            other.accept().unwrap();
        }
        let patience = Duration::from_millis(50);
        assert_eq!(client.wait_drained(&id, &servers[0], patience).unwrap(), 1);
        let mut table = ConnectionTable::open().unwrap();
        let alive = |server: DestinationId| {
            move |c: &Connection| {
                c.belongs_to(&id, &server) && c.state == ConnectionState::ESTABLISHED
            }
        };
        let left = table.wait_until_gone(patience, alive(servers[0])).unwrap();
        assert_eq!(left, 1);
        drop((first, second, ends));
        // A connection that has ended is remembered for a while, which is no reason to wait.
        for server in servers {
            assert_eq!(table.wait_until_gone(PATIENCE, alive(server)).unwrap(), 0);
        }
        let error = client
            .wait_drained(&id, &DestinationId::new([10, 0, 0, 13], 1), PATIENCE)
            .unwrap_err();
        assert!(error.is_not_found(), "{error}");
    });
}

/// What becomes of the connections of a deleted destination.
#[test]
fn a_deleted_destination_s_connections_stay_or_end_as_set() {
    in_new_namespace(|mut client| {
        addresses();
        let (id, servers) = serve(&mut client, Protocol::TCP, false);
        let listeners = servers.map(|s| std::net::TcpListener::bind((s.address, s.port)).unwrap());
        let mut connections = [(); 2].map(|()| TcpStream::connect("10.0.0.1:80").unwrap());
        let mut ends = listeners.map(|listener| listener.accept().unwrap().0);
        let of = |server: DestinationId| move |c: &Connection| c.belongs_to(&id, &server);
        let mut table = ConnectionTable::open().unwrap();
        assert_eq!(table.count(of(servers[0])).unwrap(), 1);

        // As a kernel starts: the connection stays, says nothing, and goes on if the destination
        // comes back.
        client.delete_destination(id, servers[0]).unwrap();
        for connection in &mut connections {
            connection.write_all(b"ping").unwrap();
        }
        // One of them passes, after whatever time; the other does not.
        let mut passed = [false; 2];
        for end in &ends {
            let pause = Some(Duration::from_millis(300));
            end.set_read_timeout(pause).unwrap();
        }
        let end = Instant::now() + PATIENCE;
        while passed == [false; 2] && Instant::now() < end {
            passed = ends
                .each_mut()
                .map(|end| end.read_exact(&mut [0; 4]).is_ok());
        }
        assert_eq!(passed.iter().filter(|passed| **passed).count(), 1);
        assert_eq!(table.count(of(servers[0])).unwrap(), 1);
        let back = Destination::new(servers[0], Forward::Masquerade);
        client.add_destination(id, back).unwrap();
        let stuck = passed.iter().position(|passed| !passed).unwrap();
        // TCP sends it again.
        ends[stuck].set_read_timeout(Some(PATIENCE)).unwrap();
        ends[stuck].read_exact(&mut [0; 4]).unwrap();

        // As set: it is gone within moments.
        sysctl::EXPIRE_NODEST_CONN.set(true).unwrap();
        client.delete_destination(id, servers[0]).unwrap();
        let left = table.wait_until_gone(PATIENCE, of(servers[0])).unwrap();
        assert_eq!(left, 0);
        assert_eq!(table.count(of(servers[1])).unwrap(), 1);
    });
}

#[test]
fn persistence_and_marks_show_in_the_table() {
    in_new_namespace(|mut client| {
        addresses();
        let listener = std::net::TcpListener::bind("10.0.0.11:8080").unwrap();
        let id = ServiceId::tcp([10, 0, 0, 1], 80);
        let server = DestinationId::new([10, 0, 0, 11], 8080);
        let sticky = Service {
            flags: ServiceFlags::PERSISTENT,
            timeout: 300,
            netmask: Netmask::V4([255, 255, 255, 0].into()),
            ..Service::new(id, Scheduler::RR)
        };
        client.add_service(sticky).unwrap();
        let masquerade = Destination::new(server, Forward::Masquerade);
        client.add_destination(id, masquerade).unwrap();
        let open = TcpStream::connect("10.0.0.1:80").unwrap();
        let read = assert_same_connections(2);
        let template = read.iter().find(|c| c.is_template()).unwrap();
        assert_eq!(template.client, "10.0.0.0:0".parse().unwrap());
        assert!(template.belongs_to(&id, &server));
        let entry = client.destinations(&id).unwrap()[0];
        assert_eq!(entry.persistent_connections, 1);
        let sticky = |pool: &PoolEntry| pool.destinations[0].persistent_connections == 1;
        let option = "--persistent-conn";
        assert_same_view(&mut client, Columns::Persistence, option, sticky);

        // A mark service takes what is marked, whatever its address.
        run("nft", "add table ip m");
        run(
            "nft",
            "add chain ip m out { type route hook output priority mangle ; }",
        );
        run("nft", "add rule ip m out ip daddr 10.0.0.2 meta mark set 7");
        let marked = ServiceId::mark(ipvs::Family::V4, 7.try_into().unwrap());
        client
            .add_service(Service::new(marked, Scheduler::RR))
            .unwrap();
        client.add_destination(marked, masquerade).unwrap();
        let other = TcpStream::connect("10.0.0.2:12345").unwrap();
        let read = assert_same_connections(3);
        let through = read.iter().find(|c| c.virtual_address.port() == 12345);
        assert!(through.unwrap().belongs_to(&marked, &server));
        drop((open, other, listener));
    });
}

#[test]
fn a_table_stays_with_its_namespace() {
    in_new_namespace(|mut client| {
        addresses();
        let (id, servers) = serve(&mut client, Protocol::UDP, false);
        let sender = UdpSocket::bind("10.0.0.2:0").unwrap();
        sender.send_to(b"ping", "10.0.0.1:80").unwrap();
        let namespace = this_namespace();
        in_new_namespace(|_| {
            let mut here = ConnectionTable::open().unwrap();
            assert_eq!(here.count(|_| true).unwrap(), 0);
            let there = std::os::fd::AsFd::as_fd(&namespace);
            let mut there = ConnectionTable::open_in(there).unwrap();
            let ours = |c: &Connection| servers.iter().any(|server| c.belongs_to(&id, server));
            assert_eq!(there.count(ours).unwrap(), 1);
            // And again, from its beginning.
            assert_eq!(there.count(|_| true).unwrap(), 1);
            let same = visit(&namespace, || run("ipvsadm", "-Lnc").lines().count() - 2);
            assert_eq!(same, 1);
        });
    });
}

/// Rates are those of the last seconds: something has to flow.
#[test]
fn rates_are_shown_as_ipvsadm_shows_them() {
    in_new_namespace(|mut client| {
        addresses();
        let (_, servers) = serve(&mut client, Protocol::UDP, false);
        let sockets = servers.map(|server| {
            let socket = UdpSocket::bind((server.address, server.port)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        });
        // Enough that the average over some seconds is seen whole.
        for _ in 0..20 {
            let sender = UdpSocket::bind("10.0.0.2:0").unwrap();
            sender.connect("10.0.0.1:80").unwrap();
            for _ in 0..50 {
                sender.send(&[0; 1000]).unwrap();
            }
            for socket in &sockets {
                while let Ok((_, peer)) = socket.recv_from(&mut [0; 1000]) {
                    socket.send_to(&[0; 500], peer).unwrap();
                }
            }
        }
        let flows = |pool: &PoolEntry| {
            let stats = pool.service.stats;
            stats.connections_per_second > 0
                && stats.packets_in_per_second > 0
                && stats.packets_out_per_second > 0
                && stats.bytes_in_per_second > stats.bytes_out_per_second
                && stats.bytes_out_per_second > 0
        };
        assert_same_view(&mut client, Columns::Rates, "--rate", flows);
    });
}

/// `ipvsadm` cannot ask for it, but shows it: the server is the virtual address itself.
#[test]
fn a_local_destination_is_served_by_the_node_itself() {
    in_new_namespace(|mut client| {
        addresses();
        let id = ServiceId::tcp([10, 0, 0, 1], 80);
        client.add_service(Service::new(id, Scheduler::RR)).unwrap();
        let local = DestinationId::new([10, 0, 0, 1], 80);
        let local = Destination::new(local, Forward::Local);
        client.add_destination(id, local).unwrap();
        assert_eq!(client.destinations(&id).unwrap()[0].destination, local);
        let shown = run("ipvsadm", "-Ln");
        let line = shown
            .lines()
            .find(|line| line.contains("->  10.0.0.1:80") || line.contains("-> 10.0.0.1:80"));
        assert!(line.is_some_and(|line| line.contains(" Local ")), "{shown}");
        let listener = std::net::TcpListener::bind("10.0.0.1:80").unwrap();
        let mut open = TcpStream::connect("10.0.0.1:80").unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        open.write_all(b"ping").unwrap();
        accepted.read_exact(&mut [0; 4]).unwrap();
        let read = assert_same_connections(1);
        assert!(read[0].belongs_to(&id, &local.id));
    });
}
