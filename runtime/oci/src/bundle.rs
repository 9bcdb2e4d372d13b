//! A bundle: the directory with `config.json` (bundle.md).

use crate::error::OciError;
use oci_spec::runtime::{Capability, Spec};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Far more than any configuration; larger files are refused rather than read into memory.
const MAX_CONFIG: u64 = 16 << 20;

/// Where a configuration has its process.
pub const OF_SPEC: &str = "/process";

/// Flags of `process.scheduler` as the specification has them, and as `oci-spec` does.
const SCHEDULER_FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

pub struct Bundle {
    pub directory: PathBuf,
    pub spec: Spec,
    /// The text of the configuration.
    pub text: Vec<u8>,
    /// What is asked for and nobody knows: capabilities by name.
    pub unknown: Vec<String>,
}

impl Bundle {
    pub fn read(directory: &Path) -> Result<Self, OciError> {
        let directory = directory
            .canonicalize()
            .map_err(OciError::file("open bundle", directory))?;
        let path = directory.join("config.json");
        let text = read(&path)?;
        refuse_freebsd(&path, &text)?;
        let (spec, unknown) = parse_known(&path, &text, OF_SPEC)?;
        Ok(Self {
            directory,
            spec,
            text,
            unknown,
        })
    }

    /// The directory of the root file system.
    pub fn root(&self) -> Result<PathBuf, OciError> {
        let path = self.directory.join("config.json");
        let Some(root) = self.spec.root() else {
            let reason = "root: missing".into();
            return Err(OciError::Json { path, reason });
        };
        let root = self.directory.join(root.path());
        root.canonicalize()
            .map_err(OciError::file("open root file system", root))
    }
}

/// A regular file of a sane size. Looked at before it is opened: to open a FIFO may take for ever.
pub fn read(path: &Path) -> Result<Vec<u8>, OciError> {
    let flags = libc::O_PATH;
    let place = File::options().read(true).custom_flags(flags).open(path);
    let place = place.map_err(OciError::file("open", path))?;
    let data = place.metadata().map_err(OciError::file("stat", path))?;
    if !data.is_file() {
        return Err(OciError::Json {
            path: path.into(),
            reason: "not a regular file".into(),
        });
    }
    let name = format!("/proc/self/fd/{}", place.as_raw_fd());
    let file = File::open(name).map_err(OciError::file("open", path))?;
    let expected = data.len().min(MAX_CONFIG) as usize;
    fill(Vec::with_capacity(expected + 1), file, path) // one more, to see the end
}

/// A file that the caller names, who may mean a pipe.
pub fn read_any(path: &Path) -> Result<Vec<u8>, OciError> {
    let file = File::open(path).map_err(OciError::file("open", path))?;
    limited(file, path)
}

/// A stream of a sane size.
pub fn limited(stream: impl Read, path: &Path) -> Result<Vec<u8>, OciError> {
    fill(Vec::new(), stream, path)
}

fn fill(mut text: Vec<u8>, stream: impl Read, path: &Path) -> Result<Vec<u8>, OciError> {
    stream
        .take(MAX_CONFIG + 1)
        .read_to_end(&mut text)
        .map_err(OciError::file("read", path))?;
    if text.len() as u64 > MAX_CONFIG {
        return Err(OciError::Json {
            path: path.into(),
            reason: format!("longer than {} MiB", MAX_CONFIG >> 20),
        });
    }
    Ok(text)
}

/// JSON that may not be deeper than 128 (`serde_json`'s limit).
pub fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, OciError> {
    serde_json::from_slice(text).map_err(|error| OciError::Json {
        path: path.into(),
        reason: explain::<T>(text, &error),
    })
}

/// The one section for another system that `oci-spec` does not know, and would pass over (config.md,
/// "Platform-specific configuration"). What has not even the word needs no second look.
fn refuse_freebsd(path: &Path, text: &[u8]) -> Result<(), OciError> {
    #[derive(Deserialize)]
    struct Sections {
        freebsd: Option<IgnoredAny>,
    }
    let word = b"\"freebsd\"";
    if !text.windows(word.len()).any(|part| part == word) {
        return Ok(());
    }
    match serde_json::from_slice(text) {
        Ok(Sections { freebsd: Some(_) }) => Err(OciError::Json {
            path: path.into(),
            reason: "freebsd is not supported".into(),
        }),
        _ => Ok(()), // what is no JSON is told by who parses it
    }
}

/// As [`parse`], without the capabilities that have no known name, and these names: the
/// specification wants them left out with a warning (config.md, "Linux Process", `capabilities`), as
/// other kernels may have them. And with the scheduler's flags as the specification names them.
/// `process` is where the process is (RFC 6901).
pub fn parse_known<T: DeserializeOwned>(
    path: &Path,
    text: &[u8],
    process: &str,
) -> Result<(T, Vec<String>), OciError> {
    let error = match serde_json::from_slice(text) {
        Ok(all) => return Ok((all, Vec::new())),
        Err(error) => error,
    };
    // Rare enough for a second look at all of it.
    let mut known: Option<Value> = serde_json::from_slice(text).ok();
    let process = known.as_mut().and_then(|known| known.pointer_mut(process));
    let (unknown, renamed) = process.map_or((Vec::new(), false), |process| {
        (leave_out_unknown(process), rename_flags(process))
    });
    match known {
        Some(known) if renamed || !unknown.is_empty() => {
            Ok((parse(path, known.to_string().as_bytes())?, unknown))
        }
        _ => Err(OciError::Json {
            path: path.into(),
            reason: explain::<T>(text, &error),
        }),
    }
}

/// Takes the capabilities of a process away that have no known name; returns these names.
fn leave_out_unknown(process: &mut Value) -> Vec<String> {
    let mut unknown: Vec<String> = Vec::new();
    let sets = process.pointer_mut("/capabilities");
    for (_, set) in sets.and_then(Value::as_object_mut).into_iter().flatten() {
        let Some(set) = set.as_array_mut() else {
            continue;
        };
        set.retain(|name| match name {
            Value::String(text) if Capability::deserialize(name).is_err() => {
                unknown.push(text.clone());
                false
            }
            _ => true,
        });
    }
    unknown.sort();
    unknown.dedup();
    unknown
}

/// Gives a process's [`SCHEDULER_FLAGS`] the names that are understood; whether there are any.
fn rename_flags(process: &mut Value) -> bool {
    let mut renamed = false;
    let flags = process.pointer_mut("/scheduler/flags");
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        let known = SCHEDULER_FLAGS.iter().find(|(name, _)| *flag == **name);
        if let Some((_, known)) = known {
            *flag = Value::from(*known);
            renamed = true;
        }
    }
    renamed
}

/// What to say of such names: somebody else's, of any number and length.
pub fn warning(unknown: &[String]) -> Option<String> {
    const SHOWN: usize = 8;
    let short = |name: &String| format!("{:?}", name.chars().take(64).collect::<String>());
    let mut names: Vec<String> = unknown.iter().take(SHOWN).map(short).collect();
    if unknown.len() > SHOWN {
        names.push(format!("{} more", unknown.len() - SHOWN));
    }
    (!names.is_empty()).then(|| {
        let names = names.join(", ");
        format!("process.capabilities: not known here, and left out: {names}")
    })
}

/// The error with the name of the field, which to find takes a second look.
fn explain<T: DeserializeOwned>(text: &[u8], error: &serde_json::Error) -> String {
    if [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff"]
        .iter()
        .any(|mark| text.starts_with(mark))
    {
        return "it begins with a byte order mark; write it as UTF-8 without one".into();
    }
    let reader = &mut serde_json::Deserializer::from_slice(text);
    match serde_path_to_error::deserialize::<_, T>(reader) {
        // At the end of a text that was cut off it names no field.
        Err(found) if !["", ".", "?"].contains(&found.path().to_string().as_str()) => {
            format!("{}: {}", found.path(), found.inner())
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_scheduler() {
        use oci_spec::runtime::{LinuxSchedulerFlag as Flag, Process};
        let read = |flags: &str| {
            let text = format!(
                r#"{{"cwd":"/","user":{{"uid":0,"gid":0}},
                "scheduler":{{"policy":"SCHED_OTHER","flags":[{flags}]}}}}"#
            );
            parse_known::<Process>(Path::new("p"), text.as_bytes(), "")
        };
        // All that the specification names (config.md, "Linux Process", `scheduler`).
        let all = [
            ("SCHED_FLAG_RESET_ON_FORK", Flag::SchedResetOnFork),
            ("SCHED_FLAG_RECLAIM", Flag::SchedFlagReclaim),
            ("SCHED_FLAG_DL_OVERRUN", Flag::SchedFlagDLOverrun),
            ("SCHED_FLAG_KEEP_POLICY", Flag::SchedFlagKeepPolicy),
            ("SCHED_FLAG_KEEP_PARAMS", Flag::SchedFlagKeepParams),
            ("SCHED_FLAG_UTIL_CLAMP_MIN", Flag::SchedFlagUtilClampMin),
            ("SCHED_FLAG_UTIL_CLAMP_MAX", Flag::SchedFlagUtilClampMax),
        ];
        let names: Vec<_> = all.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let (process, unknown) = read(&names.join(",")).expect("valid");
        let scheduler = process.scheduler().clone().expect("scheduler");
        let flags: Vec<_> = all.iter().map(|(_, flag)| *flag).collect();
        assert_eq!(scheduler.flags(), &Some(flags));
        assert!(unknown.is_empty());
        let error = read(r#""SCHED_FLAG_DL_OVERRUN","NO""#).expect_err("refused");
        assert!(error.to_string().contains("scheduler.flags[1]"), "{error}");
    }

    #[test]
    fn sections_for_freebsd() {
        let check = |text: &str| refuse_freebsd(Path::new("config.json"), text.as_bytes());
        for fine in [
            r#"{"hostname":"freebsd"}"#,
            r#"{"annotations":{"freebsd":"x"}}"#,
            r#"{"freebsd":null}"#,
            r#"{"freebsd""#,
            "{}",
        ] {
            assert!(check(fine).is_ok(), "{fine}");
        }
        let error = check(r#"{"linux":{},"freebsd":{"jail":{}}}"#).expect_err("refused");
        assert!(error.to_string().contains("freebsd is not supported"));
    }

    #[test]
    fn unknown_capabilities() {
        let read = |text: &str| {
            let path = Path::new("config.json");
            parse_known::<Spec>(path, text.as_bytes(), OF_SPEC)
        };
        let config = |names: &str| {
            format!(
                r#"{{"ociVersion":"1.0.0","process":{{"cwd":"/","user":{{"uid":0,"gid":0}},
                "capabilities":{{"bounding":[{names}],"permitted":[{names}]}}}}}}"#
            )
        };
        let (_, unknown) = read(&config(r#""CAP_KILL""#)).expect("valid");
        assert!(unknown.is_empty() && warning(&unknown).is_none());
        let (spec, unknown) = read(&config(r#""CAP_KILL","CAP_NO","","cap_no""#)).expect("valid");
        assert_eq!(unknown, ["", "CAP_NO", "cap_no"]);
        let process = spec.process().as_ref().expect("process");
        let sets = process.capabilities().as_ref().expect("capabilities");
        assert_eq!(sets.bounding().as_ref().map(|set| set.len()), Some(1));
        // Other mistakes beside them are still told, by their field.
        let wrong = config(r#""CAP_NO""#).replace("\"cwd\":\"/\"", "\"cwd\":5");
        let error = read(&wrong).expect_err("refused").to_string();
        assert!(error.contains("process.cwd"), "{error}");
        let error = read(&config("7")).expect_err("refused").to_string();
        assert!(error.contains("capabilities"), "{error}");
        let many: Vec<String> = (0..1000)
            .map(|n| format!("{n}{}", "x".repeat(999)))
            .collect();
        let said = warning(&many).expect("a warning");
        assert!(said.len() < 1000 && said.ends_with("992 more"), "{said}");
    }
}
