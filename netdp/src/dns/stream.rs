//! DNS messages on TCP: each with its length in two bytes before it (RFC 1035, 4.2.2).

use std::io;

use tokio::net::TcpStream;

/// The next message; `None` when the other side has closed after the last one.
pub(super) async fn read(stream: &TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    if fill(stream, &mut length).await? < length.len() {
        return Ok(None);
    }
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    if fill(stream, &mut message).await? < message.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(message))
}

/// Sends a message, length and all in one piece.
pub(super) async fn write(stream: &TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len())
        .map_err(|_| io::Error::other("a DNS message over 65535 bytes"))?;
    let mut bytes = Vec::with_capacity(2 + message.len());
    bytes.extend(length.to_be_bytes());
    bytes.extend(message);
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until the buffer is full or the stream ends; how many bytes came.
async fn fill(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        stream.readable().await?;
        match stream.try_read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
