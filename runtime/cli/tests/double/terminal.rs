//! A terminal: what a person sees of what a program writes.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};

/// How long a picture may take. It only bounds a failing test.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the test itself writes when the program has ended; no program writes this.
const END: char = '\u{5}';

const ROWS: u16 = 24;

/// A program with a terminal for standard output and standard error.
pub struct Terminal {
    screen: Arc<(Mutex<Screen>, Condvar)>,
    program: Child,
    /// The program's side.
    slave: File,
}

impl Terminal {
    pub fn start(mut command: Command, columns: u16) -> Self {
        let size = Winsize {
            ws_row: ROWS,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).unwrap();
        let slave = File::from(pty.slave);
        let program = command
            .stdin(Stdio::null())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave.try_clone().unwrap())
            .spawn()
            .unwrap();
        let screen = Arc::new((Mutex::new(Screen::new(columns.into())), Condvar::new()));
        let (shared, mut master) = (screen.clone(), File::from(pty.master));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The last writer may be another test's process, which has not executed its program yet.
            while !shared.0.lock().unwrap().ended {
                let Ok(count @ 1..) = master.read(&mut buffer) else {
                    return;
                };
                shared.0.lock().unwrap().write(&buffer[..count]);
                shared.1.notify_all();
            }
        });
        Self {
            screen,
            program,
            slave,
        }
    }

    /// Waits until the terminal's rows, without the empty ones at the end, are right; these rows.
    pub fn shows(&self, what: &str, right: impl Fn(&[String]) -> bool) -> Vec<String> {
        self.wait(what, |screen| right(&screen.rows()))
    }

    /// The end of the program, and what can be seen then.
    pub fn end(mut self) -> (ExitStatus, Vec<String>) {
        let status = self.program.wait().unwrap();
        write!(self.slave, "{END}").unwrap();
        (status, self.wait("the end", |screen| screen.ended))
    }

    fn wait(&self, what: &str, right: impl Fn(&Screen) -> bool) -> Vec<String> {
        let limit = Instant::now() + PATIENCE;
        let mut screen = self.screen.0.lock().unwrap();
        while !right(&screen) {
            let left = limit.saturating_duration_since(Instant::now());
            let rows = screen.rows().join("\n");
            assert!(!left.is_zero(), "{what} is not shown, but\n{rows}");
            screen = self.screen.1.wait_timeout(screen, left).unwrap().0;
        }
        screen.rows()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// What has been written, as far as programs here use a terminal; anything else fails the test.
struct Screen {
    columns: usize,
    /// Those that have left the screen too.
    rows: Vec<Vec<char>>,
    row: usize,
    /// Behind the last column a row goes on in the next one, once there is more.
    column: usize,
    /// A sequence that has begun; a character that has.
    sequence: Option<String>,
    bytes: Vec<u8>,
    ended: bool,
}

impl Screen {
    fn new(columns: usize) -> Self {
        Self {
            columns,
            rows: vec![Vec::new()],
            row: 0,
            column: 0,
            sequence: None,
            bytes: Vec::new(),
            ended: false,
        }
    }

    fn rows(&self) -> Vec<String> {
        let rows = self.rows.iter();
        let rows = rows.map(|row| row.iter().collect::<String>().trim_end().to_owned());
        let mut rows: Vec<String> = rows.collect();
        while rows.last().is_some_and(String::is_empty) {
            rows.pop();
        }
        rows
    }

    fn write(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let known = match std::str::from_utf8(&self.bytes) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let rest = self.bytes.split_off(known);
        let text = String::from_utf8(std::mem::replace(&mut self.bytes, rest)).unwrap();
        text.chars().for_each(|c| self.put(c));
    }

    fn put(&mut self, c: char) {
        if let Some(sequence) = &mut self.sequence {
            sequence.push(c);
            if c != '[' && ('@'..='~').contains(&c) {
                let sequence = self.sequence.take().unwrap();
                self.obey(&sequence);
            }
            return;
        }
        match c {
            '\u{1b}' => self.sequence = Some(String::new()),
            '\r' => self.column = 0,
            '\n' => self.down(1),
            END => self.ended = true,
            c => {
                assert!(!c.is_control(), "{c:?} is written");
                if self.column == self.columns {
                    self.column = 0;
                    self.down(1);
                }
                let row = &mut self.rows[self.row];
                let least = row.len().max(self.column + 1);
                row.resize(least, ' ');
                row[self.column] = c;
                self.column += 1;
            }
        }
    }

    fn down(&mut self, rows: usize) {
        self.row += rows;
        let least = self.rows.len().max(self.row + 1);
        self.rows.resize(least, Vec::new());
    }

    /// The sequences that move the cursor and clear a row.
    fn obey(&mut self, sequence: &str) {
        let parsed = sequence.strip_prefix('[').and_then(|rest| {
            let (number, kind) = rest.split_at(rest.len() - 1);
            let number = if number.is_empty() { "1" } else { number };
            Some((number.parse::<usize>().ok()?, kind))
        });
        match parsed {
            Some((rows, "A")) => {
                let top = self.rows.len().saturating_sub(ROWS.into());
                self.row = self.row.saturating_sub(rows).max(top);
            }
            Some((rows, "B")) => self.down(rows),
            Some((2, "K")) => self.rows[self.row].clear(),
            _ => panic!("the sequence {sequence:?} is written"),
        }
    }
}
