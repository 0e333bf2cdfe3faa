//! What no message told: every bucket that a counter item still holds gets its row.

use std::{collections::HashMap, sync::Arc};

use farebox_aws::ledger::RowWrite;
use farebox_core::{
    account::Customer,
    admission::{Counters, parse_bucket_attribute},
    id::{CustomerId, Generation},
    ledger::{self, RowKey},
    time::HOUR_S,
};
use serde::Serialize;

use crate::{Deps, Error, concurrent};

/// Writes under way at a time.
const WRITES_MAX: usize = 16;

/// What a scan found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ScanReport {
    /// Counter items.
    pub items: u64,
    /// Buckets that they hold.
    pub buckets: u64,
    /// Rows that were opened, or were open and said less.
    pub folded_rows: u64,
    /// What failed; each is logged.
    pub errors: u64,
}

pub(crate) async fn scan(deps: &Arc<Deps>) -> Result<ScanReport, Error> {
    let mut report = ScanReport::default();
    let mut by_customer: HashMap<CustomerId, Vec<(u32, Counters)>> = HashMap::new();
    for (customer, shard, counters) in deps.counters.scan().await? {
        report.items += 1;
        by_customer.entry(customer).or_default().push((shard, counters));
    }
    let scanned = concurrent::each(by_customer, WRITES_MAX, |(id, items)| {
        scan_customer(Arc::clone(deps), id, items)
    });
    for customer in scanned.await {
        report.buckets += customer.buckets;
        report.folded_rows += customer.folded_rows;
        report.errors += customer.errors;
    }
    tracing::info!(
        items = report.items,
        buckets = report.buckets,
        folded_rows = report.folded_rows,
        errors = report.errors,
        "scanned"
    );
    Ok(report)
}

async fn scan_customer(deps: Arc<Deps>, id: CustomerId, items: Vec<(u32, Counters)>) -> ScanReport {
    let mut report = ScanReport::default();
    let customer = match deps.accounts.customer(&id).await {
        Ok(customer) => customer,
        Err(error) => {
            tracing::error!(customer = %id, %error, "scan failed");
            return ScanReport { errors: 1, ..report };
        }
    };
    for (shard, item) in items {
        let Ok(generation) = Generation::try_from(item.generation.clone()) else {
            tracing::error!(customer = %id, shard, "scan failed: the counter item's generation is not readable");
            report.errors += 1;
            continue;
        };
        for (key, units) in rows(&id, shard, &generation, &item) {
            report.buckets += 1;
            let end = bucket_end(customer.as_ref(), key.bucket);
            match deps.ledger.write(&key, ledger::fold(&key, end, units)).await {
                Ok(RowWrite::Applied(_)) => report.folded_rows += 1,
                Ok(RowWrite::Refused(_)) => {}
                Err(error) => {
                    tracing::error!(row = %key, %error, "scan failed");
                    report.errors += 1;
                }
            }
        }
    }
    report
}

/// The rows that an item's buckets belong to, with the units that the item has counted.
fn rows(id: &CustomerId, shard: u32, generation: &Generation, item: &Counters) -> Vec<(RowKey, u64)> {
    let row = |(name, &units): (&String, &u64)| {
        let (bucket, meter) = parse_bucket_attribute(name)?;
        let (customer, generation, meter) = (id.clone(), generation.clone(), meter.to_owned());
        Some((
            RowKey {
                customer,
                shard,
                generation,
                meter,
                bucket,
            },
            units,
        ))
    };
    item.units.iter().filter_map(row).collect()
}

/// Where a bucket ends: by the customer's billing periods, or with its hour if nobody knows them any more.
fn bucket_end(customer: Option<&Customer>, bucket: u64) -> u64 {
    let hour_end = (bucket - bucket % HOUR_S).saturating_add(HOUR_S);
    customer
        .map(|customer| customer.cycle.bucket_at(bucket).end)
        .filter(|&end| end > bucket)
        .unwrap_or(hour_end)
}
