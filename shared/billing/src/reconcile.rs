//! Counter, ledger, Stripe and invoice, compared for one customer and one billing period.
//!
//! What is on its way is *pending*: an open row, a report under way, a sum that Stripe has not brought up to date. Everything
//! else that does not agree is a *difference*, in units, with a sentence that explains it. Only this sees what Stripe takes and
//! rejects afterwards.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use farebox_aws::counters;
use farebox_core::{
    account::{Customer, Phase, Standing},
    admission::{Counters, bucket_attribute},
    id::CustomerId,
    ledger::{Row, RowKey, RowState, report_timestamp},
    tiers::{PlanId, Terms},
    time::Period,
};
use farebox_stripe::{Invoice, Subscription};
use serde::Serialize;

use crate::{
    Books, Error, concurrent,
    reporter::{rows, seconds},
};

/// Stripe's sums lag behind its events, by how much it does not say; from here on an event that is not in the sum is missing.
const LAG_S: u64 = 3_600;
/// An invoice is made within this time of its period's end, seconds.
const INVOICE_WITHIN_S: u64 = 4 * 86_400;
/// Questions to Stripe at a time.
const QUESTIONS_MAX: usize = 8;

/// What was compared, and what does not agree.
#[derive(Clone, Debug, Serialize)]
pub struct Reconciliation {
    /// The customer.
    pub customer: CustomerId,
    /// The billing period.
    pub period: Period,
    /// Each counter item's buckets, oldest first.
    pub rows: Vec<RowCheck>,
    /// The sums of each plan and meter.
    pub sums: Vec<SumCheck>,
    /// What does not agree beside units.
    pub problems: Vec<String>,
    /// Units that do not agree, nor are on their way.
    pub difference: u64,
    /// Units on their way.
    pub pending: u64,
}

impl Reconciliation {
    /// Whether everything agrees that is not on its way.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.difference == 0 && self.problems.is_empty()
    }
}

/// One row: a bucket of one life of a counter item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowCheck {
    /// The counter item's shard.
    pub shard: u32,
    /// The counter item's life.
    pub generation: String,
    /// What its units cost.
    pub plan: PlanId,
    /// The meter.
    pub meter: String,
    /// The bucket's start, unix seconds.
    pub bucket: u64,
    /// Units in the counter; absent once they are pruned.
    pub counted: Option<u64>,
    /// Where the row stands; absent if nobody has opened it.
    pub state: Option<&'static str>,
    /// Units in the ledger.
    pub units: u64,
    /// Those of them that were given.
    pub credit: u64,
    /// Units that the report says; absent where there is none.
    pub value: Option<u64>,
    /// What Stripe has counted in the report's minute; absent if it was not asked.
    pub in_stripe: Option<u64>,
    /// Units on their way.
    pub pending: u64,
    /// Units that do not agree.
    pub difference: u64,
    /// What there is to say.
    pub note: Option<String>,
}

/// The sums of one plan and meter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SumCheck {
    /// What the units cost.
    pub plan: PlanId,
    /// The meter.
    pub meter: String,
    /// Units counted: in the counters, and in the ledger where those are pruned.
    pub counted: u64,
    /// Units in the ledger.
    pub units: u64,
    /// Those of them that were given.
    pub credit: u64,
    /// Units that were reported.
    pub reported: u64,
    /// What Stripe has counted.
    pub in_stripe: u64,
    /// Units on their way.
    pub pending: u64,
    /// Units that do not agree.
    pub difference: u64,
    /// What the invoice says, if that was asked for and there is one.
    pub invoice: Option<InvoiceCheck>,
    /// What there is to say.
    pub note: Option<String>,
}

/// A meter's lines on an invoice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InvoiceCheck {
    /// The invoice, `in_…`.
    pub invoice: String,
    /// `draft`, `open`, `paid`, …
    pub status: String,
    /// Units billed.
    pub quantity: u64,
    /// What they cost, in the minor unit.
    pub amount: i64,
    /// What the terms come to for what was reported, in the minor unit; absent if the plan is forgotten.
    pub expected_amount: Option<u64>,
}

/// How closely to look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// Ask Stripe for each row's minute, not only where a sum is off.
    pub each_row: bool,
    /// Compare the invoice.
    pub invoice: bool,
}

/// The ledger and Stripe's meters, read once for all customers.
pub struct Reconciler {
    books: Books,
    rows: HashMap<CustomerId, Vec<Row>>,
    meters: HashMap<String, String>,
}

/// A minute of one customer's meter in Stripe: the event name, the customer, the minute's start.
type Minute = (String, String, u64);

/// A meter of one customer in Stripe: the event name, the customer.
type MeterOf = (String, String);

/// What is compared with a meter of a customer.
struct Group {
    plan: PlanId,
    meter: String,
    /// The places of its rows among those that were found.
    members: Vec<usize>,
}

impl Books {
    /// Reads what is compared for every customer: the ledger and Stripe's meters.
    ///
    /// # Errors
    /// [`Error::Table`] or [`Error::Stripe`] if they can't be read.
    pub async fn reconciler(&self) -> Result<Reconciler, Error> {
        let (all, _) = self.ledger.scan().await?;
        let mut rows: HashMap<CustomerId, Vec<Row>> = HashMap::new();
        for row in all {
            rows.entry(row.key.customer.clone()).or_default().push(row);
        }
        let meters = self.stripe.meters().await?;
        Ok(Reconciler {
            books: self.clone(),
            rows,
            meters: meters.into_iter().map(|meter| (meter.event_name, meter.id)).collect(),
        })
    }
}

impl Reconciler {
    /// Compares everything that a customer used in a billing period.
    ///
    /// # Errors
    /// [`Error`] if something can't be read; nothing is changed.
    pub async fn customer(&self, customer: &Customer, period: Period, asked: Asked) -> Result<Reconciliation, Error> {
        let now_s = self.books.now().s();
        let mut found = self.gather(customer, period).await?;
        let mut groups = self.sold_in(customer, period).await?;
        for (i, found) in found.iter().enumerate() {
            let name = (found.event_name(), found.stripe_customer(customer));
            let group = groups.entry(name).or_insert_with(|| Group {
                plan: found.check.plan.clone(),
                meter: found.check.meter.clone(),
                members: Vec::new(),
            });
            group.members.push(i);
        }
        let others = self.minutes_of_others(customer, period);
        let mut sums = Vec::new();
        for (name, group) in &groups {
            let sum = self.sum(name, group, &others, &mut found, period, now_s, asked).await?;
            // What was neither used nor reported by anybody is not worth a line.
            if !group.members.is_empty() || sum.in_stripe > 0 {
                sums.push(sum);
            }
        }
        let mut problems = Vec::new();
        if asked.invoice {
            self.invoices(customer, period, now_s, &mut sums).await?;
        }
        if period.contains(now_s) {
            problems.extend(self.without_item(customer, &sums).await?);
        }
        for sum in &sums {
            problems.extend(sum.wrong_amount());
        }
        let rows: Vec<RowCheck> = found.into_iter().map(|found| found.check).collect();
        Ok(Reconciliation {
            customer: customer.id.clone(),
            period,
            difference: sums.iter().map(|sum| sum.difference).sum(),
            pending: rows.iter().map(|row| row.pending).sum(),
            rows,
            sums,
            problems,
        })
    }

    /// Every bucket of the period, from the ledger and from the counters.
    async fn gather(&self, customer: &Customer, period: Period) -> Result<Vec<Found>, Error> {
        let mut items = HashMap::new();
        for shard in 0..self.books.control().shards(customer).await? {
            if let Some(item) = self.books.counters.read(&counters::key(&customer.id, shard)).await? {
                items.insert(shard, item);
            }
        }
        let now_s = self.books.now().s();
        let mut found: BTreeMap<RowKey, Found> = BTreeMap::new();
        let of_period = |row: &&Row| period.contains(row.key.bucket);
        for row in self.rows.get(&customer.id).into_iter().flatten().filter(of_period) {
            found.insert(
                row.key.clone(),
                Found::of_row(row, items.get(&row.key.shard), customer, now_s),
            );
        }
        for (&shard, item) in &items {
            for (key, units) in rows(&customer.id, shard, item) {
                if period.contains(key.bucket) && !found.contains_key(&key) {
                    found.insert(key.clone(), Found::of_counter(&key, units, customer));
                }
            }
        }
        let mut found: Vec<Found> = found.into_values().collect();
        found.sort_by_key(|found| (found.check.bucket, found.check.meter.clone(), found.check.shard));
        Ok(found)
    }

    /// The meters that a customer has a price for in a period: somebody may have reported to them what no row knows.
    async fn sold_in(&self, customer: &Customer, period: Period) -> Result<BTreeMap<MeterOf, Group>, Error> {
        let mut groups = BTreeMap::new();
        let Some(stripe_customer) = &customer.stripe_customer else {
            return Ok(groups);
        };
        for (i, phase) in customer.phases.iter().enumerate() {
            let is_over = customer.phases.get(i + 1).is_some_and(|next| next.from <= period.start);
            if is_over || phase.from >= period.end {
                continue;
            }
            let control = self.books.control();
            let terms = control.terms_of(phase.catalog, &phase.tier, &phase.overrides).await?;
            for meter in terms.meters() {
                let name = (phase.plan.event_name(&meter), stripe_customer.clone());
                groups.entry(name).or_insert_with(|| Group {
                    plan: phase.plan.clone(),
                    meter,
                    members: Vec::new(),
                });
            }
        }
        Ok(groups)
    }

    /// The minutes in which a customer's rows of later periods are reported.
    fn minutes_of_others(&self, customer: &Customer, period: Period) -> BTreeSet<Minute> {
        let rows = self.rows.get(&customer.id).into_iter().flatten();
        let later = rows.filter(|row| row.key.bucket >= period.end);
        later
            .filter_map(|row| {
                let report = row.report.as_ref()?;
                let minute = minute_of(report.timestamp);
                Some((report.event_name.clone(), report.stripe_customer.clone(), minute))
            })
            .collect()
    }

    /// Compares one meter of one customer in Stripe with the rows that were reported to it.
    #[expect(
        clippy::too_many_arguments,
        reason = "one step of the comparison, with what it compares"
    )]
    async fn sum(
        &self,
        (event_name, stripe_customer): &MeterOf,
        Group { plan, meter, members }: &Group,
        others: &BTreeSet<Minute>,
        found: &mut [Found],
        period: Period,
        now_s: u64,
        asked: Asked,
    ) -> Result<SumCheck, Error> {
        let mut sum = SumCheck {
            plan: plan.clone(),
            meter: meter.clone(),
            counted: 0,
            units: 0,
            credit: 0,
            reported: 0,
            in_stripe: 0,
            pending: 0,
            difference: 0,
            invoice: None,
            note: None,
        };
        let of_group = || members.iter().copied();
        // What Stripe surely has, and what it may have besides.
        let (mut certain, mut lagging, mut open) = (0u64, 0u64, 0u64);
        for member in of_group().map(|i| &found[i]) {
            let check = &member.check;
            sum.counted += check.counted.unwrap_or(check.units).max(check.units);
            sum.units += check.units;
            sum.credit += check.credit;
            match member.delivery {
                Delivery::None => {}
                Delivery::Done => certain += check.value.unwrap_or(0),
                Delivery::Lagging => lagging += check.value.unwrap_or(0),
                Delivery::Open => open += check.value.unwrap_or(check.pending),
            }
            if member.is_reported() {
                sum.reported += check.value.unwrap_or(0);
            }
        }
        let Some(meter) = self.meters.get(event_name).filter(|_| !stripe_customer.is_empty()) else {
            if certain > 0 {
                for i in of_group() {
                    let check = &mut found[i].check;
                    check.difference += check.value.unwrap_or(0);
                }
                sum.note = Some(format!("Stripe has no active meter {event_name}"));
            }
            sum.difference = of_group().map(|i| found[i].check.difference).sum();
            sum.pending = of_group().map(|i| found[i].check.pending).sum();
            return Ok(sum);
        };
        let minutes: BTreeSet<u64> = of_group().filter_map(|i| found[i].minute).collect();
        let (start, mut end) = window(period, now_s, &minutes);
        // A period that begins within a minute may report in it, where its first bucket has no whole minute.
        let last = end.saturating_sub(60);
        if last < period.end
            && !minutes.contains(&last)
            && others.contains(&(event_name.clone(), stripe_customer.clone(), last))
        {
            end = last.max(start + 60);
        }
        sum.in_stripe = self.counted(meter, stripe_customer, start, end).await?;
        let is_off = sum.in_stripe < certain || sum.in_stripe > certain + lagging + open;
        let is_any_parked = of_group().any(|i| found[i].state == Some(RowState::Parked));
        if is_off || is_any_parked || asked.each_row {
            let known = self
                .ask_each(meter, stripe_customer, event_name, members, found)
                .await?;
            if sum.in_stripe > known {
                let strange = sum.in_stripe - known;
                sum.difference += strange;
                sum.note = Some(format!(
                    "Stripe has {strange} units in minutes that no row reports: somebody else sends to {event_name}, or a row is gone"
                ));
            }
        }
        if open == 0 && sum.in_stripe == certain + lagging {
            // Everything is there: nothing lags behind.
            for i in of_group() {
                found[i].settle_lag();
            }
        }
        sum.difference += of_group().map(|i| found[i].check.difference).sum::<u64>();
        sum.pending = of_group().map(|i| found[i].check.pending).sum();
        Ok(sum)
    }

    /// Asks for the minute of each report, and explains what is there. Returns what Stripe has in all of them together.
    async fn ask_each(
        &self,
        meter: &str,
        stripe_customer: &str,
        event_name: &str,
        members: &[usize],
        found: &mut [Found],
    ) -> Result<u64, Error> {
        let mut minutes: BTreeMap<Minute, Vec<usize>> = BTreeMap::new();
        for &i in members {
            if let Some(minute) = found[i].minute {
                let minute = (event_name.to_owned(), stripe_customer.to_owned(), minute);
                minutes.entry(minute).or_default().push(i);
            }
        }
        let answers = concurrent::each(minutes, QUESTIONS_MAX, |((_, customer, minute), members)| {
            let (stripe, meter) = (self.books.stripe.clone(), meter.to_owned());
            async move {
                let sum = stripe
                    .event_summary(&meter, &customer, seconds(minute), seconds(minute + 60))
                    .await;
                (members, sum)
            }
        });
        let mut known = 0;
        for (members, sum) in answers.await {
            let sum = sum?;
            known += sum;
            match members.as_slice() {
                [only] => found[*only].compare(sum),
                _ => compare_shared(&members, found, sum),
            }
        }
        Ok(known)
    }

    async fn counted(&self, meter: &str, customer: &str, start: u64, end: u64) -> Result<u64, Error> {
        let sum = self
            .books
            .stripe
            .event_summary(meter, customer, seconds(start), seconds(end));
        Ok(sum.await?)
    }

    /// Units on a plan whose price the subscription does not have are never billed.
    async fn without_item(&self, customer: &Customer, sums: &[SumCheck]) -> Result<Vec<String>, Error> {
        let is_running = customer.standing != Standing::Ended;
        let Some(subscription) = customer.stripe_subscription.as_ref().filter(|_| is_running) else {
            return Ok(Vec::new());
        };
        let Subscription { id, items, .. } = self.books.stripe.subscription(subscription).await?;
        let is_sold = |name: &str| items.iter().any(|item| item.lookup_key.as_deref() == Some(name));
        let unsold = sums.iter().filter(|sum| sum.counted > sum.credit);
        let unsold = unsold.map(|sum| (sum, sum.plan.event_name(&sum.meter)));
        Ok(unsold
            .filter(|(_, name)| !is_sold(name))
            .map(|(sum, name)| {
                format!(
                    "{} units of {} were used under {}, but subscription {id} has no item with the price {name}: they would not \
                     be billed",
                    sum.counted - sum.credit,
                    sum.meter,
                    sum.plan
                )
            })
            .collect())
    }

    /// Finds each sum on the customer's invoices.
    async fn invoices(
        &self,
        customer: &Customer,
        period: Period,
        now_s: u64,
        sums: &mut [SumCheck],
    ) -> Result<(), Error> {
        let Some(in_stripe) = &customer.stripe_customer else {
            return Ok(());
        };
        let names: Vec<String> = sums.iter().map(|sum| sum.plan.event_name(&sum.meter)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let prices = self.books.stripe.prices_by_lookup_keys(&names).await?;
        let mut invoices = self.books.stripe.invoices(in_stripe).await?;
        invoices.retain(|invoice| invoice.status.as_deref() != Some("void"));
        let subscription = match &customer.stripe_subscription {
            Some(id) => Some(self.books.stripe.subscription(id).await?),
            None => None,
        };
        let is_trial = subscription
            .as_ref()
            .is_some_and(|subscription| is_trial(subscription, period));
        let items = subscription.map(|subscription| subscription.items).unwrap_or_default();
        for sum in sums {
            let name = sum.plan.event_name(&sum.meter);
            // A price that was archived bills whoever has it.
            let item = items.iter().find(|item| item.lookup_key.as_deref() == Some(&name));
            let price = prices.iter().find(|price| price.lookup_key.as_deref() == Some(&name));
            let price = price.map(|price| &price.id).or(item.map(|item| &item.price));
            let terms = self.terms(customer, &sum.plan).await?;
            let expected = terms.and_then(|terms| terms.usage_amount(&sum.meter, sum.reported).ok());
            sum.invoice = price.and_then(|price| billed(&invoices, price, period, expected.map(|amount| amount.0)));
            if is_trial && sum.invoice.is_none() {
                sum.note
                    .get_or_insert_with(|| "a trial: its usage is counted and limited, and free".to_owned());
            } else {
                sum.judge_invoice(period, now_s);
            }
        }
        Ok(())
    }

    async fn terms(&self, customer: &Customer, plan: &PlanId) -> Result<Option<Terms>, Error> {
        let Some(phase) = customer.phases.iter().find(|phase| phase.plan == *plan) else {
            return Ok(None);
        };
        let Phase {
            catalog,
            tier,
            overrides,
            ..
        } = phase;
        Ok(Some(self.books.control().terms_of(*catalog, tier, overrides).await?))
    }
}

/// Whether a period ends within the trial: Stripe bills no usage in it. It may begin before, where it was worked out back from the
/// anchor that the trial's end has set.
fn is_trial(subscription: &Subscription, period: Period) -> bool {
    let second = |s: Option<i64>| s.and_then(|s| u64::try_from(s).ok());
    let trial = second(subscription.trial_start).zip(second(subscription.trial_end));
    trial.is_some_and(|(start, end)| start < period.end && period.end <= end)
}

/// What a row's report is to Stripe's sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    /// Nothing is or will be reported.
    None,
    /// Stripe must have it.
    Done,
    /// Stripe has taken it, too short ago to be sure of its sum.
    Lagging,
    /// It may or may not have it.
    Open,
}

/// A row with what is needed to compare it.
struct Found {
    check: RowCheck,
    state: Option<RowState>,
    delivery: Delivery,
    /// The start of the report's minute.
    minute: Option<u64>,
    in_stripe: Option<String>,
}

impl Found {
    fn of_row(row: &Row, item: Option<&Counters>, customer: &Customer, now_s: u64) -> Self {
        let key = &row.key;
        let of_life = item.filter(|item| item.generation == key.generation.as_str());
        let attribute = bucket_attribute(key.bucket, &key.meter);
        let counted = of_life.and_then(|item| item.units.get(&attribute).copied());
        let value = row.report.as_ref().map(|report| report.value);
        let plan = row
            .report
            .as_ref()
            .and_then(|report| plan_of(customer, &report.event_name, &key.meter));
        let mut check = RowCheck {
            shard: key.shard,
            generation: key.generation.to_string(),
            plan: plan.unwrap_or_else(|| customer.phase_at(key.bucket).plan.clone()),
            meter: key.meter.clone(),
            bucket: key.bucket,
            counted,
            state: Some(row.state.as_str()),
            units: row.units,
            credit: row.credit,
            value,
            in_stripe: None,
            pending: 0,
            difference: 0,
            note: None,
        };
        let delivery = check.judge(row, now_s);
        // A life that is over has no counter; one whose buckets are pruned has none of this bucket.
        if let Some(counted) = counted {
            check.judge_counter(row.state, counted);
        }
        Self {
            check,
            state: Some(row.state),
            delivery,
            minute: match (&row.report, row.state) {
                (Some(report), _) => Some(minute_of(report.timestamp)),
                (None, RowState::Open) => Some(minute_of(report_timestamp(row.bucket(), key.generation.slot()))),
                (None, _) => None,
            },
            in_stripe: row.report.as_ref().map(|report| report.stripe_customer.clone()),
        }
    }

    fn of_counter(key: &RowKey, units: u64, customer: &Customer) -> Self {
        let bucket = customer.cycle.bucket_at(key.bucket);
        let check = RowCheck {
            shard: key.shard,
            generation: key.generation.to_string(),
            plan: customer.phase_at(key.bucket).plan.clone(),
            meter: key.meter.clone(),
            bucket: key.bucket,
            counted: Some(units),
            state: None,
            units: 0,
            credit: 0,
            value: None,
            in_stripe: None,
            pending: units,
            difference: 0,
            note: Some("counted, no row yet: a message or the daily scan opens it".to_owned()),
        };
        Self {
            check,
            state: None,
            delivery: Delivery::Open,
            // Should the reporter overtake this look, its report is in this minute.
            minute: Some(minute_of(report_timestamp(bucket, key.generation.slot()))),
            in_stripe: None,
        }
    }

    fn event_name(&self) -> String {
        self.check.plan.event_name(&self.check.meter)
    }

    fn stripe_customer(&self, customer: &Customer) -> String {
        let known = self.in_stripe.clone().or_else(|| customer.stripe_customer.clone());
        known.unwrap_or_default()
    }

    fn is_reported(&self) -> bool {
        self.state == Some(RowState::Reported) && self.check.value.is_some()
    }

    /// Stripe has it: nothing is on its way.
    fn settle_lag(&mut self) {
        if self.delivery == Delivery::Lagging && self.check.difference == 0 {
            self.check.pending = 0;
            self.check.note = None;
        }
    }

    /// Compares a report that has its minute for itself.
    fn compare(&mut self, sum: u64) {
        let check = &mut self.check;
        check.in_stripe = Some(sum);
        let Some(value) = check.value else {
            // Open when it was read; whatever is there by now was reported meanwhile.
            check.pending = check.pending.saturating_sub(sum);
            return;
        };
        let name = format!("Stripe has {sum} in its minute");
        match (self.delivery, sum) {
            (Delivery::Done, sum) if sum == value => {}
            (Delivery::Done, 0) => check.differs(
                value,
                "reported, but Stripe has nothing of it: it took the event and rejected it afterwards; the meter's \
                 errors in the dashboard say why",
            ),
            (Delivery::Lagging | Delivery::Open, sum) if sum == value && self.state == Some(RowState::Parked) => {
                check.difference = 0;
                check.note = Some(format!(
                    "{}; Stripe has it all the same: `farebox stripe repair` marks it delivered",
                    check.note.take().unwrap_or_default()
                ));
            }
            (Delivery::Lagging, sum) if sum == value => self.settle_lag(),
            (Delivery::Lagging | Delivery::Open, sum) if sum == 0 || sum == value => {}
            (_, sum) => {
                let off = sum.abs_diff(value);
                check.differs(
                    off,
                    &format!("{name}, neither 0 nor its {value}: somebody else sends to this meter"),
                );
            }
        }
    }
}

impl RowCheck {
    /// What the row's state says of its units.
    fn judge(&mut self, row: &Row, now_s: u64) -> Delivery {
        match row.state {
            RowState::Open => {
                self.pending = self.counted.unwrap_or(row.units).max(row.units);
                self.note = Some(match row.due > now_s {
                    true => format!("open: its bucket is closed {} s from now", row.due - now_s),
                    false => format!("open: it is due for {} s; does the schedule run?", now_s - row.due),
                });
                Delivery::Open
            }
            RowState::Sealed | RowState::Sending => {
                self.pending = self.value.unwrap_or(0);
                let wait = match row.due > now_s {
                    true => format!("the next attempt is {} s from now", row.due - now_s),
                    false => "it is due".to_owned(),
                };
                let tries = match row.tries {
                    0 => String::new(),
                    tries => format!(" after {tries} without an outcome"),
                };
                self.note = Some(format!("{}: {wait}{tries}", row.state.as_str()));
                Delivery::Open
            }
            RowState::Parked => {
                self.difference = self.value.unwrap_or(0);
                let why = row.outcome.as_deref().unwrap_or("nobody wrote down why");
                self.note = Some(format!("parked: {why}; see `farebox stripe repair`"));
                Delivery::Open
            }
            RowState::Reported => self.judge_reported(row, now_s),
        }
    }

    fn judge_reported(&mut self, row: &Row, now_s: u64) -> Delivery {
        let Some(value) = self.value else {
            if row.units > row.credit {
                let why = row.outcome.as_deref().unwrap_or("closed without a report");
                self.note = Some(why.to_owned());
            }
            return Delivery::None;
        };
        if value + row.credit != row.units {
            let off = (value + row.credit).abs_diff(row.units);
            self.differs(off, "units, credit and report of the row do not go together");
        }
        // `due` is when it was delivered.
        let age_s = now_s.saturating_sub(row.due);
        if age_s < LAG_S {
            self.pending = value;
            self.note = Some(format!("reported {age_s} s ago: Stripe's sum may lag behind"));
            return Delivery::Lagging;
        }
        Delivery::Done
    }

    /// A counter that is not pruned yet: nothing may enter a bucket that is sealed.
    fn judge_counter(&mut self, state: RowState, counted: u64) {
        match state {
            RowState::Open if counted < self.units => {
                let less = self.units - counted;
                self.differs(
                    less,
                    "the counter has less than a message said: was it restored from a backup?",
                );
            }
            RowState::Open => {}
            _ if counted != self.units => {
                let off = counted.abs_diff(self.units);
                self.differs(off, &format!("the counter has {counted} units, the row {}", self.units));
            }
            _ => {}
        }
    }

    fn differs(&mut self, units: u64, why: &str) {
        self.difference += units;
        self.pending = 0;
        self.note = Some(match self.note.take() {
            Some(note) if !note.starts_with("reported ") => format!("{note}; {why}"),
            _ => why.to_owned(),
        });
    }
}

/// Reports that share a minute can only be compared together.
fn compare_shared(members: &[usize], found: &mut [Found], sum: u64) {
    let value = |i: usize| found[i].check.value.unwrap_or(0);
    let certain: u64 = members
        .iter()
        .filter(|&&i| found[i].delivery == Delivery::Done)
        .map(|&i| value(i))
        .sum();
    let all: u64 = members.iter().map(|&i| value(i)).sum();
    let off = match sum {
        sum if sum < certain => certain - sum,
        sum if sum > all => sum - all,
        _ => 0,
    };
    let n = members.len();
    for (place, &i) in members.iter().enumerate() {
        let check = &mut found[i].check;
        if off > 0 && place == 0 {
            check.differs(
                off,
                &format!("it shares its minute with {n} rows, which come to {all}, while Stripe has {sum} there"),
            );
        }
    }
}

impl SumCheck {
    fn judge_invoice(&mut self, period: Period, now_s: u64) {
        let say = |note: &mut Option<String>, text: String| {
            *note = Some(match note.take() {
                Some(note) => format!("{note}; {text}"),
                None => text,
            });
        };
        let Some(invoice) = &self.invoice else {
            if self.reported > 0 && now_s > period.end + INVOICE_WITHIN_S {
                self.difference += self.reported;
                say(&mut self.note, "no invoice bills it".to_owned());
            } else if now_s >= period.end {
                say(&mut self.note, "not invoiced yet".to_owned());
            }
            return;
        };
        if invoice.quantity == self.reported {
            return;
        }
        let off = invoice.quantity.abs_diff(self.reported);
        let (id, quantity, reported) = (&invoice.invoice, invoice.quantity, self.reported);
        if invoice.status == "draft" {
            let text = format!("invoice {id} is a draft and says {quantity} of {reported} units so far");
            say(&mut self.note, text);
        } else {
            self.difference += off;
            let why = match quantity < reported {
                true => "the rest came after it was final, or was rejected",
                false => "it bills more than was reported",
            };
            let text = format!("invoice {id} bills {quantity} units, {reported} were reported: {why}");
            say(&mut self.note, text);
        }
    }

    /// The same units at another price.
    fn wrong_amount(&self) -> Option<String> {
        let invoice = self.invoice.as_ref()?;
        let expected = invoice.expected_amount?;
        let is_same = u64::try_from(invoice.amount) == Ok(expected);
        (invoice.quantity == self.reported && !is_same).then(|| {
            format!(
                "invoice {} charges {} for {} units of {}, the terms come to {expected} (minor units)",
                invoice.invoice, invoice.amount, invoice.quantity, self.meter
            )
        })
    }
}

/// A price's lines of a period: a graduated price makes several.
fn billed(invoices: &[Invoice], price: &str, period: Period, expected_amount: Option<u64>) -> Option<InvoiceCheck> {
    let second = |s: i64| u64::try_from(s).unwrap_or(0);
    for invoice in invoices {
        let mut check: Option<InvoiceCheck> = None;
        for line in &invoice.lines {
            let is_in_period = second(line.period_start) >= period.start && second(line.period_end) <= period.end;
            if line.price.as_deref() == Some(price) && is_in_period {
                let check = check.get_or_insert_with(|| InvoiceCheck {
                    invoice: invoice.id.clone(),
                    status: invoice.status.clone().unwrap_or_default(),
                    quantity: 0,
                    amount: 0,
                    expected_amount,
                });
                check.quantity += line.quantity.unwrap_or(0);
                check.amount += line.amount;
            }
        }
        if check.is_some() {
            return check;
        }
    }
    None
}

/// The plan whose event name a report carries, if the customer's record still knows it.
fn plan_of(customer: &Customer, event_name: &str, meter: &str) -> Option<PlanId> {
    let named = event_name.strip_prefix(&format!("farebox_{meter}_"))?;
    let known = customer.phases.iter().find(|phase| phase.plan.as_str() == named);
    known.map(|phase| phase.plan.clone()).or_else(|| named.parse().ok())
}

/// The whole minutes that hold a period's reports. Reports are stamped with a bucket's first whole minute or later, so the
/// minute that a period begins in belongs to the one before.
fn window(period: Period, now_s: u64, minutes: &BTreeSet<u64>) -> (u64, u64) {
    let up = |s: u64| s.div_ceil(60).saturating_mul(60);
    let (first, last) = (minutes.first().copied(), minutes.last().copied());
    let start = first.map_or(up(period.start), |first| up(period.start).min(first));
    let end = up(period.end).min(up(now_s + 1));
    let end = last.map_or(end, |last| end.max(last + 60));
    (start, end.max(start + 60))
}

/// The start of a second's minute.
pub(crate) fn minute_of(s: u64) -> u64 {
    s - s % 60
}
