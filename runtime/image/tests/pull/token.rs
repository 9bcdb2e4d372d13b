//! A token server (distribution's `spec/auth/token.md`, `jwt.md` and `oauth.md`).

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::json;

use crate::{bed::*, common::*, line::*};

/// Where it is.
pub const TOKENS: &str = "127.0.0.1:5002";
/// A refresh token that it knows.
pub const IDENTITY: &str = "who-i-am";

/// What makes tokens that the registry believes.
#[derive(Clone)]
pub struct Issuer {
    folder: PathBuf,
}

impl Issuer {
    pub fn new(bed: &Bed) -> Self {
        let folder = bed.path("issuer");
        sh(&format!(
            "mkdir {0}; cd {0}
             openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 30 \\
               -subj /CN=issuer 2>&1
             openssl x509 -in cert.pem -outform der -out cert.der",
            folder.display()
        ));
        Self { folder }
    }

    /// What the registry's configuration says of it.
    pub fn section(&self) -> String {
        format!(
            "auth:\n  token:\n    realm: http://{TOKENS}/token\n    service: the-registry\n    \
             issuer: the-issuer\n    rootcertbundle: '{}'\n",
            self.folder.join("cert.pem").display()
        )
    }

    /// A token for `scope`, good for so many seconds.
    pub fn token(&self, scope: &str, life: u64) -> String {
        // No two are the same: they are signed in files that are named after what they say.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed).to_string();
        let certificate = STANDARD.encode(fs::read(self.folder.join("cert.der")).expect("a file"));
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]});
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("now")
            .as_secs();
        let mut parts = scope.split(':');
        let mut part = || parts.next().unwrap_or_default();
        let access = json!([{"type": part(), "name": part(), "actions": [part()]}]);
        let claims = json!({
            "iss": "the-issuer", "sub": "me", "aud": "the-registry", "jti": number,
            "nbf": now - 10, "iat": now, "exp": now + life, "access": access,
        });
        let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let name = format!("signed-{}", image::Digest::of(&signed).hex());
        let path = write(&self.folder.join(name), signed.as_bytes());
        sh(&format!(
            "openssl dgst -sha256 -sign {} -out {1}.sig {1}",
            self.folder.join("key.pem").display(),
            path.display()
        ));
        let signature = read(&path.with_extension("sig"));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Serves tokens to `me`, by password or [`IDENTITY`].
    pub fn serve(&self) -> Line {
        self.serve_for(300)
    }

    pub fn serve_for(&self, life: u64) -> Line {
        let issuer = self.clone();
        let basic = format!("Basic {}", STANDARD.encode(format!("me:{PASSWORD}")));
        Line::at(TOKENS, TOKENS, move |seen| {
            let is_post = seen.head.line.starts_with("POST ");
            let known = if is_post {
                seen.body
                    .split('&')
                    .any(|pair| pair == format!("refresh_token={IDENTITY}"))
            } else {
                seen.head.get("authorization") == Some(&basic)
            };
            let kind = vec![("content-type", "application/json".to_owned())];
            if !known {
                let text = json!({"errors": [{"code": "UNAUTHORIZED", "message": "who are you"}]});
                return Fault::Answer(401, kind, text.to_string().into_bytes());
            }
            let asked = if is_post { &seen.body } else { seen.path() };
            let scope = asked
                .split(['?', '&'])
                .find_map(|pair| pair.strip_prefix("scope="))
                .unwrap_or_default()
                .replace("%3A", ":")
                .replace("%2F", "/");
            let token = issuer.token(&scope, life);
            let field = if is_post { "access_token" } else { "token" };
            let text = json!({field: token, "expires_in": life});
            Fault::Answer(200, kind, text.to_string().into_bytes())
        })
    }
}
