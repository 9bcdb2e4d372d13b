//! The log of a task as the shim writes it: one JSON object a line, as Docker's json-file driver,
//! in a file that is rotated to `.1`, `.2`...

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fairlead_api::v1::{LogEntry, Stream};
use serde::Deserialize;

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    time: String,
}

/// Where a reader is.
#[derive(Debug)]
pub(super) struct LogReader {
    path: PathBuf,
    /// Older files that are still to be read, the oldest last.
    older: Vec<PathBuf>,
    current: Option<BufReader<File>>,
    /// A line whose end is not written yet.
    partial: Vec<u8>,
}

impl LogReader {
    /// At the beginning of the oldest file.
    pub(super) fn open(path: &Path) -> Self {
        let older = (1..)
            .map(|n| rotated(path, n))
            .take_while(|path| path.exists())
            .collect();
        Self {
            path: path.to_owned(),
            older,
            current: None,
            partial: Vec::new(),
        }
    }

    /// The next entry; `None` when there is none yet.
    pub(super) fn next(&mut self) -> io::Result<Option<LogEntry>> {
        loop {
            let Some(reader) = &mut self.current else {
                let path = self.older.pop();
                let last = path.is_none();
                match File::open(path.as_ref().unwrap_or(&self.path)) {
                    Ok(file) => self.current = Some(BufReader::new(file)),
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Err(_) if last => return Ok(None),
                    Err(_) => {}
                }
                continue;
            };
            reader.read_until(b'\n', &mut self.partial)?;
            if self.partial.ends_with(b"\n") {
                let line = std::mem::take(&mut self.partial);
                match parse(&line) {
                    Some(entry) => return Ok(Some(entry)),
                    // A line that was cut off by a crash, with the next one behind it.
                    None => continue,
                }
            }
            // The end of this file: of one that is no longer written to, for good.
            if self.older.is_empty() && self.is_current()? {
                return Ok(None);
            }
            // A line may have been added between the look and the rename.
            if let Some(reader) = &mut self.current {
                reader.read_until(b'\n', &mut self.partial)?;
                if self.partial.ends_with(b"\n") {
                    let line = std::mem::take(&mut self.partial);
                    if let Some(entry) = parse(&line) {
                        return Ok(Some(entry));
                    }
                    continue;
                }
            }
            self.partial.clear();
            self.current = None;
        }
    }

    /// Whether the file being read is the one that is written to.
    fn is_current(&self) -> io::Result<bool> {
        let Some(reader) = &self.current else {
            return Ok(false);
        };
        let ours = reader.get_ref().metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(named) => Ok(ours.ino() == named.ino() && ours.dev() == named.dev()),
            // Between two steps of a rotation, or removed with the task.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Reads to the end and keeps the last `count` entries that `wanted` takes.
    pub(super) fn tail(
        &mut self,
        count: usize,
        wanted: impl Fn(&LogEntry) -> bool,
    ) -> io::Result<VecDeque<LogEntry>> {
        let mut kept = VecDeque::new();
        while let Some(entry) = self.next()? {
            if !wanted(&entry) {
                continue;
            }
            kept.push_back(entry);
            if kept.len() > count {
                kept.pop_front();
            }
        }
        Ok(kept)
    }
}

fn rotated(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    PathBuf::from(name)
}

fn parse(line: &[u8]) -> Option<LogEntry> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let stream = match line.stream.as_str() {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => Stream::Unspecified,
    };
    Some(LogEntry {
        timestamp: timestamp(&line.time)?,
        stream: stream as i32,
        line: line.log.into_bytes(),
    })
}

/// RFC 3339 in UTC, `2006-01-02T15:04:05.999999999Z`, in nanoseconds since the epoch.
fn timestamp(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>());
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut clock = clock.splitn(3, ':').map(|part| part.parse::<u64>());
    let (hour, minute, second) = (
        clock.next()?.ok()?,
        clock.next()?.ok()?,
        clock.next()?.ok()?,
    );
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u64 = format!("{fraction:0<9}").parse().ok()?;
    // Days since the epoch in the proleptic Gregorian calendar, years beginning in March.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let era = y.div_euclid(400);
    let of_era = y.rem_euclid(400);
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * m + 2) / 5 + day
        - 719_469;
    let seconds =
        u64::try_from(days).ok()?.checked_mul(86_400)? + hour * 3600 + minute * 60 + second;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn line(text: &str, second: u32) -> String {
        format!(
            "{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-20T09:12:{second:02}.5Z\"}}\n"
        )
    }

    fn texts(reader: &mut LogReader) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(entry) = reader.next().unwrap() {
            all.push(String::from_utf8(entry.line).unwrap());
        }
        all
    }

    #[test]
    fn times_are_nanoseconds() {
        assert_eq!(timestamp("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(
            timestamp("2026-11-20T09:12:07.25Z"),
            Some(1_795_165_927_250_000_000)
        );
        assert_eq!(
            timestamp("2024-02-29T00:00:00Z"),
            Some(1_709_164_800_000_000_000)
        );
        for bad in [
            "",
            "2026-11-20",
            "2026-11-20T09:12:07",
            "x-11-20T09:12:07Z",
            "2026-11-20T09:12:07.x1Z",
        ] {
            assert_eq!(timestamp(bad), None, "{bad}");
        }
    }

    #[test]
    fn rotated_files_come_first_and_new_lines_follow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        std::fs::write(rotated(&path, 2), line("a", 1)).unwrap();
        std::fs::write(rotated(&path, 1), line("b", 2)).unwrap();
        std::fs::write(&path, line("c", 3)).unwrap();
        let mut reader = LogReader::open(&path);
        assert_eq!(texts(&mut reader), ["a\n", "b\n", "c\n"]);

        let mut file = File::options().append(true).open(&path).unwrap();
        let next = line("d", 4);
        file.write_all(&next.as_bytes()[..10]).unwrap();
        assert!(texts(&mut reader).is_empty());
        file.write_all(&next.as_bytes()[10..]).unwrap();
        std::fs::rename(&path, rotated(&path, 1)).unwrap();
        std::fs::write(&path, line("e", 5)).unwrap();
        assert_eq!(texts(&mut reader), ["d\n", "e\n"]);
    }

    #[test]
    fn the_tail_is_counted_over_what_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        let all: String = (0..9).map(|n| line(&n.to_string(), n)).collect();
        std::fs::write(&path, all).unwrap();
        let kept = LogReader::open(&path).tail(2, |_| true).unwrap();
        assert_eq!(kept.iter().map(|e| e.line[0]).collect::<Vec<_>>(), b"78");
        assert!(
            LogReader::open(&dir.path().join("none"))
                .tail(2, |_| true)
                .unwrap()
                .is_empty()
        );
    }
}
