//! The contract, over the real socket: what a client of Stripe may rely on.

mod api;
mod catalog;
mod checkout;
mod faults;
mod idempotency;
mod invoices;
mod journal;
mod meters;
mod pauses;
mod payments;
mod subscriptions;
mod typed;
mod webhooks;
mod wire;
