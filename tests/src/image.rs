//! The tasks' root file system: busybox and the tests' server, as a folder and as an archive.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::programs::program;
use crate::tools::sh;

const APPLETS: [&str; 22] = [
    "sh", "cat", "ls", "id", "true", "false", "sleep", "echo", "env", "hostname", "touch", "mkdir",
    "dd", "nc", "httpd", "nslookup", "ps", "kill", "grep", "tail", "head", "wget",
];

/// Makes the root file system; its folder.
pub(crate) fn root(dir: &Path) -> PathBuf {
    let root = dir.join("root");
    for part in ["bin", "etc", "tmp", "proc", "sys", "dev", "run", "root"] {
        fs::create_dir_all(root.join(part)).expect("folder");
    }
    let busybox = root.join("bin/busybox");
    fs::copy("/bin/busybox", &busybox).expect("package busybox-static is installed");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).expect("link");
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nweb:x:101:102::/:/bin/sh\n",
    )
    .expect("passwd");
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:102:\n").expect("group");
    fs::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n").expect("nsswitch");
    let server = program("fairlead-test-server");
    fs::copy(&server, root.join("bin/server")).expect("server");
    // It is linked against the machine's C library.
    let libraries = sh(&format!("ldd {} | grep -o '/[^ ]*'", server.display()));
    for library in libraries.lines() {
        let target = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(target.parent().expect("a folder")).expect("folder");
        fs::copy(library, target).expect("library");
    }
    root
}

/// Makes an archive as `docker save` does, with a command and an environment of its own.
pub(crate) fn archive(dir: &Path, root: &Path) -> PathBuf {
    let target = dir.join("image.tar");
    sh(&format!(
        r#"mkdir {dir}/save; cd {dir}/save
        tar -C {root} --sort=name --owner=0 --group=0 --numeric-owner -cf layer.tar .
        layer=$(sha256sum layer.tar | cut -d' ' -f1)
        printf '{{"architecture":"%s","os":"linux","config":{{"Entrypoint":["/bin/server"],"Cmd":["tcp:80"],"Env":["REPLICA=archive","PATH=/bin"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:%s"]}}}}' {architecture} $layer >config
        config=$(sha256sum config | cut -d' ' -f1)
        mv config $config.json; mkdir $layer; mv layer.tar $layer/layer.tar
        printf '[{{"Config":"%s.json","RepoTags":["web:1"],"Layers":["%s/layer.tar"]}}]' $config $layer >manifest.json
        tar -cf {target} manifest.json $config.json $layer/layer.tar; rm -r {dir}/save"#,
        dir = dir.display(),
        root = root.display(),
        target = target.display(),
        architecture = if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        },
    ));
    target
}
