//! What can happen in a state, and what comes of it.

use crate::{
    case::{Case, HOUR},
    rules::{CounterWrite, Judged, RowWrite, Rules, Step},
    variant::Variant,
    world::{
        Admission, Bad, Call, Counted, Event, Found, Item, Key, Ledger, Left, Place, Record, Report, Row, RowState,
        Sec, Stripe, Verdict, Why, Worker, World,
    },
};

/// Writes for one request, as in the authorizer.
const ATTEMPTS_MAX: u8 = 4;
/// Calls on their way at a time.
const CALLS_MAX: usize = 2;
/// Stripe remembers an identifier for at least a day.
const REMEMBERED_S: Sec = 86_400;
/// A message about a bucket older than this is dropped, as in the consumer.
const STALE_S: Sec = 34 * 86_400;

/// One step of anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The clock moves on.
    Tick,
    /// A request comes: an environment with a clock that is off by `skew_s` writes. `is_behind`: it has not heard of the last
    /// change of the record; `knows`: it has just seen the item.
    Admit {
        /// Which counter item.
        place: u8,
        /// Seconds.
        skew_s: i32,
        /// The record is out of date.
        is_behind: bool,
        /// The item was seen.
        knows: bool,
    },
    /// An admission reaches the table.
    Write {
        /// Which one.
        admission: u8,
        /// Whether the answer gets back.
        is_answered: bool,
    },
    /// The control plane tells a counter item of the record's epoch.
    Bump(u8),
    /// A message, or the scan, is folded: of each bucket every number that it ever showed, any number of times.
    Fold {
        /// Which life of which counter item.
        life: u8,
        /// The bucket's start.
        bucket: u32,
        /// Units.
        units: u8,
        /// The bucket's end, as the sender knows it.
        end: u32,
    },
    /// A worker takes up a row.
    Pick {
        /// Who.
        worker: u8,
        /// The row's life.
        life: u8,
        /// The row's bucket.
        bucket: u32,
    },
    /// A worker does its next step.
    Step(u8),
    /// Stripe answers a question. Sums lag: events of the last minutes may be in it or not.
    Answer {
        /// Who asked.
        worker: u8,
        /// Whether they are in it.
        is_up_to_date: bool,
    },
    /// A worker's patience ends; its call is still on its way.
    GiveUp(u8),
    /// A worker dies.
    Die(u8),
    /// A call reaches Stripe.
    Arrive {
        /// Which one.
        call: u8,
        /// Stripe answers 500, after it counted the event or not.
        fault: Option<bool>,
        /// Whether the answer gets back.
        is_answered: bool,
    },
    /// A call is lost.
    LoseCall(u8),
    /// Stripe forgets an identifier.
    Forget(u8),
    /// Somebody gives units.
    Grant(u8),
    /// The customer moves to another customer in Stripe.
    Move,
    /// The plan changes.
    Change,
    /// The invoice of a period is final.
    Finalize(u32),
    /// A counter item is backed up.
    Save(u8),
    /// A counter item is lost.
    Lose(u8),
    /// A counter item comes back from the backup.
    PutBack(u8),
    /// The operator shuts a counter item: one that came back, or one that serves.
    Shut(u8),
    /// Its buckets are in the ledger, and it gets a new generation: it serves.
    Restore(u8),
    /// A frozen row's bucket is pruned before it is reported: too many wait in the item.
    MakeRoom {
        /// The row's life.
        life: u8,
        /// The row's bucket.
        bucket: u32,
    },
    /// The ledger is backed up.
    SaveLedger,
    /// The ledger is set back to its backup.
    RestoreLedger,
    /// A row expires: only in a broken variant.
    Expire(u8),
}

/// A case with its rules.
pub(crate) struct Machine {
    pub(crate) case: Case,
    pub(crate) rules: Rules,
}

impl Machine {
    pub(crate) fn new(case: &Case, variant: Option<Variant>) -> Self {
        Self {
            case: case.clone(),
            rules: Rules::new(case, variant),
        }
    }

    pub(crate) fn start(&self) -> World {
        let case = &self.case;
        let place = |life| Place {
            item: Some(self.rules.created(life)),
            is_raw: false,
            shut: None,
            next_life: life + 2,
            saved: None,
        };
        World {
            moment: 0,
            places: (0..case.items).map(place).collect(),
            ledger: Ledger::default(),
            saved_ledger: None,
            record: Record::default(),
            admissions: Vec::new(),
            workers: vec![Worker::Idle; usize::from(case.workers)],
            calls: Vec::new(),
            stripe: Stripe::default(),
            left: Left {
                requests: case.requests,
                faults: case.faults,
                losses: case.losses,
                ledger_losses: case.ledger_losses,
                moves: case.moves,
                changes: case.changes,
                renewals: case.renewals,
            },
            counted: Vec::new(),
            known: Vec::new(),
            lost: Vec::new(),
            given: 0,
            bad: None,
        }
    }

    pub(crate) fn now(&self, world: &World) -> Sec {
        HOUR + self.case.moments[usize::from(world.moment)]
    }

    /// Whether only what leads to an end happens any more.
    fn is_tail(&self, world: &World) -> bool {
        usize::from(world.moment) + usize::from(self.case.tail) >= self.case.moments.len()
    }

    fn is(&self, variant: Variant) -> bool {
        self.rules.is(variant)
    }

    /// The row that a counter's bucket belongs to.
    pub(crate) fn row_of(&self, key: Key) -> Key {
        match self.is(Variant::ShardsSummed) {
            true => Key { life: 0, ..key },
            false => key,
        }
    }

    /// The record as an environment knows it.
    fn record_of(&self, world: &World, epoch: u8) -> Record {
        match epoch < world.record.epoch {
            true => Record {
                epoch,
                changed: None,
                ..world.record
            },
            false => world.record,
        }
    }

    pub(crate) fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.bad.is_some() {
            return;
        }
        if usize::from(world.moment) + 1 < self.case.moments.len() {
            actions.push(Action::Tick);
        }
        self.helping_actions(world, actions);
        if !self.is_tail(world) {
            self.other_actions(world, actions);
        }
    }

    /// What leads to an end: nothing is lost, nobody dies.
    fn helping_actions(&self, world: &World, actions: &mut Vec<Action>) {
        for admission in (0u8..).take(world.admissions.len()) {
            actions.push(Action::Write {
                admission,
                is_answered: true,
            });
        }
        for (i, place) in (0u8..).zip(&world.places) {
            let Some(item) = &place.item else { continue };
            if item.epoch.is_some_and(|epoch| epoch < world.record.epoch) {
                actions.push(Action::Bump(i));
            }
            match &place.shut {
                None if place.is_raw => actions.push(Action::Shut(i)),
                Some(shut) if self.is_folded(world, shut) => actions.push(Action::Restore(i)),
                _ => {}
            }
        }
        self.folds(world, actions);
        let first_idle = world.workers.iter().position(|worker| *worker == Worker::Idle);
        for (i, worker) in (0u8..).zip(&world.workers) {
            match *worker {
                Worker::Idle if first_idle == Some(usize::from(i)) => {
                    for (key, row) in &world.ledger.rows {
                        let is_done = match row.state {
                            RowState::Open | RowState::Sealed | RowState::Sending => false,
                            RowState::Reported => !row.work,
                            RowState::Parked => true,
                        };
                        if !is_done {
                            actions.push(Action::Pick {
                                worker: i,
                                life: key.life,
                                bucket: key.bucket,
                            });
                        }
                    }
                }
                Worker::Idle | Worker::Sent(..) => {}
                Worker::Ask(_, row, start, end) => {
                    let sum = |is_up_to_date| self.sum(world, row, start, end, is_up_to_date);
                    actions.push(Action::Answer {
                        worker: i,
                        is_up_to_date: true,
                    });
                    if sum(false) != sum(true) {
                        actions.push(Action::Answer {
                            worker: i,
                            is_up_to_date: false,
                        });
                    }
                }
                // More calls on their way at a time add nothing but states.
                Worker::Decide(..) | Worker::Asked(..) if world.calls.len() >= CALLS_MAX => {}
                _ => actions.push(Action::Step(i)),
            }
        }
        for (i, call) in (0u8..).zip(&world.calls) {
            actions.push(Action::Arrive {
                call: i,
                fault: None,
                is_answered: call.waits.is_some(),
            });
        }
    }

    fn folds(&self, world: &World, actions: &mut Vec<Action>) {
        let now = self.now(world);
        let counted = world.counted.iter().map(|counted| (counted.key, counted.units));
        // Only where a rule is broken an item has what was never counted in its life.
        let strange = world.places.iter().filter_map(|place| {
            let item = place.item.as_ref()?;
            let units = item.units.iter().map(|&(bucket, units)| {
                let life = item.life.unwrap_or(0);
                (Key { life, bucket }, units)
            });
            Some(units.filter(|(key, _)| world.counted(*key).is_none()))
        });
        for (key, most) in counted.chain(strange.flatten()) {
            // Messages get too old; the scan reads the item itself.
            let is_stale = key.bucket + STALE_S < now;
            let item = world.places[usize::from(key.life % 2)].item.as_ref();
            let in_item = item
                .filter(|item| item.life == Some(key.life))
                .map_or(0, |item| item.units_of(key.bucket));
            let row = world.row(self.row_of(key));
            let (_, end) = self.rules.bucket_at(world.record, key.bucket);
            let (_, old_end) = self.rules.bucket_at(
                Record {
                    changed: None,
                    ..world.record
                },
                key.bucket,
            );
            for units in 1..=most {
                let is_news = row.is_none_or(|row| {
                    units > row.units && (row.state == RowState::Open || self.is(Variant::FoldsIntoAnyRow))
                });
                if !is_news || (is_stale && units != in_item) {
                    continue;
                }
                let fold = |end| Action::Fold {
                    life: key.life,
                    bucket: key.bucket,
                    units,
                    end,
                };
                actions.push(fold(end));
                if old_end != end && row.is_none() {
                    actions.push(fold(old_end));
                }
            }
        }
    }

    /// Whether the rows say all that an item has.
    fn is_folded(&self, world: &World, item: &Item) -> bool {
        item.units.iter().all(|&(bucket, units)| {
            let Some(life) = item.life else { return true };
            let row = world.row(self.row_of(Key { life, bucket }));
            row.is_some_and(|row| row.state != RowState::Open || row.units >= units)
        })
    }

    /// What an environment may do, what goes wrong, and what people do.
    fn other_actions(&self, world: &World, actions: &mut Vec<Action>) {
        let (case, left, now) = (&self.case, &world.left, self.now(world));
        if left.requests > 0 && world.admissions.len() < usize::from(case.under_way) {
            for (i, place) in (0u8..).zip(&world.places) {
                let Some(item) = place.item.as_ref().filter(|_| !place.is_raw) else {
                    continue;
                };
                for &skew_s in case.skews {
                    let at = now.saturating_add_signed(skew_s);
                    for is_behind in [false, true] {
                        if is_behind && item.epoch.is_none_or(|epoch| epoch >= world.record.epoch) {
                            continue;
                        }
                        let epoch = world.record.epoch - u8::from(is_behind);
                        let record = self.record_of(world, epoch);
                        let blind = self.rules.plan(record, at, 0);
                        let known = self.rules.plan(record, at, item.sealed);
                        let admit = |knows| Action::Admit {
                            place: i,
                            skew_s,
                            is_behind,
                            knows,
                        };
                        actions.push(admit(true));
                        if blind != known {
                            actions.push(admit(false));
                        }
                    }
                }
            }
        }
        if self.is(Variant::SdkRetriesUnknownWrite) {
            for admission in (0u8..).take(world.admissions.len()) {
                actions.push(Action::Write {
                    admission,
                    is_answered: false,
                });
            }
        }
        for (i, worker) in (0u8..).zip(&world.workers) {
            if case.crashes && *worker != Worker::Idle {
                actions.push(Action::Die(i));
            }
            if case.late_calls && matches!(worker, Worker::Sent(..)) {
                actions.push(Action::GiveUp(i));
            }
        }
        for (i, call) in (0u8..).zip(&world.calls) {
            if case.late_calls || case.crashes {
                actions.push(Action::LoseCall(i));
            }
            for fault in [None, Some(false), Some(true)] {
                if fault.is_some() && left.faults == 0 {
                    continue;
                }
                for is_answered in [false, true] {
                    let is_same_as_helping = fault.is_none() && is_answered == call.waits.is_some();
                    let is_possible = call.waits.is_some() || !is_answered;
                    let may_answer_be_lost = is_answered || call.waits.is_none() || case.late_calls || case.crashes;
                    if is_possible && may_answer_be_lost && !is_same_as_helping {
                        actions.push(Action::Arrive {
                            call: i,
                            fault,
                            is_answered,
                        });
                    }
                }
            }
        }
        for (i, event) in (0u8..).zip(&world.stripe.events) {
            if event.is_known && now >= event.since + REMEMBERED_S {
                actions.push(Action::Forget(i));
            }
        }
        for i in (0u8..).take(case.grants.len()) {
            if world.ledger.marks & (1 << i) == 0
                || (self.is(Variant::CreditGivenTwice) && world.ledger.granted < 2 * case.grants[usize::from(i)])
            {
                actions.push(Action::Grant(i));
            }
        }
        if left.moves > 0 {
            actions.push(Action::Move);
        }
        if left.changes > 0 {
            actions.push(Action::Change);
        }
        if case.invoice {
            for counted in &world.counted {
                let (start, end) = self.rules.period_at(world.record, counted.key.bucket);
                let finalize = Action::Finalize(start);
                if now >= end && !world.stripe.finalized.contains(&start) && !actions.contains(&finalize) {
                    actions.push(finalize);
                }
            }
        }
        if case.makes_room {
            for (key, row) in &world.ledger.rows {
                let item = world.places[usize::from(key.life % 2)].item.as_ref();
                let is_there = item.is_some_and(|item| item.life == Some(key.life) && item.units_of(key.bucket) > 0);
                if is_there && (row.state != RowState::Open || self.is(Variant::RoomFromOpenRows)) {
                    actions.push(Action::MakeRoom {
                        life: key.life,
                        bucket: key.bucket,
                    });
                }
            }
        }
        self.losses(world, actions);
    }

    fn losses(&self, world: &World, actions: &mut Vec<Action>) {
        let (case, left) = (&self.case, &world.left);
        for (i, place) in (0u8..).zip(&world.places) {
            if left.renewals > 0 && place.item.is_some() && place.shut.is_none() && !place.is_raw {
                actions.push(Action::Shut(i));
            }
            match &place.item {
                Some(item) if !place.is_raw && left.losses > 0 => {
                    if case.backup && place.saved.is_none() && !item.units.is_empty() {
                        actions.push(Action::Save(i));
                    }
                    actions.push(Action::Lose(i));
                }
                None if place.saved.is_some() => actions.push(Action::PutBack(i)),
                _ => {}
            }
        }
        if left.ledger_losses > 0 {
            match &world.saved_ledger {
                None => actions.push(Action::SaveLedger),
                Some(saved) if **saved != world.ledger => actions.push(Action::RestoreLedger),
                Some(_) => {}
            }
        }
        if self.is(Variant::RowsExpire) {
            for (i, (_, row)) in (0u8..).zip(&world.ledger.rows) {
                if row.state == RowState::Reported {
                    actions.push(Action::Expire(i));
                }
            }
        }
    }

    pub(crate) fn next(&self, world: &World, action: Action) -> World {
        let mut next = world.clone();
        self.act(&mut next, action);
        next.sort();
        next
    }

    fn act(&self, world: &mut World, action: Action) {
        let now = self.now(world);
        match action {
            Action::Tick => self.tick(world),
            Action::Admit {
                place,
                skew_s,
                is_behind,
                knows,
            } => {
                let epoch = world.record.epoch - u8::from(is_behind);
                let record = self.record_of(world, epoch);
                let at = now.saturating_add_signed(skew_s);
                let item = world.places[usize::from(place)].item.as_ref();
                let sealed = item.filter(|_| knows).map_or(0, |item| item.sealed);
                world.left.requests -= 1;
                world.admissions.push(Admission {
                    place,
                    at,
                    is_exact: skew_s == 0,
                    epoch,
                    bucket: self.rules.plan(record, at, sealed),
                    attempts: 1,
                    is_counted: false,
                });
            }
            Action::Write { admission, is_answered } => self.write(world, usize::from(admission), is_answered),
            Action::Bump(place) => {
                let item = &mut world.places[usize::from(place)].item;
                if let Some(after) = self
                    .rules
                    .write_counter(item.as_ref(), CounterWrite::Bump(world.record.epoch))
                {
                    *item = Some(after);
                }
            }
            Action::Fold {
                life,
                bucket,
                units,
                end,
            } => {
                let key = Key { life, bucket };
                self.write_row(world, self.row_of(key), RowWrite::Fold { units, end });
                if world
                    .row(self.row_of(key))
                    .is_some_and(|row| row.state == RowState::Open)
                {
                    match world.known.binary_search_by_key(&key, |(known, _)| *known) {
                        Ok(place) => world.known[place].1 = world.known[place].1.max(units),
                        Err(place) => world.known.insert(place, (key, units)),
                    }
                }
            }
            Action::Pick { worker, life, bucket } => {
                let key = Key { life, bucket };
                world.workers[usize::from(worker)] = match world.row(key) {
                    None => Worker::Idle,
                    Some(row) => match row.state {
                        RowState::Open => Worker::Seal(key, row.units),
                        RowState::Sealed | RowState::Sending => Worker::Claim(key),
                        RowState::Reported => Worker::Prune(key),
                        RowState::Parked => Worker::Idle,
                    },
                };
            }
            Action::Step(worker) => self.step(world, worker),
            Action::Answer { worker, is_up_to_date } => {
                let Worker::Ask(key, row, start, end) = world.workers[usize::from(worker)] else {
                    return;
                };
                let value = row.report.map_or(0, |report| report.value);
                world.workers[usize::from(worker)] = match self.sum(world, row, start, end, is_up_to_date) {
                    0 => Worker::Asked(key, row),
                    sum if sum == value => Worker::Conclude(key, row, Verdict::Delivered),
                    _ => Worker::Conclude(key, row, Verdict::Park(Why::StrangeSum)),
                };
            }
            Action::GiveUp(worker) => {
                forget_waiting(world, worker);
                no_answer(world, worker);
            }
            Action::Die(worker) => {
                forget_waiting(world, worker);
                world.workers[usize::from(worker)] = Worker::Idle;
            }
            Action::Arrive {
                call,
                fault,
                is_answered,
            } => {
                let call = world.calls.remove(usize::from(call));
                self.arrive(world, call, fault, is_answered);
            }
            Action::LoseCall(call) => {
                let call = world.calls.remove(usize::from(call));
                if let Some(worker) = call.waits {
                    no_answer(world, worker);
                }
            }
            Action::Forget(event) => world.stripe.events[usize::from(event)].is_known = false,
            Action::Grant(which) => {
                let units = self.case.grants[usize::from(which)];
                self.rules.grant(&mut world.ledger, which, units);
                world.given |= 1 << which;
            }
            Action::Move => {
                world.left.moves -= 1;
                world.record.stripe_customer = 1;
            }
            Action::Change => {
                world.left.changes -= 1;
                world.record.epoch += 1;
                world.record.changed = Some(now);
            }
            Action::Finalize(period) => world.stripe.finalized.push(period),
            Action::Save(place) => {
                let place = &mut world.places[usize::from(place)];
                place.saved = place.item.clone();
            }
            Action::Lose(place) => self.lose(world, usize::from(place)),
            Action::PutBack(place) => {
                let place = &mut world.places[usize::from(place)];
                place.item = place.saved.take();
                place.is_raw = !self.is(Variant::NoGeneration);
            }
            Action::Shut(place) => {
                let place = &mut world.places[usize::from(place)];
                let life = place.item.as_ref().and_then(|item| item.life).unwrap_or(0);
                let after = self.rules.write_counter(place.item.as_ref(), CounterWrite::Shut(life));
                if !place.is_raw {
                    world.left.renewals -= 1;
                }
                if after.is_some() {
                    place.item.clone_from(&after);
                    place.shut = after;
                    // The slot is taken before it is used.
                    place.next_life += 2;
                }
            }
            Action::Restore(place) => {
                let sealed = self.rules.bucket_before(world.record, now);
                let place = &mut world.places[usize::from(place)];
                let Some(shut) = place.shut.take() else { return };
                let write = CounterWrite::Restore {
                    shut,
                    life: place.next_life - 2,
                    sealed,
                    epoch: world.record.epoch,
                };
                if let Some(after) = self.rules.write_counter(place.item.as_ref(), write) {
                    place.item = Some(after);
                    place.is_raw = false;
                }
            }
            Action::MakeRoom { life, bucket } => {
                let place = &mut world.places[usize::from(life % 2)];
                let write = CounterWrite::Prune(Key { life, bucket });
                if let Some(after) = self.rules.write_counter(place.item.as_ref(), write) {
                    place.item = Some(after);
                }
            }
            Action::SaveLedger => world.saved_ledger = Some(Box::new(world.ledger.clone())),
            Action::RestoreLedger => {
                world.left.ledger_losses -= 1;
                if let Some(saved) = world.saved_ledger.take() {
                    world.ledger = *saved;
                }
                // Workers wrote to the table that is gone; their calls go on.
                for worker in (0u8..).take(world.workers.len()) {
                    forget_waiting(world, worker);
                    world.workers[usize::from(worker)] = Worker::Idle;
                }
                let rows = world.ledger.rows.iter();
                world.known = rows.map(|(key, row)| (*key, row.units)).collect();
            }
            Action::Expire(row) => {
                world.ledger.rows.remove(usize::from(row));
            }
        }
    }

    fn tick(&self, world: &mut World) {
        world.moment += 1;
        let now = self.now(world);
        let is_over = |call: &Call| call.since + self.case.life_s < now;
        for call in world.calls.clone().into_iter().filter(is_over) {
            if let Some(worker) = call.waits {
                no_answer(world, worker);
            }
        }
        world.calls.retain(|call| !is_over(call));
    }

    /// An admission reaches the table.
    fn write(&self, world: &mut World, which: usize, is_answered: bool) {
        let admission = world.admissions.remove(which);
        let place = usize::from(admission.place);
        if world.places[place].is_raw || world.places[place].item.is_none() {
            return; // unavailable
        }
        let record = self.record_of(world, admission.epoch);
        let write = CounterWrite::Admit(record, admission.bucket);
        let item = world.places[place].item.clone();
        if let Some(after) = self.rules.write_counter(item.as_ref(), write) {
            let key = Key {
                life: after.life.unwrap_or(0),
                bucket: admission.bucket,
            };
            world.places[place].item = Some(after);
            let is_where_expected = self.rules.bucket_at(record, admission.at).0 == admission.bucket;
            let is_certain = admission.is_exact && is_where_expected && record == world.record;
            let plan = is_certain.then(|| self.rules.plan_at(record, admission.at));
            count(world, key, plan);
            if admission.is_counted {
                world.bad = Some(Bad::CountedTwice);
            }
            // Nobody knows whether it counted: it is never sent again.
            if self.is(Variant::SdkRetriesUnknownWrite) && !is_answered && !admission.is_counted {
                world.admissions.push(Admission {
                    is_counted: true,
                    ..admission
                });
            }
            return;
        }
        let Some(item) = item.filter(|_| admission.attempts < ATTEMPTS_MAX) else {
            return;
        };
        let again = match self.rules.judge(record, admission.at, &item) {
            Judged::Again(bucket) => Admission { bucket, ..admission },
            Judged::Stale => Admission {
                epoch: world.record.epoch,
                bucket: self.rules.plan(world.record, admission.at, 0),
                ..admission
            },
        };
        world.admissions.push(Admission {
            attempts: admission.attempts + 1,
            ..again
        });
    }

    fn write_row(&self, world: &mut World, key: Key, write: RowWrite) -> Option<Row> {
        let after = self.rules.write_row(key, world.row(key), write)?;
        world.put_row(key, after);
        Some(after)
    }

    fn step(&self, world: &mut World, who: u8) {
        let now = self.now(world);
        let next = match world.workers[usize::from(who)] {
            Worker::Seal(key, folded) => self.seal(world, key, folded),
            Worker::PruneEarly(key, units) => {
                self.prune(world, key);
                Worker::ReadRecord(key, units)
            }
            Worker::ReadRecord(key, 0) => {
                let close = RowWrite::Close {
                    units: 0,
                    credit: 0,
                    now,
                };
                self.write_row(world, key, close);
                Worker::Idle
            }
            Worker::ReadRecord(key, units) => {
                let found = Found {
                    key,
                    units,
                    customer: world.record.stripe_customer,
                    plan: self.rules.plan_at(world.record, key.bucket),
                    slots: world.places.iter().map(|place| place.next_life - 1).max().unwrap_or(0),
                };
                match self.case.grants {
                    [] => Worker::Freeze(found, 0, 0),
                    _ => Worker::ReadBalance(found),
                }
            }
            Worker::ReadBalance(found) => Worker::Freeze(found, world.ledger.granted, world.ledger.taken),
            Worker::Freeze(found, granted, taken) => {
                self.freeze(world, found, (granted, taken));
                Worker::Idle
            }
            Worker::Claim(key) => self.claim(world, who, key),
            Worker::Decide(key, row) => match self.rules.next_step(key, row, now) {
                Step::Send => self.send(world, who, key, row),
                Step::Ask(start, end) => Worker::Ask(key, row, start, end),
                Step::Park => Worker::Conclude(key, row, Verdict::Park(Why::NothingSafe)),
                Step::Drop => Worker::Idle,
            },
            Worker::Asked(key, row) => match self.rules.next_step(key, row, now) {
                Step::Send | Step::Ask(..) => self.send(world, who, key, row),
                _ if self.is(Variant::TrustsLaggingSummary) => self.send(world, who, key, row),
                Step::Park => Worker::Conclude(key, row, Verdict::Park(Why::NothingSafe)),
                Step::Drop => Worker::Idle,
            },
            Worker::Conclude(key, row, verdict) => {
                self.conclude(world, key, row, verdict);
                Worker::Idle
            }
            Worker::Prune(key) => self.prune(world, key),
            Worker::Finish(key) => {
                self.write_row(world, key, RowWrite::Finish);
                Worker::Idle
            }
            other @ (Worker::Idle | Worker::Ask(..) | Worker::Sent(..)) => other,
        };
        world.workers[usize::from(who)] = next;
    }

    fn seal(&self, world: &mut World, key: Key, folded: u8) -> Worker {
        if self.is(Variant::ShardsSummed) {
            return self.seal_all(world, key, folded);
        }
        let item = &mut world.places[usize::from(key.life % 2)].item;
        if self.is(Variant::NoSealBeforeReport) {
            return match item {
                Some(item) if item.life == Some(key.life) => Worker::ReadRecord(key, item.units_of(key.bucket)),
                _ => Worker::ReadRecord(key, folded),
            };
        }
        if let Some(after) = self.rules.write_counter(item.as_ref(), CounterWrite::Seal(key)) {
            *item = Some(after);
        }
        match self.rules.all_units(item.as_ref(), key, folded) {
            Some(units) if self.is(Variant::PruneBeforeFreeze) => Worker::PruneEarly(key, units),
            Some(units) => Worker::ReadRecord(key, units),
            None => Worker::Idle,
        }
    }

    /// The broken rule: all shards are sealed, and their sum is one row's.
    fn seal_all(&self, world: &mut World, key: Key, folded: u8) -> Worker {
        let (mut sum, mut is_any_gone) = (0, false);
        for place in &mut world.places {
            let Some(life) = place.item.as_ref().and_then(|item| item.life) else {
                is_any_gone = true;
                continue;
            };
            let of_shard = Key { life, ..key };
            if let Some(after) = self
                .rules
                .write_counter(place.item.as_ref(), CounterWrite::Seal(of_shard))
            {
                place.item = Some(after);
            }
            sum += self.rules.all_units(place.item.as_ref(), of_shard, 0).unwrap_or(0);
        }
        Worker::ReadRecord(key, if is_any_gone { folded.max(sum) } else { sum })
    }

    fn freeze(&self, world: &mut World, found: Found, seen: (u8, u8)) {
        let Found { key, units, .. } = found;
        let now = self.now(world);
        let Some(row) = world.row(key) else { return };
        let credit = self.rules.credit(seen.0, seen.1, units);
        let write = if credit == units {
            RowWrite::Close { units, credit, now }
        } else {
            let report = Report {
                value: units - credit,
                customer: found.customer,
                plan: found.plan,
                at: self.rules.stamp(key, row.end),
            };
            RowWrite::Freeze {
                units,
                credit,
                report,
                is_own: self
                    .rules
                    .is_own_minute(key, row.end, found.slots.max(key.life + 1), now),
                now,
            }
        };
        let Some(after) = self.rules.write_row(key, Some(row), write) else {
            return;
        };
        if credit == 0 || self.rules.take(&mut world.ledger, seen, credit) {
            world.put_row(key, after);
        }
    }

    fn claim(&self, world: &mut World, who: u8, key: Key) -> Worker {
        let now = self.now(world);
        let was_sending = world.row(key).is_some_and(|row| row.state == RowState::Sending);
        let Some(mut row) = self.write_row(world, key, RowWrite::Claim { worker: who, now }) else {
            return Worker::Idle;
        };
        if self.is(Variant::TakeOverRecomputes)
            && was_sending
            && let Some(report) = &mut row.report
        {
            let ledger = &mut world.ledger;
            let more = self.rules.credit(ledger.granted, ledger.taken, report.value);
            ledger.taken += more;
            row.credit += more;
            report.value -= more;
            world.put_row(key, row);
        }
        Worker::Decide(key, row)
    }

    fn send(&self, world: &mut World, who: u8, key: Key, row: Row) -> Worker {
        let Some(report) = row.report else { return Worker::Idle };
        let attempt = row.tries;
        let is_other = |known: Key, of: u8| known == key && of != attempt;
        let calls = world.calls.iter().map(|call| (call.key, call.attempt));
        let events = world.stripe.events.iter().map(|event| (event.key, event.attempt));
        if calls.chain(events).any(|(known, of)| is_other(known, of)) {
            world.bad = Some(Bad::TwoIdentifiers);
        }
        if world.row(key).is_some_and(|row| row.state == RowState::Parked) {
            world.bad = Some(Bad::SentAfterPark);
        }
        world.calls.push(Call {
            key,
            attempt,
            faults: match self.is(Variant::ConstantIdempotencyKey) {
                true => 0,
                false => row.faults,
            },
            report,
            waits: Some(who),
            since: self.now(world),
        });
        Worker::Sent(key, row)
    }

    /// A call reaches Stripe.
    fn arrive(&self, world: &mut World, call: Call, fault: Option<bool>, is_answered: bool) {
        let stored = (call.key, call.attempt, call.faults);
        let is_same = |event: &&Event| event.key == call.key && event.attempt == call.attempt;
        let is_duplicate = world.stripe.events.iter().filter(is_same).any(|event| event.is_known);
        let verdict = if world.stripe.stored.contains(&stored) {
            Verdict::Retry { fault: true }
        } else if is_duplicate {
            match self.is(Variant::DuplicateIsFailure) {
                true => Verdict::Park(Why::Refused),
                false => Verdict::Delivered,
            }
        } else {
            if fault != Some(false) {
                self.accept(world, call);
            }
            match fault {
                Some(_) => {
                    world.left.faults -= 1;
                    world.stripe.stored.push(stored);
                    world.stripe.stored.sort_unstable();
                    Verdict::Retry { fault: true }
                }
                None => Verdict::Delivered,
            }
        };
        let Some(worker) = call.waits else { return };
        let Worker::Sent(key, row) = world.workers[usize::from(worker)] else {
            return;
        };
        world.workers[usize::from(worker)] = match is_answered {
            true => Worker::Conclude(key, row, verdict),
            false => Worker::Conclude(key, row, Verdict::Retry { fault: false }),
        };
    }

    fn accept(&self, world: &mut World, call: Call) {
        let (start, end) = self.rules.period_at(world.record, call.report.at);
        let plan = world.counted(call.key).and_then(|counted| counted.plan);
        if world.stripe.events.iter().any(|event| event.key == call.key) {
            world.bad = Some(Bad::ReportedTwice);
        } else if plan.is_some_and(|plan| plan != call.report.plan) {
            world.bad = Some(Bad::WrongPlan);
        } else if !(start..end).contains(&call.key.bucket) {
            world.bad = Some(Bad::WrongPeriod);
        } else if self.case.parked_is_over && world.row(call.key).is_some_and(|row| row.state == RowState::Parked) {
            world.bad = Some(Bad::CountedAfterPark);
        }
        world.stripe.events.push(Event {
            key: call.key,
            attempt: call.attempt,
            report: call.report,
            since: self.now(world),
            is_known: true,
            is_late: world.stripe.finalized.contains(&start),
        });
    }

    /// Stripe's sum of a window. What it has surely brought up to date is in it.
    fn sum(&self, world: &World, row: Row, start: Sec, end: Sec, is_up_to_date: bool) -> u8 {
        let Some(report) = row.report else { return 0 };
        let now = self.now(world);
        let counts = |event: &&Event| {
            let of = event.report;
            let is_same = (of.customer, of.plan) == (report.customer, report.plan);
            let is_seen = is_up_to_date || event.since + self.case.lag_s <= now;
            is_same && is_seen && (start..end).contains(&of.at)
        };
        let events = world.stripe.events.iter().filter(counts);
        events.map(|event| event.report.value).sum()
    }

    fn conclude(&self, world: &mut World, key: Key, row: Row, verdict: Verdict) {
        let now = self.now(world);
        let Some((worker, since)) = row.claim else { return };
        match verdict {
            Verdict::Delivered => {
                self.write_row(world, key, RowWrite::Delivered { now });
            }
            Verdict::Retry { fault } => {
                let later = RowWrite::RetryLater {
                    worker,
                    since,
                    tries: row.tries,
                    fault,
                    now,
                };
                self.write_row(world, key, later);
            }
            Verdict::Park(why) => {
                let is_parked = self.write_row(world, key, RowWrite::Park { worker, since }).is_some();
                if is_parked && why == Why::Refused && world.in_stripe(key) > 0 {
                    world.bad = Some(Bad::ParkedThoughDelivered);
                }
            }
        }
    }

    fn prune(&self, world: &mut World, key: Key) -> Worker {
        let places = world.places.iter_mut().enumerate();
        let is_of = |i: usize| self.is(Variant::ShardsSummed) || i == usize::from(key.life % 2);
        for (_, place) in places.filter(|(i, _)| is_of(*i)) {
            let life = match (self.is(Variant::ShardsSummed), &place.item) {
                (true, Some(item)) => item.life.unwrap_or(key.life),
                _ => key.life,
            };
            let write = CounterWrite::Prune(Key { life, ..key });
            match self.rules.write_counter(place.item.as_ref(), write) {
                Some(after) if place.item.is_some() => place.item = Some(after),
                // A write without a condition would make an item of nothing.
                Some(_) => {}
                None if place.item.as_ref().is_some_and(|item| item.life == Some(life)) => return Worker::Idle,
                None => {}
            }
        }
        Worker::Finish(key)
    }

    fn lose(&self, world: &mut World, which: usize) {
        world.left.losses -= 1;
        world.places[which].shut = None;
        let Some(life) = world.places[which].item.take().and_then(|item| item.life) else {
            return;
        };
        world.lost.push(life);
        let of_life = |key: &Key| key.life == life;
        for counted in world.counted.iter_mut().filter(|counted| of_life(&counted.key)) {
            counted.before_loss = counted.units;
        }
        // What the ledger has is never lost.
        for (key, row) in world.ledger.rows.iter().filter(|(key, _)| of_life(key)) {
            match world.known.binary_search_by_key(key, |(known, _)| *known) {
                Ok(place) => world.known[place].1 = row.units,
                Err(place) => world.known.insert(place, (*key, row.units)),
            }
        }
    }

    /// Whether nothing that was broken shows in a state.
    pub(crate) fn is_safe(&self, world: &World) -> bool {
        self.fault(world).is_none()
    }

    pub(crate) fn fault(&self, world: &World) -> Option<Bad> {
        if world.bad.is_some() {
            return world.bad;
        }
        for (key, row) in &world.ledger.rows {
            if row.state == RowState::Reported && !self.is_sum_right(world, *key, row) {
                return Some(Bad::WrongSum);
            }
        }
        let is_of_nothing = |item: &Item| item.epoch.is_none();
        if world.places.iter().flat_map(|place| &place.item).any(is_of_nothing) {
            return Some(Bad::ItemOfNothing);
        }
        let credits: u8 = world.ledger.rows.iter().map(|(_, row)| row.credit).sum();
        let given = (0u8..)
            .zip(self.case.grants)
            .filter(|(i, _)| world.given & (1 << i) != 0);
        let given: u8 = given.map(|(_, units)| units).sum();
        let is_expiring = self.is(Variant::RowsExpire);
        if (credits != world.ledger.taken && !is_expiring) || world.ledger.taken > given || world.ledger.granted > given
        {
            return Some(Bad::WrongCredit);
        }
        let is_forgotten = |counted: &&Counted| {
            let is_lost = world.lost.contains(&counted.key.life);
            let row = world.row(self.row_of(counted.key));
            // A ledger that was set back may not know a row any more that Stripe has.
            let is_billed = world.in_stripe(self.row_of(counted.key)) == counted.units;
            !is_lost && !is_billed && row.is_none_or(|row| row.state == RowState::Open)
        };
        if self.is_settled(world) && world.counted.iter().any(|counted| is_forgotten(&counted)) {
            return Some(Bad::Forgotten);
        }
        None
    }

    /// Whether Stripe and the credit together are what was counted; where the counter was lost, at least what the ledger
    /// had and what was counted since.
    fn is_sum_right(&self, world: &World, key: Key, row: &Row) -> bool {
        let (mut least, mut most) = (0, 0);
        for counted in world.counted.iter().filter(|counted| self.row_of(counted.key) == key) {
            most += counted.units;
            least += match world.lost.contains(&counted.key.life) {
                true => world.known(counted.key) + counted.units - counted.before_loss,
                false => counted.units,
            };
        }
        let billed = world.in_stripe(key) + row.credit;
        (least..=most).contains(&billed)
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_settled(&self, world: &World) -> bool {
        let is_row_settled = |row: &Row| match row.state {
            RowState::Reported => !row.work,
            RowState::Parked => true,
            RowState::Open | RowState::Sealed | RowState::Sending => false,
        };
        world.admissions.is_empty()
            && world.calls.is_empty()
            && world.workers.iter().all(|worker| *worker == Worker::Idle)
            && world.ledger.rows.iter().all(|(_, row)| is_row_settled(row))
            && world.places.iter().all(|place| {
                let Some(item) = &place.item else { return true };
                if place.shut.is_some() {
                    return false;
                }
                let mut buckets = item.units.iter();
                let is_current = item.epoch.is_none_or(|epoch| epoch >= world.record.epoch);
                let has_row = |&(bucket, _): &(Sec, u8)| {
                    let key = item.life.map(|life| self.row_of(Key { life, bucket }));
                    key.is_none_or(|key| world.row(key).is_some())
                };
                !place.is_raw && is_current && buckets.all(has_row)
            })
    }

    /// The next step of a world in which nothing goes wrong any more; `None` if there is none.
    pub(crate) fn helping(&self, world: &World) -> Option<Action> {
        let mut actions = Vec::new();
        self.helping_actions(world, &mut actions);
        let now = self.now(world);
        let rank = |action: &Action| match action {
            Action::Write { .. } => Some(0),
            Action::Arrive { .. } => Some(1),
            Action::Step(_) => Some(2),
            Action::Answer { is_up_to_date, .. } => is_up_to_date.then_some(2),
            Action::Bump(_) => Some(3),
            Action::Fold {
                life, bucket, units, ..
            } => {
                // The scan reads the counter's own number.
                let item = world.places[usize::from(life % 2)].item.as_ref();
                let item = item.filter(|item| item.life == Some(*life));
                item.is_some_and(|item| item.units_of(*bucket) == *units).then_some(4)
            }
            Action::Shut(_) | Action::Restore(_) => Some(5),
            Action::Pick { life, bucket, .. } => {
                let row = world.row(Key {
                    life: *life,
                    bucket: *bucket,
                });
                let is_held = row
                    .and_then(|row| row.claim)
                    .is_some_and(|(_, since)| since + 300 > now);
                (!is_held).then_some(6)
            }
            _ => None,
        };
        let best = actions.into_iter().filter_map(|action| Some((rank(&action)?, action)));
        let best = best.min_by_key(|(rank, _)| *rank).map(|(_, action)| action);
        let is_time_left = usize::from(world.moment) + 1 < self.case.moments.len();
        best.or(is_time_left.then_some(Action::Tick))
    }
}

fn count(world: &mut World, key: Key, plan: Option<u8>) {
    match world.counted.binary_search_by_key(&key, |counted| counted.key) {
        Ok(place) => {
            let counted = &mut world.counted[place];
            counted.units += 1;
            if let (Some(before), Some(plan)) = (counted.plan, plan)
                && before != plan
            {
                world.bad = Some(Bad::WrongPlan);
            }
            counted.plan = counted.plan.or(plan);
        }
        Err(place) => world.counted.insert(
            place,
            Counted {
                key,
                units: 1,
                plan,
                before_loss: 0,
            },
        ),
    }
}

/// Nobody waits for a worker's call any more.
fn forget_waiting(world: &mut World, worker: u8) {
    for call in world.calls.iter_mut().filter(|call| call.waits == Some(worker)) {
        call.waits = None;
    }
}

/// The outcome of a worker's call is not known.
fn no_answer(world: &mut World, worker: u8) {
    let worker = &mut world.workers[usize::from(worker)];
    if let Worker::Sent(key, row) = *worker {
        *worker = Worker::Conclude(key, row, Verdict::Retry { fault: false });
    }
}
