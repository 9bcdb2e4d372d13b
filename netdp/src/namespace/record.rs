//! What this process programmed, for the process that comes after it.
//!
//! An nftables table that is replaced by an equal one is not free of consequences: while the old
//! chains go and the new ones come, a packet can pass between them, and its connection is then
//! tracked without the translation that it needs. So a table that is still as programmed stays
//! untouched by a new process, and this file is how that is known: a hash of what was wanted and the
//! fingerprint of what the kernel had after the commit. It also keeps what tracked connections may
//! be pinned to, so that those to a backend that goes while no process is there are found. All of it
//! is a hint: a record that is missing, torn or of another version leads to a replacement.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::conntrack::Pin;
use crate::error::NetdpError;
use crate::nft::Family;

/// Hash of a table as wanted, and fingerprint of what the kernel made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Programmed {
    pub(super) wanted: u64,
    pub(super) kernel: u64,
}

/// The file of one namespace: lines of `table`, family, wanted and kernel (hexadecimal), of `pin` and
/// what it is, and `router` where it was us who switched forwarding of IPv6 on.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    tables: BTreeMap<Family, Programmed>,
    pins: Option<BTreeSet<Pin>>,
    router: bool,
}

impl Record {
    /// Reads the file; without one, nothing is known.
    pub(super) fn open(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).ok();
        let lines = |kind: &'static str| {
            let lines = text.iter().flat_map(|text| text.lines());
            lines.filter_map(move |line| line.strip_prefix(kind))
        };
        let tables = lines("table ").filter_map(parse).collect();
        let pins = lines("pin ").filter_map(Pin::parse).collect();
        let pins = text.is_some().then_some(pins);
        let router = lines("router").next().is_some();
        Self {
            path,
            tables,
            pins,
            router,
        }
    }

    pub(super) fn table(&self, family: Family) -> Option<Programmed> {
        self.tables.get(&family).copied()
    }

    pub(super) fn set_tables(&mut self, tables: BTreeMap<Family, Programmed>) {
        if tables != self.tables {
            self.tables = tables;
            self.write();
        }
    }

    /// Nothing where nothing is known, which is not the same as none.
    pub(super) fn pins(&self) -> Option<&BTreeSet<Pin>> {
        self.pins.as_ref()
    }

    pub(super) fn set_pins(&mut self, pins: &BTreeSet<Pin>) {
        if self.pins.as_ref() != Some(pins) {
            self.pins = Some(pins.clone());
            self.write();
        }
    }

    pub(super) fn router(&self) -> bool {
        self.router
    }

    pub(super) fn set_router(&mut self, router: bool) {
        if self.router != router {
            self.router = router;
            self.write();
        }
    }

    fn write(&self) {
        let mut text = String::new();
        // Writing to a string does not fail.
        for (family, Programmed { wanted, kernel }) in &self.tables {
            let _ = writeln!(text, "table {} {wanted:x} {kernel:x}", family.name());
        }
        for pin in self.pins.iter().flatten() {
            let _ = writeln!(text, "pin {pin}");
        }
        if self.router {
            text.push_str("router\n");
        }
        let written = if text.is_empty() {
            remove(&self.path)
        } else {
            fs::write(&self.path, text).map_err(NetdpError::file("write", &self.path))
        };
        if let Err(error) = written {
            tracing::warn!(%error, "the next daemon will program these nftables tables anew");
        }
    }
}

/// Removes the record of a namespace that is gone.
pub(crate) fn remove(path: &Path) -> Result<(), NetdpError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(NetdpError::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn parse(line: &str) -> Option<(Family, Programmed)> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let family = Family::ALL.into_iter().find(|f| f.name() == name)?;
    let mut number = || u64::from_str_radix(words.next()?, 16).ok();
    let (wanted, kernel) = (number()?, number()?);
    Some((family, Programmed { wanted, kernel }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_torn_is_not_known() {
        let path = std::env::temp_dir().join(format!("fairlead-record-{}", std::process::id()));
        let programmed = Programmed {
            wanted: u64::MAX,
            kernel: 7,
        };
        let pins = BTreeSet::from([
            Pin::UdpPort(53),
            Pin::Published(6, 8080, [10, 0, 0, 1].into()),
            Pin::Steered(17, 5353, 53),
            Pin::Rewritten(8080, 80),
            Pin::Left([10, 0, 0, 1].into()),
            Pin::VipBackend("fd00::2".parse().unwrap(), "fd00::3".parse().unwrap()),
            Pin::LeftVip("fd00::2".parse().unwrap(), "fd00::3".parse().unwrap()),
        ]);
        let mut record = Record::open(path.clone());
        assert_eq!(record.pins(), None);
        record.set_tables(BTreeMap::from([(Family::Netdev, programmed)]));
        record.set_pins(&pins);
        record.set_router(true);
        let read = Record::open(path.clone());
        assert_eq!(read.table(Family::Netdev), Some(programmed));
        assert_eq!(read.table(Family::Ipv4), None);
        assert_eq!(read.pins(), Some(&pins));
        assert!(read.router());
        for torn in [
            "table netdev ffff",
            "table bridge 1 2",
            "pin vip fd00::2",
            "pi",
            "\n\n",
        ] {
            fs::write(&path, torn).unwrap();
            let read = Record::open(path.clone());
            assert!(read.tables.is_empty(), "{torn:?}");
            assert_eq!(read.pins(), Some(&BTreeSet::new()), "{torn:?}");
        }
        remove(&path).unwrap();
        remove(&path).unwrap();
    }
}
