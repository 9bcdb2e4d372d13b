//! What is said of one host's TLS and counts for no other, and where we are not led.

use std::{
    fs,
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use image::{HostConfig, ImageError, Registries, TlsConfig};
use serde_json::{Value, json};

use crate::{bed::*, common::*, line::*, made::*, tls};

/// A server with TLS: answers by rules, and else what the registry without TLS answers.
const SERVER: &str = r#"
import http.server, json, ssl, sys, urllib.error, urllib.request
host, port, folder, certificate, behind, log, rules = sys.argv[1:]
rules = json.loads(rules)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        shown = "Authorization" in self.headers
        known = bool(self.connection.getpeercert())
        with open(log, "a") as file: file.write(f"{self.path} auth={shown} cert={known}\n")
        for rule in rules:
            if rule["of"] in self.path and not (rule.get("unknown") and shown):
                return self.answer(rule["status"], rule["headers"], rule.get("body", "").encode())
        request = urllib.request.Request(f"http://{behind}{self.path}")
        request.add_header("Accept", self.headers.get("Accept", "*/*"))
        try: answer = urllib.request.urlopen(request)
        except urllib.error.HTTPError as error: answer = error
        self.answer(answer.status, {"Content-Type": answer.headers["Content-Type"]}, answer.read())
    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items(): self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"{folder}/{certificate}.pem", f"{folder}/{certificate}.key")
context.verify_mode = ssl.CERT_OPTIONAL
context.load_verify_locations(f"{folder}/ca.pem")
server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

/// Where the registry without TLS is that all of it comes from.
const BEHIND: &str = "127.0.0.1:4999";

struct Server {
    child: Child,
    log: std::path::PathBuf,
}

impl Server {
    /// At `address`, with the certificate called so.
    fn at(bed: &Bed, address: &str, certificate: &str, rules: Value) -> Self {
        let log = bed.path(&format!("seen-{address}"));
        fs::write(&log, "").expect("a log");
        let (host, port) = address.split_once(':').expect("a port");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "python3", "-c", SERVER, host, port])
            .arg(bed.path("tls"))
            .args([certificate, BEHIND])
            .arg(&log)
            .arg(rules.to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3");
        let server = Self { child, log };
        for _ in 0..1000 {
            if TcpStream::connect(address).is_ok() {
                return server;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("no server at {address}");
    }

    /// The requests so far.
    fn seen(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.log).expect("a log");
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A registry behind, with `app:v1`, and certificates.
fn behind(bed: &Bed) -> (Registry, Made) {
    tls::certificates(bed);
    let registry = bed.registry_at(BEHIND, "");
    let made = saying(Form::Oci, "mine");
    made.push(BEHIND, "app", "v1");
    (registry, made)
}

fn with_tls(tls: TlsConfig) -> Registries {
    let mut registries = Registries::default();
    let host = HostConfig {
        auth: Some(me()),
        tls,
    };
    registries.configs.insert(REGISTRY.into(), host);
    registries
}

fn blind() -> TlsConfig {
    TlsConfig {
        insecure_skip_verify: true,
        ..TlsConfig::default()
    }
}

/// An error with all that it is from.
fn chain(error: &ImageError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        text += &format!(" {error} {error:?}");
        next = error.source();
    }
    text
}

#[test]
fn a_redirect_to_plain_http_is_refused_at_once_and_its_signature_not_told() {
    let bed = Bed::new("plain-redirect");
    let (_behind, _) = behind(&bed);
    let to = "http://me:s3cret@10.77.0.1:9000/x?X-Amz-Signature=s3cret";
    let rule = json!([{"of": "/blobs/", "status": 307, "headers": {"Location": to}}]);
    let server = Server::at(&bed, REGISTRY, "server", rule);
    let store = bed.store_with(with_tls(tls::ca(&bed)));
    let error = pull(&store, "127.0.0.1:5000/app:v1").expect_err("plain HTTP");
    let text = chain(&error);
    assert!(
        text.contains("http://10.77.0.1:9000") && text.contains("plain HTTP"),
        "{text}"
    );
    assert!(!text.contains("s3cret"), "{text}");
    let asked = server.seen();
    let blobs = asked.iter().filter(|line| line.contains("/blobs/")).count();
    assert_eq!(blobs, 1, "{asked:?}");
}

#[test]
fn whoever_answers_is_trusted_only_on_the_host_that_it_was_said_of() {
    let bed = Bed::new("blind");
    let (_behind, made) = behind(&bed);
    for (tokens, trusted) in [("127.0.0.1:5002", true), ("10.77.0.1:5002", false)] {
        let challenge = format!("Bearer realm=\"https://{tokens}/token\"");
        let server = Server::at(
            &bed,
            REGISTRY,
            "server",
            json!([{"of": "/v2/", "unknown": true, "status": 401,
                "headers": {"WWW-Authenticate": challenge}}]),
        );
        let rule = json!([{"of": "/token", "status": 200, "headers": {},
            "body": json!({"token": "x"}).to_string()}]);
        let issuer = Server::at(&bed, tokens, "server", rule);
        let store = bed.store_with(with_tls(blind()));
        let outcome = pull(&store, "127.0.0.1:5000/app:v1");
        assert!(!server.seen().is_empty());
        match trusted {
            true => {
                assert_eq!(outcome.expect("an image").id, made.id());
                assert!(issuer.seen().iter().all(|line| line.contains("auth=True")));
            }
            false => {
                let error = failure(outcome, "127.0.0.1:5000/app:v1");
                assert!(error.contains("certificate"), "{error}");
                assert_eq!(issuer.seen(), [""; 0]);
            }
        }
        drop(store);
        bed.forget();
    }
}

#[test]
fn our_certificate_is_for_the_host_that_it_was_said_of() {
    let bed = Bed::new("shown");
    let (_behind, made) = behind(&bed);
    let rule = json!([{"of": "/blobs/", "status": 307,
        "headers": {"Location": format!("https://10.77.0.1:9000/v2/app/blobs/{}", made.id())}},
    ]);
    let server = Server::at(&bed, REGISTRY, "server", rule);
    let storage = Server::at(&bed, "10.77.0.1:9000", "server", json!([]));
    let path = |name: &str| Some(bed.path("tls").join(name));
    let tls = TlsConfig {
        cert_file: path("client.pem"),
        key_file: path("client.key"),
        ..tls::ca(&bed)
    };
    let store = bed.store_with(with_tls(tls));
    // The layer's redirect leads to the configuration.
    let _ = pull(&store, "127.0.0.1:5000/app:v1").expect_err("another blob");
    let (own, other) = (server.seen(), storage.seen());
    assert!(own.iter().all(|line| line.contains("cert=True")), "{own:?}");
    assert!(!other.is_empty(), "our authority is trusted there too");
    assert!(
        other.iter().all(|line| line.contains("cert=False")),
        "{other:?}"
    );
}

/// Who writes an image names any URL; the services that only the node can reach are no business of theirs.
#[test]
fn a_foreign_layer_is_not_fetched_from_inside() {
    let bed = Bed::new("foreign-inside");
    let _registry = bed.registry();
    let mut made = Made::new(Form::Docker, &[tar_of(&[("a", b"1")])], gzip);
    let foreign = made.blobs.remove(0);
    let inside = Line::at("10.77.0.1:8000", REGISTRY, move |_| {
        Fault::Answer(200, Vec::new(), foreign.clone())
    });
    // The registry's own host may have it; it must not lead elsewhere.
    let own = Line::at("127.0.0.1:8000", REGISTRY, |_| {
        let to = "http://10.77.0.1:8000/layer?key=s3cret".to_owned();
        Fault::Answer(307, vec![("location", to)], vec![])
    });
    let layer = &mut made.manifest["layers"][0];
    layer["mediaType"] = json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    layer["urls"] = json!(["http://10.77.0.1:8000/layer", "http://127.0.0.1:8000/layer"]);
    made.push(REGISTRY, "app", "v1");
    let text = "127.0.0.1:5000/app:v1";
    let error = failure(pull(&bed.store(), text), text);
    assert!(error.contains("not public"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
    assert_eq!(own.seen().len(), 1);
    assert_eq!(inside.seen().len(), 0);
}
