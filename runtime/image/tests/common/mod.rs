//! What the tests share: places of their own, tools, and archives made by hand.

#![allow(dead_code, missing_docs)]

pub mod tree;

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use image::{Digest, ImageError, Options, OverlayMount, Reference, Store, StoreError};
use serde_json::{Value, json};

/// A directory that goes with everything in it, also when the test fails.
pub struct Place(PathBuf);

impl Place {
    pub fn new(test: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("fairlead-image-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory for the test");
        Self(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn store(&self) -> Store {
        open_store(self.join("store"), Options::default())
    }
}

/// Opens a store that may have been open before. A program that another test starts has our open files for a
/// moment, until it becomes another one; and so the lock.
pub fn open_store(root: impl AsRef<Path>, options: Options) -> Store {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        match Store::open_with(root.as_ref(), options.clone()) {
            Err(ImageError::Store(StoreError::Locked { .. })) if Instant::now() < limit => {
                thread::sleep(Duration::from_millis(5));
            }
            outcome => return outcome.expect("a store"),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// Runs a shell script; its output.
pub fn sh(script: &str) -> String {
    // What tools make must not depend on who runs the tests.
    let script = format!("umask 022\n{script}");
    let output = Command::new("sh")
        .args(["-euc", &script])
        .output()
        .expect("a shell");
    assert!(
        output.status.success(),
        "{script}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// Everything that can be seen of a tree, one line per file, by an independent program.
const LISTING: &str = r#"
import hashlib, os, stat, sys
root = os.fsencode(sys.argv[1])
skip = (b"trusted.overlay.",)
seen = {}
def line(path, name):
    s = os.lstat(path)
    kind = stat.S_IFMT(s.st_mode)
    row = [name.decode("utf8", "backslashreplace"), oct(s.st_mode), s.st_uid, s.st_gid]
    if sys.argv[2] == "times" and name: row.append(s.st_mtime_ns)
    if kind == stat.S_IFREG:
        row += [s.st_size, hashlib.sha256(open(path, "rb").read()).hexdigest()]
    if kind == stat.S_IFLNK: row.append(os.readlink(path))
    if kind in (stat.S_IFCHR, stat.S_IFBLK): row.append((os.major(s.st_rdev), os.minor(s.st_rdev)))
    if kind != stat.S_IFDIR and s.st_nlink > 1:
        first = seen.setdefault((s.st_dev, s.st_ino), name)
        if first != name: row.append(b"same as " + first)
    for key in sorted(os.listxattr(path, follow_symlinks=False)):
        if not os.fsencode(key).startswith(skip):
            row.append((key, os.getxattr(path, key, follow_symlinks=False)))
    print(row)
line(root, b"")
def walk(path, name):
    for child in sorted(os.listdir(path)):
        below, called = os.path.join(path, child), os.path.join(name, child)
        line(below, called)
        if stat.S_ISDIR(os.lstat(below).st_mode): walk(below, called)
walk(root, b"")
"#;

/// Lists a directory. Times are compared only where nothing but unpacking set them.
pub fn listing(path: &Path, times: bool) -> String {
    python(
        LISTING,
        &[&path.to_string_lossy(), if times { "times" } else { "" }],
    )
}

pub fn python(program: &str, args: &[&str]) -> String {
    let output = Command::new("python3")
        .arg("-c")
        .arg(program)
        .args(args)
        .output()
        .expect("python3");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// Mounts `mount` at `point` in a mount namespace of its own and runs a script there.
pub fn mounted(mount: &OverlayMount, point: &Path, script: &str) -> String {
    fs::create_dir_all(point).expect("a mount point");
    // Options of mount(2) have one page: layers of one folder are named from there.
    let folder = mount.lower[0].parent().expect("a folder");
    let lower: Vec<_> = mount
        .lower
        .iter()
        .map(|path| path.strip_prefix(folder).unwrap_or(path))
        .map(|path| path.display().to_string())
        .collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        mount.upper.display(),
        mount.work.display()
    );
    let inner = format!(
        "cd '{}'\nmount -t overlay overlay -o '{options}' '{}'\n{script}",
        folder.display(),
        point.display()
    );
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-euc", &inner])
        .output()
        .expect("unshare");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{inner}\n{error}");
    String::from_utf8(output.stdout).expect("text")
}

/// [`listing`] of a mounted snapshot.
pub fn mounted_listing(mount: &OverlayMount, point: &Path, times: bool) -> String {
    let program = point.with_extension("listing.py");
    fs::write(&program, LISTING).expect("the program");
    let times = if times { "times" } else { "''" };
    mounted(
        mount,
        point,
        &format!(
            "python3 '{}' '{}' {times}",
            program.display(),
            point.display()
        ),
    )
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).expect("gzip");
    encoder.finish().expect("gzip")
}

pub fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 1).expect("zstd")
}

pub fn plain(data: &[u8]) -> Vec<u8> {
    data.to_vec()
}

/// A tar archive of files, in this order.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, data) in files {
        append(&mut tar, name, tar::EntryType::Regular, "", data);
    }
    tar.into_inner().expect("a tar archive")
}

/// Appends an entry exactly as given: also what the `tar` crate would not write by itself.
pub fn append(
    tar: &mut tar::Builder<Vec<u8>>,
    name: &str,
    kind: tar::EntryType,
    link: &str,
    data: &[u8],
) {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(if kind == tar::EntryType::Directory {
        0o755
    } else {
        0o644
    });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(data.len() as u64);
    if matches!(kind, tar::EntryType::Char | tar::EntryType::Block) {
        header.set_device_major(0).expect("a device");
        header.set_device_minor(0).expect("a device");
    }
    header.set_cksum();
    tar.append(&header, data).expect("an entry");
}

/// A layer of (name, type, link target, data).
pub fn layer(entries: &[(&str, tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, kind, link, data) in entries {
        append(&mut tar, name, *kind, link, data);
    }
    tar.into_inner().expect("a layer")
}

pub fn config(layers: &[Vec<u8>]) -> Value {
    let diff_ids: Vec<_> = layers
        .iter()
        .map(|layer| Digest::of(layer).to_string())
        .collect();
    json!({
        "architecture": oci_spec::image::Arch::default().to_string(),
        "os": "linux",
        "config": {
            "User": "www-data:www-data",
            "Env": ["PATH=/usr/bin:/bin", "MODE=test"],
            "Entrypoint": ["/entry"],
            "Cmd": ["-g", "daemon off;"],
            "WorkingDir": "/srv",
            "StopSignal": "SIGQUIT",
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "Volumes": {"/data": {}},
            "Labels": {"b": "2", "a": "1"},
            "Healthcheck": {"Test": ["NONE"]}
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": []
    })
}

/// What Docker before version 25 saves. Layers are uncompressed.
pub fn docker_old(names: &[&str], layers: &[Vec<u8>], config: &Value) -> Vec<u8> {
    let config = config.to_string().into_bytes();
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let mut files: Vec<(String, Vec<u8>)> = vec![(config_name.clone(), config)];
    let mut listed = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let directory = format!("{:064x}", at + 1);
        files.push((format!("{directory}/VERSION"), b"1.0".to_vec()));
        files.push((format!("{directory}/layer.tar"), layer.clone()));
        listed.push(format!("{directory}/layer.tar"));
    }
    let manifest = json!([{"Config": config_name, "RepoTags": names, "Layers": listed}]);
    files.push(("manifest.json".into(), manifest.to_string().into_bytes()));
    archive(&files)
}

/// The files of an OCI layout, and of what Docker saves since version 25.
pub fn layout(
    tag: &str,
    layers: &[Vec<u8>],
    config: &Value,
    compress: fn(&[u8]) -> Vec<u8>,
) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![(
        "oci-layout".into(),
        br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
    )];
    let mut blob = |kind: &str, data: Vec<u8>| {
        let digest = Digest::of(&data);
        let descriptor = json!({
            "mediaType": kind, "digest": digest.to_string(), "size": data.len()
        });
        files.push((format!("blobs/sha256/{}", digest.hex()), data));
        (digest, descriptor)
    };
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let (digests, layers): (Vec<_>, Vec<_>) = layers
        .iter()
        .map(|layer| blob(kind, compress(layer)))
        .unzip();
    let (config_digest, config) = blob(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().into_bytes(),
    );
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": layers
    });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let (_, mut manifest) = blob(kind, manifest.to_string().into_bytes());
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    files.push(("index.json".into(), index.to_string().into_bytes()));
    let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let layers: Vec<_> = digests.iter().map(blob).collect();
    let listed =
        json!([{"Config": blob(&config_digest), "RepoTags": ["web:new"], "Layers": layers}]);
    files.push(("manifest.json".into(), listed.to_string().into_bytes()));
    files
}

pub fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let files: Vec<_> = files
        .iter()
        .map(|(n, d)| (n.as_str(), d.as_slice()))
        .collect();
    let mut tar = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, data).expect("a member");
    }
    tar.into_inner().expect("an archive")
}

pub fn write_layout(root: &Path, files: &[(String, Vec<u8>)]) {
    for (name, data) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, data).expect("a file");
    }
}

pub fn write(path: &Path, data: &[u8]) -> PathBuf {
    fs::write(path, data).expect("a file");
    path.to_owned()
}

pub fn reference(text: &str) -> Reference {
    text.parse().expect(text)
}

pub fn docker(path: &Path) -> Reference {
    reference(&format!("docker-archive:{}", path.display()))
}

/// Loading must fail, and leave the store as a new one is.
pub fn refused(store: &Store, root: &Path, reference: &Reference) -> ImageError {
    let error = store
        .resolve(reference)
        .expect_err("the archive must be refused");
    assert!(store.images().expect("images").is_empty());
    for directory in ["l", "layers", "images", "tmp"] {
        let left: Vec<_> = fs::read_dir(root.join(directory))
            .expect(directory)
            .collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
    error
}

pub fn read(path: &Path) -> Vec<u8> {
    let mut data = Vec::new();
    fs::File::open(path)
        .and_then(|mut f| f.read_to_end(&mut data))
        .expect("a file");
    data
}

/// Compares two listings; shows only the lines that differ.
pub fn same(actual: &str, expected: &str) {
    let only = |a: &str, b: &str| {
        let b: Vec<_> = b.lines().collect();
        a.lines()
            .filter(|line| !b.contains(line))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let (more, less) = (only(actual, expected), only(expected, actual));
    assert!(
        actual == expected,
        "only in ours:\n{more}\nonly expected:\n{less}"
    );
}
