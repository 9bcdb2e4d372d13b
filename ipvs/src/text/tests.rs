use super::*;
use crate::testing::Random;
use crate::{
    Destination, DestinationId, Family, Forward, Netmask, Operation, Pool, PoolEntry, Scheduler,
    Service, ServiceEntry, ServiceFlags, ServiceId, Stats, SyncDaemon, SyncRole, Timeouts, Tunnel,
    TunnelFlags, TunnelKind, plan,
};

/// What a line says, or why it says nothing.
fn one(line: &str) -> Result<Operation, String> {
    match parse(line) {
        Ok(operations) => match operations[..] {
            [operation] => Ok(operation),
            _ => panic!("{line}: {operations:?}"),
        },
        Err(error) => {
            assert_eq!(error.line, 1);
            Err(error.problem.to_string())
        }
    }
}

fn mark(family: Family, mark: u32) -> ServiceId {
    ServiceId::mark(family, mark.try_into().unwrap())
}

#[test]
fn reads_short_long_joined_and_split_options() {
    let service = Service {
        flags: ServiceFlags::PERSISTENT,
        timeout: 300,
        netmask: Netmask::V4([255, 255, 255, 0].into()),
        ..Service::new(ServiceId::tcp([10, 0, 0, 1], 80), Scheduler::RR)
    };
    for line in [
        "-A -t 10.0.0.1:80 -s rr -p 300 -M 255.255.255.0",
        "-At 10.0.0.1:80 -srr -p300 -M=255.255.255.0",
        "ipvsadm -A -p 300 -s rr -M 255.255.255.0 -t 10.0.0.1:80 # as it was",
        "\t--add-service  --tcp-service=10.0.0.1:80 --scheduler rr --persistent 300 \
         --netmask=255.255.255.0\r",
    ] {
        assert_eq!(one(line), Ok(Operation::AddService(service)), "{line}");
    }
    let text = "\n# nothing\n   \n-C\n\n-Z\n";
    assert_eq!(parse(text).unwrap(), [Operation::Flush, Operation::ZeroAll]);
}

#[test]
fn what_is_left_out_is_as_for_ipvsadm() {
    let id = ServiceId::tcp([10, 0, 0, 1], 80);
    let sticky = Service {
        flags: ServiceFlags::PERSISTENT,
        timeout: 360,
        ..Service::new(id, Scheduler::WLC)
    };
    assert_eq!(
        one("-E -t 10.0.0.1:80 -p"),
        Ok(Operation::SetService(sticky))
    );
    // The next word is an option, so it is no time.
    assert_eq!(
        one("-E -t 10.0.0.1:80 -p -s wlc"),
        Ok(Operation::SetService(sticky))
    );
    let server = DestinationId::new([10, 0, 1, 1], 80);
    let route = Destination::new(server, Forward::Route);
    // Without a port it is the service's.
    assert_eq!(
        one("-a -t 10.0.0.1:80 -r 10.0.1.1"),
        Ok(Operation::AddDestination(id, route))
    );
    let masquerade = Destination {
        id: DestinationId::new([10, 0, 1, 1], 8080),
        ..Destination::new(server, Forward::Masquerade)
    };
    assert_eq!(
        one("-e -t 10.0.0.1:80 -r 10.0.1.1:8080 -m"),
        Ok(Operation::SetDestination(id, masquerade))
    );
    assert_eq!(
        one("-d -f 7 -6 -r [fd00::1]"),
        Ok(Operation::DeleteDestination(
            mark(Family::V6, 7),
            DestinationId::new([0xfd00, 0, 0, 0, 0, 0, 0, 1], 0)
        ))
    );
    assert_eq!(
        one("--start-daemon backup"),
        Ok(Operation::StartSync(SyncDaemon::new(
            SyncRole::Backup,
            "eth0".parse().unwrap()
        )))
    );
    assert_eq!(
        one("--set 900 0 300"),
        Ok(Operation::SetTimeouts(Timeouts {
            tcp: Some(900),
            tcp_fin: Some(0),
            udp: Some(300)
        }))
    );
}

#[test]
fn what_cannot_be_read_is_named() {
    for (line, problem) in [
        (
            "-t 10.0.0.1:80",
            "a line begins with a command, as -A or -a",
        ),
        ("junk", "a line begins with a command, as -A or -a"),
        (
            "-A -D -t 10.0.0.1:80",
            "-D is a second command, or does not stand first",
        ),
        (
            "-t 10.0.0.1:80 -A",
            "-A is a second command, or does not stand first",
        ),
        ("-L -n", "-L does not take -n"),
        ("-S", "-S changes nothing, so it means nothing here"),
        ("-A -q", "\"-q\" is no option"),
        ("-A --tcp 10.0.0.1:80", "\"--tcp\" is no option"),
        ("-A -", "\"-\" is no option"),
        ("-A -ü", "\"-ü\" is no option"),
        ("-A -t 10.0.0.1:80 rr", "\"rr\" is not expected here"),
        (
            "-A -u 10.0.0.1:80 --ops=1",
            "\"--ops=1\" is not expected here",
        ),
        ("-A -t", "-t needs a value"),
        (
            "-A -s rr",
            "-A needs a service: -t, -u, --sctp-service or -f",
        ),
        ("-D", "-D needs a service: -t, -u, --sctp-service or -f"),
        ("-A -6 -s rr", "-A needs -f, to which -6 belongs"),
        ("-A -t 10.0.0.1:80 -6", "-6 cannot stand beside -t"),
        ("-A -t 10.0.0.1:80 -t 10.0.0.2:80", "-t is given twice"),
        (
            "-A -t 10.0.0.1:80 -u 10.0.0.1:80",
            "-u cannot stand beside -t",
        ),
        ("-A -t 10.0.0.1:80 -r 10.0.0.2:80", "-A does not take -r"),
        ("-a -t 10.0.0.1:80", "-a needs a server: -r"),
        (
            "-a -t 10.0.0.1:80 -r 10.0.0.2:80 -m -i",
            "-i cannot stand beside -m",
        ),
        (
            "-a -t 10.0.0.1:80 -r [fd00::1]:80 -m",
            "a server of the other address family needs tunnelling: -i",
        ),
        (
            "-a -t 10.0.0.1:80 -r 10.0.0.2:80 -m --tun-port 5",
            "-a needs -i, to which the options of tunnels belong",
        ),
        (
            "-a -t 10.0.0.1:80 -r 10.0.0.2:80 -i --tun-csum",
            "--tun-csum cannot stand beside this type of tunnel",
        ),
        (
            "-a -t 10.0.0.1:80 -r 10.0.0.2:80 -i --tun-type gue",
            "-a needs --tun-port for a tunnel of type gue",
        ),
        (
            "-a -t 10.0.0.1:80 -r 10.0.0.2:80 -i --tun-type gre --tun-csum --tun-nocsum",
            "--tun-nocsum cannot stand beside --tun-csum",
        ),
        (
            "-A -t 10.0.0.1",
            "a service on every port (port 0, or none) must be persistent: -p",
        ),
        ("-A -t 10.0.0.1:80 -o", "-o is for UDP services and marks"),
        (
            "--set 1 2",
            "--set needs three times: TCP, TCP after FIN, UDP",
        ),
        (
            "--set 1 2 3 4",
            "--set needs three times: TCP, TCP after FIN, UDP",
        ),
        (
            "--start-daemon slave",
            "--start-daemon \"slave\": master or backup is expected",
        ),
        ("--stop-daemon", "--stop-daemon needs a value"),
    ] {
        assert_eq!(one(line), Err(problem.to_owned()), "{line}");
    }
}

#[test]
fn values_that_do_not_fit_are_named() {
    let service = "-A -t 10.0.0.1:80";
    let server = "-a -t 10.0.0.1:80 -r 10.0.1.1:80 -m";
    for (line, option, value) in [
        ("-A", "-t", "10.0.0.1:65536"),
        ("-A", "-t", "10.0.0.1:-1"),
        ("-A", "-t", "10.0.0.1:http"),
        ("-A", "-t", "localhost:80"),
        ("-A", "-t", "80"),
        ("-A", "-t", ":80"),
        ("-A", "-u", "[fd00::1:53"),
        ("-A", "-u", "[fd00::1]53"),
        ("-A", "-u", "[10.0.0.1]:53"),
        ("-A", "--sctp-service", "[fd00::g]:53"),
        ("-A", "-f", "0"),
        ("-A", "-f", "4294967296"),
        ("-A", "-f", "0x7"),
        (service, "-s", "a-very-long-scheduler"),
        (service, "-p", "0"),
        (service, "-p", "4294968"),
        (service, "-M", "255.255.255"),
        (service, "-M", "24"),
        (service, "-b", "sh-port"),
        (service, "-b", ","),
        (server, "-w", "-1"),
        (server, "-w", "2147483648"),
        (server, "-w", "1.5"),
        (server, "-x", "x"),
        (server, "-y", "99999999999999999999"),
        ("-a -t 10.0.0.1:80 -r 10.0.1.1:80 -i", "--tun-type", "vxlan"),
        (
            "-a -t 10.0.0.1:80 -r 10.0.1.1:80 -i --tun-type gue",
            "--tun-port",
            "0",
        ),
        ("--start-daemon master", "--syncid", "256"),
        ("--start-daemon master", "--mcast-group", "10.0.0.1"),
        ("--start-daemon master", "--mcast-group", "fd00::1"),
        ("--start-daemon master", "--mcast-port", "0"),
        ("--start-daemon master", "--mcast-ttl", "0"),
        ("--start-daemon master", "--sync-maxlen", "65536"),
        (
            "--start-daemon master",
            "--mcast-interface",
            "a-far-too-long-name",
        ),
    ] {
        let text = format!("{line} {option} {value}");
        let problem = one(&text).unwrap_err();
        let start = format!("{option} {value:?}: ");
        assert!(problem.starts_with(&start), "{text}: {problem}");
        assert!(problem.ends_with(" is expected"), "{text}: {problem}");
    }
    let error = parse("-C\n\n-A -t 10.0.0.1:80 -M 1\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 3: -M \"1\": a mask, as 255.255.255.0, is expected"
    );
}

#[test]
fn marks_are_read_as_ipvsadm_saves_them() {
    let id = mark(Family::V4, u32::MAX);
    for text in ["-D -f 4294967295", "-D -f -1"] {
        assert_eq!(one(text), Ok(Operation::DeleteService(id)), "{text}");
    }
    assert!(one("-D -f -4294967295").is_err());
}

#[test]
fn lines_are_numbered() {
    let read = parse_lines("# two\n-C\n\n-Z\n").unwrap();
    assert_eq!(read, [(2, Operation::Flush), (4, Operation::ZeroAll)]);
}

#[test]
fn counters_are_told_in_units_or_in_full() {
    let mut service = ServiceEntry {
        service: Service::new(ServiceId::tcp([10, 0, 0, 1], 80), Scheduler::RR),
        stats: Stats::default(),
    };
    service.stats.connections = 99_999_999;
    service.stats.packets_in = 100_000_000;
    service.stats.packets_out = 1_000_000_000;
    service.stats.bytes_in = 100_000_000_000;
    service.stats.bytes_out = 100_000_000_000_000;
    let pools = [PoolEntry {
        service,
        destinations: Vec::new(),
    }];
    let table = Table::new(&pools).columns(Columns::Stats);
    let last = |table: Table<'_>| table.to_string().lines().last().unwrap().to_owned();
    assert_eq!(
        last(table),
        "TCP  10.0.0.1:80                  99999999  100000K    1000M     100G     100T"
    );
    assert_eq!(
        last(table.exact(true)),
        "TCP  10.0.0.1:80                  99999999 100000000 1000000000 100000000000 \
         100000000000000"
    );
}

#[test]
fn a_table_is_only_what_a_saved_one_is() {
    let add = "-A -t 10.0.0.1:80 -s rr\n";
    let server = "-a -t 10.0.0.1:80 -r 10.0.1.1:80 -m\n";
    let refused = |text: &str| parse_pools(text).unwrap_err().to_string();
    assert_eq!(
        refused(server),
        "line 1: service TCP 10.0.0.1:80 was not added before"
    );
    assert_eq!(
        refused(&[add, add].concat()),
        "line 2: service TCP 10.0.0.1:80 is added twice"
    );
    assert_eq!(
        refused(&[add, server, server].concat()),
        "line 3: server 10.0.1.1:80 of service TCP 10.0.0.1:80 is added twice"
    );
    assert_eq!(
        refused(&[add, "-C"].concat()),
        "line 2: -C is no part of a saved table, which has -A and -a only"
    );
    assert_eq!(parse_pools("").unwrap(), []);
}

/// Makes a value one that `ipvsadm`'s format can tell.
fn told(mut service: Service) -> Service {
    if let ServiceId::Address { protocol, port, .. } = &mut service.id {
        *port = (*port).max(1);
        if !["TCP", "UDP", "SCTP"].contains(&protocol.to_string().as_str()) {
            *protocol = crate::Protocol::UDP;
        }
    }
    let known = ServiceFlags::PERSISTENT
        | ServiceFlags::ONE_PACKET
        | ServiceFlags::SCHED1
        | ServiceFlags::SCHED2
        | ServiceFlags::SCHED3;
    service.flags = ServiceFlags::from_bits(service.flags.bits() & known.bits());
    let udp =
        matches!(service.id, ServiceId::Mark { .. }) || service.id.to_string().starts_with("UDP");
    if !udp {
        service.flags =
            ServiceFlags::from_bits(service.flags.bits() & !ServiceFlags::ONE_PACKET.bits());
    }
    if service.flags.contains(ServiceFlags::PERSISTENT) {
        service.timeout = service.timeout % 2_678_400 + 1;
    } else {
        service.timeout = 0;
    }
    service
}

fn told_destination(service: &ServiceId, mut destination: Destination) -> Destination {
    destination.weight &= 0x7fff_ffff;
    destination.upper_threshold &= 0x7fff_ffff;
    destination.lower_threshold &= 0x7fff_ffff;
    destination.forward = match destination.forward {
        Forward::Local | Forward::Bypass => Forward::Route,
        Forward::Tunnel(tunnel) => Forward::Tunnel(told_tunnel(tunnel)),
        other => other,
    };
    if service.family() != destination.id.family()
        && !matches!(destination.forward, Forward::Tunnel(_))
    {
        destination.forward = Forward::Tunnel(Tunnel::IPIP);
    }
    destination
}

fn told_tunnel(tunnel: Tunnel) -> Tunnel {
    let flags = [
        TunnelFlags::NONE,
        TunnelFlags::CHECKSUM,
        TunnelFlags::REMOTE_CHECKSUM,
    ];
    let flag = usize::from(tunnel.flags.bits() % 3);
    match tunnel.kind {
        TunnelKind::Ipip | TunnelKind::Other(_) => Tunnel::IPIP,
        TunnelKind::Gue => Tunnel {
            port: tunnel.port.max(1),
            flags: flags[flag],
            ..tunnel
        },
        TunnelKind::Gre => Tunnel {
            port: 0,
            flags: flags[flag % 2],
            ..tunnel
        },
    }
}

#[test]
fn what_is_written_reads_back_the_same() {
    let mut random = Random(5);
    for _ in 0..3000 {
        let service = told(random.service());
        let destination = told_destination(&service.id, random.destination());
        for operation in [
            Operation::AddService(service),
            Operation::SetService(service),
            Operation::DeleteService(service.id),
            Operation::ZeroService(service.id),
            Operation::AddDestination(service.id, destination),
            Operation::SetDestination(service.id, destination),
            Operation::DeleteDestination(service.id, destination.id),
        ] {
            let text = command(&operation);
            assert_eq!(one(&text), Ok(operation), "{text}");
        }
    }
    let daemon = SyncDaemon {
        sync_id: 255,
        max_length: 1400,
        group: Some([224, 0, 0, 99].into()),
        port: 9999,
        ttl: 3,
        ..SyncDaemon::new(SyncRole::Master, "under0".parse().unwrap())
    };
    for operation in [
        Operation::StartSync(daemon),
        Operation::StopSync(SyncRole::Master),
        Operation::Flush,
        Operation::ZeroAll,
    ] {
        assert_eq!(one(&command(&operation)), Ok(operation));
    }
}

#[test]
fn a_saved_table_is_restored_by_no_operation() {
    let mut random = Random(6);
    for _ in 0..300 {
        let mut pools = random.pools();
        let service = told(random.service());
        let destinations = (0..3)
            .map(|_| told_destination(&service.id, random.destination()))
            .collect();
        pools.push(Pool {
            service,
            destinations,
        });
        let saved = save(&pools);
        let read = parse_pools(&saved).unwrap();
        assert_eq!(plan(&pools, &read), [], "{saved}");
        assert_eq!(save(&read), saved);
    }
}

/// Damaged lines are refused or read, and stop nothing.
#[test]
fn no_text_whatever_stops_it() {
    let mut random = Random(7);
    let lines = [
        "-a -f 7 -6 -r [fd00::1]:80 -i -w 5 --tun-type gue --tun-port 9 --tun-csum -x 1",
        "-A -t 10.0.0.1:80 -s sh -b sh-port,sh-fallback -p 60 -M 255.255.0.0 --pe sip",
        "-E -u [fd00::1]:53 -s ipvsadm -o -M 64 --pe=#x",
        "--start-daemon master --mcast-interface eth1 --syncid 9 --mcast-group ff02::81 --mcast-ttl 2",
    ];
    for round in 0..20_000 {
        let mut bytes = lines[round % lines.len()].as_bytes().to_vec();
        for _ in 0..=random.below(4) {
            let place = random.below(bytes.len() as u64) as usize;
            match random.below(3) {
                0 => bytes[place] = random.next() as u8,
                1 => bytes.truncate(place + 1),
                _ => bytes.insert(place, random.pick(b"-= \n#:[]9")),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(operations) = parse(&text) {
            for operation in operations {
                assert_eq!(one(&command(&operation)), Ok(operation), "{text}");
            }
        }
        let _ = parse_pools(&text);
    }
}
