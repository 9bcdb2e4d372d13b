//! Compression, told by the first bytes: Docker's old archives have no media types, and media
//! types lie.

use std::io::{self, BufRead, Read};

use crate::LayerError;

/// RFC 1952, section 2.3.1; RFC 8878, sections 3.1.1 and 3.1.2 (skippable frames end in 0..f).
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];

/// The content of `blob`, decompressed where it is compressed.
pub(crate) fn decompress<'a>(
    mut blob: impl BufRead + Send + 'a,
) -> Result<Box<dyn Read + Send + 'a>, LayerError> {
    let start = blob.fill_buf().map_err(LayerError::Read)?;
    let skippable = start.first().is_some_and(|byte| byte & 0xf0 == 0x50)
        && start.get(1..4) == Some(ZSTD_SKIPPABLE);
    Ok(match start {
        _ if start.starts_with(GZIP) => {
            Box::new(Damaged("gzip", flate2::bufread::MultiGzDecoder::new(blob)))
        }
        _ if start.starts_with(ZSTD) || skippable => {
            let decoder = zstd::Decoder::with_buffer(blob).map_err(LayerError::Read)?;
            Box::new(Damaged("zstd", decoder))
        }
        _ if start.starts_with(b"BZh") => return Err(LayerError::Compression("bzip2")),
        _ if start.starts_with(b"\xfd7zXZ\0") => return Err(LayerError::Compression("xz")),
        _ => Box::new(blob),
    })
}

/// Says in its errors which decoder they come from.
struct Damaged<R>(&'static str, R);

impl<R: Read> Read for Damaged<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1
            .read(buffer)
            .map_err(|error| io::Error::new(error.kind(), format!("{} data: {error}", self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory for a layer is bounded, whatever its frames say that they need.
    #[test]
    fn a_longer_window_than_128_mib_is_refused() {
        for (exponent, good) in [(27, true), (28, false), (41, false)] {
            // RFC 8878: a frame of one empty block, with that window.
            let window = (exponent - 10) << 3;
            let frame = [ZSTD, &[0, window, 1, 0, 0]].concat();
            let mut content = decompress(&frame[..]).expect("zstd");
            let read = content.read_to_end(&mut Vec::new());
            assert_eq!(read.is_ok(), good, "2^{exponent}: {read:?}");
        }
    }
}
