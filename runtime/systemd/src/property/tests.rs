use super::*;
use oci_spec::runtime::{LinuxBlockIoBuilder, LinuxPidsBuilder};

const V2: Option<Version> = Some(Version::V2);
const V1: Option<Version> = Some(Version::V1);

fn machine(version: u32, cgroups: Option<Version>) -> Machine {
    Machine {
        version,
        memory: cgroups,
        cpu: cgroups,
        cpuset: cgroups,
        io: cgroups,
        devices: cgroups.filter(|version| *version == Version::V1),
    }
}

fn shown(resources: &LinuxResources, machine: &Machine) -> Vec<String> {
    let properties = of_resources(resources, machine).expect("properties");
    let text = |property: Property| match property.value {
        Value::U64(INFINITY) => format!("{}=infinity", property.name),
        Value::U64(number) => format!("{}={number}", property.name),
        Value::Array(_, values) => {
            let bytes: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
            format!("{}=[{}]", property.name, bytes.join(" "))
        }
        other => format!("{}={other:?}", property.name),
    };
    properties.into_iter().map(text).collect()
}

fn memory(limit: i64, swap: i64, reservation: i64) -> LinuxResources {
    let mut memory = LinuxMemory::default();
    memory.set_limit(Some(limit));
    memory.set_swap(Some(swap));
    memory.set_reservation(Some(reservation));
    let mut resources = LinuxResources::default();
    resources.set_devices(None).set_memory(Some(memory));
    resources
}

fn cpu(set: impl FnOnce(&mut LinuxCpu)) -> LinuxResources {
    let mut cpu = LinuxCpu::default();
    set(&mut cpu);
    let mut resources = LinuxResources::default();
    resources.set_devices(None).set_cpu(Some(cpu));
    resources
}

fn unified(files: &[(&str, &str)]) -> LinuxResources {
    let files = files.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    let mut resources = LinuxResources::default();
    resources
        .set_devices(None)
        .set_unified(Some(files.collect()));
    resources
}

#[test]
fn memory_and_swap() {
    let v2 = machine(252, V2);
    assert_eq!(
        shown(&memory(100, 150, 40), &v2),
        ["MemoryMax=100", "MemoryLow=40", "MemorySwapMax=50"]
    );
    assert_eq!(
        shown(&memory(-1, 0, 0), &v2),
        ["MemoryMax=infinity", "MemorySwapMax=infinity"]
    );
    assert_eq!(shown(&memory(0, 0, 0), &v2), [""; 0]);
    // Refused elsewhere: swap below memory, negative numbers.
    assert_eq!(shown(&memory(100, 50, -7), &v2), ["MemoryMax=100"]);
    assert_eq!(
        shown(&memory(100, 150, 40), &machine(252, V1)),
        ["MemoryLimit=100"]
    );
}

#[test]
fn processing_time() {
    let v2 = machine(252, V2);
    let of = |shares, quota, period| {
        cpu(|cpu| {
            cpu.set_shares(Some(shares));
            cpu.set_quota(Some(quota));
            cpu.set_period(Some(period));
        })
    };
    assert_eq!(
        shown(&of(1024, 50_000, 200_000), &v2),
        [
            "CPUWeight=100",
            "CPUQuotaPeriodUSec=200000",
            "CPUQuotaPerSecUSec=250000"
        ]
    );
    // Rounded up to a hundredth of a CPU.
    assert_eq!(shown(&of(0, 1_234, 0), &v2), ["CPUQuotaPerSecUSec=20000"]);
    assert_eq!(shown(&of(0, -1, 0), &v2), ["CPUQuotaPerSecUSec=infinity"]);
    assert_eq!(shown(&of(0, -5, 0), &v2), [""; 0]);
    assert_eq!(
        shown(&of(1, 100_000, 100_000), &machine(241, V1)),
        ["CPUShares=2", "CPUQuotaPerSecUSec=1000000"]
    );
    let idle = cpu(|cpu| {
        cpu.set_shares(Some(1024));
        cpu.set_idle(Some(1));
    });
    assert_eq!(shown(&idle, &v2), ["CPUWeight=0"]);
    assert_eq!(shown(&idle, &machine(251, V2)), ["CPUWeight=100"]);
}

#[test]
fn sets() {
    let of = |cpus: &str| {
        cpu(|cpu| {
            cpu.set_cpus(Some(cpus.into()));
        })
    };
    assert_eq!(
        shown(&of("0-1,9"), &machine(252, V2)),
        ["AllowedCPUs=[Byte(3) Byte(2)]"]
    );
    for (list, machine) in [
        ("0-1", machine(243, V2)),
        ("0-1", machine(252, V1)),
        ("", machine(252, V2)),
        ("3-1", machine(252, V2)),
        ("x", machine(252, V2)),
    ] {
        assert_eq!(shown(&of(list), &machine), [""; 0], "{list}");
    }
}

#[test]
fn files_of_version_2() {
    let v2 = machine(252, V2);
    let of = |file, value| shown(&unified(&[(file, value)]), &v2);
    assert_eq!(of("memory.high", "1000\n"), ["MemoryHigh=1000"]);
    assert_eq!(of("memory.min", "5"), ["MemoryMin=5"]);
    assert_eq!(of("pids.max", "max"), ["TasksMax=infinity"]);
    assert_eq!(
        of("cpu.max", "50000 100000"),
        ["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=500000"]
    );
    assert_eq!(of("cpu.max", "max"), ["CPUQuotaPerSecUSec=infinity"]);
    assert_eq!(of("cpu.max", "50000 0"), ["CPUQuotaPerSecUSec=500000"]);
    assert_eq!(of("io.weight", "default 50"), ["IOWeight=50"]);
    assert_eq!(of("cpuset.cpus", "1"), ["AllowedCPUs=[Byte(2)]"]);
    for (file, value) in [
        ("memory.high", "1G"),
        ("cpu.max", ""),
        ("io.weight", "8:0 50"),
        ("io.max", "8:0 rbps=1"),
        ("memory.oom.group", "1"),
    ] {
        assert_eq!(of(file, value), [""; 0], "{file} {value}");
    }
    // It is the more exact word.
    let mut both = memory(100, 0, 0);
    both.set_unified(unified(&[("memory.max", "70")]).unified().clone());
    assert_eq!(shown(&both, &v2), ["MemoryMax=70"]);
}

#[test]
fn tasks_and_weights() {
    let mut resources = LinuxResources::default();
    resources.set_devices(None);
    let pids = LinuxPidsBuilder::default().limit(7i64).build();
    let io = LinuxBlockIoBuilder::default().weight(500u16).build();
    resources.set_pids(pids.ok()).set_block_io(io.ok());
    assert_eq!(
        shown(&resources, &machine(252, V2)),
        ["TasksMax=7", "IOWeight=4950"]
    );
    assert_eq!(
        shown(&resources, &machine(252, V1)),
        ["TasksMax=7", "BlockIOWeight=500"]
    );
}

#[test]
fn every_unit() {
    let names = |path: &str, version| {
        let unit = UnitPath::from_spec(Some(path), "id").expect("unit");
        let names = fixed(&unit, "id", &machine(252, version)).into_iter();
        names.map(|property| property.name).collect::<Vec<_>>()
    };
    let scope = names("a.slice:p:n", V2);
    assert!(scope.iter().any(|name| name == "Delegate"));
    assert!(scope.iter().any(|name| name == "IOAccounting"));
    let slice = names("a.slice::b.slice", V1);
    assert!(
        slice
            .iter()
            .all(|name| name != "Delegate" && name != "Slice")
    );
    assert!(slice.iter().any(|name| name == "BlockIOAccounting"));
}
