//! What is wrong with an assignment, and where: collected, not stopped at the first.

use std::fmt;
use std::net::IpAddr;

use fairlead_api::v1::{Refusal, Violation};
use prost::Message;
use tonic::{Code, Status};

/// Where a value stands in an assignment: `tasks["t1"].networks[0].addresses[0]`.
///
/// A chain of borrowed parts, turned into text only when something is wrong there.
#[derive(Debug, Clone, Copy)]
pub enum At<'a> {
    /// An object by kind and id.
    Object(&'static str, &'a str),
    /// A field that belongs to no object.
    Top(&'static str),
    /// A field of a message.
    Field(&'a At<'a>, &'static str),
    /// An element of a list.
    Index(&'a At<'a>, usize),
    /// A value in a map.
    Key(&'a At<'a>, &'a str),
}

impl<'a> At<'a> {
    /// A field of the message that stands here.
    #[must_use]
    pub fn field(&'a self, name: &'static str) -> At<'a> {
        At::Field(self, name)
    }

    /// An element of the list that stands here.
    #[must_use]
    pub fn index(&'a self, index: usize) -> At<'a> {
        At::Index(self, index)
    }

    /// A value of the map that stands here.
    #[must_use]
    pub fn key(&'a self, key: &'a str) -> At<'a> {
        At::Key(self, key)
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Object(kind, id) => write!(f, "{kind}[{id:?}]"),
            At::Top(name) => f.write_str(name),
            At::Field(parent, name) => write!(f, "{parent}.{name}"),
            At::Index(parent, index) => write!(f, "{parent}[{index}]"),
            At::Key(parent, key) => write!(f, "{parent}[{key:?}]"),
        }
    }
}

/// Everything that is wrong with one assignment.
#[derive(Debug, Default)]
pub struct Violations {
    list: Vec<Violation>,
}

impl Violations {
    /// A refusal says no more than this many; an assignment of 10 000 bad records is not answered
    /// with 10 000 lines.
    const MAX: usize = 100;

    /// Notes one.
    pub fn add(&mut self, at: At<'_>, reason: impl Into<String>) {
        if self.list.len() < Self::MAX {
            self.list.push(Violation {
                field: at.to_string(),
                reason: reason.into(),
            });
        }
    }

    /// Notes a field that is set but not supported yet.
    pub fn unsupported(&mut self, at: At<'_>, set: bool) {
        if set {
            self.add(at, "not supported yet");
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are: to see whether a step added any.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// All of them.
    #[must_use]
    pub fn list(&self) -> &[Violation] {
        &self.list
    }

    /// The answer to the caller: the first few in words, all of them in the details.
    #[must_use]
    pub fn into_status(self, what: &str) -> Status {
        const SHOWN: usize = 5;
        let mut message = format!("{what} is refused:");
        for violation in self.list.iter().take(SHOWN) {
            message.push_str(&format!("\n  {}: {}", violation.field, violation.reason));
        }
        if self.list.len() > SHOWN {
            message.push_str(&format!("\n  and {} more", self.list.len() - SHOWN));
        }
        let details = Refusal {
            violations: self.list,
        }
        .encode_to_vec();
        Status::with_details(Code::InvalidArgument, message, details.into())
    }
}

/// Whether `id` has the form of an id: 1 to 64 of `[a-zA-Z0-9_.-]`, a letter or digit first. Such a
/// name is safe as a file name and as the name of a cgroup.
#[must_use]
pub fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// Notes an id that has not the form of one.
pub fn check_id(v: &mut Violations, at: At<'_>, id: &str) {
    if !is_id(id) {
        v.add(
            at,
            format!("{id:?} is no id: 1 to 64 of a-z A-Z 0-9 _ . -, a letter or digit first"),
        );
    }
}

/// Notes a name that cannot be asked for in the DNS: a service's, a task's, an alias.
pub fn check_name(v: &mut Violations, at: At<'_>, name: &str) {
    let fine = (1..=253).contains(&name.len())
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
        });
    if !fine {
        v.add(
            at,
            format!(
                "{name:?} is no DNS name: labels of 1 to 63 of a-z A-Z 0-9 _ -, joined by dots"
            ),
        );
    }
}

/// The address that the text is; else a violation.
pub fn check_address(v: &mut Violations, at: At<'_>, text: &str) -> Option<IpAddr> {
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            v.add(
                at,
                format!("{text:?} is no IP address (without prefix length)"),
            );
            None
        }
    }
}

/// Addresses, at most one of each family.
pub fn check_addresses(v: &mut Violations, at: At<'_>, texts: &[String]) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        if let Some(address) = check_address(v, at.index(i), text) {
            if addresses.iter().any(|a| a.is_ipv4() == address.is_ipv4()) {
                v.add(at.index(i), "a second address of the same family");
            } else if !is_unicast(address) {
                v.add(
                    at.index(i),
                    format!("{address} is not the address of one host"),
                );
            } else {
                addresses.push(address);
            }
        }
    }
    addresses
}

/// Whether one host can have the address on a network.
#[must_use]
pub fn is_unicast(address: IpAddr) -> bool {
    let reserved = match address {
        IpAddr::V4(v4) => v4.octets()[0] >= 240,
        IpAddr::V6(_) => false,
    };
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || reserved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_like_the_yaml() {
        let at = At::Object("tasks", "t1");
        let text = at
            .field("networks")
            .index(0)
            .field("addresses")
            .index(2)
            .to_string();
        assert_eq!(text, r#"tasks["t1"].networks[0].addresses[2]"#);
        assert_eq!(
            at.field("sysctls").key("net.x").to_string(),
            r#"tasks["t1"].sysctls["net.x"]"#
        );
    }

    #[test]
    fn ids_are_safe_as_file_names() {
        for good in ["a", "0", "web.1", "A_b-c", &"x".repeat(64)] {
            assert!(is_id(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "_a",
            "a/b",
            "a b",
            "ä",
            &"x".repeat(65),
        ] {
            assert!(!is_id(bad), "{bad}");
        }
    }

    #[test]
    fn the_refusal_travels_whole_in_the_details() {
        let mut v = Violations::default();
        for i in 0..7 {
            v.add(At::Top("changes").index(i), "wrong");
        }
        let status = v.into_status("the assignment");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("changes[4]: wrong"));
        assert!(
            status.message().contains("and 2 more"),
            "{}",
            status.message()
        );
        let refusal = Refusal::decode(status.details()).unwrap();
        assert_eq!(refusal.violations.len(), 7);
    }
}
