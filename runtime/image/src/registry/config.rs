//! Where registries are, and how to talk to them.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use serde::Deserialize;

use super::credentials;
use crate::name::split_port;

/// What an operator says of registries. The default, which says nothing, is what most need.
///
/// The fields and their names are those of the file `registries.yaml` that k3s and RKE2 read, so that
/// one can be taken over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registries {
    /// By registry, as it stands in names (`docker.io`, `registry.example:5000`), or `*` for those
    /// that are not mentioned: where to ask first.
    pub mirrors: BTreeMap<String, Mirror>,
    /// By `host[:port]` of a registry or a mirror: how to talk to it.
    pub configs: BTreeMap<String, HostConfig>,
    /// A file as `docker login` writes it, with credentials or the helpers that have them.
    pub auth_file: Option<PathBuf>,
}

/// Other places that have the content of a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// `http://` or `https://` URLs, to be asked in this order, and the registry itself after them.
    #[serde(rename = "endpoint")]
    pub endpoints: Vec<String>,
}

/// How to talk to one host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostConfig {
    /// Who we are there.
    #[serde(deserialize_with = "credentials::from_config")]
    pub auth: Option<Credentials>,
    /// What is special about its TLS.
    pub tls: TlsConfig,
}

/// What is special about a host's TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Authorities that are trusted beside the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, and what it depends on, in PEM.
    pub cert_file: Option<PathBuf>,
    /// The key of our certificate, in PEM.
    pub key_file: Option<PathBuf>,
    /// Trust whoever answers, and speak plain HTTP where TLS is not understood.
    pub insecure_skip_verify: bool,
}

/// Who we are for a registry. Never shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// A refresh token that stands for both (`identitytoken` in Docker's words).
    #[serde(alias = "identitytoken")]
    pub identity_token: String,
    /// A token that is shown to the registry as it is (`registrytoken` in Docker's words).
    #[serde(alias = "registrytoken")]
    pub registry_token: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Where one registry can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `http` or `https`, host and port, perhaps a path; no slash at the end.
    pub(super) base: String,
    /// `host[:port]`, by which it is configured.
    pub(super) host: String,
    /// Where TLS is not understood, plain HTTP will do.
    pub(super) may_be_plain: bool,
    /// For a mirror: the registry that is meant.
    pub(super) mirror_of: Option<String>,
}

/// Where Docker Hub's API is.
const DOCKER_HUB: &str = "registry-1.docker.io";

impl Registries {
    /// Where to ask for what a registry has, first to last.
    pub(super) fn endpoints(&self, registry: &str) -> Result<Vec<Endpoint>, String> {
        let mut endpoints = Vec::new();
        let mirror = self.mirrors.get(registry).or_else(|| self.mirrors.get("*"));
        for base in mirror.map_or(&[][..], |mirror| &mirror.endpoints) {
            let base = base.trim_end_matches('/');
            let host = base
                .strip_prefix("https://")
                .or_else(|| base.strip_prefix("http://"))
                .map(|rest| rest.split('/').next().unwrap_or_default());
            let host = match host {
                Some(host) if !host.is_empty() && !host.contains('@') => host.to_owned(),
                // There may be a password before the `@`.
                _ if base.contains('@') => {
                    return Err(format!(
                        "a mirror of {registry} has a user in its URL: who we are belongs to `configs`"
                    ));
                }
                _ => {
                    return Err(format!(
                        "mirror `{base}` of {registry} is no http or https URL"
                    ));
                }
            };
            endpoints.push(Endpoint {
                may_be_plain: false,
                base: base.to_owned(),
                host,
                mirror_of: Some(registry.to_owned()),
            });
        }
        let host = match registry {
            "docker.io" => DOCKER_HUB,
            other => other,
        };
        let insecure = |host: &str| {
            let config = self.configs.get(host);
            config.is_some_and(|config| config.tls.insecure_skip_verify)
        };
        endpoints.push(Endpoint {
            base: format!("https://{host}"),
            may_be_plain: is_loopback(registry) || insecure(registry),
            host: registry.to_owned(),
            mirror_of: None,
        });
        Ok(endpoints)
    }

    /// How to talk to a host.
    pub(super) fn host(&self, host: &str) -> HostConfig {
        self.configs.get(host).cloned().unwrap_or_default()
    }
}

/// Docker, too, does not ask for TLS on the machine itself.
fn is_loopback(host: &str) -> bool {
    let (name, _) = split_port(host);
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(registries: &Registries, registry: &str) -> Vec<String> {
        let endpoints = registries.endpoints(registry).expect("endpoints");
        endpoints.into_iter().map(|e| e.base).collect()
    }

    #[test]
    fn mirrors_come_before_the_registry() {
        let mut registries = Registries::default();
        assert_eq!(
            bases(&registries, "docker.io"),
            ["https://registry-1.docker.io"]
        );
        let mirror = |url: &str| Mirror {
            endpoints: vec![url.to_owned()],
        };
        registries
            .mirrors
            .insert("docker.io".into(), mirror("http://m:5000/hub/"));
        registries.mirrors.insert("*".into(), mirror("https://all"));
        assert_eq!(
            bases(&registries, "docker.io"),
            ["http://m:5000/hub", "https://registry-1.docker.io"]
        );
        assert_eq!(
            bases(&registries, "quay.io"),
            ["https://all", "https://quay.io"]
        );
        for bad in ["m:5000", "ftp://m", "https://", "https://user@m"] {
            registries.mirrors.insert("bad".into(), mirror(bad));
            assert!(registries.endpoints("bad").is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_machine_itself_and_what_is_said_to_be_insecure_may_be_plain() {
        let mut registries = Registries::default();
        let insecure = HostConfig {
            tls: TlsConfig {
                insecure_skip_verify: true,
                ..TlsConfig::default()
            },
            ..HostConfig::default()
        };
        registries.configs.insert("lab:5000".into(), insecure);
        for (registry, plain) in [
            ("localhost:5000", true),
            ("127.0.0.1:80", true),
            ("[::1]:5000", true),
            ("[::1]", true),
            ("[fd00::1]:5000", false),
            ("lab:5000", true),
            ("lab", false),
            ("localhost.example", false),
            ("docker.io", false),
        ] {
            let endpoints = registries.endpoints(registry).expect("endpoints");
            assert_eq!(endpoints[0].may_be_plain, plain, "{registry}");
        }
    }

    #[test]
    fn who_we_are_may_be_said_in_base64_too() {
        let read = |auth: &str| {
            let text = format!(r#"{{"configs": {{"r": {{"auth": {auth}}}}}}}"#);
            serde_json::from_str::<Registries>(&text)
                .map(|read| read.configs["r"].auth.clone().expect("credentials"))
        };
        for auth in [
            r#"{"username": "me", "password": "pass:word"}"#,
            r#"{"auth": "bWU6cGFzczp3b3Jk"}"#,
        ] {
            let found = read(auth).expect(auth);
            let found = (found.username.as_str(), found.password.as_str());
            assert_eq!(found, ("me", "pass:word"));
        }
        for bad in [r#"{"auth": "s3cret"}"#, r#"{"user": "me"}"#] {
            let error = read(bad).expect_err(bad).to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials {
            username: "me".into(),
            password: "secret".into(),
            ..Credentials::default()
        };
        let shown = format!("{credentials:?}");
        assert!(shown.contains("me") && !shown.contains("secret"), "{shown}");
    }
}
