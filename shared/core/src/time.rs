//! Points in time, billing periods and buckets.
//!
//! A **bucket** is the smallest billing interval: a UTC hour, cut where a billing period or another price starts inside it,
//! named by its start in unix seconds. Every unit belongs to exactly one bucket, and every bucket to exactly one period.

use chrono::{DateTime, Months};
use serde::{Deserialize, Serialize};

use crate::tiers::Interval;

/// Seconds in a bucket that nothing cuts.
pub const HOUR_S: u64 = 3_600;
/// The latest point in time that is understood: the year 9999. It keeps all sums far from overflow.
const SECONDS_MAX: u64 = 253_402_300_799;

/// A point in time: milliseconds since the unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From unix milliseconds.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// From unix seconds.
    #[must_use]
    pub const fn from_s(s: u64) -> Self {
        Self(s.saturating_mul(1_000))
    }

    /// Unix milliseconds.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// Unix seconds, rounded down.
    #[must_use]
    pub const fn s(self) -> u64 {
        self.0 / 1_000
    }

    /// This much later.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// How long from `earlier` to this, 0 if it is the other way round.
    #[must_use]
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A billing period: unix seconds, `end` excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Period {
    /// The first second.
    pub start: u64,
    /// The first second after it.
    pub end: u64,
}

impl Period {
    /// Whether the second lies in the period.
    #[must_use]
    pub fn contains(self, s: u64) -> bool {
        (self.start..self.end).contains(&s)
    }
}

/// The billing interval that a unit is counted in: unix seconds, `end` excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bucket {
    /// Its first second, and its name.
    pub start: u64,
    /// The first second after it.
    pub end: u64,
}

/// How a customer's billing periods follow each other: the one that Stripe named last, and the anchor for those around it.
///
/// Month ends clamp from the *anchor's* day, not from the previous period's: 31 January, 28 February, 31 March
/// (<https://docs.stripe.com/billing/subscriptions/billing-cycle>).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cycle {
    /// The day and time of day, in unix seconds, that periods are counted from.
    pub anchor: u64,
    /// A period's length.
    pub interval: Interval,
    /// The period that Stripe named last.
    pub current: Period,
    /// Where buckets are cut besides, unix seconds, ascending: wherever other prices begin to hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cuts: Vec<u64>,
}

impl Cycle {
    /// A cycle whose first period starts at `anchor`.
    #[must_use]
    pub fn starting_at(anchor: u64, interval: Interval) -> Self {
        let anchor = anchor.min(SECONDS_MAX);
        let current = Period {
            start: anchor,
            end: boundary(anchor, interval, 1),
        };
        Self {
            anchor,
            interval,
            current,
            cuts: Vec::new(),
        }
    }

    /// Cuts the buckets at a second. Buckets that ended before it stay as they are.
    pub fn cut(&mut self, at: u64) {
        if let Err(place) = self.cuts.binary_search(&at) {
            self.cuts.insert(place, at);
        }
    }

    /// The period that a second lies in. Periods that Stripe has not named yet are worked out from the anchor, so that a
    /// late webhook changes nothing.
    #[must_use]
    pub fn period_at(&self, s: u64) -> Period {
        let s = s.min(SECONDS_MAX);
        if self.current.contains(s) {
            return self.current;
        }
        // The guess is at most one period off; boundaries only grow with n.
        let mut n = self.guess(s);
        while boundary(self.anchor, self.interval, n) > s {
            n -= 1;
        }
        while boundary(self.anchor, self.interval, n + 1) <= s {
            n += 1;
        }
        let mut start = boundary(self.anchor, self.interval, n);
        let mut end = boundary(self.anchor, self.interval, n + 1);
        // What Stripe named wins: a period beside it ends or starts where the named one does.
        if s >= self.current.end {
            start = start.max(self.current.end);
        } else {
            end = end.min(self.current.start);
        }
        Period { start, end }
    }

    fn guess(&self, s: u64) -> i32 {
        let length = match self.interval {
            Interval::Month => 2_629_746,
            Interval::Year => 31_556_952,
        };
        let distance = i128::from(s.min(SECONDS_MAX)) - i128::from(self.anchor);
        i32::try_from(distance / length).unwrap_or(0)
    }

    /// The bucket that a second lies in.
    #[must_use]
    pub fn bucket_at(&self, s: u64) -> Bucket {
        let s = s.min(SECONDS_MAX);
        let period = self.period_at(s);
        let hour = s - s % HOUR_S;
        let after = self.cuts.partition_point(|&cut| cut <= s);
        let cut_before = self.cuts[..after].last().copied().unwrap_or(0);
        let cut_after = self.cuts.get(after).copied().unwrap_or(u64::MAX);
        Bucket {
            start: hour.max(period.start).max(cut_before),
            end: (hour + HOUR_S).min(period.end).min(cut_after),
        }
    }

    /// The bucket that a request at `s` is counted in, given the newest sealed one: never a sealed bucket.
    #[must_use]
    pub fn bucket_after_seal(&self, s: u64, sealed: u64) -> Bucket {
        let bucket = self.bucket_at(s);
        if bucket.start > sealed {
            bucket
        } else {
            self.bucket_at(self.bucket_at(sealed).end)
        }
    }

    /// The bucket before the one that `s` lies in: what a new counter item is sealed up to.
    #[must_use]
    pub fn bucket_before(&self, s: u64) -> Bucket {
        self.bucket_at(self.bucket_at(s).start.saturating_sub(1))
    }
}

/// The start of the n-th period from the anchor.
fn boundary(anchor: u64, interval: Interval, n: i32) -> u64 {
    let months = Months::new(n.unsigned_abs().saturating_mul(match interval {
        Interval::Month => 1,
        Interval::Year => 12,
    }));
    let anchor_date = i64::try_from(anchor).ok().and_then(|s| DateTime::from_timestamp(s, 0));
    let date = anchor_date.and_then(|date| {
        if n < 0 {
            date.checked_sub_months(months)
        } else {
            date.checked_add_months(months)
        }
    });
    // Beyond the calendar's end there is only "never"; before 1970 only the epoch.
    match date {
        Some(date) => u64::try_from(date.timestamp())
            .unwrap_or(0)
            .min(SECONDS_MAX.saturating_mul(2)),
        None if n < 0 => 0,
        None => SECONDS_MAX.saturating_mul(2),
    }
}
