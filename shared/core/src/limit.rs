//! The sliding-window counter: the present window's units plus the share of the previous window that is still inside.
//!
//! At `e` milliseconds into a window of length `L`, the previous window weighs `(L - e) / L`, rounded up to whole units, so
//! the approximation never admits more than it counts. The estimate assumes that the previous window's units came evenly.

use crate::{tiers::Limit, time::Timestamp};

/// Which window a point in time lies in.
#[must_use]
pub fn window_index(limit: Limit, now: Timestamp) -> u64 {
    now.ms() / limit.window_ms
}

/// Milliseconds until the present window ends: from 1 to the window's length.
#[must_use]
pub fn ms_left(limit: Limit, now: Timestamp) -> u64 {
    limit.window_ms - now.ms() % limit.window_ms
}

/// What `previous` units of the window before still weigh, rounded up.
#[must_use]
pub fn carried(limit: Limit, previous: u64, now: Timestamp) -> u64 {
    let weighed = u128::from(previous) * u128::from(ms_left(limit, now));
    narrow(weighed.div_ceil(u128::from(limit.window_ms)))
}

/// The largest previous count that weighs at most `room` units now. For whole `room`, ceil(x) <= room means x <= room.
#[must_use]
pub fn previous_max(limit: Limit, room: u64, now: Timestamp) -> u64 {
    narrow(u128::from(room) * u128::from(limit.window_ms) / u128::from(ms_left(limit, now)))
}

/// The first moment from `now` on at which `cost` units are admitted if nobody else takes any; `None` if they never are,
/// because they are more than the limit. `count` gives the units of a window by its index.
#[must_use]
pub fn earliest(limit: Limit, cost: u64, now: Timestamp, count: impl Fn(u64) -> u64) -> Option<Timestamp> {
    let units_free = limit.units.checked_sub(cost)?;
    let first = window_index(limit, now);
    // Only the present window, the one before, and one that a fast clock opened already hold units: three windows on, all
    // is free again.
    for index in first..first.saturating_add(4) {
        let Some(room) = units_free.checked_sub(count(index)) else {
            continue;
        };
        let previous = index.checked_sub(1).map_or(0, &count);
        let start = index.saturating_mul(limit.window_ms);
        let from = if previous == 0 {
            start
        } else {
            let left = narrow(u128::from(room) * u128::from(limit.window_ms) / u128::from(previous));
            if left == 0 {
                continue;
            }
            start.saturating_add(limit.window_ms - left.min(limit.window_ms))
        };
        return Some(now.max(Timestamp::from_ms(from)));
    }
    Some(Timestamp::from_ms(
        first.saturating_add(4).saturating_mul(limit.window_ms),
    ))
}

fn narrow(n: u128) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
