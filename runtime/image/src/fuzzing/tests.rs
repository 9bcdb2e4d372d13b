//! The fuzzers' corpus, spoiled a little, and layers of random decisions: the same in each run.

use std::{cmp::Reverse, collections::BTreeMap, env, fs, thread};

use tempfile::TempDir;

use super::*;

/// xorshift: good enough to spoil things, and the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    /// Some changes of a few bytes each, as fuzzers make them. What is long may be made of blocks: then mostly
    /// whole ones come and go.
    fn spoil(&mut self, seed: &[u8]) -> Vec<u8> {
        const BLOCK: usize = 512;
        let mut bytes = seed.to_vec();
        let grain = match seed.len() >= 2 * BLOCK && self.below(8) != 0 {
            true => BLOCK,
            false => 1,
        };
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let start = at - at % grain;
            match self.below(5) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = b"\0\xff./:@-0\"{}[],"[self.below(14)],
                2 => bytes.truncate(start),
                3 if grain == 1 => bytes.insert(at, self.below(256) as u8),
                _ => {
                    let length = self.below(600).next_multiple_of(grain);
                    let end = (start + length).min(bytes.len());
                    let piece = bytes[start..end].to_vec();
                    let to = self.below(bytes.len());
                    let to = to - to % grain;
                    bytes.splice(to..to, piece);
                }
            }
        }
        bytes
    }
}

/// The corpus of a fuzzer.
fn seeds(of: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(of);
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("a corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read(path).expect("a seed"))
        .collect()
}

fn each(of: &str, rounds: usize, mut test: impl FnMut(&[u8])) {
    let mut random = Random(5);
    for seed in seeds(of) {
        test(&seed);
        for _ in 0..rounds {
            test(&random.spoil(&seed));
        }
    }
}

#[test]
fn any_text_is_read_or_refused() {
    each("text", 3000, |bytes| {
        bytes
            .split(|b| *b == b'\n')
            .for_each(|line| text(&String::from_utf8_lossy(line)));
        text(&String::from_utf8_lossy(bytes));
    });
}

#[test]
fn any_documents_are_planned_or_refused() {
    each("documents", 3000, documents);
}

#[test]
fn any_layer_is_unpacked_or_refused_and_nothing_else_is_touched() {
    let folder = folder();
    let mut told = Told::default();
    let mut random = Random(11);
    each("layer", 300, |bytes| {
        let mut bytes = bytes.to_vec();
        // Else little that is spoiled gets past a header's checksum.
        if random.below(4) != 0 {
            mend(&mut bytes);
        }
        let shown = Shown(&bytes);
        told.count(layer(shown.0, folder.path()));
    });
    // 13 % without the mending. A quarter of the layers is compressed, and of those few are right; only root
    // may give files the owners that these have.
    if nix::unistd::geteuid().is_root() {
        told.at_least(20);
    }
}

#[test]
fn layers_whose_entries_collide_are_unpacked_or_refused_and_nothing_else_is_touched() {
    let test = |seed| {
        let folder = folder();
        let mut told = Told::default();
        let mut random = Random(seed);
        for _ in 0..rounds() {
            let length = 1 + random.below(200);
            let decisions: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
            let shown = Shown(&decisions);
            told.count(entries(shown.0, folder.path()));
        }
        told
    };
    each("entries", 0, |decisions| {
        let shown = Shown(decisions);
        let _ = entries(shown.0, folder().path());
    });
    // A layer is little work and some waiting.
    let told = thread::scope(|scope| {
        let threads: Vec<_> = (1..=4)
            .map(|seed| scope.spawn(move || test(seed)))
            .collect();
        let each = threads.into_iter().map(|thread| thread.join());
        each.fold(Told::default(), |mut all, told| {
            all.add(told.expect("no layer fails the test"));
            all
        })
    });
    // 70 %, fewer where the file system has no attributes for users.
    told.at_least(55);
}

#[test]
fn spoiled_headers_are_mended_and_nothing_else_is() {
    for seed in seeds("layer") {
        let mut same = seed.clone();
        mend(&mut same);
        assert!(same == seed, "an archive that is right was changed");
    }
    let mut spoiled = seeds("layer").swap_remove(0);
    let (name, sum) = (0, 148);
    spoiled[name] ^= 1;
    let mut mended = spoiled.clone();
    mend(&mut mended);
    let changed = (0..spoiled.len()).filter(|at| spoiled[*at] != mended[*at]);
    let changed: Vec<_> = changed.collect();
    assert!(
        !changed.is_empty() && changed.iter().all(|at| (sum..sum + 8).contains(at)),
        "{changed:?}"
    );
}

/// In memory where that can be: thousands of layers are made and removed.
fn folder() -> TempDir {
    match tempfile::tempdir_in("/dev/shm") {
        Ok(folder) => folder,
        Err(_) => tempfile::tempdir().expect("a folder"),
    }
}

/// Layers per thread. `FAIRLEAD_FUZZ_ROUNDS` asks for more.
fn rounds() -> usize {
    let more = env::var("FAIRLEAD_FUZZ_ROUNDS").ok();
    more.and_then(|rounds| rounds.parse().ok()).unwrap_or(1000)
}

/// Shows what a test was fed with when it fails.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("failed with \"{}\"", self.0.escape_ascii());
        }
    }
}

/// What became of many layers.
#[derive(Default)]
struct Told {
    unpacked: usize,
    refused: BTreeMap<String, usize>,
}

impl Told {
    fn count(&mut self, outcome: Result<(), LayerError>) {
        match outcome {
            Ok(()) => self.unpacked += 1,
            Err(error) => *self.refused.entry(error.to_string()).or_default() += 1,
        }
    }

    fn add(&mut self, other: Self) {
        self.unpacked += other.unpacked;
        for (why, count) in other.refused {
            *self.refused.entry(why).or_default() += count;
        }
    }

    /// A test whose layers are nearly all refused early tests nothing, and would not be noticed.
    fn at_least(&self, percent: usize) {
        let all = self.unpacked + self.refused.values().sum::<usize>();
        let share = 100 * self.unpacked / all;
        eprintln!("{share} % unpacked");
        let mut why: Vec<_> = self.refused.iter().collect();
        why.sort_by_key(|(_, count)| Reverse(**count));
        assert!(
            share >= percent,
            "only {share} % are unpacked; the others: {why:#?}"
        );
    }
}
