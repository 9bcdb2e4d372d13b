//! The log file: JSON lines as Docker's json-file driver writes them, rotated by size.

use container::shim::LogOptions;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// One entry: a line with its newline, or a part of one without.
pub fn entry(text: &[u8], stream: &str, unix_nanos: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 80);
    out.extend_from_slice(b"{\"log\":");
    // Writing a string to memory cannot fail.
    let _ = serde_json::to_writer(&mut out, &String::from_utf8_lossy(text));
    let _ = writeln!(
        out,
        ",\"stream\":\"{stream}\",\"time\":\"{}\"}}",
        rfc3339(unix_nanos)
    );
    out
}

/// `2006-01-02T15:04:05.999999999Z`.
fn rfc3339(unix_nanos: u64) -> String {
    let (seconds, nanos) = (unix_nanos / 1_000_000_000, unix_nanos % 1_000_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days to a date in the proleptic Gregorian calendar, in years that begin in March, so that
    // the leap day is the last one.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    let second = second % 60;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// The current file and what it needs to be rotated.
pub struct LogFile {
    options: LogOptions,
    file: Option<File>,
    size: u64,
}

impl LogFile {
    /// Opens the log, appending to what is there.
    pub fn open(options: LogOptions) -> io::Result<Self> {
        let mut log = Self {
            options,
            file: None,
            size: 0,
        };
        log.reopen()?;
        Ok(log)
    }

    fn reopen(&mut self) -> io::Result<()> {
        // Non-blocking, so that a FIFO under this name cannot stop us here.
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&self.options.path)?;
        let data = file.metadata()?;
        if !data.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        self.size = data.len();
        self.file = Some(file);
        Ok(())
    }

    /// Writes one entry, all of it or nothing.
    pub fn write(&mut self, entry: &[u8]) -> io::Result<()> {
        let length = entry.len() as u64;
        if self.options.max_bytes > 0
            && self.size > 0
            && self.size + length > self.options.max_bytes
        {
            self.rotate()?;
        }
        if self.file.is_none() {
            self.reopen()?;
        }
        let Some(file) = &mut self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if let Err(error) = file.write_all(entry) {
            // Half a line would spoil the next one too.
            let _ = file.set_len(self.size);
            return Err(error);
        }
        self.size += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let last = self.options.max_files.max(1) - 1;
        if last == 0 {
            ignore_absent(fs::remove_file(&self.options.path))?;
        } else {
            for number in (1..last).rev() {
                ignore_absent(fs::rename(self.numbered(number), self.numbered(number + 1)))?;
            }
            ignore_absent(fs::rename(&self.options.path, self.numbered(1)))?;
        }
        // Also where the next one cannot be begun: otherwise each entry would move the older ones on again.
        self.size = 0;
        self.reopen()
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name: OsString = self.options.path.clone().into();
        name.push(format!(".{number}"));
        name.into()
    }
}

fn ignore_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000005Z"),
            (951_782_400, "2000-02-29T00:00:00.000000005Z"),
            (951_868_799, "2000-02-29T23:59:59.000000005Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000000005Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000005Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1_000_000_000 + 5), expected);
        }
    }

    #[test]
    fn entries_are_json() {
        let entry = entry(b"a \"b\"\t\xff\x01\n", "stderr", 0);
        let value: serde_json::Value = serde_json::from_slice(&entry).expect("json");
        assert_eq!(value["log"], "a \"b\"\t\u{fffd}\u{1}\n");
        assert_eq!(value["stream"], "stderr");
        assert_eq!(entry.iter().filter(|b| **b == b'\n').count(), 1);
    }

    #[test]
    fn rotation_keeps_the_newest() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log");
        let options = LogOptions {
            path: path.clone(),
            max_bytes: 10,
            max_files: 3,
        };
        let mut log = LogFile::open(options).expect("open");
        for n in 0..9 {
            log.write(format!("line{n}").as_bytes()).expect("write");
        }
        let read = |p: PathBuf| fs::read_to_string(p).expect("read");
        assert_eq!(read(path.clone()), "line8");
        assert_eq!(read(log.numbered(1)), "line6line7");
        assert_eq!(read(log.numbered(2)), "line4line5");
        assert!(!log.numbered(3).exists());
    }

    #[test]
    fn one_file_only() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log");
        let options = LogOptions {
            path: path.clone(),
            max_bytes: 10,
            max_files: 1,
        };
        let mut log = LogFile::open(options).expect("open");
        for n in 0..5 {
            log.write(format!("line{n}").as_bytes()).expect("write");
        }
        assert_eq!(fs::read_to_string(&path).expect("read"), "line4");
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 1);
    }

    #[test]
    fn a_file_that_somebody_removed() {
        for max_files in [1, 2] {
            let dir = tempfile::tempdir().expect("tempdir");
            let path = dir.path().join("log");
            let options = LogOptions {
                path: path.clone(),
                max_bytes: 10,
                max_files,
            };
            let mut log = LogFile::open(options).expect("open");
            log.write(b"line0line1").expect("write");
            fs::remove_file(&path).expect("remove");
            log.write(b"line2").expect("write");
            assert_eq!(fs::read_to_string(&path).expect("read"), "line2");
        }
    }

    #[test]
    fn a_log_that_is_no_file() {
        let dir = tempfile::tempdir().expect("tempdir");
        let options = LogOptions {
            path: dir.path().into(),
            max_bytes: 0,
            max_files: 1,
        };
        assert!(LogFile::open(options).is_err());
    }
}
