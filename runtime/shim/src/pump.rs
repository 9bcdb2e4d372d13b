//! From a stream of bytes to lines.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;

/// Longer lines are split, as Docker does.
pub const MAX_LINE: usize = 16 << 10;

/// One of the task's two outputs.
pub struct Stream {
    pub name: &'static str,
    file: Option<File>,
    pending: Vec<u8>,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Data,
    Nothing,
    End,
}

impl Stream {
    /// `fd` must not block.
    pub fn new(name: &'static str, fd: OwnedFd) -> Self {
        Self {
            name,
            file: Some(File::from(fd)),
            pending: Vec::new(),
        }
    }

    /// What to poll; `None` after the end.
    pub fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Reads once and hands over every line that is complete, at the end also the rest.
    pub fn read(&mut self, buffer: &mut [u8], mut line: impl FnMut(&[u8])) -> Progress {
        let Some(file) = &mut self.file else {
            return Progress::End;
        };
        let result = file.read(buffer);
        let length = match result {
            Ok(length) => length,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Progress::Nothing;
            }
            Err(_) => 0,
        };
        if length == 0 {
            self.file = None;
            if !self.pending.is_empty() {
                line(&self.pending);
            }
            self.pending = Vec::new();
            return Progress::End;
        }
        self.pending
            .extend_from_slice(buffer.get(..length).unwrap_or_default());
        let mut rest = self.pending.as_slice();
        while let Some(end) = complete(rest) {
            let (head, tail) = rest.split_at(end);
            line(head);
            rest = tail;
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
        Progress::Data
    }
}

/// Where the first complete piece of `bytes` ends.
fn complete(bytes: &[u8]) -> Option<usize> {
    let window = bytes.get(..MAX_LINE).unwrap_or(bytes);
    if let Some(newline) = window.iter().position(|b| *b == b'\n') {
        return Some(newline + 1);
    }
    if bytes.len() < MAX_LINE {
        return None;
    }
    // Not through the middle of a character.
    Some(match std::str::from_utf8(window) {
        Err(e) if e.error_len().is_none() && e.valid_up_to() > 0 => e.valid_up_to(),
        _ => MAX_LINE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines(input: &[u8], buffer: usize) -> Vec<Vec<u8>> {
        let (read, write) = nix::unistd::pipe().expect("pipe");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || File::from(write).write_all(&input));
        let mut stream = Stream::new("stdout", read);
        let (mut lines, mut buffer) = (Vec::new(), vec![0; buffer]);
        while stream.read(&mut buffer, |line| lines.push(line.to_vec())) != Progress::End {}
        writer.join().expect("join").expect("write");
        lines
    }

    #[test]
    fn lines_and_the_rest() {
        for buffer in [1, 2, 100] {
            assert_eq!(
                lines(b"one\n\ntwo\nrest", buffer),
                [&b"one\n"[..], b"\n", b"two\n", b"rest"]
            );
        }
        assert!(lines(b"", 10).is_empty());
    }

    #[test]
    fn long_lines_are_split_between_characters() {
        let mut input = vec![b'x'; MAX_LINE - 1];
        input.extend("é and more\n".as_bytes());
        let pieces = lines(&input, 5000);
        assert_eq!(pieces[0].len(), MAX_LINE - 1);
        assert_eq!(pieces[1], "é and more\n".as_bytes());
        // What is no text is split all the same.
        let pieces = lines(&vec![0xff; 2 * MAX_LINE], 5000);
        assert_eq!(
            pieces.iter().map(Vec::len).collect::<Vec<_>>(),
            [MAX_LINE, MAX_LINE]
        );
    }
}
