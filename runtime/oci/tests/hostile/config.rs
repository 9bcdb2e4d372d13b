//! `config.json`.

use super::bounded;
use super::common::Bundle;
use nix::sys::stat::Mode;
use serde_json::json;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Instant;

fn path(bundle: &Bundle) -> PathBuf {
    bundle.dir.path().join("config.json")
}

/// With these bytes as its configuration, it is refused with these words.
pub fn refused(bundle: &Bundle, what: &str, config: impl AsRef<[u8]>, words: &[&str]) {
    fs::write(path(bundle), config).expect("write");
    let said = bounded(bundle, &["run", "c"]);
    assert_ne!(said.code, 0, "{what} was accepted");
    assert!(
        said.stderr.len() < 16 << 10,
        "{what}: an error of {} bytes",
        said.stderr.len()
    );
    for word in words {
        assert!(
            said.stderr.contains(word),
            "{what}: {:?} does not say {word:?}",
            said.stderr
        );
    }
    bundle.assert_clean();
}

#[test]
fn sizes_and_depths() {
    let bundle = Bundle::new("sizes");
    let started = Instant::now();
    let mut file = BufWriter::new(File::create(path(&bundle)).expect("create"));
    file.write_all(b"{\"annotations\":{\"a\":\"")
        .expect("write");
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..100 {
        file.write_all(&piece).expect("write");
    }
    drop(file);
    bounded(&bundle, &["run", "c"]).refused(&["config.json", "longer than"]);
    // As many, of nothing, and without an end.
    File::create(path(&bundle))
        .expect("create")
        .set_len(1 << 40)
        .expect("sparse");
    bounded(&bundle, &["run", "c"]).refused(&["config.json"]);
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
        refused(&bundle, "deep", &deep, &["config.json"]);
        let inside = format!("{{\"ociVersion\":\"1.0.0\",\"process\":{deep}}}");
        refused(&bundle, "deep inside", &inside, &["config.json"]);
        let unknown = format!("{{\"ociVersion\":\"1.0.0\",\"unknown\":{deep}}}");
        refused(
            &bundle,
            "deep in what is skipped",
            &unknown,
            &["config.json"],
        );
    }
    assert!(started.elapsed().as_secs() < 120);
}

#[test]
fn encodings() {
    let bundle = Bundle::new("encodings");
    let text = bundle.config().to_string();
    let utf16 =
        |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    refused(&bundle, "nothing", "", &["config.json", "EOF"]);
    refused(
        &bundle,
        "a byte order mark",
        format!("\u{feff}{text}"),
        &["byte order mark"],
    );
    refused(&bundle, "UTF-16", utf16(u16::to_le_bytes), &["config.json"]);
    let marked = [b"\xff\xfe".to_vec(), utf16(u16::to_le_bytes)].concat();
    refused(
        &bundle,
        "UTF-16 with its mark",
        marked,
        &["byte order mark"],
    );
    let marked = [b"\xfe\xff".to_vec(), utf16(u16::to_be_bytes)].concat();
    refused(&bundle, "the other UTF-16", marked, &["byte order mark"]);
    let broken = text.replacen("/bin/", "/b\u{1}in/", 1).into_bytes();
    let broken: Vec<u8> = broken
        .into_iter()
        .map(|b| if b == 1 { 0xff } else { b })
        .collect();
    if broken.contains(&0xff) {
        refused(&bundle, "no UTF-8", broken, &["config.json"]);
    }
    refused(
        &bundle,
        "half of it",
        &text[..text.len() / 2],
        &["config.json"],
    );
    refused(
        &bundle,
        "more after it",
        format!("{text}{text}"),
        &["trailing"],
    );
    refused(&bundle, "NUL bytes", vec![0; 4096], &["config.json"]);
    refused(
        &bundle,
        "half a pair",
        text.replacen("\"ociVersion\":\"", "\"ociVersion\":\"\\ud800", 1),
        &["config.json"],
    );
}

#[test]
fn keys_twice() {
    let bundle = Bundle::new("twice");
    let text = bundle.config().to_string();
    let twice = text.replacen(
        '{',
        "{\"process\":{\"cwd\":\"/\",\"args\":[\"/bin/evil\"],\"user\":{\"uid\":0,\"gid\":0}},",
        1,
    );
    refused(
        &bundle,
        "process twice",
        twice,
        &["duplicate field", "process"],
    );
    let twice = text.replacen("\"linux\":{", "\"linux\":{\"maskedPaths\":[],", 1);
    refused(
        &bundle,
        "maskedPaths twice",
        twice,
        &["duplicate field", "maskedPaths"],
    );
}

/// Sections for systems that this is not.
#[test]
fn for_other_systems() {
    let bundle = Bundle::new("foreign");
    bundle.args(&["/bin/true"]);
    let whole = bundle.config();
    for (section, content) in [
        ("freebsd", json!({ "jail": { "parent": "x" } })),
        ("solaris", json!({ "milestone": "x" })),
        ("windows", json!({ "layerFolders": ["x"] })),
        ("zos", json!({ "namespaces": [] })),
        ("vm", json!({ "kernel": { "path": "/x" } })),
    ] {
        let mut config = whole.clone();
        config[section] = content;
        let text = config.to_string();
        refused(&bundle, section, text, &[section, "not supported"]);
    }
    // What the specification does not know, it wants passed over (config.md, "Extensibility").
    let mut config = whole.clone();
    config["x-own"] = json!({ "freebsd": {} });
    fs::write(bundle.dir.path().join("config.json"), config.to_string()).expect("write");
    bundle.oci(&["run", "c"]).ok();
    bundle.assert_clean();
}

#[test]
fn very_much_of_it() {
    let bundle = Bundle::new("much");
    bundle.args(&["/bin/true"]);
    let whole = bundle.config();
    let with = |change| {
        let mut config = whole.clone();
        super::common::merge(&mut config, change);
        config.to_string()
    };
    let env: Vec<String> = (0..300_000).map(|i| format!("A{i}=")).collect();
    refused(
        &bundle,
        "hundreds of thousands of variables",
        with(json!({ "process": { "env": env } })),
        &["exec"],
    );
    let args = ["/bin/true", &"x".repeat(200_000)];
    refused(
        &bundle,
        "a long argument",
        with(json!({ "process": { "args": args } })),
        &["exec"],
    );
    let long = format!("/{}", "x/".repeat(5000));
    refused(
        &bundle,
        "a long directory",
        with(json!({ "process": { "cwd": long } })),
        &["ENAMETOOLONG"],
    );
    let path = format!("PATH={}", "/x:".repeat(50_000));
    let change = json!({ "process": { "env": [path], "args": ["absent"] } });
    refused(&bundle, "a long PATH", with(change), &["absent"]);
}

/// What is called config.json and is none.
#[test]
fn other_files() {
    let bundle = Bundle::new("odd");
    let path = path(&bundle);
    let odd = |what: &str, words: &[&str]| {
        let said = bounded(&bundle, &["run", "c"]);
        assert_ne!(said.code, 0, "{what}");
        for word in words {
            assert!(said.stderr.contains(word), "{what}: {said:?}");
        }
    };
    fs::remove_file(&path).expect("remove");
    odd("nothing", &["config.json"]);
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("fifo");
    odd("a FIFO", &["config.json", "not a regular file"]);
    for target in [
        "/dev/zero",
        "/dev/tty",
        "/",
        "config.json",
        "/proc/self/fd/0",
    ] {
        fs::remove_file(&path).expect("remove");
        symlink(target, &path).expect("symlink");
        odd(target, &["config.json"]);
    }
    fs::remove_file(&path).expect("remove");
    fs::create_dir(&path).expect("mkdir");
    odd("a directory", &["config.json", "not a regular file"]);
    fs::remove_dir(&path).expect("remove");
    for bundle_path in ["/dev/null", "no/such"] {
        bounded(&bundle, &["create", "--bundle", bundle_path, "c"]).refused(&[bundle_path]);
    }
    bundle.assert_clean();
}
