//! `linux.resources.hugepageLimits`.

use super::Setting;
use crate::cgroup::Version;
use crate::cgroup::dir::Dir;
use crate::cgroup::error::{CgroupError, Result};
use oci_spec::runtime::LinuxHugepageLimit;

pub fn check(limits: &[LinuxHugepageLimit]) -> Result<()> {
    for (i, limit) in limits.iter().enumerate() {
        let field = format!("hugepageLimits[{i}]");
        if !is_size(limit.page_size()) {
            let reason = format!("pageSize \"{}\" is no size like 2MB", limit.page_size());
            return Err(CgroupError::invalid(field, reason));
        }
        if limit.limit() < 0 {
            let reason = format!("limit {} is negative", limit.limit());
            return Err(CgroupError::invalid(field, reason));
        }
    }
    Ok(())
}

/// `64KB`, `2MB`, `1GB`, as the specification and the files have it.
fn is_size(size: &str) -> bool {
    let number = ["KB", "MB", "GB"]
        .iter()
        .find_map(|unit| size.strip_suffix(unit));
    number.is_some_and(|number| {
        !number.starts_with('0')
            && number.bytes().all(|b| b.is_ascii_digit())
            && number.parse::<u64>().is_ok()
    })
}

pub fn settings(
    limits: &[LinuxHugepageLimit],
    version: Version,
    dir: &Dir,
) -> Result<Vec<Setting>> {
    let suffix = match version {
        Version::V1 => "limit_in_bytes",
        Version::V2 => "max",
    };
    let mut settings = Vec::new();
    for (i, limit) in limits.iter().enumerate() {
        let field = format!("hugepageLimits[{i}]");
        let file = |kind: &str| format!("hugetlb.{}.{kind}{suffix}", limit.page_size());
        if !dir.has(&file("")) {
            let reason = format!("this kernel has no pages of {}", limit.page_size());
            return Err(CgroupError::invalid(field, reason));
        }
        settings.push(Setting::new(&field, file(""), limit.limit()));
        // Pages that are reserved, not only those in use; kernel 5.7.
        settings.push(Setting::new(&field, file("rsvd."), limit.limit()).optional(true));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for good in ["64KB", "2MB", "1GB", "16GB"] {
            assert!(is_size(good), "{good}");
        }
        for bad in [
            "", "2", "MB", "02MB", "2mb", "2MiB", "../2MB", "2 MB", "-2MB",
        ] {
            assert!(!is_size(bad), "{bad}");
        }
    }
}
