//! The published ports that the kernel leads to the mesh, remembered for the data plane after this one.
//!
//! While none is there nobody holds them, and a connection of another program may be given one as its own port.
//! That is no reason to withdraw a published port that works: what belongs to that connection is not translated.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::desired::Protocol;
use crate::error::NetdpError;

/// Each line of the file is a protocol and a number: `tcp 8080`.
#[derive(Debug)]
pub(crate) struct Published {
    path: PathBuf,
    ports: BTreeSet<(Protocol, u16)>,
}

impl Published {
    /// What the data plane before this one has published; nothing where that is not known.
    pub(crate) fn open(run_dir: &Path) -> Self {
        let path = run_dir.join("published");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let ports = text.lines().filter_map(parse).collect();
        Self { path, ports }
    }

    pub(crate) fn contains(&self, port: (Protocol, u16)) -> bool {
        self.ports.contains(&port)
    }

    /// What the kernel has now.
    pub(crate) fn set(&mut self, ports: BTreeSet<(Protocol, u16)>) -> Result<(), NetdpError> {
        if self.ports == ports {
            return Ok(());
        }
        if ports.is_empty() {
            match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(NetdpError::file("remove", &self.path)(error));
                }
                _ => self.ports = ports,
            }
            return Ok(());
        }
        let lines = ports
            .iter()
            .map(|(protocol, port)| format!("{protocol} {port}\n"));
        let new = self.path.with_extension("new");
        fs::write(&new, lines.collect::<String>()).map_err(NetdpError::file("write", &new))?;
        fs::rename(&new, &self.path).map_err(NetdpError::file("write", &self.path))?;
        self.ports = ports;
        Ok(())
    }
}

fn parse(line: &str) -> Option<(Protocol, u16)> {
    let (protocol, port) = line.split_once(' ')?;
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = all.into_iter().find(|p| p.to_string() == protocol)?;
    Some((protocol, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_one_knows() {
        let directory = tempfile::tempdir().unwrap();
        let mut published = Published::open(directory.path());
        assert!(!published.contains((Protocol::Tcp, 8080)));
        let ports = BTreeSet::from([(Protocol::Tcp, 8080), (Protocol::Udp, 53)]);
        published.set(ports.clone()).unwrap();
        assert_eq!(Published::open(directory.path()).ports, ports);
        // Whatever somebody wrote there.
        fs::write(&published.path, "tcp 8080\nicmp 1\nudp\ntcp 70000\n\0").unwrap();
        let read = Published::open(directory.path()).ports;
        assert_eq!(read, BTreeSet::from([(Protocol::Tcp, 8080)]));
        // Nothing is no file.
        for _ in 0..2 {
            published.set(BTreeSet::new()).unwrap();
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        }
    }
}
