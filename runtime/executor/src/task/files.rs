//! The three files that a task gets from its node: `/etc/resolv.conf`, `/etc/hosts`,
//! `/etc/hostname`; and what the node's own resolv.conf says.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use fairlead_api::v1;

/// Address of the task's DNS server in its own namespace.
const RESOLVER: &str = "127.0.0.11";

/// resolv.conf(5), as far as it concerns tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Port 53 of each server.
    pub servers: Vec<SocketAddr>,
    /// Domains to try.
    pub search: Vec<String>,
    /// As written.
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Reads it; lines that are not understood are skipped, as the C library does.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(server)),
                // The last of them counts (resolv.conf(5)).
                Some("search" | "domain") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => conf.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        conf
    }

    /// What a task uses: its own settings before the node's.
    #[must_use]
    pub fn for_task(&self, dns: Option<&v1::DnsConfig>) -> Self {
        let own = dns.cloned().unwrap_or_default();
        let mut conf = self.clone();
        if !own.nameservers.is_empty() {
            conf.servers = own
                .nameservers
                .iter()
                .filter_map(|text| server(text))
                .collect();
        }
        if !own.search.is_empty() {
            // A single dot means: none (Docker).
            conf.search = own
                .search
                .into_iter()
                .filter(|domain| domain != ".")
                .collect();
        }
        if !own.options.is_empty() {
            conf.options = own.options;
        }
        conf
    }

    /// Value of the option `ndots`, where it is set.
    #[must_use]
    pub fn ndots(&self) -> Option<u8> {
        self.options
            .iter()
            .rev()
            .find_map(|option| option.strip_prefix("ndots:")?.parse().ok())
    }

    /// The task's file: our server alone, which asks the others.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!("nameserver {RESOLVER}\n");
        if !self.search.is_empty() {
            text.push_str(&format!("search {}\n", self.search.join(" ")));
        }
        let mut options = self.options.clone();
        if self.ndots().is_none() {
            // Names of the cluster have one label: they are asked for as they are first.
            options.push("ndots:0".to_owned());
        }
        text.push_str(&format!("options {}\n", options.join(" ")));
        text
    }
}

fn server(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, 53));
    }
    let (address, zone) = text.split_once('%')?;
    let address: Ipv6Addr = address.parse().ok()?;
    let index = match zone.parse() {
        Ok(index) => index,
        Err(_) => nix::net::if_::if_nametoindex(zone).ok()?,
    };
    Some(SocketAddr::V6(SocketAddrV6::new(address, 53, 0, index)))
}

/// The task's `/etc/hosts`: loopback, the lines it asks for, and its own name.
#[must_use]
pub fn hosts(extra: &[String], hostname: &str, addresses: &[IpAddr]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    for line in extra {
        text.push_str(&line.split_whitespace().collect::<Vec<_>>().join("\t"));
        text.push('\n');
    }
    for address in addresses {
        text.push_str(&format!("{address}\t{hostname}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "# by hand\nnameserver 192.0.2.1\nnameserver  2001:db8::1 ; second\n\
                        nameserver nonsense\nsearch example.org example.net\noptions timeout:1 rotate\n";

    #[test]
    fn the_nodes_settings_reach_the_task() {
        let conf = ResolvConf::parse(NODE).for_task(None);
        assert_eq!(
            conf.servers,
            [
                "192.0.2.1:53".parse().unwrap(),
                "[2001:db8::1]:53".parse().unwrap()
            ]
        );
        assert_eq!(
            conf.render(),
            "nameserver 127.0.0.11\nsearch example.org example.net\noptions timeout:1 rotate ndots:0\n"
        );
    }

    #[test]
    fn the_tasks_own_settings_win() {
        let dns = v1::DnsConfig {
            nameservers: vec!["10.1.1.1".into()],
            search: vec![".".into()],
            options: vec!["ndots:3".into()],
        };
        let conf = ResolvConf::parse(NODE).for_task(Some(&dns));
        assert_eq!(conf.servers, ["10.1.1.1:53".parse().unwrap()]);
        assert_eq!(conf.render(), "nameserver 127.0.0.11\noptions ndots:3\n");
        assert_eq!(conf.ndots(), Some(3));
    }

    #[test]
    fn nothing_known_still_leads_to_our_server() {
        assert_eq!(
            ResolvConf::default().render(),
            "nameserver 127.0.0.11\noptions ndots:0\n"
        );
    }

    #[test]
    fn hosts_has_the_tasks_name_last() {
        let text = hosts(
            &["192.0.2.7 db  primary".into()],
            "web-1",
            &["10.1.0.5".parse().unwrap()],
        );
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(
            text.ends_with("192.0.2.7\tdb\tprimary\n10.1.0.5\tweb-1\n"),
            "{text}"
        );
    }
}
