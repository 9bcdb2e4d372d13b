//! Sparse files: GNU's own entry type, and GNU's records in PAX headers (versions 0.0, 0.1, 1.0).
//! Described in the GNU tar manual, "Storing Sparse Files".

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::{BLOCK, Entry, Stream, TarError, TarReader, pax::PaxSparse};

/// The most extents that one file may have; more is an attempt to fill memory.
const MAX_EXTENTS: usize = 1 << 20;

/// A run of data in a sparse file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl<R: Stream> TarReader<R> {
    /// The map of an `S` entry: four extents in the header, more in blocks behind it.
    pub(super) fn sparse_gnu(
        &mut self,
        header: &Header,
        entry: &mut Entry,
        start: u64,
    ) -> Result<(), TarError> {
        let bad = |reason: String| TarError::Header {
            offset: start,
            reason,
        };
        let gnu = header
            .as_gnu()
            .ok_or_else(|| bad("a sparse file in no GNU header".into()))?;
        let mut extents = Vec::new();
        let mut add = |sparse: &[GnuSparseHeader]| {
            for extent in sparse.iter().filter(|extent| !extent.is_empty()) {
                let offset = extent.offset().map_err(|e| bad(e.to_string()))?;
                let length = extent.length().map_err(|e| bad(e.to_string()))?;
                extents.push(Extent { offset, length });
            }
            if extents.len() > MAX_EXTENTS {
                return Err(bad(format!(
                    "a sparse file of more than {MAX_EXTENTS} extents"
                )));
            }
            Ok(())
        };
        add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let block = self.block()?.ok_or_else(|| self.truncated())?;
            let mut extension = GnuExtSparseHeader::new();
            extension.as_mut_bytes().copy_from_slice(&block);
            add(&extension.sparse)?;
            more = extension.is_extended();
        }
        let real_size = gnu.real_size().map_err(|e| bad(e.to_string()))?;
        entry.data.0 = self.offset;
        finish(entry, extents, real_size, start)
    }

    /// The map of an ordinary file whose PAX header calls it sparse.
    pub(super) fn sparse_pax(
        &mut self,
        sparse: PaxSparse,
        entry: &mut Entry,
        start: u64,
    ) -> Result<(), TarError> {
        let bad = |reason: &str| TarError::Header {
            offset: start,
            reason: reason.to_owned(),
        };
        let numbers = if sparse.map_in_data {
            self.map_in_data(start)?
        } else {
            sparse.numbers
        };
        let (pairs, rest) = numbers.as_chunks::<2>();
        if !rest.is_empty() || pairs.len() > MAX_EXTENTS {
            return Err(bad(
                "a sparse map with an odd or excessive number of values",
            ));
        }
        let extents = pairs.iter().map(|[offset, length]| Extent {
            offset: *offset,
            length: *length,
        });
        let real_size = sparse
            .real_size
            .ok_or_else(|| bad("a sparse file without a real size"))?;
        entry.data = (self.offset, self.remaining);
        finish(entry, extents.collect(), real_size, start)
    }

    /// Version 1.0: decimal numbers, one per line, the first being the count of extents, padded
    /// to whole blocks.
    fn map_in_data(&mut self, start: u64) -> Result<Vec<u64>, TarError> {
        let bad = |reason: &str| TarError::Header {
            offset: start,
            reason: reason.to_owned(),
        };
        let mut numbers = Vec::new();
        let mut wanted = None;
        let mut digits = String::new();
        loop {
            let mut block = [0; BLOCK as usize];
            let mut filled = 0;
            while filled < block.len() {
                match self.read_data(&mut block[filled..])? {
                    0 => return Err(bad("a sparse map that does not end")),
                    count => filled += count,
                }
            }
            for byte in block {
                match byte {
                    b'0'..=b'9' if digits.len() < 20 => digits.push(char::from(byte)),
                    b'\n' => {
                        let number: u64 = digits
                            .parse()
                            .map_err(|_| bad("a sparse map with a bad number"))?;
                        digits.clear();
                        match wanted {
                            None if number > MAX_EXTENTS as u64 => {
                                return Err(bad("a sparse map with too many extents"));
                            }
                            None => wanted = Some(2 * number as usize),
                            Some(_) => numbers.push(number),
                        }
                    }
                    _ => return Err(bad("a sparse map with a bad number")),
                }
                if wanted == Some(numbers.len()) {
                    return Ok(numbers);
                }
            }
        }
    }
}

/// Accepts a map whose extents ascend, lie inside the file, and account for all stored bytes.
fn finish(
    entry: &mut Entry,
    mut extents: Vec<Extent>,
    real_size: u64,
    start: u64,
) -> Result<(), TarError> {
    let bad = |reason: &str| TarError::Header {
        offset: start,
        reason: reason.to_owned(),
    };
    let (mut end, mut stored) = (0, 0u64);
    for extent in &extents {
        if extent.offset < end {
            return Err(bad("the extents of a sparse file overlap or do not ascend"));
        }
        end = extent
            .offset
            .checked_add(extent.length)
            .filter(|end| *end <= real_size)
            .ok_or_else(|| bad("an extent of a sparse file lies outside the file"))?;
        stored += extent.length;
    }
    if stored != entry.data.1 {
        return Err(bad("the extents of a sparse file do not match its data"));
    }
    extents.retain(|extent| extent.length > 0);
    entry.size = real_size;
    entry.extents = Some(extents);
    Ok(())
}
