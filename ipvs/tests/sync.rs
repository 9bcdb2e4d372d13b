//! The synchronisation daemon. Needs root and `ip_vs`.

mod common;

use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::{in_new_namespace, run, this_namespace, visit};
use ipvs::sysctl::{self, SyncThreshold};
use ipvs::{
    Client, ConnectionState, ConnectionTable, Destination, DestinationId, Forward, IpvsError, Name,
    Scheduler, Service, ServiceId, SyncDaemon, SyncRole, Tunnel,
};

fn under0(role: SyncRole) -> SyncDaemon {
    SyncDaemon::new(role, Name::new("under0").unwrap())
}

/// The lines of `ipvsadm -L --daemon`, and the crate's.
fn assert_same(client: &mut Client, count: usize) {
    let shown = run("ipvsadm", "-L --daemon");
    let read = client.sync_daemons().unwrap();
    let lines: Vec<String> = read.iter().map(SyncDaemon::to_string).collect();
    assert_eq!(lines, shown.lines().collect::<Vec<_>>());
    assert_eq!(lines.len(), count);
}

#[test]
fn daemons_start_show_and_stop() {
    in_new_namespace(|mut client| {
        run("ip", "link add under0 type dummy");
        run("ip", "address add 192.0.2.1/24 dev under0");
        run("ip", "address add fd00::1/64 dev under0 nodad");
        run("ip", "link set under0 up");
        assert_same(&mut client, 0);

        // With the kernel's own settings, by us and by `ipvsadm`.
        client.start_sync_daemon(under0(SyncRole::Master)).unwrap();
        assert_same(&mut client, 1);
        let read = client.sync_daemons().unwrap()[0];
        assert_eq!(
            read,
            SyncDaemon {
                max_length: 1472,
                group: Some([224, 0, 0, 81].into()),
                port: 8848,
                ttl: 1,
                ..under0(SyncRole::Master)
            }
        );
        run(
            "ipvsadm",
            "--start-daemon backup --mcast-interface under0 --syncid 9",
        );
        assert_same(&mut client, 2);
        client.stop_sync_daemon(SyncRole::Backup).unwrap();
        run("ipvsadm", "--stop-daemon master");
        assert_same(&mut client, 0);

        // With every setting.
        let all = SyncDaemon {
            sync_id: 255,
            max_length: 1100,
            group: Some([239, 1, 2, 3].into()),
            port: 9999,
            ttl: 7,
            ..under0(SyncRole::Backup)
        };
        let six = SyncDaemon {
            role: SyncRole::Master,
            group: Some("ff02::77".parse().unwrap()),
            ..all
        };
        client.start_sync_daemon(all).unwrap();
        client.start_sync_daemon(six).unwrap();
        assert_same(&mut client, 2);
        let mut read = client.sync_daemons().unwrap();
        read.sort_by_key(|daemon| daemon.role);
        assert_eq!(read, [six, all]);

        // Bad requests, named.
        let error = client.start_sync_daemon(all).unwrap_err();
        let role = SyncRole::Backup;
        assert!(matches!(error, IpvsError::SyncRunning { role: r } if r == role));
        assert!(
            error.is_exists() && error.to_string().contains("backup"),
            "{error}"
        );
        client.stop_sync_daemon(role).unwrap();
        let error = client.stop_sync_daemon(role).unwrap_err();
        assert!(matches!(error, IpvsError::SyncNotRunning { role: r } if r == role));
        assert!(
            error.is_not_found() && error.to_string().contains("backup"),
            "{error}"
        );
        let nowhere = SyncDaemon::new(role, Name::new("nowhere0").unwrap());
        let error = client.start_sync_daemon(nowhere).unwrap_err();
        assert!(
            matches!(error, IpvsError::NoSuchInterface { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("nowhere0"), "{error}");

        // A destination of the other family cannot be told by the daemon, and the other way round.
        let id = ServiceId::tcp([10, 0, 0, 1], 80);
        let mixed = Destination::new(
            DestinationId::new("fd00::9".parse::<std::net::Ipv6Addr>().unwrap(), 80),
            Forward::Tunnel(Tunnel::IPIP),
        );
        client.add_service(Service::new(id, Scheduler::RR)).unwrap();
        let error = client.add_destination(id, mixed).unwrap_err();
        assert!(
            error.to_string().contains("a synchronisation daemon"),
            "{error}"
        );
        client.stop_sync_daemon(SyncRole::Master).unwrap();
        client.add_destination(id, mixed).unwrap();
        let error = client.start_sync_daemon(six).unwrap_err();
        assert!(
            error.to_string().contains("other address family"),
            "{error}"
        );
    });
}

#[test]
fn connections_reach_the_backup() {
    in_new_namespace(|mut master| {
        let primary = this_namespace();
        let tid = std::fs::read_link("/proc/thread-self").unwrap();
        let tid = tid.file_name().unwrap().to_str().unwrap().to_owned();
        in_new_namespace(|mut backup| {
            run(
                "ip",
                &format!("link add under0 type veth peer name under0 netns {tid}"),
            );
            run("ip", "address add 192.0.2.2/24 dev under0");
            run("ip", "link set under0 up");
            let threshold = SyncThreshold {
                first: 0,
                period: 1,
            };
            visit(&primary, || {
                run("ip", "address add 192.0.2.1/24 dev under0");
                run("ip", "link set under0 up");
                run("ip", "address add 10.0.0.1/32 dev lo");
                run("ip", "address add 10.0.0.2/32 dev lo");
                sysctl::SYNC_THRESHOLD.set(threshold).unwrap();
            });
            let id = ServiceId::tcp([10, 0, 0, 1], 80);
            let server =
                Destination::new(DestinationId::new([10, 0, 0, 2], 8080), Forward::Masquerade);
            for client in [&mut master, &mut backup] {
                client.add_service(Service::new(id, Scheduler::RR)).unwrap();
                client.add_destination(id, server).unwrap();
            }
            let same = |role| SyncDaemon {
                sync_id: 5,
                ..under0(role)
            };
            backup.start_sync_daemon(same(SyncRole::Backup)).unwrap();
            master.start_sync_daemon(same(SyncRole::Master)).unwrap();

            let (client, _accepted) = visit(&primary, || {
                let server = TcpListener::bind("10.0.0.2:8080").unwrap();
                let client = TcpStream::connect("10.0.0.1:80").unwrap();
                (client, server.accept().unwrap())
            });
            let mut table = ConnectionTable::open().unwrap();
            let end = Instant::now() + Duration::from_secs(120);
            let address = client.local_addr().unwrap();
            loop {
                // The master tells of a connection when packets of it pass.
                std::io::Write::write_all(&mut &client, b"more").unwrap();
                let found = table
                    .read()
                    .unwrap()
                    .map(Result::unwrap)
                    .find(|connection| connection.client == address);
                if let Some(found) = found {
                    assert!(found.belongs_to(&id, &server.id), "{found}");
                    assert_eq!(found.state, ConnectionState::ESTABLISHED);
                    break;
                }
                assert!(Instant::now() < end, "{:?}", table.count(|_| true));
                thread::sleep(Duration::from_millis(100));
            }
            // The master does not stop while its thread still sends.
            master.stop_sync_daemon(SyncRole::Master).unwrap();
            backup.stop_sync_daemon(SyncRole::Backup).unwrap();
        });
    });
}
