//! One run: traffic, schedules, deliveries and changes side by side, then peace, then the audit.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use farebox_authorizer::{Authorizer, Response};
use farebox_aws::control::NewKey;
use farebox_billing::{Offer, Sale, When};
use farebox_core::{
    account::{Contact, Customer},
    id::CustomerId,
    key::{ApiKey, KeyHash, Mode},
    tiers::{Catalog, DEFAULT_METER, Overrides},
    time::Timestamp,
};
use farebox_stripe::sign;
use fastrand::Rng;
use http::Request;
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};

use crate::{
    audit::{Call, Verdict},
    check,
    sabotage::Sabotage,
    scenario::{Action, Planned, ROUTES, Scenario, TIER_NAMES, TIERS},
    trace::{Trace, Traced},
    wire::{CALL, Weather},
    world::World,
};

/// What a run is made of besides its seed.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Requests of customers.
    pub requests: usize,
    /// A rule that is broken behind the wire.
    pub sabotage: Option<Sabotage>,
    /// How much of the trace is kept.
    pub trace: Traced,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            requests: 1_000,
            sabotage: None,
            trace: Traced::No,
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The hash of every request and answer, in order, if it was asked for.
    pub digest: String,
    /// Events in the trace.
    pub events: u64,
    /// Requests of customers.
    pub calls: u64,
    /// Units of requests that were let through.
    pub admitted: u64,
    /// Units that the counters counted.
    pub counted: u64,
    /// Units that Stripe has, and those that were given.
    pub reported: u64,
    /// Units that were given, and so taken off the reports.
    pub given: u64,
    /// Counting writes of unknown outcome.
    pub unknown: u64,
    /// Units let through though the table did not say that they were counted.
    pub uncounted: u64,
    /// Requests to tables, queues and Stripe, and how many of them met trouble.
    pub wire: (u64, u64),
    /// What did not hold. Empty is a run that is right to the unit.
    pub violations: Vec<String>,
    /// The text of the trace, if it was asked for.
    pub lines: Vec<String>,
}

/// Runs a seed in this thread.
///
/// # Panics
/// If the system can't even be set up without any fault.
#[must_use]
pub fn run(seed: u64, options: Options) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime
        .expect("a runtime")
        .block_on(LocalSet::new().run_until(simulate(seed, options)))
}

/// A customer as the run knows it.
pub(crate) struct Subject {
    pub(crate) id: CustomerId,
    pub(crate) keys: Vec<Key>,
    /// Units that were given, or may have been.
    pub(crate) given: u64,
    /// Nobody is let in from this moment on, since an operator was told so.
    shut: Option<Timestamp>,
    /// Since when an operator was told that a tier holds, which, and from which second on.
    tier: Option<(Timestamp, String, u64)>,
    /// Changes that were begun: what an older one says does not count any more.
    changes: u64,
    /// Changes that have not ended: each may still overtake what another one says.
    under_way: u64,
}

#[derive(Clone)]
pub(crate) struct Key {
    text: String,
    hash: KeyHash,
    /// When an operator was told that it opens nothing any more.
    revoked: Option<Timestamp>,
}

pub(crate) struct Run {
    pub(crate) world: World,
    scenario: Scenario,
    catalog: u64,
    environments: Mutex<Vec<Arc<Authorizer>>>,
    retired: Mutex<Vec<Arc<Authorizer>>>,
    pub(crate) subjects: Mutex<Vec<Subject>>,
    deliveries: tokio::sync::Mutex<Deliveries>,
    rng: Mutex<Rng>,
}

async fn simulate(seed: u64, options: Options) -> Outcome {
    let scenario = Scenario::of(seed, options.requests);
    let world = World::new(seed, &scenario, options.sabotage, Trace::new(options.trace)).await;
    let run = Arc::new(Run::set_up(seed, world, scenario).await);
    let begin = run.begin().await;
    run.trouble(begin).await;
    run.peace().await;
    check::check(&run).await;
    run.outcome(seed)
}

impl Run {
    /// Sells to every customer, without any fault.
    async fn set_up(seed: u64, world: World, scenario: Scenario) -> Self {
        let catalog = Catalog::from_yaml(TIERS, "tiers.yaml").expect("good tiers");
        let version = world.auditor.accounts.put_catalog(&catalog).await.expect("a catalog");
        {
            let mut state = world.wire.state();
            for limit in catalog
                .tiers
                .iter()
                .filter_map(|tier| catalog.terms(&tier.name, &Overrides::default()).ok())
            {
                for limit in limit.limits {
                    let known = state.audit.windows_max.entry(limit.window_ms).or_insert(0);
                    *known = limit.units.max(*known);
                }
            }
        }
        let environments = (0..scenario.skews_ms.len()).map(|n| world.authorizer(n)).collect();
        let mut subjects = Vec::new();
        for (i, &(tier, after_ms)) in scenario.customers.iter().enumerate() {
            world
                .wire
                .time()
                .until(scenario.start.plus_ms(after_ms).max(world.wire.now()))
                .await;
            let id = CustomerId::try_from(format!("customer{i}")).expect("an id");
            let sale = Sale {
                id: id.clone(),
                name: id.to_string(),
                tier: TIER_NAMES[tier].to_owned(),
                catalog: version,
                overrides: Overrides::default(),
                contact: Contact::default(),
                trial_days: None,
            };
            world.auditor.sell(sale).await.expect("sold");
            let key = issue(&world.auditor.control(), &id, world.wire.now())
                .await
                .expect("a key");
            subjects.push(Subject {
                id,
                keys: vec![key],
                given: 0,
                shut: None,
                tier: None,
                changes: 0,
                under_way: 0,
            });
        }
        Self {
            world,
            scenario,
            catalog: version,
            environments: Mutex::new(environments),
            retired: Mutex::default(),
            subjects: Mutex::new(subjects),
            deliveries: tokio::sync::Mutex::default(),
            rng: Mutex::new(Rng::with_seed(seed ^ 0x5eed_0003)),
        }
    }

    /// Lets the month pass up to where traffic begins.
    async fn begin(&self) -> Timestamp {
        let first = self.subjects()[0].id.clone();
        let first = self.world.auditor.customer(&first).await.expect("a customer");
        let edge = Timestamp::from_s(first.cycle.current.end);
        let begin = Timestamp::from_ms(edge.ms().saturating_sub(self.scenario.before_edge_ms));
        self.world.wire.time().until(begin).await;
        begin
    }

    /// Everything at once, until traffic ends.
    async fn trouble(self: &Arc<Self>, begin: Timestamp) {
        let mut weather = self.scenario.weather.clone();
        for outage in &mut weather.outages {
            outage.from = begin.plus_ms(outage.from.ms());
            outage.until = begin.plus_ms(outage.until.ms());
        }
        let end = weather.outages.iter().map(|outage| outage.until).max().unwrap_or(begin);
        let end = end.max(begin.plus_ms(self.scenario.length_ms));
        self.world.wire.state().weather = weather;
        let mut tasks = JoinSet::new();
        for planned in self.scenario.requests.clone() {
            let run = self.clone();
            tasks.spawn_local(async move {
                run.world.wire.time().until(begin.plus_ms(planned.at_ms)).await;
                run.call(planned).await;
            });
        }
        for &(at_ms, action) in &self.scenario.actions {
            let run = self.clone();
            tasks.spawn_local(async move {
                run.world.wire.time().until(begin.plus_ms(at_ms)).await;
                run.act(action).await;
            });
        }
        for worker in 0..2 {
            let run = self.clone();
            tasks.spawn_local(async move { run.tick_until(worker, end).await });
        }
        let run = self.clone();
        tasks.spawn_local(async move { run.fold_until(end).await });
        let run = self.clone();
        tasks.spawn_local(async move { run.deliver_until(end).await });
        while let Some(done) = tasks.join_next().await {
            if let Err(error) = done {
                self.violation(format!("a task ended: {error}"));
            }
        }
    }

    /// No more faults: everything that is under way comes to its end.
    async fn peace(self: &Arc<Self>) {
        let wire = &self.world.wire;
        {
            let mut state = wire.state();
            state.weather = Weather::default();
            state.trace.note(wire.now().ms(), "run", "peace", "");
        }
        // The latest of the late requests.
        tokio::time::sleep(Duration::from_secs(1_800)).await;
        let environments = self.environments().clone();
        for (n, environment) in environments.into_iter().enumerate() {
            environment.flush(self.clock_of(n), true).await;
        }
        let mut deliveries = self.deliveries.lock().await;
        for round in 0..2 {
            let records = self.records(&usage_queue(&self.world.queues.usage));
            if !records.is_empty() {
                self.fold(0, records).await;
            }
            // What no message told.
            if let Err(error) = self.world.consumers[round].scan().await {
                self.violation(format!("a scan failed without any fault: {error}"));
            }
            for _ in 0..400 {
                deliveries.collect(self);
                for event in deliveries.take(usize::MAX) {
                    self.deliver(&event).await;
                }
                let due = match self.world.auditor.ledger.next_due().await {
                    Ok(Some(due)) => Timestamp::from_s(due),
                    Ok(None) => break,
                    Err(error) => return self.violation(format!("the ledger is not readable: {error}")),
                };
                wire.time().until(due.max(wire.now().plus_ms(60_000))).await;
                if let Err(error) = self.world.consumers[round].tick().await {
                    self.violation(format!("a tick failed without any fault: {error}"));
                }
            }
            tokio::time::sleep(Duration::from_secs(3 * 3_600)).await;
        }
    }

    // Requests

    /// A request of a customer's, through one environment.
    async fn call(self: &Arc<Self>, planned: Planned) {
        let Planned {
            customer,
            route,
            environment,
            ..
        } = planned;
        let (path, cost) = ROUTES[route];
        let key = {
            let subjects = self.subjects();
            let keys = &subjects[customer].keys;
            // Sometimes by a key that was replaced.
            let newest = keys.len() - 1;
            let which = if self.dice(5) == 0 {
                self.pick(keys.len())
            } else {
                newest
            };
            (which, keys[which].text.clone())
        };
        let began = self.world.wire.now();
        let authorizer = self.environments()[environment].clone();
        let id = {
            let mut state = self.world.wire.state();
            state.audit.calls.push(Call {
                cost,
                verdict: None,
                commits: 0,
                writes: 0,
                answered: 0,
                unknown: 0,
            });
            state.audit.calls.len() - 1
        };
        let local = self.clock_of(environment);
        let event = event(&key.1, path);
        let handled = CALL.scope(id, async {
            authorizer
                .handle(&mut serde_json::Deserializer::from_str(&event), local)
                .await
        });
        let Some(answer) = self.killed_or(handled).await else {
            // It takes what it had not sent with it.
            return self.cold_start(environment, &authorizer);
        };
        let verdict = verdict(&answer);
        self.world.wire.note(
            format!("call{id}"),
            path,
            &format!("{verdict:?} by key {} of customer{customer}", key.0),
        );
        self.hold(customer, key.0, began, local, &verdict, &answer);
        self.world.wire.state().audit.calls[id].verdict = Some(verdict);
        if self.of_a_thousand(self.scenario.flush_permille) {
            authorizer.flush(local, false).await;
        }
    }

    /// What must hold of an answer from the moment on at which an operator was told so.
    fn hold(
        &self,
        customer: usize,
        key: usize,
        began: Timestamp,
        local: Timestamp,
        verdict: &Verdict,
        answer: &Result<Response, farebox_authorizer::Unauthorized>,
    ) {
        if !matches!(verdict, Verdict::Admitted | Verdict::Uncounted) {
            return;
        }
        let subjects = self.subjects();
        let subject = &subjects[customer];
        let told = |moment: Option<Timestamp>| moment.is_some_and(|moment| moment < began);
        let changed_late = self.world.wire.state().changed_late;
        let mut broken = Vec::new();
        // What the table did not count it did not hold against a change either: those are let through by what is remembered.
        if *verdict == Verdict::Admitted {
            if told(subject.keys[key].revoked) {
                broken.push(format!("{} was let in by a key that was revoked before", subject.id));
            }
            if told(subject.shut) {
                broken.push(format!("{} was let in though shut out before", subject.id));
            }
            if let Some((moment, tier, from)) = &subject.tier
                && *moment < began
                && changed_late.is_none_or(|late| late < *moment)
                && local.s() >= *from
                && let Ok(Response::Simple { context, .. }) = answer
                && !context.iter().any(|(name, value)| *name == "tier" && value == tier)
            {
                broken.push(format!("{} was let in by another tier than {tier}", subject.id));
            }
        }
        drop(subjects);
        for text in broken {
            self.violation(text);
        }
    }

    fn cold_start(&self, environment: usize, dead: &Arc<Authorizer>) {
        let mut environments = self.environments();
        if Arc::ptr_eq(&environments[environment], dead) {
            self.retired().push(std::mem::replace(
                &mut environments[environment],
                self.world.authorizer(environment),
            ));
        }
    }

    fn clock_of(&self, environment: usize) -> Timestamp {
        let now = self.world.wire.now().ms();
        Timestamp::from_ms(now.saturating_add_signed(self.scenario.skews_ms[environment]))
    }

    // Schedules and deliveries

    /// Two schedules that know nothing of each other: a worker may meet the other one at the same row.
    async fn tick_until(&self, worker: usize, end: Timestamp) {
        while self.world.wire.now() < end {
            let pause = 300 * (1 + self.dice(8));
            tokio::time::sleep(Duration::from_secs(pause)).await;
            let task = json!({ "task": "tick" });
            let _ = self.killed_or(self.world.consumers[worker].handle(task)).await;
        }
    }

    fn records(&self, queue: &str) -> Vec<(String, String)> {
        let messages = self.world.wire.state().queues.drain(queue);
        messages.into_iter().map(|message| (message.id, message.body)).collect()
    }

    /// The queue: messages come late, out of order, twice, or not at all.
    async fn fold_until(self: &Arc<Self>, end: Timestamp) {
        let queue = usage_queue(&self.world.queues.usage);
        let mut waiting: Vec<(Timestamp, String, String)> = Vec::new();
        let mut batches = JoinSet::new();
        while self.world.wire.now() < end {
            tokio::time::sleep(Duration::from_millis(1_000 + self.dice(60_000))).await;
            let now = self.world.wire.now();
            for (id, body) in self.records(&queue) {
                if self.of_a_thousand(self.scenario.lost_permille) {
                    continue;
                }
                if self.of_a_thousand(self.scenario.twice_permille) {
                    waiting.push((now.plus_ms(self.dice(7_200_000)), id.clone(), body.clone()));
                }
                let late = if self.dice(20) == 0 { 3_600_000 } else { 5_000 };
                waiting.push((now.plus_ms(self.dice(late)), id, body));
            }
            let (due, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(at, ..)| *at <= now);
            waiting = later;
            let mut records: Vec<(String, String)> = due.into_iter().map(|(_, id, body)| (id, body)).collect();
            self.rng().shuffle(&mut records);
            if !records.is_empty() {
                let (run, worker) = (self.clone(), self.pick(2));
                batches.spawn_local(async move { run.fold(worker, records).await });
            }
            while let Some(Ok(left)) = batches.try_join_next() {
                let again = self.world.wire.now().plus_ms(180_000);
                waiting.extend(left.into_iter().map(|(id, body)| (again, id, body)));
            }
        }
        while batches.join_next().await.is_some() {}
    }

    /// Hands a batch to a worker; returns what is to come again.
    async fn fold(&self, worker: usize, records: Vec<(String, String)>) -> Vec<(String, String)> {
        let record = |(id, body): &(String, String)| json!({ "messageId": id, "body": body });
        let event = json!({ "Records": records.iter().map(record).collect::<Vec<Value>>() });
        match self.killed_or(self.world.consumers[worker].handle(event)).await {
            Some(Ok(answer)) => {
                let failed = answer["batchItemFailures"].as_array().cloned().unwrap_or_default();
                let has_failed = |id: &str| failed.iter().any(|item| item["itemIdentifier"] == id);
                records.into_iter().filter(|(id, _)| has_failed(id)).collect()
            }
            _ => records,
        }
    }

    /// Stripe's events: late, out of order, twice, and again until they are taken.
    async fn deliver_until(&self, end: Timestamp) {
        let mut deliveries = self.deliveries.lock().await;
        while self.world.wire.now() < end {
            tokio::time::sleep(Duration::from_millis(5_000 + self.dice(240_000))).await;
            deliveries.collect(self);
            self.rng().shuffle(&mut deliveries.waiting);
            let now_many = self.pick(deliveries.waiting.len() + 1);
            for event in deliveries.take(now_many) {
                if !self.deliver(&event).await || self.of_a_thousand(self.scenario.twice_permille) {
                    deliveries.waiting.push(event);
                }
            }
        }
    }

    /// Sends an event as Stripe does; says whether it was taken.
    async fn deliver(&self, event: &Value) -> bool {
        let body = event.to_string();
        let now = self.world.wire.now();
        let request = Request::post("/stripe/webhook")
            .header("stripe-signature", sign(body.as_bytes(), &self.world.secret, now.s()))
            .body(Bytes::from(body))
            .expect("a request");
        match self.killed_or(self.world.webhook.handle(request, now)).await {
            Some(answer) => answer.status().is_success(),
            None => false,
        }
    }

    // Changes

    async fn act(self: &Arc<Self>, action: Action) {
        self.world.wire.note("operator", "begins", &format!("{action:?}"));
        match action {
            Action::StoredFault => self.world.wire.store_next_fault(),
            Action::Scan => {
                let _ = self
                    .killed_or(self.world.consumers[0].handle(json!({ "task": "scan" })))
                    .await;
            }
            Action::ColdStart { environment } => {
                let dead = self.environments()[environment].clone();
                self.cold_start(environment, &dead);
            }
            Action::Revoke { customer } => self.replace_key(customer).await,
            Action::Suspend { customer } => self.suspend(customer, true).await,
            Action::Resume { customer } => self.suspend(customer, false).await,
            Action::Grant { customer, units } => self.grant(customer, units).await,
            Action::ChangeTier { customer, tier, now } => self.change_tier(customer, tier, now).await,
            Action::Cancel { customer, now } => self.cancel(customer, now).await,
        }
        self.world.wire.note("operator", "ends", &format!("{action:?}"));
    }

    /// As an operator does: tried again until it is done, or given up.
    async fn insist<T, E>(&self, attempt: impl AsyncFn() -> Result<T, E>) -> Option<T> {
        for _ in 0..6 {
            if let Some(Ok(done)) = self.killed_or(attempt()).await {
                return Some(done);
            }
            tokio::time::sleep(Duration::from_millis(500 + self.dice(120_000))).await;
        }
        None
    }

    async fn replace_key(&self, customer: usize) {
        let (id, control) = (self.id(customer), self.world.operator.control());
        let Some(new) = self
            .insist(async || issue(&control, &id, self.world.wire.now()).await)
            .await
        else {
            return;
        };
        let old = {
            let mut subjects = self.subjects();
            let keys = &mut subjects[customer].keys;
            keys.push(new);
            keys.len() - 2
        };
        let hash = self.subjects()[customer].keys[old].hash;
        if self
            .insist(async || control.revoke_key(hash, self.world.wire.now()).await)
            .await
            .is_some()
        {
            self.subjects()[customer].keys[old].revoked = Some(self.world.wire.now());
        }
    }

    async fn suspend(&self, customer: usize, is_suspended: bool) {
        let (id, control) = (self.id(customer), self.world.operator.control());
        let change = self.begin_change(customer);
        self.subjects()[customer].shut = None;
        let done = self
            .insist(async || {
                control
                    .change(&id, self.world.wire.now(), |customer| {
                        customer.is_suspended = is_suspended;
                        Ok(())
                    })
                    .await
            })
            .await;
        let says_what_holds = self.end_change(customer, change);
        if done.is_some() && is_suspended && says_what_holds {
            self.subjects()[customer].shut = Some(self.world.wire.now());
        }
    }

    async fn grant(&self, customer: usize, units: u64) {
        let id = self.id(customer);
        let name = {
            let mut subjects = self.subjects();
            subjects[customer].given += units;
            format!("grant-{}", subjects[customer].given)
        };
        self.insist(async || self.world.operator.grant(&id, DEFAULT_METER, units, &name).await)
            .await;
    }

    async fn change_tier(&self, customer: usize, tier: usize, now: bool) {
        let id = self.id(customer);
        let change = self.begin_change(customer);
        self.subjects()[customer].tier = None;
        let done = self
            .insist(async || {
                let offer = Offer {
                    tier: TIER_NAMES[tier].to_owned(),
                    catalog: self.catalog,
                    overrides: Overrides::default(),
                    when: if now { When::Now } else { When::PeriodEnd },
                };
                self.world.operator.change_tier(&id, offer).await
            })
            .await;
        let says_what_holds = self.end_change(customer, change);
        if let Some(changed) = done.filter(|_| now && says_what_holds) {
            let from = changed.phases.last().map_or(0, |phase| phase.from);
            self.subjects()[customer].tier = Some((self.world.wire.now(), TIER_NAMES[tier].to_owned(), from));
        }
    }

    async fn cancel(&self, customer: usize, now: bool) {
        let id = self.id(customer);
        let change = self.begin_change(customer);
        self.subjects()[customer].tier = None;
        let when = if now { When::Now } else { When::PeriodEnd };
        let done = self.insist(async || self.world.operator.cancel(&id, when).await).await;
        let says_what_holds = self.end_change(customer, change);
        if done.is_some() && now && says_what_holds {
            self.subjects()[customer].shut = Some(self.world.wire.now());
        }
    }

    /// A change begins. Until it has ended nobody knows what holds.
    fn begin_change(&self, customer: usize) -> u64 {
        let mut subjects = self.subjects();
        let subject = &mut subjects[customer];
        subject.changes += 1;
        subject.under_way += 1;
        subject.changes
    }

    /// Whether what the change did holds from now on: of changes at the same time nobody knows which was the last.
    fn end_change(&self, customer: usize, change: u64) -> bool {
        let mut subjects = self.subjects();
        let subject = &mut subjects[customer];
        subject.under_way -= 1;
        let says_what_holds = subject.changes == change && subject.under_way == 0;
        if !says_what_holds {
            (subject.tier, subject.shut) = (None, None);
        }
        says_what_holds
    }

    // Small things

    /// An invocation, unless it is killed on the way.
    async fn killed_or<T>(&self, invocation: impl Future<Output = T>) -> Option<T> {
        let is_peace = self.world.wire.state().weather.is_calm();
        if !is_peace && self.of_a_thousand(self.scenario.killed_permille) {
            let ms = [5, 40, 400, 4_000][self.pick(4)];
            tokio::time::timeout(Duration::from_millis(self.dice(ms)), invocation)
                .await
                .ok()
        } else {
            Some(invocation.await)
        }
    }

    fn id(&self, customer: usize) -> CustomerId {
        self.subjects()[customer].id.clone()
    }

    fn dice(&self, sides: u64) -> u64 {
        self.rng().u64(..sides.max(1))
    }

    fn pick(&self, of: usize) -> usize {
        self.rng().usize(..of)
    }

    fn of_a_thousand(&self, permille: u64) -> bool {
        self.dice(1_000) < permille
    }

    pub(crate) fn violation(&self, text: String) {
        self.world.wire.note("run", "violation", &text);
        self.world.wire.state().audit.violation(text);
    }

    fn rng(&self) -> MutexGuard<'_, Rng> {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn subjects(&self) -> MutexGuard<'_, Vec<Subject>> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn environments(&self) -> MutexGuard<'_, Vec<Arc<Authorizer>>> {
        self.environments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retired(&self) -> MutexGuard<'_, Vec<Arc<Authorizer>>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes of unknown outcome, as the environments' metric says.
    pub(crate) fn ambiguous(&self) -> u64 {
        let all = self.environments().clone().into_iter().chain(self.retired().clone());
        all.map(|authorizer| authorizer.metrics().ambiguous_total.load(Relaxed))
            .sum()
    }

    fn outcome(&self, seed: u64) -> Outcome {
        let mut state = self.world.wire.state();
        let audit = &mut state.audit;
        let mut outcome = Outcome {
            seed,
            calls: audit.calls.len() as u64,
            admitted: audit.units(|call| matches!(call.verdict, Some(Verdict::Admitted | Verdict::Uncounted))),
            counted: audit.counted.values().sum(),
            reported: audit.reported,
            given: audit.given,
            unknown: audit.calls.iter().map(|call| call.unknown).sum(),
            uncounted: audit.units(|call| call.verdict == Some(Verdict::Uncounted)),
            violations: std::mem::take(&mut audit.violations),
            ..Outcome::default()
        };
        outcome.wire = (state.requests, state.troubled);
        outcome.events = state.trace.events();
        outcome.digest = state.trace.digest();
        outcome.lines = state.trace.take_lines();
        outcome
    }
}

/// What Stripe has still to tell.
#[derive(Default)]
struct Deliveries {
    cursor: usize,
    waiting: Vec<Value>,
}

impl Deliveries {
    fn collect(&mut self, run: &Run) {
        let page = run.world.wire.stand_in().events_after(self.cursor);
        self.cursor = page.cursor;
        self.waiting.extend(page.events.into_iter().map(|mut event| {
            // A thin event comes without its data.
            if event["object"] == "v2.core.event"
                && let Some(fields) = event.as_object_mut()
            {
                fields.remove("data");
            }
            event
        }));
    }

    fn take(&mut self, most: usize) -> Vec<Value> {
        self.waiting.drain(..most.min(self.waiting.len())).collect()
    }
}

async fn issue(
    control: &farebox_aws::control::Control,
    id: &CustomerId,
    now: Timestamp,
) -> Result<Key, farebox_aws::Error> {
    let new = NewKey {
        brand: "fb".to_owned(),
        mode: Mode::Test,
        name: "simulated".to_owned(),
        scopes: Vec::new(),
        expires: None,
    };
    let issued = control.issue_key(id, new, now).await?;
    let text = issued.key.reveal().to_owned();
    let hash = ApiKey::parse(&text).expect("its own text").hash();
    Ok(Key {
        text,
        hash,
        revoked: None,
    })
}

/// The event of an HTTP API (payload format 2.0).
fn event(key: &str, path: &str) -> String {
    json!({
        "version": "2.0", "type": "REQUEST", "routeArn": "arn:aws:execute-api:simulation:0:api/$default/GET/x",
        "rawPath": path, "headers": { "x-api-key": key },
        "requestContext": { "http": { "method": "GET", "path": path }, "stage": "$default" },
    })
    .to_string()
}

fn verdict(answer: &Result<Response, farebox_authorizer::Unauthorized>) -> Verdict {
    match answer {
        Ok(response @ Response::Simple { is_authorized, .. }) => match (is_authorized, response.code()) {
            (true, "ok") => Verdict::Admitted,
            (true, _) => Verdict::Uncounted,
            (false, code) => Verdict::Denied(code.to_owned()),
        },
        Ok(Response::Policy { .. }) | Err(_) => Verdict::Unauthorized,
    }
}

fn usage_queue(url: &str) -> String {
    url.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The sums of a customer, by what they are named in Stripe.
pub(crate) type Sums = BTreeMap<(String, String), u64>;

/// The name in Stripe of a bucket's units.
pub(crate) fn event_name(customer: &Customer, bucket: u64, meter: &str) -> String {
    customer.phase_at(bucket).plan.event_name(meter)
}
