#![doc = include_str!("../README.md")]

mod audit;
mod check;
mod queue;
mod run;
mod sabotage;
mod scenario;
pub mod store;
mod trace;
mod wire;
mod world;

pub use run::{Options, Outcome, run};
pub use sabotage::Sabotage;
pub use trace::Traced;
