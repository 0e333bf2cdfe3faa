//! The bridge to the shipped rules: small numbers become items, rows and records, `farebox-core` decides, and the answer
//! becomes small numbers again. Tables are written by running the rules' own expressions. Answers are remembered: the same
//! question is asked millions of times.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::Hash,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use farebox_core::{
    account::{Contact, Customer, Phase, Standing},
    admission::{self, Belief, Counters, Demand, Judgement, bucket_attribute},
    counter::{self, SealAnswer},
    expression::{Expression, Value},
    id::{CustomerId, Generation},
    ledger::{self, Balance, Claim, NextStep, RowKey},
    tiers::{Interval, Overrides, PlanId},
    time::{Bucket, Cycle, Timestamp},
};

use crate::{
    case::{Case, HOUR, ORIGIN_S},
    table::{self, Attributes},
    variant::Variant,
    world::{Item, Key, Ledger, Record, Report, Row, RowState, Sec},
};

const METER: &str = "api_calls";
const PLANS: [&str; 2] = ["basic-00000000", "pro-00000000"];
const STRIPE_CUSTOMERS: [&str; 2] = ["cus_0", "cus_1"];
/// A month before the first hour's period edge, or in the middle of a period.
const CALM_ANCHOR_S: u64 = ORIGIN_S - 16 * 86_400;

/// The epoch of an item that is shut.
const SHUT: u8 = u8::MAX;

/// A write to a counter item.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CounterWrite {
    Admit(Record, Sec),
    Bump(u8),
    Seal(Key),
    Prune(Key),
    Shut(u8),
    /// With what the write that shut it answered.
    Restore {
        shut: Item,
        life: u8,
        sealed: Sec,
        epoch: u8,
    },
}

/// A write to a ledger row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RowWrite {
    Fold {
        units: u8,
        end: Sec,
    },
    Freeze {
        units: u8,
        credit: u8,
        report: Report,
        is_own: bool,
        now: Sec,
    },
    Close {
        units: u8,
        credit: u8,
        now: Sec,
    },
    Claim {
        worker: u8,
        now: Sec,
    },
    Delivered {
        now: Sec,
    },
    RetryLater {
        worker: u8,
        since: Sec,
        tries: u8,
        fault: bool,
        now: Sec,
    },
    Park {
        worker: u8,
        since: Sec,
    },
    Finish,
}

/// What [`ledger::next_step`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Send,
    Ask(Sec, Sec),
    Park,
    Drop,
}

/// What [`admission::judge`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Judged {
    Stale,
    Again(Sec),
}

/// The rules of one case, perhaps with one of them broken.
pub(crate) struct Rules {
    id: u64,
    anchor: u64,
    first: Sec,
    pub(crate) variant: Option<Variant>,
}

#[derive(Default)]
struct Memory {
    owner: u64,
    counters: HashMap<(CounterWrite, Option<Item>), Option<Item>>,
    rows: HashMap<(RowWrite, Key, Option<Row>), Option<Row>>,
    customers: HashMap<Record, Customer>,
    plans: HashMap<(Record, Sec, Sec), Sec>,
    judged: HashMap<(Record, Sec, Item), Judged>,
    steps: HashMap<(Key, Row, Sec), Step>,
    reports: HashMap<(Key, Sec), Sec>,
    sealed: HashMap<(Option<Item>, Key, u8), Option<u8>>,
}

impl Memory {
    /// Another case has other answers.
    fn belong_to(&mut self, owner: u64) {
        if self.owner != owner {
            *self = Self {
                owner,
                ..Self::default()
            };
        }
    }
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Rules {
    pub(crate) fn new(case: &Case, variant: Option<Variant>) -> Self {
        let edge = case.edge.map(|edge| s(HOUR + edge));
        let anchor = edge.map_or(CALM_ANCHOR_S, |edge| {
            // The period that starts at the edge is one of an anchor 31 days earlier: December has as many.
            edge - 31 * 86_400
        });
        Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            anchor,
            first: HOUR + case.moments.first().copied().unwrap_or(0),
            variant,
        }
    }

    pub(crate) fn is(&self, variant: Variant) -> bool {
        self.variant == Some(variant)
    }

    /// Asks once and remembers the answer.
    fn once<K, V>(&self, of: fn(&mut Memory) -> &mut HashMap<K, V>, key: K, work: impl FnOnce(&K) -> V) -> V
    where
        K: Hash + Eq,
        V: Clone,
    {
        let known = MEMORY.with_borrow_mut(|memory| {
            memory.belong_to(self.id);
            of(memory).get(&key).cloned()
        });
        known.unwrap_or_else(|| {
            let answer = work(&key);
            MEMORY.with_borrow_mut(|memory| of(memory).insert(key, answer.clone()));
            answer
        })
    }

    /// A counter item after a write; `None` if the condition failed.
    pub(crate) fn write_counter(&self, item: Option<&Item>, write: CounterWrite) -> Option<Item> {
        self.once(
            |memory| &mut memory.counters,
            (write, item.cloned()),
            |(write, item)| {
                let expression = self.counter_expression(write);
                table::run(&expression, &item_out(item.as_ref())).map(|after| item_in(&after))
            },
        )
    }

    fn counter_expression(&self, write: &CounterWrite) -> Expression {
        match write {
            CounterWrite::Admit(record, bucket) => {
                let demand = self.demand(*record, *bucket);
                let attempt = admission::plan(&demand, None).expect("no limit, no denial");
                assert_eq!(attempt.bucket.start, s(*bucket), "a bucket's start lies in it");
                let write = attempt.expression();
                match self.is(Variant::NoAdmissionGuard) {
                    true => without(write, " AND sealed < :bucket"),
                    false => write,
                }
            }
            CounterWrite::Bump(epoch) => counter::bump(u64::from(*epoch)),
            CounterWrite::Seal(key) => {
                let write = counter::seal(&generation(key.life), s(key.bucket));
                match self.variant {
                    Some(Variant::SealMayGoBack) => without(write, " AND sealed < :bucket"),
                    Some(Variant::SealIgnoresGeneration) => without(write, "generation = :generation AND "),
                    Some(Variant::SealCreatesAbsentItem) => {
                        let mut write = write;
                        write.condition = format!("attribute_not_exists(generation) OR ({})", write.condition);
                        write
                            .update
                            .push_str(", generation = if_not_exists(generation, :generation)");
                        write
                    }
                    _ => write,
                }
            }
            CounterWrite::Prune(key) => {
                let write = counter::prune(&generation(key.life), s(key.bucket), METER);
                match self.is(Variant::PruneIgnoresGeneration) {
                    true => without(write, "generation = :generation AND "),
                    false => write,
                }
            }
            CounterWrite::Shut(life) => {
                let write = counter::shut(&generation(*life));
                match self.is(Variant::RestoreWithoutShutting) {
                    true => Expression {
                        update: "SET generation = :generation".to_owned(),
                        ..write
                    },
                    false => write,
                }
            }
            CounterWrite::Restore {
                shut,
                life,
                sealed,
                epoch,
            } => {
                let shut = counters(shut);
                let life = match self.is(Variant::RestoreKeepsGeneration) {
                    true => Generation::try_from(shut.generation.clone()).expect("it has one"),
                    false => generation(*life),
                };
                let mut write = counter::restore(&shut, &life, s(*sealed), u64::from(*epoch));
                if self.is(Variant::RestoreKeepsBuckets)
                    && let Some(remove) = write.update.find(" REMOVE")
                {
                    write.update.truncate(remove);
                }
                match self.is(Variant::RestoreWithoutShutting) {
                    true => without(write, " AND auth_epoch = :shut"),
                    false => write,
                }
            }
        }
    }

    /// A ledger row after a write; `None` if the condition failed.
    pub(crate) fn write_row(&self, key: Key, row: Option<&Row>, write: RowWrite) -> Option<Row> {
        self.once(
            |memory| &mut memory.rows,
            (write, key, row.copied()),
            |&(write, key, row)| {
                let before = row.map(|row| row_out(key, &row)).unwrap_or_default();
                let after = table::run(&self.row_expression(key, write), &before)?;
                let mut after = row_in(&after);
                if !self.is(Variant::IdentifierWithAttempt) {
                    after.tries = 0;
                }
                Some(after)
            },
        )
    }

    fn row_expression(&self, key: Key, write: RowWrite) -> Expression {
        match write {
            RowWrite::Fold { units, end } => {
                let write = ledger::fold(&row_key(key), s(end), u64::from(units));
                match self.is(Variant::FoldsIntoAnyRow) {
                    true => without(write, "#state = :open AND "),
                    false => write,
                }
            }
            RowWrite::Freeze {
                units,
                credit,
                report,
                is_own,
                now,
            } => {
                let report = report_out(key, report);
                let write = ledger::freeze(&report, u64::from(units), u64::from(credit), time(now));
                ledger::with_own_minute(self.forgetting_folds(write), is_own)
            }
            RowWrite::Close { units, credit, now } => {
                let write = ledger::close(u64::from(units), u64::from(credit), "nothing to report", time(now));
                self.forgetting_folds(write)
            }
            RowWrite::Claim { worker, now } => ledger::claim(&claim(worker, now)),
            RowWrite::Delivered { now } => ledger::delivered("accepted", time(now)),
            RowWrite::RetryLater {
                worker,
                since,
                tries,
                fault,
                now,
            } => ledger::retry_later(&claim(worker, since).token, u64::from(tries), fault, time(now)),
            RowWrite::Park { worker, since } => ledger::park(&claim(worker, since).token, "parked"),
            RowWrite::Finish => ledger::finish(),
        }
    }

    fn forgetting_folds(&self, write: Expression) -> Expression {
        match self.is(Variant::FreezeForgetsFold) {
            true => without(write, " AND units <= :units"),
            false => write,
        }
    }

    /// Takes units off the balance, under the condition that it is as it was seen. Says whether it was taken.
    pub(crate) fn take(&self, ledger: &mut Ledger, seen: (u8, u8), credit: u8) -> bool {
        let mut write = ledger::take(balance(seen.0, seen.1), u64::from(credit));
        match self.variant {
            Some(Variant::CreditTakenTwice) => write = without(write, "taken = :seen AND "),
            Some(Variant::CreditClamped) => {
                for (name, value) in &mut write.values {
                    if name == ":taken" {
                        *value = Value::N(u64::from(seen.0));
                    }
                }
            }
            _ => {}
        }
        let Some(after) = table::run(&write, &balance_out(ledger)) else {
            return false;
        };
        ledger.taken = number(&after, "taken").unwrap_or(0);
        true
    }

    /// Gives units, in one transaction with the mark that they were given. Says whether it was new.
    pub(crate) fn grant(&self, ledger: &mut Ledger, which: u8, units: u8) -> bool {
        if ledger.marks & (1 << which) != 0 && !self.is(Variant::CreditGivenTwice) {
            return false;
        }
        let mut before = balance_out(ledger);
        if ledger.marks == 0 {
            before.clear();
        }
        let after = table::run(&ledger::grant(u64::from(units)), &before).expect("a grant is not refused");
        ledger.granted = number(&after, "granted").unwrap_or(0);
        ledger.taken = number(&after, "taken").unwrap_or(0);
        ledger.marks |= 1 << which;
        true
    }

    /// What a bucket takes of the balance.
    pub(crate) fn credit(&self, granted: u8, taken: u8, units: u8) -> u8 {
        small(balance(granted, taken).left().min(u64::from(units)))
    }

    /// All the units of a row by the answer to its seal and what it says itself; `None` if the bucket is not sealed.
    pub(crate) fn all_units(&self, item: Option<&Item>, key: Key, folded: u8) -> Option<u8> {
        self.once(
            |memory| &mut memory.sealed,
            (item.cloned(), key, folded),
            |&(ref item, key, folded)| {
                let answer = match item {
                    Some(item) if self.is(Variant::SealIgnoresGeneration) => {
                        SealAnswer::Final(u64::from(item.units_of(key.bucket)))
                    }
                    item => {
                        let counters = item.as_ref().map(counters);
                        counter::sealed_units(counters.as_ref(), &generation(key.life), s(key.bucket), METER)
                    }
                };
                match answer {
                    SealAnswer::Final(units) if self.is(Variant::FreezeTakesCounter) => Some(small(units)),
                    answer => ledger::all_units(answer, u64::from(folded)).map(small),
                }
            },
        )
    }

    /// The bucket that a request is planned into, by a clock and what is believed to be sealed.
    pub(crate) fn plan(&self, record: Record, at: Sec, sealed: Sec) -> Sec {
        self.once(
            |memory| &mut memory.plans,
            (record, at, sealed),
            |&(record, at, sealed)| {
                let belief = Belief {
                    counters: Counters {
                        sealed: s(sealed),
                        ..Counters::default()
                    },
                    at: time(at),
                };
                let belief = (sealed > 0).then_some(&belief);
                let attempt = admission::plan(&self.demand(record, at), belief).expect("no limit, no denial");
                offset(attempt.bucket.start)
            },
        )
    }

    /// What the exact item says of a refused request.
    pub(crate) fn judge(&self, record: Record, at: Sec, item: &Item) -> Judged {
        self.once(
            |memory| &mut memory.judged,
            (record, at, item.clone()),
            |(record, at, item)| match admission::judge(&self.demand(*record, *at), &counters(item)) {
                Judgement::Stale => Judged::Stale,
                Judgement::Admissible(attempt) => Judged::Again(offset(attempt.bucket.start)),
                Judgement::Denied(denial) => panic!("no limit, no denial: {denial:?}"),
            },
        )
    }

    /// What to do with a claimed row.
    pub(crate) fn next_step(&self, key: Key, row: Row, now: Sec) -> Step {
        let step = self.once(
            |memory| &mut memory.steps,
            (key, row, now),
            |&(key, row, now)| match ledger::next_step(&core_row(key, &row), time(now)) {
                NextStep::Send => Step::Send,
                NextStep::Ask { start, end } => Step::Ask(offset(start), offset(end)),
                NextStep::Park(_) => Step::Park,
                NextStep::Drop => Step::Drop,
            },
        );
        match (step, self.variant) {
            (Step::Ask(..), Some(Variant::PostsWithoutAsking)) => Step::Send,
            (Step::Ask(..), Some(Variant::AsksForTheHour)) => {
                let hour = key.bucket - key.bucket % 3_600;
                Step::Ask(hour, hour + 3_600)
            }
            _ => step,
        }
    }

    /// The second that a row's report is stamped with.
    pub(crate) fn stamp(&self, key: Key, end: Sec) -> Sec {
        self.once(
            |memory| &mut memory.reports,
            (key, end),
            |&(key, end)| {
                let bucket = Bucket {
                    start: s(key.bucket),
                    end: s(end),
                };
                offset(ledger::report_timestamp(bucket, generation(key.life).slot()))
            },
        )
    }

    /// Whether no other report can be stamped with the same minute, when so many slots are taken.
    pub(crate) fn is_own_minute(&self, key: Key, end: Sec, slots: u8, now: Sec) -> bool {
        let bucket = Bucket {
            start: s(key.bucket),
            end: s(end),
        };
        self.is(Variant::AsksForSharedMinute) || ledger::have_minutes_of_their_own(bucket, u32::from(slots), time(now))
    }

    /// The plan that holds at a second.
    pub(crate) fn plan_at(&self, record: Record, at: Sec) -> u8 {
        self.with_customer(record, |customer| {
            u8::from(customer.phase_at(s(at)).plan.as_str() == PLANS[1])
        })
    }

    /// The bucket that a second lies in.
    pub(crate) fn bucket_at(&self, record: Record, at: Sec) -> (Sec, Sec) {
        let bucket = self.with_customer(record, |customer| customer.cycle.bucket_at(s(at)));
        (offset(bucket.start), offset(bucket.end))
    }

    /// The start of the bucket before that of a second: what a new or restored item is sealed up to.
    pub(crate) fn bucket_before(&self, record: Record, at: Sec) -> Sec {
        offset(self.with_customer(record, |customer| customer.cycle.bucket_before(s(at)).start))
    }

    /// The period that a second lies in: its start, 0 if that is before the origin, and its end.
    pub(crate) fn period_at(&self, record: Record, at: Sec) -> (Sec, Sec) {
        let period = self.with_customer(record, |customer| customer.cycle.period_at(s(at)));
        (offset(period.start), offset(period.end))
    }

    fn with_customer<T>(&self, record: Record, read: impl FnOnce(&Customer) -> T) -> T {
        MEMORY.with_borrow_mut(|memory| {
            memory.belong_to(self.id);
            let customer = memory.customers.entry(record).or_insert_with(|| self.customer(record));
            read(customer)
        })
    }

    fn customer(&self, record: Record) -> Customer {
        let phase = |from, plan: usize| Phase {
            from,
            tier: PLANS[plan].split('-').next().unwrap_or_default().to_owned(),
            catalog: 1,
            overrides: Overrides::default(),
            plan: plan_id(plan),
        };
        let mut customer = Customer {
            id: customer_id(),
            name: String::new(),
            phases: vec![phase(0, 0)],
            offered: None,
            ends: None,
            is_leaving: false,
            cycle: Cycle::starting_at(self.anchor, Interval::Month),
            auth_epoch: u64::from(record.epoch),
            is_suspended: false,
            standing: Standing::Good,
            grants: Vec::new(),
            contact: Contact::default(),
            stripe_customer: Some(STRIPE_CUSTOMERS[usize::from(record.stripe_customer)].to_owned()),
            stripe_subscription: None,
            next_slot: 0,
        };
        if let Some(from) = record.changed {
            customer.begin(phase(s(from), 1), s(from)).expect("one change is taken");
        }
        customer
    }

    fn demand(&self, record: Record, at: Sec) -> Demand {
        let (auth_epoch, cycle, plan) = self.with_customer(record, |customer| {
            let plan = customer.phase_at(s(at)).plan.clone();
            (customer.auth_epoch, customer.cycle.clone(), plan)
        });
        // Limits and quotas decide who gets in, not what becomes of a unit that did.
        Demand {
            now: time(at),
            cost: 1,
            meter: METER.to_owned(),
            group: None,
            plan,
            auth_epoch,
            cycle,
            rates: Vec::new(),
            quotas: Vec::new(),
        }
    }

    /// A counter item as it is created.
    pub(crate) fn created(&self, life: u8) -> Item {
        let record = Record::default();
        let sealed = s(self.bucket_before(record, self.first));
        let after = table::run(&counter::create(&generation(life), 0, sealed), &Attributes::new());
        item_in(&after.expect("it is created"))
    }
}

/// Leaves a part of a condition out. A rule that was said anew has to be broken anew.
fn without(mut write: Expression, part: &str) -> Expression {
    assert!(write.condition.contains(part), "{part} is not in {}", write.condition);
    write.condition = write.condition.replace(part, "");
    write
}

fn s(offset: Sec) -> u64 {
    ORIGIN_S + u64::from(offset)
}

fn offset(s: u64) -> Sec {
    u32::try_from(s.saturating_sub(ORIGIN_S)).expect("the model ends within years")
}

fn time(at: Sec) -> Timestamp {
    Timestamp::from_s(s(at))
}

fn small(n: u64) -> u8 {
    u8::try_from(n).expect("the model counts to a handful")
}

fn customer_id() -> CustomerId {
    CustomerId::try_from("acme".to_owned()).expect("an id")
}

fn plan_id(plan: usize) -> PlanId {
    PLANS[plan].parse().expect("a plan")
}

/// Lives are numbered so that shard `i` has `i`, `i + 2`, …: each is also a slot of its own.
fn generation(life: u8) -> Generation {
    Generation::new(u64::from(life).to_be_bytes(), u32::from(life))
}

fn life(generation: &str) -> u8 {
    let generation = Generation::try_from(generation.to_owned()).expect("a generation");
    u8::try_from(generation.slot()).expect("few lives")
}

fn row_key(key: Key) -> RowKey {
    RowKey {
        customer: customer_id(),
        shard: u32::from(key.life % 2),
        generation: generation(key.life),
        meter: METER.to_owned(),
        bucket: s(key.bucket),
    }
}

fn claim(worker: u8, now: Sec) -> Claim {
    Claim {
        token: format!("{worker}-{now}"),
        at: time(now),
    }
}

fn balance(granted: u8, taken: u8) -> Balance {
    Balance {
        granted: u64::from(granted),
        taken: u64::from(taken),
    }
}

fn balance_out(ledger: &Ledger) -> Attributes {
    Attributes::from([
        ("granted".to_owned(), Value::N(u64::from(ledger.granted))),
        ("taken".to_owned(), Value::N(u64::from(ledger.taken))),
    ])
}

fn counters(item: &Item) -> Counters {
    let units = |&(bucket, units): &(Sec, u8)| (bucket_attribute(s(bucket), METER), u64::from(units));
    Counters {
        generation: item
            .life
            .map(|life| generation(life).as_str().to_owned())
            .unwrap_or_default(),
        auth_epoch: item.epoch.map_or(0, epoch_out),
        sealed: s(item.sealed),
        units: item.units.iter().map(units).collect(),
    }
}

fn item_out(item: Option<&Item>) -> Attributes {
    let Some(item) = item else { return Attributes::new() };
    let mut attributes = Attributes::from([("sealed".to_owned(), Value::N(s(item.sealed)))]);
    if let Some(life) = item.life {
        attributes.insert("generation".to_owned(), Value::S(generation(life).as_str().to_owned()));
    }
    if let Some(epoch) = item.epoch {
        attributes.insert("auth_epoch".to_owned(), Value::N(epoch_out(epoch)));
    }
    for (name, units) in counters(item).units {
        attributes.insert(name, Value::N(units));
    }
    attributes
}

fn item_in(attributes: &Attributes) -> Item {
    let mut units: Vec<(Sec, u8)> = attributes
        .iter()
        .filter_map(|(name, value)| match (admission::parse_bucket_attribute(name), value) {
            (Some((bucket, _)), Value::N(units)) => Some((offset(bucket), small(*units))),
            _ => None,
        })
        .collect();
    units.sort_unstable();
    Item {
        life: text(attributes, "generation").map(life),
        epoch: match attributes.get("auth_epoch") {
            Some(Value::N(counter::SHUT)) => Some(SHUT),
            _ => number(attributes, "auth_epoch"),
        },
        sealed: second(attributes, "sealed").unwrap_or(0),
        units,
    }
}

fn epoch_out(epoch: u8) -> u64 {
    match epoch {
        SHUT => counter::SHUT,
        epoch => u64::from(epoch),
    }
}

fn report_out(key: Key, report: Report) -> ledger::Report {
    ledger::Report {
        value: u64::from(report.value),
        stripe_customer: STRIPE_CUSTOMERS[usize::from(report.customer)].to_owned(),
        event_name: plan_id(usize::from(report.plan)).event_name(METER),
        timestamp: s(report.at),
        identifier: row_key(key).identifier(),
    }
}

fn core_row(key: Key, row: &Row) -> ledger::Row {
    ledger::Row {
        key: row_key(key),
        state: match row.state {
            RowState::Open => ledger::RowState::Open,
            RowState::Sealed => ledger::RowState::Sealed,
            RowState::Sending => ledger::RowState::Sending,
            RowState::Reported => ledger::RowState::Reported,
            RowState::Parked => ledger::RowState::Parked,
        },
        units: u64::from(row.units),
        credit: u64::from(row.credit),
        bucket_end: s(row.end),
        due: 0,
        report: row.report.map(|report| report_out(key, report)),
        own_minute: row.own_minute,
        claim: row.claim.map(|(worker, since)| claim(worker, since)),
        faults: u64::from(row.faults),
        tries: u64::from(row.tries),
        outcome: None,
    }
}

fn row_out(key: Key, row: &Row) -> Attributes {
    let of = core_row(key, row);
    let mut attributes = Attributes::from([
        ("state".to_owned(), Value::S(of.state.as_str().to_owned())),
        ("units".to_owned(), Value::N(of.units)),
        ("credit".to_owned(), Value::N(of.credit)),
        ("bucket_end".to_owned(), Value::N(of.bucket_end)),
        ("due".to_owned(), Value::N(0)),
        ("faults".to_owned(), Value::N(of.faults)),
        ("tries".to_owned(), Value::N(of.tries)),
    ]);
    if let Some(report) = of.report {
        attributes.extend([
            ("value".to_owned(), Value::N(report.value)),
            ("stripe_customer".to_owned(), Value::S(report.stripe_customer)),
            ("event_name".to_owned(), Value::S(report.event_name)),
            ("timestamp".to_owned(), Value::N(report.timestamp)),
            ("identifier".to_owned(), Value::S(report.identifier)),
        ]);
    }
    if let Some(is_own) = of.own_minute {
        attributes.insert("own_minute".to_owned(), Value::N(u64::from(is_own)));
    }
    if let Some(claim) = of.claim {
        attributes.insert("claim".to_owned(), Value::S(claim.token));
        attributes.insert("claimed_at".to_owned(), Value::N(claim.at.ms()));
    }
    if row.work {
        attributes.insert("work".to_owned(), Value::S(of.key.work()));
    }
    attributes
}

fn row_in(attributes: &Attributes) -> Row {
    let state = match text(attributes, "state").and_then(ledger::RowState::parse) {
        Some(ledger::RowState::Open) => RowState::Open,
        Some(ledger::RowState::Sealed) => RowState::Sealed,
        Some(ledger::RowState::Sending) => RowState::Sending,
        Some(ledger::RowState::Reported) => RowState::Reported,
        Some(ledger::RowState::Parked) => RowState::Parked,
        None => panic!("a row without a state: {attributes:?}"),
    };
    let report = number(attributes, "value").map(|value| Report {
        value,
        customer: u8::from(text(attributes, "stripe_customer") == Some(STRIPE_CUSTOMERS[1])),
        plan: u8::from(text(attributes, "event_name") == Some(plan_id(1).event_name(METER).as_str())),
        at: second(attributes, "timestamp").unwrap_or(0),
    });
    let claim = text(attributes, "claim").map(|token| {
        let (worker, since) = token.split_once('-').expect("a token of ours");
        (worker.parse().expect("a worker"), since.parse().expect("a second"))
    });
    Row {
        state,
        units: number(attributes, "units").unwrap_or(0),
        credit: number(attributes, "credit").unwrap_or(0),
        end: second(attributes, "bucket_end").unwrap_or(0),
        report,
        own_minute: number(attributes, "own_minute").map(|n| n != 0),
        claim,
        faults: number(attributes, "faults").unwrap_or(0),
        tries: number(attributes, "tries").unwrap_or(0),
        work: attributes.contains_key("work"),
    }
}

fn number(attributes: &Attributes, name: &str) -> Option<u8> {
    match attributes.get(name) {
        Some(Value::N(n)) => Some(small(*n)),
        _ => None,
    }
}

fn second(attributes: &Attributes, name: &str) -> Option<Sec> {
    match attributes.get(name) {
        Some(Value::N(s)) => Some(offset(*s)),
        _ => None,
    }
}

fn text<'a>(attributes: &'a Attributes, name: &str) -> Option<&'a str> {
    match attributes.get(name) {
        Some(Value::S(text)) => Some(text),
        _ => None,
    }
}
