//! Calls that come in crowds, one after the other: below Stripe's rate limits, so that nobody else who uses the account is
//! refused because of us.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Hands out moments at which a call may begin, evenly.
pub(crate) struct Pace {
    every: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn new(calls_per_second: NonZeroU32) -> Self {
        Self {
            every: Duration::from_secs(1) / calls_per_second.get(),
            next: Mutex::default(),
        }
    }

    /// Waits for the next moment that is nobody else's.
    pub(crate) async fn wait(&self) {
        sleep_until(self.take(Instant::now())).await;
    }

    fn take(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let at = next.map_or(now, |next| next.max(now));
        *next = Some(at + self.every);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_spread_and_a_single_call_does_not_wait() {
        let pace = Pace::new(NonZeroU32::new(20).expect("not zero"));
        let now = Instant::now();
        let after = |ms| now + Duration::from_millis(ms);
        assert_eq!(
            [pace.take(now), pace.take(now), pace.take(now)],
            [now, after(50), after(100)]
        );
        // What was not used is not saved up.
        assert_eq!([pace.take(after(900)), pace.take(after(900))], [after(900), after(950)]);
    }
}
