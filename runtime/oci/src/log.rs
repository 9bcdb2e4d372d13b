//! Messages: on stderr, or appended to the file of `--log`, where callers look for the reason of
//! a failure.

use crate::args::{Global, LogFormat};
use crate::time;
use std::fs::File;
use std::io::Write;

pub struct Log {
    file: Option<File>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    /// A file that cannot be opened is said on stderr, where the messages then go too.
    pub fn new(global: &Global) -> Self {
        let file = global.log.as_ref().and_then(|path| {
            let opened = File::options().append(true).create(true).open(path);
            opened
                .inspect_err(|error| eprintln!("fairlead-oci: open {}: {error}", path.display()))
                .ok()
        });
        Self {
            file,
            format: global.log_format,
            debug: global.debug,
        }
    }

    pub fn error(&self, message: &str) {
        self.write("error", message);
        if self.file.is_some() {
            eprintln!("fairlead-oci: {message}");
        }
    }

    /// Of what stderr has been told already.
    pub fn error_in_file(&self, message: &str) {
        if self.file.is_some() {
            self.write("error", message);
        }
    }

    pub fn warning(&self, message: &str) {
        self.write("warning", message);
    }

    pub fn debug(&self, message: &str) {
        if self.debug {
            self.write("debug", message);
        }
    }

    fn write(&self, level: &str, message: &str) {
        let line = match (self.format, &self.file) {
            (LogFormat::Json, _) => {
                let time = time::rfc3339(time::now());
                let entry = serde_json::json!({ "level": level, "msg": message, "time": time });
                format!("{entry}\n")
            }
            (LogFormat::Text, Some(_)) => {
                let time = time::rfc3339(time::now());
                format!("time={time:?} level={level} msg={message:?}\n")
            }
            (LogFormat::Text, None) if level == "error" => format!("fairlead-oci: {message}\n"),
            (LogFormat::Text, None) => format!("fairlead-oci: {level}: {message}\n"),
        };
        // A log that cannot be written is no reason to fail.
        let _ = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}
