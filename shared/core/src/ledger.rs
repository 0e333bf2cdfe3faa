//! The ledger: one row per customer, shard, generation, meter and bucket, copied from the counter and reported once.
//!
//! ```text
//!            fold (a message, larger units)
//!             ╭──╮
//!   absent ──▶ open ── seal the counter, freeze ──▶ sealed ── claim ──▶ sending ── delivered ──▶ reported ── prune, finish
//!                │                                     │                  │  ▲╰─ retry later ─╯
//!                ╰── 0 units, or nobody to bill ─▶ reported               │  ╰─ claim again after 5 minutes
//!                                                                         ╰──▶ parked (the operator decides) ◀── reopen ── reported
//! ```
//!
//! Every step may run twice, in two workers at once, and be killed anywhere. What the report will say is frozen in the row
//! before the first attempt; nothing works it out again.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::{
    counter::SealAnswer,
    expression::{Expression, Value},
    id::{CustomerId, Generation},
    message::UsageMessage,
    time::{Bucket, Timestamp},
};

/// A bucket is sealed this long after its end, so that messages under way are folded first.
pub const SEAL_DELAY_S: u64 = 300;
/// A claim that is older belongs to a worker that died; a worker drops its own before it gets so old.
pub const CLAIM_LIFE_MS: u64 = 300_000;
/// From this age on a report is asked for before it is sent: Stripe remembers an identifier for at least 24 hours
/// (<https://docs.stripe.com/api/billing/meter-event/create>).
pub const ASK_AFTER_S: u64 = 23 * 3_600;
/// Stripe takes timestamps of the past 35 days; a day before that we stop (same page).
pub const REPORT_WITHIN_S: u64 = 34 * 86_400;
/// Stripe refuses timestamps more than five minutes ahead (same page); a minute is left for clocks that differ.
pub const AHEAD_MAX_S: u64 = 240;
/// A row that something went wrong with lets others go first for so long.
pub const PUT_OFF_S: u64 = 300;
/// Over how many partitions of the work index rows are spread.
pub const WORK_PARTITIONS: u32 = 4;

/// What names a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey {
    /// Whose units.
    pub customer: CustomerId,
    /// The counter item's shard.
    pub shard: u32,
    /// The counter item's life.
    pub generation: Generation,
    /// The meter.
    pub meter: String,
    /// The bucket's start, unix seconds.
    pub bucket: u64,
}

impl RowKey {
    /// The row that a message speaks of.
    #[must_use]
    pub fn of(message: &UsageMessage) -> Self {
        Self {
            customer: message.customer.clone(),
            shard: message.shard,
            generation: message.generation.clone(),
            meter: message.meter.clone(),
            bucket: message.bucket,
        }
    }

    /// The table's partition key; the bucket is its sort key.
    #[must_use]
    pub fn partition(&self) -> String {
        format!("{}#{}#{}#{}", self.customer, self.shard, self.generation, self.meter)
    }

    /// Reads the table's key.
    #[must_use]
    pub fn parse(partition: &str, bucket: u64) -> Option<Self> {
        let mut parts = partition.split('#');
        let key = Self {
            customer: parts.next()?.to_owned().try_into().ok()?,
            shard: parts.next()?.parse().ok()?,
            generation: parts.next()?.to_owned().try_into().ok()?,
            meter: parts.next()?.to_owned(),
            bucket,
        };
        parts.next().is_none().then_some(key)
    }

    /// The identifier that Stripe knows the row's report by: the same for every attempt, another for every row. What Stripe has taken
    /// and then refused to count is sent under the next one ([`reopen`]).
    #[must_use]
    pub fn identifier(&self) -> String {
        let digest = Sha256::digest(format!("{}#{}", self.partition(), self.bucket).as_bytes());
        let mut text = String::from("farebox-");
        for byte in digest {
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }

    /// The partition of the work index that the row waits in.
    #[must_use]
    pub fn work(&self) -> String {
        work_of(&self.customer)
    }
}

/// The partition of the work index that a customer's rows wait in.
#[must_use]
pub fn work_of(customer: &CustomerId) -> String {
    work_partition(crc32fast::hash(customer.as_str().as_bytes()) % WORK_PARTITIONS)
}

impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.partition(), self.bucket)
    }
}

/// The name of a partition of the work index.
#[must_use]
pub fn work_partition(n: u32) -> String {
    format!("work-{n}")
}

/// Where a row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowState {
    /// Units are folded in.
    Open,
    /// The bucket is closed and the report written down.
    Sealed,
    /// A report may be under way.
    Sending,
    /// Stripe has it, or there was nothing to report.
    Reported,
    /// It needs the operator.
    Parked,
}

impl RowState {
    /// The word in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RowState::Open => "open",
            RowState::Sealed => "sealed",
            RowState::Sending => "sending",
            RowState::Reported => "reported",
            RowState::Parked => "parked",
        }
    }

    /// Reads the word in the table.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Open, Self::Sealed, Self::Sending, Self::Reported, Self::Parked]
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}

/// A row as the table holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What names it.
    pub key: RowKey,
    /// Where it stands.
    pub state: RowState,
    /// The largest units that a message brought; the counter's own once sealed.
    pub units: u64,
    /// How many of them were given: the report says that many less. Set when sealed.
    pub credit: u64,
    /// The bucket's end, unix seconds.
    pub bucket_end: u64,
    /// When something is to be done next, unix seconds.
    pub due: u64,
    /// What the report says. Set when sealed.
    pub report: Option<Report>,
    /// Whether no other row's report can be stamped with the same minute. Set when sealed; rows that were sealed before this
    /// was written down have none.
    pub own_minute: Option<bool>,
    /// Who sends it, and since when.
    pub claim: Option<Claim>,
    /// How many times Stripe answered 5xx: part of the idempotency key, because a stored 500 is replayed.
    pub faults: u64,
    /// How many attempts ended without an outcome.
    pub tries: u64,
    /// How it became reported, or why it is parked.
    pub outcome: Option<String>,
}

/// Everything that the report of a row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Units.
    pub value: u64,
    /// The customer in Stripe.
    pub stripe_customer: String,
    /// The meter's event name in Stripe.
    pub event_name: String,
    /// Unix seconds.
    pub timestamp: u64,
    /// Stripe's key against counting twice.
    pub identifier: String,
}

/// A worker's hold on a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Random.
    pub token: String,
    /// Since when.
    pub at: Timestamp,
}

/// When a report is stamped: the bucket's first whole minute plus the generation's slot, so that no two rows of a customer
/// and meter share a minute and each can be asked for alone. A bucket without that many whole minutes wraps around; one
/// without any is stamped with its first second, which lies in the right billing period.
#[must_use]
pub fn report_timestamp(bucket: Bucket, slot: u32) -> u64 {
    let first = bucket.start.div_ceil(60).saturating_mul(60);
    match bucket.end.saturating_sub(first) / 60 {
        0 => bucket.start,
        minutes => first + u64::from(slot) % minutes * 60,
    }
}

/// Whether a row's minute is its own as far as its slot tells: for rows that do not say it themselves.
#[must_use]
pub fn has_minute_of_its_own(bucket: Bucket, slot: u32) -> bool {
    u64::from(slot) < whole_minutes(bucket)
}

/// Whether each of so many slots has a minute of its own for good: one that wraps around lands on the minute of a slot that does
/// not, and in a bucket that is not over a later slot may count as well. Only then can a report be asked for.
#[must_use]
pub fn have_minutes_of_their_own(bucket: Bucket, slots: u32, now: Timestamp) -> bool {
    u64::from(slots) <= whole_minutes(bucket) && bucket.end <= now.s()
}

fn whole_minutes(bucket: Bucket) -> u64 {
    let first = bucket.start.div_ceil(60).saturating_mul(60);
    bucket.end.saturating_sub(first) / 60
}

impl Row {
    /// The row's bucket.
    #[must_use]
    pub fn bucket(&self) -> Bucket {
        Bucket {
            start: self.key.bucket,
            end: self.bucket_end,
        }
    }

    /// Whether something is to be done with it. Where its customer's period closes that is before it is due, but for a report that
    /// may be under way.
    #[must_use]
    pub fn is_due(&self, is_closing: bool, now: Timestamp) -> bool {
        (is_closing && self.state != RowState::Sending) || self.due <= now.s()
    }

    /// The v1 `Idempotency-Key` of the next attempt: derived from the identifier, and moved on only after a 5xx was
    /// received, because Stripe stores and replays those (<https://docs.stripe.com/api/idempotent_requests>).
    #[must_use]
    pub fn idempotency_key(report: &Report, faults: u64) -> String {
        format!("{}-{faults}", report.identifier)
    }
}

/// What to do with a claimed row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Send the report.
    Send,
    /// Ask Stripe for the sum of this minute (unix seconds, end excluded): 0 means send at once, the row's value means
    /// delivered, anything else parks it.
    Ask {
        /// The minute's start.
        start: u64,
        /// The minute's end.
        end: u64,
    },
    /// Nothing safe is left to do.
    Park(&'static str),
    /// The claim is too old to act on; somebody else may hold the row.
    Drop,
}

/// Chooses the next step right before the call to Stripe.
#[must_use]
pub fn next_step(row: &Row, now: Timestamp) -> NextStep {
    let Some(claim) = &row.claim else { return NextStep::Drop };
    // The call's own time-out is 30 s: it must be over before the claim can be taken.
    if now.ms_since(claim.at) + 60_000 > CLAIM_LIFE_MS {
        return NextStep::Drop;
    }
    let Some(report) = &row.report else {
        return NextStep::Drop;
    };
    if now.s() > row.key.bucket.saturating_add(REPORT_WITHIN_S) {
        return NextStep::Park("older than 34 days: Stripe may not take it any more");
    }
    if now.s() <= row.key.bucket.saturating_add(ASK_AFTER_S) {
        return NextStep::Send;
    }
    let has_own_minute = row
        .own_minute
        .unwrap_or_else(|| has_minute_of_its_own(row.bucket(), row.key.generation.slot()));
    if !has_own_minute {
        return NextStep::Park(
            "older than 23 hours, and its minute is shared: Stripe's sum can not tell whether it has it",
        );
    }
    let start = report.timestamp - report.timestamp % 60;
    NextStep::Ask { start, end: start + 60 }
}

/// Until when (unix seconds) a row must wait because its report is stamped too far ahead: a bucket that was sealed before it
/// ended has minutes to come. `None` if it may be sent.
#[must_use]
pub fn wait_until(row: &Row, now: Timestamp) -> Option<u64> {
    let from = row.report.as_ref()?.timestamp.saturating_sub(AHEAD_MAX_S);
    (from > now.s()).then_some(from)
}

/// Seconds until the next attempt where `tries` had failed before the last one: one minute at first, doubled each time, at most
/// the five minutes of the schedule. A worker stops asking a Stripe that does not answer, so that longer pauses would only delay the
/// day after.
#[must_use]
pub fn backoff_s(tries: u64) -> u64 {
    60u64.saturating_mul(1 << tries.min(3)).min(300)
}

/// Opens the row, or raises its units; refused once it is not open, or when it already says as much.
#[must_use]
pub fn fold(key: &RowKey, bucket_end: u64, units: u64) -> Expression {
    Expression::new(
        "SET #state = :open, units = :units, bucket_end = if_not_exists(bucket_end, :end), \
         #due = if_not_exists(#due, :due), #work = if_not_exists(#work, :work)",
        "attribute_not_exists(#state) OR (#state = :open AND units < :units)",
    )
    .name("#state", "state")
    .name("#due", "due")
    .name("#work", "work")
    .value(":open", "open")
    .value(":units", units)
    .value(":end", bucket_end)
    .value(":due", bucket_end.saturating_add(SEAL_DELAY_S))
    .value(":work", key.work())
}

/// All the units of a row, to be frozen: what the answer to a seal says, or what messages said if that is more, because they
/// spoke of a counter item that was lost since. `None` if the bucket is not sealed.
///
/// What is folded meanwhile is not lost: [`freeze`] and [`close`] refuse a row that says more than they do.
#[must_use]
pub fn all_units(answer: SealAnswer, folded: u64) -> Option<u64> {
    match answer {
        SealAnswer::Final(units) => Some(units.max(folded)),
        SealAnswer::GenerationGone => Some(folded),
        SealAnswer::NotSealed => None,
    }
}

/// Writes down what the report will say: open → sealed. `units` are all that were counted, the report's value is what is left
/// of them after `credit`. Refused where a message has brought more meanwhile: then it is to be worked out again.
#[must_use]
pub fn freeze(report: &Report, units: u64, credit: u64, now: Timestamp) -> Expression {
    Expression::new(
        "SET #state = :sealed, units = :units, credit = :credit, #value = :value, stripe_customer = :customer, event_name = :event, \
         #timestamp = :timestamp, #identifier = :identifier, #due = :now",
        "#state = :open AND units <= :units",
    )
    .name("#state", "state")
    .name("#value", "value")
    .name("#timestamp", "timestamp")
    .name("#identifier", "identifier")
    .name("#due", "due")
    .value(":sealed", "sealed")
    .value(":open", "open")
    .value(":units", units)
    .value(":credit", credit)
    .value(":value", report.value)
    .value(":customer", report.stripe_customer.as_str())
    .value(":event", report.event_name.as_str())
    .value(":timestamp", report.timestamp)
    .value(":identifier", report.identifier.as_str())
    .value(":now", now.s())
}

/// Lets [`freeze`] write down as well whether the report's minute is its own ([`have_minutes_of_their_own`]).
#[must_use]
pub fn with_own_minute(freeze: Expression, is_own: bool) -> Expression {
    Expression {
        update: format!("{}, own_minute = :own_minute", freeze.update),
        ..freeze
    }
    .value(":own_minute", u64::from(is_own))
}

/// Lets a row wait until a second (unix), in the state that it was seen in, `None` if it could not be read. Nothing but `due`
/// moves, and only on.
#[must_use]
pub fn put_off(seen: Option<RowState>, due: u64) -> Expression {
    let write = |condition| {
        Expression::new("SET #due = :due", condition)
            .name("#due", "due")
            .value(":due", due)
    };
    match seen {
        Some(state) => write("#state = :state AND #due < :due")
            .name("#state", "state")
            .value(":state", state.as_str()),
        None => write("#due < :due"),
    }
}

/// Closes a row that has nothing to report, be it that all of its units were given: open → reported. Refused as [`freeze`] is.
#[must_use]
pub fn close(units: u64, credit: u64, why: &str, now: Timestamp) -> Expression {
    Expression::new(
        "SET #state = :reported, units = :units, credit = :credit, outcome = :why, #due = :now",
        "#state = :open AND units <= :units",
    )
    .name("#state", "state")
    .name("#due", "due")
    .value(":reported", "reported")
    .value(":open", "open")
    .value(":units", units)
    .value(":credit", credit)
    .value(":why", why)
    .value(":now", now.s())
}

/// Units given to a customer, and how many of them reports have taken off already. Both only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Units given.
    pub granted: u64,
    /// Units taken off reports.
    pub taken: u64,
}

impl Balance {
    /// What waits to be taken.
    #[must_use]
    pub fn left(self) -> u64 {
        self.granted.saturating_sub(self.taken)
    }
}

/// Takes units off a balance, in one transaction with the row that they are taken for.
#[must_use]
pub fn take(seen: Balance, credit: u64) -> Expression {
    Expression::new("SET taken = :taken", "taken = :seen AND granted >= :taken")
        .value(":taken", seen.taken.saturating_add(credit))
        .value(":seen", seen.taken)
}

/// Gives units, in one transaction with the mark that they were given.
#[must_use]
pub fn grant(units: u64) -> Expression {
    Expression::new(
        "SET granted = if_not_exists(granted, :zero) + :units, taken = if_not_exists(taken, :zero), kind = :kind",
        "attribute_not_exists(granted) OR granted >= :zero",
    )
    .value(":zero", 0)
    .value(":units", units)
    .value(":kind", "credit")
}

/// Takes a row to send it: sealed → sending, or sending with a dead worker's claim.
#[must_use]
pub fn claim(claim: &Claim) -> Expression {
    Expression::new(
        "SET #state = :sending, claim = :claim, claimed_at = :now",
        "#state = :sealed OR (#state = :sending AND (attribute_not_exists(claim) OR claimed_at <= :stale))",
    )
    .name("#state", "state")
    .value(":sending", "sending")
    .value(":sealed", "sealed")
    .value(":claim", claim.token.as_str())
    .value(":now", claim.at.ms())
    .value(":stale", claim.at.ms().saturating_sub(CLAIM_LIFE_MS))
}

/// Stripe has the report: sending → reported, whoever holds the claim.
#[must_use]
pub fn delivered(how: &str, now: Timestamp) -> Expression {
    Expression::new(
        "SET #state = :reported, outcome = :how, #due = :now REMOVE claim",
        "#state = :sending",
    )
    .name("#state", "state")
    .name("#due", "due")
    .value(":reported", "reported")
    .value(":sending", "sending")
    .value(":how", how)
    .value(":now", now.s())
}

/// The attempt ended without an outcome: the row waits. `fault` moves the idempotency key on.
#[must_use]
pub fn retry_later(token: &str, tries: u64, fault: bool, now: Timestamp) -> Expression {
    Expression::new(
        "SET #due = :due, tries = :tries, faults = if_not_exists(faults, :zero) + :fault REMOVE claim",
        "#state = :sending AND claim = :claim",
    )
    .name("#state", "state")
    .name("#due", "due")
    .value(":sending", "sending")
    .value(":claim", token)
    .value(":due", now.s().saturating_add(backoff_s(tries)))
    .value(":tries", tries.saturating_add(1))
    .value(":zero", 0)
    .value(":fault", u64::from(fault))
}

/// Nothing safe is left to do: the operator decides. The row leaves the work index and is reported loudly.
#[must_use]
pub fn park(token: &str, why: &str) -> Expression {
    Expression::new(
        "SET #state = :parked, outcome = :why REMOVE claim, #work",
        "#state = :sending AND claim = :claim",
    )
    .name("#state", "state")
    .name("#work", "work")
    .value(":parked", "parked")
    .value(":sending", "sending")
    .value(":claim", token)
    .value(":why", why)
}

/// Stripe took the report and then could not count it: reported → parked. Only the row that carries the identifier, so that a row
/// closed without a report is never touched, and one that was sent again is not parked by an old word of Stripe's.
///
/// Stripe remembers an identifier also where it counted nothing, so that the same one would be a duplicate of nothing: the row gets
/// the next one. That is no second way to count the units, as Stripe itself has said that it does not count the first.
#[must_use]
pub fn reopen(identifier: &str, why: &str) -> Expression {
    Expression::new(
        "SET #state = :parked, outcome = :why, #identifier = :next REMOVE #work",
        "#state = :reported AND #identifier = :identifier",
    )
    .name("#state", "state")
    .name("#work", "work")
    .name("#identifier", "identifier")
    .value(":parked", "parked")
    .value(":reported", "reported")
    .value(":identifier", identifier)
    .value(":next", next_identifier(identifier))
    .value(":why", why)
}

/// The identifier after one that Stripe has refused to count: a dot and a number behind it.
fn next_identifier(identifier: &str) -> String {
    let counted = identifier.rsplit_once('.');
    match counted.and_then(|(stem, n)| Some((stem, n.parse::<u32>().ok()?))) {
        Some((stem, n)) => format!("{stem}.{}", n.saturating_add(1)),
        None => format!("{identifier}.1"),
    }
}

/// The operator lets a parked row be sent again: parked → sealed, due at once and back in the work index. The idempotency key
/// moves on, so that the answer it was parked for is not repeated; the identifier stays, and what is old is asked for first.
#[must_use]
pub fn unpark(key: &RowKey, now: Timestamp) -> Expression {
    Expression::new(
        "SET #state = :sealed, #due = :now, #work = :work, tries = :zero, faults = if_not_exists(faults, :zero) + :one \
         REMOVE outcome",
        "#state = :parked",
    )
    .name("#state", "state")
    .name("#due", "due")
    .name("#work", "work")
    .value(":sealed", "sealed")
    .value(":parked", "parked")
    .value(":now", now.s())
    .value(":work", key.work())
    .value(":zero", 0)
    .value(":one", 1)
}

/// The operator found a parked row's report in Stripe: parked → reported, and back in the work index, as its counter is still
/// to be pruned.
#[must_use]
pub fn settle(key: &RowKey, how: &str, now: Timestamp) -> Expression {
    Expression::new(
        "SET #state = :reported, outcome = :how, #due = :now, #work = :work",
        "#state = :parked",
    )
    .name("#state", "state")
    .name("#due", "due")
    .name("#work", "work")
    .value(":reported", "reported")
    .value(":parked", "parked")
    .value(":how", how)
    .value(":now", now.s())
    .value(":work", key.work())
}

/// The counter is pruned, nothing is left to do: the row leaves the work index.
#[must_use]
pub fn finish() -> Expression {
    Expression::new("REMOVE #work", "#state = :reported")
        .name("#state", "state")
        .name("#work", "work")
        .value(":reported", Value::from("reported"))
}

impl From<String> for Value {
    fn from(s: String) -> Self {
        Value::S(s)
    }
}

/// The thresholds, of these percentages of `of` units, that `units` have reached, lowest first.
#[must_use]
pub fn thresholds_reached(units: u64, of: u64, percents: &[u16]) -> Vec<u64> {
    let is_reached = |percent: &u64| of > 0 && u128::from(units) * 100 >= u128::from(of) * u128::from(*percent);
    let mut reached: Vec<u64> = percents
        .iter()
        .map(|&percent| u64::from(percent))
        .filter(is_reached)
        .collect();
    reached.sort_unstable();
    reached.dedup();
    reached
}
