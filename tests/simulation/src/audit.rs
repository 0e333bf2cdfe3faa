//! What is true: every write that was committed, watched at the table itself, and what must hold of it at once.

use std::collections::BTreeMap;

use farebox_core::{admission::parse_bucket_attribute, ledger::RowKey};
use serde_json::Value;

/// A counter item, as far as it is watched.
#[derive(Clone, Debug, Default)]
struct Counter {
    generation: String,
    sealed: u64,
    units: BTreeMap<String, u64>,
}

/// A ledger row, as far as it is watched.
#[derive(Clone, Debug, Default)]
struct Row {
    state: String,
    units: u64,
    credit: u64,
}

/// How a request was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Let through, and counted.
    Admitted,
    /// Let through though the table did not say that it was counted.
    Uncounted,
    /// Not let through, with the code of the answer.
    Denied(String),
    /// The key opens nothing.
    Unauthorized,
}

/// A request, and what it did to the table.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) cost: u64,
    /// `None` if its environment died.
    pub(crate) verdict: Option<Verdict>,
    /// How often the write that counts it was committed.
    pub(crate) commits: u64,
    /// How often that write was sent.
    pub(crate) writes: u64,
    /// How often the table said whether it was done: it was, its condition did not hold, or the table was busy.
    pub(crate) answered: u64,
    /// How often that write ended so that nobody could know.
    pub(crate) unknown: u64,
}

/// The auditor.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    counters: BTreeMap<String, Counter>,
    rows: BTreeMap<RowKey, Row>,
    /// Units committed by admissions.
    pub(crate) counted: BTreeMap<RowKey, u64>,
    pub(crate) calls: Vec<Call>,
    pub(crate) violations: Vec<String>,
    /// Units that Stripe has at the end, and those that were given.
    pub(crate) reported: u64,
    pub(crate) given: u64,
    /// The largest value that each quota attribute had.
    pub(crate) quotas: BTreeMap<(String, String), u64>,
    /// The most that a window of so many milliseconds may hold.
    pub(crate) windows_max: BTreeMap<u64, u64>,
}

/// The tables' names end with what they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Accounts,
    Counters,
    Ledger,
}

impl Table {
    pub(crate) fn of(name: &Value) -> Self {
        match name.as_str().and_then(|name| name.rsplit('-').next()) {
            Some("counters") => Self::Counters,
            Some("ledger") => Self::Ledger,
            _ => Self::Accounts,
        }
    }
}

impl Audit {
    /// Units that were asked for by some requests.
    pub(crate) fn units(&self, which: impl Fn(&Call) -> bool) -> u64 {
        self.calls.iter().filter(|call| which(call)).map(|call| call.cost).sum()
    }

    pub(crate) fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    /// An item was written: how it is now. `call` is the request that wrote it, if one did.
    pub(crate) fn wrote(&mut self, table: Table, item: &Value, call: Option<usize>) {
        match table {
            Table::Accounts => {}
            Table::Counters => self.wrote_counter(item, call),
            Table::Ledger => self.wrote_row(item),
        }
    }

    fn wrote_counter(&mut self, item: &Value, call: Option<usize>) {
        let key = item["pk"]["S"].as_str().unwrap_or_default().to_owned();
        let mut now = Counter {
            generation: item["generation"]["S"].as_str().unwrap_or_default().to_owned(),
            sealed: number(&item["sealed"]),
            units: BTreeMap::new(),
        };
        for (name, value) in item.as_object().into_iter().flatten() {
            let units = number(value);
            if parse_bucket_attribute(name).is_some() {
                now.units.insert(name.clone(), units);
            } else if name.starts_with('q') {
                let known = self.quotas.entry((key.clone(), name.clone())).or_insert(0);
                *known = units.max(*known);
            } else if let Some(window) = name
                .strip_prefix('w')
                .and_then(|rest| rest.split('.').next()?.parse().ok())
                && self.windows_max.get(&window).is_some_and(|&max| units > max)
            {
                self.violation(format!(
                    "{key} {name} holds {units}, more than any limit of that window"
                ));
            }
        }
        let before = self.counters.insert(key.clone(), now.clone()).unwrap_or_default();
        if now.sealed < before.sealed {
            self.violation(format!(
                "the seal of {key} went back from {} to {}",
                before.sealed, now.sealed
            ));
        }
        let mut added = 0;
        for (name, &units) in &now.units {
            let more = units.saturating_sub(before.units.get(name).copied().unwrap_or(0));
            let Some((bucket, row)) = row_of(&key, &now.generation, name).filter(|_| more > 0) else {
                continue;
            };
            added += 1;
            *self.counted.entry(row).or_insert(0) += more;
            let Some(call) = call.and_then(|call| self.calls.get_mut(call)) else {
                self.violation(format!("{name} of {key} grew by {more} without a request"));
                continue;
            };
            call.commits += 1;
            let cost = call.cost;
            if cost != more {
                self.violation(format!(
                    "{name} of {key} grew by {more} for a request that costs {cost}"
                ));
            }
            if bucket <= before.sealed {
                self.violation(format!(
                    "a request was counted in {name} of {key}, sealed up to {}",
                    before.sealed
                ));
            }
        }
        if added > 1 {
            self.violation(format!("one write counted in {added} buckets of {key}"));
        }
        for (name, &units) in &before.units {
            if !now.units.contains_key(name) {
                self.pruned(&key, &before.generation, name, units);
            }
        }
    }

    /// A bucket left the counter item: its units must be written down elsewhere.
    fn pruned(&mut self, key: &str, generation: &str, name: &str, units: u64) {
        let Some((_, row)) = row_of(key, generation, name) else {
            return;
        };
        match self.rows.get(&row) {
            Some(kept) if kept.units == units && kept.state != "open" => {}
            Some(kept) if kept.units >= units && self.counters[key].generation != generation => {}
            kept => self.violation(format!("{units} units were pruned of {row}, whose row is {kept:?}")),
        }
    }

    fn wrote_row(&mut self, item: &Value) {
        // Alerts, grants and balances have a kind.
        if item.get("kind").is_some() {
            return;
        }
        let Some(key) = RowKey::parse(item["pk"]["S"].as_str().unwrap_or_default(), number(&item["sk"])) else {
            return;
        };
        let now = Row {
            state: item["state"]["S"].as_str().unwrap_or_default().to_owned(),
            units: number(&item["units"]),
            credit: number(&item["credit"]),
        };
        let before = self.rows.insert(key.clone(), now.clone());
        if let Some(before) = &before
            && rank(&now.state) < rank(&before.state)
        {
            self.violation(format!("row {key} went back from {} to {}", before.state, now.state));
        }
        let is_frozen = |row: &Row| rank(&row.state) > 0;
        match before.filter(is_frozen) {
            Some(before) if before.units != now.units || before.credit != now.credit => {
                self.violation(format!("the frozen row {key} changed from {before:?} to {now:?}"));
            }
            None if is_frozen(&now) => {
                let counted = self.counted.get(&key).copied().unwrap_or(0);
                if counted != now.units {
                    self.violation(format!(
                        "row {key} was frozen with {} units, {counted} were counted",
                        now.units
                    ));
                }
            }
            _ => {}
        }
    }
}

/// open, sealed, sending, then reported or parked.
fn rank(state: &str) -> u32 {
    match state {
        "sealed" => 1,
        "sending" => 2,
        "reported" | "parked" => 3,
        _ => 0,
    }
}

pub(crate) fn number(value: &Value) -> u64 {
    value["N"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The bucket and the row that an attribute of a counter item belongs to.
fn row_of(key: &str, generation: &str, attribute: &str) -> Option<(u64, RowKey)> {
    let (customer, shard) = key.split_once('#')?;
    let (bucket, meter) = parse_bucket_attribute(attribute)?;
    let row = RowKey {
        customer: customer.to_owned().try_into().ok()?,
        shard: shard.parse().ok()?,
        generation: generation.to_owned().try_into().ok()?,
        meter: meter.to_owned(),
        bucket,
    };
    Some((bucket, row))
}
