#![doc = include_str!("../README.md")]

mod clock;
mod demo;
mod endpoints;
mod gateway;
mod outbox;
mod sell;
mod services;
mod system;
mod webhooks;

pub use clock::VirtualClock;
pub use demo::{CustomerResult, DEMO_TIERS, DemoReport, Progress, SentAlert, replay};
pub use gateway::{Gateway, SAMPLE_ROUTES};
pub use outbox::{Entry, Outbox};
pub use sell::{Sold, sell};
pub use services::Services;
pub use system::{DEV_TIERS, Options, System};
pub use webhooks::Webhooks;

/// What can go wrong while the local system starts or runs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A table or queue call failed.
    #[error(transparent)]
    Aws(#[from] farebox_aws::Error),
    /// A Stripe call failed.
    #[error("stripe: {0}")]
    Stripe(#[from] farebox_stripe::Error),
    /// Billing failed.
    #[error(transparent)]
    Billing(#[from] farebox_billing::Error),
    /// The notifier failed.
    #[error("notifier: {0}")]
    Notifier(#[from] farebox_notifier::Error),
    /// The consumer failed.
    #[error("consumer: {0}")]
    Consumer(#[from] farebox_consumer::Error),
    /// A file or socket.
    #[error("{what}: {cause}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Anything else that the local system refuses.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |cause| Self::Io { what, cause }
    }

    pub(crate) fn refused(cause: impl std::fmt::Display) -> Self {
        Self::Refused(cause.to_string())
    }
}
