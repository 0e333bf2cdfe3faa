//! What happens once an invoice stays unpaid.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Limit;
use super::value;

const DAY_S: u64 = 86_400;
/// The longest grace: Stripe tries a payment again for two months at most
/// (<https://docs.stripe.com/billing/revenue-recovery/smart-retries>).
pub(super) const GRACE_S_MAX: u64 = 60 * DAY_S;
const GRACE_S: u64 = 7 * DAY_S;
const THROTTLE: Limit = Limit {
    units: 10,
    window_ms: 60_000,
};

/// What a customer may still do whose invoice is unpaid: all of it for a while, then what the policy leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastDue {
    /// Seconds from the failed payment on in which nothing changes.
    pub grace_s: u64,
    /// What holds when they are over.
    pub policy: PastDuePolicy,
}

/// What holds for a customer whose invoice stayed unpaid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PastDuePolicy {
    /// Nothing changes.
    Keep,
    /// A slower limit, in addition to the tier's.
    Throttle(Limit),
    /// Nothing is admitted until the invoice is paid.
    Block,
}

/// Why a text is no [`PastDue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct PastDueError(&'static str);

const NOT_A_POLICY: PastDueError =
    PastDueError("is not a policy: write keep, throttle(5/min) or block, and maybe the grace, as in block after 7d");
const NOT_A_THROTTLE: PastDueError =
    PastDueError("is not a throttle: write it with a slower limit, like throttle(5/min)");
const NOT_A_GRACE: PastDueError = PastDueError("has a grace that is not 0 to 60 days: write it like after 7d");

impl PastDue {
    /// What holds at `now_s` for an invoice that is unpaid since `since_s`: [`PastDuePolicy::Keep`] strictly before the
    /// grace is over, the policy from then on. Both are in seconds of the same clock.
    pub fn at(&self, since_s: u64, now_s: u64) -> PastDuePolicy {
        if now_s < since_s.saturating_add(self.grace_s) {
            PastDuePolicy::Keep
        } else {
            self.policy
        }
    }

    /// Whether the policy is the one that holds where a tier says nothing: it must fit any tier.
    pub(super) fn is_default_policy(&self) -> bool {
        self.policy == PastDuePolicy::Throttle(THROTTLE)
    }

    /// The same over so many counter items: the default's throttle leaves each of them a unit.
    pub(super) fn over(mut self, shards: u32) -> Self {
        if self.is_default_policy() {
            self.policy = PastDuePolicy::Throttle(Limit {
                units: THROTTLE.units.max(u64::from(shards)),
                ..THROTTLE
            });
        }
        self
    }
}

impl Default for PastDue {
    /// `throttle(10/min) after 7d`: who does not pay gets little, but is not cut off.
    fn default() -> Self {
        Self {
            grace_s: GRACE_S,
            policy: PastDuePolicy::Throttle(THROTTLE),
        }
    }
}

impl FromStr for PastDue {
    type Err = PastDueError;

    /// Reads `throttle(5/min) after 7d`, `block`, `keep`. `Err` says what to write instead.
    fn from_str(text: &str) -> Result<Self, PastDueError> {
        let (policy, grace) = match text.split_once(" after ") {
            Some((policy, grace)) => (policy.trim(), Some(grace.trim())),
            None => (text.trim(), None),
        };
        let policy = match policy {
            "keep" => PastDuePolicy::Keep,
            "block" => PastDuePolicy::Block,
            _ => match value::throttle(policy) {
                Some(limit) => PastDuePolicy::Throttle(limit.map_err(|_| NOT_A_THROTTLE)?),
                None => return Err(NOT_A_POLICY),
            },
        };
        let grace_s = match grace {
            Some(grace) => {
                let days = grace.strip_suffix('d').map(str::trim_end).map(value::count);
                days.and_then(|days| days.ok()?.checked_mul(DAY_S))
                    .filter(|grace_s| *grace_s <= GRACE_S_MAX)
                    .ok_or(NOT_A_GRACE)?
            }
            None => GRACE_S,
        };
        // A grace before nothing is none.
        let grace_s = if policy == PastDuePolicy::Keep {
            GRACE_S
        } else {
            grace_s
        };
        Ok(Self { grace_s, policy })
    }
}

impl fmt::Display for PastDue {
    /// As the file spells it: `throttle(5/min) after 7d`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.policy {
            PastDuePolicy::Keep => f.write_str("keep"),
            policy if self.grace_s.is_multiple_of(DAY_S) => write!(f, "{policy} after {}d", self.grace_s / DAY_S),
            policy => write!(f, "{policy} after {}s", self.grace_s),
        }
    }
}

impl fmt::Display for PastDuePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("keep"),
            Self::Throttle(limit) => write!(f, "throttle({limit})"),
            Self::Block => f.write_str("block"),
        }
    }
}
