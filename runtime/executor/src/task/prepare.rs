//! Everything that a task needs, made so that starting it is immediate. Repeatable: whatever exists
//! already is used.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use container::Rootfs;
use container::shim::{HEALTH_CHECK, LogOptions, ShimOptions, Volume};
use fairlead_api::v1::{self, TaskState};
use ipnet::IpNet;
use netdp::Object;
use oci_spec::runtime::Spec;

use super::bundle::{self, Inputs, User};
use super::{Follower, ResolvConf, StepError, blocking, files, health, set_status};
use crate::filters::Filters;
use crate::model::{NetworkDef, gwbridge_subnets, protocol_number};
use crate::plan::{View, needs_gateway};
use crate::plane::Applied;
use crate::record::Local;
use crate::validate::parse_size;

impl Follower {
    pub(super) async fn prepare(&mut self, local: &Local) -> Result<(), StepError> {
        self.reserve(local).await?;
        let Some(image) = self.root_file_system(local).await? else {
            return Ok(());
        };
        let Some(volumes) = self.volumes(local, &image.0).await? else {
            return Ok(());
        };
        let Some(local) = self.node.local(&self.id) else {
            return Ok(());
        };
        let plane = self.node.plane()?;
        let applied = plane.apply().await?;
        check_sandbox(&local, &applied, &plane.sandbox_path(&self.id))?;
        self.write_bundle(&local, image, volumes).await?;
        // READY is seen by others, and "nothing runs yet" is the truth in either case.
        self.node.note(&self.id, |local| {
            set_status(local, TaskState::Ready, "prepared")
        });
        Ok(())
    }

    /// Writes down what the task will have, before any of it exists: its networks, its addresses
    /// on the gwbridge, its ports on the node.
    async fn reserve(&self, local: &Local) -> Result<(), StepError> {
        let view = self.node.view();
        let mut networks: Vec<Arc<NetworkDef>> = Vec::new();
        for leg in &local.def.legs {
            match view.assignment.networks.get(&leg.network) {
                Some(network) => networks.push(Arc::clone(network)),
                None => {
                    let text = format!("network {:?} is no longer assigned", leg.network);
                    return Err(StepError::fatal(text));
                }
            }
        }
        if let Some(taken) = taken(local, &view) {
            return Err(StepError::transient(taken));
        }
        let ports = match self.reserve_ports(local).await {
            Ok(ports) => ports,
            Err(error) => {
                // The ones before the one that failed: nothing of them is in the record yet.
                self.node.plane()?.release_ports(&self.id);
                return Err(error);
            }
        };
        if needs_gateway(networks.iter().map(|n| &**n), !ports.is_empty())
            && let Some(config) = &view.config
        {
            let subnets = gwbridge_subnets(config).map_err(|e| StepError::fatal(e.to_string()))?;
            // Written together with what follows: the store keeps the order.
            match self.node.take_gateway(&self.id, &subnets) {
                Ok(written) => drop(written),
                Err(full) => {
                    self.node.plane()?.release_ports(&self.id);
                    return Err(StepError::fatal(format!(
                        "no address is free in {full}, the subnet of the gwbridge"
                    )));
                }
            }
        }
        let written = self.node.update(&self.id, |local| {
            local.record.networks = networks
                .iter()
                .map(|network| network.proto.clone())
                .collect();
            local.networks = networks;
            local.record.host_ports = ports.iter().map(|(config, _)| config.clone()).collect();
            local.host_ports = ports.into_iter().map(|(_, port)| port).collect();
            local.record.sandbox = true;
            local.record.snapshot = true;
        });
        Ok(written.await?)
    }

    async fn reserve_ports(
        &self,
        local: &Local,
    ) -> Result<Vec<(v1::PortConfig, netdp::Port)>, StepError> {
        let plane = self.node.plane()?;
        let mut ports = Vec::new();
        for (i, wanted) in local.def.host_ports.iter().enumerate() {
            // A number that was found before stays: a try again must not change it.
            let known = local
                .host_ports
                .get(i)
                .map_or(wanted.published, |port| port.published);
            let published = plane.reserve_port(&self.id, wanted.protocol, known).await?;
            let name = local
                .def
                .proto
                .host_ports
                .get(i)
                .map(|p| p.name.clone())
                .unwrap_or_default();
            let config = v1::PortConfig {
                name,
                protocol: protocol_number(wanted.protocol) as i32,
                target_port: u32::from(wanted.target),
                published_port: u32::from(published),
                publish_mode: v1::PublishMode::Host as i32,
            };
            ports.push((
                config,
                netdp::Port {
                    published,
                    ..*wanted
                },
            ));
        }
        Ok(ports)
    }

    async fn write_bundle(
        &self,
        local: &Arc<Local>,
        (image, rootfs): (image::Image, Rootfs),
        volumes: Vec<Volume>,
    ) -> Result<(), StepError> {
        let node = Arc::clone(&self.node);
        let netns = node.plane()?.sandbox_path(&self.id);
        let task = Arc::clone(local);
        let (signal, has_check) = blocking(move || {
            let options = &node.options;
            let id = &task.def.proto.id;
            let (run, state) = (options.task_run_dir(id), options.task_state_dir(id));
            for dir in [&run, &state] {
                private_dir(dir)?;
            }
            let c = task.def.container();
            check_mounts(c)?;
            let node_conf = fs::read_to_string(&options.resolv_conf).unwrap_or_default();
            let resolv = ResolvConf::parse(&node_conf).for_task(c.dns_config.as_ref());
            let hostname = bundle::hostname(&task.def);
            let addresses: Vec<IpAddr> = task
                .def
                .legs
                .iter()
                .flat_map(|leg| leg.addresses.iter().map(|a| a.addr()))
                .collect();
            // The task may write to them: not on the file system in memory that all shims need.
            write(&state.join("resolv.conf"), resolv.render().as_bytes())?;
            write(
                &state.join("hosts"),
                files::hosts(&c.hosts, &hostname, &addresses).as_bytes(),
            )?;
            write(&state.join("hostname"), format!("{hostname}\n").as_bytes())?;

            let inputs = Inputs {
                def: &task.def,
                image: &image,
                netns: &netns,
                files: &state,
                volumes: &volumes,
            };
            let spec = bundle::spec(&inputs).map_err(|e| StepError::of(&e))?;
            let user = bundle::user(c, &image).map_err(|e| StepError::of(&e))?;
            let log = task.def.proto.log_driver.as_ref();
            let option = |name: &str| log.and_then(|driver| driver.options.get(name));
            let shim = ShimOptions {
                id: id.clone(),
                cgroup_parent: options.cgroup_parent.clone(),
                cgroup_name: id.clone(),
                rootfs,
                user: match user {
                    User::Lookup(user) => user,
                    User::Numbers(_) => None,
                },
                log: LogOptions {
                    path: options.log_path(id),
                    max_bytes: option("max-size")
                        .and_then(|text| parse_size(text))
                        .unwrap_or(0),
                    max_files: option("max-file")
                        .and_then(|text| text.parse().ok())
                        .unwrap_or(1),
                },
                state_path: run.join("shim-state.json"),
                exit_path: state.join("exit.json"),
                hold_fds: Vec::new(),
            };
            write_filter(&node.filters, &run, &spec)?;
            write(&run.join("config.json"), &json(&spec)?)?;
            write(&run.join("shim.json"), &json(&shim)?)?;
            let check = health::merge(c.healthcheck.as_ref(), &image);
            let check = check.map_err(|e| StepError::of(&e))?;
            if let Some(check) = &check {
                write(&run.join(HEALTH_CHECK), &json(check)?)?;
            }
            let signal = bundle::stop_signal(&task.def, &image).map_err(|e| StepError::of(&e))?;
            Ok((signal, check.is_some()))
        })
        .await?;
        self.node.note(&self.id, |local| {
            local.record.stop_signal = signal;
            local.record.health_check = has_check;
        });
        Ok(())
    }
}

/// An address or a MAC of the task that another one, which is still being stopped, has on the same network.
fn taken(task: &Local, view: &View) -> Option<String> {
    let others = view
        .locals
        .values()
        .filter(|other| other.record.sandbox && other.def.proto.id != task.def.proto.id);
    for other in others {
        for leg in &task.def.legs {
            let mut legs = other.def.legs.iter();
            let Some(theirs) = legs.find(|theirs| theirs.network == leg.network) else {
                continue;
            };
            let same = |address: &&IpNet| theirs.addresses.contains(*address);
            let what = match leg.addresses.iter().find(same) {
                Some(address) => address.addr().to_string(),
                None if leg.mac == theirs.mac => leg.mac.to_string(),
                None => continue,
            };
            return Some(format!(
                "{what} on network {:?} still belongs to task {:?}, which is not gone yet",
                leg.network, other.def.proto.id
            ));
        }
    }
    None
}

/// What the task needs of the last run must have succeeded; other failures are others' affair. A
/// failure of the node is the task's where it kept the namespace from being made.
fn check_sandbox(local: &Local, applied: &Applied, netns: &Path) -> Result<(), StepError> {
    let id = &local.def.proto.id;
    if !applied.plan.desired.sandboxes.contains_key(id) {
        return Err(StepError::transient(
            "the data plane has not seen the task yet",
        ));
    }
    let missing = !netns.exists();
    for failure in &applied.report.failures {
        let ours = match &failure.object {
            Object::Sandbox(task) => task == id,
            Object::Network(network) => local.def.legs.iter().any(|leg| leg.network == *network),
            Object::Node => missing,
            Object::Service(_) => false,
        };
        if ours {
            let message = format!(
                "{}: {}",
                failure.object,
                crate::events::chain(&failure.error)
            );
            return Err(StepError {
                transient: failure.error.is_transient(),
                ..StepError::fatal(message)
            });
        }
    }
    if missing {
        return Err(StepError::transient(format!(
            "{} is not there yet",
            netns.display()
        )));
    }
    Ok(())
}

/// The filter of the task's system calls, compiled, for the shim.
fn write_filter(filters: &Filters, run: &Path, spec: &Spec) -> Result<(), StepError> {
    let linux = spec.linux().as_ref();
    let Some(profile) = linux.and_then(|linux| linux.seccomp().as_ref()) else {
        return Ok(());
    };
    let filter = filters.get(profile).map_err(|e| StepError::of(&e))?;
    write(&run.join(container::shim::FILTER), &filter.to_bytes())
}

/// Sources of bind mounts must be there, or may be made.
fn check_mounts(c: &v1::ContainerSpec) -> Result<(), StepError> {
    for mount in c
        .mounts
        .iter()
        .filter(|m| m.r#type() == v1::MountType::Bind)
    {
        let source = Path::new(&mount.source);
        if source.exists() {
            continue;
        }
        if !mount
            .bind_options
            .is_some_and(|options| options.create_mountpoint)
        {
            let text = format!(
                "the source of the bind mount at {} does not exist: {}",
                mount.target, mount.source
            );
            return Err(StepError::fatal(text));
        }
        fs::create_dir_all(source).map_err(file("create", source))?;
    }
    Ok(())
}

/// Nobody but root looks into it: a task's files may be secret.
pub(super) fn private_dir(dir: &Path) -> Result<(), StepError> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(file("create", dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(file("set mode of", dir))
}

pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), StepError> {
    fs::write(path, content).map_err(file("write", path))
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, StepError> {
    serde_json::to_vec_pretty(value).map_err(|e| StepError::fatal(format!("internal error: {e}")))
}

pub(super) fn file<'a>(
    action: &'a str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> StepError + 'a {
    move |error| {
        let of = StepError::of(&error);
        StepError {
            message: format!("cannot {action} {}: {error}", path.display()),
            ..of
        }
    }
}
