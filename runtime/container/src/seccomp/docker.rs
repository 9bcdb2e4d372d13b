//! Docker's own form of profiles, as Swarm delivers it: that of the specification, in which an
//! entry may count only for some architectures, capabilities or kernels.

use crate::error::ContainerError;
use crate::parse_capability;
use oci_spec::runtime::Capabilities;
use serde::Deserialize;
use serde_json::{Map, Value};

/// What conditions are about.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// The bounding set of the container.
    pub capabilities: &'a Capabilities,
    /// Docker's name of the architecture.
    pub arch: &'a str,
    /// Version and patch level of the kernel.
    pub kernel: (u32, u32),
}

/// `includes` and `excludes` of an entry.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// An entry of `archMap`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architecture {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

type Result<T> = std::result::Result<T, ContainerError>;

/// The architecture of this build by its name in Docker's profiles, and the one in `archMap`.
pub fn native() -> (&'static str, &'static str) {
    match std::env::consts::ARCH {
        "x86_64" => ("amd64", "SCMP_ARCH_X86_64"),
        "x86" => ("x86", "SCMP_ARCH_X86"),
        "aarch64" => ("arm64", "SCMP_ARCH_AARCH64"),
        "arm" => ("arm", "SCMP_ARCH_ARM"),
        "riscv64" => ("riscv64", "SCMP_ARCH_RISCV64"),
        "s390x" => ("s390x", "SCMP_ARCH_S390X"),
        "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", "SCMP_ARCH_PPC64LE"),
        other => (other, ""),
    }
}

/// Version and patch level, of `6.1.0-48-amd64` or `4.8`.
pub fn kernel_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.');
    let number = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit());
        text.get(..end.unwrap_or(text.len()))?.parse().ok()
    };
    Some((number(numbers.next()?)?, number(numbers.next()?)?))
}

/// Makes a profile of Docker's form one of the specification's, as Docker does it
/// (`profiles/seccomp`, `setupSeccomp`). One that is of that form already stays as it is.
pub fn resolve(profile: &mut Value, machine: Machine<'_>) -> Result<()> {
    let Some(profile) = profile.as_object_mut() else {
        return Ok(()); // refused by what comes next
    };
    architectures(profile)?;
    let Some(entries) = profile.get_mut("syscalls").and_then(Value::as_array_mut) else {
        return Ok(());
    };
    let mut kept = Vec::new();
    for (i, mut entry) in std::mem::take(entries).into_iter().enumerate() {
        let field = format!("linux.seccomp.syscalls[{i}]");
        let counts = match entry.as_object_mut() {
            Some(entry) => {
                name(&field, entry)?;
                let includes = filter(&field, entry, "includes")?;
                let excludes = filter(&field, entry, "excludes")?;
                counts(&field, &includes, &excludes, machine)?
            }
            None => true,
        };
        if counts {
            kept.push(entry);
        }
    }
    *entries = kept;
    Ok(())
}

/// `archMap`: for each architecture, which others it runs too.
fn architectures(profile: &mut Map<String, Value>) -> Result<()> {
    let field = "linux.seccomp.archMap";
    let Some(map) = profile.remove("archMap").filter(|map| !map.is_null()) else {
        return Ok(());
    };
    let map: Vec<Architecture> = read(field, map)?;
    let listed = profile.get("architectures").and_then(Value::as_array);
    if !map.is_empty() && listed.is_some_and(|list| !list.is_empty()) {
        let reason = "architectures are given as well; only one of the two can count";
        return Err(ContainerError::invalid(field, reason));
    }
    let (_, own) = native();
    if let Some(entry) = map.into_iter().find(|entry| entry.architecture == own) {
        let others = entry.sub_architectures.into_iter().flatten();
        let names = std::iter::once(entry.architecture).chain(others);
        let list = names.map(Value::String).collect();
        profile.insert("architectures".into(), Value::Array(list));
    }
    Ok(())
}

/// Old profiles have a single `name`.
fn name(field: &str, entry: &mut Map<String, Value>) -> Result<()> {
    let name = entry
        .remove("name")
        .filter(|name| *name != "" && !name.is_null());
    let Some(name) = name else { return Ok(()) };
    let names = entry.get("names").and_then(Value::as_array);
    if names.is_some_and(|names| !names.is_empty()) {
        let reason = "names are given as well; only one of the two can count";
        return Err(ContainerError::invalid(format!("{field}.name"), reason));
    }
    entry.insert("names".into(), Value::Array(vec![name]));
    Ok(())
}

fn filter(field: &str, entry: &mut Map<String, Value>, key: &str) -> Result<Filter> {
    match entry.remove(key).filter(|filter| !filter.is_null()) {
        Some(filter) => read(&format!("{field}.{key}"), filter),
        None => Ok(Filter::default()),
    }
}

fn read<T: serde::de::DeserializeOwned>(field: &str, value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|e| ContainerError::invalid(field, e.to_string()))
}

/// Any one exclusion is enough; every inclusion must hold.
fn counts(field: &str, includes: &Filter, excludes: &Filter, machine: Machine<'_>) -> Result<bool> {
    // A capability that is unknown here is not held.
    let held = |name: &String| {
        parse_capability(name).is_some_and(|one| machine.capabilities.contains(&one))
    };
    let here = |arch: &String| arch == machine.arch;
    let recent = |key: &str, filter: &Filter| match &filter.min_kernel {
        None => Ok(None),
        Some(text) => match kernel_version(text) {
            Some(version) => Ok(Some(machine.kernel >= version)),
            None => {
                let field = format!("{field}.{key}.minKernel");
                let reason = format!("\"{text}\" is no version of a kernel such as 4.8");
                Err(ContainerError::invalid(field, reason))
            }
        },
    };
    // Both are looked at, so that a mistake is found whatever the machine is.
    let (included, excluded) = (recent("includes", includes)?, recent("excludes", excludes)?);
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let excluded = list(&excludes.arches).iter().any(here)
        || list(&excludes.caps).iter().any(held)
        || excluded == Some(true);
    let arches = list(&includes.arches);
    let included = (arches.is_empty() || arches.iter().any(here))
        && list(&includes.caps).iter().all(held)
        && included != Some(false);
    Ok(included && !excluded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability;
    use serde_json::json;

    fn names(profile: &Value, capabilities: &[Capability], kernel: (u32, u32)) -> Vec<String> {
        let capabilities = capabilities.iter().copied().collect();
        let mut profile = profile.clone();
        let machine = Machine {
            capabilities: &capabilities,
            arch: "amd64",
            kernel,
        };
        resolve(&mut profile, machine).expect("valid");
        let entries = profile["syscalls"].as_array().expect("entries").iter();
        let names = entries.flat_map(|entry| entry["names"].as_array().cloned().expect("names"));
        names
            .map(|name| name.as_str().expect("name").into())
            .collect()
    }

    #[test]
    fn conditions() {
        let allow = |name: &str, condition: Value| {
            let mut entry = json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": null,
                "comment": "", "includes": {}, "excludes": {} });
            let object = entry.as_object_mut().expect("object");
            object.extend(condition.as_object().cloned().expect("object"));
            entry
        };
        let profile = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            allow("always", json!({})),
            allow("arch", json!({ "includes": { "arches": ["amd64", "x32"] } })),
            allow("other-arch", json!({ "includes": { "arches": ["s390x"] } })),
            allow("not-arch", json!({ "excludes": { "arches": ["amd64"] } })),
            allow("cap", json!({ "includes": { "caps": ["CAP_SYS_ADMIN"] } })),
            allow("both", json!({ "includes": { "caps": ["CAP_SYS_ADMIN", "CAP_BPF"] } })),
            allow("no-cap", json!({ "excludes": { "caps": ["CAP_SYS_ADMIN", "CAP_BPF"] } })),
            allow("unknown", json!({ "includes": { "caps": ["CAP_NOPE"] } })),
            allow("kernel", json!({ "includes": { "minKernel": "4.8" } })),
            allow("no-kernel", json!({ "excludes": { "minKernel": "4.8" } })),
            { "name": "old", "action": "SCMP_ACT_ALLOW" },
        ] });
        let new = (6, 1);
        assert_eq!(
            names(&profile, &[], new),
            ["always", "arch", "no-cap", "kernel", "old"]
        );
        assert_eq!(
            names(&profile, &[Capability::SysAdmin], (4, 7)),
            ["always", "arch", "cap", "no-kernel", "old"]
        );
        assert_eq!(
            names(&profile, &[Capability::SysAdmin, Capability::Bpf], (4, 8)),
            ["always", "arch", "cap", "both", "kernel", "old"]
        );
    }

    #[test]
    fn map_of_architectures() {
        let capabilities = Capabilities::new();
        let machine = Machine {
            capabilities: &capabilities,
            arch: native().0,
            kernel: (6, 1),
        };
        let map = json!([
            { "architecture": "SCMP_ARCH_NONE", "subArchitectures": ["SCMP_ARCH_X"] },
            { "architecture": native().1, "subArchitectures": ["SCMP_ARCH_X86"] },
        ]);
        let mut profile = json!({ "archMap": map });
        resolve(&mut profile, machine).expect("valid");
        assert_eq!(
            profile,
            json!({ "architectures": [native().1, "SCMP_ARCH_X86"] })
        );
        let mut both = json!({ "archMap": map, "architectures": ["SCMP_ARCH_X86"] });
        let error = resolve(&mut both, machine).expect_err("both").to_string();
        assert!(error.contains("archMap"), "{error}");
    }

    #[test]
    fn refused() {
        let capabilities = Capabilities::new();
        let machine = Machine {
            capabilities: &capabilities,
            arch: "amd64",
            kernel: (6, 1),
        };
        for (entry, word) in [
            (json!({ "name": "a", "names": ["b"] }), "syscalls[0].name"),
            (
                json!({ "includes": { "minKernel": "new" } }),
                "includes.minKernel",
            ),
            (
                json!({ "excludes": { "minKernel": "4" } }),
                "excludes.minKernel",
            ),
            (json!({ "includes": { "capabilities": [] } }), "includes"),
            (json!({ "includes": { "caps": "CAP_BPF" } }), "includes"),
        ] {
            let mut profile = json!({ "syscalls": [entry] });
            let error = resolve(&mut profile, machine).expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn versions() {
        assert_eq!(kernel_version("6.1.0-48-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("4.8"), Some((4, 8)));
        assert_eq!(kernel_version("5.10-rc1"), Some((5, 10)));
        assert_eq!(kernel_version("5"), None);
        assert_eq!(kernel_version("x.1"), None);
    }
}
