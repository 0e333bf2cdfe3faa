//! The farebox command.
fn main() {}
