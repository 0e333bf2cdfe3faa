//! Faults on real sockets, a killed consumer and long outages: `README.md` says what is done and how to do more of it.

mod audit;
mod crew;
mod effort;
#[path = "../../../bench/src/emulator.rs"]
#[expect(dead_code, reason = "the bench also measures with it")]
mod emulator;
mod faults;
mod kills;
mod proxy;
mod random;
mod role;
mod scenario;
mod shop;
mod site;
mod warps;
mod wire;
mod world;
