//! How a registry lets us in: the challenge of a refused request, and what answers it.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_auth::ChallengeParser;
use serde::Deserialize;
use ureq::{http::HeaderMap, http::header};

use super::{
    Credentials, RegistryError,
    client::{Client, Failure, Get},
    http,
};

/// How long a token is good when its issuer does not say (distribution's `token.md`).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// A token is not used in the last moments of its life.
const MARGIN: Duration = Duration::from_secs(10);
/// Longer than any answer with a token.
const MAX_ANSWER: u64 = 1 << 20;
/// What we call ourselves to token servers.
const CLIENT: &str = "fairlead";

/// What a registry wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// The value of `Authorization`, and until when it is good.
#[derive(Clone)]
pub(super) struct Grant {
    pub(super) header: String,
    until: Option<Instant>,
}

impl Grant {
    pub(super) fn is_good(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

impl Challenge {
    /// The best of those in the headers of an answer; bearer where there is a choice.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(header::WWW_AUTHENTICATE);
        let texts: Vec<_> = values.iter().filter_map(|v| v.to_str().ok()).collect();
        Self::parse(&texts)
    }

    pub(super) fn parse(texts: &[&str]) -> Option<Self> {
        let mut basic = None;
        for text in texts {
            for challenge in ChallengeParser::new(text).map_while(Result::ok) {
                let parameter = |name: &str| {
                    let found = challenge
                        .params
                        .iter()
                        .find(|(n, _)| n.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("bearer")
                    && let Some(realm) = parameter("realm")
                {
                    return Some(Self::Bearer {
                        realm,
                        service: parameter("service"),
                        scope: parameter("scope"),
                    });
                }
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
            }
        }
        basic
    }

    /// What answers it; `None` where we have nothing to answer with.
    pub(super) fn answer(
        &self,
        client: &Client,
        credentials: Option<&Credentials>,
        repository: &str,
    ) -> Result<Option<Grant>, RegistryError> {
        let with_password = credentials.filter(|c| !c.username.is_empty());
        match self {
            Self::Basic => Ok(with_password.map(|credentials| Grant {
                header: basic(credentials),
                until: None,
            })),
            Self::Bearer {
                realm,
                service,
                scope,
            } => {
                let own_token = credentials.filter(|c| !c.registry_token.is_empty());
                if let Some(credentials) = own_token {
                    return Ok(Some(Grant {
                        header: format!("Bearer {}", credentials.registry_token),
                        until: None,
                    }));
                }
                let default_scope = format!("repository:{repository}:pull");
                let scope = scope.as_deref().unwrap_or(&default_scope);
                let mut pairs = vec![("scope", scope)];
                pairs.extend(service.as_deref().map(|service| ("service", service)));
                let asked = Instant::now();
                let refresh = credentials.filter(|c| !c.identity_token.is_empty());
                let answer = match refresh {
                    Some(credentials) => {
                        pairs.push(("grant_type", "refresh_token"));
                        pairs.push(("client_id", CLIENT));
                        pairs.push(("refresh_token", &credentials.identity_token));
                        client.post(realm, &pairs)
                    }
                    None => {
                        pairs.extend(with_password.map(|c| ("account", c.username.as_str())));
                        let authorization = with_password.map(basic);
                        let get = Get {
                            query: &pairs,
                            authorization: authorization.as_deref(),
                            headers: &[],
                        };
                        client.get(realm, &get)
                    }
                };
                let answer = answer.map_err(|error| http::transport(realm, &error))?;
                let body = http::checked(realm, answer)?.into_body();
                let text = body
                    .into_with_config()
                    .limit(MAX_ANSWER)
                    .read_to_vec()
                    .map_err(|error| http::transport(realm, &Failure::from(error)))?;
                token(realm, &text, asked).map(Some)
            }
        }
    }
}

fn basic(credentials: &Credentials) -> String {
    let pair = format!("{}:{}", credentials.username, credentials.password);
    format!("Basic {}", STANDARD.encode(pair))
}

/// An answer of a token server (distribution's `token.md`, section "Token Response Fields").
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
}

fn token(realm: &str, text: &[u8], asked: Instant) -> Result<Grant, RegistryError> {
    let refuse = |reason: String| RegistryError::Answer {
        url: realm.to_owned(),
        reason,
    };
    // The error of the parser may quote the text, and that is secret.
    let answer: Answer = serde_json::from_slice(text)
        .map_err(|_| refuse("the token server's answer is not the JSON of a token".into()))?;
    let token = [answer.token, answer.access_token]
        .into_iter()
        .find(|token| !token.is_empty())
        .ok_or_else(|| refuse("the token server's answer has no token".into()))?;
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refuse("the token has characters that no token has".into()));
    }
    let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
    Ok(Grant {
        header: format!("Bearer {token}"),
        // A clock cannot hold any number.
        until: asked.checked_add(life.saturating_sub(MARGIN)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_understood() {
        let bearer = r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.example/token".into(),
            service: Some("reg".into()),
            scope: Some("repository:a/b:pull".into()),
        };
        assert_eq!(Challenge::parse(&[bearer]), Some(expected.clone()));
        assert_eq!(
            Challenge::parse(&[r#"Basic realm="x""#, bearer]),
            Some(expected.clone())
        );
        let one_line = format!(r#"basic realm="x", {bearer}"#);
        assert_eq!(Challenge::parse(&[&one_line]), Some(expected));
        assert_eq!(Challenge::parse(&["BASIC realm=x"]), Some(Challenge::Basic));
        for odd in [
            "",
            "Digest realm=x",
            "Bearer service=x",
            "\"",
            "Bearer realm=\"",
        ] {
            assert_eq!(Challenge::parse(&[odd]), None, "{odd}");
        }
    }

    #[test]
    fn tokens_have_one_of_two_names_and_an_end() {
        let now = Instant::now();
        let of = |text: &str| token("r", text.as_bytes(), now);
        let grant = of(r#"{"token":"abc","expires_in":300}"#).expect("a token");
        assert_eq!(grant.header, "Bearer abc");
        assert!(grant.is_good());
        assert_eq!(
            of(r#"{"access_token":"x"}"#).expect("a token").header,
            "Bearer x"
        );
        assert!(
            !of(r#"{"token":"abc","expires_in":1}"#)
                .expect("a token")
                .is_good()
        );
        assert!(of(&format!(r#"{{"token":"a","expires_in":{}}}"#, u64::MAX)).is_ok());
        for bad in [
            "",
            "{}",
            r#"{"token":""}"#,
            r#"{"token":"a\nb"}"#,
            r#"{"token":3}"#,
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
