//! The command line. Options may stand before and after the container's id.

use clap::{Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// `runc --version` has these lines, which clients read: Docker looks for the word "version".
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0");

/// Runs containers by the OCI runtime specification.
#[derive(Debug, Parser)]
#[command(
    name = "fairlead-oci",
    version = VERSION,
    disable_help_subcommand = true,
    disable_version_flag = true
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Adds the arguments of a command.
type Augment = fn(clap::Command) -> clap::Command;

/// The commands that clients call for each container.
const FREQUENT: [(&str, Augment); 7] = [
    ("create", Create::augment_args),
    ("start", Id::augment_args),
    ("run", Run::augment_args),
    ("state", Id::augment_args),
    ("kill", Kill::augment_args),
    ("delete", Delete::augment_args),
    ("exec", Exec::augment_args),
];

/// The others.
const RARE: [&str; 10] = [
    "ps",
    "list",
    "pause",
    "resume",
    "update",
    "events",
    "spec",
    "features",
    "checkpoint",
    "restore",
];

/// More descriptors than these no process has: there are three before them.
const MOST_FDS: i64 = i32::MAX as i64 - 3;

impl Cli {
    /// The command line of this process; an error is for who called it.
    pub fn of_process() -> Result<Self, clap::Error> {
        let words: Vec<OsString> = std::env::args_os().collect();
        match Self::frequent(&words) {
            Some(cli) => Ok(cli),
            None => Self::full(words),
        }
    }

    /// As `try_parse_from`, in the manner of Go's programs.
    fn full(words: Vec<OsString>) -> Result<Self, clap::Error> {
        let version = Arg::new("version")
            .short('v')
            .short_alias('V')
            .long("version")
            .action(ArgAction::Version)
            .help("Print version");
        let command = like_go(Self::command().arg(version)).mut_subcommands(like_go);
        let mut matches = command.try_get_matches_from(words)?;
        Self::from_arg_matches_mut(&mut matches)
    }

    /// As [`Cli::full`], for a frequent command without mistakes: what all the other commands
    /// may be told costs a sixth of a millisecond to describe, so only those are described whose
    /// names are among the words.
    fn frequent(words: &[OsString]) -> Option<Self> {
        if RARE
            .iter()
            .any(|name| words.iter().any(|word| word == name))
        {
            return None;
        }
        let mut command = like_go(Global::augment_args(clap::Command::new("fairlead-oci")));
        for (name, augment) in FREQUENT {
            if words.iter().any(|word| word == name) {
                command = command.subcommand(like_go(augment(clap::Command::new(name))));
            }
        }
        // Who wants help gets an error here, and then all of it.
        let command = command.disable_help_flag(true).subcommand_required(true);
        let mut matches = command.try_get_matches_from(words).ok()?;
        Some(Self {
            global: Global::from_arg_matches_mut(&mut matches).ok()?,
            command: Command::from_arg_matches_mut(&mut matches).ok()?,
        })
    }
}

/// The last of an option that is given more than once counts, and a flag may have a value.
fn like_go(command: clap::Command) -> clap::Command {
    command.args_override_self(true).mut_args(|arg| {
        if !matches!(arg.get_action(), ArgAction::SetTrue) {
            return arg;
        }
        arg.action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .value_name("BOOL")
            .value_parser(boolean)
            .default_missing_value("true")
            .default_value("false")
            .hide_default_value(true)
    })
}

/// As Go's `strconv.ParseBool`.
fn boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("it is true or false"),
    }
}

impl Global {
    /// Those options that stand before the command, as far as they can be understood: for words
    /// that make no sense as a whole.
    pub fn of_broken(words: impl Iterator<Item = OsString>) -> Option<Self> {
        let command = like_go(Self::augment_args(clap::Command::new("fairlead-oci")));
        let command = command.ignore_errors(true).allow_external_subcommands(true);
        let mut matches = command.try_get_matches_from(words).ok()?;
        Self::from_arg_matches_mut(&mut matches).ok()
    }
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Where the state of containers is kept; should be on a tmpfs
    /// [default: /run/fairlead-oci, or $XDG_RUNTIME_DIR/fairlead-oci of an ordinary user]
    #[arg(long, global = true, value_name = "DIRECTORY")]
    pub root: Option<PathBuf>,
    /// Where messages are appended; else they go to stderr
    #[arg(long, global = true, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// How messages look
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Who makes the cgroups
    #[arg(
        long,
        global = true,
        value_name = "MANAGER",
        default_value = "cgroupfs"
    )]
    pub cgroup_manager: CgroupManager,
    /// The same as --cgroup-manager=systemd
    #[arg(long, global = true)]
    pub systemd_cgroup: bool,
    /// Say more
    #[arg(long, global = true)]
    pub debug: bool,
    /// Taken for the sake of runc's callers; whoever is not root runs without privileges
    #[arg(
        id = "rootless-mode",
        long = "rootless",
        value_name = "VALUE",
        hide = true
    )]
    pub rootless: Option<String>,
    /// Taken for the sake of runc's callers; there are no checkpoints
    #[arg(long, value_name = "PATH", hide = true)]
    pub criu: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CgroupManager {
    /// This program, in the cgroup file systems
    Cgroupfs,
    /// systemd, as a transient unit
    Systemd,
    /// Nobody: containers stay in the cgroup of the caller, without limits
    Disabled,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a container, up to the point where its program could start
    Create(Create),
    /// Start the program of a container that was created
    Start(Id),
    /// Create a container, start it, wait for its end and delete it
    Run(Run),
    /// Print the state of a container as JSON
    State(Id),
    /// Send a signal to the first process of a container
    Kill(Kill),
    /// Delete a container that has stopped
    Delete(Delete),
    /// Run another program in a container
    Exec(Box<Exec>),
    /// List the processes of a container
    Ps(Ps),
    /// List the containers
    List(List),
    /// Freeze the processes of a container
    Pause(Id),
    /// Let the processes of a container go on
    Resume(Id),
    /// Change the limits of a container
    Update(Box<Update>),
    /// Print statistics and events of a container
    Events(Events),
    /// Write a config.json to start from
    Spec(Spec),
    /// Print what this runtime can do as JSON
    Features,
    // podman takes help on it for a sign that there are checkpoints.
    /// Not supported
    #[command(hide = true, disable_help_flag = true)]
    Checkpoint(Words),
    /// Not supported
    #[command(hide = true, disable_help_flag = true)]
    Restore(Words),
}

#[derive(Debug, Args)]
pub struct Words {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub words: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Id {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct Create {
    /// The container's id: letters, digits, and _ + - . after the first
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// The directory with config.json
    #[arg(long, short, value_name = "DIRECTORY", default_value = ".")]
    pub bundle: PathBuf,
    /// A socket that takes the other side of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Where to write the process id
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Change the root by moving it, for a root on an initramfs
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the session keyring of the caller
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Taken for the sake of runc's callers: what a mount asks for is never given up
    #[arg(long, hide = true)]
    pub no_mount_fallback: bool,
    /// How many descriptors from 3 on the program inherits, beside those of LISTEN_FDS
    #[arg(long, value_name = "N", default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(..=MOST_FDS))]
    pub preserve_fds: u32,
}

#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub create: Create,
    /// Return when the program runs
    #[arg(long, short)]
    pub detach: bool,
    /// Keep the container when it has ended
    #[arg(long)]
    pub keep: bool,
    /// Do not become the parent of the container's orphans
    #[arg(long)]
    pub no_subreaper: bool,
}

#[derive(Debug, Args)]
pub struct Kill {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// The signal, by name or number
    #[arg(value_name = "SIGNAL", default_value = "SIGTERM")]
    pub signal: String,
    /// Send it to all processes of the container
    #[arg(long, short)]
    pub all: bool,
}

#[derive(Debug, Args)]
pub struct Delete {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// Kill it first if it runs; a container that does not exist is no error
    #[arg(long, short)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Exec {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// The program and its arguments, unless --process gives them
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub command: Vec<String>,
    /// A socket that takes the other side of the terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// The working directory
    #[arg(long, value_name = "DIRECTORY")]
    pub cwd: Option<PathBuf>,
    /// A variable for the environment, NAME=VALUE
    #[arg(long, short, value_name = "VARIABLE")]
    pub env: Vec<String>,
    /// Give it a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// The user, by number: UID or UID:GID
    #[arg(long, short, value_name = "USER")]
    pub user: Option<String>,
    /// A group id beside those of the container
    #[arg(long, short = 'g', value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// A file with the process as config.json has it
    #[arg(long, short, value_name = "FILE", conflicts_with = "command")]
    pub process: Option<PathBuf>,
    /// Return when the program runs
    #[arg(long, short)]
    pub detach: bool,
    /// Where to write the process id
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// Set no_new_privs
    #[arg(long)]
    pub no_new_privs: bool,
    /// A further capability, bounding, effective and permitted
    #[arg(long, short, value_name = "CAPABILITY")]
    pub cap: Vec<String>,
    /// How many descriptors from 3 on the program inherits
    #[arg(long, value_name = "N", default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(..=MOST_FDS))]
    pub preserve_fds: u32,
    /// A cgroup below the container's own, for the process
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<String>,
    /// Also in a paused container; the program starts when that is resumed
    #[arg(long)]
    pub ignore_paused: bool,
}

#[derive(Debug, Args)]
pub struct Ps {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// How the list looks
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    pub format: ListFormat,
    /// Arguments of ps(1), taken for the sake of runc's callers: the table stays the same
    #[arg(
        value_name = "ARGUMENTS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub arguments: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct List {
    /// How the list looks
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    pub format: ListFormat,
    /// Only the ids
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub struct Events {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// Pause between statistics: 5s, 500ms, 1m30s
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub interval: String,
    /// Print the statistics once and end
    #[arg(long)]
    pub stats: bool,
}

#[derive(Debug, Args)]
pub struct Spec {
    /// Where to write it
    #[arg(long, short, value_name = "DIRECTORY", default_value = ".")]
    pub bundle: PathBuf,
    /// For an ordinary user
    #[arg(long)]
    pub rootless: bool,
}

/// Sizes are in bytes, or with one of the suffixes k, m, g, t; -1 is no limit.
#[derive(Debug, Args)]
pub struct Update {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// A file with linux.resources as config.json has it, - for stdin; the other options count
    /// on top of it
    #[arg(long, short, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,
    /// Length of a period of CPU time, in microseconds
    #[arg(long, value_name = "N")]
    pub cpu_period: Option<u64>,
    /// CPU time in a period, in microseconds
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub cpu_quota: Option<i64>,
    /// CPU time that may be saved up, in microseconds
    #[arg(long, value_name = "N")]
    pub cpu_burst: Option<u64>,
    /// CPU shares against other containers
    #[arg(long, visible_alias = "cpu-shares", value_name = "N")]
    pub cpu_share: Option<u64>,
    /// Length of a period of real-time CPU time, in microseconds
    #[arg(long, value_name = "N")]
    pub cpu_rt_period: Option<u64>,
    /// Real-time CPU time in a period, in microseconds
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// The CPUs that may be used
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// The memory nodes that may be used
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// 1 to run only when nothing else does
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub cpu_idle: Option<i64>,
    /// Memory
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Memory below which the container is spared
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// Memory and swap together
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Taken for the sake of runc's callers, without effect
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, hide = true)]
    pub kernel_memory: Option<String>,
    /// Taken for the sake of runc's callers, without effect
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, hide = true)]
    pub kernel_memory_tcp: Option<String>,
    /// How many processes and threads there may be
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_frequent_or_rare() {
        let all = Cli::command();
        let mut all: Vec<_> = all.get_subcommands().map(clap::Command::get_name).collect();
        let frequent = FREQUENT.iter().map(|(name, _)| *name);
        let mut known: Vec<_> = frequent.chain(RARE).collect();
        all.sort_unstable();
        known.sort_unstable();
        assert_eq!(all, known);
    }

    #[test]
    fn the_short_way_reads_the_same() {
        let words = |line: &str| {
            let words = line.split_whitespace().map(OsString::from);
            std::iter::once("fairlead-oci".into())
                .chain(words)
                .collect::<Vec<_>>()
        };
        for line in [
            "run c",
            "--root run run --bundle exec c",
            "--log f --log-format json --systemd-cgroup create --bundle /b --pid-file p c",
            "run -d c --debug --cgroup-manager disabled --keep",
            "start c",
            "state --root /r c",
            "kill --all c KILL",
            "kill c",
            "delete --force c",
            "exec -t -e A=B --user 1:2 c ls -h --help --version",
            "exec --process /p -d --pid-file p c",
            "exec c run exec create",
            "exec -- c -x",
            "exec -td=false --tty=0 -e A -e B -u 1 -u 2 c sh",
            "--root a --debug --debug=false create --root b c --root d --bundle e -b f",
        ] {
            let words = words(line);
            let short = Cli::frequent(&words).expect(line);
            let full = Cli::full(words).expect(line);
            assert_eq!(format!("{short:?}"), format!("{full:?}"), "{line}");
        }
        for line in [
            "",
            "c",
            "run",
            "run c d",
            "run --what c",
            "exec c -h",
            "run --help",
            "--version",
            "--version run c",
            "-v",
            "run --keep=maybe c",
            "checkpoint c",
            "-h",
            "list",
            "features",
            "exec c ps",
            "runs c",
        ] {
            assert!(Cli::frequent(&words(line)).is_none(), "{line}");
        }
    }

    #[test]
    fn the_log_of_words_that_make_no_sense() {
        for line in [
            "--log /f --log-format json frobnicate --log /no",
            "--log=/no --log /f --log-format=json --what create --what",
        ] {
            let words = line.split_whitespace().map(OsString::from);
            let words = std::iter::once("fairlead-oci".into()).chain(words);
            let global = Global::of_broken(words).expect(line);
            assert_eq!(global.log.as_deref(), Some("/f".as_ref()), "{line}");
            assert_eq!(global.log_format, LogFormat::Json, "{line}");
        }
    }
}
