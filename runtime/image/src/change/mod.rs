//! Changes of an image's configuration that are written as lines of a Dockerfile.

mod health;
mod words;

use std::collections::BTreeMap;

use serde::Serialize;

use health::Healthcheck;
use words::{pairs, words};

/// A line that changes nothing we could change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{line}`: {reason}")]
pub struct ChangeError {
    /// The line.
    pub line: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The instructions that a configuration has a place for.
const KNOWN: &str = "CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, \
                     VOLUME, WORKDIR";

/// The `config` of an image configuration (image-spec `config.md`; `Healthcheck` and `OnBuild` are
/// Docker's, moby `image/spec/v1.3.md`).
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Section {
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<String, Nothing>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cmd: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<Healthcheck>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<String, Nothing>,
    #[serde(skip_serializing_if = "String::is_empty")]
    working_dir: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    on_build: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    stop_signal: String,
}

/// Sets are written as maps to this.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct Nothing {}

impl Section {
    /// What `changes` make of an empty one, in their order. Each may have several lines, a line may
    /// go on behind a `\`; comments and empty lines are passed over.
    pub(crate) fn new(changes: &[impl AsRef<str>]) -> Result<Self, ChangeError> {
        let mut section = Self::default();
        for change in changes {
            let whole = change.as_ref().replace("\\\n", "");
            for line in whole.lines().map(str::trim) {
                if !line.is_empty() && !line.starts_with('#') {
                    section.change(line).map_err(|reason| ChangeError {
                        line: line.to_owned(),
                        reason,
                    })?;
                }
            }
        }
        Ok(section)
    }

    fn change(&mut self, line: &str) -> Result<(), String> {
        let (instruction, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let instruction = instruction.to_ascii_uppercase();
        if rest.is_empty() && KNOWN.split(", ").any(|known| known == instruction) {
            return Err(format!("{instruction} of what?"));
        }
        match instruction.as_str() {
            "CMD" => self.cmd = command(rest),
            "ENTRYPOINT" => self.entrypoint = command(rest),
            "ENV" => {
                for (name, value) in pairs(rest, &self.env)? {
                    set_env(&mut self.env, &name, &value);
                }
            }
            "EXPOSE" => {
                for word in words(rest, &self.env)? {
                    let ports = ports(&word)?.into_iter().map(|port| (port, Nothing {}));
                    self.exposed_ports.extend(ports);
                }
            }
            "HEALTHCHECK" => self.healthcheck = Some(health::parse(rest)?),
            "LABEL" => self.labels.extend(pairs(rest, &self.env)?),
            "ONBUILD" => self.on_build.push(trigger(rest)?),
            "STOPSIGNAL" => self.stop_signal = signal(one(rest, &self.env)?)?,
            "USER" => self.user = one(rest, &self.env)?,
            "VOLUME" => {
                let volumes = match json(rest) {
                    Some(volumes) => volumes,
                    None => words(rest, &self.env)?,
                };
                if volumes.iter().any(|volume| volume.trim().is_empty()) {
                    return Err("a volume without a path".into());
                }
                let volumes = volumes.into_iter().map(|volume| (volume, Nothing {}));
                self.volumes.extend(volumes);
            }
            "WORKDIR" => {
                self.working_dir = directory(&self.working_dir, &one(rest, &self.env)?);
            }
            other => {
                return Err(format!(
                    "{other} cannot change an image's configuration; these can: {KNOWN}"
                ));
            }
        }
        Ok(())
    }
}

/// The exec form, a JSON list of strings.
fn json(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// The exec form, or the shell form.
fn command(text: &str) -> Vec<String> {
    json(text).unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into(), text.into()])
}

fn one(text: &str, env: &[String]) -> Result<String, String> {
    match <[String; 1]>::try_from(words(text, env)?) {
        Ok([word]) if !word.is_empty() => Ok(word),
        _ => Err("exactly one word is wanted".into()),
    }
}

fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let variable = format!("{name}={value}");
    let same = |found: &&mut String| {
        found
            .split_once('=')
            .is_some_and(|(found, _)| found == name)
    };
    match env.iter_mut().find(same) {
        Some(found) => *found = variable,
        None => env.push(variable),
    }
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn ports(text: &str) -> Result<Vec<String>, String> {
    let bad = || format!("`{text}` is no port: write 80, 53/udp or 8000-8010/tcp");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match (port(first), port(last), protocol.as_str()) {
        (Some(first), Some(last), "tcp" | "udp" | "sctp") if first <= last => Ok((first..=last)
            .map(|port| format!("{port}/{protocol}"))
            .collect()),
        _ => Err(bad()),
    }
}

fn trigger(text: &str) -> Result<String, String> {
    let instruction = text.split_whitespace().next().unwrap_or_default();
    match instruction.to_ascii_uppercase().as_str() {
        "ONBUILD" | "FROM" | "MAINTAINER" => {
            Err(format!("{instruction} cannot be put off until a build"))
        }
        _ => Ok(text.to_owned()),
    }
}

fn signal(text: String) -> Result<String, String> {
    let number = text
        .parse::<u8>()
        .is_ok_and(|number| (1..=64).contains(&number));
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    let is_name = name.starts_with(|c: char| c.is_ascii_uppercase())
        && name
            .bytes()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, b'+' | b'-'));
    if number || is_name {
        Ok(text)
    } else {
        Err(format!("`{text}` is no signal: write SIGQUIT or 3"))
    }
}

/// Without `.`, `..` and needless slashes; relative to the one before.
fn directory(before: &str, path: &str) -> String {
    let start = if path.starts_with('/') { "" } else { before };
    let mut parts = Vec::new();
    for part in start.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(changes: &[&str]) -> serde_json::Value {
        let section = Section::new(changes).unwrap_or_else(|error| panic!("{error}"));
        serde_json::to_value(section).expect("JSON")
    }

    #[test]
    fn each_instruction_has_its_place() {
        let changes = [
            r#"CMD ["serve", "--port", "80"]"#,
            "entrypoint exec /entry \"$@\"",
            "ENV A=1 B='two words' C=\"$A-${B}\" D=a\\ b",
            "ENV OLD a value with words",
            "EXPOSE 80 53/udp 8000-8002/TCP",
            "LABEL a=1 \"b.c\"=\"x y\"",
            "USER $A:web",
            "VOLUME [\"/data\", \"/with space\"]\nVOLUME /logs /tmp",
            "WORKDIR /srv//app\nWORKDIR ../data/.",
            "STOPSIGNAL SIGRTMIN+3",
            "ONBUILD RUN make",
            "# a comment\n\nHEALTHCHECK --interval=1m30s --retries=2 \\\n CMD wget -q localhost",
        ];
        assert_eq!(
            made(&changes),
            json!({
                "Cmd": ["serve", "--port", "80"],
                "Entrypoint": ["/bin/sh", "-c", "exec /entry \"$@\""],
                "Env": [
                    "A=1", "B=two words", "C=-", "D=a b", "OLD=a value with words"
                ],
                "ExposedPorts": {
                    "80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}
                },
                "Labels": {"a": "1", "b.c": "x y"},
                "User": "1:web",
                "Volumes": {"/data": {}, "/with space": {}, "/logs": {}, "/tmp": {}},
                "WorkingDir": "/srv/data",
                "StopSignal": "SIGRTMIN+3",
                "OnBuild": ["RUN make"],
                "Healthcheck": {
                    "Test": ["CMD-SHELL", "wget -q localhost"],
                    "Interval": 90_000_000_000u64,
                    "Retries": 2
                }
            })
        );
    }

    #[test]
    fn the_last_one_counts() {
        let changes = ["ENV A=1 B=2", "ENV A=3", "CMD a", "CMD []", "ENV C=$A${B}"];
        assert_eq!(made(&changes), json!({"Env": ["A=3", "B=2", "C=32"]}));
        let changes = ["HEALTHCHECK CMD [\"a\"]", "healthcheck none"];
        assert_eq!(made(&changes), json!({"Healthcheck": {"Test": ["NONE"]}}));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_line() {
        for (line, reason) in [
            ("RUN make", "RUN cannot change"),
            ("FROM scratch", "these can: CMD"),
            ("CMD", "CMD of what"),
            ("ENV A", "no value"),
            ("ENV =1", "no name"),
            ("ENV A='1", "quote"),
            ("ENV A=${B:-1}", "only $NAME and ${NAME}"),
            ("LABEL a=1 b", "`b` has no value"),
            ("EXPOSE 0", "no port"),
            ("EXPOSE 80/icmp", "no port"),
            ("EXPOSE 90-80", "no port"),
            ("USER a b", "exactly one"),
            ("VOLUME [\"\"]", "without a path"),
            ("STOPSIGNAL kill", "no signal"),
            ("STOPSIGNAL 65", "no signal"),
            ("ONBUILD FROM x", "put off"),
            ("HEALTHCHECK", "of what"),
            ("HEALTHCHECK RUN x", "CMD or NONE"),
            ("HEALTHCHECK CMD", "CMD of what"),
            ("HEALTHCHECK --interval=x CMD a", "no duration"),
            ("HEALTHCHECK --retries=-1 CMD a", "no number"),
            ("HEALTHCHECK --colour=1 CMD a", "unknown option"),
        ] {
            let error = Section::new(&[line]).expect_err(line);
            assert_eq!(error.line, line);
            assert!(error.reason.contains(reason), "{error}");
        }
    }
}
