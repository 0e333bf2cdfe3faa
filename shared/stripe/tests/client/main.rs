//! The client against a scripted server on this machine: what it sends, and what it makes of what comes back.

mod answers;
mod errors;
mod network;
mod requests;
mod secrecy;
mod server;
