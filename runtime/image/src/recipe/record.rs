//! Writes a recipe while a layer is unpacked.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use zstd::Encoder;

use super::{CONTENT, END, LITERAL, MAGIC, MAX_LITERAL, MORE};
use crate::{LayerError, tarball::Stream, unpack::EntryPath};

/// The cheapest that still shrinks headers well: they are much like each other. Still faster ones save
/// no time that could be measured.
const LEVEL: i32 = 1;
/// Records that are compressed at once, in bytes.
const BATCH: usize = 64 << 10;

/// A tar stream whose bytes become literals of a recipe, but for those that are announced as the content
/// of a file.
pub(crate) struct Recorder<R> {
    inner: R,
    recipe: Encoder<'static, File>,
    /// Records to be compressed.
    batch: Vec<u8>,
    /// Bytes that will be one literal.
    literal: Vec<u8>,
    /// So many of the next bytes are a file's content.
    content: u64,
    /// Path and inode of the last file.
    last: (EntryPath, u64),
}

impl<R: Read> Recorder<R> {
    /// Begins the recipe `path`, which must not be there yet.
    pub(crate) fn new(inner: R, path: &Path) -> Result<Self, LayerError> {
        let begin = || {
            let mut file = File::create_new(path)?;
            file.write_all(MAGIC)?;
            Encoder::new(file, LEVEL)
        };
        Ok(Self {
            inner,
            recipe: begin().map_err(LayerError::Recipe)?,
            batch: Vec::with_capacity(BATCH + MAX_LITERAL),
            literal: Vec::with_capacity(MAX_LITERAL),
            content: 0,
            last: Default::default(),
        })
    }

    /// The next `length` bytes are those from `offset` on in the file `path` with this inode.
    pub(crate) fn content(
        &mut self,
        path: &EntryPath,
        inode: u64,
        offset: u64,
        length: u64,
    ) -> Result<(), LayerError> {
        if length == 0 {
            return Ok(());
        }
        self.flush_literal();
        if self.last.1 == inode && self.last.0 == *path {
            self.batch.push(MORE);
        } else {
            self.batch.push(CONTENT);
            number(&mut self.batch, inode);
            number(&mut self.batch, path.as_bytes().len() as u64);
            self.batch.extend_from_slice(path.as_bytes());
            self.last.0.clone_from(path);
            self.last.1 = inode;
        }
        number(&mut self.batch, offset);
        number(&mut self.batch, length);
        self.content = length;
        self.flush_batch().map_err(LayerError::Recipe)
    }

    /// Reads what is left of the stream, and ends the recipe. The caller sees to it that it becomes
    /// durable.
    pub(crate) fn finish(mut self) -> Result<R, LayerError> {
        io::copy(&mut self, &mut io::sink()).map_err(LayerError::of_read)?;
        self.flush_literal();
        self.batch.push(END);
        let written = self.recipe.write_all(&self.batch);
        written
            .and_then(|()| self.recipe.finish())
            .map_err(LayerError::Recipe)?;
        Ok(self.inner)
    }

    fn literal(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = MAX_LITERAL - self.literal.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.literal.extend_from_slice(now);
            bytes = later;
            if self.literal.len() == MAX_LITERAL {
                self.flush_literal();
                self.flush_batch()?;
            }
        }
        Ok(())
    }

    fn flush_literal(&mut self) {
        if !self.literal.is_empty() {
            self.batch.push(LITERAL);
            number(&mut self.batch, self.literal.len() as u64);
            self.batch.append(&mut self.literal);
        }
    }

    fn flush_batch(&mut self) -> io::Result<()> {
        if self.batch.len() >= BATCH {
            self.recipe.write_all(&self.batch)?;
            self.batch.clear();
        }
        Ok(())
    }
}

impl<R: Read> Read for Recorder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.content > 0 {
            let want = self.content.min(buffer.len() as u64) as usize;
            let count = self.inner.read(&mut buffer[..want])?;
            self.content -= count as u64;
            return Ok(count);
        }
        let count = self.inner.read(buffer)?;
        self.literal(&buffer[..count])
            .map_err(|error| io::Error::other(LayerError::Recipe(error)))?;
        Ok(count)
    }
}

impl<R: Read> Stream for Recorder<R> {}

/// Appends a number as LEB128: seven bits a byte, the lowest first.
fn number(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}
