//! Reproducible random values for tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use crate::{
    Destination, DestinationId, Family, Forward, Name, Netmask, Pool, Protocol, Scheduler, Service,
    ServiceFlags, ServiceId, SyncDaemon, SyncRole, Tunnel, TunnelFlags, TunnelKind,
};

/// SplitMix64: small, and good enough to vary tests.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn address(&mut self, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::from_bits(self.next() as u32).into(),
            Family::V6 => {
                Ipv6Addr::from_bits(u128::from(self.next()) << 64 | u128::from(self.next())).into()
            }
        }
    }

    pub(crate) fn service(&mut self) -> Service {
        let family = self.pick(&[Family::V4, Family::V6]);
        let id = if self.below(3) == 0 {
            let mark = NonZeroU32::new(self.next() as u32).unwrap_or(NonZeroU32::MAX);
            ServiceId::Mark { family, mark }
        } else {
            ServiceId::Address {
                protocol: self.pick(&[Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol(99)]),
                address: self.address(family),
                port: self.next() as u16,
            }
        };
        Service {
            id,
            scheduler: self.pick(&[Scheduler::RR, Scheduler::new("abcdefghijklmno").unwrap()]),
            flags: ServiceFlags::from_bits(self.next() as u32),
            timeout: self.next() as u32,
            netmask: match family {
                Family::V4 => Netmask::V4(Ipv4Addr::from_bits(self.next() as u32)),
                Family::V6 => Netmask::V6(1 + self.below(128) as u8),
            },
            persistence_engine: self.pick(&[None, Some(Name::new("sip").unwrap())]),
        }
    }

    pub(crate) fn destination(&mut self) -> Destination {
        let family = self.pick(&[Family::V4, Family::V6]);
        let tunnel = Tunnel {
            kind: self.pick(&[TunnelKind::Ipip, TunnelKind::Gue, TunnelKind::Gre]),
            port: self.next() as u16,
            flags: TunnelFlags::from_bits(self.next() as u16),
        };
        Destination {
            id: DestinationId {
                address: self.address(family),
                port: self.next() as u16,
            },
            forward: self.pick(&[
                Forward::Masquerade,
                Forward::Local,
                Forward::Tunnel(tunnel),
                Forward::Tunnel(Tunnel::IPIP),
                Forward::Route,
                Forward::Bypass,
            ]),
            weight: self.next() as u32,
            upper_threshold: self.next() as u32,
            lower_threshold: self.next() as u32,
        }
    }

    pub(crate) fn sync_daemon(&mut self) -> SyncDaemon {
        let family = self.pick(&[Family::V4, Family::V6]);
        SyncDaemon {
            role: self.pick(&[SyncRole::Master, SyncRole::Backup]),
            interface: Name::constant(self.pick(&["eth0", "a", "fifteen-letters"])),
            sync_id: self.next() as u8,
            max_length: self.next() as u16,
            group: (self.below(2) == 0).then(|| self.address(family)),
            port: self.next() as u16,
            ttl: self.next() as u8,
        }
    }

    /// Pools from so small a choice that two sets of them have much in common.
    pub(crate) fn pools(&mut self) -> Vec<Pool> {
        let mut pools = Vec::new();
        for port in 1..=5 {
            if self.below(3) == 0 {
                continue;
            }
            let id = ServiceId::tcp([10, 0, 0, 1], port);
            let mut destinations = Vec::new();
            for last in 1..=5 {
                if self.below(2) == 0 {
                    let id = DestinationId::new([10, 0, 1, last], 80);
                    let weight = self.pick(&[0, 1, 1, 2]);
                    destinations.push(Destination {
                        weight,
                        ..Destination::new(id, Forward::Masquerade)
                    });
                }
            }
            let scheduler = self.pick(&[Scheduler::RR, Scheduler::WLC]);
            pools.push(Pool {
                service: Service::new(id, scheduler),
                destinations,
            });
        }
        pools
    }
}
