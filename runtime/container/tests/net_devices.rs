//! `linux.netDevices`: devices of one network namespace become a container's. The witness is ip(8).
//! All of it in network namespaces of the test's own, which end with it.

mod common;

use common::{Outcome, Sandbox, in_process, run_here, set_linux};
use oci_spec::runtime::{
    LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxNetDevice, Spec,
};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// In the network namespace of the calling process.
fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output();
    let output = output.expect("sh");
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).expect("utf-8")
}

fn own_network() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("unshare");
}

const DEVICE: &str = "ip link add fl0 mtu 1400 address 02:00:00:00:00:07 type veth peer far0
    ip link set far0 up
    ip address add 192.0.2.1/24 dev fl0
    ip address add 192.0.2.9/24 dev fl0
    ip address add 2001:db8::1/64 dev fl0 nodad
    ip address add 2001:db8::2/64 dev fl0 nodad valid_lft 1000 preferred_lft 1000
    ip address add 169.254.1.1/16 scope link dev fl0
    ip link set fl0 up";

/// The addresses of a device that stay: permanent and global.
const KEPT: [&str; 3] = ["192.0.2.1/24", "192.0.2.9/24", "2001:db8::1/64"];

fn with_devices(spec: &mut Spec, devices: &[(&str, &str)]) {
    let devices = devices.iter().map(|(name, new)| {
        let mut device = LinuxNetDevice::default();
        device.set_name(Some((*new).into()).filter(|new: &String| !new.is_empty()));
        ((*name).to_string(), device)
    });
    let devices = devices.collect();
    set_linux(spec, |linux| {
        linux.set_net_devices(Some(devices));
    });
}

fn with_network(spec: &mut Spec, network: Option<LinuxNamespace>) {
    set_linux(spec, |linux| {
        let list = linux.namespaces_mut().get_or_insert_default();
        list.retain(|entry| entry.typ() != LinuxNamespaceType::Network);
        list.extend(network);
    });
}

/// A network namespace that somebody else holds, with this device in it.
struct Holder(Child);

impl Holder {
    fn new() -> Self {
        let script = "ip link add net0 type veth peer far1 && echo && exec sleep 60";
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut ready = [0];
        let out = child.stdout.as_mut().expect("stdout");
        std::io::Read::read_exact(out, &mut ready).expect("ready");
        Self(child)
    }

    fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }

    fn namespace(&self) -> LinuxNamespace {
        let builder = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network);
        builder.path(self.path()).build().expect("namespace")
    }

    fn show(&self) -> Value {
        let shown = sh(&format!(
            "nsenter --net={} ip -j address",
            self.path().display()
        ));
        serde_json::from_str(&shown).expect("json")
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shown() -> Value {
    serde_json::from_str(&sh("ip -j address")).expect("json")
}

fn device<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    let mut list = list.as_array().expect("list").iter();
    list.find(|device| device["ifname"] == name)
}

/// Its addresses of global scope.
fn addresses(device: &Value) -> Vec<String> {
    let list = device["addr_info"].as_array().expect("addresses").iter();
    let global = list.filter(|address| address["scope"] == "global");
    let text = |address: &Value| {
        let local = address["local"].as_str().expect("address");
        format!("{local}/{}", address["prefixlen"])
    };
    global.map(text).collect()
}

fn is_up(device: &Value) -> bool {
    let flags = device["flags"].as_array().expect("flags");
    flags.iter().any(|flag| flag == "UP")
}

#[test]
fn a_device_becomes_the_containers() {
    let sandbox = Sandbox::new("netdev");
    let mut spec = sandbox.script("busybox ip address show eth7");
    let own = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network);
    with_network(&mut spec, own.build().ok());
    with_devices(&mut spec, &[("fl0", "eth7")]);
    let (outcome, left): (Outcome, String) = in_process(|| {
        own_network();
        sh(DEVICE);
        let outcome = run_here(&spec, sandbox.options());
        (outcome, shown().to_string())
    });
    let inside = outcome.ok();
    for address in KEPT {
        assert!(inside.contains(address), "{address}: {inside}");
    }
    for word in ["eth7@", "UP,LOWER_UP", "mtu 1400", "02:00:00:00:00:07"] {
        assert!(inside.contains(word), "{word}: {inside}");
    }
    for gone in ["169.254.1.1", "2001:db8::2", "fl0"] {
        assert!(!inside.contains(gone), "{gone}: {inside}");
    }
    assert!(!left.contains("fl0"), "{left}");
    sandbox.assert_clean();
}

#[test]
fn into_a_namespace_that_is_joined() {
    let sandbox = Sandbox::new("netdevjoin");
    let holder = Holder::new();
    let mut spec = sandbox.script("true");
    with_network(&mut spec, Some(holder.namespace()));
    with_devices(
        &mut spec,
        &[("fl0", "net%d"), ("fl1", "net%d"), ("fl2", "")],
    );
    let (outcome, shown): (Outcome, String) = in_process(|| {
        own_network();
        sh(DEVICE);
        sh("ip link add fl1 type veth peer far1; ip link add fl2 type veth peer far2");
        let outcome = run_here(&spec, sandbox.options());
        // The other ends of the veths are in this namespace, and end with it.
        (outcome, holder.show().to_string())
    });
    outcome.ok();
    let shown: Value = serde_json::from_str(&shown).expect("json");
    let found = |name| device(&shown, name).unwrap_or_else(|| panic!("{name} in {shown}"));
    assert!(!is_up(found("net0")), "it was there before");
    let mut kept = addresses(found("net1"));
    kept.sort();
    assert_eq!(kept, KEPT);
    for name in ["net1", "net2", "fl2"] {
        assert!(is_up(found(name)), "{name} in {shown}");
    }
    assert!(addresses(found("net2")).is_empty());
    sandbox.assert_clean();
}

#[test]
fn what_fails_gives_the_devices_back() {
    let sandbox = Sandbox::new("netdevback");
    let holder = Holder::new();
    let mut spec = sandbox.script("true");
    with_network(&mut spec, Some(holder.namespace()));
    let mut missing = sandbox.command(&["/bin/nothing"]);
    with_network(&mut missing, Some(holder.namespace()));
    let mut taken = spec.clone();
    with_devices(&mut spec, &[("fl0", "eth0"), ("fl9", "")]);
    with_devices(&mut taken, &[("fl0", "net0")]);
    with_devices(&mut missing, &[("fl0", "eth0")]);
    let cases = [
        (&spec, ["fl9", "there is none"]),
        (&taken, ["fl0", "a device of this name already"]),
        (&missing, ["/bin/nothing", "no such file"]),
    ];
    for (spec, words) in cases {
        let (outcome, left): (Outcome, String) = in_process(|| {
            own_network();
            sh(DEVICE);
            let outcome = run_here(spec, sandbox.options());
            (outcome, shown().to_string())
        });
        let error = outcome.error.expect("refused");
        for word in words {
            assert!(error.contains(word), "{word}: {error}");
        }
        let left: Value = serde_json::from_str(&left).expect("json");
        let back = device(&left, "fl0").unwrap_or_else(|| panic!("fl0 in {left}"));
        let mut kept = addresses(back);
        // This one has an end, and is lost where the device was down for a moment.
        kept.retain(|address| address != "2001:db8::2/64");
        kept.sort();
        assert_eq!(kept, KEPT);
        assert!(is_up(back), "{back}");
        assert_eq!(back["mtu"], 1400);
        assert_eq!(
            holder.show().as_array().map(Vec::len),
            Some(3),
            "lo, net0 and its peer"
        );
    }
    sandbox.assert_clean();
}

#[test]
fn not_within_the_runtimes_own_network() {
    let sandbox = Sandbox::new("netdevown");
    let mut spec = sandbox.script("true");
    with_network(&mut spec, None);
    with_devices(&mut spec, &[("fl0", "eth0")]);
    let error = sandbox.run(&spec).error.expect("refused");
    assert!(error.contains("linux.netDevices.fl0"), "{error}");
    // By its path it is the same.
    let builder = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network);
    let own = builder.path("/proc/self/ns/net").build();
    with_network(&mut spec, own.ok());
    let error = sandbox.run(&spec).error.expect("refused");
    assert!(error.contains("the runtime's own"), "{error}");
    sandbox.assert_clean();
}
