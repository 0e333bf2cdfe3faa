//! How a command ends, as the shell sees it.

use std::fmt;

/// Why a command did not do what it was asked, told apart by its exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// 1: it did not work, or something does not agree.
    Failed(String),
    /// 3: there is no such customer, key, counter, billing period, catalog, tier or stack.
    NotFound(String),
    /// 64: the command line asks for something that can't be.
    Usage(String),
}

/// How a command that did its work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// 0.
    Well,
    /// 1: what was compared differs.
    Differs,
    /// 2: changes are pending.
    Pending,
}

/// Printed under every `--help`.
pub(crate) const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed or a difference was found, 2 changes are pending (tiers diff, --dry-run), \
3 no such customer, key, counter, billing period, catalog, tier or stack, 64 the command line is wrong";

/// Printed under the help of `farebox doctor`.
pub(crate) const DOCTOR_EXIT_CODES: &str = "Exit codes: 0 nothing to mend, 1 findings, or nothing could be looked at, 3 no such stack, \
64 the command line is wrong";

impl Failure {
    pub(crate) fn failed(cause: impl fmt::Display) -> Self {
        Self::Failed(cause.to_string())
    }

    pub(crate) fn usage(cause: impl fmt::Display) -> Self {
        Self::Usage(cause.to_string())
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::NotFound(_) => 3,
            Self::Usage(_) => 64,
        }
    }
}

impl Done {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::Differs => 1,
            Self::Pending => 2,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(text) | Self::NotFound(text) | Self::Usage(text) => f.write_str(text),
        }
    }
}

impl From<farebox_aws::Error> for Failure {
    fn from(error: farebox_aws::Error) -> Self {
        let text = error.to_string();
        let hint = if text.contains("dispatch failure") {
            ": is there a way to AWS from here, and is AWS_ENDPOINT_URL right, if it is set?"
        } else if text.contains("AccessDenied") {
            ": the credentials are not allowed to; name others with --profile"
        } else if text.contains("ResourceNotFoundException") {
            ": is the stack deployed in this region? Name it with --stack, or its tables with --accounts-table, \
             --counters-table and --ledger-table"
        } else if text.contains("UnrecognizedClientException") || text.contains("ExpiredToken") {
            ": the credentials are not valid (any more); name others with --profile"
        } else {
            ""
        };
        Self::Failed(format!("{text}{hint}"))
    }
}

impl From<farebox_stripe::Error> for Failure {
    fn from(error: farebox_stripe::Error) -> Self {
        let hint = match &error {
            farebox_stripe::Error::Rejected { status: 401 | 403, .. } => {
                ": STRIPE_SECRET_KEY is not a key that may do this"
            }
            farebox_stripe::Error::Unreachable { .. } => ": is --stripe-url right?",
            _ => "",
        };
        Self::Failed(format!("stripe: {error}{hint}"))
    }
}

impl From<farebox_billing::Error> for Failure {
    fn from(error: farebox_billing::Error) -> Self {
        match error {
            farebox_billing::Error::Table(error) => error.into(),
            farebox_billing::Error::Stripe(error) => error.into(),
            other => Self::failed(other),
        }
    }
}

impl From<farebox_local::Error> for Failure {
    fn from(error: farebox_local::Error) -> Self {
        Self::failed(error)
    }
}

impl From<farebox_core::id::BadId> for Failure {
    fn from(error: farebox_core::id::BadId) -> Self {
        Self::usage(error)
    }
}
