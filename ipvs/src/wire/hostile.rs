//! Any values survive the way through the codec, and no bytes whatever stop it.

use crate::error::DecodeError;
use crate::fuzzing::read_all;
use crate::testing::Random;
use crate::wire::attr::{self, Attrs};
use crate::wire::{decode, encode, fixtures};
use crate::{Destination, Family, Operation, Service};

/// Turns a request into what an answer about the same object looks like: the kernel sends the same
/// attributes, and counters.
fn as_answer(operation: Operation, nest: u16, stats_kind: u16) -> Vec<u8> {
    let mut buf = Vec::new();
    encode::put_operation(&mut buf, 0x20, 1, &operation);
    let inner = Attrs::new(&buf[20..], "request")
        .map(Result::unwrap)
        .find(|attr| attr.kind == nest)
        .unwrap()
        .value;
    let mut answer = Vec::new();
    attr::put_nested(&mut answer, nest, |buf| {
        buf.extend_from_slice(inner);
        attr::put_nested(buf, stats_kind, |buf| attr::put_u32(buf, 1, 77));
    });
    answer
}

fn service_answer(service: Service) -> Vec<u8> {
    as_answer(Operation::AddService(service), 1, 10)
}

fn destination_answer(service: Service, destination: Destination) -> Vec<u8> {
    as_answer(Operation::AddDestination(service.id, destination), 2, 10)
}

#[test]
fn what_is_sent_reads_back_the_same() {
    let mut random = Random(2);
    for _ in 0..5000 {
        let service = random.service();
        let entry = decode::service(&service_answer(service)).unwrap();
        assert_eq!(entry.service, service);
        // Counters of 32 bits, as of kernels before 4.1.
        assert_eq!((entry.stats.connections, entry.stats.wide), (77, false));

        let destination = random.destination();
        let answer = destination_answer(service, destination);
        assert_eq!(
            decode::destination(&answer, Family::V4)
                .unwrap()
                .destination,
            destination
        );
    }
}

#[test]
fn daemons_read_back_the_same() {
    let mut random = Random(9);
    for _ in 0..2000 {
        let daemon = random.sync_daemon();
        let answer = as_answer(Operation::StartSync(daemon), 3, 99);
        assert_eq!(decode::sync_daemon(&answer), Ok(daemon));
    }
}

fn samples() -> Vec<Vec<u8>> {
    let mut random = Random(3);
    let service = random.service();
    let mut samples = fixtures::answers();
    samples.push(service_answer(service));
    samples.push(destination_answer(service, random.destination()));
    // The same as messages.
    for index in 0..samples.len() {
        let content = samples[index].clone();
        let len = (20 + content.len()) as u32;
        let mut message = len.to_ne_bytes().to_vec();
        message.extend(0x20u16.to_ne_bytes());
        message.extend([0; 14]);
        message.extend(content);
        samples.push(message);
    }
    // An error with words.
    let mut error = vec![0; 36];
    error[4..8].copy_from_slice(&[2, 0, 0, 3]);
    error[16..20].copy_from_slice(&(-1i32).to_ne_bytes());
    attr::put_str(&mut error, 1, "words");
    let len = (error.len() as u32).to_ne_bytes();
    error[..4].copy_from_slice(&len);
    samples.push(error);
    samples
}

#[test]
fn bytes_that_end_anywhere_are_no_object() {
    let mut random = Random(4);
    let service = random.service();
    let whole = service_answer(service);
    for end in 0..whole.len() {
        assert!(
            decode::service(&whole[..end]).is_err(),
            "{end} of {}",
            whole.len()
        );
    }
    let whole = destination_answer(service, random.destination());
    for end in 0..whole.len() {
        assert!(
            decode::destination(&whole[..end], Family::V4).is_err(),
            "{end}"
        );
    }
    for sample in samples() {
        for end in 0..sample.len() {
            read_all(&sample[..end]);
        }
    }
}

#[test]
fn damaged_bytes_come_back() {
    let mut random = Random(5);
    let samples = samples();
    for _ in 0..60_000 {
        let mut bytes = samples[random.below(samples.len() as u64) as usize].clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.pick(&[0, 1, 2, 3, 4, 5, 16, 0x7f, 0x80, 0xff, random.0 as u8]);
        }
        read_all(&bytes);
    }
    for _ in 0..60_000 {
        let len = random.below(80);
        let bytes: Vec<u8> = (0..len).map(|_| random.pick(&[0, 1, 4, 8, 255])).collect();
        read_all(&bytes);
    }
}

/// One attribute changed in a service that is otherwise well.
fn service_with(kind: u16, value: &[u8]) -> Result<crate::ServiceEntry, DecodeError> {
    let whole = service_answer(Service::new(
        crate::ServiceId::tcp([10, 0, 0, 1], 80),
        crate::Scheduler::RR,
    ));
    let mut changed = Vec::new();
    attr::put_nested(&mut changed, 1, |buf| {
        for attr in Attrs::new(&whole[4..], "service").map(Result::unwrap) {
            attr::put(
                buf,
                attr.kind,
                if attr.kind == kind { value } else { attr.value },
            );
        }
    });
    decode::service(&changed)
}

#[test]
fn errors_tell_what_is_wrong() {
    assert!(service_with(0, &[]).is_ok());
    for (kind, value, expected) in [
        (
            1,
            &[1][..],
            DecodeError::Length {
                what: "service address family",
                actual: 1,
            },
        ),
        (
            1,
            &[9, 9],
            DecodeError::Value {
                what: "service address family",
                value: 0x0909,
            },
        ),
        (
            3,
            &[10, 0, 0],
            DecodeError::Length {
                what: "service address",
                actual: 3,
            },
        ),
        (
            4,
            &[0; 4],
            DecodeError::Length {
                what: "service port",
                actual: 4,
            },
        ),
        (
            6,
            b"0123456789abcdef\0",
            DecodeError::Name {
                what: "scheduler name",
            },
        ),
        (
            6,
            b"\xff\0",
            DecodeError::Name {
                what: "scheduler name",
            },
        ),
        (
            6,
            b"",
            DecodeError::Name {
                what: "scheduler name",
            },
        ),
        (
            7,
            &[0; 4],
            DecodeError::Length {
                what: "service flags",
                actual: 4,
            },
        ),
        (
            9,
            &[0; 5],
            DecodeError::Length {
                what: "service netmask",
                actual: 5,
            },
        ),
        (
            10,
            &[9, 0, 1, 0],
            DecodeError::Truncated {
                what: "service statistics",
            },
        ),
        (
            10,
            &[5, 0, 1, 0, 7],
            DecodeError::Length {
                what: "service statistics",
                actual: 1,
            },
        ),
    ] {
        assert_eq!(service_with(kind, value), Err(expected), "attribute {kind}");
    }
    assert_eq!(
        decode::service(&[]),
        Err(DecodeError::Missing { what: "service" })
    );
    let mut empty = Vec::new();
    attr::put(&mut empty, 1, &[]);
    let missing = Err(DecodeError::Missing {
        what: "service address family",
    });
    assert_eq!(decode::service(&empty), missing);
}
