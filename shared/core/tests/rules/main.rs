//! The rules through their public surface: one program, so that it is linked once.

mod account;
mod admission;
mod answer;
mod cost;
mod counter;
mod demand;
mod keys_and_time;
mod ledger;
mod message;
mod money;
mod pattern;
mod tiers;
mod tiers_diff;
mod tiers_plan;
mod tiers_properties;
