//! Who we are for a registry: files as `docker login` writes them, and credential helpers.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::{Uid, User},
};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{Credentials, RegistryError};

/// The key of Docker Hub in files that `docker login` writes, and for helpers.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// What helpers write as user name beside a refresh token.
const TOKEN_USER: &str = "<token>";
/// Longer than any such file.
const MAX_FILE: u64 = 4 << 20;

/// `config.json` (docker/cli, `cli/config/configfile/file.go`).
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AuthFile {
    auths: BTreeMap<String, AuthEntry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthEntry {
    auth: String,
    #[serde(flatten)]
    credentials: Credentials,
}

impl std::fmt::Debug for AuthEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.credentials.fmt(f)
    }
}

/// `auth` of a host in the configuration: the same words, and no others.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ConfigEntry {
    auth: String,
    username: String,
    password: String,
    #[serde(alias = "identitytoken")]
    identity_token: String,
    #[serde(alias = "registrytoken")]
    registry_token: String,
}

/// Reads `auth` of a host in the configuration.
pub(super) fn from_config<'de, D: Deserializer<'de>>(
    reader: D,
) -> Result<Option<Credentials>, D::Error> {
    let Some(entry) = Option::<ConfigEntry>::deserialize(reader)? else {
        return Ok(None);
    };
    let entry = AuthEntry {
        auth: entry.auth,
        credentials: Credentials {
            username: entry.username,
            password: entry.password,
            identity_token: entry.identity_token,
            registry_token: entry.registry_token,
        },
    };
    entry.resolve().map(Some).map_err(D::Error::custom)
}

/// What a helper answers (docker/docker-credential-helpers, `credentials.go`).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

impl Credentials {
    /// From the header `X-Registry-Auth` of Docker's API, which is also what a Swarm task spec carries:
    /// JSON in base64, of either alphabet, padded or not.
    ///
    /// # Errors
    /// What is wrong with it, without its content.
    pub fn from_registry_auth(header: &str) -> Result<Self, String> {
        let normal: String = header
            .trim()
            .trim_end_matches('=')
            .chars()
            .map(|c| match c {
                '-' => '+',
                '_' => '/',
                other => other,
            })
            .collect();
        let json = base64::engine::general_purpose::STANDARD_NO_PAD
            .decode(normal)
            .map_err(|_| "it is not base64".to_owned())?;
        let entry: AuthEntry = serde_json::from_slice(&json)
            .map_err(|_| "it is not the JSON of credentials".to_owned())?;
        entry.resolve()
    }
}

impl AuthEntry {
    /// `auth` is `user:password` in base64; the fields beside it count where it is missing.
    fn resolve(self) -> Result<Credentials, String> {
        let mut credentials = self.credentials;
        if !self.auth.is_empty() {
            let decoded = STANDARD
                .decode(self.auth.trim())
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or("`auth` is not base64")?;
            let (user, password) = decoded.split_once(':').ok_or("`auth` has no colon")?;
            credentials.username = user.to_owned();
            credentials.password = password.trim_end_matches('\0').to_owned();
        }
        Ok(credentials)
    }
}

/// What a file has for a registry, itself or by a helper.
pub(super) fn from_file(path: &Path, registry: &str) -> Result<Option<Credentials>, RegistryError> {
    let refuse = |reason: String| RegistryError::File {
        what: "credentials file",
        path: path.to_owned(),
        reason,
    };
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refuse(error.to_string())),
    };
    let mut file: AuthFile = serde_json::from_slice(&text).map_err(|error| {
        let what = "it is not what `docker login` writes";
        refuse(format!("{what}, from {} on", place_of(&error)))
    })?;
    let keys = keys(registry);
    // A helper of this registry, then the helper of all, then the file itself, as Docker does it.
    let own = keys.iter().find_map(|key| file.cred_helpers.get(key));
    let found = match own.filter(|name| !name.is_empty()) {
        Some(name) => from_helper(name, &keys[0])?,
        None if file.creds_store.is_empty() => None,
        // It is asked for every registry, also for those that know everybody: like Docker, we go on without.
        None => from_helper(&file.creds_store, &keys[0]).unwrap_or_else(|error| {
            tracing::warn!(registry, %error, "going on without the credentials that it may have");
            None
        }),
    };
    if found.is_some() {
        return Ok(found);
    }
    let entry = keys.iter().find_map(|key| file.auths.remove(key));
    entry
        .map(|entry| {
            entry
                .resolve()
                .map_err(|reason| refuse(format!("{registry}: {reason}")))
        })
        .transpose()
        .map(|found| found.filter(|found| *found != Credentials::default()))
}

/// Where JSON ends to be what it should be. The parser's own words quote what they find there: a password, say.
fn place_of(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = crate::source::open_regular(path)?;
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(text)
}

/// How files name a registry; the first is what helpers are asked for.
fn keys(registry: &str) -> Vec<String> {
    match registry {
        "docker.io" => [DOCKER_HUB_KEY, "docker.io", "index.docker.io"]
            .map(str::to_owned)
            .into(),
        other => vec![
            other.to_owned(),
            format!("https://{other}"),
            format!("https://{other}/"),
            format!("http://{other}"),
        ],
    }
}

/// As long as an answer of a registry may take.
const HELPER_LIMIT: Duration = Duration::from_secs(30);
/// What a pipe holds (pipe(7)): one that says more would wait for a reader.
const MAX_HELPER_ANSWER: u64 = 64 << 10;

/// Asks `docker-credential-<name>`, which gets the registry on its input and answers in JSON.
fn from_helper(name: &str, registry: &str) -> Result<Option<Credentials>, RegistryError> {
    let program = format!("docker-credential-{name}");
    let failed = |reason: String| RegistryError::Helper {
        program: program.clone(),
        reason,
    };
    if name.contains('/') {
        return Err(failed("its name contains a slash".into()));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read its input has its reasons, and answers nevertheless.
        let _ = input.write_all(registry.as_bytes());
    }
    let status = ended(&mut child, HELPER_LIMIT).map_err(|error| failed(error.to_string()))?;
    let said = match child.stdout.take() {
        Some(output) => answer_of(output).map_err(|error| failed(error.to_string()))?,
        None => Vec::new(),
    };
    if !status.success() {
        let said = String::from_utf8_lossy(&said);
        // The text that every helper has for this (`credentials/error.go`).
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(format!("{status}{}", reason_of(&said))));
    }
    let answer: HelperAnswer = serde_json::from_slice(&said).map_err(|error| {
        let what = "its answer is not the JSON of credentials";
        failed(format!("{what}, from {} on", place_of(&error)))
    })?;
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Credentials {
            identity_token: answer.secret,
            ..Credentials::default()
        },
        _ => Credentials {
            username: answer.username,
            password: answer.secret,
            ..Credentials::default()
        },
    }))
}

/// What a helper that has ended wrote. What it started and left behind may have the pipe still, and is not waited
/// for.
fn answer_of(output: ChildStdout) -> io::Result<Vec<u8>> {
    fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut said = Vec::new();
    match output.take(MAX_HELPER_ANSWER).read_to_end(&mut said) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(said),
    }
}

/// Why a helper says that it failed: its first line, unless that looks like JSON, which may be credentials.
fn reason_of(said: &str) -> String {
    let line = said.trim().lines().next().unwrap_or_default();
    if line.is_empty() || line.contains(['{', '"']) {
        return String::new();
    }
    let shown = line.chars().filter(|c| !c.is_control()).take(200);
    format!(": {}", shown.collect::<String>())
}

/// Waits for a helper. One that takes longer than `limit` is killed: nobody would come back to it.
fn ended(child: &mut Child, limit: Duration) -> io::Result<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            let reason = format!("it did not answer in {limit:?}, and was ended");
            return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The files that are looked for when none is named: Docker's own.
pub(super) fn default_file() -> Option<PathBuf> {
    let folder = folder(std::env::var_os("DOCKER_CONFIG"), || {
        home(std::env::var_os("HOME"))
    })?;
    let file = folder.join("config.json");
    fs::exists(&file).is_ok_and(|there| there).then_some(file)
}

/// Where Docker's client has its files. For Docker, too, an empty variable is none.
fn folder(variable: Option<OsString>, home: impl Fn() -> Option<PathBuf>) -> Option<PathBuf> {
    match variable.filter(|folder| !folder.is_empty()) {
        Some(folder) => Some(folder.into()),
        None => Some(home()?.join(".docker")),
    }
}

/// Our home directory: what the environment says, else the system's users. systemd gives a system service no
/// `HOME` unless it has `User=` (systemd.exec(5), "Environment Variables Set or Propagated").
fn home(variable: Option<OsString>) -> Option<PathBuf> {
    let variable = variable.filter(|path| !path.is_empty());
    let user = || User::from_uid(Uid::effective()).ok().flatten();
    variable
        .map(PathBuf::from)
        .or_else(|| user().map(|user| user.dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str, registry: &str) -> Result<Option<Credentials>, RegistryError> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("config.json");
        fs::write(&path, content).expect("written");
        from_file(&path, registry)
    }

    #[test]
    fn a_helper_that_hangs_is_ended() {
        let start = |command: &str| {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", command]).spawn().expect("started")
        };
        let limit = Duration::from_millis(200);
        let mut stuck = start("exec sleep 1000");
        let error = ended(&mut stuck, limit).expect_err("it hangs");
        assert!(error.to_string().contains("200ms"), "{error}");
        assert!(stuck.try_wait().expect("waited for").is_some());
        let status = ended(&mut start("exit 3"), Duration::from_secs(60)).expect("ended");
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn without_a_variable_the_home_is_that_of_the_user() {
        assert_eq!(home(Some("/here".into())), Some("/here".into()));
        let passwd = fs::read_to_string("/etc/passwd").expect("users");
        let root = passwd.lines().find(|line| line.starts_with("root:"));
        let dir = root.and_then(|line| line.split(':').nth(5));
        if Uid::effective().is_root() {
            for nothing in [None, Some("".into())] {
                assert_eq!(home(nothing), dir.map(PathBuf::from));
            }
        }
    }

    #[test]
    fn an_empty_variable_is_none() {
        let of = |variable: Option<&str>| {
            folder(variable.map(OsString::from), || Some("/home/me".into()))
        };
        assert_eq!(of(Some("/here")), Some("/here".into()));
        for nothing in [None, Some("")] {
            assert_eq!(of(nothing), Some("/home/me/.docker".into()));
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_without_what_is_in_it() {
        let secret = STANDARD.encode("me:s3cret");
        for content in [
            format!(r#"{{"auths": {{"r": "{secret}"}}}}"#),
            format!(r#"{{"auths": {{"r": {{"password": ["{secret}"]}}}}}}"#),
            r#"{"auths": {"r": {"username": "me", "password": 740197}}}"#.to_owned(),
            format!(r#"{{"credsStore": {{"{secret}": 1}}}}"#),
            format!(r#""{secret}""#),
        ] {
            let error = file(&content, "r").expect_err(&content);
            let text = format!("{error} {error:?}");
            assert!(text.contains("line 1, column"), "{text}");
            assert!(
                !text.contains(&secret) && !text.contains("740197"),
                "{text}"
            );
        }
    }

    #[test]
    fn files_of_docker_login_are_understood() {
        let auth = STANDARD.encode("me:se:cret");
        let content = format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{auth}"}},
                "r:5000": {{"username": "a", "password": "b"}}, "t": {{"identitytoken": "x"}}, "empty": {{}}}},
                "HttpHeaders": {{}}}}"#
        );
        let hub = file(&content, "docker.io").expect("read").expect("there");
        assert_eq!(
            (hub.username.as_str(), hub.password.as_str()),
            ("me", "se:cret")
        );
        let own = file(&content, "r:5000").expect("read").expect("there");
        assert_eq!((own.username.as_str(), own.password.as_str()), ("a", "b"));
        let token = file(&content, "t").expect("read").expect("there");
        assert_eq!(token.identity_token, "x");
        assert_eq!(file(&content, "other").expect("read"), None);
        assert_eq!(file(&content, "empty").expect("read"), None);
    }

    #[test]
    fn damaged_files_are_refused_and_absent_ones_are_none() {
        for content in ["", "3", r#"{"auths": 3}"#] {
            assert!(file(content, "r").is_err(), "{content}");
        }
        for auth in ["%%%", "bm9jb2xvbg=="] {
            let content = format!(r#"{{"auths": {{"r": {{"auth": "{auth}"}}}}}}"#);
            assert!(file(&content, "r").is_err(), "{auth}");
        }
        let none = from_file(Path::new("/nonexistent/config.json"), "r");
        assert_eq!(none.expect("none"), None);
    }

    #[test]
    fn the_header_of_dockers_api_is_understood() {
        let json = r#"{"username":"me","password":"p?>","serveraddress":"r"}"#;
        for engine in [STANDARD, base64::engine::general_purpose::URL_SAFE] {
            let header = engine.encode(json);
            for header in [header.as_str(), header.trim_end_matches('=')] {
                let found = Credentials::from_registry_auth(header).expect(header);
                assert_eq!(
                    (found.username.as_str(), found.password.as_str()),
                    ("me", "p?>")
                );
            }
        }
        for bad in ["%", "bm8", "W10="] {
            assert!(Credentials::from_registry_auth(bad).is_err(), "{bad}");
        }
    }
}
