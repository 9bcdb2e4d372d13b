//! systemd, as far as it is asked for units.

use crate::bus::{Bus, CallError, Method};
use crate::error::{Result, SystemdError};
use crate::hold::Held;
use crate::property::{self, Machine, Property};
use crate::unit::UnitPath;
use crate::wire::Value;
use crate::{annotation, user};
use container::cgroup::Layout;
use container::{CgroupPath, defaults};
use oci_spec::runtime::{LinuxResources, Spec};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a job may take. Starting a scope is a matter of milliseconds, but a machine that boots
/// has other jobs too.
const PATIENCE: Duration = Duration::from_secs(30);

const SYSTEMD: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const BUS: &str = "org.freedesktop.DBus";

/// A connection to the service manager: the machine's, or an ordinary user's.
#[derive(Debug)]
pub struct Manager {
    bus: Bus,
    socket: String,
    /// As in `systemctl --version`; 0 when it cannot be told.
    version: u32,
    /// Its own cgroup, in which the slices are.
    root: PathBuf,
    subscribed: bool,
    /// Whether a bus is between, which must be told what signals are wanted.
    over_bus: bool,
}

impl Manager {
    /// Connects: to systemd's own socket, which needs no bus and is there first; else over the bus.
    ///
    /// # Errors
    /// [`SystemdError::Absent`] when nobody answers.
    pub fn connect() -> Result<Self> {
        let mut tried = Vec::new();
        for (socket, over_bus) in sockets() {
            match Bus::connect(&socket) {
                Ok(bus) => return Self::greet(bus, socket, over_bus),
                Err(error) => tried.push(format!("{}: {error}", socket.replace('\0', "@"))),
            }
        }
        if tried.is_empty() {
            tried.push("neither XDG_RUNTIME_DIR nor DBUS_SESSION_BUS_ADDRESS is set".into());
        }
        Err(SystemdError::Absent {
            tried: tried.join(", "),
        })
    }

    fn greet(bus: Bus, socket: String, over_bus: bool) -> Result<Self> {
        let mut manager = Self {
            bus,
            socket: socket.replace('\0', "@"),
            version: 0,
            root: PathBuf::new(),
            subscribed: false,
            over_bus,
        };
        if over_bus {
            manager.call_bus("Hello", &[])?;
        }
        let version = manager.get("Version")?;
        manager.version = number(&version);
        let root = manager.get("ControlGroup")?;
        manager.root = root.trim_start_matches('/').into();
        Ok(manager)
    }

    /// Where systemd puts this unit's cgroup.
    ///
    /// # Errors
    /// systemd is not in what is mounted here.
    pub fn cgroup(&self, unit: &UnitPath) -> Result<CgroupPath> {
        let parents = format!("/{}", unit.parents()?.to_string_lossy());
        let mut path = CgroupPath::new(parents, &unit.unit);
        for hierarchy in &Layout::detect()?.hierarchies {
            // What systemd says begins at the root of the hierarchy, or of its namespace.
            let own = Path::new("/").join(&self.root);
            let below = own.strip_prefix(&hierarchy.root).unwrap_or(&self.root);
            if !below.as_os_str().is_empty() {
                let base = format!("/{}", below.to_string_lossy());
                path.bases.insert(hierarchy.name(), base);
            }
        }
        Ok(path)
    }

    /// Makes the unit, with the limits of the specification that systemd knows as its properties,
    /// and waits until it is there. The rest of the limits is
    /// [`Cgroup`](container::Cgroup)'s matter. A unit that failed before under this name is
    /// forgotten.
    ///
    /// # Errors
    /// systemd refuses, or is not done in time: then nothing of it stays.
    pub fn start(&mut self, unit: &UnitPath, id: &str, spec: &Spec) -> Result<Held> {
        let resources = spec.linux().as_ref().and_then(|l| l.resources().clone());
        let resources = defaults::with_devices(&resources.unwrap_or_default());
        let machine = self.machine()?;
        let mut properties = property::fixed(unit, id, &machine);
        properties.extend(property::of_resources(&resources, &machine)?);
        for property in annotation::properties(spec.annotations().as_ref())? {
            // What the operator says counts, above all against what is only a default.
            properties.retain(|known| known.name != property.name);
            properties.push(property);
        }
        let held = match unit.is_slice() {
            true => Held::nobody(),
            false => Held::new(&unit.unit)?,
        };
        if let Some(pid) = held.pid() {
            let pids = Value::Array("u".into(), vec![Value::U32(pid)]);
            properties.push(Property::new("PIDs", pids));
        }
        let step = format!("start unit {} in {}", unit.unit, unit.slice);
        let body = [
            Value::text(&unit.unit),
            Value::text("fail"),
            property::list(properties),
            Value::Array("(sa(sv))".into(), Vec::new()),
        ];
        self.subscribe()?;
        let mut job = self.ask("StartTransientUnit", &body, &step);
        if matches!(&job, Err(SystemdError::Refused { name, .. }) if name.ends_with(".UnitExists"))
        {
            // One that has failed stays, with nothing in it, until somebody says so.
            self.reset(unit)?;
            job = self.ask("StartTransientUnit", &body, &step);
        }
        let ended = self.finish("start", &unit.unit, &job?);
        if ended.is_err() {
            // The error that led here is the one to report.
            drop(held);
            let _ = self.stop(unit);
            return ended.map(|()| Held::nobody());
        }
        Ok(held)
    }

    /// Changes the limits of a unit that systemd knows; what is not given stays.
    ///
    /// # Errors
    /// systemd refuses.
    pub fn update(&mut self, unit: &UnitPath, resources: &LinuxResources) -> Result<()> {
        let machine = self.machine()?;
        let properties = property::of_resources(resources, &machine)?;
        if properties.is_empty() {
            return Ok(());
        }
        let step = format!("set limits of unit {}", unit.unit);
        let body = [
            Value::text(&unit.unit),
            Value::Bool(true), // until the unit ends
            property::list(properties),
        ];
        self.ask("SetUnitProperties", &body, &step).map(drop)
    }

    /// Stops the unit, and waits for that; what is left of one that failed is forgotten. A unit
    /// that is gone is no error.
    ///
    /// # Errors
    /// systemd refuses, or is not done in time.
    pub fn stop(&mut self, unit: &UnitPath) -> Result<()> {
        self.subscribe()?;
        let step = format!("stop unit {}", unit.unit);
        let body = [Value::text(&unit.unit), Value::text("replace")];
        match self.ask("StopUnit", &body, &step) {
            Err(error) if is_gone(&error) => {}
            job => self.finish("stop", &unit.unit, &job?)?,
        }
        self.reset(unit)
    }

    fn reset(&mut self, unit: &UnitPath) -> Result<()> {
        let step = format!("reset unit {}", unit.unit);
        match self.ask("ResetFailedUnit", &[Value::text(&unit.unit)], &step) {
            Err(error) if !is_gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// So that the end of jobs is told.
    fn subscribe(&mut self) -> Result<()> {
        if self.subscribed {
            return Ok(());
        }
        if self.over_bus {
            let rule = format!("type='signal',sender='{SYSTEMD}',member='JobRemoved'");
            self.call_bus("AddMatch", &[Value::text(rule)])?;
        }
        match self.ask("Subscribe", &[], "subscribe to jobs") {
            Err(SystemdError::Refused { name, .. }) if name.ends_with(".AlreadySubscribed") => {}
            result => drop(result?),
        }
        self.subscribed = true;
        Ok(())
    }

    /// Waits for the end of a job.
    fn finish(&mut self, action: &'static str, unit: &str, job: &[Value]) -> Result<()> {
        let Some(job) = job.first().and_then(Value::as_text) else {
            return Err(self.broken(action, ErrorKind::InvalidData.into()));
        };
        let deadline = Instant::now() + PATIENCE;
        // Number, object, unit, how it ended.
        let ended = self.bus.wait("JobRemoved", deadline, |body| match body {
            [_, object, _, result] if object.as_text() == Some(job) => {
                Some(result.as_text().unwrap_or_default().to_owned())
            }
            _ => None,
        });
        match ended {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => Err(SystemdError::Job {
                action,
                unit: unit.into(),
                result,
            }),
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(SystemdError::Slow {
                action,
                unit: unit.into(),
                waited: PATIENCE,
            }),
            Err(error) => Err(self.broken(action, error)),
        }
    }

    fn machine(&self) -> Result<Machine> {
        Ok(Machine::new(self.version, &Layout::detect()?))
    }

    /// A property of the manager itself, as text.
    fn get(&mut self, name: &str) -> Result<String> {
        let body = [Value::text(MANAGER), Value::text(name)];
        let method = Method {
            destination: SYSTEMD,
            path: OBJECT,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
        };
        let answer = self.call(method, &body, &format!("ask for its {name}"))?;
        let text = answer.first().and_then(Value::as_text);
        Ok(text.unwrap_or_default().into())
    }

    fn ask(&mut self, member: &str, body: &[Value], step: &str) -> Result<Vec<Value>> {
        let method = Method {
            destination: SYSTEMD,
            path: OBJECT,
            interface: MANAGER,
            member,
        };
        self.call(method, body, step)
    }

    /// To the bus itself.
    fn call_bus(&mut self, member: &str, body: &[Value]) -> Result<Vec<Value>> {
        let method = Method {
            destination: BUS,
            path: "/org/freedesktop/DBus",
            interface: BUS,
            member,
        };
        self.call(method, body, "join the bus")
    }

    fn call(&mut self, method: Method<'_>, body: &[Value], step: &str) -> Result<Vec<Value>> {
        match self.bus.call(method, body) {
            Ok(answer) => Ok(answer),
            Err(CallError::Io(error)) => Err(self.broken(step, error)),
            Err(CallError::Refused { name, message }) => Err(SystemdError::Refused {
                step: step.into(),
                name,
                message,
            }),
        }
    }

    fn broken(&self, step: &str, source: io::Error) -> SystemdError {
        SystemdError::Conversation {
            step: step.into(),
            socket: self.socket.clone(),
            source,
        }
    }
}

fn is_gone(error: &SystemdError) -> bool {
    matches!(error, SystemdError::Refused { name, .. } if name.ends_with(".NoSuchUnit"))
}

/// Where systemd may be, each with whether a bus is there.
fn sockets() -> Vec<(String, bool)> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    if !user::is_ordinary() {
        let bus = variable("DBUS_SYSTEM_BUS_ADDRESS");
        let bus = bus.and_then(|address| path_of(&address));
        return vec![
            ("/run/systemd/private".into(), false),
            (bus.unwrap_or("/run/dbus/system_bus_socket".into()), true),
        ];
    }
    let mut sockets = Vec::new();
    let directory = variable("XDG_RUNTIME_DIR");
    if let Some(directory) = &directory {
        sockets.push((format!("{directory}/systemd/private"), false));
    }
    let address = variable("DBUS_SESSION_BUS_ADDRESS").and_then(|address| path_of(&address));
    let default = directory.map(|directory| format!("{directory}/bus"));
    sockets.extend(address.or(default).map(|bus| (bus, true)));
    sockets
}

/// The socket of an address such as `unix:path=/run/bus,guid=...` or `unix:abstract=...`; of
/// several, the first that is one.
fn path_of(address: &str) -> Option<String> {
    address.split(';').find_map(|address| {
        let mut keys = address.strip_prefix("unix:")?.split(',');
        keys.find_map(|key| {
            let path = key.strip_prefix("path=").map(unescape);
            let name = key.strip_prefix("abstract=").map(unescape);
            path.or_else(|| name.map(|name| format!("\0{name}")))
        })
    })
}

/// `%` and two hexadecimal digits for what is no letter, digit or one of `-_/.\*`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let code = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match code.filter(|_| *first == b'%') {
            Some(code) => {
                bytes.push(code);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The number in `252.38-1~deb12u1`, or in `v245`.
fn number(version: &str) -> u32 {
    let digits = version.trim_start_matches('v');
    let end = digits.find(|c: char| !c.is_ascii_digit());
    let digits = end.and_then(|end| digits.get(..end)).unwrap_or(digits);
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let path = |address| path_of(address).expect(address);
        assert_eq!(path("unix:path=/run/user/1/bus"), "/run/user/1/bus");
        assert_eq!(path("unix:guid=1,path=/a%20b"), "/a b");
        assert_eq!(path("tcp:host=x;unix:abstract=/tmp/x"), "\0/tmp/x");
        assert_eq!(unescape("100%"), "100%");
        assert!(path_of("tcp:host=x").is_none());
        assert!(path_of("").is_none());
    }

    #[test]
    fn versions() {
        assert_eq!(number("252.38-1~deb12u1"), 252);
        assert_eq!(number("v245"), 245);
        assert_eq!(number("257"), 257);
        assert_eq!(number("x"), 0);
    }
}
