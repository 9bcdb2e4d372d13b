//! Namespaces, traffic, settings, large tables. Needs root and `ip_vs`.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use common::{in_new_namespace, run, saved, this_namespace};
use ipvs::{
    Client, Destination, DestinationId, Forward, Operation, Pool, Scheduler, Service, ServiceId,
    Stats, SysctlError, plan, sysctl,
    sysctl::{Defense, ReuseMode, SyncThreshold},
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

        assert_eq!(client.destinations(&id).unwrap()[0].active_connections, 1);
        let stats = wait_for_connections(&mut client, id, 1);
        assert!(stats.wide);
        assert!(
            stats.packets_in >= 3 && stats.bytes_in > 4 * stats.packets_in,
            "{stats:?}"
        );
        assert_eq!(client.destinations(&id).unwrap()[0].stats.connections, 1);
        let exact = run("ipvsadm", "-Ln --exact --stats");
        let line = exact.lines().find(|l| l.contains("10.0.0.2:8080")).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[2..4], ["1", &stats.packets_in.to_string()], "{exact}");

        client.zero_service(id).unwrap();
        assert_eq!(client.service(&id).unwrap().stats.connections, 0);
        drop(TcpStream::connect("10.0.0.1:80").unwrap());
        wait_for_connections(&mut client, id, 1);
        client.zero().unwrap();
        assert_eq!(client.service(&id).unwrap().stats.connections, 0);
    });
}

/// The kernel brings its counters up to date every two seconds.
fn wait_for_connections(client: &mut Client, id: ServiceId, wanted: u64) -> Stats {
    for _ in 0..300 {
        let stats = client.service(&id).unwrap().stats;
        if stats.connections == wanted {
            return stats;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{:?}", client.service(&id));
}

#[test]
fn settings_of_a_namespace() {
    in_new_namespace(|_client| {
        let namespace = this_namespace();
        thread::scope(|scope| {
            scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                let values = [
                    sysctl::CONNTRACK.to(true),
                    sysctl::EXPIRE_NODEST_CONN.to(true),
                ];
                sysctl::set_in(namespace.as_fd(), &values).unwrap();
                sysctl::SLOPPY_TCP.set_in(namespace.as_fd(), true).unwrap();
                assert!(sysctl::CONNTRACK.get_in(namespace.as_fd()).unwrap());
                assert!(!sysctl::CONNTRACK.get().unwrap());
            });
        });
        for name in ["conntrack", "expire_nodest_conn", "sloppy_tcp"] {
            let said = run("cat", &format!("/proc/sys/net/ipv4/vs/{name}"));
            assert_eq!(said, "1\n", "{name}");
        }
        // Everything that the kernel has is known, and reads as its type.
        let values = sysctl::get_all().unwrap();
        let mut known: Vec<_> = values.iter().map(|v| v.info().name()).collect();
        known.sort_unstable();
        let files = run("ls", "/proc/sys/net/ipv4/vs");
        assert_eq!(known, files.lines().collect::<Vec<_>>());
        // What was read can be written, and is then the same.
        for value in &values {
            sysctl::set_in(namespace.as_fd(), std::slice::from_ref(value))
                .unwrap_or_else(|error| panic!("{error}"));
        }
        assert_eq!(sysctl::get_all().unwrap(), values);
        sysctl::DROP_ENTRY.set(Defense::Always).unwrap();
        sysctl::CONN_REUSE_MODE.set(ReuseMode::Ending).unwrap();
        let threshold = SyncThreshold {
            first: 2,
            period: 20,
        };
        sysctl::SYNC_THRESHOLD.set(threshold).unwrap();
        assert_eq!(sysctl::SYNC_THRESHOLD.get().unwrap(), threshold);
        for (name, said) in [
            ("drop_entry", "3\n"),
            ("conn_reuse_mode", "3\n"),
            ("sync_threshold", "2\t20\n"),
        ] {
            assert_eq!(run("cat", &format!("/proc/sys/net/ipv4/vs/{name}")), said);
        }
        let error = sysctl::SYNC_RETRIES.set(99).unwrap_err();
        assert!(matches!(error, SysctlError::Io { .. }), "{error}");
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

#[test]
fn plans_lead_the_kernel_anywhere() {
    in_new_namespace(|mut client| {
        // A linear congruential generator, of which the upper bits are random enough.
        let mut state = 1u64;
        let mut below = |end: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % end
        };
        for round in 0..20 {
            let mut desired = Vec::new();
            for port in 1..=20 {
                if below(4) == 0 {
                    continue;
                }
                let scheduler = [Scheduler::RR, Scheduler::WRR, Scheduler::SH][below(3) as usize];
                let mut destinations = Vec::new();
                for last in 1..=8 {
                    let forward = [Forward::Masquerade, Forward::Route][below(2) as usize];
                    let weight = below(3) as u32;
                    if below(2) == 0 {
                        destinations.push(Destination {
                            weight,
                            forward,
                            ..destination(0, last)
                        });
                    }
                }
                desired.push(Pool {
                    service: Service {
                        scheduler,
                        ..service(port)
                    },
                    destinations,
                });
            }
            let operations = plan(&client.pools().unwrap(), &desired);
            client
                .apply(&operations)
                .unwrap_or_else(|error| panic!("round {round}: {error}"));

            let mut expected: Vec<String> = Vec::new();
            for pool in &desired {
                let id = pool.service.id.to_string().replace("TCP", "-t");
                expected.push(format!("-A {id} -s {}", pool.service.scheduler));
                for d in &pool.destinations {
                    let forward = if d.forward == Forward::Route {
                        "-g"
                    } else {
                        "-m"
                    };
                    expected.push(format!("-a {id} -r {} {forward} -w {}", d.id, d.weight));
                }
            }
            expected.sort();
            assert_eq!(saved(), expected, "round {round}");
        }
    });
}
