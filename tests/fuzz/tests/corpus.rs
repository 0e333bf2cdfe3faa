//! Every input that fuzzing found worth keeping, through its target.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use farebox_fuzz::TARGETS;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn names(directory: PathBuf) -> BTreeSet<String> {
    let entries = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect()
}

#[test]
fn nothing_in_the_corpora_breaks_its_target() {
    for (name, target) in TARGETS {
        let files = names(corpus().join(name));
        assert!(files.len() >= 3, "{name} has a corpus");
        for file in files {
            let data = fs::read(corpus().join(name).join(&file)).expect("a file");
            let outcome = std::panic::catch_unwind(|| target(&data));
            assert!(outcome.is_ok(), "corpus/{name}/{file}");
        }
    }
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(corpus()), targets);
}

/// Fuzzing without a fuzzer: every file of the corpora, cut off, doubled, and with a few bytes changed at random. The same every
/// time, unless `FUZZ_SECONDS` asks for more.
#[test]
fn nor_does_anything_near_them() {
    let seconds = std::env::var("FUZZ_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut random = Random(0x5eed);
    loop {
        for (name, target) in TARGETS {
            for file in names(corpus().join(name)) {
                let data = fs::read(corpus().join(name).join(&file)).expect("a file");
                for _ in 0..CHANGES {
                    target(&random.change(&data));
                }
            }
        }
        if end.is_none_or(|end| Instant::now() >= end) {
            break;
        }
    }
}

/// What texts are most sensitive to.
const SIGNS: &[u8] = b"-+.,:/#%{}[]\"\0 \n";
/// How often each file is changed in a round.
const CHANGES: u32 = 64;

/// Knuth's generator; good enough to change bytes with.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or_default() % n.max(1)
    }

    fn change(&mut self, data: &[u8]) -> Vec<u8> {
        let mut changed = data.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(changed.len() + 1);
            match self.below(6) {
                0 => changed.truncate(at),
                1 => changed.insert(at, u8::try_from(self.below(256)).unwrap_or_default()),
                2 => changed.extend_from_within(at..),
                3 => changed.splice(at..at, *b"9").for_each(drop),
                4 => {
                    let sign = SIGNS[self.below(SIGNS.len())];
                    changed.splice(at..changed.len().min(at + 1), [sign]).for_each(drop);
                }
                _ => {
                    if let Some(byte) = changed.get_mut(at) {
                        *byte ^= 1 << self.below(8);
                    }
                }
            }
        }
        changed
    }
}
