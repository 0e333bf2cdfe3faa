//! What happened, in order: if asked for, a running hash of every request and answer, and the text of it.

use std::fmt::Write as _;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// How much of a run's trace is kept. What happens in the run is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Traced {
    /// Nothing, which is faster.
    #[default]
    No,
    /// The hash of every event.
    Digest,
    /// The hash, and the text.
    Text,
}

/// The trace of a run.
#[derive(Default)]
pub(crate) struct Trace {
    hash: Option<Sha256>,
    events: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(traced: Traced) -> Self {
        Self {
            hash: (traced != Traced::No).then(Sha256::new),
            lines: (traced == Traced::Text).then(Vec::new),
            ..Self::default()
        }
    }

    /// Whether anything of it is kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.hash.is_some()
    }

    /// Notes an event. `details` enters the hash whole and the text shortened.
    pub(crate) fn note(&mut self, at_ms: u64, who: &str, what: &str, details: &str) {
        self.events += 1;
        if let Some(hash) = &mut self.hash {
            hash.update(at_ms.to_be_bytes());
            for text in [who, what, details] {
                hash.update((text.len() as u64).to_be_bytes());
                hash.update(text.as_bytes());
            }
        }
        if let Some(lines) = &mut self.lines {
            const SHOWN: usize = 400;
            let shown = details
                .char_indices()
                .nth(SHOWN)
                .map_or(details, |(end, _)| &details[..end]);
            lines.push(format!("{} {who:<10} {what} {shown}", clock(at_ms)));
        }
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// The hash so far, in hexadecimal digits; empty if there is none.
    pub(crate) fn digest(&self) -> String {
        let mut text = String::new();
        for byte in self.hash.iter().flat_map(|hash| hash.clone().finalize()) {
            // Writing to a `String` can not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }
}

/// Days since the epoch and the time of day: what a reader needs to see how far apart two events are.
fn clock(ms: u64) -> String {
    let (s, ms) = (ms / 1_000, ms % 1_000);
    let (day, s) = (s / 86_400, s % 86_400);
    format!("{day} {:02}:{:02}:{:02}.{ms:03}", s / 3_600, s / 60 % 60, s % 60)
}

/// JSON in one order: objects have none, and what is hashed must have one.
pub(crate) fn canonical(body: &str) -> String {
    // `Value` keeps its members sorted.
    match serde_json::from_str::<Value>(body) {
        Ok(value) => value.to_string(),
        Err(_) => body.to_owned(),
    }
}

/// A form in one order: a client may write the members of a mapping in any.
pub(crate) fn sorted_form(form: &str) -> String {
    let mut pairs: Vec<&str> = form.split('&').collect();
    pairs.sort_unstable();
    pairs.join("&")
}
