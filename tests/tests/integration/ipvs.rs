//! `fairlead ipvs` beside `ipvsadm`.

use fairlead_tests::{program, sh, try_sh, wait_for};
use serde_json::Value;

/// A network namespace with a service, removed at the end.
struct Namespace(String);

impl Namespace {
    /// None where the kernel has no IPVS, which must not be where it is required.
    fn new(test: &str) -> Option<Self> {
        if try_sh("[ -e /proc/net/ip_vs ] || modprobe -q ip_vs").is_err() {
            assert!(std::env::var_os("FAIRLEAD_REQUIRE_IPVS").is_none_or(|value| value != "1"));
            eprintln!("SKIP: kernel has no ip_vs");
            return None;
        }
        let namespace = Self(format!("fl-{test}-{}", std::process::id()));
        sh(&format!(
            "ip netns add {0}; ip -n {0} link set lo up",
            namespace.0
        ));
        Some(namespace)
    }

    /// Runs `fairlead ipvs`, with the namespace's name behind the command.
    fn ipvs(&self, command: &str, input: &str) -> Result<String, String> {
        let fairlead = program("fairlead");
        try_sh(&format!(
            "printf '%s' '{input}' | {} ipvs {command} --netns {}",
            fairlead.display(),
            self.0
        ))
    }

    fn exec(&self, script: &str) {
        sh(&format!("ip netns exec {} sh -ec '{script}'", self.0));
    }

    fn ipvsadm(&self, options: &str) -> String {
        sh(&format!("ip netns exec {} ipvsadm {options}", self.0))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = try_sh(&format!("ip netns delete {}", self.0));
    }
}

const TABLE: &str = "\
-A -t 10.0.0.1:80 -s wlc -p 300
-a -t 10.0.0.1:80 -r 10.0.1.1:8080 -m -w 1
-a -t 10.0.0.1:80 -r 10.0.1.2:8080 -m -w 0
-A -u [fd00::1]:53 -s rr -o
-A -f 7 -6 -s sh -b sh-port
";

#[test]
fn tables_are_saved_restored_and_shown() {
    let Some(namespace) = Namespace::new("ipvs-table") else {
        return;
    };
    let run = |command: &str, input: &str| namespace.ipvs(command, input).unwrap();
    run("restore", TABLE);
    assert_eq!(run("save", ""), namespace.ipvsadm("-Sn"));
    for view in [
        "",
        "--stats",
        "--rate",
        "--thresholds",
        "--persistent-conn",
        "--tun-info",
    ] {
        let shown = namespace.ipvsadm(&format!("-Ln --exact {view}"));
        assert_eq!(run(&format!("ls --exact {view}"), ""), shown, "{view}");
    }
    for (ours, theirs) in [
        ("ls -t 10.0.0.1:80", "-Ln -t 10.0.0.1:80"),
        ("ls -u [fd00::1]:53", "-Ln -u [fd00::1]:53"),
        ("ls -f 7 -6", "-Ln -f 7 -6"),
        ("ls --connections", "-Lnc"),
        ("ls --timeout", "-L --timeout"),
        ("ls --daemon", "-L --daemon"),
    ] {
        let shown = namespace.ipvsadm(theirs);
        assert_eq!(run(ours, ""), shown, "{ours}");
    }
    let listed: Value = serde_json::from_str(&run("ls --format json", "")).unwrap();
    let services = listed.as_array().unwrap();
    let web = services.iter().find(|s| s["protocol"] == "TCP").unwrap();
    assert_eq!(web["address"], "10.0.0.1");
    assert_eq!(web["persistent"]["seconds"], 300);
    assert_eq!(web["destinations"].as_array().unwrap().len(), 2);
    let mark = services.iter().find(|s| s["mark"] == 7).unwrap();
    assert_eq!(mark["scheduler_flags"], "sh-port");

    // What is there and stays is left alone; the rest comes and goes.
    let desired = "-A -t 10.0.0.1:80 -s wlc -p 300\n-a -t 10.0.0.1:80 -r 10.0.1.3:8080 -m\n";
    run("restore --replace", desired);
    assert_eq!(
        namespace.ipvsadm("-Sn"),
        "-A -t 10.0.0.1:80 -s wlc -p 300\n-a -t 10.0.0.1:80 -r 10.0.1.3:8080 -m -w 1\n"
    );
}

/// One service's counters go to zero and the others' stay, then all go.
#[test]
fn counters_are_zeroed() {
    let Some(namespace) = Namespace::new("ipvs-zero") else {
        return;
    };
    const SERVICES: [&str; 2] = ["10.0.0.1:80", "10.0.0.1:81"];
    namespace.exec("ip addr add 10.0.0.1/32 dev lo; ip addr add 10.0.1.1/32 dev lo");
    for service in SERVICES {
        let text = format!("-A -t {service} -s rr\n-a -t {service} -r 10.0.1.1:8080 -m\n");
        namespace.ipvs("restore", &text).unwrap();
        // Nobody listens there: it is refused, and counted.
        let (address, port) = service.split_once(':').unwrap();
        namespace.exec(&format!(
            "for n in 1 2 3; do busybox nc -w 5 {address} {port} </dev/null || true; done"
        ));
    }
    // Connections, packets and bytes in and out, as ipvsadm shows them.
    let counters = |service: &str| -> Vec<u64> {
        let shown = namespace.ipvsadm(&format!("-Ln --stats --exact -t {service}"));
        let line = shown.lines().find(|line| line.starts_with("TCP")).unwrap();
        let words = line.split_whitespace().skip(2);
        words.map(|word| word.parse().unwrap()).collect()
    };
    // The kernel brings them up to date every two seconds.
    let counted = SERVICES.map(|service| {
        wait_for("the counters", || {
            let now = counters(service);
            if now[0] == 3 && now.iter().all(|count| *count > 0) {
                Ok(now)
            } else {
                Err(format!("{now:?}"))
            }
        })
    });
    namespace.ipvs("zero -t 10.0.0.1:80", "").unwrap();
    assert_eq!(counters(SERVICES[0]), [0; 5]);
    assert_eq!(counters(SERVICES[1]), counted[1]);
    namespace.ipvs("zero", "").unwrap();
    assert_eq!(counters(SERVICES[1]), [0; 5]);
}

#[test]
fn what_cannot_be_done_is_told() {
    let Some(namespace) = Namespace::new("ipvs-errors") else {
        return;
    };
    namespace.ipvs("restore", TABLE).unwrap();
    let before = namespace.ipvsadm("-Sn");
    let fails = |command: &str, input: &str, words: &str| {
        let error = namespace.ipvs(command, input).unwrap_err();
        assert!(error.contains(words), "{command}: {error}");
    };
    // Nothing is done before everything can be read.
    fails(
        "restore",
        "-C\n-A -t 10.0.0.1:80 -s\n",
        "line 2: -s needs a value",
    );
    fails(
        "restore --replace",
        "-C\n",
        "line 1: -C is no part of a saved table",
    );
    fails(
        "restore --input /nowhere/at/all",
        "",
        "/nowhere/at/all: No such file",
    );
    fails(
        "restore",
        "-A -t 10.0.0.1:80 -s rr\n-A -t 10.0.0.1:81 -s nonesuch\n",
        "line 2: add service TCP 10.0.0.1:81 scheduler nonesuch: service TCP 10.0.0.1:81: the kernel \
         has no scheduler `nonesuch`",
    );
    fails(
        "zero -u 10.0.0.9:9",
        "",
        "there is no service UDP 10.0.0.9:9",
    );
    fails("ls -t 10.0.0.1", "", "there is no service TCP 10.0.0.1:0");
    fails("ls -t web:80", "", "an address and a port in numbers");
    fails("ls --stats --rate", "", "cannot be used with");
    fails("ls -t 10.0.0.1:80 -f 7", "", "cannot be used with");
    fails("zero -t 10.0.0.1:80 -6", "", "-6 cannot stand beside -t");
    fails("zero -6", "", "--fwmark-service");
    fails("ls -f 7", "", "there is no service FWM 7 in");
    fails("ls --network web", "", "cannot be used with");
    assert_eq!(namespace.ipvsadm("-Sn"), before);
    let fairlead = program("fairlead");
    let error = try_sh(&format!("{} ipvs ls --netns nonesuch", fairlead.display())).unwrap_err();
    assert!(error.contains("/run/netns/nonesuch"), "{error}");
}
