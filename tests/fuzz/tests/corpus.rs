//! Every input that fuzzing found worth keeping, through its target.

use std::{collections::BTreeSet, fs, path::PathBuf};

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
    let programs = names(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("libfuzzer/fuzz_targets"));
    let expected = targets
        .iter()
        .map(|name| format!("{name}.rs"))
        .collect::<BTreeSet<String>>();
    assert_eq!(programs, expected, "libFuzzer runs the same targets");
}

/// Cheap fuzzing without a fuzzer: every file of the corpora with each of its first bytes changed, cut off and doubled.
#[test]
fn nor_does_anything_near_them() {
    const BYTES_MAX: usize = 96;
    for (name, target) in TARGETS {
        for file in names(corpus().join(name)) {
            let data = fs::read(corpus().join(name).join(&file)).expect("a file");
            for at in 0..data.len().min(BYTES_MAX) {
                let mut changed = data.clone();
                changed[at] ^= 1 << (at % 8);
                target(&changed);
                target(&data[..at]);
                target(&[&data[..at], &data[at..], &data[at..]].concat());
            }
        }
    }
}
