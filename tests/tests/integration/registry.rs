//! A registry in the first node's own namespace, and a line to it that can stop.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fairlead_tests::{Background, Cluster, inside, try_sh, wait_for};

/// Where the node finds it.
pub(crate) const REGISTRY: &str = "127.0.0.1:5000";

/// Who may use it, where not everybody may, and the password.
pub(crate) const USER: &str = "me";
pub(crate) const PASSWORD: &str = "pass:word";

/// Both as `htpasswd -B` writes them.
const HTPASSWD: &str = "me:$2b$05$fairleadfairleadfairleMp6Xu3jRsxA1wuE77CWGxPm2PzZ2LTS\n";

/// A registry that ends with this.
pub(crate) struct Registry {
    netns: PathBuf,
    dir: PathBuf,
    locked: bool,
    served: Option<Background>,
}

impl Registry {
    /// One that anybody may use, with the test's image in it as `web:1`.
    pub(crate) fn new(cluster: &Cluster) -> Self {
        Self::serve(cluster, false)
    }

    /// The same for [`USER`] alone.
    pub(crate) fn locked(cluster: &Cluster) -> Self {
        Self::serve(cluster, true)
    }

    fn serve(cluster: &Cluster, locked: bool) -> Self {
        let mut registry = Self {
            netns: cluster.node(1).netns.clone(),
            dir: cluster.dir(),
            locked,
            served: None,
        };
        registry.start();
        registry.push(cluster, "web:1");
        registry
    }

    /// Serves what it has.
    pub(crate) fn start(&mut self) {
        let config = self.dir.join("registry.yaml");
        let mut text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"{REGISTRY}\"}}\n",
            self.dir.join("registry").display()
        );
        if self.locked {
            let file = self.dir.join("htpasswd");
            fs::write(&file, HTPASSWD).expect("who may use the registry");
            let file = file.display();
            text += &format!("auth: {{htpasswd: {{realm: mine, path: {file}}}}}\n");
        }
        fs::write(&config, text).expect("the registry's configuration");
        let config = config.to_str().expect("UTF-8");
        let serve = ["docker-registry", "serve", config];
        let log = self.dir.join("registry.log");
        self.served = Some(Background::start(&self.netns, &log, &serve));
    }

    /// Ends it; what it has stays.
    pub(crate) fn end(&mut self) {
        self.served.take().expect("it serves").end();
    }

    /// Makes an image of the cluster's root file system as it is now, and gives it a name there.
    pub(crate) fn push(&self, cluster: &Cluster, name: &str) {
        let archive = cluster.archive();
        let credentials = match self.locked {
            true => format!("--dest-creds {USER}:{PASSWORD}"),
            false => String::new(),
        };
        let copy = format!(
            "nsenter --net={} skopeo --insecure-policy copy -q --dest-tls-verify=false {credentials} \
             docker-archive:{} docker://{REGISTRY}/{name} 2>&1",
            self.netns.display(),
            archive.display()
        );
        wait_for("the registry takes the image", || try_sh(&copy));
    }
}

/// A line to [`REGISTRY`] that carries so many bytes of its answers, and then nothing until it is opened.
/// It knows what was asked for.
pub(crate) struct Line {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// Where the line begins.
pub(crate) const LINE: &str = "127.0.0.1:5001";

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Bytes that may pass yet; `None`: all.
    left: Option<usize>,
    /// The end of a path, and what is left once that is asked for.
    hold: Option<(String, usize)>,
    asked: Vec<Asked>,
    /// Answers that wait.
    waiting: usize,
    over: bool,
    streams: Vec<TcpStream>,
}

/// A request.
struct Asked {
    path: String,
    /// The byte that it wants to begin with.
    offset: u64,
}

impl Asked {
    fn parse(head: &str) -> Option<Self> {
        let mut lines = head.lines();
        let path = lines.next()?.split(' ').nth(1)?.to_owned();
        let range = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_range = name.eq_ignore_ascii_case("range");
            is_range.then(|| value.trim().to_owned())
        });
        let offset = match range {
            None => 0,
            Some(range) => range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()?,
        };
        Some(Self { path, offset })
    }
}

impl Line {
    pub(crate) fn new(cluster: &Cluster, bytes: usize) -> Self {
        let listener = inside(&cluster.node(1).netns, || TcpListener::bind(LINE));
        let listener = listener.expect("the line's address is free");
        listener.set_nonblocking(true).expect("a socket");
        let shared = Arc::new(Shared::default());
        shared.state().left = Some(bytes);
        let (own, netns) = (Arc::clone(&shared), cluster.node(1).netns.clone());
        let acceptor = thread::spawn(move || {
            // Those that it starts are there too.
            fairlead_tests::tools::enter(&netns);
            while !own.state().over {
                match listener.accept() {
                    Ok((stream, _)) => own.serve(stream),
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Self {
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Waits until an answer is held up.
    pub(crate) fn await_stop(&self) {
        wait_for("an answer of the registry that is held up", || {
            let state = self.shared.state();
            match state.waiting > 0 && state.left == Some(0) {
                true => Ok(()),
                false => Err(format!("{:?} bytes may pass yet", state.left)),
            }
        });
    }

    /// So many more bytes pass, or all of them.
    pub(crate) fn pass(&self, bytes: Option<usize>) {
        self.shared.state().left = bytes;
        self.shared.changed.notify_all();
    }

    /// Once a path is asked for that ends with this, so many more bytes pass, and then nothing. (They are to
    /// be of that answer: nobody else may use the line then.)
    pub(crate) fn hold_at(&self, path: &str, bytes: usize) {
        let mut state = self.shared.state();
        state.asked.clear();
        state.hold = Some((path.to_owned(), bytes));
    }

    /// The bytes that requests wanted to begin with since [`Line::hold_at`], of paths that end with this.
    pub(crate) fn offsets(&self, path: &str) -> Vec<u64> {
        let state = self.shared.state();
        let of_path = |asked: &&Asked| asked.path.ends_with(path);
        let asked = state.asked.iter().filter(of_path);
        asked.map(|asked| asked.offset).collect()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.over = true;
        for stream in &state.streams {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(self: &Arc<Self>, client: TcpStream) {
        // Who hangs up early has its reasons.
        let Ok(server) = TcpStream::connect(REGISTRY) else {
            return;
        };
        let copies = || Some((client.try_clone().ok()?, server.try_clone().ok()?));
        let (Some((from, to)), Some((first, second))) = (copies(), copies()) else {
            return;
        };
        let mut state = self.state();
        state.streams.extend([first, second]);
        drop(state);
        let own = Arc::clone(self);
        thread::spawn(move || {
            let _ = own.ask(&from, &to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let own = Arc::clone(self);
        thread::spawn(move || {
            let _ = own.carry(&server, &client);
            let _ = client.shutdown(Shutdown::Write);
        });
    }

    /// Carries requests, and notes them before the registry has them.
    fn ask(&self, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        let (mut buffer, mut head) = (vec![0; 16 << 10], Vec::new());
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            head.extend_from_slice(&buffer[..count]);
            // Who pulls sends no bodies, and nothing before the last answer is there. What is no HTTP (TLS,
            // which is tried first) does not end so.
            if head.ends_with(b"\r\n\r\n") {
                self.note(&String::from_utf8_lossy(&head));
                head.clear();
            }
            to.write_all(&buffer[..count])?;
        }
    }

    fn note(&self, head: &str) {
        let Some(asked) = Asked::parse(head) else {
            return;
        };
        let mut state = self.state();
        let held = state
            .hold
            .take_if(|(path, _)| asked.path.ends_with(&**path));
        if let Some((_, bytes)) = held {
            state.left = Some(bytes);
        }
        state.asked.push(asked);
    }

    /// Carries answers, as far as they may pass.
    fn carry(&self, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let count = from.read(&mut buffer)?;
            let mut rest = &buffer[..count];
            if rest.is_empty() {
                return Ok(());
            }
            while !rest.is_empty() {
                let Some(some) = self.take(rest.len()) else {
                    return Ok(());
                };
                to.write_all(&rest[..some])?;
                rest = &rest[some..];
            }
        }
    }

    /// Waits until some of `wanted` bytes may pass; how many. `None` when the line has ended.
    fn take(&self, wanted: usize) -> Option<usize> {
        let mut state = self.state();
        state.waiting += 1;
        let waited = self
            .changed
            .wait_while(state, |state| state.left == Some(0) && !state.over);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        if state.over {
            return None;
        }
        let some = state.left.map_or(wanted, |left| left.min(wanted));
        state.left = state.left.map(|left| left - some);
        Some(some)
    }
}
