//! Reads a stream in a thread of its own, some pieces ahead of who uses it.

use std::{
    io::{self, Read},
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread::{Builder, Scope, ScopedJoinHandle},
};

/// How much is handed over at once, in bytes.
const PIECE: usize = 256 << 10;
/// So many pieces there are, in all.
const PIECES: usize = 4;

/// Some bytes of the stream: the first ones of the buffer.
type Piece = (Vec<u8>, usize);

/// The stream, for who uses it. Once it is dropped the thread ends, with the read that it is in.
pub(super) struct Ahead {
    full: Receiver<io::Result<Piece>>,
    empty: Sender<Vec<u8>>,
    /// Nobody wants any more.
    over: Arc<AtomicBool>,
    piece: Piece,
    /// How much of the piece was read.
    at: usize,
}

/// The thread.
pub(super) struct Reading<'scope, R>(ScopedJoinHandle<'scope, R>);

/// Begins to read.
pub(super) fn read_ahead<'scope, R: Read + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    from: R,
) -> io::Result<(Ahead, Reading<'scope, R>)> {
    let (empty, buffers) = channel();
    let (pieces, full) = sync_channel(PIECES);
    for _ in 0..PIECES {
        // It cannot fail: the other end is here.
        let _ = empty.send(Vec::new());
    }
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let thread = Builder::new()
        .name("read ahead".into())
        .spawn_scoped(scope, move || fill(from, &buffers, &pieces, &seen))?;
    let ahead = Ahead {
        full,
        empty,
        over,
        piece: Default::default(),
        at: 0,
    };
    Ok((ahead, Reading(thread)))
}

impl<R> Reading<'_, R> {
    /// Waits for the thread, and gives its source back. The stream must be at its end, or dropped.
    pub(super) fn end(self) -> R {
        self.0
            .join()
            .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    }
}

fn fill<R: Read>(
    mut from: R,
    buffers: &Receiver<Vec<u8>>,
    pieces: &SyncSender<io::Result<Piece>>,
    over: &AtomicBool,
) -> R {
    while let Ok(mut buffer) = buffers.recv() {
        buffer.resize(PIECE, 0);
        let (count, failed) = read_full(&mut from, &mut buffer, over);
        let ended = count < PIECE;
        if count > 0 && pieces.send(Ok((buffer, count))).is_err() {
            break;
        }
        if let Some(error) = failed {
            // Nobody may want to know any more.
            let _ = pieces.send(Err(error));
        }
        if ended {
            break;
        }
    }
    from
}

/// Reads until the buffer is full, or there is no more, or it fails, or it is over.
fn read_full(
    from: &mut impl Read,
    buffer: &mut [u8],
    over: &AtomicBool,
) -> (usize, Option<io::Error>) {
    let mut count = 0;
    while count < buffer.len() && !over.load(Ordering::Relaxed) {
        match from.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (count, Some(error)),
        }
    }
    (count, None)
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.1 {
            let used = std::mem::take(&mut self.piece);
            self.at = 0;
            if !used.0.is_empty() {
                // The thread may have read all there is.
                let _ = self.empty.send(used.0);
            }
            match self.full.recv() {
                Ok(piece) => self.piece = piece?,
                Err(_) => return Ok(0),
            }
        }
        let ready = &self.piece.0[self.at..self.piece.1];
        let count = ready.len().min(buffer.len());
        buffer[..count].copy_from_slice(&ready[..count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Gives bytes a few at a time, then fails.
    struct Slow(usize);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.min(buffer.len()).min(1000);
            if count == 0 {
                return Err(io::Error::other("broken"));
            }
            buffer[..count].fill(7);
            self.0 -= count;
            Ok(count)
        }
    }

    #[test]
    fn everything_comes_and_the_source_comes_back() {
        let data: Vec<u8> = (0..3 * PIECE + 17).map(|at| at as u8).collect();
        thread::scope(|scope| {
            let (mut ahead, reading) = read_ahead(scope, data.as_slice()).expect("a thread");
            let mut read = Vec::new();
            ahead.read_to_end(&mut read).expect("all");
            assert!(read == data);
            assert!(reading.end().is_empty(), "all of it was read");
        });
    }

    #[test]
    fn what_comes_before_an_error_is_read_before_it() {
        thread::scope(|scope| {
            let (mut ahead, _) = read_ahead(scope, Slow(PIECE + 10)).expect("a thread");
            let mut read = Vec::new();
            let error = ahead.read_to_end(&mut read).expect_err("broken");
            assert_eq!(
                (read.len(), error.to_string().as_str()),
                (PIECE + 10, "broken")
            );
        });
    }

    #[test]
    fn who_stops_early_ends_the_thread() {
        thread::scope(|scope| {
            let (mut ahead, reading) = read_ahead(scope, io::repeat(1)).expect("a thread");
            ahead.read_exact(&mut [0; 10]).expect("some");
            drop(ahead);
            reading.end();
        });
    }
}
