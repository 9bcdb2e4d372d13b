//! How a pull goes on: a line per layer that changes on a terminal, else a line per change.

use std::collections::BTreeMap;

use fairlead_api::v1::pull_image_response::Event;
use indicatif::{MultiProgress, ProgressBar, ProgressFinish, ProgressStyle};

use crate::output::image::size;
use crate::output::progress;

/// Digits of a digest that are enough for people.
const SHORT: usize = 12;

/// What becomes of a layer. It is unpacked while it comes: only who has to wait for the rest of that is told.
const WAITING: &str = "waiting";
const DOWNLOADING: &str = "downloading";
const UNPACKING: &str = "unpacking";
const DONE: &str = "done";

/// What is shown of a pull, on standard error.
pub struct Pull {
    quiet: bool,
    terminal: Option<MultiProgress>,
    bars: BTreeMap<String, ProgressBar>,
}

impl Pull {
    /// Nothing has happened yet.
    pub fn new(quiet: bool) -> Self {
        // Hidden where standard error is no terminal, or one that cannot move its cursor (`TERM`).
        let terminal = MultiProgress::new();
        Self {
            quiet,
            terminal: (!quiet && !terminal.is_hidden()).then_some(terminal),
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
                    come(bar, step.bytes);
                }
            }
            Event::Unpacked(blob) => match self.bars.get(blob) {
                Some(bar) => bar.finish_with_message(DONE),
                None => self.line(&format!("{}: {DONE}", short(blob))),
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
        // A blob that is two layers has one line; and it may have to come again.
        if let Some(bar) = self.bars.get(blob) {
            bar.reset();
            bar.set_message(WAITING);
            return;
        }
        let Some(terminal) = &self.terminal else {
            self.line(&format!("{}: pulling {}", short(blob), size(bytes)));
            return;
        };
        // The bar takes what the rest leaves: some 30 of 80 columns.
        let template =
            "{prefix}: {wide_bar} {decimal_bytes:>10}/{decimal_total_bytes:<10} {msg:11}";
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        // How far a pull came that fails stays.
        let bar = ProgressBar::new(bytes)
            .with_style(style)
            .with_finish(ProgressFinish::Abandon);
        let bar = bar.with_prefix(short(blob).to_owned());
        let bar = terminal.add(bar.with_message(WAITING));
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

/// So many bytes of a layer have come.
fn come(bar: &ProgressBar, bytes: u64) {
    let state = match bar.length() {
        Some(all) if bytes >= all => UNPACKING,
        _ => DOWNLOADING,
    };
    bar.set_position(bytes);
    if bar.message() != state {
        bar.set_message(state);
        // What comes too soon after the last is not drawn, and nothing may come for long.
        bar.force_draw();
    }
}

fn short(digest: &str) -> &str {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    digits.get(..SHORT).unwrap_or(digits)
}
