//! Rules for devices as properties, for version 1.

use crate::error::Result;
use crate::property::Property;
use crate::wire::Value;
use container::{cgroup, defaults};
use oci_spec::runtime::LinuxResources;

/// `DevicePolicy` and `DeviceAllow`; nothing where there are no rules.
pub fn properties(resources: &LinuxResources) -> Result<Vec<Property>> {
    let mut rules = resources.devices().clone().unwrap_or_default();
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    rules.extend(defaults::allowed_devices());
    let entry =
        |node: &str, access: &str| Value::Struct(vec![Value::text(node), Value::text(access)]);
    let (policy, entries) = match cgroup::allowed_devices(&rules)? {
        // All but some: systemd has no word for these some, and leaves them to us.
        None => ("auto", Vec::new()),
        Some(lines) => {
            let entries = lines.iter().filter_map(|line| {
                let (node, access) = node(line)?;
                Some(entry(&node, access))
            });
            ("strict", entries.collect())
        }
    };
    // A list takes the place of an older one only when it was emptied before.
    let list = |entries| Property::new("DeviceAllow", Value::Array("(ss)".into(), entries));
    let mut properties = vec![
        Property::new("DevicePolicy", Value::text(policy)),
        list(Vec::new()),
    ];
    if !entries.is_empty() {
        properties.push(list(entries));
    }
    Ok(properties)
}

/// From `c 1:3 rwm`, the node as systemd names it and the access. There is no name for one minor
/// number of every major number.
fn node(line: &str) -> Option<(String, &str)> {
    let mut words = line.split(' ');
    let kind = match words.next()? {
        "c" => "char",
        "b" => "block",
        _ => return None,
    };
    let node = match words.next()?.split_once(':')? {
        ("*", "*") => format!("{kind}-*"),
        ("*", _) => return None,
        (major, "*") => format!("{kind}-{major}"),
        (major, minor) => format!("/dev/{kind}/{major}:{minor}"),
    };
    Some((node, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType};

    fn rule(allow: bool, kind: LinuxDeviceType, major: i64, access: &str) -> LinuxDeviceCgroup {
        let builder = LinuxDeviceCgroupBuilder::default();
        let builder = builder.allow(allow).typ(kind).access(access).major(major);
        builder.minor(-1i64).build().expect("rule")
    }

    #[test]
    fn nodes() {
        for (line, expected) in [
            ("c 1:3 rwm", Some(("/dev/char/1:3", "rwm"))),
            ("b 8:* r", Some(("block-8", "r"))),
            ("c *:* m", Some(("char-*", "m"))),
            ("c *:3 m", None),
            ("a *:* m", None),
            ("c 1 m", None),
            ("", None),
        ] {
            let expected = expected.map(|(node, access)| (node.to_string(), access));
            assert_eq!(node(line), expected, "{line}");
        }
    }

    #[test]
    fn policies() {
        let mut resources = LinuxResources::default();
        resources.set_devices(None);
        assert!(properties(&resources).expect("none").is_empty());
        let deny = rule(false, LinuxDeviceType::A, -1, "rwm");
        let disk = rule(true, LinuxDeviceType::B, 8, "rw");
        resources.set_devices(Some(vec![deny, disk]));
        let found = properties(&resources).expect("some");
        assert_eq!(
            found[0],
            Property::new("DevicePolicy", Value::text("strict"))
        );
        assert_eq!(found[1].value, Value::Array("(ss)".into(), Vec::new()));
        let Value::Array(_, entries) = &found[2].value else {
            panic!("{found:?}");
        };
        let pair =
            |node: &str, access: &str| Value::Struct(vec![Value::text(node), Value::text(access)]);
        assert!(entries.contains(&pair("block-8", "rw")));
        // What every container has.
        assert!(entries.contains(&pair("/dev/char/1:3", "rwm")));
        let all = rule(true, LinuxDeviceType::A, -1, "rwm");
        resources.set_devices(Some(vec![all]));
        let found = properties(&resources).expect("some");
        assert_eq!(found[0], Property::new("DevicePolicy", Value::text("auto")));
        assert_eq!(found.len(), 2);
    }
}
