//! From open rows to Stripe: rows are sealed, frozen, reported and pruned.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use farebox_aws::{
    counters::{self, Updated},
    ledger::RowWrite,
};
use farebox_core::{
    account::Customer,
    admission::{Counters, parse_bucket_attribute},
    alert::Occasion,
    counter::{self, SealAnswer},
    expression::Expression,
    id::{CustomerId, Generation},
    ledger::{
        self, ASK_AFTER_S, Claim, NextStep, PUT_OFF_S, Report, Row, RowKey, RowState, have_minutes_of_their_own,
        next_step, report_timestamp, wait_until,
    },
    message::UNITS_MAX,
    time::{Bucket, Timestamp},
};
use farebox_stripe::MeterEvent;
use serde::Serialize;

use crate::{Books, Error, concurrent};

/// Rows taken from each partition of the work index: together more than a tick can report. What is left waits for the next one.
const ROWS_MAX: usize = 2_000;
/// Customers and meters worked on at a time: enough to keep to Stripe's rate limit while a call takes a quarter of a second.
const GROUPS_MAX: usize = 20;
/// A tick takes up no more rows after so many seconds: the function has 120, and the last call to Stripe may take 30.
const TICK_MAX_S: u64 = 80;
/// So many attempts in a row that fail for the moment, and Stripe is left alone for the rest of the run.
const FAILURES_MAX: u32 = 20;
/// Steps that a run does with a row: three lead from open to finished, the others are for beginning anew.
const STEPS_MAX: u32 = 8;

/// What a tick did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TickReport {
    /// Rows that were due.
    pub due: u64,
    /// Rows whose report was written down.
    pub sealed: u64,
    /// Rows closed because there is nothing to report, or nobody to bill.
    pub closed: u64,
    /// Rows that Stripe has.
    pub reported: u64,
    /// Attempts without an outcome; the row waits.
    pub retried: u64,
    /// Rows that need the operator.
    pub parked: u64,
    /// Claims that were too old to act on.
    pub dropped: u64,
    /// Rows whose counter is pruned: nothing is left to do.
    pub finished: u64,
    /// Rows that something went wrong with; each is logged.
    pub errors: u64,
}

impl TickReport {
    fn add(&mut self, other: Self) {
        self.due += other.due;
        self.sealed += other.sealed;
        self.closed += other.closed;
        self.reported += other.reported;
        self.retried += other.retried;
        self.parked += other.parked;
        self.dropped += other.dropped;
        self.finished += other.finished;
        self.errors += other.errors;
    }
}

/// How an attempt to report a row ended.
#[derive(Debug)]
enum Verdict {
    /// Stripe has it, and how we know.
    Delivered(&'static str),
    /// Nobody knows, or not now. `fault`: a 5xx was received, which Stripe may replay to the same idempotency key.
    Retry { cause: farebox_stripe::Error, fault: bool },
    /// The operator decides.
    Park(String),
    /// The claim got too old.
    Drop,
}

/// One run. Meters are looked up anew in each: an id outlived by its meter would answer 0 for what another one counted.
struct Run {
    books: Books,
    meters: Mutex<HashMap<String, String>>,
    /// Rows are worked on before they are due: their customer's period closes.
    is_closing: bool,
    /// From this second on no row is taken up; the next tick goes on with them.
    stop_at: u64,
    /// Attempts since the last one that ended well.
    failures: AtomicU32,
}

impl Books {
    /// Brings every row that is due as far as it gets: seals, freezes, reports, prunes.
    ///
    /// # Errors
    /// [`Error::Table`] if the due rows can't be asked for. What goes wrong with a row is logged and counted in the report; it
    /// stops no other row.
    pub async fn tick(&self) -> Result<TickReport, Error> {
        let began = self.now().s();
        let keys = self.ledger.due(began, ROWS_MAX).await?;
        Ok(self.run(keys, false, began.saturating_add(TICK_MAX_S)).await)
    }

    /// Opens a row for every bucket of a customer that began before a second, and brings these rows as far as they get, due or
    /// not: at a period's end, so that the invoice has everything, and before a subscription ends.
    ///
    /// A bucket that has not ended is sealed all the same: whoever is admitted after that is counted in the next one.
    ///
    /// # Errors
    /// [`Error::Table`] if the counter items can't be read; repeating is safe.
    pub async fn close(&self, customer: &Customer, until: u64) -> Result<TickReport, Error> {
        let is_closing = |key: &RowKey| key.bucket < until;
        let mut keys = self.ledger.waiting(&customer.id).await?;
        keys.retain(is_closing);
        for shard in 0..self.control().shards(customer).await? {
            let Some(item) = self.counters.read(&counters::key(&customer.id, shard)).await? else {
                tracing::error!(customer = %customer.id, shard, "the counter item is missing; restore it");
                continue;
            };
            for (key, units) in rows(&customer.id, shard, &item) {
                if is_closing(&key) {
                    let end = customer.cycle.bucket_at(key.bucket).end;
                    self.ledger.write(&key, ledger::fold(&key, end, units)).await?;
                    keys.push(key);
                }
            }
        }
        keys.sort();
        keys.dedup();
        Ok(self.run(keys, true, u64::MAX).await)
    }

    async fn run(&self, keys: Vec<RowKey>, is_closing: bool, stop_at: u64) -> TickReport {
        let run = Arc::new(Run {
            books: self.clone(),
            meters: Mutex::default(),
            is_closing,
            stop_at,
            failures: AtomicU32::new(0),
        });
        let worked = concurrent::each(by_customer_and_meter(keys), GROUPS_MAX, |rows| {
            Arc::clone(&run).work(rows)
        });
        let mut report = TickReport::default();
        for group in worked.await {
            report.add(group);
        }
        tracing::info!(
            due = report.due,
            sealed = report.sealed,
            closed = report.closed,
            reported = report.reported,
            retried = report.retried,
            parked = report.parked,
            dropped = report.dropped,
            finished = report.finished,
            errors = report.errors,
            "reported"
        );
        report
    }
}

/// The rows that an item's buckets belong to, with the units that the item has counted.
#[must_use]
pub fn rows(customer: &CustomerId, shard: u32, item: &Counters) -> Vec<(RowKey, u64)> {
    let Ok(generation) = Generation::try_from(item.generation.clone()) else {
        tracing::error!(customer = %customer, shard, "the counter item's generation is not readable");
        return Vec::new();
    };
    let row = |(name, &units): (&String, &u64)| {
        let (bucket, meter) = parse_bucket_attribute(name)?;
        let key = RowKey {
            customer: customer.clone(),
            shard,
            generation: generation.clone(),
            meter: meter.to_owned(),
            bucket,
        };
        Some((key, units))
    };
    item.units.iter().filter_map(row).collect()
}

/// Stripe takes one meter event at a time per customer and meter.
fn by_customer_and_meter(keys: Vec<RowKey>) -> Vec<Vec<RowKey>> {
    let mut groups: BTreeMap<(CustomerId, String), Vec<RowKey>> = BTreeMap::new();
    for key in keys {
        groups
            .entry((key.customer.clone(), key.meter.clone()))
            .or_default()
            .push(key);
    }
    groups.into_values().collect()
}

impl Run {
    /// One row after the other; what goes wrong with one stops no other.
    async fn work(self: Arc<Self>, rows: Vec<RowKey>) -> TickReport {
        let mut report = TickReport::default();
        for key in rows {
            if self.books.now().s() >= self.stop_at {
                break;
            }
            report.due += 1;
            let mut seen = None;
            if let Err(error) = self.advance(&key, &mut seen, &mut report).await {
                tracing::error!(row = %key, %error, "row failed");
                report.errors += 1;
                self.put_off(&key, seen).await;
            }
        }
        report
    }

    /// A row that fails again and again must not stay in front of all others.
    async fn put_off(&self, key: &RowKey, seen: Option<RowState>) {
        let due = self.books.now().s().saturating_add(PUT_OFF_S);
        if let Err(error) = self.books.ledger.write(key, ledger::put_off(seen, due)).await {
            tracing::warn!(row = %key, %error, "the row could not be put off");
        }
    }

    /// Brings a row as far as it gets. `seen` is the state that was last read.
    async fn advance(&self, key: &RowKey, seen: &mut Option<RowState>, report: &mut TickReport) -> Result<(), Error> {
        let mut row = self.books.ledger.read(key).await?;
        // The index may lag: the row itself says when it is due.
        let is_due = |row: &Row| row.is_due(self.is_closing, self.books.now());
        // Each step leads to a later state, unless others change what it rests on again and again: then the next tick goes on.
        for _ in 0..STEPS_MAX {
            let Some(current) = row.filter(is_due) else { break };
            *seen = Some(current.state);
            row = match current.state {
                RowState::Open => self.freeze(&current, report).await?,
                RowState::Sealed | RowState::Sending => self.report(&current, report).await?,
                RowState::Reported => return self.finish(key, report).await,
                RowState::Parked => None,
            };
        }
        Ok(())
    }

    /// open → sealed, or reported if there is nothing to report. If somebody moved the row on meanwhile, or what it was worked
    /// out from, the row says so when it is looked at again.
    async fn freeze(&self, row: &Row, report: &mut TickReport) -> Result<Option<Row>, Error> {
        let key = &row.key;
        let item = self.seal(row).await?;
        let answer = counter::sealed_units(item.as_ref(), &key.generation, key.bucket, &key.meter);
        let Some(units) = ledger::all_units(answer, row.units) else {
            return Ok(None);
        };
        if matches!(answer, SealAnswer::Final(counted) if counted < units) {
            tracing::warn!(row = %key, units, "the counter has less than a message said: restore it if it came back from a backup");
        }
        if units > UNITS_MAX {
            return Err(Error::Row {
                row: key.to_string(),
                problem: "more units than a report can carry",
            });
        }
        let now = self.books.now();
        if units == 0 {
            return self
                .apply(key, ledger::close(0, 0, "nothing to report", now), &mut report.closed)
                .await;
        }
        let customer = self.books.accounts.customer(&key.customer).await?;
        let billed = customer
            .as_ref()
            .and_then(|customer| Some((customer, customer.stripe_customer.clone()?)));
        let Some((customer, stripe_customer)) = billed else {
            let why = "not billed: the customer is not in Stripe";
            return self
                .apply(key, ledger::close(units, 0, why, now), &mut report.closed)
                .await;
        };
        let balance = self.books.ledger.balance(&key.customer, &key.meter).await?;
        let credit = customer.spendable(&key.meter, key.bucket, balance).min(units);
        let (write, count) = if credit == units {
            (
                ledger::close(units, credit, "all of it was given", now),
                &mut report.closed,
            )
        } else {
            let bucket = bucket_of(customer, row);
            let frozen = Report {
                value: units - credit,
                stripe_customer,
                event_name: customer.phase_at(key.bucket).plan.event_name(&key.meter),
                timestamp: report_timestamp(bucket, key.generation.slot()),
                identifier: key.identifier(),
            };
            let is_own = has_own_minute(customer, row, now);
            let write = ledger::freeze(&frozen, units, credit, now);
            (ledger::with_own_minute(write, is_own), &mut report.sealed)
        };
        let row = if credit == 0 {
            self.apply(key, write, count).await?
        } else {
            if self.books.ledger.write_and_take(key, write, balance, credit).await? {
                *count += 1;
            }
            self.books.ledger.read(key).await?
        };
        if let Some(item) = item.filter(|item| item.generation == key.generation.as_str()) {
            self.make_room(key, &item).await?;
        }
        Ok(row)
    }

    /// Seals the row's bucket. The counter item after it, or as it is if it was refused.
    async fn seal(&self, row: &Row) -> Result<Option<Counters>, Error> {
        let RowKey {
            customer,
            shard,
            generation,
            bucket,
            ..
        } = &row.key;
        let (item, write) = (counters::key(customer, *shard), counter::seal(generation, *bucket));
        Ok(match self.books.counters.write(&item, write).await? {
            Updated::Applied(item) => Some(item),
            Updated::Refused(item) => item,
        })
    }

    /// Prunes old buckets of frozen rows, up to that of this one, before Stripe has them, where too many wait in the item.
    async fn make_room(&self, key: &RowKey, item: &Counters) -> Result<(), Error> {
        let crowded_out = counter::crowded_out(item).into_iter();
        for (bucket, meter) in crowded_out.take_while(|(bucket, _)| *bucket <= key.bucket) {
            let old = RowKey {
                meter: meter.to_owned(),
                bucket,
                ..key.clone()
            };
            let row = self.books.ledger.read(&old).await?;
            if row.is_some_and(|row| row.state != RowState::Open) {
                self.prune(&old).await?;
            }
        }
        Ok(())
    }

    /// sealed or sending → reported, waiting or parked.
    async fn report(&self, row: &Row, report: &mut TickReport) -> Result<Option<Row>, Error> {
        let key = &row.key;
        if row.report.is_none() {
            return Err(Error::Row {
                row: key.to_string(),
                problem: "sealed without a report",
            });
        }
        if self.failures.load(Relaxed) >= FAILURES_MAX {
            return Ok(None);
        }
        if let Some(until) = wait_until(row, self.books.now()) {
            self.books
                .ledger
                .write(key, ledger::put_off(Some(row.state), until))
                .await?;
            return Ok(None);
        }
        let own_minute = self.has_own_minute(row).await?;
        let claim = Claim {
            token: self.books.accounts.random().token()?,
            at: self.books.now(),
        };
        let RowWrite::Applied(row) = self.books.ledger.write(key, ledger::claim(&claim)).await? else {
            return Ok(None); // another worker has it
        };
        let row = Row { own_minute, ..row };
        let token = claim.token.as_str();
        match self.attempt(&row).await {
            Verdict::Delivered(how) => {
                self.failures.store(0, Relaxed);
                self.apply(key, ledger::delivered(how, self.books.now()), &mut report.reported)
                    .await
            }
            Verdict::Retry { cause, fault } => {
                tracing::warn!(row = %key, tries = row.tries, %cause, "report will be tried again");
                // A call without an answer has cost its whole time-out; others are cheap, and may concern this row alone.
                let weight = match cause {
                    farebox_stripe::Error::Unreachable { .. } => FAILURES_MAX,
                    _ => 1,
                };
                self.failures.fetch_add(weight, Relaxed);
                let write = ledger::retry_later(token, row.tries, fault, self.books.now());
                self.apply(key, write, &mut report.retried).await?;
                Ok(None)
            }
            Verdict::Park(why) => {
                tracing::error!(row = %key, why, "report parked");
                self.tell_operator(&row, &why).await;
                self.apply(key, ledger::park(token, &why), &mut report.parked).await
            }
            Verdict::Drop => {
                tracing::warn!(row = %key, "claim dropped: it got too old");
                report.dropped += 1;
                Ok(None)
            }
        }
    }

    /// Whether the report's minute is its own. A row that was frozen before its bucket was over could not know: a later generation
    /// could count in it as well. Once the bucket is over, and before Stripe is asked for the minute, the record knows them all.
    async fn has_own_minute(&self, row: &Row) -> Result<Option<bool>, Error> {
        let (key, now) = (&row.key, self.books.now());
        if row.own_minute != Some(false) || now.s() <= key.bucket.saturating_add(ASK_AFTER_S) {
            return Ok(row.own_minute);
        }
        let Some(customer) = self.books.accounts.customer(&key.customer).await? else {
            return Ok(row.own_minute);
        };
        Ok(Some(has_own_minute(&customer, row, now)))
    }

    /// A row that is parked is billed to nobody until somebody looks at it. Sent before the row is parked, so that a crash in
    /// between tells it again.
    async fn tell_operator(&self, row: &Row, why: &str) {
        let details = [
            ("row", row.key.to_string()),
            ("units", row.units.to_string()),
            ("why", why.to_owned()),
        ];
        let occasion = Occasion::Operator {
            problem: "row_parked".to_owned(),
            text: format!(
                "{} units of {} are not reported to Stripe: {why}. See `farebox stripe repair --dry-run`.",
                row.units, row.key.customer
            ),
            details: details.map(|(name, value)| (name.to_owned(), value)).into(),
        };
        if let Err(error) = self.books.alert(parked_id(row), None, occasion).await {
            tracing::error!(row = %row.key, %error, "the operator could not be told");
        }
    }

    /// One attempt to report a claimed row.
    async fn attempt(&self, row: &Row) -> Verdict {
        let Some(report) = &row.report else {
            return Verdict::Drop;
        };
        match next_step(row, self.books.now()) {
            NextStep::Send => self.send(row, report).await,
            NextStep::Ask { start, end } => self.ask(row, report, start, end).await,
            NextStep::Park(why) => Verdict::Park(why.to_owned()),
            NextStep::Drop => Verdict::Drop,
        }
    }

    async fn send(&self, row: &Row, report: &Report) -> Verdict {
        let event = MeterEvent {
            event_name: report.event_name.clone(),
            stripe_customer: report.stripe_customer.clone(),
            value: report.value,
            identifier: report.identifier.clone(),
            timestamp: seconds(report.timestamp),
        };
        match self
            .books
            .stripe
            .report_meter_event(&event, &Row::idempotency_key(report, row.faults))
            .await
        {
            Ok(()) => Verdict::Delivered("accepted"),
            Err(farebox_stripe::Error::Duplicate { .. }) => Verdict::Delivered("already there"),
            Err(error) => {
                let fault = matches!(error, farebox_stripe::Error::ServerFault { .. });
                refused(error, fault)
            }
        }
    }

    /// Stripe may have forgotten the identifier: only what it has counted in the report's minute tells.
    async fn ask(&self, row: &Row, report: &Report, start: u64, end: u64) -> Verdict {
        match self.counted(report, start, end).await {
            Ok(Some(0)) => match next_step(row, self.books.now()) {
                NextStep::Send | NextStep::Ask { .. } => self.send(row, report).await,
                NextStep::Park(why) => Verdict::Park(why.to_owned()),
                NextStep::Drop => Verdict::Drop,
            },
            Ok(Some(sum)) if sum == report.value => Verdict::Delivered("found in Stripe's summary"),
            Ok(Some(sum)) => {
                let value = report.value;
                Verdict::Park(format!(
                    "Stripe has counted {sum} in the report's minute, neither 0 nor its {value}"
                ))
            }
            Ok(None) => Verdict::Park(format!("Stripe has no active meter named {} to ask", report.event_name)),
            // A question has no idempotency key that would have to move on.
            Err(error) => refused(error, false),
        }
    }

    /// What Stripe has counted from `start` to `end`; `None` without a meter.
    async fn counted(&self, report: &Report, start: u64, end: u64) -> Result<Option<u64>, farebox_stripe::Error> {
        let Some(meter) = self.meter(&report.event_name).await? else {
            return Ok(None);
        };
        self.books
            .stripe
            .event_summary(&meter, &report.stripe_customer, seconds(start), seconds(end))
            .await
            .map(Some)
    }

    async fn meter(&self, event_name: &str) -> Result<Option<String>, farebox_stripe::Error> {
        let meters = || self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        let known = meters().get(event_name).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let found = self.books.stripe.find_meter(event_name).await?.map(|meter| meter.id);
        if let Some(id) = &found {
            meters().insert(event_name.to_owned(), id.clone());
        }
        Ok(found)
    }

    /// reported: prunes the counter; then nothing is left to do.
    async fn finish(&self, key: &RowKey, report: &mut TickReport) -> Result<(), Error> {
        // Another generation has no such bucket. The same one unsealed came back from a backup: the operator gives it a
        // generation of its own before it serves.
        if matches!(self.prune(key).await?, Updated::Refused(Some(item)) if item.generation == key.generation.as_str())
        {
            return Err(Error::Row {
                row: key.to_string(),
                problem: "reported, but its bucket is not sealed",
            });
        }
        self.apply(key, ledger::finish(), &mut report.finished).await?;
        Ok(())
    }

    async fn prune(&self, key: &RowKey) -> Result<Updated, Error> {
        let prune = counter::prune(&key.generation, key.bucket, &key.meter);
        let item = counters::key(&key.customer, key.shard);
        Ok(self.books.counters.write(&item, prune).await?)
    }

    /// Writes and counts a transition. The row after it, or as it is if it was refused: somebody else has changed it.
    async fn apply(&self, key: &RowKey, write: Expression, count: &mut u64) -> Result<Option<Row>, Error> {
        match self.books.ledger.write(key, write).await? {
            RowWrite::Applied(row) => {
                *count += 1;
                Ok(Some(row))
            }
            RowWrite::Refused(row) => Ok(row),
        }
    }
}

/// A row's bucket. Its first message may not have known yet that a change or a period's end cuts the hour.
fn bucket_of(customer: &Customer, row: &Row) -> Bucket {
    Bucket {
        end: row.bucket_end.min(customer.cycle.bucket_at(row.key.bucket).end),
        ..row.bucket()
    }
}

/// Whether a row's report has its minute for itself. The row's own slot may be newer than the customer's record.
fn has_own_minute(customer: &Customer, row: &Row, now: Timestamp) -> bool {
    let slots = customer.next_slot.max(row.key.generation.slot().saturating_add(1));
    have_minutes_of_their_own(bucket_of(customer, row), slots, now)
}

/// Names a parking: a row that is parked again after the operator let it go is told of again. Letting it go starts `tries` anew,
/// and raises `faults`.
fn parked_id(row: &Row) -> String {
    format!("parked-{}-{}-{}", row.key.identifier(), row.faults, row.tries)
}

/// What to do after an answer that is none.
fn refused(error: farebox_stripe::Error, fault: bool) -> Verdict {
    // 401 and 403 speak about our key, hence about every row there is: parking them all helps nobody.
    let is_about_our_key = matches!(error, farebox_stripe::Error::Rejected { status: 401 | 403, .. });
    if error.retryable() || is_about_our_key {
        Verdict::Retry { cause: error, fault }
    } else {
        Verdict::Park(error.to_string())
    }
}

/// Stripe's clock counts in signed seconds; ours ends long before the difference shows.
pub(crate) fn seconds(s: u64) -> i64 {
    i64::try_from(s).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use farebox_core::{
        id::Generation,
        ledger::{Row, RowKey, RowState},
    };

    use super::{TickReport, parked_id};

    #[test]
    fn figures_of_a_tick_add_up_each_to_its_own() {
        let figures = |n: u64| TickReport {
            due: n,
            sealed: 2 * n,
            closed: 3 * n,
            reported: 4 * n,
            retried: 5 * n,
            parked: 6 * n,
            dropped: 7 * n,
            finished: 8 * n,
            errors: 9 * n,
        };
        let mut sum = figures(10);
        sum.add(figures(1));
        assert_eq!(sum, figures(11));
    }

    #[test]
    fn a_second_parking_is_told_of_again() {
        let row = |faults, tries| Row {
            key: RowKey {
                customer: "acme".to_owned().try_into().expect("an id"),
                shard: 0,
                generation: Generation::new([7; 8], 0),
                meter: "api_calls".to_owned(),
                bucket: 1_700_002_800,
            },
            state: RowState::Sending,
            units: 5,
            credit: 0,
            bucket_end: 1_700_006_400,
            due: 0,
            report: None,
            own_minute: None,
            claim: None,
            faults,
            tries,
            outcome: None,
        };
        // The operator lets it go: tries start anew, faults go up.
        assert_ne!(parked_id(&row(0, 0)), parked_id(&row(1, 0)));
        assert_eq!(parked_id(&row(1, 2)), parked_id(&row(1, 2)));
    }
}
