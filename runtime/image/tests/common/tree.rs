//! A tree with everything that a file system can hold.

use super::*;

/// Makes two layers' trees, with everything that a file system can hold.
pub const MAKE: &str = r#"
import os, struct, sys
root, user = os.fsencode(sys.argv[1]), sys.argv[2] == "user"
a, b = os.path.join(root, b"a"), os.path.join(root, b"b")
def put(layer, name, data=b"", mode=0o644, owner=(0, 0), time=1600000000123456789):
    path = os.path.join(layer, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, "wb").write(data)
    os.chown(path, *owner); os.chmod(path, mode); os.utime(path, ns=(time, time))
    return path
os.makedirs(a); os.makedirs(b); os.chmod(a, 0o751); os.chmod(b, 0o751)
put(a, b"etc/passwd", b"root:x:0:0::/:/bin/sh\n")
put(a, b"bin/su", b"setuid", 0o4755)
put(a, b"bin/wall", b"setgid", 0o2755, (0, 5))
put(a, b"home/user/file", b"mine", 0o600, (4000000000, 70000))
put(a, b"old/before-epoch", b"old", time=-1500000000)
put(a, "uml\u00e4ut/\u2603".encode(), b"snow")
put(a, b"bad-utf8-\xff\xfe", b"bytes")
put(a, b"n" * 255, b"long")
put(a, b"/".join([b"d" * 90] * 6) + b"/file", b"deep")
os.link(os.path.join(a, b"etc/passwd"), os.path.join(a, b"etc/passwd-"))
os.symlink(b"../etc/passwd", os.path.join(a, b"bin/link"))
os.symlink(b"/nowhere/" + b"t" * 200, os.path.join(a, b"bin/dangling"))
os.lchown(os.path.join(a, b"bin/link"), 7, 8)
os.mkfifo(os.path.join(a, b"fifo"), 0o640)
os.makedirs(os.path.join(a, b"dev")); os.mkdir(os.path.join(a, b"tmp"))
os.mknod(os.path.join(a, b"dev/null"), 0o666 | 0o020000, os.makedev(1, 3))
os.mknod(os.path.join(a, b"dev/loop0"), 0o660 | 0o060000, os.makedev(7, 300))
os.chmod(os.path.join(a, b"tmp"), 0o1777); os.chown(os.path.join(a, b"tmp"), 3, 4)
os.mkdir(os.path.join(a, b"secret"), 0o000)
with open(os.path.join(a, b"sparse"), "wb") as f:
    f.truncate(50_000_000)
    for at in (0, 4096 * 100, 4096 * 5000, 49_990_000): f.seek(at); f.write(b"data at %d" % at)
with open(os.path.join(a, b"hole"), "wb") as f: f.truncate(3_000_000)
# A capability set whose binary form contains newlines and NULs (0x0a00000a).
capability = struct.pack("<IIIII", 0x02000001, 0x0a00000a, 0, 0, 0)
os.setxattr(os.path.join(a, b"bin/wall"), "security.capability", capability)
os.setxattr(os.path.join(a, b"etc"), "trusted.note", b"kept")
if user:
    os.setxattr(os.path.join(a, b"etc/passwd"), "user.note", b"a\nb=\0c")
    os.setxattr(os.path.join(a, b"etc"), "user.empty", b"")
put(b, b"etc/passwd", b"replaced")
put(b, b"tmp/added", b"the directory is not in the archive")
put(b, b"new/file", b"new", 0o640, (1, 2))
"#;

/// Whether the file system of the test has them; tmpfs of older kernels does not.
pub fn has_user_attributes(place: &Place) -> bool {
    let probe = write(&place.join("probe"), b"");
    let program = "import os, sys; os.setxattr(sys.argv[1], 'user.a', b'')";
    Command::new("python3")
        .args(["-c", program, &probe.to_string_lossy()])
        .output()
        .expect("python3")
        .status
        .success()
}
