#![doc = include_str!("../README.md")]

mod addresses;
mod gateway;
mod grammar;
mod keys;
mod queues;
mod stripe;
mod tiers;

/// A target: panics where something does not hold.
pub type Target = fn(&[u8]);

/// Every target, by the name of its corpus.
pub const TARGETS: [(&str, Target); 13] = [
    ("alert_message", queues::alert_message),
    ("api_key", keys::api_key),
    ("authorizer_event", gateway::authorizer_event),
    ("grammar", grammar::grammar),
    ("overrides", tiers::overrides),
    ("queue_batch", queues::queue_batch),
    ("route", gateway::route),
    ("stripe_event", stripe::event),
    ("stripe_signature", stripe::signature),
    ("tiers_file", tiers::file),
    ("usage_message", queues::usage_message),
    ("webhook_address", addresses::webhook_address),
    ("welcome_query", gateway::welcome_query),
];

/// Runs a target by its name.
///
/// # Panics
/// If there is no such target, or if something does not hold of these bytes.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = found.unwrap_or_else(|| panic!("no target is called {name}"));
    target(data);
}

/// The bytes as text; most of what is read here is.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// What is said of a bad input must be short, and so can hold little of it.
fn is_short(error: &dyn std::fmt::Display) {
    let said = error.to_string();
    assert!(!said.is_empty() && said.len() <= 300, "{} bytes", said.len());
}
