//! What Linux 6.1 answers, captured with `nlmon` on x86-64, against what this crate reads; and the
//! questions of `ipvsadm` 1.31. Each capture is the bytes after both message headers.
#![cfg(target_endian = "little")]

use std::net::Ipv6Addr;
use std::num::NonZeroU32;

use crate::wire::message::{Body, Messages};
use crate::wire::{decode, encode};
use crate::{
    Destination, DestinationId, Family, Forward, Name, Netmask, Scheduler, Service, ServiceFlags,
    ServiceId, Stats, SyncDaemon, SyncRole, Timeouts, Tunnel, TunnelFlags,
};

/// The request for the destinations of TCP 10.0.0.1:80 of `ipvsadm -Ln`
const LIST_TCP: &str = "\
    3000018006000100020000000600020006000000140003000a000001000000000000000000000000\
    0600040000500000";

/// The request for the destinations of FWM 9 IPv6 of `ipvsadm -Ln`
const LIST_MARK: &str = "\
    14000180060001000a0000000800050009000000";

/// The answer about the service of `ipvsadm -A -u [fd00::1]:5060 -s mh -b mh-port -p 60 -M 64 --pe sip`
const SERVICE_SIP: &str = "\
    34010100060001000a000000060002001100000014000300fd000000000000000000000000000001\
    0600040013c40000070006006d68000008000b00736970000c00070013000000ffffffff08000800\
    3c00000008000900400000005c000a00080001000000000008000200000000000800030000000000\
    0c00040000000000000000000c000500000000000000000008000600000000000800070000000000\
    0800080000000000080009000000000008000a00000000007c000c000c0001000000000000000000\
    0c00020000000000000000000c00030000000000000000000c00040000000000000000000c000500\
    00000000000000000c00060000000000000000000c00070000000000000000000c00080000000000\
    000000000c00090000000000000000000c000a000000000000000000";

/// The answer about the service of `ipvsadm -A -t 10.0.0.1:80 -s wlc -p 120 -M 255.255.0.0`
const SERVICE_TCP: &str = "\
    2c01010006000100020000000600020006000000140003000a000001000000000000000000000000\
    060004000050000008000600776c63000c00070003000000ffffffff080008007800000008000900\
    ffff00005c000a000800010000000000080002000000000008000300000000000c00040000000000\
    000000000c0005000000000000000000080006000000000008000700000000000800080000000000\
    080009000000000008000a00000000007c000c000c00010000000000000000000c00020000000000\
    000000000c00030000000000000000000c00040000000000000000000c0005000000000000000000\
    0c00060000000000000000000c00070000000000000000000c00080000000000000000000c000900\
    00000000000000000c000a000000000000000000";

/// The answer about the service of `ipvsadm -A -f 9 -6 -s rr`
const SERVICE_MARK: &str = "\
    10010100060001000a000000080005000900000007000600727200000c00070002000000ffffffff\
    080008000000000008000900800000005c000a000800010000000000080002000000000008000300\
    000000000c00040000000000000000000c0005000000000000000000080006000000000008000700\
    000000000800080000000000080009000000000008000a00000000007c000c000c00010000000000\
    000000000c00020000000000000000000c00030000000000000000000c0004000000000000000000\
    0c00050000000000000000000c00060000000000000000000c00070000000000000000000c000800\
    00000000000000000c00090000000000000000000c000a000000000000000000";

/// The answer about a destination: `-r 10.0.1.1:8080 -m -w 3 -x 50 -y 5`
const DESTINATION_MASQ: &str = "\
    50010200140001000a000101000000000000000000000000060002001f9000000800030000000000\
    080004000300000005000d000000000006000e000000000006000f00000000000800050032000000\
    080006000500000008000700000000000800080000000000080009000000000006000b0002000000\
    5c000a000800010000000000080002000000000008000300000000000c0004000000000000000000\
    0c000500000000000000000008000600000000000800070000000000080008000000000008000900\
    0000000008000a00000000007c000c000c00010000000000000000000c0002000000000000000000\
    0c00030000000000000000000c00040000000000000000000c00050000000000000000000c000600\
    00000000000000000c00070000000000000000000c00080000000000000000000c00090000000000\
    000000000c000a000000000000000000";

/// The answer about the destination of `ipvsadm -a -t 10.0.0.1:80 -r [fd00::8]:80 -i --tun-type gue --tun-port 6080 --tun-csum`
const DESTINATION_GUE: &str = "\
    5001020014000100fd00000000000000000000000000000806000200005000000800030002000000\
    080004000100000005000d000100000006000e0017c0000006000f00010000000800050000000000\
    080006000000000008000700000000000800080000000000080009000000000006000b000a000000\
    5c000a000800010000000000080002000000000008000300000000000c0004000000000000000000\
    0c000500000000000000000008000600000000000800070000000000080008000000000008000900\
    0000000008000a00000000007c000c000c00010000000000000000000c0002000000000000000000\
    0c00030000000000000000000c00040000000000000000000c00050000000000000000000c000600\
    00000000000000000c00070000000000000000000c00080000000000000000000c00090000000000\
    000000000c000a000000000000000000";

/// The answer about time-outs
const TIMEOUTS: &str = "\
    08000400850300000800050079000000080006002d010000";

/// The answer about the version
const INFO: &str = "\
    08000100010201000800020000100000";

/// The answer about `--start-daemon backup --mcast-interface under0 --syncid 255 --sync-maxlen 1100
/// --mcast-group 239.1.2.3 --mcast-port 9999 --mcast-ttl 7`
const DAEMON: &str = "\
    4000030008000100020000000b000200756e64657230000008000300ff000000060004004c040000\
    060007000f270000050008000700000008000500ef010203";

/// The answer about `--start-daemon master --mcast-interface under0 --mcast-group ff02::77`
const DAEMON_IPV6: &str = "\
    4c00030008000100010000000b000200756e646572300000080003000000000006000400ac050000\
    0600070090220000050008000100000014000600ff020000000000000000000000000077";

/// The beginning of the controller's answer about the family, which goes on with its commands.
const FAMILY: &str = "\
    0900020049505653000000000600010020000000080003000100000008000400000000000800050006000000";

pub(super) fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .bytes()
        .map(|b| char::from(b).to_digit(16).unwrap() as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// All captured answers about services and destinations.
pub(super) fn answers() -> Vec<Vec<u8>> {
    [
        SERVICE_SIP,
        SERVICE_TCP,
        SERVICE_MARK,
        DESTINATION_MASQ,
        DESTINATION_GUE,
        TIMEOUTS,
        DAEMON,
        DAEMON_IPV6,
        INFO,
        FAMILY,
    ]
    .map(bytes)
    .into()
}

fn v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)
}

fn tcp() -> Service {
    Service {
        flags: ServiceFlags::PERSISTENT,
        timeout: 120,
        netmask: Netmask::V4([255, 255, 0, 0].into()),
        ..Service::new(ServiceId::tcp([10, 0, 0, 1], 80), Scheduler::WLC)
    }
}

fn sip() -> Service {
    Service {
        flags: ServiceFlags::PERSISTENT | ServiceFlags::MH_PORT,
        timeout: 60,
        netmask: Netmask::V6(64),
        persistence_engine: Some(Name::new("sip").unwrap()),
        ..Service::new(ServiceId::udp(v6(1), 5060), Scheduler::MH)
    }
}

fn mark() -> Service {
    let id = ServiceId::mark(Family::V6, NonZeroU32::new(9).unwrap());
    Service::new(id, Scheduler::RR)
}

fn gue() -> Destination {
    let tunnel = Tunnel {
        flags: TunnelFlags::CHECKSUM,
        ..Tunnel::gue(6080)
    };
    Destination::new(DestinationId::new(v6(8), 80), Forward::Tunnel(tunnel))
}

fn masq() -> Destination {
    Destination {
        weight: 3,
        upper_threshold: 50,
        lower_threshold: 5,
        ..Destination::new(DestinationId::new([10, 0, 1, 1], 8080), Forward::Masquerade)
    }
}

#[test]
fn questions_are_sent_as_ipvsadm_sends_them() {
    for (service, captured) in [(tcp(), LIST_TCP), (mark(), LIST_MARK)] {
        let mut buf = Vec::new();
        encode::Query::Destinations(service.id).put(&mut buf, 0x20, 7);
        assert_eq!(
            buf[4..20],
            [0x20, 0, 1, 3, 7, 0, 0, 0, 0, 0, 0, 0, 8, 1, 0, 0]
        );
        assert_eq!(buf[20..], bytes(captured));
    }
    // One service is asked for by the same name, without a dump.
    for (service, captured) in [(tcp(), LIST_TCP), (mark(), LIST_MARK)] {
        let mut buf = Vec::new();
        encode::Query::Service(service.id).put(&mut buf, 0x20, 7);
        assert_eq!(buf[..4], (buf.len() as u32).to_ne_bytes());
        assert_eq!(
            buf[4..20],
            [0x20, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0]
        );
        assert_eq!(buf[20..], bytes(captured));
    }
    for (query, command, flags) in [
        (encode::Query::Services, 4, [1, 3]),
        (encode::Query::SyncDaemons, 11, [1, 3]),
        (encode::Query::Timeouts, 13, [1, 0]),
        (encode::Query::Info, 15, [1, 0]),
    ] {
        let mut buf = Vec::new();
        query.put(&mut buf, 0x20, 7);
        assert_eq!(buf[6..8], flags, "{query}");
        assert_eq!(buf[16..], [command, 1, 0, 0], "{query}");
    }
    let mut buf = Vec::new();
    encode::put_family_query(&mut buf, 0);
    assert_eq!(
        buf[16..],
        [3, 1, 0, 0, 9, 0, 2, 0, b'I', b'P', b'V', b'S', 0, 0, 0, 0]
    );
}

#[test]
fn answers_are_read() {
    for (captured, service) in [
        (SERVICE_TCP, tcp()),
        (SERVICE_SIP, sip()),
        (SERVICE_MARK, mark()),
    ] {
        let entry = decode::service(&bytes(captured)).unwrap();
        assert_eq!(entry.service, service);
        assert_eq!(
            entry.stats,
            Stats {
                wide: true,
                ..Stats::default()
            }
        );
    }
    for (captured, destination) in [(DESTINATION_MASQ, masq()), (DESTINATION_GUE, gue())] {
        let entry = decode::destination(&bytes(captured), Family::V4).unwrap();
        assert_eq!(entry.destination, destination);
        assert_eq!(entry.active_connections, 0);
        assert!(entry.stats.wide);
    }
    let timeouts = decode::timeouts(&bytes(TIMEOUTS)).unwrap();
    assert_eq!(
        timeouts,
        Timeouts {
            tcp: Some(901),
            tcp_fin: Some(121),
            udp: Some(301)
        }
    );
    let daemon = SyncDaemon {
        sync_id: 255,
        max_length: 1100,
        group: Some([239, 1, 2, 3].into()),
        port: 9999,
        ttl: 7,
        ..SyncDaemon::new(SyncRole::Backup, Name::new("under0").unwrap())
    };
    assert_eq!(decode::sync_daemon(&bytes(DAEMON)), Ok(daemon));
    let daemon = SyncDaemon {
        role: SyncRole::Master,
        sync_id: 0,
        max_length: 1452,
        group: Some("ff02::77".parse().unwrap()),
        port: 8848,
        ttl: 1,
        ..daemon
    };
    assert_eq!(decode::sync_daemon(&bytes(DAEMON_IPV6)), Ok(daemon));
    assert_eq!(decode::family_id(&bytes(FAMILY)), Ok(0x20));
    let info = decode::info(&bytes(INFO)).unwrap();
    assert_eq!(
        (info.version, info.connection_table_size),
        ((1, 2, 1), 4096)
    );
}

/// The answer to `ipvsadm -Ln` about all services, headers and all: one datagram of three parts, and
/// one that ends the list. They were added by `-A -t 10.0.0.1:80 -s wlc -p 120 -M 255.255.0.0`,
/// `-A -u 10.0.0.1:53 -s rr -o` and `-A -f 7 -s sh`.
const DUMP: &[u8] = include_bytes!("fixtures/dump");

#[test]
fn a_list_of_many_parts_is_read_to_its_end() {
    let (parts, end) = DUMP.split_at(932);
    let read: Vec<_> = Messages::new(parts, 0x20).map(|m| m.unwrap()).collect();
    let services: Vec<Service> = read
        .iter()
        .map(|message| match &message.body {
            Body::Content(content) => decode::service(content).unwrap().service,
            other => panic!("{other:?}"),
        })
        .collect();
    let dns = Service {
        flags: ServiceFlags::ONE_PACKET,
        ..Service::new(ServiceId::udp([10, 0, 0, 1], 53), Scheduler::RR)
    };
    let seven = ServiceId::mark(Family::V4, NonZeroU32::new(7).unwrap());
    // In the order of the kernel's hash table.
    assert_eq!(services, [dns, tcp(), Service::new(seven, Scheduler::SH)]);
    let ends: Vec<_> = Messages::new(end, 0x20).map(|m| m.unwrap()).collect();
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].body, Body::Done);
    let all = read.iter().chain(&ends);
    assert!(
        all.clone()
            .all(|m| !m.interrupted && m.sequence == ends[0].sequence)
    );
    // Wherever it is cut, it is an error or less, and nothing is read twice.
    for length in 0..DUMP.len() {
        let cut = Messages::new(&DUMP[..length], 0x20);
        assert!(cut.filter(|m| m.is_ok()).count() <= 3, "{length}");
    }
}

/// A kernel before 4.1 sends its counters in 32 bits alone, but for the bytes. Each has its own value.
#[test]
fn counters_of_32_bits_are_read() {
    let head = bytes(SERVICE_TCP);
    let wide = head.len() - 0x7c;
    let narrow = wide - 0x5c;
    assert_eq!(head[narrow..narrow + 4], [0x5c, 0, 10, 0]);
    assert_eq!(head[wide..wide + 4], [0x7c, 0, 12, 0]);
    let mut old = head[..narrow + 4].to_vec();
    for kind in 1..=10_u8 {
        let value = 0xf000_0000 + u32::from(kind);
        if [4, 5].contains(&kind) {
            old.extend([12, 0, kind, 0]);
            old.extend((u64::from(value) << 8).to_ne_bytes());
        } else {
            old.extend([8, 0, kind, 0]);
            old.extend(value.to_ne_bytes());
        }
    }
    assert_eq!(old.len(), wide);
    let outer = old.len() as u16;
    old[..2].copy_from_slice(&outer.to_ne_bytes());
    let entry = decode::service(&old).unwrap();
    assert_eq!(entry.service, tcp());
    let expected = Stats {
        wide: false,
        connections: 0xf000_0001,
        packets_in: 0xf000_0002,
        packets_out: 0xf000_0003,
        bytes_in: 0xf0_0000_0400,
        bytes_out: 0xf0_0000_0500,
        connections_per_second: 0xf000_0006,
        packets_in_per_second: 0xf000_0007,
        packets_out_per_second: 0xf000_0008,
        bytes_in_per_second: 0xf000_0009,
        bytes_out_per_second: 0xf000_000a,
    };
    assert_eq!(entry.stats, expected);
}

#[test]
fn refusals_are_read_with_the_kernels_words() {
    // The answer to `ipvsadm -D -t 10.0.0.9:99`: ESRCH, with a copy of the request.
    let mut plain =
        bytes("7c000000020000000200000005000000fdffffff6800000020000500020000000500000003010000");
    plain.resize(0x7c, 0);
    // As a kernel with extended acknowledgements answers a bad attribute: EINVAL, the header of the
    // request only, attributes.
    let text = b"Attribute failed policy validation\0";
    let mut capped = vec![0, 0, 0, 0, 2, 0, 0, 3, 3, 0, 0, 0, 5, 0, 0, 0];
    capped.extend((-libc::EINVAL).to_ne_bytes());
    capped.extend([0x68, 0, 0, 0, 0x20, 0, 5, 0, 3, 0, 0, 0, 5, 0, 0, 0]);
    capped.extend([8, 0, 2, 0, 0x14, 0, 0, 0]);
    capped.extend([4 + text.len() as u8, 0, 1, 0]);
    capped.extend(text);
    capped.push(0);
    capped[0] = capped.len() as u8;
    let ack = bytes("240000000200000104000000050000000000000014000000200005000400000005000000");

    let datagram = [plain, capped, ack].concat();
    let read: Vec<_> = Messages::new(&datagram, 0x20).map(|m| m.unwrap()).collect();
    assert_eq!(
        read.iter().map(|m| m.sequence).collect::<Vec<_>>(),
        [2, 3, 4]
    );
    assert_eq!(
        read[0].body,
        Body::Error {
            errno: libc::ESRCH,
            text: None
        }
    );
    let text = Some("Attribute failed policy validation".to_owned());
    assert_eq!(
        read[1].body,
        Body::Error {
            errno: libc::EINVAL,
            text
        }
    );
    assert_eq!(read[2].body, Body::Ack);
}
