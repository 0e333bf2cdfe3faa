//! What went wrong, as what the caller does next.

use std::fmt;
use std::time::Duration;

/// Why a call did not do what it was asked, told apart by what the caller does next.
///
/// The statuses are those of <https://docs.stripe.com/error-low-level>. Texts come from Stripe (`code`, `message`, the request
/// id to quote to its support); never the secret key, never a whole body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// 400: Stripe holds an event with this identifier already, so it *was* delivered. Only [`report_meter_event`] says this.
    ///
    /// [`report_meter_event`]: crate::Client::report_meter_event
    #[error("the meter event is known already{}", Request(.request_id))]
    Duplicate {
        /// Stripe's name for the call.
        request_id: Option<String>,
    },

    /// 409, 429, or another 4xx with `Stripe-Should-Retry: true`: not applied. Ask again with the **same** idempotency key;
    /// these answers are not stored under it (<https://docs.stripe.com/api/idempotent_requests>).
    #[error("stripe is busy: {status}{}{}", Code(.code), Request(.request_id))]
    Busy {
        /// The HTTP status.
        status: u16,
        /// Stripe's code, such as `lock_timeout` or `rate_limit`.
        code: Option<String>,
        /// How long Stripe wants us to wait, if it says so.
        retry_after: Option<Duration>,
        /// `Stripe-Should-Retry`, if it was sent.
        should_retry: Option<bool>,
        /// Stripe's name for the call.
        request_id: Option<String>,
    },

    /// 5xx received: the outcome is unknown. v1 stores the answer under the idempotency key and replays it to every further
    /// call with that key, so the attempt counter in the key must move on
    /// (<https://docs.stripe.com/api/idempotent_requests>).
    #[error("stripe failed: {status}{}{}{}", Code(.code), if *.replayed { " (replayed)" } else { "" }, Request(.request_id))]
    ServerFault {
        /// The HTTP status.
        status: u16,
        /// Stripe's code.
        code: Option<String>,
        /// `Idempotent-Replayed: true`: this is the stored answer to an earlier call with the same key.
        replayed: bool,
        /// `Stripe-Should-Retry`, if it was sent.
        should_retry: Option<bool>,
        /// Stripe's name for the call.
        request_id: Option<String>,
    },

    /// No whole answer: refused, reset or timed out. Ask again with the **same** idempotency key.
    #[error("stripe was not reached ({}): {cause}", if *.sent { "outcome unknown" } else { "nothing sent" })]
    Unreachable {
        /// `false` only if no connection came about, so that not one byte of the request left: not applied. `true` means that
        /// the outcome is unknown.
        sent: bool,
        /// What the network said.
        cause: String,
    },

    /// Another 4xx: Stripe refused the call and would refuse it again; park it for the operator. 401 and 403 speak about the
    /// key, hence about every call, not about this one.
    #[error("stripe rejected the call: {status}{}: {message}{}{}", Code(.code), Param(.param), Request(.request_id))]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// Stripe's code (<https://docs.stripe.com/error-codes>), or the type of the error where it has none.
        code: Option<String>,
        /// The parameter that Stripe objects to.
        param: Option<String>,
        /// Stripe's sentence for the developer, cut short.
        message: String,
        /// Stripe's name for the call.
        request_id: Option<String>,
    },

    /// An answer that says success, or 400, but that we can't read, or doubt: the outcome is unknown. Ask again with the **same**
    /// key.
    #[error("stripe's answer can't be read: {what}{}", Request(.request_id))]
    Malformed {
        /// What is wrong with it.
        what: String,
        /// Stripe's name for the call.
        request_id: Option<String>,
    },

    /// Nothing was sent, since no valid request can be made of the arguments; they would fail again.
    #[error("not sent: {0}")]
    Invalid(&'static str),
}

impl Error {
    /// Whether the same call may do better later. Under which idempotency key, each variant says.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::ServerFault { .. } | Self::Unreachable { .. } | Self::Malformed { .. } => true,
            Self::Duplicate { .. } | Self::Rejected { .. } | Self::Invalid(_) => false,
        }
    }

    /// Whether Stripe has no object with this id: <https://docs.stripe.com/error-codes#resource-missing>.
    pub fn is_missing(&self) -> bool {
        self.is_rejected_as("resource_missing")
    }

    /// Whether Stripe has an object already with the id that this one should get:
    /// <https://docs.stripe.com/error-codes#resource-already-exists>.
    pub fn already_exists(&self) -> bool {
        self.is_rejected_as("resource_already_exists")
    }

    fn is_rejected_as(&self, expected: &str) -> bool {
        matches!(self, Self::Rejected { code: Some(code), .. } if code == expected)
    }
}

impl stripe_client_core::StripeClientErr for Error {
    fn deserialize_err(msg: impl fmt::Display) -> Self {
        Self::Malformed {
            what: msg.to_string(),
            request_id: None,
        }
    }
}

/// The end of a sentence, if there is something to add.
struct Request<'a>(&'a Option<String>);
struct Code<'a>(&'a Option<String>);
struct Param<'a>(&'a Option<String>);

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_deref().map_or(Ok(()), |id| write!(f, " [{id}]"))
    }
}

impl fmt::Display for Code<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_deref().map_or(Ok(()), |code| write!(f, " {code}"))
    }
}

impl fmt::Display for Param<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .as_deref()
            .map_or(Ok(()), |param| write!(f, " (parameter {param})"))
    }
}
