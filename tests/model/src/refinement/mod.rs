//! Random items and random writes, with the rule beside each write said once more as code.
//!
//! Whoever runs the writes is held to the rules: [`run`](crate::table::run) here, and the tables of `tests/simulation`.

pub mod admission;
pub mod rules;

use farebox_core::{counter::SHUT, expression::Value};
use fastrand::Rng;

/// An item without its key.
pub type Item = crate::table::Attributes;

/// An item of which any attribute may be missing, or the whole item.
#[must_use]
pub fn item(rng: &mut Rng) -> Option<Item> {
    if rng.u64(..12) == 0 {
        return None;
    }
    let mut item = Item::new();
    let mut put = |rng: &mut Rng, name: &str, value: Value| {
        if rng.u64(..10) < 8 {
            item.insert(name.to_owned(), value);
        }
    };
    let state = ["open", "open", "sealed", "sending", "reported", "parked"][rng.usize(..6)];
    put(rng, "state", state.into());
    for (name, texts) in [
        ("generation", &["g1", "g2"][..]),
        ("claim", &["t1", "t2"]),
        ("identifier", &["i1", "i2"]),
        ("work", &["work-0"]),
        ("outcome", &["accepted"]),
        ("kind", &["credit"]),
        ("stripe_customer", &["cus_1"]),
        ("event_name", &["api_calls"]),
    ] {
        let text = texts[rng.usize(..texts.len())];
        put(rng, name, text.into());
    }
    for name in [
        "units",
        "credit",
        "value",
        "tries",
        "faults",
        "own_minute",
        "granted",
        "taken",
        "auth_epoch",
    ] {
        let n = rng.u64(..6);
        put(rng, name, n.into());
    }
    if rng.u64(..5) == 0 {
        put(rng, "auth_epoch", SHUT.into());
    }
    for name in ["sealed", "due", "bucket_end", "timestamp", "claimed_at"] {
        let n = rules::moment(rng);
        put(rng, name, n.into());
    }
    for name in rules::BUCKETS {
        let n = rng.u64(..1_000);
        put(rng, name, n.into());
    }
    // Nobody's, and so to be left alone.
    put(rng, "note", "kept".into());
    Some(item)
}
