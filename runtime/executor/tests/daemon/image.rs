//! Images with a configuration, as `docker save` writes them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::bed::{Daemon, output_of, run};

/// An archive with the test's root file system, what `more` adds to it in a second layer, and a
/// configuration (JSON, the section `config`).
pub fn archive(daemon: &Daemon, name: &str, config: &str, more: impl FnOnce(&Path)) -> String {
    let dir = tempfile::tempdir_in(daemon.rootfs().parent().unwrap()).unwrap();
    let second = dir.path().join("second");
    fs::create_dir(&second).unwrap();
    more(&second);
    let mut digests = Vec::new();
    for (layer, files) in [("base.tar", daemon.rootfs()), ("second.tar", second)] {
        let layer = dir.path().join(layer);
        tar(&layer, &files, &["."]);
        digests.push(format!("\"sha256:{}\"", digest(&layer)));
    }
    let text = format!(
        r#"{{"architecture": "{}", "os": "linux", "config": {config}, "history": [],
            "rootfs": {{"type": "layers", "diff_ids": [{}]}}}}"#,
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        },
        digests.join(", ")
    );
    fs::write(dir.path().join("config"), text).unwrap();
    let file = format!("{}.json", digest(&dir.path().join("config")));
    fs::rename(dir.path().join("config"), dir.path().join(&file)).unwrap();
    let manifest = format!(
        r#"[{{"Config": "{file}", "RepoTags": ["{name}:1"], "Layers": ["base.tar", "second.tar"]}}]"#
    );
    fs::write(dir.path().join("manifest.json"), manifest).unwrap();
    let path = daemon.rootfs().with_file_name(format!("{name}.tar"));
    tar(
        &path,
        dir.path(),
        &["manifest.json", &file, "base.tar", "second.tar"],
    );
    format!("docker-archive:{}", path.display())
}

pub fn tar(to: &Path, from: &Path, names: &[&str]) {
    let (to, from) = (to.display().to_string(), from.display().to_string());
    let options = [
        "--format=pax",
        "--xattrs",
        "--xattrs-include=*",
        "-cf",
        &to,
        "-C",
        &from,
    ];
    run("tar", &[&options, names].concat());
}

pub fn digest(path: &Path) -> String {
    let said = output_of(Command::new("sha256sum").arg(path)).stdout;
    let said = String::from_utf8(said).unwrap();
    said.split(' ').next().unwrap().to_owned()
}
