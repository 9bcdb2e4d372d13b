//! What runs in a task, with which files and which rights.

use std::collections::BTreeMap;

use fairlead_api::v1;

use super::mirror::{choice, mirror};
use super::quantity::Size;
use super::value::{FileMode, Nanos, Text};

mirror! {
    /// What runs in a task.
    pub struct Container = v1::ContainerSpec {
        /// A registry reference, or docker-archive:/PATH or docker-archive:/PATH:REF, oci-archive:/PATH or oci-archive:/PATH:TAG, oci:/DIR or oci:/DIR:TAG, dir:/PATH.
        image: String = image,
    } optional {
        /// Labels of the container.
        labels: BTreeMap<String, String> = labels,
        /// Replaces the image's entry point.
        command: Vec<String> = command,
        /// Replaces the image's arguments.
        args: Vec<String> = args,
        /// NAME=VALUE, or NAME to take it away.
        env: Vec<String> = env,
        /// Working directory.
        dir: String = dir,
        /// name|uid[:group|gid]
        user: String = user,
        /// What is mounted, and where.
        mounts: Vec<Mount> = mounts,
        /// Time between the stop signal and SIGKILL; default 10s.
        stop_grace_period: Option<Nanos> = stop_grace_period,
        /// How the image is pulled.
        pull_options: Option<PullOptions> = pull_options,
        /// Further groups of the user.
        groups: Vec<String> = groups,
        /// Secrets that become files.
        secrets: Vec<SecretReference> = secrets,
        /// Whether the container gets a terminal.
        tty: bool = tty,
        /// Host name of the container.
        hostname: String = hostname,
        /// Name servers and search domains.
        dns_config: Option<DnsConfig> = dns_config,
        /// How it is found out whether the container is well.
        healthcheck: Option<HealthConfig> = healthcheck,
        /// "IP name [alias...]", one line of /etc/hosts each.
        hosts: Vec<String> = hosts,
        /// Whether standard input stays open.
        open_stdin: bool = open_stdin,
        /// Whether the root filesystem is read-only.
        read_only: bool = read_only,
        /// Name or number; default: the image's, else SIGTERM.
        stop_signal: String = stop_signal,
        /// Configs that become files.
        configs: Vec<ConfigReference> = configs,
        /// Seccomp, AppArmor, SELinux and no-new-privileges.
        privileges: Option<Privileges> = privileges,
        /// Whether an init process reaps children and passes signals on.
        init: Option<bool> = init,
        /// Most processes and threads. 0: no limit.
        pids_limit: i64 = pids_limit,
        /// Kernel settings of the container's namespaces.
        sysctls: BTreeMap<String, String> = sysctls,
        /// Capabilities beyond the default ones.
        capability_add: Vec<String> = capability_add,
        /// Default capabilities to take away.
        capability_drop: Vec<String> = capability_drop,
        /// Limits of setrlimit(2).
        ulimits: Vec<Ulimit> = ulimits,
        /// Adjustment of the out-of-memory score: -1000 to 1000.
        oom_score_adj: i64 = oom_score_adj,
    }
}

mirror! {
    /// Something mounted in the container.
    pub struct Mount = v1::Mount {
        /// What kind of mount.
        r#type: MountType = r#type,
        /// Where in the container.
        target: String = target,
    } optional {
        /// A path of the node, or the name of a volume.
        source: String = source,
        /// Whether the container cannot write to it.
        read_only: bool = read_only,
        /// Options of a bind mount.
        bind_options: Option<BindOptions> = bind_options,
        /// Options of a volume.
        volume_options: Option<VolumeOptions> = volume_options,
        /// Options of a tmpfs.
        tmpfs_options: Option<TmpfsOptions> = tmpfs_options,
    }
}

choice! {
    /// Kind of mount.
    pub enum MountType = v1::MountType {
        /// A path of the node.
        #[default]
        Bind = Bind,
        /// A volume of the node.
        Volume = Volume,
        /// Memory.
        Tmpfs = Tmpfs,
        /// A named pipe of Windows.
        Npipe = Npipe,
        /// A cluster volume.
        Cluster = Cluster,
    }
}

mirror! {
    /// Options of a bind mount.
    pub struct BindOptions = v1::BindOptions {} optional {
        /// How later mounts travel between node and container.
        propagation: Propagation = propagation,
        /// Whether mounts below the source stay out.
        non_recursive: bool = non_recursive,
        /// Whether a missing source is made, as a directory.
        create_mountpoint: bool = create_mountpoint,
        /// Whether mounts below the source stay writable when this is read-only.
        read_only_non_recursive: bool = read_only_non_recursive,
        /// Whether it is an error if mounts below cannot be made read-only.
        read_only_force_recursive: bool = read_only_force_recursive,
    }
}

choice! {
    /// How later mounts travel, see mount_namespaces(7).
    pub enum Propagation = v1::Propagation {
        /// Not at all, recursively.
        #[default]
        Rprivate = Rprivate,
        /// Not at all.
        Private = Private,
        /// Both ways, recursively.
        Rshared = Rshared,
        /// Both ways.
        Shared = Shared,
        /// Into the container, recursively.
        Rslave = Rslave,
        /// Into the container.
        Slave = Slave,
    }
}

mirror! {
    /// Options of a volume.
    pub struct VolumeOptions = v1::VolumeOptions {} optional {
        /// Whether the image's content is not copied into an empty volume.
        no_copy: bool = no_copy,
        /// Labels of the volume.
        labels: BTreeMap<String, String> = labels,
        /// The volume driver.
        driver_name: String = driver_name,
        /// Options of the volume driver.
        driver_options: BTreeMap<String, String> = driver_options,
        /// Directory of the volume to mount instead of its root.
        subpath: String = subpath,
    }
}

mirror! {
    /// Options of a tmpfs.
    pub struct TmpfsOptions = v1::TmpfsOptions {} optional {
        /// Most memory, such as 64MiB. 0: half of the node's.
        size: Size = size_bytes,
        /// Permission bits; default "1777".
        mode: FileMode = mode,
        /// Further mount options.
        options: Vec<String> = options,
    }
}

mirror! {
    /// How the image is pulled.
    pub struct PullOptions = v1::PullOptions {} optional {
        /// base64url of JSON, as the header X-Registry-Auth of the Docker API.
        registry_auth: String = registry_auth,
    }
}

mirror! {
    /// The file that a secret or config becomes.
    pub struct FileTarget = v1::FileTarget {
        /// Its path.
        name: String = name,
    } optional {
        /// Its owner, a number.
        uid: String = uid,
        /// Its group, a number.
        gid: String = gid,
        /// Its permission bits, such as "0444".
        mode: FileMode = mode,
    }
}

mirror! {
    /// A secret in a container.
    pub struct SecretReference = v1::SecretReference {
        /// The secret.
        secret_id: String = secret_id,
    } optional {
        /// Its name.
        secret_name: String = secret_name,
        /// The file that it becomes.
        file: Option<FileTarget> = file,
    }
}

mirror! {
    /// A config in a container.
    pub struct ConfigReference = v1::ConfigReference {
        /// The config.
        config_id: String = config_id,
    } optional {
        /// Its name.
        config_name: String = config_name,
        /// The file that it becomes.
        file: Option<FileTarget> = file,
        /// Whether it is read by the executor, and no file in the container.
        runtime: bool = runtime,
    }
}

mirror! {
    /// Where names are looked up.
    pub struct DnsConfig = v1::DnsConfig {} optional {
        /// Addresses of name servers.
        nameservers: Vec<String> = nameservers,
        /// Search domains.
        search: Vec<String> = search,
        /// Options of resolv.conf(5).
        options: Vec<String> = options,
    }
}

mirror! {
    /// How it is found out whether a container is well.
    pub struct HealthConfig = v1::HealthConfig {} optional {
        /// Empty: the image's; ["NONE"]; ["CMD", ...]; ["CMD-SHELL", x].
        test: Vec<String> = test,
        /// Time between two probes.
        interval: Nanos = interval,
        /// Time after which a probe has failed, and is killed.
        timeout: Nanos = timeout,
        /// Failures in a row that make the container unhealthy: it is stopped, and the task has failed.
        retries: u32 = retries,
        /// Time from the start in which failures do not count.
        start_period: Nanos = start_period,
        /// Time between two probes until one has succeeded, if it is shorter than the interval.
        start_interval: Nanos = start_interval,
    }
}

mirror! {
    /// What the kernel's security modules allow.
    pub struct Privileges = v1::Privileges {} optional {
        /// Which system calls are allowed.
        seccomp_mode: SeccompMode = seccomp_mode,
        /// A seccomp profile in JSON, for the mode `custom`.
        seccomp_profile: Text = seccomp_profile,
        /// Whether AppArmor confines the container.
        apparmor_mode: AppArmorMode = apparmor_mode,
        /// Whether set-user-id programs and the like gain nothing.
        no_new_privileges: bool = no_new_privileges,
        /// The SELinux label.
        selinux_context: Option<SelinuxContext> = selinux_context,
    }
}

choice! {
    /// Which system calls are allowed.
    pub enum SeccompMode = v1::SeccompMode {
        /// The usual ones.
        #[default]
        Default = Default,
        /// All.
        Unconfined = Unconfined,
        /// Those of `seccompProfile`.
        Custom = Custom,
    }
}

choice! {
    /// Whether AppArmor confines the container.
    pub enum AppArmorMode = v1::AppArmorMode {
        /// With the default profile.
        #[default]
        Default = Default,
        /// Not at all.
        Disabled = Disabled,
    }
}

mirror! {
    /// The SELinux label of a container.
    pub struct SelinuxContext = v1::SelinuxContext {} optional {
        /// Whether there is none.
        disable: bool = disable,
        /// SELinux user.
        user: String = user,
        /// SELinux role.
        role: String = role,
        /// SELinux type.
        r#type: String = r#type,
        /// SELinux level.
        level: String = level,
    }
}

mirror! {
    /// One limit of setrlimit(2).
    pub struct Ulimit = v1::Ulimit {
        /// Without RLIMIT_, in lower case: nofile, nproc, core...
        name: String = name,
        /// -1: no limit.
        soft: i64 = soft,
        /// -1: no limit.
        hard: i64 = hard,
    } optional {}
}
