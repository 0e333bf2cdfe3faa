//! What an invocation did, as metrics.

use farebox_aws::telemetry::{count, gauge};
use farebox_core::{ledger::SEAL_DELAY_S, time::HOUR_S};

use crate::{FoldReport, ScanReport, TickReport};

pub(crate) fn folded(messages: usize, report: &FoldReport) {
    count("messages", messages as u64);
    count("messages_failed", report.failed.len() as u64);
    count("folded_rows", report.folded_rows);
    count("stale_dropped_total", report.stale_dropped);
    count("alerts_noted", report.alerts.len() as u64);
}

pub(crate) fn ticked(report: &TickReport) {
    count("sealed", report.sealed);
    count("reported", report.reported);
    count("retried", report.retried);
    count("claims_dropped", report.dropped);
    count("parked_total", report.parked);
    count("row_errors_total", report.errors);
}

pub(crate) fn scanned(report: &ScanReport) {
    count("folded_rows", report.folded_rows);
    count("row_errors_total", report.errors);
}

/// How long the oldest bucket waits that is not done with; 0 without one. Silence is an alarm, so this is said with every tick.
pub(crate) fn unreported(oldest_bucket: Option<u64>, now_s: u64) {
    gauge("unreported_age_hours", age_h(oldest_bucket, now_s));
}

fn age_h(oldest_bucket: Option<u64>, now_s: u64) -> f64 {
    let due = oldest_bucket.map(|start| (start - start % HOUR_S).saturating_add(HOUR_S + SEAL_DELAY_S));
    let age_s = due.map_or(0, |due| now_s.saturating_sub(due));
    farebox_aws::telemetry::as_number(age_s) / farebox_aws::telemetry::as_number(HOUR_S)
}

#[cfg(test)]
mod tests {
    use farebox_core::{ledger::SEAL_DELAY_S, time::HOUR_S};

    use super::age_h;

    #[test]
    fn a_bucket_ages_from_when_it_is_due_first() {
        let bucket = 1_700_002_800;
        let due = bucket + HOUR_S + SEAL_DELAY_S;
        let ages = [due - 1, due, due + HOUR_S / 2, due + 6 * HOUR_S].map(|now| age_h(Some(bucket), now));
        assert_eq!(ages, [0.0, 0.0, 0.5, 6.0]);
        assert_eq!(
            age_h(Some(bucket + 1_200), due + HOUR_S),
            1.0,
            "a bucket that is cut ends with its hour"
        );
        assert_eq!(age_h(None, due), 0.0);
    }
}
