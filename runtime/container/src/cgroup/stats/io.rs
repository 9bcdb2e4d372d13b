//! Block devices.

use super::parse::pairs;
use super::pressure::Pressure;
use crate::cgroup::dir::Dir;
use crate::cgroup::error::Result;

/// What went to and came from block devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IoStats {
    /// Bytes, by device and kind.
    pub bytes: Vec<IoEntry>,
    /// Operations, by device and kind.
    pub operations: Vec<IoEntry>,
    /// How long tasks waited for block devices; `None` where the kernel does not count it.
    pub pressure: Option<Pressure>,
}

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoEntry {
    /// The device.
    pub major: u32,
    /// The device.
    pub minor: u32,
    /// What is counted.
    pub operation: IoOperation,
    /// Bytes or operations.
    pub value: u64,
}

/// A kind of operation. Each is once read, write or discard; version 1 counts it again as one of
/// the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoOperation {
    /// From the device.
    Read,
    /// To the device.
    Write,
    /// Blocks given back.
    Discard,
    /// Those that are waited for; version 1.
    Sync,
    /// Those that are not; version 1.
    Async,
    /// All; version 1.
    Total,
}

impl IoOperation {
    /// As version 1 writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Discard => "Discard",
            Self::Sync => "Sync",
            Self::Async => "Async",
            Self::Total => "Total",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let all = [
            Self::Read,
            Self::Write,
            Self::Discard,
            Self::Sync,
            Self::Async,
            Self::Total,
        ];
        all.into_iter().find(|operation| operation.name() == name)
    }
}

pub fn read_v1(stats: &mut IoStats, dir: &Dir) -> Result<()> {
    // The scheduler BFQ counts for its devices, throttling for those that have had a limit.
    let read = |file: &str| -> Result<Vec<IoEntry>> {
        for policy in ["bfq", "throttle"] {
            let text = dir.read_if(&format!("blkio.{policy}.{file}"))?;
            let entries = parse_v1(&text.unwrap_or_default());
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    };
    stats.bytes = read("io_service_bytes_recursive")?;
    stats.operations = read("io_serviced_recursive")?;
    Ok(())
}

/// Lines like `8:0 Read 4096`; the last, `Total 4096`, is of no device.
fn parse_v1(text: &str) -> Vec<IoEntry> {
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (major, minor) = device(fields.next()?)?;
        Some(IoEntry {
            major,
            minor,
            operation: IoOperation::parse(fields.next()?)?,
            value: fields.next()?.parse().ok()?,
        })
    });
    lines.collect()
}

pub fn read_v2(stats: &mut IoStats, dir: &Dir) -> Result<()> {
    let text = dir.read_if("io.stat")?.unwrap_or_default();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let Some((major, minor)) = fields.next().and_then(device) else {
            continue;
        };
        for (key, value) in pairs(fields) {
            let (list, operation) = match key {
                "rbytes" => (&mut stats.bytes, IoOperation::Read),
                "wbytes" => (&mut stats.bytes, IoOperation::Write),
                "dbytes" => (&mut stats.bytes, IoOperation::Discard),
                "rios" => (&mut stats.operations, IoOperation::Read),
                "wios" => (&mut stats.operations, IoOperation::Write),
                "dios" => (&mut stats.operations, IoOperation::Discard),
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                list.push(IoEntry {
                    major,
                    minor,
                    operation,
                    value,
                });
            }
        }
    }
    Ok(())
}

fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
