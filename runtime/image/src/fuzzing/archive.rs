//! A tar writer that writes what it is told, also what no archiver would; and the mending of headers
//! that a fuzzer has spoiled.

use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use crate::tarball::{Stream, TarError, TarReader};

const BLOCK: usize = 512;
/// The length of the fields for a name and for the target of a link.
const NAME: usize = 100;
/// So many headers of one archive are mended: each costs a walk through those before it.
const MENDED: usize = 64;

/// How a header is laid out, and where a long name goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As before POSIX.
    Old,
    Ustar,
    Gnu,
    /// With a PAX header before it.
    Pax,
}

/// Offsets and lengths of a sparse file's data, and the size of the file, in bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Sparse {
    pub(super) extents: Vec<(u64, u64)>,
    pub(super) size: u64,
}

/// One member of an archive.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: EntryType,
    pub(super) form: Form,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since the epoch.
    pub(super) mtime: i64,
    pub(super) device: (u32, u32),
    pub(super) data: Vec<u8>,
    /// The header says so, whatever data follows.
    pub(super) size: Option<u64>,
    /// For the PAX header.
    pub(super) records: Vec<(Vec<u8>, Vec<u8>)>,
    /// The map of an entry of the kind `S`.
    pub(super) sparse: Option<Sparse>,
}

impl Member {
    pub(super) fn new(kind: EntryType, name: Vec<u8>) -> Self {
        Self {
            name,
            link: Vec::new(),
            kind,
            form: Form::Gnu,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
            device: (0, 0),
            data: Vec::new(),
            size: None,
            records: Vec::new(),
            sparse: None,
        }
    }

    /// Appends it to an archive.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let mut records = self.records.clone();
        for (key, kind, value) in [
            (&b"path"[..], EntryType::GNULongName, &self.name),
            (b"linkpath", EntryType::GNULongLink, &self.link),
        ] {
            if self.form == Form::Pax {
                if !value.is_empty() {
                    records.push((key.to_vec(), value.clone()));
                }
            } else if value.len() > NAME {
                let mut long = Self::new(kind, b"././@LongLink".to_vec());
                long.data = [value, &b"\0"[..]].concat();
                long.block(to);
            }
        }
        if !records.is_empty() {
            let mut extended = Self::new(EntryType::XHeader, b"PaxHeaders/x".to_vec());
            extended.form = Form::Ustar;
            extended.data = records
                .iter()
                .flat_map(|(key, value)| record(key, value))
                .collect();
            extended.block(to);
        }
        self.block(to);
    }

    /// The header and the data.
    fn block(&self, to: &mut Vec<u8>) {
        let mut header = match self.form {
            Form::Old => Header::new_old(),
            Form::Ustar | Form::Pax => Header::new_ustar(),
            Form::Gnu => Header::new_gnu(),
        };
        header.set_entry_type(self.kind);
        header.set_mode(self.mode);
        header.set_uid(self.uid.into());
        header.set_gid(self.gid.into());
        header.set_size(self.size.unwrap_or(self.data.len() as u64));
        match u64::try_from(self.mtime) {
            Ok(mtime) => header.set_mtime(mtime),
            Err(_) => {
                let field = &mut header.as_old_mut().mtime;
                field[..4].fill(0xff);
                field[4..].copy_from_slice(&self.mtime.to_be_bytes());
            }
        }
        let old = header.as_old_mut();
        for (field, value) in [(&mut old.name, &self.name), (&mut old.linkname, &self.link)] {
            let length = value.len().min(NAME);
            field[..length].copy_from_slice(&value[..length]);
        }
        // The oldest form has no place for them.
        let _ = header.set_device_major(self.device.0);
        let _ = header.set_device_minor(self.device.1);
        let mut more = Vec::new();
        if let (Some(sparse), Some(gnu)) = (&self.sparse, header.as_gnu_mut()) {
            octal(&mut gnu.realsize, sparse.size);
            let (here, rest) = sparse.extents.split_at(sparse.extents.len().min(4));
            fill(&mut gnu.sparse, here);
            gnu.isextended[0] = u8::from(!rest.is_empty());
            let blocks = rest.chunks(21);
            let last = blocks.len().saturating_sub(1);
            for (at, extents) in blocks.enumerate() {
                let mut block = GnuExtSparseHeader::new();
                fill(&mut block.sparse, extents);
                block.isextended[0] = u8::from(at < last);
                more.extend_from_slice(block.as_bytes());
            }
        }
        header.set_cksum();
        to.extend_from_slice(header.as_bytes());
        to.extend_from_slice(&more);
        to.extend_from_slice(&self.data);
        to.resize(to.len().next_multiple_of(BLOCK), 0);
    }
}

fn fill(fields: &mut [GnuSparseHeader], extents: &[(u64, u64)]) {
    for (field, (offset, length)) in fields.iter_mut().zip(extents) {
        octal(&mut field.offset, *offset);
        octal(&mut field.numbytes, *length);
    }
}

fn octal(field: &mut [u8; 12], value: u64) {
    field.copy_from_slice(format!("{:011o}\0", value & 0o77_777_777_777).as_bytes());
}

/// `length key=value\n`, where the length counts itself.
pub(super) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = [b" ", key, b"=", value, b"\n"].concat();
    let mut length = body.len();
    loop {
        let digits = length.to_string();
        if digits.len() + body.len() == length {
            return [digits.as_bytes(), &body].concat();
        }
        length = digits.len() + body.len();
    }
}

/// Makes the checksums of a tar archive right, so that a reader goes on to what they protect. Changes
/// nothing in what is no tar archive, or a compressed one.
///
/// Who can tell where a header stands is the reader: sizes may come from a PAX header, and sparse
/// files have blocks behind theirs.
pub fn mend(archive: &mut [u8]) {
    for _ in 0..MENDED {
        let mut reader = TarReader::new(Bytes(archive));
        let at = loop {
            match reader.next_entry() {
                Ok(Some(_)) => {}
                Err(TarError::Header { offset, .. }) => break offset as usize,
                Ok(None) | Err(_) => return,
            }
        };
        let Some(block) = archive.get_mut(at..at + BLOCK) else {
            return;
        };
        let mut header = Header::from_byte_slice(block).clone();
        header.set_cksum();
        if header.as_bytes() == block {
            // It is something else that is wrong.
            return;
        }
        block.copy_from_slice(header.as_bytes());
    }
}

struct Bytes<'a>(&'a [u8]);

impl Read for Bytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Stream for Bytes<'_> {}
