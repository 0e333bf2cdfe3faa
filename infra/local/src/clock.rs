//! The clock that the local system runs on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use farebox_core::time::Timestamp;

/// A clock that stands still until it is moved, or runs with the machine's and can be moved ahead.
#[derive(Clone, Debug)]
pub struct VirtualClock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    is_running: AtomicBool,
    stands_at_ms: AtomicU64,
    ahead_ms: AtomicI64,
}

impl VirtualClock {
    /// A clock that stands still.
    #[must_use]
    pub fn standing(at: Timestamp) -> Self {
        Self::new(false, at.ms(), 0)
    }

    /// A clock that runs, this far ahead of the machine's.
    #[must_use]
    pub fn running(ahead_ms: i64) -> Self {
        Self::new(true, 0, ahead_ms)
    }

    fn new(is_running: bool, stands_at_ms: u64, ahead_ms: i64) -> Self {
        Self(Arc::new(Inner {
            is_running: AtomicBool::new(is_running),
            stands_at_ms: AtomicU64::new(stands_at_ms),
            ahead_ms: AtomicI64::new(ahead_ms),
        }))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let ms = if self.0.is_running.load(SeqCst) {
            machine_ms().saturating_add_signed(self.0.ahead_ms.load(SeqCst))
        } else {
            self.0.stands_at_ms.load(SeqCst)
        };
        Timestamp::from_ms(ms)
    }

    /// Moves the clock ahead; never back.
    pub fn set(&self, to: Timestamp) {
        let ahead = to.ms().saturating_sub(self.now().ms());
        if self.0.is_running.load(SeqCst) {
            self.0
                .ahead_ms
                .fetch_add(i64::try_from(ahead).unwrap_or(i64::MAX), SeqCst);
        } else {
            self.0.stands_at_ms.fetch_max(to.ms(), SeqCst);
        }
    }

    /// How far a running clock is ahead of the machine's.
    #[must_use]
    pub fn ahead_ms(&self) -> i64 {
        self.0.ahead_ms.load(SeqCst)
    }
}

fn machine_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
