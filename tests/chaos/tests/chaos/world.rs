//! A whole system in which every actor reaches tables, queues and Stripe through proxies of its own, and what happens in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use farebox_authorizer::{Authorizer, Deps as AuthorizerDeps};
use farebox_aws::{
    accounts::AccountTable,
    alerts::AlertQueue,
    connect::{Clients, Settings},
    control::{NewCustomer, NewKey},
    counters::CounterTable,
    ledger::LedgerTable,
    queue::UsageQueue,
};
use farebox_billing::{Books, Offer, Sale, When};
use farebox_consumer::{Consumer, Deps as ConsumerDeps};
use farebox_core::{
    account::Contact,
    id::CustomerId,
    key::{ApiKey, Mode},
    money::Money,
    tiers::{DEFAULT_METER, Interval, Overrides},
    time::{Cycle, Timestamp},
};
use farebox_local::{Options, System, VirtualClock};
use farebox_notifier::{AddressPolicy, Deps as NotifierDeps, Http, Notifier};
use farebox_stripe::{SigningSecret, sign};
use farebox_webhook::{Deps as WebhookDeps, FirstKeySecret, Webhook};
use http::Request;
use serde_json::{Value, json};

use crate::{
    proxy::{Between, Proxy},
    random::Random,
    shop::Bought,
    site::{Actor, SEND_ALERT, SEND_USAGE, Service},
    wire::Wire,
};

/// 2026-01-31T10:00:00Z: a month's end, so that periods clamp.
pub(crate) const START_S: u64 = 1_769_853_600;
/// The schedule's interval.
pub(crate) const TICK_S: u64 = 300;

/// `pro` bills what goes beyond, `wide` does on two counter items, `capped` lets nobody beyond.
pub(crate) const TIERS: &str = "
weights: {/v1/heavy: 3}
tiers:
  capped: {price: 0, included_calls: 9/month, rate_limit: unlimited, endpoints: [/v1/*], at_quota: block}
  pro: {price: 49/month, included_calls: 10/month, rate_limit: unlimited, endpoints: [/v1/*], overage: $0.10/call}
  wide: {price: 99/month, included_calls: 20/month, rate_limit: 100/min, endpoints: [/v1/*], overage: $0.05/call, shards: 2}";
/// The catalog after it: `pro` costs more, and `team` is new.
pub(crate) const NEXT_TIERS: &str = "
weights: {/v1/heavy: 3}
tiers:
  capped: {price: 0, included_calls: 9/month, rate_limit: unlimited, endpoints: [/v1/*], at_quota: block}
  pro: {price: 59/month, included_calls: 10/month, rate_limit: unlimited, endpoints: [/v1/*], overage: $0.20/call}
  wide: {price: 99/month, included_calls: 20/month, rate_limit: 100/min, endpoints: [/v1/*], overage: $0.05/call, shards: 2}
  team: {price: 199/month, included_calls: 5/month, rate_limit: unlimited, endpoints: [/v1/*], overage: $0.03/call}";
/// What `capped` includes.
pub(crate) const CAP: u64 = 9;
const SIGNING_SECRET: &str = "whsec_chaos";
/// How long calls to Stripe may take here.
const STRIPE_PATIENCE: Duration = Duration::from_secs(1);
/// A caller of AWS waits three seconds; after this it has given up.
const AWS_GIVEN_UP: Duration = Duration::from_millis(3_300);
const STRIPE_GIVEN_UP: Duration = Duration::from_millis(1_300);
/// How often the queue brings a message before it goes to the dead letters.
const RECEIVES_MAX: u32 = 5;
/// How often the operator tries a command, and how long it takes to try again.
const OPERATOR_TRIES: u32 = 20;
const OPERATOR_PAUSE_S: u64 = 120;

/// One thing that happens. A scenario is a list of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A customer buys a tier.
    Sell(&'static str, &'static str),
    /// A customer who is not in Stripe gets a tier: counted, and billed to nobody.
    Invite(&'static str, &'static str),
    /// Requests to `/v1/light` (one unit) or, every third, to `/v1/heavy` (three).
    Calls(&'static str, u64),
    /// The authorizers send what waits, and the consumer folds it.
    Fold,
    /// An authorizer environment ends without having sent anything, and a new one takes its place.
    Crash,
    /// The daily scan.
    Scan,
    /// Time passes, with the schedule, Stripe's events and alerts.
    Wait(u64),
    /// Time passes and the schedule does not run.
    Stall(u64),
    /// The operator changes a tier.
    Change(&'static str, &'static str, When),
    /// The operator gives units.
    Grant(&'static str, u64),
    /// The operator caps what usage may cost.
    Cap(&'static str, u64),
    /// The operator replaces the key.
    Rotate(&'static str),
    /// The operator brings a counter item back into service.
    Restore(&'static str),
    /// The operator ends a subscription.
    Cancel(&'static str, When),
    /// A customer buys a tier on a Checkout page.
    CheckOut(&'static str, &'static str),
    /// Who bought on a Checkout page comes to the page that shows the key.
    Visit(&'static str),
    /// The operator applies a catalog, and sells by it from then on.
    Apply(&'static str),
    /// Somebody deletes a customer at Stripe's dashboard.
    Delete(&'static str),
    /// Somebody renames a tier's product there.
    Rename(&'static str),
    /// A key is made that expires soon.
    ExpiringKey(&'static str),
    /// A service can't be reached, or can be again.
    Down(Service),
    /// A service can be reached again.
    Up(Service),
    /// How often the schedule runs from now on, seconds.
    TickEvery(u64),
}

/// What callers were told, in units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Let through, and counted for sure.
    pub(crate) ok: u64,
    /// Let through though nobody knows whether it was counted.
    pub(crate) ambiguous: u64,
    /// Let through and certainly not counted: the table was busy all the time.
    pub(crate) uncounted: u64,
    /// Turned away though it may have been counted.
    pub(crate) uncredited: u64,
    /// Counted a second time by a network that made two requests of one.
    pub(crate) doubled: u64,
    /// How many calls, not units, were answered without knowing whether they were counted.
    pub(crate) doubted: u64,
}

/// A message on its way from a queue to a function.
#[derive(Clone)]
struct Letter {
    id: String,
    body: String,
    receipt: String,
    receives: u32,
}

/// How far the clocks of those around it differ from Stripe's, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Skew {
    pub(crate) authorizer: i64,
    pub(crate) consumer: i64,
}

/// The system and everybody in it.
pub(crate) struct World {
    pub(crate) system: Arc<System>,
    pub(crate) wire: Wire,
    /// What each customer's callers were told.
    pub(crate) told: BTreeMap<&'static str, Told>,
    pub(crate) operator: Books,
    /// Everybody to whom something was sold or given.
    pub(crate) sold: BTreeSet<&'static str>,
    /// Who bought on Checkout pages.
    pub(crate) bought: BTreeMap<&'static str, Bought>,
    /// The version of the catalog that is sold.
    pub(crate) catalog: u64,
    /// The catalog that was applied last.
    pub(crate) applied: Option<&'static str>,
    pub(crate) webhook: Webhook,
    pub(crate) keys: BTreeMap<&'static str, String>,
    authorizers: Vec<Authorizer>,
    authorizer_deps: Box<dyn Fn() -> AuthorizerDeps + Send + Sync>,
    consumer: Consumer,
    notifier: Notifier,
    random: Random,
    turn: usize,
    tick_every: u64,
    cursor: usize,
    events: Vec<Value>,
    usage: Vec<Letter>,
    alerts: Vec<Letter>,
    authorizer_skew: i64,
    /// Writes of unknown outcome by environments that are gone.
    ambiguous_before: u64,
    proxies: BTreeMap<(Actor, Service), Proxy>,
}

impl World {
    /// A system at `start_s`, where the workload's details come from `seed`.
    pub(crate) async fn start(seed: u64, start_s: u64, skew: Skew) -> Self {
        let clock = VirtualClock::standing(Timestamp::from_s(start_s));
        Self::on(clock, seed, skew).await
    }

    /// A system on a clock.
    pub(crate) async fn on(clock: VirtualClock, seed: u64, skew: Skew) -> Self {
        let options = Options {
            tiers: TIERS.to_owned(),
            clock,
            ..Options::new()
        };
        let system = System::start(options).await.expect("the local system starts");
        let (wire, mut proxies) = (Wire::default(), BTreeMap::new());
        let mut reach = BTreeMap::new();
        for actor in Actor::ALL {
            let skew_ms = if actor == Actor::Consumer {
                skew.consumer * 1_000
            } else {
                0
            };
            let (books, settings) = through(&system, &wire, actor, skew_ms, &mut proxies).await;
            reach.insert(actor, (books, settings));
        }
        let books = |actor: Actor| reach[&actor].0.clone();
        let settings = |actor: Actor| reach[&actor].1.clone();
        let (accounts, counters) = (books(Actor::Authorizer).accounts, books(Actor::Authorizer).counters);
        let (clients, usage) = (
            Clients::new(&settings(Actor::Authorizer)),
            system.queues().usage.clone(),
        );
        let authorizer_deps = Box::new(move || AuthorizerDeps {
            accounts: accounts.clone(),
            counters: counters.clone(),
            queue: UsageQueue::new(clients.clone(), usage.clone()),
            forbidden_403: true,
            usage_identifier_key: None,
        });
        let webhook = Webhook::new(WebhookDeps {
            books: books(Actor::Webhook),
            secrets: vec![SigningSecret::new(SIGNING_SECRET).expect("a secret")],
            first_key: FirstKeySecret::new("0123456789abcdef0123456789abcdef").expect("a secret"),
            brand: "fb".to_owned(),
            mode: Mode::Test,
            portal_url: None,
            patience: farebox_webhook::PATIENCE,
        });
        let notifier = notifier(&system, &settings(Actor::Notifier));
        Self {
            wire,
            told: BTreeMap::new(),
            operator: books(Actor::Operator),
            sold: BTreeSet::new(),
            bought: BTreeMap::new(),
            catalog: system.catalog.0,
            applied: None,
            authorizers: (0..2).map(|_| Authorizer::new(authorizer_deps())).collect(),
            authorizer_deps,
            consumer: Consumer::new(ConsumerDeps {
                books: books(Actor::Consumer),
            }),
            webhook,
            notifier,
            keys: BTreeMap::new(),
            random: Random::of(seed, "workload"),
            turn: 0,
            tick_every: TICK_S,
            cursor: 0,
            events: Vec::new(),
            usage: Vec::new(),
            alerts: Vec::new(),
            authorizer_skew: skew.authorizer,
            ambiguous_before: 0,
            proxies,
            system,
        }
    }

    /// The time, by Stripe's clock.
    pub(crate) fn now_s(&self) -> u64 {
        self.system.clock().now().s()
    }

    /// Writes of unknown outcome, as the authorizers count them.
    pub(crate) fn ambiguous_total(&self) -> u64 {
        let of = |authorizer: &Authorizer| authorizer.metrics().ambiguous_total.load(Relaxed);
        self.ambiguous_before + self.authorizers.iter().map(of).sum::<u64>()
    }

    /// Callers who were told something else than that they are counted, or turned away for certain. There are none as long as
    /// nothing befalls the table.
    pub(crate) fn doubts(&self) -> Vec<String> {
        let is_certain = |told: &Told| {
            Told {
                ok: told.ok,
                ..Told::default()
            } == *told
        };
        let doubts = self.told.iter().filter(|&(_, told)| !is_certain(told));
        doubts
            .map(|(who, told)| format!("nothing befell the table, and {who}'s callers were told {told:?}"))
            .collect()
    }

    /// An authorizer as it must not be: its counting write goes out with the SDK's retries.
    pub(crate) fn careless(&self) -> Authorizer {
        let endpoint = |service| {
            Some(format!(
                "http://{}",
                self.proxies[&(Actor::Authorizer, service)].address
            ))
        };
        let clients = Clients::new(&Settings {
            dynamodb_endpoint: endpoint(Service::Table),
            sqs_endpoint: endpoint(Service::Queue),
            ..self.system.services.settings.clone()
        });
        let clients = Clients {
            dynamodb_once: clients.dynamodb.clone(),
            ..clients
        };
        Authorizer::new(AuthorizerDeps {
            counters: CounterTable::new(clients, self.system.tables().counters.clone()),
            ..(self.authorizer_deps)()
        })
    }

    /// The environment of an actor's function, with its own proxies for AWS and Stripe.
    pub(crate) fn environment(&self, actor: Actor) -> Vec<(&'static str, String)> {
        let mut environment = self.system.environment();
        for (name, service) in [
            ("AWS_ENDPOINT_URL_DYNAMODB", Service::Table),
            ("AWS_ENDPOINT_URL_SQS", Service::Queue),
            ("STRIPE_BASE_URL", Service::Stripe),
        ] {
            environment.retain(|(known, _)| *known != name);
            environment.push((name, format!("http://{}", self.proxies[&(actor, service)].address)));
        }
        environment
    }

    /// Everything that waits for the consumer, as the event that the queue brings it.
    pub(crate) async fn usage_event(&mut self) -> Value {
        self.send().await;
        records(&self.usage)
    }

    /// Does one thing after the other.
    pub(crate) async fn run(&mut self, steps: &[Step]) {
        for &step in steps {
            self.step(step).await;
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Sell(who, tier) => self.sell(who, tier).await,
            Step::Calls(who, n) => self.calls(who, n).await,
            Step::Fold => self.fold().await,
            Step::Visit(who) => self.visit(who).await,
            Step::Delete(who) => self.delete_in_stripe(who).await,
            Step::Rename(tier) => self.rename_in_stripe(tier).await,
            Step::Crash => self.crash(),
            Step::Scan => drop(self.consumer.handle(json!({ "task": "scan" })).await),
            Step::Wait(s) => self.pass(self.now_s() + s).await,
            Step::Stall(s) => self.set(self.now_s() + s),
            Step::Down(service) => self.wire.set_down(service, true),
            Step::Up(service) => self.wire.set_down(service, false),
            Step::TickEvery(s) => self.tick_every = s,
            other => self.operate(other).await,
        }
    }

    async fn sell(&mut self, who: &'static str, tier: &'static str) {
        let sale = || Sale {
            id: id(who),
            name: who.to_owned(),
            tier: tier.to_owned(),
            catalog: self.catalog,
            overrides: Overrides::default(),
            contact: Contact {
                email: Some(format!("billing@{who}.example")),
                ..Contact::default()
            },
            trial_days: None,
        };
        for _ in 0..OPERATOR_TRIES {
            // Whoever sells again after a failure may find that it was done.
            let done = match self.operator.sell(sale()).await {
                Ok(_) => Ok(()),
                Err(error) if error.to_string().contains("exists already") => Ok(()),
                Err(error) => Err(error.to_string()),
            };
            let issued = match done {
                Ok(()) => self.issue(who, None).await,
                Err(error) => Err(error),
            };
            if let Ok(key) = issued {
                self.keys.insert(who, key);
                self.sold.insert(who);
                return;
            }
            self.set(self.now_s() + OPERATOR_PAUSE_S);
        }
        panic!("{tier} can't be sold to {who}");
    }

    async fn issue(&self, who: &str, expires: Option<Timestamp>) -> Result<String, String> {
        let new = NewKey {
            brand: "fb".to_owned(),
            mode: Mode::Test,
            name: "key".to_owned(),
            scopes: Vec::new(),
            expires,
        };
        let issued = self
            .operator
            .control()
            .issue_key(&id(who), new, self.operator.now())
            .await;
        issued
            .map(|issued| issued.key.reveal().to_owned())
            .map_err(|e| e.to_string())
    }

    /// What the operator does on the command line: a command that fails is given again.
    async fn operate(&mut self, step: Step) {
        let mut last = String::new();
        // The same grant, however often it is given.
        let grant = format!("grant-{}", self.now_s());
        for _ in 0..OPERATOR_TRIES {
            match self.command(step, &grant).await {
                Ok(()) => return,
                Err(error) => last = error,
            }
            self.pass(self.now_s() + OPERATOR_PAUSE_S).await;
        }
        panic!("{step:?} never succeeds: {last}");
    }

    async fn command(&mut self, step: Step, grant: &str) -> Result<(), String> {
        let (books, now) = (self.operator.clone(), self.operator.now());
        let text = |e: farebox_billing::Error| e.to_string();
        match step {
            Step::Change(who, tier, when) => {
                let offer = Offer {
                    tier: tier.to_owned(),
                    catalog: self.catalog,
                    overrides: Overrides::default(),
                    when,
                };
                books.change_tier(&id(who), offer).await.map(drop).map_err(text)
            }
            Step::Grant(who, units) => {
                let given = books.grant(&id(who), DEFAULT_METER, units, grant).await;
                given.map(drop).map_err(text)
            }
            Step::Cap(who, dollars) => {
                let cap = Some(Money(dollars * 100));
                books.cap(&id(who), DEFAULT_METER, cap).await.map(drop).map_err(text)
            }
            Step::Rotate(who) => {
                let old = ApiKey::parse(&self.keys[who]).expect("a good key").hash();
                let new = books
                    .control()
                    .rotate_key(old, "fb", 60, now)
                    .await
                    .map_err(|e| e.to_string())?;
                self.keys.insert(who, new.key.reveal().to_owned());
                Ok(())
            }
            Step::Restore(who) => {
                let restored = books.control().restore_counter(&id(who), 0, now).await;
                restored.map(drop).map_err(|e| e.to_string())
            }
            Step::Invite(who, tier) => {
                let new = NewCustomer {
                    id: id(who),
                    name: who.to_owned(),
                    tier: tier.to_owned(),
                    catalog: self.catalog,
                    overrides: Overrides::default(),
                    cycle: Cycle::starting_at(now.s(), Interval::Month),
                    contact: Contact::default(),
                    stripe_customer: None,
                    stripe_subscription: None,
                };
                match books.control().add_customer(new, now).await {
                    Err(error) if !error.to_string().contains("exists already") => return Err(error.to_string()),
                    _ => {}
                }
                let key = self.issue(who, None).await?;
                self.keys.insert(who, key);
                self.sold.insert(who);
                Ok(())
            }
            Step::CheckOut(who, tier) => {
                let name = format!("shop-{who}-{}", self.now_s());
                self.check_out(who, tier, &name).await
            }
            Step::Apply(tiers) => self.apply(tiers).await,
            Step::Cancel(who, when) => books.cancel(&id(who), when).await.map(drop).map_err(text),
            Step::ExpiringKey(who) => {
                let expires = Some(now.plus_ms(86_400_000));
                self.issue(who, expires).await.map(drop)
            }
            other => panic!("{other:?} is no command"),
        }
    }

    async fn calls(&mut self, who: &'static str, n: u64) {
        for i in 0..n {
            let (path, units) = if i % 3 == 2 { ("/v1/heavy", 3) } else { ("/v1/light", 1) };
            self.turn += 1;
            let pause_ms = 1 + self.random.below(1_500);
            self.set_ms(self.system.clock().now().ms() + pause_ms);
            let authorizer = &self.authorizers[self.turn % self.authorizers.len()];
            let now = skewed(self.system.clock().now(), self.authorizer_skew * 1_000);
            let (ambiguous, doubled) = (authorizer.metrics().ambiguous_total.load(Relaxed), self.wire.doubled());
            self.wire.begins();
            let event = farebox_tests::event(&self.keys[who], path);
            let answer = authorizer.handle(&event, now).await;
            let is_ambiguous = authorizer.metrics().ambiguous_total.load(Relaxed) > ambiguous;
            let answer = answer.map(|answer| serde_json::to_value(answer).expect("an answer is JSON"));
            let answer = answer.unwrap_or_default();
            let is_let_through = answer["policyDocument"]["Statement"][0]["Effect"] == "Allow"
                && answer.get("usageIdentifierKey").is_none();
            let told = self.told.entry(who).or_default();
            told.doubled += units * (self.wire.doubled() - doubled);
            let is_counted = is_let_through && answer["context"]["code"] != "uncounted";
            told.doubted += u64::from(is_ambiguous && !is_counted);
            *match (is_let_through, !is_counted, is_ambiguous) {
                (true, false, _) => &mut told.ok,
                (true, true, true) => &mut told.ambiguous,
                (true, true, false) => &mut told.uncounted,
                (false, _, true) => &mut told.uncredited,
                (false, ..) => continue,
            } += units;
            // What is due leaves after the answer; a part waits for the next second.
            authorizer.flush(now, false).await;
        }
    }

    fn crash(&mut self) {
        let at = self.turn % self.authorizers.len();
        self.ambiguous_before += self.authorizers[at].metrics().ambiguous_total.load(Relaxed);
        self.authorizers[at] = Authorizer::new((self.authorizer_deps)());
    }

    /// The authorizers send what waits; the queue brings it in another order, some of it twice, some never.
    async fn send(&mut self) {
        for authorizer in &self.authorizers {
            authorizer
                .flush(skewed(self.system.clock().now(), self.authorizer_skew * 1_000), true)
                .await;
        }
        let received = self.receive(SEND_USAGE, &self.system.queues().usage).await;
        for letter in received {
            match self.random.below(20) {
                0 => {} // lost: the scan finds what it said
                1 => {
                    let id = format!("{}-again", letter.id);
                    self.usage.push(Letter { id, ..letter.clone() });
                    self.usage.push(letter);
                }
                2 => self.usage.insert(0, letter),
                _ => self.usage.push(letter),
            }
        }
    }

    /// The queue brings to the consumer what was sent.
    async fn fold(&mut self) {
        self.send().await;
        let letters = std::mem::take(&mut self.usage);
        for batch in batches(letters) {
            let answer = self.consumer.handle(records(&batch)).await;
            self.usage.extend(failed(batch, answer.ok()));
        }
    }

    /// The queue brings alerts to the notifier.
    async fn notify(&mut self) {
        let received = self.receive(SEND_ALERT, &self.system.queues().alerts).await;
        self.alerts.extend(received);
        let letters = std::mem::take(&mut self.alerts);
        for batch in batches(letters) {
            let answer = self.notifier.handle(records(&batch)).await;
            self.alerts.extend(failed(batch, answer.ok()));
        }
    }

    /// Takes every message out of a queue, as an event source mapping does; the mapping itself meets no faults. Nobody asks for
    /// what was never sent.
    async fn receive(&self, sending: &'static str, queue: &str) -> Vec<Letter> {
        if !self.wire.take_sent(sending) {
            return Vec::new();
        }
        let messages = self.system.drain(queue).await.expect("the queue answers");
        let letter = |message: aws_sdk_sqs::types::Message| Letter {
            id: message.message_id.unwrap_or_default(),
            body: message.body.unwrap_or_default(),
            receipt: message.receipt_handle.unwrap_or_default(),
            receives: 1,
        };
        messages.into_iter().map(letter).collect()
    }

    /// Stripe delivers its events, each until it is taken.
    async fn deliver_events(&mut self) {
        loop {
            let page = self.system.services.stand_in.events_after(self.cursor);
            self.cursor = page.cursor;
            self.events.extend(page.events);
            let before = self.events.len();
            for event in std::mem::take(&mut self.events) {
                if !self.deliver(&event).await {
                    self.events.push(event);
                }
            }
            // What is taken can cause more; what is not taken comes again later.
            if self.events.len() == before {
                return;
            }
        }
    }

    async fn deliver(&self, event: &Value) -> bool {
        let (body, now) = (event.to_string(), self.system.clock().now());
        let secret = SigningSecret::new(SIGNING_SECRET).expect("a secret");
        let request = Request::post("/stripe/webhook")
            .header("stripe-signature", sign(body.as_bytes(), &secret, now.s()))
            .body(Bytes::from(body))
            .expect("a request");
        self.webhook.handle(request, now).await.status().is_success()
    }

    /// Time passes up to a second, and everything that becomes due on the way happens.
    pub(crate) async fn pass(&mut self, until_s: u64) {
        self.fold().await;
        let mut last = 0;
        while let Some(due) = self
            .system
            .books
            .ledger
            .next_due()
            .await
            .expect("the ledger is readable")
        {
            let every = self.tick_every;
            let tick = (due.max(self.now_s()).div_ceil(every) * every).max(last + every);
            if tick > until_s {
                break;
            }
            last = tick;
            self.set(tick);
            self.work().await;
        }
        self.set(until_s);
        self.settle_stripe().await;
    }

    /// What the schedule does.
    async fn work(&mut self) {
        self.settle_stripe().await;
        // A schedule whose function fails comes again.
        drop(self.consumer.handle(json!({ "task": "tick" })).await);
        self.notify().await;
    }

    async fn settle_stripe(&mut self) {
        self.system.services.stand_in.settle();
        self.deliver_events().await;
        self.notify().await;
    }

    /// Moves the clock, and nothing happens.
    pub(crate) fn set(&self, s: u64) {
        self.set_ms(s * 1_000);
    }

    fn set_ms(&self, ms: u64) {
        self.system.clock().set(Timestamp::from_ms(ms));
    }

    /// The fault is over: time passes until nothing is left to do, and what was lost is found.
    pub(crate) async fn settle(&mut self) {
        self.wire.plan(None);
        for service in Service::ALL {
            self.wire.set_down(service, false);
        }
        self.wire.is_quiet().await;
        self.tick_every = TICK_S;
        self.pass(self.now_s() + 2 * 3_600).await;
        self.step(Step::Scan).await;
        for _ in 0..6 {
            self.pass(self.now_s() + 2_400).await;
            let next = self.system.books.ledger.next_due().await;
            if next.expect("the ledger is readable").is_none() && self.events.is_empty() && self.alerts.is_empty() {
                break;
            }
        }
        self.wire.is_quiet().await;
    }
}

/// A customer's id.
pub(crate) fn id(who: &str) -> CustomerId {
    who.to_owned().try_into().expect("an id")
}

fn skewed(now: Timestamp, ms: i64) -> Timestamp {
    Timestamp::from_ms(now.ms().saturating_add_signed(ms))
}

/// The books of an actor, with every call through a proxy.
async fn through(
    system: &Arc<System>,
    wire: &Wire,
    actor: Actor,
    skew_ms: i64,
    proxies: &mut BTreeMap<(Actor, Service), Proxy>,
) -> (Books, Settings) {
    let mut addresses = BTreeMap::new();
    for (service, upstream) in Service::ALL.into_iter().zip(system.services.addresses) {
        let proxy = Proxy::start(Between {
            actor,
            service,
            upstream,
            stripe: system.services.stand_in.clone(),
            patience: if service == Service::Stripe {
                STRIPE_GIVEN_UP
            } else {
                AWS_GIVEN_UP
            },
            wire: wire.clone(),
        });
        let proxy = proxy.await;
        addresses.insert(service, format!("http://{}", proxy.address));
        proxies.insert((actor, service), proxy);
    }
    let settings = Settings {
        dynamodb_endpoint: Some(addresses[&Service::Table].clone()),
        sqs_endpoint: Some(addresses[&Service::Queue].clone()),
        ..system.services.settings.clone()
    };
    let clients = Clients::new(&settings);
    let secret_key = farebox_stripe::SecretKey::new("sk_test_local").expect("a key");
    let mut stripe = farebox_stripe::Config::new(secret_key);
    stripe.base_url = addresses[&Service::Stripe].clone();
    stripe.call_timeout = STRIPE_PATIENCE;
    let (tables, queues) = (system.tables(), system.queues());
    let clock = system.clock().clone();
    let books = Books {
        accounts: AccountTable::new(clients.clone(), tables.accounts.clone()),
        counters: CounterTable::new(clients.clone(), tables.counters.clone()),
        ledger: LedgerTable::new(clients.clone(), tables.ledger.clone()),
        alerts: AlertQueue::new(clients, queues.alerts.clone()),
        stripe: farebox_stripe::Client::new(stripe).expect("a client"),
        clock: Arc::new(move || skewed(clock.now(), skew_ms)),
    };
    (books, settings)
}

fn notifier(system: &System, settings: &Settings) -> Notifier {
    let outbox = format!("http://{}", system.services.outbox_address);
    let config = farebox_notifier::Config {
        accounts_table: system.tables().accounts.clone(),
        alert_queue_url: system.queues().alerts.clone(),
        alert_topic_arn: Some("arn:aws:sns:us-east-1:000000000000:farebox-operator".to_owned()),
        mail_from: Some("Farebox <billing@farebox.example>".to_owned()),
        ses_endpoint: Some(outbox.clone()),
        sns_endpoint: Some(outbox),
        ..farebox_notifier::Config::default()
    };
    let clock = system.clock().clone();
    let deps = NotifierDeps {
        http: Http::new(AddressPolicy::LoopbackToo),
        ..NotifierDeps::connect(config, settings, Arc::new(move || clock.now()))
    };
    Notifier::new(deps).expect("the templates are good")
}

fn batches(letters: Vec<Letter>) -> Vec<Vec<Letter>> {
    let mut batches: Vec<Vec<Letter>> = Vec::new();
    for letter in letters {
        match batches.last_mut() {
            Some(batch) if batch.len() < 10 => batch.push(letter),
            _ => batches.push(vec![letter]),
        }
    }
    batches
}

/// The event of <https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html>.
fn records(letters: &[Letter]) -> Value {
    let record = |letter: &Letter| {
        json!({
            "messageId": letter.id, "receiptHandle": letter.receipt, "body": letter.body,
            "attributes": { "ApproximateReceiveCount": letter.receives.to_string() },
        })
    };
    json!({ "Records": letters.iter().map(record).collect::<Vec<Value>>() })
}

/// Those of a batch that come again: what the function says has failed, or all if it failed itself.
fn failed(batch: Vec<Letter>, answer: Option<Value>) -> Vec<Letter> {
    let failures = answer.map(|answer| answer["batchItemFailures"].as_array().cloned().unwrap_or_default());
    let has_failed = |letter: &Letter| match &failures {
        None => true,
        Some(failures) => failures
            .iter()
            .any(|failure| failure["itemIdentifier"] == letter.id.as_str()),
    };
    let again = batch.into_iter().filter(has_failed).map(|letter| Letter {
        receives: letter.receives + 1,
        ..letter
    });
    again.filter(|letter| letter.receives <= RECEIVES_MAX).collect()
}
