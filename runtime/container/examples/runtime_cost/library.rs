//! By this crate, in a process that stays, as the daemon's are: the specification is in memory, the
//! compiled filter comes from a cache.

use crate::{Options, Outcome, Stopwatch, Way, specs};
use container::seccomp::Cache;
use container::{CgroupPath, CreateOptions, Rootfs, create, process};
use oci_spec::runtime::Spec;
use std::path::PathBuf;

pub struct Library {
    spec: Spec,
    rootfs: PathBuf,
    cgroup: CgroupPath,
    cache: Cache,
}

impl Library {
    pub fn new(name: &str, options: &Options) -> Outcome<Self> {
        let cgroup = format!("library-{name}");
        Ok(Self {
            spec: specs::spec(name, &options.rootfs, &cgroup),
            rootfs: options.rootfs.clone(),
            cgroup: CgroupPath::new(specs::CGROUP_PARENT, cgroup),
            cache: Cache::open(&options.work.join("filters"))?,
        })
    }
}

impl Way for Library {
    fn once(&mut self) -> Outcome<Vec<(&'static str, f64)>> {
        let mut options = CreateOptions::new(Rootfs::Directory(self.rootfs.clone()));
        options.cgroup = Some(self.cgroup.clone());
        let watch = Stopwatch::start()?;
        let profile = self
            .spec
            .linux()
            .as_ref()
            .and_then(|l| l.seccomp().as_ref());
        if let Some(profile) = profile {
            options.seccomp = Some(self.cache.get(profile)?.0);
        }
        let started = create(&self.spec, options)?.start()?;
        let exit = process::wait_child(&started.pidfd)?;
        if let Some(cgroup) = started.cgroup {
            cgroup.delete()?;
        }
        let took = watch.read()?;
        if exit.code() != 0 {
            return Err(format!("the program ended with {exit}").into());
        }
        Ok(took)
    }
}
