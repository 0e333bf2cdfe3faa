//! What Stripe sends to us: signatures and events.

mod events;
mod signatures;
