//! What a state is made of. Small numbers stand for long names; [`crate::rules`] spells them out for the shipped rules.

/// Seconds since the model's origin.
pub(crate) type Sec = u32;

/// A row's name: a life of a counter item, and a bucket's start. The life says whose shard it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) life: u8,
    pub(crate) bucket: Sec,
}

/// A counter item, attribute by attribute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Item {
    pub(crate) life: Option<u8>,
    pub(crate) epoch: Option<u8>,
    pub(crate) sealed: Sec,
    /// Units by bucket, ascending.
    pub(crate) units: Vec<(Sec, u8)>,
}

/// The place of a counter item.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) item: Option<Item>,
    /// It came back from a backup and serves nobody yet.
    pub(crate) is_raw: bool,
    /// What the write that shut it answered.
    pub(crate) shut: Option<Item>,
    /// The life that a restore gives next.
    pub(crate) next_life: u8,
    /// What the backup holds.
    pub(crate) saved: Option<Item>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum RowState {
    Open,
    Sealed,
    Sending,
    Reported,
    Parked,
}

/// What a report says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Report {
    pub(crate) value: u8,
    pub(crate) customer: u8,
    pub(crate) plan: u8,
    pub(crate) at: Sec,
}

/// A ledger row, attribute by attribute; `due` and `tries` only decide when, and are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) state: RowState,
    pub(crate) units: u8,
    pub(crate) credit: u8,
    pub(crate) end: Sec,
    pub(crate) report: Option<Report>,
    /// No other row's report can be stamped with the same minute.
    pub(crate) own_minute: Option<bool>,
    /// Who, and since when.
    pub(crate) claim: Option<(u8, Sec)>,
    pub(crate) faults: u8,
    /// Counted only where a broken variant puts it into the identifier.
    pub(crate) tries: u8,
    /// Something is left to do.
    pub(crate) work: bool,
}

/// The ledger table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Ledger {
    /// By key, ascending.
    pub(crate) rows: Vec<(Key, Row)>,
    pub(crate) granted: u8,
    pub(crate) taken: u8,
    /// The marks of the grants that were given.
    pub(crate) marks: u8,
}

/// The customer's record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Record {
    pub(crate) epoch: u8,
    pub(crate) stripe_customer: u8,
    /// Since when the second plan holds.
    pub(crate) changed: Option<Sec>,
}

/// An admission under way: sent, and not applied or refused yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Admission {
    pub(crate) place: u8,
    /// The clock of its environment.
    pub(crate) at: Sec,
    /// Whether that clock is right.
    pub(crate) is_exact: bool,
    pub(crate) epoch: u8,
    pub(crate) bucket: Sec,
    pub(crate) attempts: u8,
    /// It counted already: only a broken variant sends it again.
    pub(crate) is_counted: bool,
}

/// What a worker is about to do. Everything that it knows is in here, and is gone when it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Worker {
    Idle,
    /// With the units that the row says.
    Seal(Key, u8),
    PruneEarly(Key, u8),
    ReadRecord(Key, u8),
    ReadBalance(Found),
    /// With what was given and taken.
    Freeze(Found, u8, u8),
    Claim(Key),
    Decide(Key, Row),
    /// The window's start and end.
    Ask(Key, Row, Sec, Sec),
    /// Stripe had nothing of it.
    Asked(Key, Row),
    /// Waiting for an answer.
    Sent(Key, Row),
    Conclude(Key, Row, Verdict),
    Prune(Key),
    Finish(Key),
}

/// What a worker knows when it has read the customer's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Found {
    pub(crate) key: Key,
    pub(crate) units: u8,
    pub(crate) customer: u8,
    pub(crate) plan: u8,
    /// The slots that generations have taken by then.
    pub(crate) slots: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Delivered,
    Retry { fault: bool },
    Park(Why),
}

/// Why a row is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Why {
    /// Stripe's sum is neither 0 nor the value.
    StrangeSum,
    /// The rules say that nothing safe is left to do.
    NothingSafe,
    /// Stripe refused it.
    Refused,
}

/// A call to Stripe on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Call {
    pub(crate) key: Key,
    /// Part of the identifier only in a broken variant.
    pub(crate) attempt: u8,
    /// What the idempotency key ends with.
    pub(crate) faults: u8,
    pub(crate) report: Report,
    /// The worker that still waits for it.
    pub(crate) waits: Option<u8>,
    pub(crate) since: Sec,
}

/// An event that Stripe has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Event {
    pub(crate) key: Key,
    pub(crate) attempt: u8,
    pub(crate) report: Report,
    pub(crate) since: Sec,
    /// Stripe still knows its identifier.
    pub(crate) is_known: bool,
    /// It came after the invoice of its period was final.
    pub(crate) is_late: bool,
}

/// Stripe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Stripe {
    pub(crate) events: Vec<Event>,
    /// Idempotency keys with a stored 500.
    pub(crate) stored: Vec<(Key, u8, u8)>,
    /// Billing periods, by start, whose invoice is final.
    pub(crate) finalized: Vec<Sec>,
}

/// What may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Left {
    pub(crate) requests: u8,
    pub(crate) faults: u8,
    pub(crate) losses: u8,
    pub(crate) ledger_losses: u8,
    pub(crate) moves: u8,
    pub(crate) changes: u8,
    pub(crate) renewals: u8,
}

/// A rule that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Bad {
    /// One request was counted twice.
    CountedTwice,
    /// Stripe counted two events of one row.
    ReportedTwice,
    /// Two identifiers were sent for one row.
    TwoIdentifiers,
    /// A call began after its row was parked.
    SentAfterPark,
    /// Stripe counted a row after it was parked.
    CountedAfterPark,
    /// A row is parked as refused while Stripe has it.
    ParkedThoughDelivered,
    /// A report went to another plan than the one that its units were admitted under.
    WrongPlan,
    /// A report is stamped outside its bucket's billing period.
    WrongPeriod,
    /// A row that says reported does not say what was counted.
    WrongSum,
    /// The balance and the rows do not say the same of what was taken.
    WrongCredit,
    /// Everything is quiet, and counted units are in no row.
    Forgotten,
    /// There is a counter item that nobody created: who is refused there is not told that it is missing.
    ItemOfNothing,
}

/// What was counted in a bucket of one life of a counter item, whatever became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Counted {
    pub(crate) key: Key,
    pub(crate) units: u8,
    /// The plan that they were admitted under, where that is certain.
    pub(crate) plan: Option<u8>,
    /// Those of them that were counted before the item was lost.
    pub(crate) before_loss: u8,
}

/// The whole state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    /// Which of the case's moments it is.
    pub(crate) moment: u8,
    pub(crate) places: Vec<Place>,
    pub(crate) ledger: Ledger,
    pub(crate) saved_ledger: Option<Box<Ledger>>,
    pub(crate) record: Record,
    pub(crate) admissions: Vec<Admission>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) calls: Vec<Call>,
    pub(crate) stripe: Stripe,
    pub(crate) left: Left,
    /// For the properties only.
    pub(crate) counted: Vec<Counted>,
    /// For the properties only: units that a message brought into an open row.
    pub(crate) known: Vec<(Key, u8)>,
    /// For the properties only: lives that ended with the loss of their item.
    pub(crate) lost: Vec<u8>,
    /// For the properties only: grants that somebody gave, by bit.
    pub(crate) given: u8,
    pub(crate) bad: Option<Bad>,
}

impl World {
    pub(crate) fn row(&self, key: Key) -> Option<&Row> {
        let place = self.ledger.rows.binary_search_by_key(&key, |(known, _)| *known).ok()?;
        Some(&self.ledger.rows[place].1)
    }

    pub(crate) fn put_row(&mut self, key: Key, row: Row) {
        match self.ledger.rows.binary_search_by_key(&key, |(known, _)| *known) {
            Ok(place) => self.ledger.rows[place].1 = row,
            Err(place) => self.ledger.rows.insert(place, (key, row)),
        }
    }

    pub(crate) fn counted(&self, key: Key) -> Option<&Counted> {
        self.counted.iter().find(|counted| counted.key == key)
    }

    pub(crate) fn known(&self, key: Key) -> u8 {
        let of = |(known, units): &(Key, u8)| (*known == key).then_some(*units);
        self.known.iter().find_map(of).unwrap_or(0)
    }

    /// What Stripe has counted of a row.
    pub(crate) fn in_stripe(&self, key: Key) -> u8 {
        let of = self.stripe.events.iter().filter(|event| event.key == key);
        of.map(|event| event.report.value).sum()
    }

    pub(crate) fn sort(&mut self) {
        self.admissions.sort_unstable();
        self.calls.sort_unstable();
        self.stripe.events.sort_unstable();
    }
}

impl Item {
    pub(crate) fn units_of(&self, bucket: Sec) -> u8 {
        let of = |(known, units): &(Sec, u8)| (*known == bucket).then_some(*units);
        self.units.iter().find_map(of).unwrap_or(0)
    }
}
