//! How a pull goes on: a line per layer that changes on a terminal, else a line per change.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use fairlead_api::v1::pull_image_response::Event;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output::image::size;
use crate::output::progress;

/// Digits of a digest that are enough for people.
const SHORT: usize = 12;

/// What is shown of a pull, on standard error.
pub struct Pull {
    quiet: bool,
    terminal: Option<MultiProgress>,
    bars: BTreeMap<String, ProgressBar>,
}

impl Pull {
    /// Nothing has happened yet.
    pub fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && !quiet;
        Self {
            quiet,
            terminal: terminal.then(MultiProgress::new),
            bars: BTreeMap::new(),
        }
    }

    /// Something has happened.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Manifest(digest) => self.line(&format!("manifest {digest}")),
            Event::Layer(layer) if layer.here => {
                self.line(&format!("{}: here already", short(&layer.blob)));
            }
            Event::Layer(layer) => self.layer(&layer.blob, layer.size),
            Event::Progress(step) => {
                if let Some(bar) = self.bars.get(&step.blob) {
                    bar.set_position(step.bytes);
                }
            }
            Event::Unpacked(blob) => match self.bars.get(blob) {
                Some(bar) => {
                    bar.set_position(bar.length().unwrap_or_default());
                    bar.finish_with_message("done");
                }
                None => self.line(&format!("{}: done", short(blob))),
            },
            Event::Image(_) => {}
        }
    }

    /// Nothing more will happen.
    pub fn end(&mut self) {
        for bar in self.bars.values() {
            bar.abandon();
        }
    }

    fn layer(&mut self, blob: &str, bytes: u64) {
        // A blob that is two layers has one line.
        if self.bars.contains_key(blob) {
            return;
        }
        let Some(terminal) = &self.terminal else {
            self.line(&format!("{}: pulling {}", short(blob), size(bytes)));
            return;
        };
        let template = "{prefix}: {bar:30} {decimal_bytes:>10}/{decimal_total_bytes:<10} {msg}";
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let bar = ProgressBar::new(bytes).with_style(style);
        let bar = terminal.add(bar.with_prefix(short(blob).to_owned()));
        bar.tick();
        self.bars.insert(blob.to_owned(), bar);
    }

    fn line(&self, text: &str) {
        match &self.terminal {
            _ if self.quiet => {}
            // A line above the bars. That nobody may read it is no failure.
            Some(terminal) => drop(terminal.println(text)),
            None => progress(text),
        }
    }
}

fn short(digest: &str) -> &str {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    digits.get(..SHORT).unwrap_or(digits)
}
