//! The five capability sets.

use crate::error::{ContainerError, Setup, SetupFailure};
use crate::sys;
use caps::{CapSet, Capability, CapsHashSet};
use oci_spec::runtime::{Capabilities, LinuxCapabilities};
use std::str::FromStr;

/// A capability by the name that people give it: `net_admin` or `CAP_NET_ADMIN`.
#[must_use]
pub fn parse_capability(name: &str) -> Option<oci_spec::runtime::Capability> {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).parse().ok()
}

/// What the program will hold.
///
/// What cannot be granted is left out with a warning, as the specification wants it (config.md,
/// "Linux Process", `capabilities`): a profile may name what only other kernels have.
#[derive(Debug, Default)]
pub struct CapabilitySets {
    bounding: CapsHashSet,
    effective: CapsHashSet,
    inheritable: CapsHashSet,
    permitted: CapsHashSet,
    ambient: CapsHashSet,
    /// What was to be ambient and cannot be.
    not_ambient: CapsHashSet,
    /// What was asked for in any set, and nobody here can give.
    beyond: CapsHashSet,
}

impl CapabilitySets {
    /// Reads them from the specification (none given means none held) and checks them against
    /// each other.
    pub fn from_spec(spec: Option<&LinuxCapabilities>) -> Result<Self, ContainerError> {
        let Some(spec) = spec else {
            return Ok(Self::default());
        };
        let read = |set: &str, list: &Option<Capabilities>| -> Result<_, ContainerError> {
            let mut result = CapsHashSet::new();
            for capability in list.iter().flatten() {
                let name = caps::to_canonical(&capability.to_string());
                let capability = Capability::from_str(&name).map_err(|_| {
                    ContainerError::invalid(
                        format!("process.capabilities.{set}"),
                        format!("{name} is unknown"),
                    )
                })?;
                result.insert(capability);
            }
            Ok(result)
        };
        let inheritable = read("inheritable", spec.inheritable())?;
        let permitted = read("permitted", spec.permitted())?;
        // Only what is both can be ambient (capabilities(7)). `runc spec` has written others for
        // years, and the specification wants what cannot be granted to be no more than a warning.
        let (ambient, not_ambient) = read("ambient", spec.ambient())?
            .into_iter()
            .partition(|one| inheritable.contains(one) && permitted.contains(one));
        let sets = Self {
            bounding: read("bounding", spec.bounding())?,
            effective: read("effective", spec.effective())?,
            inheritable,
            permitted,
            ambient,
            not_ambient,
            beyond: CapsHashSet::new(),
        };
        sets.check()?;
        Ok(sets)
    }

    fn check(&self) -> Result<(), ContainerError> {
        match self.effective.difference(&self.permitted).next() {
            None => Ok(()),
            Some(capability) => Err(ContainerError::invalid(
                "process.capabilities.effective",
                format!("{capability} is not permitted"),
            )),
        }
    }

    /// Leaves out what the calling process cannot hand on, in the namespaces where the program
    /// will run: in a user namespace of its own it has more than outside.
    pub fn limit_to_own(&mut self) -> Setup<()> {
        let bounding = caps::read(None, CapSet::Bounding).map_err(failed("read", "bounding"))?;
        let permitted = caps::read(None, CapSet::Permitted).map_err(failed("read", "permitted"))?;
        self.limit_to(&bounding, &permitted);
        Ok(())
    }

    fn limit_to(&mut self, bounding: &CapsHashSet, permitted: &CapsHashSet) {
        let Self { beyond, .. } = self;
        let mut keep = |set: &mut CapsHashSet, own: &CapsHashSet| {
            beyond.extend(set.difference(own));
            set.retain(|one| own.contains(one));
        };
        keep(&mut self.bounding, bounding);
        let own = bounding & permitted;
        for set in [
            &mut self.effective,
            &mut self.inheritable,
            &mut self.permitted,
            &mut self.ambient,
        ] {
            keep(set, &own);
        }
        self.not_ambient.retain(|one| !self.beyond.contains(one));
    }

    /// What the program will not hold although it was asked for.
    pub fn warnings(&self) -> Vec<SetupFailure> {
        let named = |set: &CapsHashSet, kind: &str, reason: &str| {
            let mut names: Vec<_> = set.iter().map(ToString::to_string).collect();
            names.sort();
            let warning = |name| {
                let object = format!("{kind}capability {name}");
                SetupFailure::because("grant", object, reason)
            };
            names.into_iter().map(warning).collect::<Vec<_>>()
        };
        let beyond = "it is outside the bounding set of this runtime, or this kernel has no such; \
                      the program runs without it";
        let mut warnings = named(&self.beyond, "", beyond);
        let reason = "it is not both permitted and inheritable";
        warnings.extend(named(&self.not_ambient, "ambient ", reason));
        warnings
    }

    /// First half, while still root: what no program may gain later.
    pub fn limit_bounding(&self) -> Setup<()> {
        for capability in caps::all() {
            if self.bounding.contains(&capability) {
                continue;
            }
            let Err(error) = caps::drop(None, CapSet::Bounding, capability) else {
                continue;
            };
            // One that is not there any more, or not in this kernel, need not go.
            if caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
                return Err(failed("drop from", "bounding")(error));
            }
        }
        Ok(())
    }

    /// Second half, after the change of user (with "keep capabilities" set before it). With
    /// `keep_admin`, `CAP_SYS_ADMIN` stays in effect on top, where this process has it, until the
    /// exec: what a program holds is computed from the other sets, never from what was permitted
    /// before (capabilities(7), "Transformation of capabilities during execve()").
    pub fn apply(&self, keep_admin: bool) -> Setup<()> {
        let admin = Capability::CAP_SYS_ADMIN;
        let keep = keep_admin
            && caps::has_cap(None, CapSet::Permitted, admin)
                .map_err(failed("read", "permitted"))?;
        let with_admin = |set: &CapsHashSet| -> CapsHashSet {
            set.iter().copied().chain(keep.then_some(admin)).collect()
        };
        // Inheritable first: to raise it may need CAP_SETPCAP. Effective before permitted, which
        // may not be the smaller of the two at any time.
        caps::set(None, CapSet::Inheritable, &self.inheritable)
            .map_err(failed("set", "inheritable"))?;
        caps::set(None, CapSet::Effective, &with_admin(&self.effective))
            .map_err(failed("set", "effective"))?;
        caps::set(None, CapSet::Permitted, &with_admin(&self.permitted))
            .map_err(failed("set", "permitted"))?;
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
    fn what_cannot_be_ambient_is_not() {
        use oci_spec::runtime::Capability as C;
        let list = |list: &[C]| list.iter().copied().collect::<Capabilities>();
        let both = list(&[C::Chown, C::Kill]);
        let spec = LinuxCapabilitiesBuilder::default()
            .bounding(both.clone())
            .effective(both.clone())
            .permitted(both.clone())
            .inheritable(list(&[C::Kill]))
            .ambient(both)
            .build()
            .expect("valid");
        let sets = CapabilitySets::from_spec(Some(&spec)).expect("valid");
        assert_eq!(sets.ambient, [Capability::CAP_KILL].into());
        let warnings: Vec<_> = sets.warnings().iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("CAP_CHOWN"), "{warnings:?}");
    }

    #[test]
    fn what_is_not_ours_is_left_out() {
        use oci_spec::runtime::Capability as C;
        let all: Capabilities = [C::Chown, C::Kill, C::SysTime].into_iter().collect();
        let spec = LinuxCapabilitiesBuilder::default()
            .bounding(all.clone())
            .effective(all.clone())
            .permitted(all.clone())
            .inheritable(all.clone())
            .ambient(all)
            .build()
            .expect("valid");
        let mut sets = CapabilitySets::from_spec(Some(&spec)).expect("valid");
        let bounding = [Capability::CAP_CHOWN, Capability::CAP_KILL].into();
        let permitted = [Capability::CAP_KILL, Capability::CAP_SYS_TIME].into();
        sets.limit_to(&bounding, &permitted);
        assert_eq!(sets.bounding, bounding);
        for set in [
            &sets.effective,
            &sets.permitted,
            &sets.inheritable,
            &sets.ambient,
        ] {
            assert_eq!(*set, [Capability::CAP_KILL].into());
        }
        sets.check().expect("consistent");
        let warnings: Vec<_> = sets.warnings().iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("CAP_CHOWN"), "{warnings:?}");
        assert!(warnings[1].contains("CAP_SYS_TIME"), "{warnings:?}");
    }

    #[test]
    fn names_with_and_without_prefix() {
        use oci_spec::runtime::Capability;
        assert_eq!(parse_capability("net_admin"), Some(Capability::NetAdmin));
        assert_eq!(parse_capability("CAP_CHOWN"), Some(Capability::Chown));
        assert_eq!(parse_capability("CAP_NOPE"), None);
    }

    #[test]
    fn nothing_given_is_nothing_held() {
        let sets = CapabilitySets::from_spec(None).expect("valid");
        assert!(sets.bounding.is_empty() && sets.effective.is_empty());
    }
}
