//! Archives that travel over the socket in pieces, between blocking code and a stream.

use std::io::{self, Read, Write};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Pieces that wait for the slower side.
const QUEUE: usize = 4;
/// The most bytes of a piece that we send.
const PIECE: usize = 256 << 10;

/// What is written to it goes to the caller. Whoever writes waits for a slow caller; when the caller has
/// gone, writing fails.
pub(super) struct Outgoing<T> {
    sender: mpsc::Sender<Result<T, Status>>,
    message: fn(Vec<u8>) -> T,
    finished: bool,
}

impl<T: Send + 'static> Outgoing<T> {
    /// And the stream that it goes to. `message` makes a message of a piece.
    pub(super) fn new(message: fn(Vec<u8>) -> T) -> (Self, ReceiverStream<Result<T, Status>>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let outgoing = Self {
            sender,
            message,
            finished: false,
        };
        (outgoing, ReceiverStream::new(receiver))
    }

    /// Nothing was left out.
    pub(super) fn finish(mut self) {
        self.finished = true;
    }

    /// Ends the stream with an error.
    pub(super) fn fail(mut self, status: Status) {
        self.finished = true;
        // The caller may have gone.
        let _ = self.sender.blocking_send(Err(status));
    }
}

impl<T> Drop for Outgoing<T> {
    fn drop(&mut self) {
        if !self.finished {
            // Whoever wrote has panicked: what came so far must not look like all.
            let _ = self
                .sender
                .try_send(Err(Status::internal("the daemon failed")));
        }
    }
}

impl<T: Send + 'static> Write for Outgoing<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let piece = &buffer[..buffer.len().min(PIECE)];
        let message = (self.message)(piece.to_vec());
        match self.sender.blocking_send(Ok(message)) {
            Ok(()) => Ok(piece.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a caller sends, to be read by blocking code.
pub(super) struct Incoming {
    receiver: mpsc::Receiver<Piece>,
    current: Vec<u8>,
    position: usize,
    ended: bool,
}

enum Piece {
    Bytes(Vec<u8>),
    /// Nothing was left out.
    End,
}

/// The other end of [`Incoming`].
pub(super) struct Sending(mpsc::Sender<Piece>);

impl Incoming {
    pub(super) fn new() -> (Self, Sending) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let incoming = Self {
            receiver,
            current: Vec::new(),
            position: 0,
            ended: false,
        };
        (incoming, Sending(sender))
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position == self.current.len() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Piece::Bytes(bytes)) => (self.current, self.position) = (bytes, 0),
                Some(Piece::End) => self.ended = true,
                // That is no end of the archive: what came so far may look like a whole one.
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionAborted,
                        "whoever sent the archive went away before its end",
                    ));
                }
            }
        }
        let count = (&self.current[self.position..]).read(buffer)?;
        self.position += count;
        Ok(count)
    }
}

impl Sending {
    /// Passes on what comes, until it ends, breaks off, or is not wanted any more. `piece` takes the
    /// bytes out of a message.
    pub(super) async fn send_all<T>(
        self,
        mut messages: Streaming<T>,
        piece: impl Fn(T) -> Result<Vec<u8>, Status>,
    ) -> Result<(), Status> {
        while let Some(message) = messages.message().await? {
            if self.0.send(Piece::Bytes(piece(message)?)).await.is_err() {
                return Ok(());
            }
        }
        let _ = self.0.send(Piece::End).await;
        Ok(())
    }
}
