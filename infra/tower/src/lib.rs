#![doc = include_str!("../README.md")]

mod context;
mod figures;
mod layer;

pub use context::AuthorizerContext;
pub use figures::Caller;
pub use layer::{Farebox, FareboxLayer, ResponseFuture};
