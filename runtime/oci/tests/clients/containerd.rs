//! containerd with its shim for runc, driven by ctr.

use crate::common::{
    Ended, Place, RESIZED, RUNTIME, all_mounted, emulated, left_out, until, write,
};
use std::fs;
use std::ops::Deref;

/// A place where containerd runs.
struct Containerd(Place);

impl Deref for Containerd {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

/// Where the shim has the runtime keep state, for ctr's namespace.
const STATES: [&str; 2] = ["/run/containerd/runc/default", "/run/fairlead-oci"];

impl Containerd {
    fn new(name: &str) -> Option<Self> {
        let mut place = Place::new(name, &["containerd", "ctr", "containerd-shim-runc-v2"])?;
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            place.path("storage"),
            place.path("state"),
            place.path("socket"),
            place.path("ttrpc"),
        );
        write(&place.path("config.toml"), &config);
        let config = place.text("config.toml");
        place.start(
            &["containerd", "--config", &config],
            "socket",
            &["containerd"],
        );
        Some(Self(place))
    }

    fn ctr(&self, words: &[&str]) -> Ended {
        let socket = self.text("socket");
        self.run(&[&["ctr", "--address", &socket], words].concat())
    }

    /// `ctr run` with options, and then what runs in the root file system.
    fn words(&self, options: &[&str], id: &str, program: &[&str]) -> Vec<String> {
        let (socket, root) = (self.text("socket"), self.text("rootfs"));
        if !self.path("rootfs").exists() {
            self.rootfs("rootfs");
        }
        let cgroup = format!("{}/{id}", self.cgroup);
        let first = [
            "ctr",
            "--address",
            &socket,
            "run",
            "--runc-binary",
            RUNTIME,
            "--cgroup",
            &cgroup,
        ];
        let words = first.iter().chain(options).copied();
        let words = words.chain(["--rootfs", &root, id]);
        words
            .chain(program.iter().copied())
            .map(String::from)
            .collect()
    }

    fn container(&self, options: &[&str], id: &str, program: &[&str]) -> Ended {
        let words = self.words(options, id, program);
        self.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// `ctr run --rm` of a shell script.
    fn script(&self, options: &[&str], id: &str, script: &str) -> Ended {
        self.container(
            &[&["--rm"], options].concat(),
            id,
            &["/bin/sh", "-c", script],
        )
    }

    fn status(&self, id: &str) -> String {
        let list = self.ctr(&["task", "ls"]);
        let line = list.ok().lines().find(|line| line.starts_with(id));
        line.and_then(|line| line.split_whitespace().last())
            .unwrap_or("none")
            .to_string()
    }
}

#[test]
fn containerd_runs_programs() {
    let Some(containerd) = Containerd::new("ctrrun") else {
        return;
    };
    let hi = containerd.script(&[], "a", "echo out; echo err >&2; exit 7");
    assert_eq!(
        (hi.code, hi.out.as_str(), hi.err.trim_end()),
        (7, "out\n", "err")
    );
    let run = |program| containerd.container(&["--rm"], "b", &[program]);
    run("nope").failed(1, &["\"nope\"", "executable file not found in $PATH"]);
    run("/etc/passwd").failed(1, &["/etc/passwd", "permission denied"]);
    // Another root file system each time, of the same image.
    let root = containerd.rootfs("image");
    let archive = containerd.text("image.tar");
    containerd
        .run(&["tar", "-C", &root, "-cf", &archive, "."])
        .ok();
    oci_archive(&containerd, &archive);
    let image = containerd.text("bb.tar");
    containerd
        .ctr(&["images", "import", "--snapshotter", "native", &image])
        .ok();
    let runs = if emulated() { 1 } else { 10 };
    for i in 0..runs {
        let id = format!("i{i}");
        let cgroup = format!("{}/{id}", containerd.cgroup);
        let shown = containerd.ctr(&[
            "run",
            "--rm",
            "--snapshotter",
            "native",
            "--runc-binary",
            RUNTIME,
            "--cgroup",
            &cgroup,
            "example.org/bb:latest",
            &id,
            "/bin/sh",
            "-c",
            "ls /proc/self/fd | wc -l; touch /mine",
        ]);
        assert_eq!(shown.ok(), "4");
    }
    assert_eq!(containerd.ctr(&["containers", "ls", "-q"]).ok(), "");
    containerd.assert_clean(&STATES, &[]);
}

/// Makes the archive of an OCI image (image-layout.md) of one layer, without another client.
fn oci_archive(containerd: &Containerd, layer: &str) {
    let layout = containerd.path("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("mkdir");
    let blob = |content: &[u8]| {
        let new = blobs.join("new");
        fs::write(&new, content).expect("write");
        let sum = containerd.run(&["sha256sum", new.to_str().expect("utf-8")]);
        let sum = sum.ok().split(' ').next().expect("sum").to_string();
        fs::rename(new, blobs.join(&sum)).expect("rename");
        let digest = format!("sha256:{sum}");
        (digest, content.len())
    };
    let (layer, layer_size) = blob(&fs::read(layer).expect("layer"));
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    });
    let (config, config_size) = blob(config.to_string().as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": layer_size}],
    });
    let (manifest, manifest_size) = blob(manifest.to_string().as_bytes());
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest, "size": manifest_size,
            "annotations": {"io.containerd.image.name": "example.org/bb:latest"},
        }],
    });
    write(&layout.join("index.json"), &index.to_string());
    write(
        &layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    );
    let (layout, archive) = (containerd.text("layout"), containerd.text("bb.tar"));
    containerd
        .run(&["tar", "-C", &layout, "-cf", &archive, "."])
        .ok();
}

#[test]
fn containerd_manages_a_task() {
    let Some(containerd) = Containerd::new("ctrtask") else {
        return;
    };
    let file = containerd.path("rootfs/tmp/said");
    let script = "trap 'echo term >/tmp/said; exit 3' TERM; trap 'echo usr1 >/tmp/said' USR1; \
                  echo up >/tmp/said; while :; do usleep 50000; done";
    containerd
        .container(&["-d"], "c", &["/bin/sh", "-c", script])
        .ok();
    let said = |what: &str| fs::read_to_string(&file).is_ok_and(|text| text.trim() == what);
    until("the program", || said("up"));
    assert_eq!(containerd.status("c"), "RUNNING");

    let exec = |options: &[&str], program: &[&str]| {
        let first = ["task", "exec", "--exec-id", "e"];
        containerd.ctr(&[&first, options, &["c"], program].concat())
    };
    let shown = exec(
        &["--cwd", "/tmp", "--user", "101:102"],
        &["/bin/sh", "-c", "id -u; id -g; pwd; exit 6"],
    );
    assert_eq!((shown.code, shown.out.as_str()), (6, "101\n102\n/tmp\n"));
    exec(&[], &["nope"]).failed(1, &["\"nope\"", "not found in $PATH"]);
    let socket = containerd.text("socket");
    let words = [
        "ctr",
        "--address",
        &socket,
        "task",
        "exec",
        "-t",
        "--exec-id",
        "t",
        "c",
        "/bin/sh",
        "-c",
        RESIZED,
    ];
    assert_eq!(containerd.run_on_terminal(&words).ok(), "/dev/pts/0\n33 77");

    containerd.ctr(&["task", "pause", "c"]).ok();
    assert_eq!(containerd.status("c"), "PAUSED");
    containerd.ctr(&["task", "resume", "c"]).ok();
    assert_eq!(containerd.status("c"), "RUNNING");
    // Read by the shim, from the cgroup of the process that the runtime named.
    if all_mounted() {
        let metrics = containerd.ctr(&["task", "metrics", "c"]);
        assert!(metrics.ok().contains("memory"), "{metrics:?}");
    }
    let listed = containerd.ctr(&["task", "ps", "c"]);
    assert!(listed.ok().lines().count() >= 2, "{listed:?}");

    containerd
        .ctr(&["task", "kill", "--signal", "USR1", "c"])
        .ok();
    until("the signal", || said("usr1"));
    containerd
        .ctr(&["task", "kill", "--signal", "TERM", "c"])
        .ok();
    until("the end", || containerd.status("c") == "STOPPED");
    assert!(said("term"));
    containerd.ctr(&["task", "delete", "c"]).ok();
    // Once more, and by force.
    containerd.ctr(&["task", "start", "-d", "c"]).ok();
    until("the program", || said("up"));
    containerd
        .ctr(&["task", "kill", "--all", "--signal", "KILL", "c"])
        .ok();
    until("the end", || containerd.status("c") == "STOPPED");
    containerd.ctr(&["task", "delete", "c"]).ok();
    containerd.ctr(&["containers", "rm", "c"]).ok();
    containerd.assert_clean(&STATES, &[]);
}

#[test]
fn containerd_restricts() {
    if left_out() {
        return;
    }
    let Some(containerd) = Containerd::new("ctrrestrict") else {
        return;
    };
    let volume = containerd.path("volume");
    fs::create_dir(&volume).expect("mkdir");
    fs::write(volume.join("file"), "from the host").expect("write");
    let mount = format!(
        "type=bind,src={},dst=/tmp,options=rbind:ro:rslave",
        volume.display()
    );
    let options = [
        "--read-only",
        "--mount",
        &mount,
        "--env",
        "A=b",
        "--cwd",
        "/etc",
        "--seccomp",
        "--memory-limit",
        "33554432",
        "--cpus",
        "0.5",
    ];
    let shown = containerd.script(
        &options,
        "r",
        "touch /x 2>&1; cat /tmp/file; echo; touch /tmp/x 2>&1; echo $A; pwd; \
         grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t' ' '; \
         echo x >/dev/null && echo null; unshare -U true || echo no",
    );
    assert_eq!(
        shown.ok(),
        "touch: /x: Read-only file system\nfrom the host\ntouch: /tmp/x: Read-only file system\n\
         b\n/etc\nNoNewPrivs: 1\nSeccomp: 2\nnull\nno"
    );
    let options = [
        "--cap-drop",
        "CAP_CHOWN",
        "--cap-add",
        "CAP_SYS_ADMIN",
        "--allow-new-privs",
    ];
    let shown = containerd.script(
        &options,
        "q",
        "chown 1 /etc/passwd || echo no; mount -t tmpfs x /tmp && echo mounted; \
         grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t' ' '",
    );
    assert_eq!(shown.ok(), "no\nmounted\nNoNewPrivs: 0\nSeccomp: 0");

    let limits = ["-d", "--memory-limit", "33554432", "--cpus", "0.5"];
    containerd.container(&limits, "l", &["sleep", "1000"]).ok();
    let memory = containerd.limit("/l", ("memory", "memory.limit_in_bytes"), "memory.max");
    assert_eq!(memory, "33554432");
    let cpu = containerd.limit("/l", ("cpu", "cpu.cfs_quota_us"), "cpu.max");
    assert_eq!(cpu.split(' ').next(), Some("50000"));
    containerd.ctr(&["task", "delete", "--force", "l"]);
    containerd.ctr(&["containers", "rm", "l"]).ok();

    let words = containerd.words(
        &["--rm", "-t"],
        "t",
        &["/bin/sh", "-c", &format!("{RESIZED}; exit 5")],
    );
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let shown = containerd.run_on_terminal(&words);
    assert_eq!((shown.code, shown.out.as_str()), (5, "/dev/pts/0\n33 77\n"));
    containerd.assert_clean(&STATES, &[]);
}

#[test]
fn containerd_hears_of_oom() {
    let Some(containerd) = Containerd::new("ctroom") else {
        return;
    };
    let socket = containerd.text("socket");
    let events = fs::File::create(containerd.path("events")).expect("create");
    let mut listening = containerd.command(&["ctr", "--address", &socket, "events"]);
    let listening = listening.stdout(events).spawn().expect("ctr events");
    // Whoever listens too late hears nothing: tried again, then.
    let mut tries = 0;
    let heard = || fs::read_to_string(containerd.path("events")).unwrap_or_default();
    while !heard().contains("/tasks/oom") && tries < 5 {
        tries += 1;
        let script = "sleep 0.5; tail /dev/zero; sleep 0.5; exit 4";
        let shown = containerd.script(
            &["--memory-limit", "16777216"],
            &format!("o{tries}"),
            script,
        );
        assert_eq!(shown.code, 4, "{shown:?}");
    }
    containerd.end(listening);
    let heard = heard();
    assert!(!all_mounted() || heard.contains("/tasks/oom"), "{heard}");
    containerd.assert_clean(&STATES, &[]);
}
