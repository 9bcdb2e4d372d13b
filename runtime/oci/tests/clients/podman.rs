//! podman, with conmon.

use crate::common::{Ended, Place, RUNTIME, emulated, left_out, until, write};
use std::fs;
use std::ops::Deref;

/// A place with podman's configuration.
struct Podman(Place);

impl Deref for Podman {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

/// Where the runtime keeps state when it is not told: podman does not tell.
const STATES: [&str; 1] = ["/run/fairlead-oci"];

/// Limits that need no privileges: podman's own are higher than some machines allow.
const CONFIG: &str = "[containers]\n\
    default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
    netns = \"none\"\n\
    [engine]\n\
    cgroup_manager = \"cgroupfs\"\n\
    events_logger = \"file\"\n\
    init_path = \"/usr/bin/docker-init\"\n";

impl Podman {
    fn new(name: &str) -> Option<Self> {
        let place = Place::new(name, &["podman", "conmon", "docker-init"])?;
        write(&place.path("containers.conf"), CONFIG);
        Some(Self(place))
    }

    fn line<'a>(&self, own: &'a [String], words: &[&'a str]) -> Vec<&'a str> {
        let own = own.iter().map(String::as_str);
        own.chain(words.iter().copied()).collect()
    }

    fn own(&self) -> Vec<String> {
        let config = format!("CONTAINERS_CONF={}", self.text("containers.conf"));
        let (root, run) = (self.text("storage"), self.text("run"));
        [
            "env",
            &config,
            "podman",
            "--root",
            &root,
            "--runroot",
            &run,
            "--tmpdir",
            &self.text("tmp"),
            "--storage-driver",
            "vfs",
            "--runtime",
            RUNTIME,
        ]
        .map(String::from)
        .into()
    }

    /// A command of podman's.
    fn podman(&self, words: &[&str]) -> Ended {
        self.run(&self.line(&self.own(), words))
    }

    /// An image of busybox, `bb`, with these changes.
    fn import(&self, options: &[&str]) {
        let (root, archive) = (self.rootfs("image"), self.text("image.tar"));
        self.run(&["tar", "-C", &root, "-cf", &archive, "."]).ok();
        self.podman(&[&["import"], options, &[&archive, "bb:latest"]].concat())
            .ok();
    }

    /// `podman run` or `create` with options, and then what runs in the root file system.
    fn container(&self, verb: &str, options: &[&str], program: &[&str]) -> Ended {
        let words = self.words(verb, options, program);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        self.podman(&words)
    }

    fn words(&self, verb: &str, options: &[&str], program: &[&str]) -> Vec<String> {
        let root = self.text("rootfs");
        if !self.path("rootfs").exists() {
            self.rootfs("rootfs");
        }
        let first = [verb, "--cgroup-parent", &self.cgroup];
        let words = first.iter().chain(options).copied();
        let words = words.chain(["--rootfs", &root]);
        words
            .chain(program.iter().copied())
            .map(String::from)
            .collect()
    }

    /// `podman run --rm` of a shell script.
    fn script(&self, options: &[&str], script: &str) -> Ended {
        let options = [&["--rm"], options].concat();
        self.container("run", &options, &["sh", "-c", script])
    }

    fn inspect(&self, container: &str, format: &str) -> String {
        let shown = self.podman(&["inspect", "--format", format, container]);
        shown.ok().to_string()
    }
}

#[test]
fn podman_runs_an_image() {
    if left_out() {
        return;
    }
    let Some(podman) = Podman::new("podmanimage") else {
        return;
    };
    podman.import(&[]);
    let run = |program: &[&str]| {
        let first = ["run", "--rm", "--cgroup-parent", &podman.cgroup, "bb"];
        podman.podman(&[&first, program].concat())
    };
    assert_eq!(
        run(&["sh", "-c", "echo hi; pwd; ls -ld /"])
            .ok()
            .lines()
            .next(),
        Some("hi")
    );
    let seven = run(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(
        (seven.code, seven.out.as_str(), seven.err.as_str()),
        (7, "out\n", "err\n")
    );
    run(&["nope"]).failed(127, &["\"nope\"", "not found in $PATH", "was not found"]);
    run(&["/nope"]).failed(127, &["/nope", "no such file or directory"]);
    run(&["/etc/passwd"]).failed(126, &["/etc/passwd", "permission denied"]);
    podman.assert_clean(&STATES, &["conmon"]);
}

#[test]
fn podman_manages_a_container_that_runs() {
    let Some(podman) = Podman::new("podmanlife") else {
        return;
    };
    let script = "trap 'echo term; exit 3' TERM; trap 'echo usr1' USR1; echo up; \
                  while :; do usleep 50000; done";
    let created = podman.container("run", &["-d", "--name", "c"], &["sh", "-c", script]);
    let id = created.ok().to_string();
    until("the program", || podman.podman(&["logs", "c"]).ok() == "up");

    let exec = |options: &[&str], program: &[&str]| {
        podman.podman(&[&["exec"], options, &["c"], program].concat())
    };
    assert_eq!(exec(&[], &["id", "-u"]).ok(), "0");
    let options = ["-u", "web", "-w", "/tmp", "-e", "A=b c"];
    let shown = exec(&options, &["sh", "-c", "id -u; id -g; pwd; echo $A"]);
    assert_eq!(shown.ok(), "101\n102\n/tmp\nb c");
    exec(&[], &["sh", "-c", "echo out; echo err >&2; exit 9"]).failed(9, &["err"]);
    exec(&[], &["nope"]).failed(127, &["\"nope\"", "not found in $PATH"]);
    exec(&[], &["/etc/passwd"]).failed(126, &["permission denied"]);
    let own = podman.own();
    let on = podman.line(&own, &["exec", "-it", "c", "sh", "-c", "tty; stty size"]);
    assert_eq!(podman.run_on_terminal(&on).ok(), "/dev/pts/0\n33 77");

    podman.podman(&["kill", "--signal", "USR1", "c"]).ok();
    until("the signal", || {
        podman.podman(&["logs", "c"]).ok() == "up\nusr1"
    });

    podman
        .podman(&["update", "--memory", "64m", "--cpus", "0.5", "c"])
        .ok();
    let limit = |v1, v2| podman.limit(&id, v1, v2);
    let memory = limit(("memory", "memory.limit_in_bytes"), "memory.max");
    assert_eq!(memory, (64u64 << 20).to_string());
    let cpu = limit(("cpu", "cpu.cfs_quota_us"), "cpu.max");
    assert_eq!(cpu.split(' ').next(), Some("50000"));

    podman.podman(&["pause", "c"]).ok();
    assert_eq!(podman.inspect("c", "{{.State.Status}}"), "paused");
    let frozen = limit(("freezer", "freezer.state"), "cgroup.freeze");
    assert!(["FROZEN", "1"].contains(&frozen.as_str()), "{frozen}");
    podman.podman(&["unpause", "c"]).ok();
    assert_eq!(podman.inspect("c", "{{.State.Status}}"), "running");

    podman.podman(&["stop", "-t", "30", "c"]).ok();
    let state = "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}";
    assert_eq!(podman.inspect("c", state), "exited 3 false");
    podman.podman(&["start", "c"]).ok();
    podman.podman(&["restart", "-t", "0", "c"]).ok();
    assert_eq!(podman.inspect("c", "{{.State.Status}}"), "running");
    podman.podman(&["rm", "-f", "-t", "0", "c"]).ok();
    podman.assert_clean(&STATES, &["conmon"]);
}

#[test]
fn podman_ends_what_does_not_listen() {
    if left_out() {
        return;
    }
    let Some(podman) = Podman::new("podmanstop") else {
        return;
    };
    let program = ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"];
    podman
        .container("run", &["-d", "--name", "c"], &program)
        .ok();
    podman.podman(&["stop", "-t", "1", "c"]).ok();
    assert_eq!(podman.inspect("c", "{{.State.ExitCode}}"), "137");
    podman.podman(&["start", "c"]).ok();
    podman.podman(&["kill", "c"]).ok();
    assert_eq!(podman.podman(&["wait", "c"]).ok(), "137");
    // Created, and never started.
    podman
        .container("create", &["--name", "never"], &["true"])
        .ok();
    podman.podman(&["init", "never"]).ok();
    assert_eq!(podman.inspect("never", "{{.State.Status}}"), "initialized");
    podman.podman(&["rm", "-f", "-a"]).ok();
    podman.assert_clean(&STATES, &["conmon"]);
}

#[test]
fn podman_limits() {
    let Some(podman) = Podman::new("podmanlimits") else {
        return;
    };
    let options = [
        "-d",
        "--name",
        "c",
        "--memory",
        "16m",
        "--memory-swap",
        "16m",
        "--pids-limit",
        "20",
        "--cpu-shares",
        "512",
        "--cpuset-cpus",
        "0",
    ];
    // tail keeps the one endless line.
    let hungry = "sleep 0.1; tail /dev/zero";
    let id = podman.container("run", &options, &["sh", "-c", hungry]);
    id.ok();
    assert_eq!(podman.podman(&["wait", "c"]).ok(), "137");
    // conmon does not say that it was for lack of memory, with runc neither.
    podman.podman(&["rm", "c"]).ok();

    let script = "for i in $(seq 30); do sleep 1 & done; wait";
    let forks = podman.script(&["--pids-limit", "20"], script);
    assert!(forks.err.contains("can't fork"), "{forks:?}");

    let options = [
        "-d",
        "--name",
        "w",
        "--cpu-shares",
        "512",
        "--cpuset-cpus",
        "0",
        "--pids-limit",
        "20",
    ];
    let id = podman.container("run", &options, &["sleep", "1000"]);
    let limit = |v1, v2| podman.limit(id.ok(), v1, v2);
    let shares = limit(("cpu", "cpu.shares"), "cpu.weight");
    assert!(["512", "20", "59"].contains(&shares.as_str()), "{shares}");
    assert_eq!(limit(("cpuset", "cpuset.cpus"), "cpuset.cpus"), "0");
    assert_eq!(limit(("pids", "pids.max"), "pids.max"), "20");
    podman.podman(&["rm", "-f", "-t", "0", "w"]).ok();
    podman.assert_clean(&STATES, &["conmon"]);
}

#[test]
fn podman_restricts() {
    if left_out() {
        return;
    }
    let Some(podman) = Podman::new("podmanrestrict") else {
        return;
    };
    let volume = podman.path("volume");
    fs::create_dir(&volume).expect("mkdir");
    fs::write(volume.join("file"), "from the host").expect("write");
    let (read_only, writable) = (
        format!("{}:/ro:ro,rslave", volume.display()),
        format!("{}:/rw", volume.display()),
    );
    let options = [
        "--read-only",
        "--tmpfs",
        "/scratch:size=1m,mode=1777",
        "-v",
        &read_only,
        "-v",
        &writable,
        "--user",
        "101:102",
        "--cap-drop",
        "all",
        "--cap-add",
        "net_bind_service",
        "--security-opt",
        "no-new-privileges",
        "--hostname",
        "box",
        "--env",
        "A=b",
        "--workdir",
        "/etc",
        "--ulimit",
        "nofile=77:88",
        "--ulimit",
        "nproc=1024:1024",
        "--oom-score-adj",
        "300",
        "--sysctl",
        "kernel.shmmax=12345",
    ];
    let shown = podman.script(
        &options,
        "touch /x 2>&1; touch /scratch/x && df -k /scratch | tail -n 1 | tr -s ' ' | cut -d' ' -f2; \
         cat /ro/file; echo; touch /ro/x 2>&1; cat /rw/file; echo; id -u; id -g; hostname; echo $A; pwd; \
         grep -E '^(Cap(Bnd|Eff)|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t' ' '; \
         ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj /proc/sys/kernel/shmmax; \
         ls /proc/self/fd | wc -l"
            .replace("cut -d' ' -f2", "(read -r _ size _; echo $size)")
            .as_str(),
    );
    assert_eq!(
        shown.ok(),
        "touch: /x: Read-only file system\n1024\nfrom the host\n\
         touch: /ro/x: Read-only file system\nfrom the host\n101\n102\nbox\nb\n/etc\n\
         CapEff: 0000000000000400\nCapBnd: 0000000000000400\nNoNewPrivs: 1\nSeccomp: 2\n\
         77\n88\n300\n12345\n4"
    );
    // With podman's default filter: a new user namespace needs a capability.
    let filtered = podman.script(
        &[],
        "unshare -U true; echo $?; grep ^Seccomp: /proc/self/status",
    );
    let free = ["--security-opt", "seccomp=unconfined"];
    let free = podman.script(
        &free,
        "unshare -U true; echo $?; grep ^Seccomp: /proc/self/status",
    );
    assert!(filtered.ok().ends_with("Seccomp:\t2"), "{filtered:?}");
    assert_eq!(free.ok(), "0\nSeccomp:\t0");
    let hidden = podman.script(
        &[],
        "wc -c < /proc/keys; ls /sys/firmware | wc -l; echo x > /proc/sys/kernel/hostname",
    );
    assert!(
        hidden.out == "0\n0\n" && hidden.err.contains("Read-only"),
        "{hidden:?}"
    );
    let all = podman.script(
        &["--privileged"],
        "grep ^Seccomp: /proc/self/status; mount -t tmpfs x /tmp && echo mounted",
    );
    assert_eq!(all.ok(), "Seccomp:\t0\nmounted");
    podman.assert_clean(&STATES, &["conmon"]);
}

#[test]
fn podman_on_a_terminal() {
    if left_out() {
        return;
    }
    let Some(podman) = Podman::new("podmantty") else {
        return;
    };
    let own = podman.own();
    let script =
        "tty; stty size; [ -t 0 ] && [ -t 1 ] && echo both; ls -l /dev/console | head -c 1; exit 5";
    let words = podman.words(
        "run",
        &["--rm", "-it", "--user", "web"],
        &["sh", "-c", script],
    );
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let shown = podman.run_on_terminal(&podman.line(&own, &words));
    assert_eq!(
        (shown.code, shown.out.as_str()),
        (5, "/dev/pts/0\n33 77\nboth\nc")
    );
    let words = podman.words("run", &["--rm", "-i"], &["cat"]);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    assert_eq!(
        podman
            .run_with(&podman.line(&own, &words), "in and out")
            .ok(),
        "in and out"
    );
    // An init of podman's in front of the program.
    let shown = podman.script(&["--init"], "cat /proc/1/comm; echo $$");
    assert_eq!(shown.ok(), "podman-init\n2");
    podman.assert_clean(&STATES, &["conmon"]);
}

#[test]
fn podman_maps_users() {
    let Some(podman) = Podman::new("podmanusers") else {
        return;
    };
    // podman takes ranges from the user "containers".
    write(&podman.path("subuid"), "containers:200000:131072\n");
    for file in ["/etc/subuid", "/etc/subgid"] {
        podman
            .run(&["mount", "--bind", &podman.text("subuid"), file])
            .ok();
    }
    let script = "id -u; cat /proc/self/uid_map | tr -s ' '; touch /tmp/mine && stat -c %u /tmp/mine; \
                  ls -ln /dev/null | tr -s ' ' | head -c 10; echo; echo x >/dev/null; sleep 0";
    let mapped = ["--uidmap", "0:100000:1000", "--gidmap", "0:100000:1000"];
    let root = podman.rootfs("rootfs");
    podman.run(&["chown", "-R", "100000:100000", &root]).ok();
    let shown = podman.script(&mapped, script);
    assert_eq!(shown.ok(), "0\n 0 100000 1000\n0\ncrw-rw-rw-");
    let script = "while :; do sleep 1; done";
    let options = [&["-d", "--name", "c"], &mapped[..]].concat();
    podman
        .container("run", &options, &["sh", "-c", script])
        .ok();
    let inside = podman.podman(&[
        "exec",
        "c",
        "sh",
        "-c",
        "id -u; cat /proc/self/uid_map | tr -s ' '",
    ]);
    assert_eq!(inside.ok(), "0\n 0 100000 1000");
    podman.podman(&["rm", "-f", "-t", "0", "c"]).ok();
    // The range, and the files with it, are of podman's choice.
    podman.import(&[]);
    let auto = [
        "run",
        "--rm",
        "--userns",
        "auto:size=5000",
        "--cgroup-parent",
        &podman.cgroup,
    ];
    let program = [
        "bb",
        "sh",
        "-c",
        "tr -s ' ' </proc/self/uid_map; touch /mine && id -u",
    ];
    let auto = podman.podman(&[&auto[..], &program].concat());
    assert_eq!(auto.ok(), " 0 200000 5000\n0");
    podman.run(&["umount", "/etc/subuid", "/etc/subgid"]).ok();
    podman.assert_clean(&STATES, &["conmon"]);
}

#[test]
fn podman_shares_namespaces() {
    let Some(podman) = Podman::new("podmanshare") else {
        return;
    };
    podman
        .container(
            "run",
            &["-d", "--name", "c", "--ipc", "shareable"],
            &["sleep", "1000"],
        )
        .ok();
    let kinds = "for n in pid ipc uts net cgroup; do readlink /proc/self/ns/$n; done";
    let of = |options: &[&str]| {
        let shown = podman.script(options, kinds);
        shown.ok().lines().map(String::from).collect::<Vec<_>>()
    };
    let here = podman.run(&["sh", "-c", kinds]);
    let here: Vec<_> = here.ok().lines().map(String::from).collect();
    let there = podman.podman(&["exec", "c", "sh", "-c", kinds]);
    let there: Vec<_> = there.ok().lines().map(String::from).collect();
    assert!(there[0] != here[0] && there[1] != here[1] && there[2] != here[2]);
    let joined = of(&[
        "--pid",
        "container:c",
        "--ipc",
        "container:c",
        "--uts",
        "container:c",
        "--cgroupns",
        "container:c",
    ]);
    assert_eq!(joined[..3], there[..3]);
    assert_eq!(joined[4], there[4]);
    let hosts = of(&[
        "--pid",
        "host",
        "--ipc",
        "host",
        "--uts",
        "host",
        "--network",
        "host",
        "--cgroupns",
        "host",
    ]);
    assert_eq!(hosts, here);
    // All that ran in the PID namespace of another ends, without ending the other.
    let left = podman.container(
        "run",
        &["-d", "--name", "d", "--pid", "container:c"],
        &["sh", "-c", "sleep 1000 & sleep 1000"],
    );
    left.ok();
    podman.podman(&["rm", "-f", "-t", "0", "d"]).ok();
    let shown = podman.podman(&["exec", "c", "ps"]);
    assert_eq!(shown.ok().matches("sleep 1000").count(), 1, "{shown:?}");
    podman.podman(&["rm", "-f", "-t", "0", "c"]).ok();
    podman.assert_clean(&STATES, &["conmon"]);
}

#[test]
fn podman_makes_a_pod() {
    if left_out() {
        return;
    }
    let Some(podman) = Podman::new("podmanpod") else {
        return;
    };
    podman.import(&["--change", "ENTRYPOINT [\"/bin/sleep\",\"1000\"]"]);
    let (parent, image) = (podman.cgroup.as_str(), "localhost/bb:latest");
    let pod = podman.podman(&[
        "pod",
        "create",
        "--name",
        "p",
        "--infra-image",
        image,
        "--share",
        "ipc,uts,pid",
        "--cgroup-parent",
        parent,
    ]);
    let pod = pod.ok();
    for name in ["a", "b"] {
        podman
            .podman(&[
                "run",
                "-d",
                "--pod",
                "p",
                "--name",
                name,
                "--entrypoint",
                "",
                image,
                "sleep",
                "2000",
            ])
            .ok();
    }
    let shown = podman.podman(&["exec", "a", "ps"]);
    assert_eq!(shown.ok().matches("sleep 2000").count(), 2, "{shown:?}");
    podman.podman(&["pod", "pause", "p"]).ok();
    assert_eq!(podman.inspect("a", "{{.State.Status}}"), "paused");
    podman.podman(&["pod", "unpause", "p"]).ok();
    podman.podman(&["pod", "stop", "-t", "0", "p"]).ok();
    podman.podman(&["pod", "rm", "-f", "p"]).ok();
    // podman leaves the pod's cgroup in the hierarchies that it does not know, with runc too.
    podman.assert_clean(&STATES, &["conmon", pod]);
}

#[test]
fn podman_leaves_nothing_in_twenty_runs() {
    let Some(podman) = Podman::new("podmantwenty") else {
        return;
    };
    let runs = if emulated() { 2 } else { 20 };
    for i in 0..runs {
        // 0, 1, 2 and the one that looks.
        let shown = podman.script(&[], &format!("ls /proc/self/fd | wc -l; exit {i}"));
        assert_eq!((shown.code, shown.out.as_str()), (i, "4\n"), "{shown:?}");
    }
    assert_eq!(podman.podman(&["ps", "-aq"]).ok(), "");
    podman.assert_clean(&STATES, &["conmon"]);
}
