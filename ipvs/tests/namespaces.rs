//! Namespaces, traffic, settings, large tables. Needs root and `ip_vs`.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;

use common::{in_new_namespace, run, saved, this_namespace};
use ipvs::{
    Client, Destination, DestinationId, Forward, Operation, Pool, Scheduler, Service, ServiceId,
    Sysctl, SysctlError, plan, set_sysctls_in,
};
use nix::sched::{CloneFlags, unshare};

fn service(port: u16) -> Service {
    Service::new(ServiceId::tcp([10, 0, 0, 1], port), Scheduler::WRR)
}

fn destination(a: u8, b: u8) -> Destination {
    Destination::new(DestinationId::new([10, 1, a, b], 80), Forward::Masquerade)
}

#[test]
fn a_socket_stays_in_the_namespace_where_it_was_opened() {
    in_new_namespace(|mut inside| {
        let namespace = this_namespace();
        let outside = thread::scope(|scope| {
            let visitor = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                let mut client = Client::open_in(namespace.as_fd()).unwrap();
                client.add_service(service(80)).unwrap();
                assert_eq!(client.services().unwrap().len(), 1);
                // The thread itself never left its own namespace.
                assert_eq!(saved(), [""; 0]);
                assert_eq!(Client::open().unwrap().services().unwrap(), []);
                client
            });
            visitor.join().unwrap()
        });
        assert_eq!(saved(), ["-A -t 10.0.0.1:80 -s wrr"]);
        assert_eq!(inside.services().unwrap().len(), 1);
        drop(outside);
        assert_eq!(inside.services().unwrap().len(), 1);

        let no_namespace = std::fs::File::open("/proc/version").unwrap();
        let error = Client::open_in(no_namespace.as_fd()).unwrap_err();
        assert!(
            matches!(error, ipvs::IpvsError::Namespace { .. }),
            "{error}"
        );
    });
}

#[test]
fn traffic_is_counted_and_zeroed() {
    in_new_namespace(|mut client| {
        run("ip", "addr add 10.0.0.1/32 dev lo");
        run("ip", "addr add 10.0.0.2/32 dev lo");
        let server = TcpListener::bind("10.0.0.2:8080").unwrap();
        let id = service(80).id;
        let backend = DestinationId::new([10, 0, 0, 2], 8080);
        client.add_service(service(80)).unwrap();
        client
            .add_destination(id, Destination::new(backend, Forward::Masquerade))
            .unwrap();

        let mut connection = TcpStream::connect("10.0.0.1:80").unwrap();
        let (mut accepted, _) = server.accept().unwrap();
        connection.write_all(b"ping").unwrap();
        accepted.read_exact(&mut [0; 4]).unwrap();

        let entry = client.destinations(&id).unwrap()[0];
        assert_eq!(entry.active_connections, 1);
        for stats in [entry.stats, client.service(&id).unwrap().stats] {
            assert!(stats.wide);
            assert_eq!(stats.connections, 1);
            assert!(
                stats.packets_in >= 3 && stats.bytes_in > 4 * stats.packets_in,
                "{stats:?}"
            );
        }
        let exact = run("ipvsadm", "-Ln --exact --stats");
        let line = exact.lines().find(|l| l.contains("10.0.0.2:8080")).unwrap();
        assert_eq!(line.split_whitespace().nth(2), Some("1"), "{exact}");

        client.zero_service(id).unwrap();
        assert_eq!(client.destinations(&id).unwrap()[0].stats.connections, 0);
        drop(TcpStream::connect("10.0.0.1:80").unwrap());
        assert_eq!(client.service(&id).unwrap().stats.connections, 1);
        client.zero().unwrap();
        assert_eq!(client.service(&id).unwrap().stats.connections, 0);
    });
}

#[test]
fn settings_of_a_namespace() {
    in_new_namespace(|_client| {
        let namespace = this_namespace();
        thread::scope(|scope| {
            scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                let values = [(Sysctl::Conntrack, 1), (Sysctl::ExpireNodestConn, 1)];
                set_sysctls_in(namespace.as_fd(), &values).unwrap();
                Sysctl::SloppyTcp.set_in(namespace.as_fd(), 1).unwrap();
                assert_eq!(Sysctl::Conntrack.get_in(namespace.as_fd()).unwrap(), 1);
                assert_eq!(Sysctl::Conntrack.get().unwrap(), 0);
            });
        });
        for name in ["conntrack", "expire_nodest_conn", "sloppy_tcp"] {
            let said = run(
                "cat",
                &format!("/proc/thread-self/net/../../../sys/net/ipv4/vs/{name}"),
            );
            assert_eq!(said, "1\n", "{name}");
        }
        // All but the newest are in every kernel from 5.16 on.
        for sysctl in Sysctl::ALL {
            sysctl.get().unwrap_or_else(|error| panic!("{error}"));
        }
        let error = Sysctl::SyncRetries.set(99).unwrap_err();
        assert!(
            matches!(
                error,
                SysctlError::Io {
                    value: Some(99),
                    ..
                }
            ),
            "{error}"
        );
        assert!(
            error.to_string().contains("net.ipv4.vs.sync_retries = 99"),
            "{error}"
        );
    });
}

#[test]
fn large_tables() {
    in_new_namespace(|mut client| {
        let mut desired: Vec<Pool> = (1..=300)
            .map(|port| Pool {
                service: service(port),
                destinations: vec![destination(0, 1)],
            })
            .collect();
        // A list of destinations that takes several parts.
        desired[0].destinations = (0..5)
            .flat_map(|a| (1..=200).map(move |b| destination(a, b)))
            .collect();

        client.apply(&plan(&[], &desired)).unwrap();
        assert_eq!(saved().len(), 300 + 1000 + 299);
        let current = client.pools().unwrap();
        assert_eq!(current.len(), 300);
        assert_eq!(plan(&current, &desired), []);

        // One weight is one operation, and keeps the rest.
        desired[0].destinations[500].weight = 9;
        let operations = plan(&current, &desired);
        let changed = desired[0].destinations[500];
        assert_eq!(
            operations,
            [Operation::SetDestination(service(1).id, changed)]
        );
        client.apply(&operations).unwrap();
        assert_eq!(plan(&client.pools().unwrap(), &desired), []);

        let removal = plan(&client.pools().unwrap(), &[]);
        client.apply(&removal).unwrap();
        assert_eq!(saved(), [""; 0]);
    });
}
