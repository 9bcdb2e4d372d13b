//! The options of `ipvsadm`.

/// What is to be done: the first option of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    AddService,
    EditService,
    DeleteService,
    Clear,
    Zero,
    AddServer,
    EditServer,
    DeleteServer,
    SetTimeouts,
    StartDaemon,
    StopDaemon,
    /// Something that changes nothing: listing, saving, help.
    Passive,
}

/// What an option means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Command(Command),
    Tcp,
    Udp,
    Sctp,
    Mark,
    V6,
    Scheduler,
    SchedulerFlags,
    Persistent,
    Netmask,
    Engine,
    OnePacket,
    Server,
    Masquerade,
    Tunnel,
    Route,
    Weight,
    Upper,
    Lower,
    TunnelType,
    TunnelPort,
    TunnelNoChecksum,
    TunnelChecksum,
    TunnelRemoteChecksum,
    SyncId,
    SyncLength,
    Interface,
    Group,
    Port,
    Ttl,
    /// How a list is shown, which says nothing here.
    Display,
}

/// Whether an option has a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    None,
    Required,
    /// Taken if the next word is no option.
    Optional,
}

/// One option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) long: &'static str,
    pub(super) short: Option<char>,
    pub(super) key: Key,
    pub(super) value: Value,
}

impl Spec {
    pub(super) fn by_long(name: &str) -> Option<&'static Self> {
        OPTIONS.iter().find(|option| option.long == name)
    }

    pub(super) fn by_short(letter: char) -> Option<&'static Self> {
        OPTIONS.iter().find(|option| option.short == Some(letter))
    }

    /// Whether a command takes the option.
    pub(super) fn fits(&self, command: Command) -> bool {
        use Command as C;
        use Key as K;
        let service = [C::AddService, C::EditService].contains(&command);
        let server = [C::AddServer, C::EditServer].contains(&command);
        match self.key {
            K::Command(_) | K::Display => false,
            K::Tcp | K::Udp | K::Sctp | K::Mark | K::V6 => {
                service || server || [C::DeleteService, C::DeleteServer, C::Zero].contains(&command)
            }
            K::Scheduler
            | K::SchedulerFlags
            | K::Persistent
            | K::Netmask
            | K::Engine
            | K::OnePacket => service,
            K::Server => server || command == C::DeleteServer,
            K::Masquerade
            | K::Tunnel
            | K::Route
            | K::Weight
            | K::Upper
            | K::Lower
            | K::TunnelType
            | K::TunnelPort
            | K::TunnelNoChecksum
            | K::TunnelChecksum
            | K::TunnelRemoteChecksum => server,
            K::SyncId => [C::StartDaemon, C::StopDaemon].contains(&command),
            K::SyncLength | K::Interface | K::Group | K::Port | K::Ttl => command == C::StartDaemon,
        }
    }
}

const fn option(long: &'static str, short: char, key: Key, value: Value) -> Spec {
    Spec {
        long,
        short: if short == ' ' { None } else { Some(short) },
        key,
        value,
    }
}

const fn command(long: &'static str, short: char, command: Command) -> Spec {
    option(long, short, Key::Command(command), Value::None)
}

/// All options, as `ipvsadm -h` lists them.
const OPTIONS: &[Spec] = &[
    command("add-service", 'A', Command::AddService),
    command("edit-service", 'E', Command::EditService),
    command("delete-service", 'D', Command::DeleteService),
    command("clear", 'C', Command::Clear),
    command("zero", 'Z', Command::Zero),
    command("add-server", 'a', Command::AddServer),
    command("edit-server", 'e', Command::EditServer),
    command("delete-server", 'd', Command::DeleteServer),
    command("set", ' ', Command::SetTimeouts),
    option(
        "start-daemon",
        ' ',
        Key::Command(Command::StartDaemon),
        Value::Required,
    ),
    option(
        "stop-daemon",
        ' ',
        Key::Command(Command::StopDaemon),
        Value::Required,
    ),
    command("list", 'L', Command::Passive),
    command("list", 'l', Command::Passive),
    command("save", 'S', Command::Passive),
    command("restore", 'R', Command::Passive),
    command("help", 'h', Command::Passive),
    command("version", 'v', Command::Passive),
    option("tcp-service", 't', Key::Tcp, Value::Required),
    option("udp-service", 'u', Key::Udp, Value::Required),
    option("sctp-service", ' ', Key::Sctp, Value::Required),
    option("fwmark-service", 'f', Key::Mark, Value::Required),
    option("ipv6", '6', Key::V6, Value::None),
    option("scheduler", 's', Key::Scheduler, Value::Required),
    option("sched-flags", 'b', Key::SchedulerFlags, Value::Required),
    option("persistent", 'p', Key::Persistent, Value::Optional),
    option("netmask", 'M', Key::Netmask, Value::Required),
    option("pe", ' ', Key::Engine, Value::Required),
    option("ops", 'o', Key::OnePacket, Value::None),
    option("real-server", 'r', Key::Server, Value::Required),
    option("masquerading", 'm', Key::Masquerade, Value::None),
    option("ipip", 'i', Key::Tunnel, Value::None),
    option("gatewaying", 'g', Key::Route, Value::None),
    option("weight", 'w', Key::Weight, Value::Required),
    option("u-threshold", 'x', Key::Upper, Value::Required),
    option("l-threshold", 'y', Key::Lower, Value::Required),
    option("tun-type", ' ', Key::TunnelType, Value::Required),
    option("tun-port", ' ', Key::TunnelPort, Value::Required),
    option("tun-nocsum", ' ', Key::TunnelNoChecksum, Value::None),
    option("tun-csum", ' ', Key::TunnelChecksum, Value::None),
    option("tun-remcsum", ' ', Key::TunnelRemoteChecksum, Value::None),
    option("syncid", ' ', Key::SyncId, Value::Required),
    option("sync-maxlen", ' ', Key::SyncLength, Value::Required),
    option("mcast-interface", ' ', Key::Interface, Value::Required),
    option("mcast-group", ' ', Key::Group, Value::Required),
    option("mcast-port", ' ', Key::Port, Value::Required),
    option("mcast-ttl", ' ', Key::Ttl, Value::Required),
    option("numeric", 'n', Key::Display, Value::None),
    option("connection", 'c', Key::Display, Value::None),
    option("timeout", ' ', Key::Display, Value::None),
    option("daemon", ' ', Key::Display, Value::None),
    option("stats", ' ', Key::Display, Value::None),
    option("rate", ' ', Key::Display, Value::None),
    option("thresholds", ' ', Key::Display, Value::None),
    option("persistent-conn", ' ', Key::Display, Value::None),
    option("tun-info", ' ', Key::Display, Value::None),
    option("nosort", ' ', Key::Display, Value::None),
    option("sort", ' ', Key::Display, Value::None),
    option("exact", 'X', Key::Display, Value::None),
];
