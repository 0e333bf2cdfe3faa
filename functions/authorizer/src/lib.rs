#![doc = include_str!("../README.md")]

mod cache;
mod config;
mod event;
mod metrics;
mod outbox;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use farebox_aws::{
    accounts::AccountTable,
    counters::{self, CounterTable, Outcome},
    queue::UsageQueue,
};
use farebox_core::{
    account::{Hold, KeyRecord, KeyRefusal},
    admission::{self, Attempt, Belief, Counters, Demand, Judgement, Outage, Subject},
    answer::{self, Context},
    key::{ApiKey, KeyHash},
    message::{UsageMessage, VERSION},
    tiers::{Access, Catalog},
    time::Timestamp,
};

use cache::{Account, Cache, DenialKey, Held};
pub use config::Config;
pub use event::{Effect, Event, Format, PolicyDocument, Request, Response};
pub use metrics::Metrics;
use outbox::Outbox;
use serde::{Deserialize as _, Deserializer};

/// Writes to the table for one decision: the first, and those that a wrong belief or a throttled table ask for.
const ATTEMPTS_MAX: u32 = 4;
/// A busy table gets so long to recover before the second write of a decision, and twice as long before each further one.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// How often records may turn out stale within one decision.
const RELOADS_MAX: u32 = 4;
/// A refusal that a change of records could lift is confirmed when the last confirmation is older than this. It bounds what
/// a denied caller can make us read to 20 reads a second and environment.
const CONFIRMED_MS: u64 = 50;
/// A table that takes a call and does not answer: reading a key and its customer may take so long, and Lambda ends the function
/// after 10 s, which is no answer to anybody.
const RECORDS_MAX: Duration = Duration::from_secs(4);
/// So long may a reading take without which an answer can be given.
const READING_MAX: Duration = Duration::from_secs(2);
/// After so long without a call the connection may be dead: a read that may be retried goes first.
const IDLE_MS: u64 = 60_000;
/// So many admissions in a row that a counter item did not count end in denials until it counts again.
const UNKNOWN_RUN_MAX: u32 = 100;

/// The ready parts that the authorizer works with.
pub struct Deps {
    /// Customers, keys and catalogs.
    pub accounts: AccountTable,
    /// Counter items.
    pub counters: CounterTable,
    /// The usage queue.
    pub queue: UsageQueue,
    /// Answer 403 instead of 401 where a route is not in the tier (REST APIs only).
    pub forbidden_403: bool,
    /// The key of the usage plan that admitted requests run under, where the API takes keys from its authorizer.
    pub usage_identifier_key: Option<String>,
}

/// One environment of the authorizer.
pub struct Authorizer {
    deps: Deps,
    cache: Mutex<Cache>,
    outbox: Mutex<Outbox>,
    metrics: Metrics,
    turn: AtomicU32,
    last_call: AtomicU64,
}

/// The key is missing, malformed, unknown, revoked or expired. A REST API answers 401 if, and only if, the function fails with
/// exactly this message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unauthorized;

impl std::fmt::Display for Unauthorized {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unauthorized")
    }
}

impl std::error::Error for Unauthorized {}

/// How a request was decided. A denial is a value, not an error.
enum Verdict {
    Admitted(Context),
    Denied(Context),
    Forbidden(Context),
    Unauthorized,
}

enum Admission {
    Decided(Verdict),
    /// The records changed: read them again and decide again.
    Stale,
}

impl Authorizer {
    /// A new environment: nothing is remembered.
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        Self {
            deps,
            cache: Mutex::default(),
            outbox: Mutex::default(),
            metrics: Metrics::default(),
            turn: AtomicU32::new(0),
            last_call: AtomicU64::new(0),
        }
    }

    /// What this environment counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Answers an authorizer event.
    ///
    /// # Errors
    /// [`Unauthorized`], which a REST API turns into its 401.
    pub async fn handle<'de, D>(&self, event: D, now: Timestamp) -> Result<Response, Unauthorized>
    where
        D: Deserializer<'de, Error = serde_json::Error>,
    {
        match Event::deserialize(event) {
            Ok(event) => {
                let answer = self.answer(&event, now).await;
                self.metrics.decided(answer.as_ref().ok());
                answer.or_else(|unauthorized| event.refusal().ok_or(unauthorized))
            }
            Err(error) => {
                // serde's text may quote what it found, and what it found may be a key.
                tracing::warn!(kind = ?error.classify(), "not an authorizer event");
                self.metrics.decided(None);
                Err(Unauthorized)
            }
        }
    }

    async fn answer(&self, event: &Event<'_>, now: Timestamp) -> Result<Response, Unauthorized> {
        let Some(request) = event.request() else {
            tracing::warn!("not an authorizer event of type REQUEST or payload format 2.0");
            return Err(Unauthorized);
        };
        let (request, key) = (&request, event.key());
        // Offline: a made-up key ends here, without a look at the table.
        let key = key.and_then(|key| ApiKey::parse(key).ok()).ok_or(Unauthorized)?;
        let hash = key.hash();
        let principal = key.display_prefix().to_owned();
        let (effect, context) = match self.decide(request, hash, now).await {
            Verdict::Admitted(context) => (Effect::Allow, context),
            Verdict::Denied(context) => (Effect::Deny, context),
            Verdict::Forbidden(context) if request.format != Format::Policy => (Effect::Deny, context),
            Verdict::Forbidden(context) if self.deps.forbidden_403 => (Effect::Forbid, context),
            Verdict::Forbidden(_) | Verdict::Unauthorized => return Err(Unauthorized),
        };
        let usage_key = self.deps.usage_identifier_key.as_deref();
        Ok(Response::new(request, effect, principal, context, usage_key))
    }

    async fn decide(&self, request: &Request<'_>, hash: KeyHash, now: Timestamp) -> Verdict {
        for _ in 0..RELOADS_MAX {
            let (key, account) = match within(RECORDS_MAX, self.records(hash, now)).await {
                Ok(Some(records)) => records,
                Ok(None) => return Verdict::Unauthorized,
                Err(error) => {
                    tracing::error!(%error, "the records could not be read");
                    return Verdict::Denied(answer::unavailable(now));
                }
            };
            match self.decide_with(request, &key, &account, now).await {
                Admission::Decided(verdict) => return verdict,
                Admission::Stale => self.cache().forget_account(&account.customer.id),
            }
        }
        tracing::error!("the records kept changing");
        Verdict::Denied(answer::unavailable(now))
    }

    /// The key and its customer, from memory or read. A key is *remembered* only if it was read after the epoch that it is
    /// remembered with, so that one revoked under a later epoch never is. The request itself may go by the first reading: the
    /// key was good after the request had come, and the write holds for no customer but the present one. The next request reads
    /// the key once more.
    async fn records(
        &self,
        hash: KeyHash,
        now: Timestamp,
    ) -> Result<Option<(Arc<KeyRecord>, Account)>, farebox_aws::Error> {
        if let Some(records) = self.cache().lookup(hash) {
            return Ok(Some(records));
        }
        if self.cache().is_unknown(hash, now) {
            return Ok(None);
        }
        let readings = self.cache().readings();
        self.metrics.reads.fetch_add(1, Relaxed);
        let Some(key) = self.deps.accounts.key(hash).await? else {
            self.cache().remember_unknown(hash, now);
            return Ok(None);
        };
        let key = Arc::new(key);
        // Under one lock: nobody reads the account anew between the comparison and the memory.
        {
            let mut cache = self.cache();
            if let Some(account) = cache.account(&key.customer) {
                if cache.readings() == readings {
                    cache.remember_key(hash, key.clone());
                }
                return Ok(Some((key, account)));
            }
        }
        let Some(account) = self.read_account(&key, now).await? else {
            return Ok(None);
        };
        self.cache().remember_account(account.clone());
        Ok(Some((key, account)))
    }

    async fn read_account(&self, key: &KeyRecord, now: Timestamp) -> Result<Option<Account>, farebox_aws::Error> {
        self.metrics.reads.fetch_add(1, Relaxed);
        let Some(customer) = self.deps.accounts.customer(&key.customer).await? else {
            return Ok(None);
        };
        let mut held = Vec::new();
        let in_force = customer.phase_at(now.s()).from;
        for phase in customer.phases.iter().filter(|phase| phase.from >= in_force) {
            let catalog = self.catalog(phase.catalog).await?;
            let terms = catalog
                .terms(&phase.tier, &phase.overrides)
                .map_err(|error| farebox_aws::Error::Refused(error.to_string()))?;
            held.push(Held {
                phase: phase.clone(),
                terms,
                catalog,
            });
        }
        Ok(Some(Account {
            customer: Arc::new(customer),
            phases: held.into(),
            confirmed: now,
        }))
    }

    async fn catalog(&self, version: u64) -> Result<Arc<Catalog>, farebox_aws::Error> {
        let remembered = self.cache().catalog(version);
        if let Some(catalog) = remembered {
            return Ok(catalog);
        }
        self.metrics.reads.fetch_add(1, Relaxed);
        let missing = || farebox_aws::Error::Refused(format!("catalog {version} is missing"));
        let catalog = Arc::new(self.deps.accounts.catalog(version).await?.ok_or_else(missing)?);
        self.cache().remember_catalog(version, catalog.clone());
        Ok(catalog)
    }

    async fn decide_with(
        &self,
        request: &Request<'_>,
        key: &KeyRecord,
        account: &Account,
        now: Timestamp,
    ) -> Admission {
        let customer = &account.customer;
        match key.check(request.method, request.path, now) {
            Ok(()) => {}
            // Both are for good.
            Err(KeyRefusal::Revoked | KeyRefusal::Expired) => return Admission::Decided(Verdict::Unauthorized),
            Err(KeyRefusal::OutOfScope) => {
                let message = "The key does not open this route.".to_owned();
                return Admission::Decided(Verdict::Forbidden(vec![
                    ("code", "out_of_scope".to_owned()),
                    ("message", message),
                ]));
            }
        }
        let Some(held) = account.held_at(now) else {
            return Admission::Decided(Verdict::Unauthorized);
        };
        let hold = customer.hold(&held.terms.past_due, now.s());
        let refusal = if let Hold::Refuse(refusal) = hold {
            Some((refusal.code, refusal.message.to_owned()))
        } else {
            match held.catalog.access(&held.phase.tier, request.method, request.path) {
                Access::Open { meter, cost, group } => {
                    let slower = match hold {
                        Hold::Throttle(limit) => Some(limit),
                        Hold::None | Hold::Refuse(_) => None,
                    };
                    let subject = Subject {
                        customer,
                        phase: &held.phase,
                        terms: &held.terms,
                        slower,
                    };
                    return self.admit(account, &subject, meter, cost, group, now).await;
                }
                Access::NotInTier { from } => Some(("not_in_tier", format!("The route is part of the tier {from}."))),
                Access::NoSuchRoute => None,
            }
        };
        let (code, message) = refusal.unwrap_or(("no_such_route", "No tier has this route.".to_owned()));
        if !self.is_confirmed(account, now).await {
            return Admission::Stale;
        }
        Admission::Decided(Verdict::Forbidden(vec![
            ("code", code.to_owned()),
            ("message", message),
        ]))
    }

    /// Whether the customer's record is still the one that a refusal rests on. The control plane writes the record first, so
    /// reading it is enough.
    async fn is_confirmed(&self, account: &Account, now: Timestamp) -> bool {
        if now.ms_since(account.confirmed) < CONFIRMED_MS && now >= account.confirmed {
            return true;
        }
        self.metrics.reads.fetch_add(1, Relaxed);
        match within(READING_MAX, self.deps.accounts.customer(&account.customer.id)).await {
            Ok(Some(customer)) if customer.auth_epoch == account.customer.auth_epoch => {
                self.cache().confirm(&customer.id, now);
                true
            }
            Ok(_) => false,
            // What can't be confirmed stands.
            Err(error) => {
                tracing::error!(%error, "a refusal could not be confirmed");
                true
            }
        }
    }

    async fn admit(
        &self,
        account: &Account,
        subject: &Subject<'_>,
        meter: &str,
        cost: u64,
        group: Option<usize>,
        now: Timestamp,
    ) -> Admission {
        let Subject { customer, terms, .. } = *subject;
        let shard = self.turn.fetch_add(1, Relaxed) % terms.shards.max(1);
        let demand = Demand::new(subject, meter, group, cost, shard, now);
        let memory = DenialKey {
            shard,
            meter: demand.meter.clone(),
            group: demand.group.clone(),
            cost,
        };
        let key = counters::key(&customer.id, shard);

        if let Some(denied) = self.remembered_denial(subject, &demand, &memory) {
            if !self.is_confirmed(account, now).await {
                return Admission::Stale;
            }
            self.metrics.remembered.fetch_add(1, Relaxed);
            return Admission::Decided(Verdict::Denied(denied));
        }
        self.wake_connection(account, shard, &key, now).await;

        let belief = self.cache().belief(&customer.id, shard);
        let mut attempt = match admission::plan(&demand, belief.as_ref()) {
            Ok(attempt) => attempt,
            Err(denial) => {
                if !self.is_confirmed(account, now).await {
                    return Admission::Stale;
                }
                let counters = belief.map(|belief| belief.counters).unwrap_or_default();
                let standing = admission::standing(&demand, &counters, Some(&denial));
                return Admission::Decided(Verdict::Denied(answer::denied(
                    &denial,
                    &standing,
                    terms.warn_percent,
                    now,
                )));
            }
        };
        let mut is_answering = false;
        for nth in 0..ATTEMPTS_MAX {
            self.metrics.writes.fetch_add(1, Relaxed);
            match self.deps.counters.admit(&key, attempt.expression()).await {
                Outcome::Applied(counters) => {
                    self.cache().answered(&customer.id, shard);
                    return Admission::Decided(self.admitted(subject, &demand, &attempt, shard, counters));
                }
                Outcome::ConditionFailed(Some(counters)) => {
                    self.cache().answered(&customer.id, shard);
                    let judgement = admission::judge(&demand, &counters);
                    let denial = match &judgement {
                        Judgement::Denied(denial) => Some(denial),
                        Judgement::Stale | Judgement::Admissible(_) => None,
                    };
                    let standing = admission::standing(&demand, &counters, denial);
                    self.cache().believe(&customer.id, shard, Belief { counters, at: now });
                    match judgement {
                        Judgement::Stale => return Admission::Stale,
                        Judgement::Admissible(exact) => (attempt, is_answering) = (exact, true),
                        Judgement::Denied(denial) => {
                            if let Some(until) = denial.not_before {
                                self.cache().remember_denial(&customer.id, memory, until);
                            }
                            let context = answer::denied(&denial, &standing, terms.warn_percent, now);
                            return Admission::Decided(Verdict::Denied(context));
                        }
                    }
                }
                Outcome::ConditionFailed(None) => {
                    // The table has answered, so this is no outage: without an item no limit holds, and no revocation either.
                    tracing::error!(customer = %customer.id, shard, "the counter item is missing: farebox counters restore");
                    return Admission::Decided(Verdict::Denied(answer::unavailable(now)));
                }
                Outcome::Throttled { .. } => {
                    is_answering = true;
                    if nth + 1 < ATTEMPTS_MAX {
                        tokio::time::sleep(BUSY_PAUSE * 2u32.pow(nth)).await;
                    }
                }
                Outcome::NotApplied { retryable: true, .. } => is_answering = false,
                Outcome::NotApplied {
                    retryable: false,
                    cause,
                } => {
                    tracing::error!(cause, "the table refuses the write");
                    return Admission::Decided(self.without_table(subject, &demand, shard, false, now));
                }
                Outcome::Unknown { cause } => {
                    self.metrics.ambiguous_total.fetch_add(1, Relaxed);
                    tracing::error!(cause, "nobody knows whether the write counted");
                    return Admission::Decided(self.without_table(subject, &demand, shard, true, now));
                }
            }
        }
        // A table that answers is no outage, and who asks for more than an item can count (1,000 writes a second) is not let in for
        // nothing: it was certainly not counted, so it may come again.
        if is_answering {
            tracing::error!(customer = %customer.id, shard, "every attempt was throttled or overtaken");
            return Admission::Decided(Verdict::Denied(answer::unavailable(now)));
        }
        tracing::error!(customer = %customer.id, shard, "the table refused every connection");
        Admission::Decided(self.without_table(subject, &demand, shard, false, now))
    }

    /// A denial that an exact item gave and whose time is not over. Units of a window only grow, so it holds whatever others
    /// did since.
    fn remembered_denial(&self, subject: &Subject<'_>, demand: &Demand, memory: &DenialKey) -> Option<Context> {
        let customer = &subject.customer.id;
        let (until, belief) = {
            let cache = self.cache();
            (
                cache.denied_until(customer, memory)?,
                cache.belief(customer, memory.shard)?,
            )
        };
        if until <= demand.now {
            return None;
        }
        match admission::judge(demand, &belief.counters) {
            Judgement::Denied(denial) => {
                let standing = admission::standing(demand, &belief.counters, Some(&denial));
                Some(answer::denied(
                    &denial,
                    &standing,
                    subject.terms.warn_percent,
                    demand.now,
                ))
            }
            Judgement::Admissible(_) | Judgement::Stale => None,
        }
    }

    /// After a long idle time the socket may be dead, and a write on a dead socket has an unknown outcome. A read may be
    /// retried: it finds the dead socket, and brings the exact item.
    async fn wake_connection(&self, account: &Account, shard: u32, key: &str, now: Timestamp) {
        let last = self.last_call.swap(now.ms(), Relaxed);
        if last == 0 || now.ms().saturating_sub(last) < IDLE_MS {
            return;
        }
        self.metrics.reads.fetch_add(1, Relaxed);
        match within(READING_MAX, self.deps.counters.read(key)).await {
            Ok(Some(counters)) => self
                .cache()
                .believe(&account.customer.id, shard, Belief { counters, at: now }),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the table did not answer after an idle time"),
        }
    }

    fn admitted(
        &self,
        subject: &Subject<'_>,
        demand: &Demand,
        attempt: &Attempt,
        shard: u32,
        counters: Counters,
    ) -> Verdict {
        let Subject { customer, terms, .. } = *subject;
        let granted = customer.granted(&demand.meter, demand.now.s());
        let standing = admission::standing(demand, &counters, None);
        match counters.generation.clone().try_into() {
            Ok(generation) => self.outbox().put(
                UsageMessage {
                    v: VERSION,
                    customer: customer.id.clone(),
                    shard,
                    generation,
                    meter: demand.meter.clone(),
                    bucket: attempt.bucket.start,
                    bucket_end: attempt.bucket.end,
                    units: attempt.bucket_units(&counters),
                    period: attempt.period.start,
                    plan: demand.plan.clone(),
                    period_units: attempt.period_units(&counters),
                    included: subject.included(&demand.meter, granted),
                    cap: subject.cap(&demand.meter, granted),
                    alert_percents: terms.alert_percents.clone(),
                    at: demand.now.ms(),
                },
                demand.cost,
            ),
            // The counter has it; the scan says so again, louder.
            Err(error) => {
                tracing::error!(%error, customer = %customer.id, "the counter item has no readable generation")
            }
        }
        let mut context = answer::admitted(&standing, demand.cost, terms.warn_percent, demand.now);
        context.push(("customer", customer.id.to_string()));
        context.push(("tier", terms.tier.clone()));
        context.push(("meter", demand.meter.clone()));
        self.cache().believe(
            &customer.id,
            shard,
            Belief {
                counters,
                at: demand.now,
            },
        );
        Verdict::Admitted(context)
    }

    /// The table did not count the request: it did not answer, its answer is not known, or it refused.
    fn without_table(
        &self,
        subject: &Subject<'_>,
        demand: &Demand,
        shard: u32,
        is_unknown: bool,
        now: Timestamp,
    ) -> Verdict {
        let run = self.cache().not_counted(&subject.customer.id, shard);
        match admission::on_outage(demand) {
            Outage::Open if run < UNKNOWN_RUN_MAX => Verdict::Admitted(vec![
                ("code", "uncounted".to_owned()),
                ("cost", demand.cost.to_string()),
                // The back end is told who it is all the same: a header that is missing could be the caller's own.
                ("customer", subject.customer.id.to_string()),
                ("tier", subject.terms.tier.clone()),
                ("meter", demand.meter.clone()),
            ]),
            Outage::Open => Verdict::Denied(answer::unavailable(now)),
            Outage::Closed => {
                if is_unknown {
                    self.metrics.uncredited_total.fetch_add(1, Relaxed);
                }
                Verdict::Denied(answer::unavailable(now))
            }
        }
    }

    /// Sends the usage messages that are due. Called after the response has gone to the caller.
    pub async fn flush(&self, now: Timestamp, all: bool) {
        let messages = self.outbox().take(now, all);
        if messages.is_empty() {
            return;
        }
        let count = messages.len();
        let sent = self.deps.queue.send(messages).await;
        let failed = sent.as_ref().err().map_or(0, |(left, _)| left.len());
        self.metrics.usage_failed.fetch_add(failed as u64, Relaxed);
        self.metrics.usage_sent.fetch_add((count - failed) as u64, Relaxed);
        if let Err((left, cause)) = sent {
            // They are hints: the next flush tries again, and the scan finds what is never sent.
            tracing::warn!(cause, count = left.len(), "usage messages not sent");
            self.outbox().put_back(left, now);
        }
    }

    /// Reads the newest catalog while the environment starts, since the first request most likely wants it. What goes wrong
    /// is ignored: that request then finds it.
    pub async fn warm_up(&self) {
        let newest = async {
            match self.deps.accounts.newest_catalog().await? {
                0 => Ok(()),
                newest => self.catalog(newest).await.map(drop),
            }
        };
        let _ = within(READING_MAX, newest).await;
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reading, or that it took too long.
async fn within<T>(
    limit: Duration,
    reading: impl Future<Output = Result<T, farebox_aws::Error>>,
) -> Result<T, farebox_aws::Error> {
    tokio::time::timeout(limit, reading).await.unwrap_or_else(|_| {
        Err(farebox_aws::Error::Call {
            operation: "read".to_owned(),
            cause: format!("no answer within {} s", limit.as_secs()),
        })
    })
}
