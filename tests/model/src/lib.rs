#![doc = include_str!("../README.md")]

mod case;
mod check;
mod machine;
pub mod refinement;
mod rules;
pub mod table;
mod variant;
mod world;

pub use case::{Case, findings, full, slice};
pub use check::{Checked, Promises, Violation, check};
pub use machine::Action;
pub use variant::Variant;
