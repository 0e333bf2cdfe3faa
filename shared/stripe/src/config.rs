//! Where Stripe is, who we are to it, and how long we wait.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::Error;

/// The API version that every call names (`Stripe-Version`), so that neither the account's default nor an upgrade in the
/// dashboard changes what we read.
///
/// It is the version that the request builders of async-stripe 1.0.0-rc.10 were generated from. It lies after 2025-03-31.basil
/// (billing periods are on subscription items, usage records are gone) and after 2026-04-22.dahlia (a meter event of more than
/// 15 digits is refused in the answer, not silently afterwards). Of what 2026-09-30.endive itself breaks,
/// `payment_method_types` is nothing we send, and updates of `billing_cycle_anchor` are sent in its new form:
/// <https://docs.stripe.com/changelog/endive>.
pub const API_VERSION: &str = "2026-09-30.endive";

/// Stripe's own address.
const STRIPE: &str = "https://api.stripe.com";

/// A secret or restricted key: <https://docs.stripe.com/keys>.
///
/// It has no `Debug`, `Display` or `Serialize`, so it can't reach a log:
///
/// ```compile_fail
/// println!("{:?}", farebox_stripe::SecretKey::new("sk_test_1").unwrap());
/// ```
#[derive(Clone)]
pub struct SecretKey(String);

impl SecretKey {
    /// Takes the key as Stripe shows it.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is empty or holds anything but visible ASCII, such as the line end of the file it was read
    /// from.
    pub fn new(key: impl Into<String>) -> Result<Self, Error> {
        let key = key.into();
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::Invalid("the secret key must be visible ASCII"));
        }
        Ok(Self(key))
    }

    /// Whether it moves real money: `sk_live_…`, `rk_live_…`.
    pub fn is_live(&self) -> bool {
        self.0.starts_with("sk_live_") || self.0.starts_with("rk_live_")
    }

    /// Whether it may do only what was ticked for it: `rk_…`.
    pub fn is_restricted(&self) -> bool {
        self.0.starts_with("rk_")
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

/// How a [`Client`](crate::Client) reaches Stripe.
#[derive(Clone)]
pub struct Config {
    /// The key that every call is made with.
    pub secret_key: SecretKey,
    /// `http` or `https`, host and port, without `/v1`. Stripe's own address by default.
    pub base_url: String,
    /// The `Stripe-Version` of every call; [`API_VERSION`] by default.
    pub api_version: String,
    /// How long one TCP connection may take to open; 3 s by default.
    pub connect_timeout: Duration,
    /// How long a whole call may take, from its first byte to the last of the answer; 30 s by default. The ledger's claim
    /// (5 minutes) is far longer, so a call never outlives it.
    pub call_timeout: Duration,
    /// Connections kept open without a call on them; 4 by default.
    pub idle_connections_max: usize,
    /// How long such a connection is kept; 30 s by default.
    pub idle_timeout: Duration,
    /// The largest answer that is read; 8 MiB by default. A page of 100 invoices stays well below it.
    pub answer_bytes_max: usize,
    /// How many calls may begin in a second; by default as many as are asked for.
    pub calls_per_second: Option<NonZeroU32>,
}

/// Four fifths of what Stripe lets an account do in a second, 100 calls live and 25 in a sandbox
/// (<https://docs.stripe.com/rate-limits>): the rest is for whoever else uses the account. Meter events have a larger limit of
/// their own when live, of which we don't need more.
pub const CALLS_PER_SECOND_LIVE: NonZeroU32 = NonZeroU32::new(80).unwrap();
const CALLS_PER_SECOND_SANDBOX: NonZeroU32 = NonZeroU32::new(20).unwrap();

impl Config {
    /// The defaults, against Stripe itself.
    pub fn new(secret_key: SecretKey) -> Self {
        Self {
            secret_key,
            base_url: STRIPE.to_owned(),
            api_version: API_VERSION.to_owned(),
            connect_timeout: Duration::from_secs(3),
            call_timeout: Duration::from_secs(30),
            idle_connections_max: 4,
            idle_timeout: Duration::from_secs(30),
            answer_bytes_max: 8 * 1024 * 1024,
            calls_per_second: None,
        }
    }

    /// For who has thousands of calls to make: no more in a second than Stripe allows the account, over connections that stay.
    #[must_use]
    pub fn paced(self) -> Self {
        let most = if self.secret_key.is_live() {
            CALLS_PER_SECOND_LIVE
        } else {
            CALLS_PER_SECOND_SANDBOX
        };
        Self {
            calls_per_second: Some(most),
            idle_connections_max: 20,
            ..self
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("base_url", &self.base_url)
            .field("api_version", &self.api_version)
            .field("connect_timeout", &self.connect_timeout)
            .field("call_timeout", &self.call_timeout)
            .finish_non_exhaustive()
    }
}
