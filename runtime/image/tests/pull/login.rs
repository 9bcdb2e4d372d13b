//! Who we are for a registry, and how it is told.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use image::{Credentials, HostConfig, Registries};
use serde_json::json;

use crate::{bed::*, child, common::sh, line::*, made::*, token::*};

/// `me` and [`PASSWORD`], as `htpasswd -B` writes them.
const HTPASSWD: &str = "me:$2b$05$fairleadfairleadfairleMp6Xu3jRsxA1wuE77CWGxPm2PzZ2LTS\n";

/// A registry that lets in nobody but `me`, with the image `app:v1`.
fn registry(bed: &Bed) -> Registry {
    let mut registry = bed.registry();
    saying(Form::Oci, "mine").push(REGISTRY, "app", "v1");
    registry.stop();
    let file = bed.path("htpasswd");
    fs::write(&file, HTPASSWD).expect("a file");
    let more = format!(
        "auth: {{htpasswd: {{realm: mine, path: '{}'}}}}\n",
        file.display()
    );
    bed.registry_at(REGISTRY, &more)
}

fn auth_file(path: &Path, content: &serde_json::Value) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    fs::write(path, content.to_string()).expect("a file");
}

#[test]
fn a_password_comes_with_the_task_or_by_configuration() {
    let bed = Bed::new("basic");
    let registry = registry(&bed);
    let text = registry.name("app:v1");
    let clean = || {
        bed.is_clean(0, 0);
        bed.forget();
    };

    // Nobody, and somebody else.
    let store = bed.store();
    let error = failure(pull(&store, &text), &text);
    assert!(
        error.contains("access denied") && error.contains("/v2/app/manifests/v1"),
        "{error}"
    );
    let wrong = Credentials {
        password: format!("{PASSWORD}!"),
        ..me()
    };
    let error = failure(store.pull(&name(&text), &with(wrong)), &text);
    assert!(error.contains("access denied (status 401)"), "{error}");
    drop(store);
    clean();

    let store = bed.store();
    store
        .pull(&name(&text), &with(me()))
        .expect("with the task's");
    drop(store);
    bed.forget();

    let mut registries = Registries::default();
    let host = HostConfig {
        auth: Some(me()),
        ..HostConfig::default()
    };
    registries.configs.insert(REGISTRY.into(), host);
    let store = bed.store_with(registries.clone());
    pull(&store, &text).expect("with that of the configuration");
    drop(store);
    bed.forget();
    // The task's come first.
    let wrong = Credentials {
        password: "x".into(),
        ..me()
    };
    let store = bed.store_with(registries);
    failure(store.pull(&name(&text), &with(wrong)), &text);
    drop(store);
    clean();

    let path = bed.path("login/config.json");
    let auth = STANDARD.encode(format!("me:{PASSWORD}"));
    auth_file(&path, &json!({"auths": {REGISTRY: {"auth": auth}}}));
    let registries = Registries {
        auth_file: Some(path.clone()),
        ..Registries::default()
    };
    let store = bed.store_with(registries.clone());
    pull(&store, &text).expect("with that of the file");
    drop(store);
    bed.forget();
    // Of another registry.
    auth_file(&path, &json!({"auths": {"127.0.0.1:5005": {"auth": auth}}}));
    let store = bed.store_with(registries.clone());
    failure(pull(&store, &text), &text);
    // Damaged: it is told where, and not what.
    fs::write(&path, format!("{{\"auths\": {{\"{REGISTRY}\": {PASSWORD}")).expect("a file");
    let error = failure(pull(&store, &text), &text);
    assert!(error.contains(&path.display().to_string()), "{error}");
    drop(store);
    clean();
}

/// `docker login` with a helper: a program on the path, which only a process of its own can change.
#[test]
fn a_credential_helper_is_asked() {
    let bed = Bed::new("helper");
    let registry = registry(&bed);
    let text = registry.name("app:v1");
    let programs = bed.path("bin");
    fs::create_dir(&programs).expect("a folder");
    let put = |program: &str, script: &str| {
        let path = programs.join(format!("docker-credential-{program}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    };
    put(
        "good",
        &format!(
            "read -r registry || true; test \"$1 $registry\" = 'get {REGISTRY}' || exit 1
             echo '{{\"ServerURL\":\"{REGISTRY}\",\"Username\":\"me\",\"Secret\":\"{PASSWORD}\"}}'"
        ),
    );
    put(
        "none",
        "echo credentials not found in native keychain; exit 1",
    );
    put("broken", "echo the keychain is locked; exit 1");
    put("chatty", &format!("echo '\"{PASSWORD}\"'"));
    put("odd", &format!("echo '{{\"Username\": [\"{PASSWORD}\"]}}'"));
    put(
        "spilling",
        &format!("echo '{{\"Username\":\"me\",\"Secret\":\"{PASSWORD}\"}}'; exit 1"),
    );
    put(
        "forking",
        &format!(
            "sleep 100 & echo \"$!\" > {}; cat > /dev/null
             echo '{{\"Username\":\"me\",\"Secret\":\"{PASSWORD}\"}}'",
            bed.path("sleeper").display()
        ),
    );
    put("stuck", "exec sleep 5 >/dev/null 2>&1");
    let path = std::env::var("PATH").expect("a path");
    let path = format!("{}:{path}", programs.display());
    let pull_with = |more: &[(&str, &str)], file: serde_json::Value| {
        let config = bed.path("docker/config.json");
        auth_file(&config, &file);
        let folder = config.parent().expect("a folder").display().to_string();
        let own = [("PATH", path.as_str()), ("DOCKER_CONFIG", folder.as_str())];
        let variables: Vec<_> = own.iter().chain(more).copied().collect();
        bed.forget();
        child::pull(&bed, &text, &Registries::default(), &variables).outcome()
    };
    let pull = |file: serde_json::Value| pull_with(&[], file);
    pull(json!({"credHelpers": {REGISTRY: "good"}})).expect("with the helper of the registry");
    pull(json!({"credsStore": "good"})).expect("with the helper of all");
    let auth = STANDARD.encode(format!("me:{PASSWORD}"));
    let both = json!({"credsStore": "none", "auths": {REGISTRY: {"auth": auth}}});
    pull(both).expect("with the file, as the helper has nothing");
    let error = pull(json!({"credHelpers": {REGISTRY: "broken"}})).expect_err("broken");
    assert!(
        error.contains("docker-credential-broken") && error.contains("locked"),
        "{error}"
    );
    let error = pull(json!({"credHelpers": {REGISTRY: "missing"}})).expect_err("missing");
    assert!(error.contains("docker-credential-missing"), "{error}");
    // The helper of all may know nothing of this registry, which may know everybody: as Docker does it.
    for helper in ["broken", "missing", "chatty"] {
        let error = pull(json!({"credsStore": helper})).expect_err("nobody");
        assert!(error.contains("access denied"), "{error}");
        let both = json!({"credsStore": helper, "auths": {REGISTRY: {"auth": auth}}});
        pull(both).expect("with the file");
    }
    // What it says may be a secret.
    for helper in ["chatty", "spilling", "odd"] {
        let error = pull(json!({"credHelpers": {REGISTRY: helper}})).expect_err(helper);
        let program = format!("docker-credential-{helper}");
        assert!(error.contains(&program), "{error}");
        assert!(!error.contains(PASSWORD), "{error}");
    }
    // What it has left in the background may keep its output.
    let begun = Instant::now();
    pull(json!({"credHelpers": {REGISTRY: "forking"}})).expect("in time");
    sh(&format!("kill $(cat {})", bed.path("sleeper").display()));
    assert!(begun.elapsed() < Duration::from_secs(60));
    // One that never answers holds up nobody who does not want to wait.
    let error = pull_with(&[(child::CANCEL, "300")], json!({"credsStore": "stuck"}));
    assert!(error.expect_err("cancelled").contains("cancelled"));
}

#[test]
fn a_token_is_fetched_shown_and_renewed() {
    let bed = Bed::new("token");
    let mut registry = bed.registry();
    let made = saying(Form::Oci, "mine");
    made.push(REGISTRY, "team/app", "v1");
    registry.stop();
    let issuer = Issuer::new(&bed);
    let _registry = bed.registry_at(REGISTRY, &issuer.section());
    let server = issuer.serve();
    let line = Line::to(REGISTRY, |_| Fault::None);
    let text = line.name("team/app:v1");
    let store = bed.store();

    let error = failure(pull(&store, &text), &text);
    assert!(
        error.contains("/token") && error.contains("who are you"),
        "{error}"
    );
    let wrong = Credentials {
        password: format!("{PASSWORD}!"),
        ..me()
    };
    failure(store.pull(&name(&text), &with(wrong)), &text);
    bed.is_clean(0, 0);

    server.forget();
    line.forget();
    let image = store.pull(&name(&text), &with(me())).expect("an image");
    assert_eq!(image.id, made.id());
    // One token for manifest, configuration and layer; asked for this repository, to read.
    let asked = server.seen();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let path = asked[0].path();
    for part in ["service=the-registry", "account=me"] {
        assert!(path.contains(part), "{path}");
    }
    let scope = "repository:team/app:pull";
    let scope_is = |path: &str| path.replace("%3A", ":").replace("%2F", "/").contains(scope);
    assert!(scope_is(path), "{path}");
    // The password is for the token server alone.
    for seen in line.seen() {
        let shown = seen.head.get("authorization").unwrap_or_default();
        assert!(shown.is_empty() || shown.starts_with("Bearer "), "{shown}");
    }
    bed.is_clean(1, 0);

    // An identity token, by POST.
    assert!(store.remove_image(&made.id()).expect("removed"));
    store.gc().expect("collected");
    server.forget();
    let identity = Credentials {
        identity_token: IDENTITY.into(),
        ..Credentials::default()
    };
    store.pull(&name(&text), &with(identity)).expect("an image");
    let asked = server.seen();
    assert_eq!(asked.len(), 1);
    assert!(
        asked[0].head.line.starts_with("POST "),
        "{}",
        asked[0].head.line
    );
    assert!(asked[0].body.contains("grant_type=refresh_token") && scope_is(&asked[0].body));
    assert!(
        !asked[0].path().contains(IDENTITY),
        "not where logs have it"
    );
    let wrong = Credentials {
        identity_token: "no".into(),
        ..Credentials::default()
    };
    let error = failure(store.pull(&name(&text), &with(wrong)), &text);
    assert!(error.contains("access denied"), "{error}");

    // A token of the task itself.
    server.forget();
    let own = Credentials {
        registry_token: issuer.token(scope, 300),
        ..Credentials::default()
    };
    store.pull(&name(&text), &with(own)).expect("an image");
    assert_eq!(server.seen().len(), 0);
}

/// Tokens that do not live as long as the pull.
#[test]
fn an_expired_token_is_replaced_in_the_middle_of_a_pull() {
    let bed = Bed::new("expiry");
    let mut registry = bed.registry();
    let made = large(2, 100_000);
    made.push(REGISTRY, "team/app", "v1");
    registry.stop();
    let issuer = Issuer::new(&bed);
    let _registry = bed.registry_at(REGISTRY, &issuer.section());
    let text = format!("{LINE}/team/app:v1");
    let pull = || {
        let store = bed.store();
        let image = store.pull(&name(&text), &with(me())).expect("an image");
        assert_eq!(image.id, made.id());
        bed.is_clean(2, 0);
        drop(store);
        bed.forget();
    };
    {
        // The registry no longer takes the token that was good a moment ago. It bears an old one for a
        // minute; so the line says what it would say then.
        let server = issuer.serve();
        let count = AtomicUsize::new(0);
        let _line = Line::to(REGISTRY, move |seen| {
            let shown = seen.is_blob() && seen.head.get("authorization").is_some();
            if shown && count.fetch_add(1, Ordering::SeqCst) == 1 {
                let challenge =
                    format!("Bearer realm=\"http://{TOKENS}/token\",service=\"the-registry\"");
                return Fault::Answer(401, vec![("www-authenticate", challenge)], vec![]);
            }
            Fault::None
        });
        pull();
        assert_eq!(server.seen().len(), 2);
    }
    // Tokens that are at their end when they come are good for one request each.
    let server = issuer.serve_for(10);
    let line = Line::to(REGISTRY, |_| Fault::None);
    pull();
    assert!(server.seen().len() >= 4);
    assert!(
        line.seen().len() >= 8,
        "each is asked for without one first"
    );
}
