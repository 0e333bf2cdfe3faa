//! The rules of Farebox, pure: keys, tiers, admission, buckets, the ledger and prices.
//!
//! Nothing here reads a clock, an environment variable, a random source or a socket: `now` and every other input is an
//! argument. Each state machine stands beside the DynamoDB expression that carries it out.

pub mod account;
pub mod admission;
pub mod alert;
pub mod answer;
pub mod cost;
pub mod counter;
pub mod expression;
pub mod id;
pub mod key;
pub mod ledger;
pub mod limit;
pub mod message;
pub mod money;
pub mod tiers;
pub mod time;
