//! What no message told: every bucket that a counter item still holds gets its row.

use std::{collections::BTreeMap, sync::Arc};

use farebox_aws::ledger::RowWrite;
use farebox_billing::{each, rows};
use farebox_core::{account::Customer, admission::Counters, alert::Occasion, id::CustomerId, ledger, time::HOUR_S};
use serde::Serialize;

use crate::{Deps, Error};

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
    /// Keys that expire soon, whose owners are told.
    pub expiring_keys: u64,
    /// What failed; each is logged.
    pub errors: u64,
}

/// The owner of a key is told this long before it expires.
const KEY_NOTICE_S: u64 = 7 * 86_400;

pub(crate) async fn scan(deps: &Arc<Deps>) -> Result<ScanReport, Error> {
    let mut report = ScanReport::default();
    let mut by_customer: BTreeMap<CustomerId, Vec<(u32, Counters)>> = BTreeMap::new();
    let scanned = deps.books.counters.scan().await?;
    report.errors += scanned.unreadable;
    for (customer, shard, counters) in scanned.items {
        report.items += 1;
        by_customer.entry(customer).or_default().push((shard, counters));
    }
    let scanned = each(by_customer, WRITES_MAX, |(id, items)| {
        scan_customer(Arc::clone(deps), id, items)
    });
    for customer in scanned.await {
        report.buckets += customer.buckets;
        report.folded_rows += customer.folded_rows;
        report.errors += customer.errors;
    }
    match tell_of_expiring_keys(deps).await {
        Ok(keys) => report.expiring_keys = keys,
        Err(error) => {
            tracing::error!(%error, "keys that expire soon could not be told of");
            report.errors += 1;
        }
    }
    tracing::info!(
        items = report.items,
        buckets = report.buckets,
        folded_rows = report.folded_rows,
        expiring_keys = report.expiring_keys,
        errors = report.errors,
        "scanned"
    );
    Ok(report)
}

/// Tells the owners of keys that expire soon, once per key and date.
async fn tell_of_expiring_keys(deps: &Deps) -> Result<u64, Error> {
    let now = deps.now();
    let keys = deps
        .books
        .accounts
        .keys_expiring(now, now.plus_ms(KEY_NOTICE_S * 1_000))
        .await?;
    let mut told = 0;
    for (hash, key) in keys {
        let Some(expires) = key.expires else { continue };
        let Some(customer) = deps.books.accounts.customer(&key.customer).await? else {
            continue;
        };
        let occasion = Occasion::KeyExpiring {
            name: key.name,
            prefix: key.prefix,
            last_four: key.last_four,
            expires: expires.s(),
        };
        let id = format!("key-expiring-{hash}-{}", expires.s());
        deps.books.alert(id, Some(&customer), occasion).await?;
        told += 1;
    }
    Ok(told)
}

async fn scan_customer(deps: Arc<Deps>, id: CustomerId, items: Vec<(u32, Counters)>) -> ScanReport {
    let mut report = ScanReport::default();
    let customer = match deps.books.accounts.customer(&id).await {
        Ok(customer) => customer,
        Err(error) => {
            tracing::error!(customer = %id, %error, "scan failed");
            return ScanReport { errors: 1, ..report };
        }
    };
    for (shard, item) in items {
        for (key, units) in rows(&id, shard, &item) {
            report.buckets += 1;
            let end = bucket_end(customer.as_ref(), key.bucket);
            match deps.books.ledger.write(&key, ledger::fold(&key, end, units)).await {
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

/// Where a bucket ends: by the customer's billing periods, or with its hour if nobody knows them any more.
fn bucket_end(customer: Option<&Customer>, bucket: u64) -> u64 {
    let hour_end = (bucket - bucket % HOUR_S).saturating_add(HOUR_S);
    customer
        .map(|customer| customer.cycle.bucket_at(bucket).end)
        .filter(|&end| end > bucket)
        .unwrap_or(hour_end)
}
