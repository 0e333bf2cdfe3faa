//! Whether every amount is exact.

use std::collections::BTreeMap;

use farebox_billing::Asked;
use farebox_core::{
    admission::parse_bucket_attribute,
    ledger::{Row, RowState},
};

use crate::world::{CAP, Told, World};

/// What an audit found.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// What is wrong, one sentence each.
    pub(crate) problems: Vec<String>,
    /// Units that were counted.
    pub(crate) counted: u64,
    /// Units in parked rows.
    pub(crate) parked: u64,
}

impl World {
    /// Compares what the table counted with the ledger, with Stripe and with what callers were told: per customer, plan and
    /// bucket, to the unit. Nothing of it goes through a proxy.
    pub(crate) async fn audit(&self) -> Audit {
        let mut audit = Audit::default();
        let (rows, _) = self.system.books.ledger.scan().await.expect("the ledger is readable");
        self.wires(&mut audit);
        self.buckets(&rows, &mut audit);
        self.reports(&rows, &mut audit).await;
        self.callers(&mut audit);
        self.counters(&rows, &mut audit).await;
        self.reconciled(&rows, &mut audit).await;
        self.once(&rows, &mut audit).await;
        audit
    }

    fn wires(&self, audit: &mut Audit) {
        for refused in self.wire.refused() {
            audit
                .problems
                .push(format!("what template.yaml does not allow: {refused}"));
        }
        for unlisted in self.wire.unlisted() {
            audit
                .problems
                .push(format!("a call that no call site names: {unlisted}"));
        }
        if self.wire.repeated() > 0 {
            audit
                .problems
                .push("a write that counts was tried again though its outcome was not known".to_owned());
        }
    }

    /// Counter = ledger, bucket by bucket.
    fn buckets(&self, rows: &[Row], audit: &mut Audit) {
        let mut counted: BTreeMap<(String, u64), u64> = BTreeMap::new();
        for ((item, attribute), units) in self.wire.counted() {
            let (bucket, _) = parse_bucket_attribute(&attribute).expect("a bucket");
            *counted.entry((item, bucket)).or_default() += units;
            audit.counted += units;
        }
        let mut in_ledger: BTreeMap<(String, u64), u64> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.units > 0) {
            let item = format!("{}#{}", row.key.customer, row.key.shard);
            *in_ledger.entry((item, row.key.bucket)).or_default() += row.units;
        }
        if counted != in_ledger {
            audit
                .problems
                .push(format!("the counters had {counted:?}, the ledger has {in_ledger:?}"));
        }
    }

    /// Ledger = Stripe, minute by minute and in total, under the name that settles the price.
    async fn reports(&self, rows: &[Row], audit: &mut Audit) {
        let stripe = &self.system.services.stripe;
        let meters = stripe.meters().await.expect("Stripe answers");
        let mut minutes: BTreeMap<(String, String, u64), u64> = BTreeMap::new();
        let mut totals: BTreeMap<(String, String), u64> = BTreeMap::new();
        for row in rows {
            let Some(report) = &row.report else {
                let is_nobodys = row.key.customer.as_str() == "outside";
                let is_closed = row.state == RowState::Reported && (row.credit == row.units || is_nobodys);
                if !is_closed {
                    audit.problems.push(format!(
                        "{} is {:?} without a report: {:?}",
                        row.key, row.state, row.outcome
                    ));
                }
                continue;
            };
            if report.value + row.credit != row.units {
                audit
                    .problems
                    .push(format!("{} says {} of {} units", row.key, report.value, row.units));
            }
            let of = (report.stripe_customer.clone(), report.event_name.clone());
            let value = match row.state {
                RowState::Reported => report.value,
                RowState::Parked => {
                    audit.parked += row.units;
                    0
                }
                state => {
                    audit.problems.push(format!("{} is still {state:?}", row.key));
                    0
                }
            };
            *totals.entry(of.clone()).or_default() += value;
            *minutes.entry((of.0, of.1, report.timestamp / 60 * 60)).or_default() += value;
        }
        for ((customer, event, minute), value) in minutes {
            let meter = meters
                .iter()
                .find(|meter| meter.event_name == event)
                .expect("the meter exists");
            let minute = i64::try_from(minute).expect("a time");
            let sum = stripe
                .event_summary(&meter.id, &customer, minute, minute + 60)
                .await
                .expect("Stripe answers");
            if sum != value {
                audit
                    .problems
                    .push(format!("Stripe has {sum} of {event} in {minute}, the ledger {value}"));
            }
        }
        let snapshot = self.system.services.stand_in.snapshot();
        for customer in snapshot["customers"].as_array().into_iter().flatten() {
            let id = customer["id"].as_str().unwrap_or_default();
            for (event, total) in customer["meters"].as_object().into_iter().flatten() {
                let value = totals.remove(&(id.to_owned(), event.clone())).unwrap_or(0);
                if total.as_u64() != Some(value) {
                    audit
                        .problems
                        .push(format!("Stripe has {total} of {event} of {id}, the ledger {value}"));
                }
            }
        }
        if totals.values().any(|&value| value > 0) {
            audit.problems.push(format!("Stripe knows nothing of {totals:?}"));
        }
    }

    /// Callers = counter, but for the published error bounds.
    fn callers(&self, audit: &mut Audit) {
        let mut doubted_calls = 0;
        for (who, told) in &self.told {
            let of = format!("{who}#");
            let counted = self.wire.counted();
            let counted: u64 = counted
                .iter()
                .filter(|((item, _), _)| item.starts_with(&of))
                .map(|(_, units)| units)
                .sum();
            let Told {
                ok,
                ambiguous,
                uncounted,
                uncredited,
                doubled,
                doubted,
            } = *told;
            // Whatever was let through is counted, but for what nobody knows; and nothing else is.
            if counted < ok || counted > ok + ambiguous + uncredited + doubled {
                audit.problems.push(format!(
                    "{who}: {counted} units counted, and callers were told {told:?}"
                ));
            }
            if *who == "capped" && ok + ambiguous + uncounted > CAP {
                audit.problems.push(format!("capped: {told:?} goes beyond {CAP}"));
            }
            doubted_calls += doubted;
        }
        // The operator's metric is exactly that: a write in doubt is not tried again, so that a call has one at most.
        if doubted_calls != self.ambiguous_total() {
            audit.problems.push(format!(
                "{doubted_calls} calls in doubt, {} in the metric",
                self.ambiguous_total()
            ));
        }
    }

    /// What is reported is pruned, and a balance is used up exactly as the rows say.
    async fn counters(&self, rows: &[Row], audit: &mut Audit) {
        let books = &self.system.books;
        for (customer, shard, item) in books.counters.scan().await.expect("the counters are readable").items {
            // A parked row keeps its own bucket of its own item.
            let is_parked = |bucket: u64, meter: &str| {
                let of_item = |row: &&Row| row.key.customer == customer && row.key.shard == shard;
                let mut parked = rows.iter().filter(of_item).filter(|row| row.state == RowState::Parked);
                parked.any(|row| row.key.bucket == bucket && row.key.meter == meter)
            };
            let left = item
                .units
                .keys()
                .filter_map(|name| parse_bucket_attribute(name))
                .find(|&(bucket, meter)| !is_parked(bucket, meter));
            if let Some((bucket, _)) = left {
                audit
                    .problems
                    .push(format!("{customer}#{shard} still has bucket {bucket}"));
            }
        }
        for who in self.told.keys() {
            let id = crate::world::id(who);
            let balance = books
                .ledger
                .balance(&id, "api_calls")
                .await
                .expect("the balance is readable");
            let taken: u64 = rows
                .iter()
                .filter(|row| row.key.customer == id)
                .map(|row| row.credit)
                .sum();
            if balance.taken != taken || taken > balance.granted {
                audit
                    .problems
                    .push(format!("{who}: {balance:?}, and rows have taken {taken}"));
            }
        }
    }

    /// What `farebox reconcile --invoice` says of every period that is over. Only where no fault struck: a report that is held up for
    /// an hour comes when the invoice is final.
    pub(crate) async fn invoices(&self) -> Vec<String> {
        let books = &self.system.books;
        let reconciler = books.reconciler().await.expect("everything is readable");
        let (mut problems, mut billed) = (Vec::new(), 0);
        for customer in books.accounts.customers().await.expect("the customers are readable") {
            let mut period = customer.cycle.period_at(customer.cycle.anchor);
            while period.end < self.now_s() {
                let asked = Asked {
                    each_row: false,
                    invoice: true,
                };
                let found = reconciler.customer(&customer, period, asked).await;
                let found = found.expect("everything is readable");
                let invoices = found.sums.iter().filter_map(|sum| sum.invoice.as_ref());
                billed += invoices.map(|invoice| invoice.quantity).sum::<u64>();
                if !found.agrees() || found.pending > 0 {
                    problems.push(format!("the invoice of {} for {period:?}: {found:?}", customer.id));
                }
                period = customer.cycle.period_at(period.end);
            }
        }
        if billed == 0 {
            problems.push("no invoice bills anything".to_owned());
        }
        problems
    }

    /// What `farebox reconcile` says of every period in which no row of the customer's is parked.
    async fn reconciled(&self, rows: &[Row], audit: &mut Audit) {
        let books = &self.system.books;
        let reconciler = books.reconciler().await.expect("everything is readable");
        for customer in books.accounts.customers().await.expect("the customers are readable") {
            let mut at = customer.cycle.anchor;
            while at <= self.now_s() {
                let period = customer.cycle.period_at(at);
                let asked = Asked {
                    each_row: true,
                    invoice: false,
                };
                let found = reconciler
                    .customer(&customer, period, asked)
                    .await
                    .expect("everything is readable");
                let is_parked = rows.iter().any(|row| {
                    row.state == RowState::Parked && row.key.customer == customer.id && period.contains(row.key.bucket)
                });
                if (!found.agrees() || found.pending > 0) && !is_parked {
                    audit
                        .problems
                        .push(format!("reconcile of {} {period:?}: {found:?}", customer.id));
                }
                at = period.end;
            }
        }
    }
}
