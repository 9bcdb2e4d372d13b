//! What the kernel refuses becomes a typed error that names the object, and in a batch falls on the
//! operation that caused it. Needs root and `ip_vs`.

mod common;

use std::net::Ipv6Addr;

use common::{in_new_namespace, run, saved};
use ipvs::{
    Client, Destination, DestinationId, Forward, IpvsError, Name, Netmask, Operation, Protocol,
    Scheduler, Service, ServiceId, Timeouts, Tunnel,
};

fn service(port: u16) -> Service {
    Service::new(ServiceId::tcp([10, 0, 0, 1], port), Scheduler::RR)
}

fn destination(last: u8) -> Destination {
    Destination::new(
        DestinationId::new([10, 0, 1, last], 80),
        Forward::Masquerade,
    )
}

#[test]
fn unknown_modules() {
    in_new_namespace(|mut client| {
        let unknown = Scheduler::new("nonesuch").unwrap();
        let error = client
            .add_service(Service {
                scheduler: unknown,
                ..service(80)
            })
            .unwrap_err();
        assert!(
            matches!(error, IpvsError::UnknownScheduler { scheduler, .. } if scheduler == unknown)
        );
        let text = error.to_string();
        assert!(text.contains("TCP 10.0.0.1:80"), "{text}");
        assert!(text.contains("`ip_vs_nonesuch`"), "{text}");
        assert!(text.contains("CONFIG_IP_VS_NONESUCH"), "{text}");

        let engine = Some(Name::new("nopes").unwrap());
        let error = client
            .add_service(Service {
                persistence_engine: engine,
                ..service(80)
            })
            .unwrap_err();
        assert!(error.to_string().contains("`ip_vs_pe_nopes`"), "{error}");
        assert_eq!(saved(), [""; 0]);
    });
}

#[test]
fn what_exists_and_what_does_not() {
    in_new_namespace(|mut client| {
        let id = service(80).id;
        client.add_service(service(80)).unwrap();
        client.add_destination(id, destination(1)).unwrap();

        let error = client.add_service(service(80)).unwrap_err();
        assert!(
            error.is_exists() && error.to_string().contains("TCP 10.0.0.1:80"),
            "{error}"
        );
        let error = client.add_destination(id, destination(1)).unwrap_err();
        assert!(
            error.is_exists() && error.to_string().contains("10.0.1.1:80"),
            "{error}"
        );

        // The same service in another namespace is none of this one's.
        in_new_namespace(|mut elsewhere| {
            let error = elsewhere.delete_service(id).unwrap_err();
            assert!(error.is_not_found(), "{error}");
            assert!(
                error.to_string().contains("this network namespace"),
                "{error}"
            );
        });

        let other = service(81).id;
        for error in [
            client.set_service(service(81)).unwrap_err(),
            client.delete_service(other).unwrap_err(),
            client.zero_service(other).unwrap_err(),
            client.service(&other).unwrap_err(),
            client.destinations(&other).unwrap_err(),
            client.add_destination(other, destination(1)).unwrap_err(),
            client
                .delete_destination(other, destination(1).id)
                .unwrap_err(),
        ] {
            assert!(
                matches!(error, IpvsError::NoSuchService { service } if service == other),
                "{error}"
            );
        }
        for error in [
            client.set_destination(id, destination(2)).unwrap_err(),
            client
                .delete_destination(id, destination(2).id)
                .unwrap_err(),
        ] {
            assert!(
                matches!(error, IpvsError::NoSuchDestination { .. }),
                "{error}"
            );
            assert!(error.to_string().contains("10.0.1.2:80"), "{error}");
        }
    });
}

#[test]
fn values_that_the_kernel_does_not_take() {
    in_new_namespace(|mut client| {
        let id = service(80).id;
        client.add_service(service(80)).unwrap();

        let six = DestinationId::new(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2), 80);
        let error = client
            .add_destination(id, Destination::new(six, Forward::Masquerade))
            .unwrap_err();
        assert!(matches!(error, IpvsError::MixedFamilies { .. }), "{error}");
        assert!(error.to_string().contains("[fd00::2]:80"), "{error}");

        let upside_down = Destination {
            upper_threshold: 1,
            lower_threshold: 2,
            ..destination(1)
        };
        let too_heavy = Destination {
            weight: u32::MAX,
            ..destination(1)
        };
        for bad in [upside_down, too_heavy] {
            let error = client.add_destination(id, bad).unwrap_err();
            assert!(
                matches!(
                    error,
                    IpvsError::Refused {
                        errno: libc::ERANGE,
                        ..
                    }
                ),
                "{error}"
            );
            assert!(error.to_string().contains("10.0.1.1:80"), "{error}");
        }

        let multicast = DestinationId::new([224, 0, 0, 1], 80);
        for bad in [
            Destination::new(multicast, Forward::Masquerade),
            Destination {
                forward: Forward::Tunnel(Tunnel::gue(0)),
                ..destination(1)
            },
        ] {
            let error = client.add_destination(id, bad).unwrap_err();
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
        }
        assert_eq!(client.destinations(&id).unwrap(), []);
    });
}

#[test]
fn services_that_the_kernel_does_not_know() {
    in_new_namespace(|mut client| {
        for protocol in [Protocol(0), Protocol(99)] {
            let id = ServiceId::Address {
                protocol,
                address: [10, 0, 0, 1].into(),
                port: 80,
            };
            let service = Service::new(id, Scheduler::RR);
            let error = client.add_service(service).unwrap_err();
            assert!(matches!(error, IpvsError::UnknownProtocol { service } if service == id));
            assert!(error.to_string().contains("10.0.0.1:80"), "{error}");
        }
        assert_eq!(client.services().unwrap(), []);
        assert_eq!(saved(), [""; 0]);
    });
}

#[test]
fn a_netmask_of_the_other_family() {
    in_new_namespace(|mut client| {
        let wrong = Service {
            netmask: Netmask::V6(24),
            ..service(80)
        };
        let refused = |error: &IpvsError| matches!(error, IpvsError::NetmaskFamily { service: id, .. } if *id == wrong.id);
        let error = client.add_service(wrong).unwrap_err();
        assert!(refused(&error), "{error}");
        assert!(error.to_string().contains("TCP 10.0.0.1:80"), "{error}");
        // Among others, which are carried out.
        let error = client
            .apply(&[
                Operation::AddService(service(79)),
                Operation::AddService(wrong),
                Operation::AddService(service(81)),
            ])
            .unwrap_err();
        assert_eq!(error.failures.len(), 1);
        assert!(error.failures[0].index == 1 && refused(&error.failures[0].error));
        assert_eq!(
            saved(),
            ["-A -t 10.0.0.1:79 -s rr", "-A -t 10.0.0.1:81 -s rr"]
        );
    });
}

#[test]
fn a_failed_addition_does_not_take_the_last_weight() {
    in_new_namespace(|mut client| {
        let id = service(80).id;
        client.add_service(service(80)).unwrap();
        client.add_destination(id, destination(1)).unwrap();
        let light = |destination| Destination {
            weight: 0,
            ..destination
        };
        client.add_destination(id, light(destination(2))).unwrap();
        let multicast = DestinationId::new([224, 0, 0, 1], 80);
        // One that cannot be, and one that is there already, without weight.
        for added in [
            Destination::new(multicast, Forward::Masquerade),
            destination(2),
        ] {
            for taken in [
                Operation::SetDestination(id, light(destination(1))),
                Operation::DeleteDestination(id, destination(1).id),
            ] {
                let error = client
                    .apply(&[Operation::AddDestination(id, added), taken])
                    .unwrap_err();
                let last = error.failures.last().unwrap();
                assert!(matches!(last.error, IpvsError::Skipped { service } if service == id));
            }
        }
        assert!(saved().contains(&"-a -t 10.0.0.1:80 -r 10.0.1.1:80 -m -w 1".to_owned()));
    });
}

#[test]
fn without_the_privilege() {
    in_new_namespace(|mut client| {
        // The calling thread only, which ends with the test.
        caps::drop(
            None,
            caps::CapSet::Effective,
            caps::Capability::CAP_NET_ADMIN,
        )
        .unwrap();
        // The kernel asks for the privilege of the socket's opener and of its user.
        for client in [&mut client, &mut Client::open().unwrap()] {
            let error = client.add_service(service(80)).unwrap_err();
            assert!(matches!(error, IpvsError::NotPermitted { .. }), "{error}");
            let text = error.to_string();
            assert!(
                text.contains("TCP 10.0.0.1:80") && text.contains("CAP_NET_ADMIN"),
                "{text}"
            );
            let error = client.services().unwrap_err();
            assert!(matches!(error, IpvsError::NotPermitted { .. }), "{error}");
        }
    });
}

#[test]
fn a_batch_tells_which_operation_failed() {
    in_new_namespace(|mut client| {
        let mut operations = Vec::new();
        let mut expected = Vec::new();
        for port in 1..=1500 {
            operations.push(Operation::AddService(service(port)));
            if port % 7 == 0 {
                expected.push(operations.len());
                operations.push(Operation::AddService(service(port)));
            }
            if port % 11 == 0 {
                expected.push(operations.len());
                operations.push(Operation::DeleteService(service(port + 10_000).id));
            }
            operations.push(Operation::AddDestination(service(port).id, destination(1)));
        }
        let error = client.apply(&operations).unwrap_err();
        assert_eq!(error.total, operations.len());
        assert_eq!(
            error.failures.iter().map(|f| f.index).collect::<Vec<_>>(),
            expected
        );
        for failure in &error.failures {
            assert_eq!(failure.operation, operations[failure.index]);
            match (&failure.operation, &failure.error) {
                (Operation::AddService(s), IpvsError::ServiceExists { service }) => {
                    assert_eq!(s.id, *service);
                }
                (Operation::DeleteService(id), IpvsError::NoSuchService { service }) => {
                    assert_eq!(id, service);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(saved().len(), 3000);
        assert_eq!(client.services().unwrap().len(), 1500);
        client.apply(&[Operation::Flush]).unwrap();
        client.apply(&[]).unwrap();
        assert_eq!(saved().len(), 0);
    });
}

#[test]
fn a_failed_replacement_does_not_empty_the_service() {
    in_new_namespace(|mut client| {
        let (first, second) = (service(80).id, service(81).id);
        for id in [first, second] {
            client.add_service(Service::new(id, Scheduler::RR)).unwrap();
            client.add_destination(id, destination(1)).unwrap();
        }
        let bad = Destination::new(DestinationId::new([224, 0, 0, 1], 80), Forward::Masquerade);
        let error = client
            .apply(&[
                Operation::AddDestination(first, bad),
                Operation::AddDestination(second, destination(2)),
                Operation::DeleteDestination(first, destination(1).id),
                Operation::DeleteDestination(second, destination(1).id),
                Operation::SetTimeouts(Timeouts {
                    tcp: Some(1000),
                    ..Timeouts::default()
                }),
            ])
            .unwrap_err();
        let [refused, skipped] = &error.failures[..] else {
            panic!("{error}")
        };
        assert_eq!((refused.index, skipped.index), (0, 2));
        assert!(matches!(skipped.error, IpvsError::Skipped { service } if service == first));
        assert!(
            error.to_string().starts_with("2 of 5 operations failed"),
            "{error}"
        );
        let lines = saved();
        assert!(lines.contains(&"-a -t 10.0.0.1:80 -r 10.0.1.1:80 -m -w 1".to_owned()));
        assert!(lines.contains(&"-a -t 10.0.0.1:81 -r 10.0.1.2:80 -m -w 1".to_owned()));
        assert_eq!(lines.len(), 4, "{lines:#?}");
        assert!(run("ipvsadm", "-L --timeout").contains(": 1000 "));
    });
}
