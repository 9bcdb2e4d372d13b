//! Docker: dockerd with the containerd that it starts. Only where cgroups are of version 2 alone,
//! as in the VM.

use crate::common::{Ended, Place, RESIZED, RUNTIME, unified, until};
use std::fs;
use std::ops::Deref;

struct Docker(Place);

impl Deref for Docker {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

/// The distribution's, not one that an operator has put before it.
const DOCKER: &str = "/usr/bin/docker";

/// Where dockerd has the runtime keep state.
const STATES: [&str; 2] = ["/run/docker/runtime-fairlead/moby", "/run/fairlead-oci"];

impl Docker {
    fn new(name: &str) -> Option<Self> {
        if !unified() {
            eprintln!("skipped: Docker is tried on cgroup v2 alone");
            return None;
        }
        let mut place = Place::new(name, &["dockerd", "containerd", "docker-init"])?;
        let words = [
            "dockerd",
            "--host",
            &format!("unix://{}", place.text("socket")),
            "--data-root",
            &place.text("storage"),
            "--exec-root",
            "/run/docker",
            "--pidfile",
            &place.text("pid"),
            "--add-runtime",
            &format!("fairlead={RUNTIME}"),
            "--default-runtime",
            "fairlead",
            "--exec-opt",
            "native.cgroupdriver=cgroupfs",
            "--cgroup-parent",
            &place.cgroup.clone(),
            "--storage-driver",
            "vfs",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
        ];
        place.start(&words, "socket", &["dockerd", "containerd"]);
        Some(Self(place))
    }

    fn line<'a>(&self, own: &'a str, words: &[&'a str]) -> Vec<&'a str> {
        [&[DOCKER, "--host", own], words].concat()
    }

    fn docker(&self, words: &[&str]) -> Ended {
        let socket = format!("unix://{}", self.text("socket"));
        self.run(&self.line(&socket, words))
    }

    /// `docker run --rm` of a shell script.
    fn script(&self, options: &[&str], script: &str) -> Ended {
        let first = ["run", "--rm", "--network", "none"];
        let program = ["bb", "sh", "-c", script];
        self.docker(&[&first[..], options, &program].concat())
    }

    fn inspect(&self, container: &str, format: &str) -> String {
        let shown = self.docker(&["inspect", "--format", format, container]);
        shown.ok().to_string()
    }
}

#[test]
fn docker_runs_and_manages_containers() {
    let Some(docker) = Docker::new("docker") else {
        return;
    };
    let (root, archive) = (docker.rootfs("image"), docker.text("image.tar"));
    docker.run(&["tar", "-C", &root, "-cf", &archive, "."]).ok();
    docker.docker(&["import", &archive, "bb:latest"]).ok();
    assert!(
        !docker.log().contains("failed to parse"),
        "{}",
        docker.log()
    );

    restricts(&docker);
    fails(&docker);
    manages(&docker);
    docker.assert_clean(&STATES, &[]);
}

fn restricts(docker: &Docker) {
    let volume = docker.path("volume");
    fs::create_dir(&volume).expect("mkdir");
    fs::write(volume.join("file"), "from the host").expect("write");
    let volume = format!("{}:/ro:ro,rslave", volume.display());
    let options = [
        "--read-only",
        "--tmpfs",
        "/scratch:size=1m,mode=1777",
        "-v",
        &volume,
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
        "--oom-score-adj",
        "300",
        "--init",
    ];
    let shown = docker.script(
        &options,
        "touch /x 2>&1; touch /scratch/x && cat /ro/file; echo; touch /ro/x 2>&1; id -u; id -g; hostname; \
         echo $A; pwd; grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t' ' '; \
         ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj /proc/1/comm; \
         echo x >/dev/null; ls /proc/self/fd | wc -l; unshare -U true 2>&1; exit 7",
    );
    assert_eq!(
        (shown.code, shown.out.as_str()),
        (
            7,
            "touch: /x: Read-only file system\nfrom the host\n\
             touch: /ro/x: Read-only file system\n101\n102\nbox\nb\n/etc\n\
             CapBnd: 0000000000000400\nNoNewPrivs: 1\nSeccomp: 2\n77\n88\n300\ndocker-init\n4\n\
             unshare: unshare(0x10000000): Operation not permitted\n"
        ),
        "{shown:?}"
    );
}

fn fails(docker: &Docker) {
    docker
        .docker(&["run", "--rm", "--network", "none", "bb", "nope"])
        .failed(127, &["\"nope\"", "executable file not found in $PATH"]);
    // Docker may hear of the end before it hears of the reason (moby#41929): tried again, then.
    let told = (1..=5).any(|_| {
        let options = ["--name", "oo", "--network", "none", "--memory", "16m"];
        let command = ["bb", "tail", "/dev/zero"];
        let hungry = docker.docker(&[&["run"], &options[..], &command].concat());
        assert_eq!(hungry.code, 137, "{hungry:?}");
        let told = docker.inspect("oo", "{{.State.OOMKilled}}") == "true";
        docker.docker(&["rm", "oo"]).ok();
        told
    });
    assert!(told, "no end was told to be for want of memory");
}

fn manages(docker: &Docker) {
    let script = "trap 'echo term; exit 3' TERM; echo up; while :; do usleep 50000; done";
    let options = [
        "run",
        "-d",
        "--name",
        "cc",
        "--network",
        "none",
        "--security-opt",
        "seccomp=unconfined",
    ];
    let id = docker.docker(
        &[
            &options[..],
            &["--pids-limit", "20", "bb", "sh", "-c", script],
        ]
        .concat(),
    );
    let id = id.ok();
    let exec = ["exec", "-u", "web", "-w", "/tmp", "-e", "A=b", "cc"];
    let program = [
        "sh",
        "-c",
        "id -u; id -g; pwd; echo $A; grep ^Seccomp: /proc/self/status; exit 6",
    ];
    let shown = docker.docker(&[&exec[..], &program].concat());
    assert_eq!(
        (shown.code, shown.out.as_str()),
        (6, "101\n102\n/tmp\nb\nSeccomp:\t0\n"),
        "{shown:?}"
    );
    let missing = docker.docker(&["exec", "cc", "nope"]);
    // Docker has other codes for this in other versions.
    assert!([126, 127].contains(&missing.code), "{missing:?}");
    assert!(missing.out.contains("not found in $PATH"), "{missing:?}");
    let forbidden = docker.docker(&["exec", "cc", "/etc/passwd"]);
    assert_eq!(forbidden.code, 126, "{forbidden:?}");
    let socket = format!("unix://{}", docker.text("socket"));
    let words = ["exec", "-it", "cc", "sh", "-c", RESIZED];
    assert_eq!(
        docker.run_on_terminal(&docker.line(&socket, &words)).ok(),
        "/dev/pts/0\n33 77"
    );
    let listed = docker.docker(&["top", "cc"]);
    assert!(listed.ok().contains("usleep"), "{listed:?}");

    docker
        .docker(&[
            "update",
            "--memory",
            "64m",
            "--cpus",
            "0.5",
            "--pids-limit",
            "30",
            "cc",
        ])
        .ok();
    let limit = |file: &str| docker.limit(id, ("", ""), file);
    assert_eq!(limit("memory.max"), (64u64 << 20).to_string());
    assert_eq!(limit("cpu.max"), "50000 100000");
    assert_eq!(limit("pids.max"), "30");

    docker.docker(&["pause", "cc"]).ok();
    assert_eq!(
        (
            docker.inspect("cc", "{{.State.Status}}").as_str(),
            limit("cgroup.freeze").as_str()
        ),
        ("paused", "1")
    );
    docker.docker(&["unpause", "cc"]).ok();
    docker.docker(&["stop", "-t", "60", "cc"]).ok();
    assert_eq!(
        docker.inspect("cc", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 3"
    );
    assert_eq!(docker.docker(&["logs", "cc"]).ok(), "up\nterm");
    docker.docker(&["restart", "-t", "0", "cc"]).ok();
    until("the program", || {
        docker.docker(&["logs", "cc"]).ok() == "up\nterm\nup"
    });
    docker.docker(&["kill", "--signal", "TERM", "cc"]).ok();
    assert_eq!(docker.docker(&["wait", "cc"]).ok(), "3");
    docker.docker(&["start", "cc"]).ok();
    docker.docker(&["rm", "-f", "cc"]).ok();
}
