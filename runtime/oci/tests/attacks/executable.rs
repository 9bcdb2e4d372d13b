//! CVE-2019-5736: the runtime's own file, as `/proc/<pid>/exe` of a process in the container.

use super::common::{Bundle, RUNTIME, until};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A copy, which may be lost, and the libraries that it needs in the image.
fn expendable(bundle: &Bundle) -> PathBuf {
    let copy = bundle.dir.path().join("runtime");
    fs::copy(RUNTIME, &copy).expect("copy");
    let said = Command::new("ldd").arg(RUNTIME).output().expect("ldd");
    for word in String::from_utf8_lossy(&said.stdout).split_whitespace() {
        if word.starts_with('/') {
            let place = bundle.root().join(word.trim_start_matches('/'));
            fs::create_dir_all(place.parent().expect("parent")).expect("mkdir");
            fs::copy(word, &place).expect("library");
            fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).expect("chmod");
        }
    }
    let directory = bundle.root().join("runtime");
    fs::create_dir_all(directory).expect("mkdir");
    copy
}

/// Opens the executable of a process called like that, and writes to it when it has ended.
const ATTACK: &str = "until [ \"$p\" ]; do for d in /proc/[0-9]*; do \
    tr '\\0' ' ' < $d/cmdline 2>/dev/null | grep -q '^/proc/self/exe update' && p=$d; done; done; \
    ls -l $p/exe > /tmp/exe; exec 9< $p/exe && touch /tmp/opened; \
    while [ -e /tmp/opened ]; do sleep 0.05; done; \
    echo overwritten > /proc/self/fd/9; echo overwritten >> /proc/self/fd/9; touch /tmp/tried; sleep 600";

/// Blocks: it reads from a pipe that nobody writes to.
const ARGS: [&str; 5] = ["/proc/self/exe", "update", "--resources", "-", "c"];

fn start(bundle: &Bundle, runtime: &Path, args: &[&str]) -> Child {
    let mut command = Command::new(runtime);
    command.arg("--root").arg(bundle.state()).args(args);
    command.current_dir(bundle.dir.path()).stdin(Stdio::piped());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("runtime")
}

fn attacked(bundle: &Bundle, runtime: &Path, victim: &mut Child) {
    let tmp = bundle.root().join("tmp");
    until("the executable to be opened", || {
        tmp.join("opened").exists()
    });
    // Its end makes the file writable, as far as that goes.
    drop(victim.stdin.take());
    victim.wait().expect("wait");
    fs::remove_file(tmp.join("opened")).expect("remove");
    until("the attempt", || tmp.join("tried").exists());
    assert!(
        fs::read(runtime).expect("read") == fs::read(RUNTIME).expect("read"),
        "the runtime was overwritten"
    );
    fs::remove_file(tmp.join("tried")).expect("remove");
}

fn prepare(name: &str) -> (Bundle, PathBuf) {
    let bundle = Bundle::new(name);
    bundle.change(json!({ "root": { "readonly": false }, "linux": { "seccomp": null } }));
    let runtime = expendable(&bundle);
    (bundle, runtime)
}

#[test]
fn by_exec() {
    let (bundle, runtime) = prepare("exe-exec");
    bundle.script(ATTACK);
    assert_eq!(bundle.create("c", &[]).code, 0);
    bundle.oci(&["start", "c"]).ok();
    let mut victim = start(&bundle, &runtime, &[&["exec", "c"], &ARGS[..]].concat());
    attacked(&bundle, &runtime, &mut victim);
}

#[test]
fn by_the_first_process() {
    let (bundle, runtime) = prepare("exe-first");
    bundle.args(&ARGS);
    from_beside(&bundle, &runtime);
}

/// By the one that an exec has started meanwhile.
fn from_beside(bundle: &Bundle, runtime: &Path) {
    // So that the attacker outlives it.
    let mut list = bundle.config()["linux"]["namespaces"].clone();
    let kinds = list.as_array_mut().expect("list");
    kinds.retain(|one| one["type"] != "pid");
    bundle.change(json!({ "linux": { "namespaces": list } }));
    let mut victim = start(bundle, runtime, &["run", "--keep", "c"]);
    until("the container", || {
        bundle.oci(&["state", "c"]).stdout.contains("running")
    });
    let mut attacker = start(
        bundle,
        Path::new(RUNTIME),
        &["exec", "c", "/bin/sh", "-c", ATTACK],
    );
    attacked(bundle, runtime, &mut victim);
    bundle.oci(&["delete", "--force", "c"]).ok();
    attacker.wait().expect("wait");
    bundle.assert_clean();
}

/// An image whose entry point is a script with that interpreter.
#[test]
fn as_an_interpreter() {
    let (bundle, runtime) = prepare("exe-script");
    let script = bundle.root().join("bin/evil");
    // It becomes `/proc/self/exe update /bin/evil --resources -`, which waits for its input.
    fs::write(&script, "#!/proc/self/exe update\n").expect("write");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("chmod");
    bundle.args(&["/bin/evil", "--resources", "-"]);
    from_beside(&bundle, &runtime);
}

/// A mount of the machine that is read-only now may be made writable later.
#[test]
fn on_a_read_only_mount() {
    let (bundle, runtime) = prepare("exe-readonly");
    bundle.args(&["/bin/sleep", "600"]);
    assert_eq!(bundle.create("c", &[]).code, 0);
    bundle.oci(&["start", "c"]).ok();
    let script = "mount --bind $0 $0 && mount -o remount,bind,ro $0 && \
                  exec $0 --root $1 exec c /bin/sleep 600";
    let mut command = Command::new("unshare");
    command.args(["--mount", "/bin/sh", "-c", script]);
    command.arg(&runtime).arg(bundle.state());
    let mut child = command.stdin(Stdio::null()).spawn().expect("unshare");
    // Of a mount of the runtime's own it is the whole.
    let link = format!("/proc/{}/exe", child.id());
    until("a mount of its own", || {
        fs::read_link(&link).is_ok_and(|link| link == Path::new("/"))
    });
    bundle.oci(&["delete", "--force", "c"]).ok();
    child.wait().expect("wait");
}

/// With the libraries in it, it still is loaded at a random address, and no loader is asked for.
#[cfg(entry)]
#[test]
fn one_file_for_any_address() {
    let file = fs::read(RUNTIME).expect("read");
    let number = |at: usize, length: usize| {
        let bytes = file.get(at..at + length).expect("ELF header");
        let mut all = [0; 8];
        all[..length].copy_from_slice(bytes);
        usize::try_from(u64::from_le_bytes(all)).expect("a number")
    };
    assert_eq!(number(0x10, 2), 3, "ET_DYN");
    let (headers, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
    let kinds: Vec<usize> = (0..count).map(|n| number(headers + n * size, 4)).collect();
    assert!(kinds.contains(&1), "PT_LOAD: {kinds:?}");
    assert!(!kinds.contains(&3), "PT_INTERP: {kinds:?}");
}
