//! The five capability sets.

use crate::error::{ContainerError, Setup, SetupFailure};
use crate::sys;
use caps::{CapSet, Capability, CapsHashSet};
use oci_spec::runtime::{Capabilities, LinuxCapabilities};
use std::str::FromStr;

/// What the program will hold.
#[derive(Debug, Default)]
pub struct CapabilitySets {
    bounding: CapsHashSet,
    effective: CapsHashSet,
    inheritable: CapsHashSet,
    permitted: CapsHashSet,
    ambient: CapsHashSet,
}

impl CapabilitySets {
    /// Reads them from the specification (none given means none held) and checks them against
    /// each other and against what this process may hand on.
    pub fn from_spec(spec: Option<&LinuxCapabilities>) -> Result<Self, ContainerError> {
        let Some(spec) = spec else {
            return Ok(Self::default());
        };
        let ours = caps::read(None, CapSet::Bounding).map_err(|error| {
            ContainerError::invalid(
                "process.capabilities",
                format!("read own bounding set: {error}"),
            )
        })?;
        let read = |set: &'static str, list: &Option<Capabilities>| {
            let mut result = CapsHashSet::new();
            for capability in list.iter().flatten() {
                let name = caps::to_canonical(&capability.to_string());
                let capability = Capability::from_str(&name).map_err(|_| {
                    ContainerError::invalid(
                        format!("process.capabilities.{set}"),
                        format!("{name} is unknown"),
                    )
                })?;
                if !ours.contains(&capability) {
                    return Err(ContainerError::CapabilityUnavailable {
                        set,
                        capability: name,
                    });
                }
                result.insert(capability);
            }
            Ok(result)
        };
        let sets = Self {
            bounding: read("bounding", spec.bounding())?,
            effective: read("effective", spec.effective())?,
            inheritable: read("inheritable", spec.inheritable())?,
            permitted: read("permitted", spec.permitted())?,
            ambient: read("ambient", spec.ambient())?,
        };
        sets.check()?;
        Ok(sets)
    }

    fn check(&self) -> Result<(), ContainerError> {
        let within = |inner: &CapsHashSet, outer: &CapsHashSet, set: &str, reason: &str| match inner
            .difference(outer)
            .next()
        {
            None => Ok(()),
            Some(capability) => Err(ContainerError::invalid(
                format!("process.capabilities.{set}"),
                format!("{capability} {reason}"),
            )),
        };
        within(
            &self.effective,
            &self.permitted,
            "effective",
            "is not permitted",
        )?;
        within(
            &self.ambient,
            &self.permitted,
            "ambient",
            "is not permitted",
        )?;
        within(
            &self.ambient,
            &self.inheritable,
            "ambient",
            "is not inheritable",
        )
    }

    /// First half, while still root: what no program may gain later.
    pub fn limit_bounding(&self) -> Setup<()> {
        let held = caps::read(None, CapSet::Bounding).map_err(failed("read", "bounding"))?;
        for capability in held.difference(&self.bounding) {
            caps::drop(None, CapSet::Bounding, *capability)
                .map_err(failed("drop from", "bounding"))?;
        }
        Ok(())
    }

    /// Second half, after the change of user (with "keep capabilities" set before it).
    pub fn apply(&self) -> Setup<()> {
        // Inheritable first: to raise it may need CAP_SETPCAP. Effective before permitted, which
        // may not be the smaller of the two at any time.
        caps::set(None, CapSet::Inheritable, &self.inheritable)
            .map_err(failed("set", "inheritable"))?;
        caps::set(None, CapSet::Effective, &self.effective).map_err(failed("set", "effective"))?;
        caps::set(None, CapSet::Permitted, &self.permitted).map_err(failed("set", "permitted"))?;
        const CLEAR_ALL: libc::c_ulong = libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong;
        sys::prctl(libc::PR_CAP_AMBIENT, CLEAR_ALL)
            .map_err(|errno| SetupFailure::new("clear", "ambient capabilities", errno))?;
        for capability in &self.ambient {
            caps::raise(None, CapSet::Ambient, *capability).map_err(failed("raise", "ambient"))?;
        }
        Ok(())
    }
}

fn failed(
    step: &'static str,
    set: &'static str,
) -> impl Fn(caps::errors::CapsError) -> SetupFailure {
    move |error| SetupFailure::because(step, format!("{set} capabilities"), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxCapabilitiesBuilder;

    #[test]
    fn effective_must_be_permitted() {
        let chown: Capabilities = [oci_spec::runtime::Capability::Chown].into_iter().collect();
        let empty = Capabilities::new();
        let spec = LinuxCapabilitiesBuilder::default()
            .bounding(chown.clone())
            .effective(chown)
            .permitted(empty.clone())
            .inheritable(empty.clone())
            .ambient(empty)
            .build()
            .expect("valid");
        let error = CapabilitySets::from_spec(Some(&spec)).expect_err("refused");
        assert!(error.to_string().contains("effective"), "{error}");
    }

    #[test]
    fn nothing_given_is_nothing_held() {
        let sets = CapabilitySets::from_spec(None).expect("valid");
        assert!(sets.bounding.is_empty() && sets.effective.is_empty());
    }
}
