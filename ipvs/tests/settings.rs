//! What the crate sets, `ipvsadm` reads, and the other way round. Needs root and `ip_vs`.

mod common;

use std::net::Ipv6Addr;
use std::num::NonZeroU32;

use common::{in_new_namespace, run, saved};
use ipvs::{
    Client, Destination, DestinationId, Family, Forward, IpvsError, Name, Netmask, Scheduler,
    Service, ServiceFlags, ServiceId, Timeouts, Tunnel, TunnelFlags, TunnelKind,
};

fn mark(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

#[test]
fn without_ip_vs_the_error_names_module_and_option() {
    match Client::open() {
        Ok(mut client) => assert_eq!(client.info().unwrap().version.0, 1),
        Err(error @ IpvsError::NotAvailable) => {
            let text = error.to_string();
            assert!(
                text.contains("`ip_vs`") && text.contains("CONFIG_IP_VS"),
                "{text}"
            );
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn services_of_every_kind() {
    in_new_namespace(|mut client| {
        let services = [
            Service::new(ServiceId::tcp([10, 0, 0, 1], 80), Scheduler::RR),
            Service {
                flags: ServiceFlags::PERSISTENT | ServiceFlags::SH_PORT | ServiceFlags::SH_FALLBACK,
                timeout: 300,
                netmask: Netmask::V4([255, 255, 255, 0].into()),
                ..Service::new(ServiceId::tcp([10, 0, 0, 1], 443), Scheduler::SH)
            },
            Service {
                flags: ServiceFlags::ONE_PACKET,
                ..Service::new(ServiceId::udp([10, 0, 0, 1], 53), Scheduler::WLC)
            },
            Service::new(ServiceId::sctp(v6("fd00::1"), 9), Scheduler::LC),
            Service {
                flags: ServiceFlags::PERSISTENT,
                timeout: 60,
                netmask: Netmask::V6(64),
                ..Service::new(ServiceId::udp(v6("fd00::1"), 53), Scheduler::RR)
            },
            Service {
                flags: ServiceFlags::PERSISTENT,
                timeout: 7,
                persistence_engine: Some(Name::new("sip").unwrap()),
                ..Service::new(ServiceId::udp([10, 0, 0, 1], 5060), Scheduler::RR)
            },
            Service::new(ServiceId::mark(Family::V4, mark(7)), Scheduler::WRR),
            Service::new(
                ServiceId::mark(Family::V6, mark(0x7fff_ffff)),
                Scheduler::MH,
            ),
        ];
        for service in services {
            client.add_service(service).unwrap();
        }

        assert_eq!(
            saved(),
            [
                "-A --sctp-service [fd00::1]:9 -s lc",
                "-A -f 2147483647 -6 -s mh",
                "-A -f 7 -s wrr",
                "-A -t 10.0.0.1:443 -s sh -p 300 -M 255.255.255.0 -b sh-fallback,sh-port",
                "-A -t 10.0.0.1:80 -s rr",
                "-A -u 10.0.0.1:5060 -s rr -p 7 --pe sip",
                "-A -u 10.0.0.1:53 -s wlc -o",
                "-A -u [fd00::1]:53 -s rr -p 60 -M 64",
            ]
        );

        let listed = client.services().unwrap();
        assert_eq!(listed.len(), services.len());
        for service in services {
            assert_eq!(client.service(&service.id).unwrap().service, service);
            assert!(
                listed.iter().any(|entry| entry.service == service),
                "{}",
                service.id
            );
            assert_eq!(client.destinations(&service.id).unwrap(), []);
        }

        let changed = Service {
            scheduler: Scheduler::WRR,
            flags: ServiceFlags::NONE,
            ..services[1]
        };
        client.set_service(changed).unwrap();
        assert_eq!(client.service(&changed.id).unwrap().service, changed);
        assert!(
            saved().contains(&"-A -t 10.0.0.1:443 -s wrr".to_owned()),
            "{:#?}",
            saved()
        );

        client.delete_service(changed.id).unwrap();
        assert!(client.service(&changed.id).unwrap_err().is_not_found());
        client.flush().unwrap();
        assert_eq!(client.services().unwrap(), []);
        assert_eq!(saved(), [""; 0]);
    });
}

#[test]
fn destinations_of_every_kind() {
    in_new_namespace(|mut client| {
        let id = ServiceId::tcp([10, 0, 0, 1], 80);
        client
            .add_service(Service::new(id, Scheduler::WRR))
            .unwrap();
        let gue = Tunnel {
            flags: TunnelFlags::CHECKSUM,
            ..Tunnel::gue(6080)
        };
        let remote = Tunnel {
            flags: TunnelFlags::REMOTE_CHECKSUM,
            ..Tunnel::gue(6081)
        };
        let gre = Tunnel {
            kind: TunnelKind::Gre,
            port: 0,
            flags: TunnelFlags::CHECKSUM,
        };
        let at = |last| DestinationId::new([10, 0, 1, last], 80);
        let destinations = [
            Destination {
                weight: 0,
                ..Destination::new(DestinationId::new([10, 0, 1, 1], 8080), Forward::Masquerade)
            },
            Destination {
                weight: 65535,
                ..Destination::new(at(2), Forward::Route)
            },
            Destination {
                upper_threshold: 100,
                lower_threshold: 10,
                ..Destination::new(at(3), Forward::Tunnel(Tunnel::IPIP))
            },
            Destination::new(at(4), Forward::Tunnel(gue)),
            Destination::new(at(5), Forward::Tunnel(remote)),
            Destination::new(at(6), Forward::Tunnel(gre)),
            Destination::new(at(7), Forward::Tunnel(Tunnel::GRE)),
            Destination::new(
                DestinationId::new(v6("fd00::8"), 80),
                Forward::Tunnel(Tunnel::IPIP),
            ),
        ];
        for destination in destinations {
            client.add_destination(id, destination).unwrap();
        }

        let lines = saved();
        for line in [
            "-a -t 10.0.0.1:80 -r 10.0.1.1:8080 -m -w 0",
            "-a -t 10.0.0.1:80 -r 10.0.1.2:80 -g -w 65535",
            "-a -t 10.0.0.1:80 -r 10.0.1.3:80 -i -w 1 --tun-type ipip",
            "-a -t 10.0.0.1:80 -r 10.0.1.4:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-csum",
            "-a -t 10.0.0.1:80 -r 10.0.1.5:80 -i -w 1 --tun-type gue --tun-port 6081 --tun-remcsum",
            "-a -t 10.0.0.1:80 -r 10.0.1.6:80 -i -w 1 --tun-type gre --tun-csum",
            "-a -t 10.0.0.1:80 -r 10.0.1.7:80 -i -w 1 --tun-type gre --tun-nocsum",
            "-a -t 10.0.0.1:80 -r [fd00::8]:80 -i -w 1 --tun-type ipip",
        ] {
            assert!(
                lines.iter().any(|l| l == line),
                "{line} is not in {lines:#?}"
            );
        }
        assert_eq!(lines.len(), destinations.len() + 1);
        let thresholds = run("ipvsadm", "-Ln --thresholds");
        let line = thresholds
            .lines()
            .find(|line| line.contains("10.0.1.3:80"))
            .unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(
            words[..4],
            ["->", "10.0.1.3:80", "100", "10"],
            "{thresholds}"
        );

        let mut listed: Vec<_> = client
            .destinations(&id)
            .unwrap()
            .into_iter()
            .map(|d| d.destination)
            .collect();
        listed.sort_by_key(|d| d.id);
        assert_eq!(listed, destinations);

        let changed = Destination {
            weight: 5,
            forward: Forward::Masquerade,
            ..destinations[3]
        };
        client.set_destination(id, changed).unwrap();
        assert!(saved().contains(&"-a -t 10.0.0.1:80 -r 10.0.1.4:80 -m -w 5".to_owned()));
        client.delete_destination(id, changed.id).unwrap();
        assert_eq!(
            client.destinations(&id).unwrap().len(),
            destinations.len() - 1
        );
    });
}

#[test]
fn reads_what_ipvsadm_made() {
    in_new_namespace(|mut client| {
        for line in [
            "-A -t 10.0.0.1:80 -s wlc -p 120 -M 255.255.0.0",
            "-a -t 10.0.0.1:80 -r 10.0.1.1:8080 -m -w 3 -x 50 -y 5",
            "-a -t 10.0.0.1:80 -r 10.0.1.2:80 -g",
            "-A -u [fd00::1]:53 -s mh -b mh-port",
            "-a -u [fd00::1]:53 -r [fd00::2]:5353 -m -w 2",
            "-A -f 9 -6 -s rr",
            "-a -f 9 -6 -r [fd00::3]:0 -i --tun-type gue --tun-port 777 --tun-nocsum",
        ] {
            run("ipvsadm", line);
        }
        let mut pools = client.pools().unwrap();
        pools.sort_by_key(|pool| pool.service.id);
        for pool in &mut pools {
            pool.destinations.sort_by_key(|d| d.id);
        }
        let [tcp, udp, marked] = &pools[..] else {
            panic!("{pools:#?}")
        };
        assert_eq!(
            tcp.service,
            Service {
                flags: ServiceFlags::PERSISTENT,
                timeout: 120,
                netmask: Netmask::V4([255, 255, 0, 0].into()),
                ..Service::new(ServiceId::tcp([10, 0, 0, 1], 80), Scheduler::WLC)
            }
        );
        assert_eq!(
            tcp.destinations,
            [
                Destination {
                    weight: 3,
                    upper_threshold: 50,
                    lower_threshold: 5,
                    ..Destination::new(DestinationId::new([10, 0, 1, 1], 8080), Forward::Masquerade)
                },
                Destination::new(DestinationId::new([10, 0, 1, 2], 80), Forward::Route),
            ]
        );
        assert_eq!(udp.service.flags, ServiceFlags::MH_PORT);
        assert_eq!(udp.service.netmask, Netmask::V6(128));
        assert_eq!(
            udp.destinations[0].id,
            DestinationId::new(v6("fd00::2"), 5353)
        );
        assert_eq!(udp.destinations[0].weight, 2);
        assert_eq!(marked.service.id, ServiceId::mark(Family::V6, mark(9)));
        assert_eq!(
            marked.destinations[0].forward,
            Forward::Tunnel(Tunnel::gue(777))
        );
    });
}

#[test]
fn every_scheduler_of_the_kernel() {
    in_new_namespace(|mut client| {
        // These two must be there before a service asks for them; see `Scheduler::LBLC`.
        run("modprobe", "-a ip_vs_lblc ip_vs_lblcr");
        for (port, name) in (1..).zip([
            "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf",
        ]) {
            let id = ServiceId::tcp([10, 0, 0, 1], port);
            client
                .add_service(Service::new(id, Scheduler::new(name).unwrap()))
                .unwrap();
            assert!(saved().contains(&format!("-A -t 10.0.0.1:{port} -s {name}")));
        }
    });
}

#[test]
fn timeouts() {
    in_new_namespace(|mut client| {
        let all = |tcp, tcp_fin, udp| Timeouts {
            tcp: Some(tcp),
            tcp_fin: Some(tcp_fin),
            udp: Some(udp),
        };
        assert_eq!(client.timeouts().unwrap(), all(900, 120, 300));
        client
            .set_timeouts(Timeouts {
                tcp: Some(432_000),
                ..Timeouts::default()
            })
            .unwrap();
        assert_eq!(client.timeouts().unwrap(), all(432_000, 120, 300));
        client.set_timeouts(all(901, 121, 301)).unwrap();
        let text = run("ipvsadm", "-L --timeout");
        assert_eq!(text.trim(), "Timeout (tcp tcpfin udp): 901 121 301");
        assert_eq!(text.trim(), client.timeouts().unwrap().to_string());
        let error = client
            .set_timeouts(Timeouts {
                udp: Some(u32::MAX),
                ..Timeouts::default()
            })
            .unwrap_err();
        assert!(
            matches!(
                error,
                IpvsError::Refused {
                    errno: libc::EINVAL,
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(client.timeouts().unwrap(), all(901, 121, 301));
    });
}
