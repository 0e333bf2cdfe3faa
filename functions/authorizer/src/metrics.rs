//! What an environment counts, and when it says so.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use farebox_aws::telemetry::as_number;
use farebox_core::time::Timestamp;

use crate::Response;

/// A busy environment says what it counted this often: a line per request would cost more than the request. What was counted
/// since is lost with an environment that ends without being asked to; of that only what nobody bills.
const REPORT_MS: u64 = 10_000;

/// The codes of answers, and the metrics that count them.
const CODES: [(&str, &str); 15] = [
    ("ok", "decisions_ok"),
    ("rate_limited", "decisions_rate_limited"),
    ("quota_exceeded", "decisions_quota_exceeded"),
    ("uncounted", "decisions_uncounted"),
    ("unavailable", "unavailable_total"),
    ("spend_cap_reached", "decisions_spend_cap_reached"),
    ("cost_too_high", "decisions_cost_too_high"),
    ("not_in_tier", "decisions_not_in_tier"),
    ("no_such_route", "decisions_no_such_route"),
    ("out_of_scope", "decisions_out_of_scope"),
    ("customer_suspended", "decisions_customer_suspended"),
    ("subscription_ended", "decisions_subscription_ended"),
    ("subscription_incomplete", "decisions_subscription_incomplete"),
    ("subscription_paused", "decisions_subscription_paused"),
    ("payment_overdue", "decisions_payment_overdue"),
];

/// What an environment counted since it started.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Requests that were decided.
    pub decisions: AtomicU64,
    /// Requests that were not let through, without those whose key opens nothing.
    pub denials: AtomicU64,
    /// Requests without a key that opens anything.
    pub unauthorized: AtomicU64,
    /// Conditional writes to counter items.
    pub writes: AtomicU64,
    /// Reads of tables.
    pub reads: AtomicU64,
    /// Denials that were remembered and cost no write.
    pub remembered: AtomicU64,
    /// Writes of which nobody knows whether they counted: a bound on what was served and not billed.
    pub ambiguous_total: AtomicU64,
    /// Denials of a tier that blocks after such a write: a bound on what was counted and not served.
    pub uncredited_total: AtomicU64,
    /// Usage messages that the queue took.
    pub usage_sent: AtomicU64,
    /// Usage messages that it did not take; they are sent again.
    pub usage_failed: AtomicU64,
    by_code: [AtomicU64; CODES.len()],
    reported: Mutex<Reported>,
}

#[derive(Debug, Default)]
struct Reported {
    at: Timestamp,
    values: Vec<u64>,
}

impl Metrics {
    /// Counts an answer; `None` is that the key opens nothing.
    pub(crate) fn decided(&self, answer: Option<&Response>) {
        self.decisions.fetch_add(1, Relaxed);
        let Some(answer) = answer else {
            self.unauthorized.fetch_add(1, Relaxed);
            return;
        };
        let code = answer.code();
        if !matches!(code, "ok" | "uncounted") {
            self.denials.fetch_add(1, Relaxed);
        }
        if let Some(at) = CODES.iter().position(|(known, _)| *known == code)
            && let Some(counter) = self.by_code.get(at)
        {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// What to say now: what was counted since this last said something. Nothing if that is under ten seconds ago, unless an
    /// operator waits for it, or `all` is asked for.
    pub fn due(&self, now: Timestamp, all: bool) -> Vec<(&'static str, f64)> {
        let values = self.values();
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let before = |i: usize| reported.values.get(i).copied().unwrap_or(0);
        let moved: Vec<(&'static str, u64)> = values
            .iter()
            .enumerate()
            .filter_map(|(i, (name, value))| Some((*name, value.checked_sub(before(i)).filter(|&moved| moved > 0)?)))
            .collect();
        let is_urgent = moved.iter().any(|(name, _)| name.ends_with("_total"));
        if moved.is_empty() || !(all || is_urgent || now.ms_since(reported.at) >= REPORT_MS) {
            return Vec::new();
        }
        *reported = Reported {
            at: now,
            values: values.into_iter().map(|(_, value)| value).collect(),
        };
        moved
            .into_iter()
            .map(|(name, moved)| (name, as_number(moved)))
            .collect()
    }

    fn values(&self) -> Vec<(&'static str, u64)> {
        let named = [
            ("decisions", &self.decisions),
            ("denials", &self.denials),
            ("decisions_unauthorized", &self.unauthorized),
            ("writes", &self.writes),
            ("reads", &self.reads),
            ("remembered", &self.remembered),
            ("ambiguous_total", &self.ambiguous_total),
            ("uncredited_total", &self.uncredited_total),
            ("usage_sent", &self.usage_sent),
            ("usage_failed", &self.usage_failed),
        ];
        let by_code = CODES.iter().map(|(_, metric)| *metric).zip(&self.by_code);
        let all = named.into_iter().chain(by_code);
        all.map(|(name, value)| (name, value.load(Relaxed))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use farebox_core::time::Timestamp;

    use super::Metrics;

    #[test]
    fn what_was_counted_is_said_once_every_ten_seconds_and_trouble_at_once() {
        let metrics = Metrics::default();
        let at = |ms: u64| metrics.due(Timestamp::from_ms(1_000_000 + ms), false);
        assert_eq!(at(0), []);
        metrics.writes.fetch_add(1, Relaxed);
        assert_eq!(at(0), [("writes", 1.0)]);
        metrics.writes.fetch_add(2, Relaxed);
        assert_eq!(at(9_999), []);
        assert_eq!(at(10_000), [("writes", 2.0)]);
        assert_eq!(at(30_000), []);
        metrics.reads.fetch_add(1, Relaxed);
        assert_eq!(at(30_000), [("reads", 1.0)]);
        metrics.reads.fetch_add(1, Relaxed);
        metrics.ambiguous_total.fetch_add(1, Relaxed);
        assert_eq!(at(30_001), [("reads", 1.0), ("ambiguous_total", 1.0)]);
        metrics.reads.fetch_add(1, Relaxed);
        assert_eq!(
            metrics.due(Timestamp::from_ms(0), true),
            [("reads", 1.0)],
            "whatever the clock does"
        );
    }
}
