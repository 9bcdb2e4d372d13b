//! Every scheduler, flag and forwarding method, in both directions: what the crate sets, `ipvsadm`
//! shows, byte by byte as the crate's own tables show it; what either saves, the other restores.
//! Needs root and `ip_vs`.

mod common;

use std::fmt::Write as _;
use std::io::Write;
use std::net::Ipv6Addr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{in_new_namespace, run};
use ipvs::text::{Columns, Table, parse, parse_pools, save};
use ipvs::{
    Client, Destination, DestinationId, Family, Forward, Name, Netmask, Operation, Pool, Protocol,
    Scheduler, Service, ServiceFlags, ServiceId, Tunnel, TunnelFlags, TunnelKind, plan,
};

/// All schedulers of Linux 6.1; `twos` is not built by Debian.
const SCHEDULERS: [&str; 13] = [
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf",
];

fn v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)
}

/// The forwarding methods with their options. Only masquerading has a port of its own.
fn methods() -> Vec<Forward> {
    let with = |kind, port, flags| Forward::Tunnel(Tunnel { kind, port, flags });
    let mut methods = vec![
        Forward::Masquerade,
        Forward::Route,
        Forward::Tunnel(Tunnel::IPIP),
    ];
    for flags in [
        TunnelFlags::NONE,
        TunnelFlags::CHECKSUM,
        TunnelFlags::REMOTE_CHECKSUM,
    ] {
        methods.push(with(TunnelKind::Gue, 6080, flags));
    }
    for flags in [TunnelFlags::NONE, TunnelFlags::CHECKSUM] {
        methods.push(with(TunnelKind::Gre, 0, flags));
    }
    methods
}

/// Services of one family: each scheduler, each flag, each protocol, each way of persistence; with
/// each forwarding method, weights and thresholds.
fn pools(family: Family) -> Vec<Pool> {
    let address = |last: u16| match family {
        Family::V4 => std::net::IpAddr::from([10, 0, 1, last as u8]),
        Family::V6 => v6(last).into(),
    };
    let at = |protocol, port| ServiceId::Address {
        protocol,
        address: address(200),
        port,
    };
    let mark = |mark: u32| ServiceId::mark(family, mark.try_into().unwrap());
    let new = |id, scheduler: &str| Service::new(id, Scheduler::new(scheduler).unwrap());
    let wide = match family {
        Family::V4 => Netmask::V4([255, 255, 240, 0].into()),
        Family::V6 => Netmask::V6(48),
    };
    let sticky = |service: Service, timeout| Service {
        flags: service.flags | ServiceFlags::PERSISTENT,
        timeout,
        ..service
    };
    let flagged = |service: Service, flags| Service { flags, ..service };

    let mut services: Vec<Service> = (1..)
        .zip(SCHEDULERS)
        .map(|(port, scheduler)| new(at(Protocol::TCP, port), scheduler))
        .collect();
    let hash = [
        ServiceFlags::SCHED1,
        ServiceFlags::SCHED2,
        ServiceFlags::SCHED1 | ServiceFlags::SCHED2,
    ];
    for (port, flags) in (100..).zip(hash) {
        services.push(flagged(new(at(Protocol::TCP, port), "sh"), flags));
        services.push(flagged(new(at(Protocol::UDP, port), "mh"), flags));
        services.push(flagged(
            new(at(Protocol::SCTP, port), "rr"),
            flags | ServiceFlags::SCHED3,
        ));
    }
    services.extend([
        sticky(new(at(Protocol::TCP, 0), "wlc"), 360),
        sticky(new(at(Protocol::SCTP, 300), "wrr"), 1),
        Service {
            netmask: wide,
            ..sticky(new(at(Protocol::TCP, 301), "rr"), 86_400)
        },
        Service {
            persistence_engine: Some(Name::new("sip").unwrap()),
            ..sticky(new(at(Protocol::UDP, 5060), "sh"), 60)
        },
        flagged(new(at(Protocol::UDP, 53), "rr"), ServiceFlags::ONE_PACKET),
        new(mark(1), "wlc"),
        sticky(new(mark(2), "sh"), 10),
        flagged(new(mark(u32::MAX >> 1), "mh"), ServiceFlags::MH_PORT),
    ]);

    let methods = methods();
    let pools = (0u16..).zip(services).map(|(index, service)| {
        let port = match service.id {
            ServiceId::Address { port, .. } => port,
            ServiceId::Mark { .. } => 0,
        };
        // All methods in some services, so that the whole stays below what the kernel lists at once.
        let count = if index % 5 == 0 { methods.len() } else { 1 };
        let destinations = (0u16..).zip(&methods[..count]).map(|(place, forward)| {
            let masquerade = *forward == Forward::Masquerade;
            let port = if masquerade { 8000 + index } else { port };
            Destination {
                weight: [0, 1, 7, 65_535][usize::from((index + place) % 4)],
                upper_threshold: [0, 100, 5000][usize::from(place % 3)],
                lower_threshold: [0, 75, 0][usize::from(place % 3)],
                ..Destination::new(
                    DestinationId {
                        address: address(place + 1),
                        port,
                    },
                    *forward,
                )
            }
        });
        Pool {
            service,
            destinations: destinations.collect(),
        }
    });
    let mut pools: Vec<Pool> = pools.collect();
    // A tunnel to the other family; alone, as `ipvsadm` has no order for both.
    let other = match family {
        Family::V4 => DestinationId::new(v6(99), 2),
        Family::V6 => DestinationId::new([10, 0, 1, 99], 2),
    };
    let tunnel = Forward::Tunnel(Tunnel::gue(7000));
    pools[1].destinations = vec![Destination::new(other, tunnel)];
    pools
}

fn sorted(mut pools: Vec<Pool>) -> Vec<Pool> {
    pools.sort_by_key(|pool| pool.service.id);
    for pool in &mut pools {
        pool.destinations.sort_by_key(|destination| destination.id);
    }
    pools
}

/// Checks that `ipvsadm` says what the crate says, and names the first line that differs. While other
/// tests change their services, `ipvsadm` shows some twice or not at all, so it is asked again.
fn assert_shown(ours: &str, options: &str) {
    for _ in 0..50 {
        let theirs = run("ipvsadm", options);
        if ours == theirs {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let theirs = run("ipvsadm", options);
    let mut lines = ours.lines().zip(theirs.lines());
    let (our, their) = lines.find(|(a, b)| a != b).unwrap_or_default();
    let counts = (ours.lines().count(), theirs.lines().count());
    panic!("ipvsadm {options}: {their:?} instead of {our:?}, lines: {counts:?}");
}

/// What the crate shows for each way of looking, and what `ipvsadm` shows.
fn assert_same_tables(client: &mut Client) {
    for (columns, option) in [
        (Columns::Connections, ""),
        (Columns::Stats, "--stats"),
        (Columns::Rates, "--rate"),
        (Columns::Thresholds, "--thresholds"),
        (Columns::Persistence, "--persistent-conn"),
        (Columns::Tunnels, "--tun-info"),
    ] {
        for exact in [false, true] {
            let (info, entries) = (client.info().unwrap(), client.pool_entries().unwrap());
            let table = Table::new(&entries)
                .version(info)
                .columns(columns)
                .exact(exact);
            let exact = if exact { "--exact" } else { "" };
            assert_shown(&table.to_string(), &format!("-Ln {option} {exact}"));
        }
    }
}

/// Runs `ipvsadm -R`.
fn restore(text: &str) {
    let mut child = Command::new("ipvsadm")
        .arg("-R")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success(), "{text}");
}

fn every_setting(family: Family) {
    in_new_namespace(|mut client| {
        // See `Scheduler::LBLC`.
        run("modprobe", "-a ip_vs_lblc ip_vs_lblcr");
        let desired = sorted(pools(family));
        client.apply(&plan(&[], &desired)).unwrap();
        assert_eq!(sorted(client.pools().unwrap()), desired);
        assert_same_tables(&mut client);

        // What `ipvsadm` saves is what the crate saves, but for the thresholds, which it leaves out.
        let saved = save(&desired);
        let mut theirs = String::new();
        for line in saved.lines() {
            let end = line.find(" -x ").unwrap_or(line.len());
            writeln!(theirs, "{}", &line[..end]).unwrap();
        }
        assert_shown(&theirs, "-Sn");

        // Ours, restored by `ipvsadm`.
        client.flush().unwrap();
        restore(&saved);
        assert_eq!(sorted(client.pools().unwrap()), desired);
        assert_same_tables(&mut client);

        // Theirs, restored by us.
        client.flush().unwrap();
        let operations = parse(&theirs).unwrap();
        client.apply(&operations).unwrap();
        assert_shown(&theirs, "-Sn");

        // Ours, restored by us.
        client.apply(&[Operation::Flush]).unwrap();
        let read = parse_pools(&saved).unwrap();
        client.apply(&plan(&[], &read)).unwrap();
        assert_eq!(sorted(client.pools().unwrap()), desired);
        assert_eq!(plan(&client.pools().unwrap(), &read), []);
    });
}

#[test]
fn every_setting_of_ipv4_both_ways() {
    every_setting(Family::V4);
}

#[test]
fn every_setting_of_ipv6_both_ways() {
    every_setting(Family::V6);
}

#[test]
fn other_commands_do_what_they_do_for_ipvsadm() {
    in_new_namespace(|mut client| {
        let text = "\
            -A -t 10.0.0.1:80 -s rr\n\
            -a -t 10.0.0.1:80 -r 10.0.1.1:8080 -m\n\
            -a -t 10.0.0.1:80 -r 10.0.1.2 -w 4\n\
            -A -u [fd00::1]:53 -o\n\
            -A -f 3 -6 -s sh -b sh-port -p\n\
            -E -t 10.0.0.1:80 -s sh -p 5 -M 255.0.0.0\n\
            -e -t 10.0.0.1:80 -r 10.0.1.1:8080 -m -w 9 -x 3 -y 2\n\
            -d -t 10.0.0.1:80 -r 10.0.1.2:80\n\
            -D -u [fd00::1]:53\n\
            -Z -t 10.0.0.1:80\n\
            -Z\n\
            --set 1000 0 30\n";
        let state = |client: &mut Client| {
            let thresholds = run("ipvsadm", "-Ln --thresholds");
            let timeouts = run("ipvsadm", "-L --timeout");
            (sorted(client.pools().unwrap()), thresholds, timeouts)
        };
        client.apply(&parse(text).unwrap()).unwrap();
        let ours = state(&mut client);
        client
            .apply(&parse("-C\n--set 900 120 300").unwrap())
            .unwrap();
        assert_eq!(client.pools().unwrap(), []);
        restore(text);
        assert_eq!(state(&mut client), ours);
    });
}
