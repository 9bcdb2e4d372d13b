//! Values of options. Each reader says what it would have taken.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::name::{Name, Scheduler};
use crate::service::{Family, Netmask, ServiceFlags};

/// A number within limits.
pub(super) fn number<T: FromStr + PartialOrd>(
    min: T,
    max: T,
    expected: &'static str,
) -> impl FnOnce(&str) -> Result<T, &'static str> {
    move |text| {
        let number = text.parse().ok();
        number
            .filter(|number| (min..=max).contains(number))
            .ok_or(expected)
    }
}

pub(super) fn kernel_name(text: &str) -> Result<Name, &'static str> {
    // What begins so would be a comment when it is read again.
    let name = Name::new(text)
        .ok()
        .filter(|name| !name.as_str().starts_with('#'));
    name.ok_or("a name of 1 to 15 characters")
}

/// `10.0.0.1:80`, `10.0.0.1`, `[fd00::1]:80`, `[fd00::1]`, `fd00::1`.
pub(super) fn endpoint(text: &str) -> Result<(IpAddr, Option<u16>), &'static str> {
    let expected = "an address and a port in numbers, as 10.0.0.1:80 or [fd00::1]:80,";
    let read = || -> Option<(IpAddr, Option<u16>)> {
        if let Some(text) = text.strip_prefix('[') {
            let (address, port) = text.split_once(']')?;
            let address: Ipv6Addr = address.parse().ok()?;
            let port = match port {
                "" => None,
                _ => Some(port.strip_prefix(':')?.parse().ok()?),
            };
            return Some((address.into(), port));
        }
        if let Ok(address) = text.parse() {
            return Some((address, None));
        }
        let (address, port) = text.rsplit_once(':')?;
        let address: Ipv4Addr = address.parse().ok()?;
        Some((address.into(), Some(port.parse().ok()?)))
    };
    read().ok_or(expected)
}

pub(super) fn netmask(text: &str, family: Family) -> Result<Netmask, &'static str> {
    match family {
        Family::V4 => {
            let mask = text.parse().map(Netmask::V4);
            mask.map_err(|_| "a mask, as 255.255.255.0,")
        }
        Family::V6 => number(1, 128, "a prefix length from 1 to 128")(text).map(Netmask::V6),
    }
}

pub(super) fn scheduler_flags(
    text: &str,
    scheduler: Scheduler,
) -> Result<ServiceFlags, &'static str> {
    let mut flags = ServiceFlags::NONE;
    for word in text.split(',') {
        flags |= match (word, scheduler) {
            ("flag-1", _) => ServiceFlags::SCHED1,
            ("flag-2", _) => ServiceFlags::SCHED2,
            ("flag-3", _) => ServiceFlags::SCHED3,
            ("sh-fallback", Scheduler::SH) => ServiceFlags::SH_FALLBACK,
            ("sh-port", Scheduler::SH) => ServiceFlags::SH_PORT,
            ("mh-fallback", Scheduler::MH) => ServiceFlags::MH_FALLBACK,
            ("mh-port", Scheduler::MH) => ServiceFlags::MH_PORT,
            _ => {
                return Err(
                    "flag-1, flag-2, flag-3, for scheduler sh also sh-fallback and sh-port, for \
                     mh also mh-fallback and mh-port",
                );
            }
        };
    }
    Ok(flags)
}

/// A mark. `ipvsadm` saves those from 2^31 on as negative numbers, though it does not read them.
pub(super) fn mark(text: &str) -> Result<NonZeroU32, &'static str> {
    let wide: Option<i64> = text.parse().ok();
    let mark = wide.and_then(|wide| match wide {
        0.. => u32::try_from(wide).ok(),
        _ => i32::try_from(wide).ok().map(i32::cast_unsigned),
    });
    mark.and_then(NonZeroU32::new)
        .ok_or("a mark from 1 to 4294967295")
}
