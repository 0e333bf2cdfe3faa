//! Stripe's wire format: form-encoded requests with nested brackets in, JSON out.

pub(crate) mod error;
pub(crate) mod form;
pub(crate) mod list;
