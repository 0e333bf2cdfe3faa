//! Misbehaviour on demand: what the network and Stripe itself do on a bad day.

use std::sync::{Mutex, PoisonError};

/// A fault that waits for the requests that it befalls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The method (`POST`), or any if `None`.
    pub method: Option<String>,
    /// How the path begins (`/v1/billing/meter_events`).
    pub path_prefix: String,
    /// How many requests it befalls; each request meets at most one fault, the oldest that fits.
    pub times: u32,
    /// What happens.
    pub kind: FaultKind,
}

/// What a [`Fault`] does to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// A 500, and nothing was done. Kept for the idempotency key: a retry with the same key gets the same 500.
    Error500BeforeCommit,
    /// A 500, though the request was done. Kept for the idempotency key as well.
    Error500AfterCommit,
    /// The connection closes without an answer, and nothing was done.
    DropBeforeCommit,
    /// The connection closes without an answer, though the request was done.
    DropAfterCommit,
    /// A 429 of the rate limiter; nothing was done, nothing is kept.
    RateLimited429,
    /// A 409, as if another request with the same idempotency key were in flight; nothing is kept.
    Conflict409,
    /// The request takes this many milliseconds longer and holds its locks for that time.
    Delay(u64),
    /// The request is done, and the answer is half a JSON document.
    Malformed,
}

/// The faults that are still to come.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    queue: Mutex<Vec<Fault>>,
}

impl Faults {
    pub(crate) fn push(&self, fault: Fault) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    /// Forgets all that are still to come.
    pub(crate) fn clear(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Takes one time out of the oldest fault that fits.
    pub(crate) fn befall(&self, method: &str, path: &str) -> Option<FaultKind> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |fault: &Fault| {
            fault.times > 0
                && fault
                    .method
                    .as_ref()
                    .is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
                && path.starts_with(&fault.path_prefix)
        };
        let index = queue.iter().position(fits)?;
        queue[index].times -= 1;
        let kind = queue[index].kind;
        queue.retain(|fault| fault.times > 0);
        Some(kind)
    }
}
