//! Pressure stall information (kernel: Documentation/accounting/psi.rst).

use super::parse::pairs;
use crate::cgroup::dir::Dir;
use crate::cgroup::error::Result;
use serde::Serialize;

/// How long tasks had to wait for a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// Some of them waited.
    pub some: Stall,
    /// All of them waited at once. Of CPUs it is only told since kernel 5.13.
    pub full: Stall,
}

/// A share of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stall {
    /// Percent of the last 10 seconds.
    pub avg10: f64,
    /// Percent of the last 60 seconds.
    pub avg60: f64,
    /// Percent of the last 300 seconds.
    pub avg300: f64,
    /// All of it, in microseconds.
    pub total: u64,
}

/// `None` where the kernel does not count it: not built in, or switched off.
pub fn read(dir: &Dir, file: &str) -> Result<Option<Pressure>> {
    Ok(dir.read_if(file)?.as_deref().map(parse))
}

fn parse(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let stall = match fields.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in pairs(fields) {
            let percent = || value.parse().unwrap_or_default();
            match key {
                "avg10" => stall.avg10 = percent(),
                "avg60" => stall.avg60 = percent(),
                "avg300" => stall.avg300 = percent(),
                "total" => stall.total = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
    }
    pressure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=12345\n\
                    full avg10=0.50 avg60=0.00 avg300=0.00 total=99\n";
        let pressure = parse(text);
        assert_eq!(pressure.some.avg10, 1.5);
        assert_eq!((pressure.some.total, pressure.full.total), (12345, 99));
    }
}
