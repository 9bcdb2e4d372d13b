//! Lines of the connection table.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Connection, ConnectionState, PersistenceData};
use crate::error::DecodeError;
use crate::name::Name;
use crate::service::Protocol;

/// One line, as `ip_vs_conn_seq_show` in the kernel's `ip_vs_conn.c` writes it.
pub(crate) fn connection(line: &str) -> Result<Connection, DecodeError> {
    let mut words = line.split_ascii_whitespace();
    let mut word = |what| words.next().ok_or(DecodeError::Missing { what });
    let protocol = protocol(word("protocol")?)?;
    let mut endpoint = |what| -> Result<SocketAddr, DecodeError> {
        let address = address(word(what)?).ok_or(DecodeError::Text { what })?;
        let port = hex(word(what)?, 4).and_then(|port| u16::try_from(port).ok());
        Ok(SocketAddr::new(
            address,
            port.ok_or(DecodeError::Text { what })?,
        ))
    };
    let client = endpoint("client")?;
    let virtual_address = endpoint("virtual address")?;
    let destination = endpoint("destination")?;
    let state = name(word("state")?, "state")?;
    let what = "expiry";
    let expires = word(what)?
        .parse()
        .map_err(|_| DecodeError::Text { what })?;
    let persistence = match words.next() {
        None => None,
        // The engine's data is the rest of the line; for the call ids of `sip` it is one word.
        Some(engine) => Some(PersistenceData {
            engine: name(engine, "persistence engine")?,
            data: words.collect::<Vec<_>>().join(" "),
        }),
    };
    Ok(Connection {
        protocol,
        client,
        virtual_address,
        destination,
        state: ConnectionState::from(state),
        expires,
        persistence,
    })
}

fn name(word: &str, what: &'static str) -> Result<Name, DecodeError> {
    Name::from_bytes(word.as_bytes()).ok_or(DecodeError::Name { what })
}

/// `ip_vs_proto_name` in the kernel's `ip_vs_proto.c`.
fn protocol(word: &str) -> Result<Protocol, DecodeError> {
    let number = match word {
        "IP" => 0,
        "ICMP" => 1,
        "TCP" => return Ok(Protocol::TCP),
        "UDP" => return Ok(Protocol::UDP),
        "SCTP" => return Ok(Protocol::SCTP),
        "ICMPv6" => 58,
        _ => {
            let number = word
                .strip_prefix("IP_")
                .and_then(|number| number.parse().ok());
            number.ok_or(DecodeError::Text { what: "protocol" })?
        }
    };
    Ok(Protocol(number))
}

/// IPv4 comes as eight digits without dots, IPv6 as people write it, without abbreviation.
fn address(word: &str) -> Option<IpAddr> {
    match word.contains(':') {
        true => word.parse().ok(),
        false => hex(word, 8).map(|bits| Ipv4Addr::from_bits(bits).into()),
    }
}

fn hex(word: &str, digits: usize) -> Option<u32> {
    // `from_str_radix` would take a sign.
    let plain = word.len() == digits && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(word, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DestinationId, ServiceId};

    #[test]
    fn reads_what_the_kernel_writes() {
        let line = "TCP C0A80001 9C40 0A000001 0050 0A000102 1F90 ESTABLISHED     899";
        let read = connection(line).unwrap();
        assert_eq!(
            read,
            Connection {
                protocol: Protocol::TCP,
                client: "192.168.0.1:40000".parse().unwrap(),
                virtual_address: "10.0.0.1:80".parse().unwrap(),
                destination: "10.0.1.2:8080".parse().unwrap(),
                state: ConnectionState::ESTABLISHED,
                expires: 899,
                persistence: None,
            }
        );
        assert_eq!(
            read.to_string(),
            "TCP 14:59  ESTABLISHED 192.168.0.1:40000  10.0.0.1:80        10.0.1.2:8080"
        );
        assert!(!read.is_template());
        let to = DestinationId::new([10, 0, 1, 2], 8080);
        assert!(read.belongs_to(&ServiceId::tcp([10, 0, 0, 1], 80), &to));
        assert!(read.belongs_to(&ServiceId::tcp([10, 0, 0, 1], 0), &to));
        for (service, to) in [
            (ServiceId::udp([10, 0, 0, 1], 80), to),
            (ServiceId::tcp([10, 0, 0, 2], 80), to),
            (ServiceId::tcp([10, 0, 0, 1], 81), to),
            (
                ServiceId::tcp([10, 0, 0, 1], 80),
                DestinationId::new([10, 0, 1, 2], 8081),
            ),
            (
                ServiceId::tcp([10, 0, 0, 1], 80),
                DestinationId::new([10, 0, 1, 3], 8080),
            ),
        ] {
            assert!(!read.belongs_to(&service, &to), "{service} {to}");
        }
    }

    #[test]
    fn reads_other_families_protocols_and_persistence() {
        let line = "UDP fd00:0000:0000:0000:0000:0000:0000:0001 0000 \
                    fd00:0000:0000:0000:0000:0000:0000:00ff 13C4 0A000102 13C4 NONE            59 \
                    sip 1-12345@10.0.0.9";
        let read = connection(line).unwrap();
        assert!(read.is_template());
        assert_eq!(read.client, "[fd00::1]:0".parse().unwrap());
        assert_eq!(read.destination, "10.0.1.2:5060".parse().unwrap());
        let persistence = read.persistence.unwrap();
        assert_eq!(persistence.engine.as_str(), "sip");
        assert_eq!(persistence.data, "1-12345@10.0.0.9");

        for (word, number) in [("IP", 0), ("SCTP", 132), ("ICMPv6", 58), ("IP_50", 50)] {
            let line = format!("{word} 0A000001 0000 00000007 0000 0A000102 0000 NONE 1");
            assert_eq!(connection(&line).unwrap().protocol, Protocol(number));
        }
    }

    #[test]
    fn templates_without_ports_belong_to_their_service() {
        let seven = ServiceId::mark(crate::Family::V4, 7.try_into().unwrap());
        let eight = ServiceId::mark(crate::Family::V4, 8.try_into().unwrap());
        let to = DestinationId::new([10, 0, 1, 2], 8080);
        let of_mark = "IP 0A000000 0000 00000007 0000 0A000102 0000 NONE 59";
        let of_mark = connection(of_mark).unwrap();
        assert!(of_mark.is_template() && of_mark.belongs_to(&seven, &to));
        assert!(!of_mark.belongs_to(&eight, &to));
        let six = "IP fd00:0000:0000:0000:0000:0000:0000:0000 0000 \
                   0000:0007:0000:0000:0000:0000:0000:0000 0000 0A000102 0000 NONE 59";
        assert!(connection(six).unwrap().belongs_to(&seven, &to));
        let of_ftp = "TCP 0A000000 0000 0A000001 0000 0A000102 0000 ASSURED 59";
        let of_ftp = connection(of_ftp).unwrap();
        assert!(of_ftp.belongs_to(&ServiceId::tcp([10, 0, 0, 1], 21), &to));
        assert!(!of_ftp.belongs_to(&ServiceId::tcp([10, 0, 0, 2], 21), &to));
        let data = "TCP 0A000009 0000 0A000001 0014 0A000102 0401 LISTEN 59";
        assert!(!connection(data).unwrap().is_template());
        let other = connection("IP_50 0A000001 0000 0A000001 0000 0A000102 0000 NONE 1").unwrap();
        assert!(other.to_string().starts_with("IP_50 "), "{other}");
    }

    #[test]
    fn refuses_the_rest() {
        let good = "TCP C0A80001 9C40 0A000001 0050 0A000102 1F90 ESTABLISHED 899";
        let words: Vec<&str> = good.split(' ').collect();
        for count in 0..words.len() {
            assert!(connection(&words[..count].join(" ")).is_err(), "{count}");
        }
        for (place, bad) in [
            (0, "TCPX"),
            (0, "IP_"),
            (0, "IP_-1"),
            (0, "IP_65536"),
            (1, "C0A8001"),
            (1, "+0A80001"),
            (1, "fd00::g"),
            (2, "9C40F"),
            (2, "+C40"),
            (3, ":"),
            (7, "ESTABLISHED_ESTABLISHED"),
            (8, "-1"),
            (8, "99999999999999999999"),
        ] {
            let mut words = words.clone();
            words[place] = bad;
            assert!(connection(&words.join(" ")).is_err(), "{bad}");
        }
    }
}
