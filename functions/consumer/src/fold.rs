//! From messages to ledger rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use farebox_aws::ledger::{Alert, RowWrite};
use farebox_billing::each;
use farebox_core::{
    ledger::{self, REPORT_WITHIN_S, RowKey},
    message::{BadMessage, UsageMessage},
    time::Timestamp,
};
use serde::Serialize;

use crate::{
    Deps, Error,
    alerts::{self, Memory, Standing, Topic},
};

/// Writes under way at a time.
const WRITES_MAX: usize = 16;

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FoldReport {
    /// The ids of the messages that failed: the queue delivers them again, and at last to the dead-letter queue.
    pub failed: Vec<String>,
    /// Rows that were opened or raised.
    pub folded_rows: u64,
    /// Messages dropped because Stripe would not take their bucket any more.
    pub stale_dropped: u64,
    /// Alerts that nobody had noted before.
    pub alerts: Vec<Alert>,
}

/// A batch, folded: the maximum per row, and where each customer stands.
#[derive(Debug, Default)]
struct Batch {
    rows: BTreeMap<RowKey, RowFold>,
    standings: BTreeMap<Topic, (Standing, Ids)>,
    poison: Vec<(String, BadMessage)>,
    stale: u64,
}

/// What the messages say of a row.
#[derive(Debug)]
struct RowFold {
    units: u64,
    /// The earliest of those that the messages name: a report must not be stamped past the end of its billing period.
    bucket_end: u64,
    ids: Ids,
}

/// The ids of the messages that something was made of.
type Ids = Vec<String>;

pub(crate) async fn fold(deps: &Arc<Deps>, memory: &Arc<Memory>, records: &[(String, String)]) -> FoldReport {
    let batch = gather(records, deps.now());
    let mut report = FoldReport {
        stale_dropped: batch.stale,
        ..FoldReport::default()
    };
    let mut failed = BTreeSet::new();

    for (id, reason) in batch.poison {
        tracing::error!(message_id = id, %reason, "poison message");
        failed.insert(id);
    }
    let written = each(batch.rows, WRITES_MAX, |(key, row)| write(Arc::clone(deps), key, row));
    for (is_folded, ids) in written.await {
        report.folded_rows += u64::from(is_folded);
        failed.extend(ids);
    }
    let noticed = each(batch.standings, WRITES_MAX, |(topic, (standing, ids))| {
        notice(Arc::clone(deps), Arc::clone(memory), topic, standing, ids)
    });
    for (alerts, ids) in noticed.await {
        report.alerts.extend(alerts);
        failed.extend(ids);
    }
    report.failed = failed.into_iter().collect();
    tracing::info!(
        messages = records.len(),
        failed = report.failed.len(),
        folded_rows = report.folded_rows,
        stale_dropped = report.stale_dropped,
        alerts = report.alerts.len(),
        "folded"
    );
    report
}

/// Reads the messages and folds them. Values are cumulative: of each row only the largest counts.
fn gather(records: &[(String, String)], now: Timestamp) -> Batch {
    let mut batch = Batch::default();
    for (id, body) in records {
        match UsageMessage::parse(body) {
            Ok(message) if is_stale(&message, now) => batch.stale += 1,
            Ok(message) => batch.take(id, &message),
            Err(reason) => batch.poison.push((id.clone(), reason)),
        }
    }
    batch
}

fn is_stale(message: &UsageMessage, now: Timestamp) -> bool {
    message.bucket.saturating_add(REPORT_WITHIN_S) < now.s()
}

impl Batch {
    fn take(&mut self, id: &str, message: &UsageMessage) {
        let row = self.rows.entry(RowKey::of(message)).or_insert_with(|| RowFold {
            units: 0,
            bucket_end: message.bucket_end,
            ids: Ids::new(),
        });
        row.units = row.units.max(message.units);
        row.bucket_end = row.bucket_end.min(message.bucket_end);
        row.ids.push(id.to_owned());
        if message.included.is_some() || message.cap.is_some() {
            let (standing, ids) = self.standings.entry(Topic::of(message)).or_default();
            standing.fold(message);
            ids.push(id.to_owned());
        }
    }
}

/// Folds into one row: whether it said less before, and the messages that failed.
async fn write(deps: Arc<Deps>, key: RowKey, row: RowFold) -> (bool, Ids) {
    match deps
        .books
        .ledger
        .write(&key, ledger::fold(&key, row.bucket_end, row.units))
        .await
    {
        Ok(RowWrite::Applied(_)) => (true, Ids::new()),
        // A duplicate, or the row is sealed: then the counter has told it everything.
        Ok(RowWrite::Refused(_)) => (false, Ids::new()),
        Err(error) => (false, failed(&key, &error.into(), row.ids)),
    }
}

/// Notices one customer's thresholds: the new alerts, and the messages that failed.
async fn notice(deps: Arc<Deps>, memory: Arc<Memory>, topic: Topic, standing: Standing, ids: Ids) -> (Vec<Alert>, Ids) {
    let mut noted = Vec::new();
    match alerts::notice(&deps, &memory, &topic, &standing, &mut noted).await {
        Ok(()) => (noted, Ids::new()),
        Err(error) => (noted, failed(&topic.customer, &error, ids)),
    }
}

fn failed(what: &dyn std::fmt::Display, error: &Error, ids: Ids) -> Ids {
    tracing::error!(of = %what, %error, messages = ids.len(), "fold failed");
    ids
}

#[cfg(test)]
mod tests {
    use farebox_core::time::Timestamp;
    use serde_json::json;

    use super::{REPORT_WITHIN_S, gather};

    const HOUR: u64 = 1_700_002_800;

    fn message(units: u64, bucket: u64) -> String {
        json!({
            "v": 1, "customer": "acme", "shard": 0, "generation": "0123456789abcdef-0", "meter": "api_calls",
            "bucket": bucket, "bucket_end": bucket + 3_600, "units": units, "period": HOUR - 7_200, "period_units": units,
            "plan": "pro-00000000", "included": 100, "alert_percents": [80], "at": units,
        })
        .to_string()
    }

    #[test]
    fn a_batch_is_the_maximum_per_row_and_poison_is_alone() {
        let record = |id: &str, body: String| (id.to_owned(), body);
        let records = [
            record("a", message(5, HOUR)),
            record("b", message(9, HOUR)),
            record("c", message(7, HOUR)),
            record("d", message(1, HOUR + 3_600)),
            record("e", "{".to_owned()),
        ];

        let batch = gather(&records, Timestamp::from_s(HOUR));

        let rows: Vec<(u64, u64, usize)> = batch
            .rows
            .iter()
            .map(|(key, row)| (key.bucket, row.units, row.ids.len()))
            .collect();
        assert_eq!(rows, [(HOUR, 9, 3), (HOUR + 3_600, 1, 1)]);
        assert_eq!(batch.standings.len(), 1);
        assert_eq!(
            batch.poison.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(),
            ["e"]
        );
    }

    #[test]
    fn a_message_is_stale_once_stripe_would_not_take_its_bucket() {
        let records = [("a".to_owned(), message(5, HOUR))];
        assert_eq!(gather(&records, Timestamp::from_s(HOUR + REPORT_WITHIN_S)).stale, 0);
        assert_eq!(gather(&records, Timestamp::from_s(HOUR + REPORT_WITHIN_S + 1)).stale, 1);
    }
}
