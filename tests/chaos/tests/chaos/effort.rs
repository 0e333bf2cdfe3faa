//! How much is done: a slice by default; more, or one run again, by the environment.

use std::{env, ops::Range};

/// How much is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// What every `cargo test` does.
    Slice,
    /// Everything, under these seeds.
    Long { seeds: Range<u64> },
    /// One run again, by the name that it failed under.
    Replay(String),
}

impl Effort {
    /// `FAREBOX_CHAOS_SEEDS=20` is the long mode with the seeds 1 to 20, `FAREBOX_CHAOS_SEEDS=5..9` with those;
    /// `FAREBOX_CHAOS_REPLAY` names a run.
    pub(crate) fn from_env() -> Self {
        if let Ok(run) = env::var("FAREBOX_CHAOS_REPLAY") {
            return Self::Replay(run);
        }
        let Ok(seeds) = env::var("FAREBOX_CHAOS_SEEDS") else {
            return Self::Slice;
        };
        let (first, end) = seeds
            .split_once("..")
            .map_or(("1", None), |(first, end)| (first, Some(end)));
        let number = |text: &str| {
            text.parse::<u64>()
                .expect("FAREBOX_CHAOS_SEEDS is a number or a range like 5..9")
        };
        let end = end.map_or_else(|| number(&seeds) + 1, number);
        Self::Long {
            seeds: number(first)..end,
        }
    }
}

/// Whether a run is among those that are wanted: `FAREBOX_CHAOS_ONLY=admit` is those with `admit` in their names.
pub(crate) fn is_wanted(run: &str) -> bool {
    env::var("FAREBOX_CHAOS_ONLY").map_or(true, |only| run.contains(&only))
}

/// Says it to whoever reads the test's output.
#[expect(clippy::print_stderr, reason = "figures and seeds for whoever runs the long mode")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}
