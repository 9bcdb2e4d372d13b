//! How a pull is shown: drawn on a terminal, told line by line elsewhere.

mod double;
#[path = "double/terminal.rs"]
mod terminal;

use std::process::Command;

use double::{Daemon, Script, stderr, stdout};
use fairlead_api::v1::{self, pull_image_response::Event};
use terminal::Terminal;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tonic::Status;

/// A pull whose events the test sends.
struct Pull {
    daemon: Daemon,
    events: UnboundedSender<Result<v1::PullImageResponse, Status>>,
}

fn digest(letter: char) -> String {
    format!("sha256:{}", letter.to_string().repeat(64))
}

impl Pull {
    fn new() -> Self {
        let (events, pull) = unbounded_channel();
        let script = Script {
            pull: Some(pull),
            ..Script::default()
        };
        let daemon = Daemon::start(script);
        Self { daemon, events }
    }

    fn command(&self, more: &[&str]) -> Command {
        let arguments = [&["image", "pull", "web:1"], more].concat();
        let mut command = self.daemon.command(&arguments);
        command.env("TERM", "xterm");
        command
    }

    fn send(&self, event: Event) {
        let event = Some(event);
        let response = v1::PullImageResponse { event };
        self.events.send(Ok(response)).unwrap();
    }

    fn layer(&self, letter: char, size: u64, here: bool) {
        let blob = digest(letter);
        self.send(Event::Layer(v1::LayerFound { blob, size, here }));
    }

    fn progress(&self, letter: char, bytes: u64) {
        let blob = digest(letter);
        self.send(Event::Progress(v1::LayerProgress { blob, bytes }));
    }

    fn unpacked(&self, letter: char) {
        self.send(Event::Unpacked(digest(letter)));
    }

    fn image(&self) {
        let id = digest('f');
        self.send(Event::Image(v1::Image {
            id,
            ..Default::default()
        }));
    }

    /// A pull that goes well, all of it.
    fn whole(&self) {
        self.send(Event::Manifest(digest('0')));
        self.layer('a', 1_000_000, true);
        self.layer('b', 10_000_000, false);
        self.progress('b', 5_000_000);
        self.progress('b', 10_000_000);
        self.unpacked('b');
        self.image();
    }
}

/// What [`Pull::whole`] is, line by line.
fn lines() -> String {
    format!(
        "manifest {}\naaaaaaaaaaaa: here already\nbbbbbbbbbbbb: pulling 10.0MB\nbbbbbbbbbbbb: done\n",
        digest('0')
    )
}

/// The columns of a row that the bar does not take.
const REST: usize = "bbbbbbbbbbbb:   10.00 MB /10.00 MB   downloading".len();

/// The bar and the bytes in a layer's row.
fn parts(row: &str, columns: usize) -> (&str, &str) {
    let (_, rest) = row.split_once(": ").unwrap();
    let (bar, rest) = rest.split_at(columns - REST);
    let (bytes, _state) = rest.rsplit_once(' ').unwrap();
    (bar, bytes.trim())
}

#[test]
fn a_layer_has_one_row_that_changes_and_is_as_wide_as_the_terminal() {
    for columns in [60, 80, 133] {
        let pull = Pull::new();
        let terminal = Terminal::start(pull.command(&[]), columns);
        let width = usize::from(columns);
        pull.send(Event::Manifest(digest('0')));
        pull.layer('a', 1_000_000, true);
        pull.layer('b', 10_000_000, false);
        pull.layer('c', 2_000, false);
        // What is only told comes first, and may be longer than a row.
        let told = (9 + digest('0').len()).div_ceil(width) + 1;
        let step = |what: &str, right: &dyn Fn(&str, &str) -> bool| {
            let rows = terminal.shows(&format!("{what} in {columns} columns"), |rows| {
                rows.len() == told + 2 && right(&rows[told], &rows[told + 1])
            });
            assert!(rows[0].starts_with("manifest sha256:0000"), "{rows:?}");
            assert_eq!(rows[told - 1], "aaaaaaaaaaaa: here already");
            assert!(rows[told].starts_with("bbbbbbbbbbbb: "), "{rows:?}");
            assert!(rows[told + 1].starts_with("cccccccccccc: "), "{rows:?}");
            rows[told..].to_vec()
        };
        step("what is wanted", &|b, c| {
            b.ends_with(" 0 B/10.00 MB   waiting") && c.ends_with(" 0 B/2.00 kB    waiting")
        });
        pull.progress('b', 5_000_000);
        let rows = step("the half", &|b, c| {
            b.ends_with("downloading") && c.ends_with("waiting")
        });
        let (bar, bytes) = parts(&rows[0], width);
        assert_eq!(rows[0].chars().count(), width, "{rows:?}");
        assert_eq!(bytes, "5.00 MB/10.00 MB");
        let filled = bar.trim_end().len();
        assert!(filled.abs_diff(bar.len() / 2) <= 1, "{rows:?}");
        assert_eq!(bar.trim_end(), format!("{}>", "=".repeat(filled - 1)));

        pull.progress('b', 10_000_000);
        let rows = step("all", &|b, _| b.ends_with("unpacking"));
        let (bar, bytes) = parts(&rows[0], width);
        assert_eq!(bytes, "10.00 MB/10.00 MB");
        assert_eq!(bar, "=".repeat(bar.len()));
        pull.unpacked('b');
        step("the end of one", &|b, c| {
            b.ends_with("done") && c.ends_with("waiting")
        });
        pull.progress('c', 2_000);
        pull.unpacked('c');
        pull.image();
        let (status, rows) = terminal.end();
        assert!(status.success());
        // A digest too may be longer than a row.
        let id = digest('f').len().div_ceil(width);
        assert_eq!(rows.len(), told + 2 + id, "{rows:?}");
        assert!(rows[told..told + 2].iter().all(|row| row.ends_with("done")));
        assert_eq!(rows[told + 2..].concat(), digest('f'));
    }
}

/// Nothing fits into a row there, and still nothing is shown twice.
#[test]
fn a_narrow_terminal_has_each_layer_once() {
    let pull = Pull::new();
    let terminal = Terminal::start(pull.command(&[]), 30);
    for letter in ['b', 'c'] {
        pull.layer(letter, 10_000_000, false);
    }
    for bytes in 1..10 {
        pull.progress('b', bytes * 1_000_000);
        terminal.shows("some more", |rows| {
            rows.concat().contains(&format!("{bytes}.00 MB/"))
        });
    }
    for letter in ['b', 'c'] {
        pull.unpacked(letter);
    }
    pull.image();
    let (status, rows) = terminal.end();
    assert!(status.success());
    let text = rows.concat();
    for once in ["bbbbbbbbbbbb", "cccccccccccc", &digest('f')] {
        assert_eq!(text.matches(once).count(), 1, "{rows:?}");
    }
    assert_eq!(text.matches("done").count(), 2, "{rows:?}");
}

#[test]
fn how_far_a_pull_came_that_fails_stays() {
    let pull = Pull::new();
    let terminal = Terminal::start(pull.command(&[]), 80);
    pull.layer('b', 10_000_000, false);
    pull.layer('c', 2_000, false);
    pull.progress('b', 5_000_000);
    pull.progress('c', 2_000);
    pull.unpacked('c');
    let failed = Status::unavailable("gone");
    pull.events.send(Err(failed)).unwrap();
    let (status, rows) = terminal.end();
    assert_eq!(status.code(), Some(1), "{rows:?}");
    assert!(rows[0].ends_with("downloading"), "{rows:?}");
    assert!(rows[1].ends_with("done"), "{rows:?}");
    assert!(rows[2].starts_with("fairlead: cannot pull `web:1` at "));
    assert!(rows[2..].concat().ends_with("gone"), "{rows:?}");
}

#[test]
fn what_is_no_terminal_gets_a_line_for_each_change() {
    let pull = Pull::new();
    pull.whole();
    let output = pull.command(&[]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(stdout(&output), format!("{}\n", digest('f')));
    assert_eq!(stderr(&output), lines());
    for more in [&["--quiet"][..], &["--format", "json"]] {
        let pull = Pull::new();
        pull.whole();
        let output = pull.command(more).output().unwrap();
        assert!(output.status.success(), "{more:?}");
        assert!(stdout(&output).contains(&digest('f')), "{more:?}");
        assert_eq!(stderr(&output), "", "{more:?}");
    }
}

/// A terminal that cannot move its cursor shows the same.
#[test]
fn a_dumb_terminal_gets_lines() {
    for terminal in [Some("dumb"), None] {
        let pull = Pull::new();
        pull.whole();
        let mut command = pull.command(&[]);
        match terminal {
            Some(terminal) => command.env("TERM", terminal),
            None => command.env_remove("TERM"),
        };
        let (status, rows) = Terminal::start(command, 100).end();
        assert!(status.success());
        let all = format!("{}{}", lines(), digest('f'));
        assert_eq!(rows.join("\n"), all, "{terminal:?}");
    }
}
