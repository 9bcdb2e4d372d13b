//! A strict, streaming tar reader.
//!
//! The fields of a header are decoded by the `tar` crate; the stream is walked here, because
//! layers come from strangers and need what that crate's own iterator does not give: extended
//! headers of bounded size (a 10 GiB "long name" must not become 10 GiB of memory), values with
//! newlines in them (file capabilities have them), and sparse files in the PAX formats.

mod fields;
mod pax;
mod sparse;

use std::io::{self, Read};

use tar::{EntryType, Header};

pub(crate) use sparse::Extent;

use fields::{number, seconds};
use pax::Pax;

/// tar(5): everything is a multiple of this, in bytes.
const BLOCK: u64 = 512;
/// The most bytes of a PAX header, or of a GNU long name, that are read into memory.
const MAX_EXTENDED: u64 = 1 << 20;

/// What is wrong with a tar stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The stream cannot be read.
    #[error("reading the tar stream failed at byte {offset}: {source}")]
    Read {
        /// Bytes read before.
        offset: u64,
        /// What the source said.
        source: io::Error,
    },
    /// The stream ends inside an entry.
    #[error("the tar stream is truncated at byte {offset}")]
    Truncated {
        /// Bytes read before.
        offset: u64,
    },
    /// A header's checksum or one of its numbers is wrong.
    #[error("bad tar header at byte {offset}: {reason}")]
    Header {
        /// Where the header starts.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// A reader that can pass over bytes.
pub(crate) trait Stream: Read + Sized {
    /// Passes over exactly `count` bytes; `UnexpectedEof` when there are fewer.
    fn skip(&mut self, count: u64) -> io::Result<()> {
        if io::copy(&mut self.by_ref().take(count), &mut io::sink())? == count {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    CharDevice,
    BlockDevice,
}

/// One member of an archive.
#[derive(Debug)]
pub(crate) struct Entry {
    /// As written: may be absolute or climb.
    pub(crate) name: Vec<u8>,
    /// Target of a link, as written.
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub(crate) mtime: (i64, u32),
    /// Major and minor number of a device.
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Size of the file once it is written, in bytes.
    pub(crate) size: u64,
    /// Where the data goes, for a sparse file.
    pub(crate) extents: Option<Vec<Extent>>,
    /// Where the data starts in the stream, and how much of it there is.
    pub(crate) data: (u64, u64),
}

/// Walks the entries of a tar stream.
pub(crate) struct TarReader<R> {
    inner: R,
    /// Bytes consumed.
    offset: u64,
    /// Bytes of the current entry's data that were not read yet, and the padding after them.
    remaining: u64,
    padding: u64,
    /// Bytes of the extended headers before the current entry.
    extended: u64,
    /// The zero block behind the last entry was seen.
    ended: bool,
}

impl<R: Stream> TarReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            offset: 0,
            remaining: 0,
            extended: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The stream, standing in the current entry's data.
    pub(crate) fn stream(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Whether the end of the archive was marked, behind the last entry.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// The stream, standing somewhere behind the last entry that was returned.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry, or `None` behind the last.
    ///
    /// A stream that ends between two entries without the two zero blocks counts as complete:
    /// writers forget them, and what the archive's content must be is for a digest to say.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut long_name = None;
        let mut long_link = None;
        let mut pax = Pax::default();
        self.extended = 0;
        loop {
            let more = self.finish_entry()?;
            let start = self.offset;
            let extended = long_name.is_some() || long_link.is_some() || !pax.is_empty();
            let header = if more { self.header()? } else { None };
            let Some(header) = header else {
                return if extended {
                    Err(self.truncated())
                } else {
                    Ok(None)
                };
            };
            let bad = |reason: String| TarError::Header {
                offset: start,
                reason,
            };
            let size = number("size", &header.as_old().size, header.entry_size(), start)?;
            match header.entry_type() {
                EntryType::GNULongName => long_name = Some(self.long_value(size, start)?),
                EntryType::GNULongLink => long_link = Some(self.long_value(size, start)?),
                EntryType::XHeader => {
                    let records = self.extended(size, start)?;
                    pax.read(&records).map_err(bad)?;
                }
                // Defaults for all later entries; Docker and containerd ignore them too.
                EntryType::XGlobalHeader => drop(self.extended(size, start)?),
                // A volume label names the archive, not a file.
                other if other.as_byte() == b'V' => self.begin_data(size, start)?,
                _ => {
                    return self
                        .entry(&header, long_name, long_link, pax, start)
                        .map(Some);
                }
            }
        }
    }

    /// Reads the current entry's data; `Ok(0)` behind its end.
    pub(crate) fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let want = self.remaining.min(buffer.len() as u64) as usize;
        if want == 0 {
            return Ok(0);
        }
        let offset = self.offset;
        let count = self
            .inner
            .read(&mut buffer[..want])
            .map_err(|source| TarError::Read { offset, source })?;
        if count == 0 {
            return Err(self.truncated());
        }
        self.offset += count as u64;
        self.remaining -= count as u64;
        Ok(count)
    }

    fn truncated(&self) -> TarError {
        TarError::Truncated {
            offset: self.offset,
        }
    }

    fn begin_data(&mut self, size: u64, start: u64) -> Result<(), TarError> {
        if size > i64::MAX as u64 {
            let reason = format!("an entry of {size} bytes");
            return Err(TarError::Header {
                offset: start,
                reason,
            });
        }
        self.remaining = size;
        self.padding = size.next_multiple_of(BLOCK) - size;
        Ok(())
    }

    /// Passes over what is left of the current entry; false where the stream ends in the padding
    /// behind its data, which umoci and others leave out at the end of an archive.
    fn finish_entry(&mut self) -> Result<bool, TarError> {
        let (remaining, padding) = (self.remaining, self.padding);
        (self.remaining, self.padding) = (0, 0);
        self.skip(remaining)?;
        match self.skip(padding) {
            Err(TarError::Truncated { .. }) => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn skip(&mut self, count: u64) -> Result<(), TarError> {
        if count > 0 {
            self.inner
                .skip(count)
                .map_err(|source| match source.kind() {
                    io::ErrorKind::UnexpectedEof => self.truncated(),
                    _ => TarError::Read {
                        offset: self.offset,
                        source,
                    },
                })?;
            self.offset += count;
        }
        Ok(())
    }

    /// One block, or `None` at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK as usize]>, TarError> {
        let mut block = [0; BLOCK as usize];
        let mut filled = 0;
        while filled < block.len() {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.truncated()),
                Ok(count) => {
                    filled += count;
                    self.offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(TarError::Read {
                        offset: self.offset,
                        source,
                    });
                }
            }
        }
        Ok(Some(block))
    }

    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let start = self.offset;
        let Some(block) = self.block()? else {
            return Ok(None);
        };
        if block.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let bad = |reason: String| TarError::Header {
            offset: start,
            reason,
        };
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                if (148..156).contains(&at) {
                    32
                } else {
                    u32::from(*byte)
                }
            })
            .sum();
        if header.cksum().map_err(|e| bad(e.to_string()))? != sum {
            return Err(bad("the checksum does not match".into()));
        }
        Ok(Some(header))
    }

    /// The whole data of an extended header.
    fn extended(&mut self, size: u64, start: u64) -> Result<Vec<u8>, TarError> {
        self.extended = self.extended.saturating_add(size);
        if self.extended > MAX_EXTENDED {
            let reason = format!(
                "extended headers of {} bytes before one entry, at most {MAX_EXTENDED}",
                self.extended
            );
            return Err(TarError::Header {
                offset: start,
                reason,
            });
        }
        self.begin_data(size, start)?;
        let mut data = vec![0; size as usize];
        let mut filled = 0;
        while filled < data.len() {
            filled += self.read_data(&mut data[filled..])?;
        }
        Ok(data)
    }

    /// A GNU long name: up to its first NUL.
    fn long_value(&mut self, size: u64, start: u64) -> Result<Vec<u8>, TarError> {
        let mut value = self.extended(size, start)?;
        if let Some(end) = value.iter().position(|byte| *byte == 0) {
            value.truncate(end);
        }
        Ok(value)
    }

    fn entry(
        &mut self,
        header: &Header,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        pax: Pax,
        start: u64,
    ) -> Result<Entry, TarError> {
        let bad = |reason: String| TarError::Header {
            offset: start,
            reason,
        };
        let field = |what: &str, e: io::Error| bad(format!("{what}: {e}"));
        let id = |what: &str, value: u64| match u32::try_from(value) {
            // The kernel reads -1 as "leave as it is".
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(bad(format!("{what} {value} is out of range"))),
        };
        let name = pax
            .path
            .or(long_name)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = pax
            .link
            .or(long_link)
            .or_else(|| header.link_name_bytes().map(|link| link.into_owned()))
            .unwrap_or_default();
        let entry_type = header.entry_type();
        let kind = match entry_type {
            // Before POSIX, a directory was a file whose name ends in a slash.
            EntryType::Regular if header.as_ustar().is_none() && name.ends_with(b"/") => {
                Kind::Directory
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::HardLink,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => Kind::CharDevice,
            EntryType::Block => Kind::BlockDevice,
            other => {
                return Err(bad(format!(
                    "`{}` has type {:?}, which no layer may contain",
                    String::from_utf8_lossy(&name),
                    char::from(other.as_byte())
                )));
            }
        };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => (
                header
                    .device_major()
                    .map_err(|e| field("device major", e))?
                    .unwrap_or(0),
                header
                    .device_minor()
                    .map_err(|e| field("device minor", e))?
                    .unwrap_or(0),
            ),
            _ => (0, 0),
        };
        let uid = match pax.uid {
            Some(uid) => uid,
            None => number("uid", &header.as_old().uid, header.uid(), start)?,
        };
        let gid = match pax.gid {
            Some(gid) => gid,
            None => number("gid", &header.as_old().gid, header.gid(), start)?,
        };
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => (
                seconds(&header.as_old().mtime).map_err(|e| field("mtime", e))?,
                0,
            ),
        };
        // Only files have data; a size on anything else is a hint of some old writer.
        let stored = match kind {
            Kind::File => match pax.size {
                Some(size) => size,
                None => number("size", &header.as_old().size, header.entry_size(), start)?,
            },
            _ => 0,
        };
        self.begin_data(stored, start)?;
        let mut entry = Entry {
            name,
            link,
            kind,
            mode: number(
                "mode",
                &header.as_old().mode,
                header.mode().map(u64::from),
                start,
            )? as u32
                & 0o7777,
            uid: id("uid", uid)?,
            gid: id("gid", gid)?,
            mtime,
            device,
            xattrs: pax.xattrs,
            size: stored,
            extents: None,
            data: (self.offset, stored),
        };
        if entry_type == EntryType::GNUSparse {
            self.sparse_gnu(header, &mut entry, start)?;
        } else if let Some(sparse) = pax.sparse.filter(|_| kind == Kind::File) {
            self.sparse_pax(sparse, &mut entry, start)?;
        }
        Ok(entry)
    }
}
