//! The log of a task as the shim writes it: one JSON object a line, as Docker's json-file driver,
//! in a file that is rotated to `.1`, `.2`...

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::iter;
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
    /// The file that is being read, whatever it is called by now; `None` before the first.
    current: Option<BufReader<File>>,
    /// A line whose end is not written yet.
    partial: Vec<u8>,
}

/// A file, by whatever name: device and inode.
type Id = (u64, u64);

/// One of the files of a log.
struct Found {
    path: PathBuf,
    id: Id,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

/// Files of one log are looked at again, because they moved meanwhile, this often at most.
const LOOKS: usize = 100;

impl LogReader {
    /// At the beginning of the oldest file.
    pub(super) fn open(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            current: None,
            partial: Vec::new(),
        }
    }

    /// The next entry; `None` when there is none yet.
    pub(super) fn next(&mut self) -> io::Result<Option<LogEntry>> {
        loop {
            if let Some(entry) = self.entry()? {
                return Ok(Some(entry));
            }
            let Some(newer) = self.newer()? else {
                return Ok(None);
            };
            // A line may have been added between the look and the rename.
            if let Some(entry) = self.entry()? {
                return Ok(Some(entry));
            }
            self.partial.clear();
            self.current = Some(BufReader::new(newer));
        }
    }

    /// The next entry of the file that is being read.
    fn entry(&mut self) -> io::Result<Option<LogEntry>> {
        let Some(reader) = &mut self.current else {
            return Ok(None);
        };
        loop {
            reader.read_until(b'\n', &mut self.partial)?;
            if !self.partial.ends_with(b"\n") {
                return Ok(None);
            }
            // One that is none was cut off by a crash, with the next one behind it.
            let entry = parse(&self.partial);
            self.partial.clear();
            if entry.is_some() {
                return Ok(entry);
            }
        }
    }

    /// The file after the one that is being read; `None` while that one is the newest. Names say nothing of what
    /// has been read: each rotation moves all files on by one.
    fn newer(&self) -> io::Result<Option<File>> {
        let ours = match &self.current {
            Some(reader) => Some(reader.get_ref().metadata()?),
            None => None,
        };
        loop {
            let files = files(&self.path)?;
            let next = match &ours {
                None => files.last(),
                Some(ours) => match files.iter().position(|file| file.id == id(ours)) {
                    Some(0) => None,
                    Some(n) => files.get(n - 1),
                    // Rotated away: on with the oldest that is left. Or somebody has removed the newest: then
                    // those that are left have been read.
                    None => files
                        .iter()
                        .rfind(|file| file.modified >= (ours.mtime(), ours.mtime_nsec())),
                },
            };
            let Some(next) = next else {
                return Ok(None);
            };
            match File::open(&next.path) {
                Ok(file) if id(&file.metadata()?) == next.id => return Ok(Some(file)),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                // It has moved on meanwhile.
                _ => {}
            }
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

/// The files of a log, the newest first.
fn files(path: &Path) -> io::Result<Vec<Found>> {
    let mut files = look(path)?;
    for _ in 0..LOOKS {
        let before: Vec<Id> = files.iter().map(|file| file.id).collect();
        files = look(path)?;
        // Else a rotation came between.
        if files.iter().map(|file| file.id).eq(before) {
            break;
        }
    }
    Ok(files)
}

fn look(path: &Path) -> io::Result<Vec<Found>> {
    let mut files = Vec::new();
    // In the middle of a rotation one name is free.
    let mut free = 0;
    for path in iter::once(path.to_owned()).chain((1..).map(|n| rotated(path, n))) {
        match fs::metadata(&path) {
            Ok(data) => {
                free = 0;
                files.push(Found {
                    path,
                    id: id(&data),
                    modified: (data.mtime(), data.mtime_nsec()),
                });
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) if free > 0 => break,
            Err(_) => free += 1,
        }
    }
    Ok(files)
}

fn id(data: &fs::Metadata) -> Id {
    (data.dev(), data.ino())
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
        fs::write(rotated(&path, 2), line("a", 1)).unwrap();
        fs::write(rotated(&path, 1), line("b", 2)).unwrap();
        fs::write(&path, line("c", 3)).unwrap();
        let mut reader = LogReader::open(&path);
        assert_eq!(texts(&mut reader), ["a\n", "b\n", "c\n"]);

        let mut file = File::options().append(true).open(&path).unwrap();
        let next = line("d", 4);
        file.write_all(&next.as_bytes()[..10]).unwrap();
        assert!(texts(&mut reader).is_empty());
        file.write_all(&next.as_bytes()[10..]).unwrap();
        fs::rename(&path, rotated(&path, 1)).unwrap();
        fs::write(&path, line("e", 5)).unwrap();
        assert_eq!(texts(&mut reader), ["d\n", "e\n"]);
    }

    /// As the shim does it, keeping `last` older files.
    fn rotate(path: &Path, last: u32) {
        for n in (1..last).rev() {
            let _ = fs::rename(rotated(path, n), rotated(path, n + 1));
        }
        fs::rename(path, rotated(path, 1)).unwrap();
    }

    #[test]
    fn a_reader_that_is_overtaken_by_rotations_misses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        fs::write(&path, line("a", 1)).unwrap();
        let mut reader = LogReader::open(&path);
        assert_eq!(texts(&mut reader), ["a\n"]);
        for (second, text) in (2..).zip(["b", "c", "d"]) {
            rotate(&path, 9);
            fs::write(&path, line(text, second)).unwrap();
        }
        assert_eq!(texts(&mut reader), ["b\n", "c\n", "d\n"]);

        // One that has begun with the oldest, and takes its time.
        let mut slow = LogReader::open(&path);
        for (second, expected) in (5..).zip(["a\n", "b\n", "c\n", "d\n", "e\n", "f\n"]) {
            let entry = slow.next().unwrap().unwrap();
            assert_eq!(String::from_utf8(entry.line).unwrap(), expected);
            if second < 7 {
                rotate(&path, 9);
                let text = ["e", "f"][second as usize - 5];
                fs::write(&path, line(text, second)).unwrap();
            }
        }
        assert!(slow.next().unwrap().is_none());
    }

    #[test]
    fn only_what_is_gone_is_missed_and_nothing_is_read_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        fs::write(&path, line("a", 1) + &line("b", 2)).unwrap();
        let mut reader = LogReader::open(&path);
        assert_eq!(reader.next().unwrap().unwrap().line, b"a\n");
        for (second, text) in (3..).zip(["c", "d", "e"]) {
            rotate(&path, 2);
            fs::write(&path, line(text, second)).unwrap();
        }
        // The file that it reads is still open; `.2` has "c" now.
        assert_eq!(texts(&mut reader), ["b\n", "c\n", "d\n", "e\n"]);
        for (second, text) in (6..).zip(["f", "g", "h", "i"]) {
            rotate(&path, 2);
            fs::write(&path, line(text, second)).unwrap();
        }
        assert_eq!(texts(&mut reader), ["g\n", "h\n", "i\n"]);
        // The current one is removed by somebody: the older ones are not new.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(line("j", 10).as_bytes()).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(texts(&mut reader), ["j\n"]);
        assert!(texts(&mut reader).is_empty());
        fs::write(&path, line("k", 11)).unwrap();
        assert_eq!(texts(&mut reader), ["k\n"]);
    }

    #[test]
    fn quick_rotations_and_a_slow_reader() {
        const LINES: usize = 20_000;
        for kept in [3000, 3] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log.json");
            let theirs = path.clone();
            fs::write(&path, line("0", 0)).unwrap();
            let mut reader = LogReader::open(&path);
            let writer = std::thread::spawn(move || {
                let mut file = File::options().append(true).open(&theirs).unwrap();
                for n in 1..LINES {
                    file.write_all(line(&n.to_string(), 0).as_bytes()).unwrap();
                    // Quick, and at times in a burst; with many kept, each costs many renames.
                    let every = if kept == 3 { 7 } else { 500 };
                    if n % every == 0 {
                        rotate(&theirs, kept);
                        file = File::options()
                            .append(true)
                            .create(true)
                            .open(&theirs)
                            .unwrap();
                    }
                }
            });
            let (mut next, mut read) = (0, 0_u32);
            while next < LINES {
                let Some(entry) = reader.next().unwrap() else {
                    std::thread::yield_now();
                    continue;
                };
                let text = String::from_utf8(entry.line).unwrap();
                let number: usize = text.trim_end().parse().unwrap();
                assert!(number >= next, "{number} after {next}: read twice");
                if kept != 3 {
                    assert_eq!(number, next, "missed");
                }
                next = number + 1;
                read += 1;
                if read.is_multiple_of(100) {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
            writer.join().unwrap();
        }
    }

    #[test]
    fn the_tail_is_counted_over_what_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        let all: String = (0..9).map(|n| line(&n.to_string(), n)).collect();
        fs::write(&path, all).unwrap();
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
