//! Billing cycles: the n-th boundary from an anchor.

use chrono::{DateTime, Months};

/// Seconds in a day.
pub(crate) const DAY: i64 = 86_400;

/// How often a recurring price bills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) unit: Unit,
    pub(crate) count: u32,
}

/// The unit of an [`Interval`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Day,
    Week,
    Month,
    Year,
}

impl Unit {
    pub(crate) const WORDS: [(&'static str, Self); 4] = [
        ("day", Self::Day),
        ("week", Self::Week),
        ("month", Self::Month),
        ("year", Self::Year),
    ];

    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The longest interval is three years.
    pub(crate) fn count_max(self) -> i64 {
        match self {
            Self::Day => 1095,
            Self::Week => 156,
            Self::Month => 36,
            Self::Year => 3,
        }
    }
}

impl Interval {
    /// The boundary `n` intervals after (before, if negative) the anchor. A month without the anchor's day ends the cycle on
    /// its last day, and the next cycle returns to the anchor's day: 31 January, 28 February, 31 March.
    /// <https://docs.stripe.com/billing/subscriptions/billing-cycle>
    pub(crate) fn boundary(self, anchor: i64, n: i64) -> i64 {
        let steps = n * i64::from(self.count);
        match self.unit {
            Unit::Day => anchor + steps * DAY,
            Unit::Week => anchor + steps * 7 * DAY,
            Unit::Month => plus_months(anchor, steps),
            Unit::Year => plus_months(anchor, steps * 12),
        }
    }

    /// The cycle around `at`: the last boundary at or before it and the first one after it.
    pub(crate) fn cycle(self, anchor: i64, at: i64) -> (i64, i64) {
        let shortest = i64::from(self.count)
            * match self.unit {
                Unit::Day => DAY,
                Unit::Week => 7 * DAY,
                Unit::Month => 31 * DAY,
                Unit::Year => 366 * DAY,
            };
        // With the longest cycle as divisor this is never past `at` (for an anchor in the past), so the walk is short.
        let mut n = (at - anchor).div_euclid(shortest);
        while self.boundary(anchor, n) > at {
            n -= 1;
        }
        while self.boundary(anchor, n + 1) <= at {
            n += 1;
        }
        (self.boundary(anchor, n), self.boundary(anchor, n + 1))
    }
}

/// Months are added to the anchor itself, never to a boundary, so a clamped day does not stick.
fn plus_months(anchor: i64, months: i64) -> i64 {
    let step = Months::new(u32::try_from(months.unsigned_abs()).unwrap_or(u32::MAX));
    let moved = DateTime::from_timestamp(anchor, 0).and_then(|anchor| {
        if months < 0 {
            anchor.checked_sub_months(step)
        } else {
            anchor.checked_add_months(step)
        }
    });
    moved.map_or(i64::MAX, |moved| moved.timestamp())
}

/// `16 Jan 2026`, as proration lines name a day.
pub(crate) fn day_name(at: i64) -> String {
    DateTime::from_timestamp(at, 0).map_or_else(String::new, |at| at.format("%d %b %Y").to_string())
}

/// RFC 3339 with milliseconds, as v2 objects show times.
pub(crate) fn rfc3339(at: i64) -> String {
    DateTime::from_timestamp(at, 0).map_or_else(String::new, |at| at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).expect("a time").timestamp()
    }

    const MONTHLY: Interval = Interval {
        unit: Unit::Month,
        count: 1,
    };

    #[test]
    fn month_ends_clamp_and_return() {
        let anchor = at("2027-01-31T10:17:23Z");
        assert_eq!(MONTHLY.boundary(anchor, 1), at("2027-02-28T10:17:23Z"));
        assert_eq!(MONTHLY.boundary(anchor, 2), at("2027-03-31T10:17:23Z"));
        assert_eq!(MONTHLY.boundary(anchor, 13), at("2028-02-29T10:17:23Z"));
        assert_eq!(
            MONTHLY.cycle(anchor, at("2027-02-28T10:17:23Z")),
            (at("2027-02-28T10:17:23Z"), at("2027-03-31T10:17:23Z"))
        );
        assert_eq!(
            MONTHLY.cycle(anchor, at("2027-02-28T10:17:22Z")),
            (anchor, at("2027-02-28T10:17:23Z"))
        );
    }

    #[test]
    fn a_leap_day_returns_after_four_years() {
        let yearly = Interval {
            unit: Unit::Year,
            count: 1,
        };
        let anchor = at("2028-02-29T00:00:00Z");
        assert_eq!(yearly.boundary(anchor, 1), at("2029-02-28T00:00:00Z"));
        assert_eq!(yearly.boundary(anchor, 4), at("2032-02-29T00:00:00Z"));
    }

    #[test]
    fn an_anchor_may_lie_ahead() {
        let anchor = at("2027-03-31T00:00:00Z");
        assert_eq!(
            MONTHLY.cycle(anchor, at("2027-03-10T00:00:00Z")),
            (at("2027-02-28T00:00:00Z"), anchor)
        );
    }
}
