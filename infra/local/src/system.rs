//! The running system: the functions wired to the embedded services, and the schedules on a virtual clock.

use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use aws_sdk_sqs::types::Message;
use farebox_authorizer::{Authorizer, Deps as AuthorizerDeps};
use farebox_aws::{
    accounts::AccountTable,
    alerts::AlertQueue,
    connect::Clients,
    control::Control,
    counters::{self, CounterTable},
    ledger::LedgerTable,
    queue::UsageQueue,
    schema::{self, Queues, Tables},
};
use farebox_billing::Books;
use farebox_consumer::{Consumer, Deps as ConsumerDeps};
use farebox_core::{
    id::CustomerId,
    money::Money,
    tiers::{BasePrice, Catalog, Interval, Limit, Overrides},
    time::Timestamp,
};
use farebox_notifier::{AddressPolicy, Deps as NotifierDeps, Http, Notifier};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{Error, Gateway, Services, Sold, VirtualClock, Webhooks, sell};

/// The tiers of `farebox dev`.
pub const DEV_TIERS: &str = include_str!("../tiers.yaml");
/// The schedule's interval.
const TICK_S: u64 = 300;
/// The interval of the scan.
const DAY_S: u64 = 86_400;
/// What the operator is told through; the outbox takes it.
pub(crate) const OPERATOR_TOPIC: &str = "arn:aws:sns:us-east-1:000000000000:farebox-operator";
/// Who mails come from.
pub(crate) const MAIL_FROM: &str = "billing@farebox.example";

/// How to start the local system.
pub struct Options {
    /// Where everything is kept over restarts; `None` is memory.
    pub data: Option<PathBuf>,
    /// The text of `tiers.yaml`.
    pub tiers: String,
    /// Whether the newest catalog in the table stays, if there is one: then `tiers` is only for the first start.
    pub keeps_catalog: bool,
    /// The clock.
    pub clock: VirtualClock,
    /// How many authorizer environments serve in turn.
    pub environments: usize,
    /// Where the gateway's error page is found.
    pub docs_url: String,
}

impl Options {
    /// The development tiers on the machine's clock, in memory, with one environment.
    #[must_use]
    pub fn new() -> Self {
        Self {
            data: None,
            tiers: DEV_TIERS.to_owned(),
            keeps_catalog: false,
            clock: VirtualClock::running(0),
            environments: 1,
            docs_url: "http://127.0.0.1:8787/_farebox/errors".to_owned(),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// The whole system in this process.
pub struct System {
    /// The embedded services.
    pub services: Services,
    /// The tables, Stripe and the time.
    pub books: Books,
    /// The control plane.
    pub control: Control,
    /// The consumer.
    pub consumer: Consumer,
    /// The notifier.
    pub notifier: Notifier,
    /// The webhook, with Stripe's deliveries to it.
    pub webhooks: Webhooks,
    /// The gateway.
    pub gateway: Gateway,
    /// The catalog, and its version in the table.
    pub catalog: (u64, Catalog),
    /// What the start changed of the catalog that was there, one sentence each.
    pub catalog_changes: Vec<String>,
    queues: Queues,
    tables: Tables,
    clock: VirtualClock,
    data: Option<PathBuf>,
    /// Keeps other processes off the data; the operating system lets go of it even if this one is killed.
    _lock: Option<File>,
    /// The day of the last scan, counted from 1970.
    scanned_on: AtomicU64,
    /// One at a time moves the clock.
    schedule: Mutex<()>,
}

impl System {
    /// Starts everything and loads the tiers.
    ///
    /// # Errors
    /// [`Error`]; errors in `tiers.yaml` are all named at once.
    pub async fn start(options: Options) -> Result<Arc<Self>, Error> {
        let catalog = Catalog::from_yaml(&options.tiers, "tiers.yaml").map_err(Error::refused)?;
        let Options { data, clock, .. } = options;
        let mut lock = None;
        if let Some(directory) = &data {
            std::fs::create_dir_all(directory).map_err(Error::io(format!("make {}", directory.display())))?;
            lock = Some(locked(directory)?);
            clock.set(clock.now().plus_ms(read_ahead(directory)?));
        }
        let services = Services::start(data.as_deref(), &clock).await?;
        let tables = Tables::default();
        let queues = schema::create(&services.clients, &tables).await?;
        let parts = Parts::new(&services.clients, &tables);
        let (version, catalog, catalog_changes) = sold(&parts.accounts, catalog, options.keeps_catalog).await?;
        let authorizers = (0..options.environments.max(1))
            .map(|_| {
                Arc::new(Authorizer::new(AuthorizerDeps {
                    accounts: parts.accounts.clone(),
                    counters: parts.counters.clone(),
                    queue: UsageQueue::new(services.clients.clone(), queues.usage.clone()),
                    forbidden_403: true,
                    usage_identifier_key: None,
                }))
            })
            .collect();
        let gateway = Gateway::new(authorizers, clock.clone(), options.docs_url)?;
        let time = clock.clone();
        let books = Books {
            accounts: parts.accounts.clone(),
            counters: parts.counters.clone(),
            ledger: parts.ledger.clone(),
            alerts: AlertQueue::new(services.clients.clone(), queues.alerts.clone()),
            stripe: services.stripe.clone(),
            clock: Arc::new(move || time.now()),
        };
        let consumer = Consumer::new(ConsumerDeps { books: books.clone() });
        let notifier = Notifier::new(notifier_deps(&services, &tables, &queues, &clock))?;
        let webhooks = Webhooks::new(books.clone(), data.as_ref().map(|directory| directory.join("events")))?;
        let control = books.control();
        let system = Self {
            services,
            books,
            control,
            consumer,
            notifier,
            webhooks,
            gateway,
            catalog: (version, catalog),
            catalog_changes,
            queues,
            tables,
            clock,
            data,
            _lock: lock,
            scanned_on: AtomicU64::new(0),
            schedule: Mutex::new(()),
        };
        system.scanned_on.store(system.clock.now().s() / DAY_S, Relaxed);
        // The queue is a hint and lost with the process: what it held is found in the counters.
        system.consumer.scan().await?;
        Ok(Arc::new(system))
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &VirtualClock {
        &self.clock
    }

    /// The names of the tables.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The URLs of the queues.
    #[must_use]
    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    /// Sells a tier to a new customer.
    ///
    /// # Errors
    /// As [`sell`].
    pub async fn sell(&self, id: &str, tier: &str, overrides: Overrides) -> Result<Sold, Error> {
        let id = CustomerId::try_from(id.to_owned()).map_err(Error::refused)?;
        sell(&self.books, self.catalog.0, &id, tier, overrides).await
    }

    /// One ready key per tier, the same ones after a restart with data.
    ///
    /// # Errors
    /// [`Error`] if one can't be sold.
    pub async fn ready_keys(&self) -> Result<Vec<(String, String)>, Error> {
        let file = self.data.as_ref().map(|directory| directory.join("keys.json"));
        let mut known: BTreeMap<String, String> = match file.as_deref().map(std::fs::read_to_string) {
            Some(Ok(text)) => serde_json::from_str(&text).map_err(Error::refused)?,
            _ => BTreeMap::new(),
        };
        let mut keys = Vec::new();
        for tier in &self.catalog.1.tiers {
            let key = match known.get(&tier.name) {
                Some(key) => key.clone(),
                None => {
                    let is_complete = self.catalog.1.terms(&tier.name, &Overrides::default()).is_ok();
                    let overrides = if is_complete { Overrides::default() } else { agreed() };
                    let key = self
                        .sell(&format!("{}-customer", tier.name), &tier.name, overrides)
                        .await?
                        .key;
                    known.insert(tier.name.clone(), key.clone());
                    if let Some(file) = &file {
                        let text = serde_json::to_string_pretty(&known).map_err(Error::refused)?;
                        write_whole(file, &text)?;
                    }
                    key
                }
            };
            keys.push((tier.name.clone(), key));
        }
        Ok(keys)
    }

    /// Hands every waiting usage message to the consumer, as the event source mapping does. What it reports as failed stays
    /// in the queue, and ends in the dead-letter queue.
    ///
    /// # Errors
    /// [`Error`] if the queue can't be reached.
    pub async fn pump(&self) -> Result<usize, Error> {
        self.hand_over(&self.queues.usage, To::Consumer).await
    }

    /// Hands every waiting alert to the notifier, in the same way.
    ///
    /// # Errors
    /// [`Error`] if the queue can't be reached.
    pub async fn deliver_alerts(&self) -> Result<usize, Error> {
        self.hand_over(&self.queues.alerts, To::Notifier).await
    }

    /// Everything that waits in a queue, ten at a time, as events of <https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html>.
    async fn hand_over(&self, queue: &str, to: To) -> Result<usize, Error> {
        use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry as Delete, MessageSystemAttributeName as Name};
        let sqs = &self.services.clients.sqs;
        let mut done = 0;
        loop {
            let received = sqs
                .receive_message()
                .queue_url(queue)
                .max_number_of_messages(10)
                .message_system_attribute_names(Name::ApproximateReceiveCount)
                .send()
                .await;
            let messages = received
                .map_err(|e| Error::refused(format!("receive: {e:?}")))?
                .messages
                .unwrap_or_default();
            if messages.is_empty() {
                return Ok(done);
            }
            let record = |message: &Message| {
                let receives = message
                    .attributes()
                    .and_then(|all| all.get(&Name::ApproximateReceiveCount));
                json!({
                    "messageId": message.message_id(), "receiptHandle": message.receipt_handle(), "body": message.body(),
                    "attributes": { "ApproximateReceiveCount": receives },
                })
            };
            let event = json!({ "Records": messages.iter().map(record).collect::<Vec<Value>>() });
            let answer = match to {
                To::Consumer => self.consumer.handle(event).await?,
                To::Notifier => self.notifier.handle(event).await?,
            };
            let failures = answer["batchItemFailures"].as_array().cloned().unwrap_or_default();
            let has_failed = |id: &str| failures.iter().any(|failure| failure["itemIdentifier"] == id);
            let taken = messages
                .iter()
                .enumerate()
                .filter(|(_, message)| !has_failed(message.message_id().unwrap_or_default()));
            let entries: Result<Vec<Delete>, _> = taken
                .map(|(i, message)| {
                    Delete::builder()
                        .id(i.to_string())
                        .receipt_handle(message.receipt_handle().unwrap_or_default())
                        .build()
                })
                .collect();
            let entries = entries.map_err(Error::refused)?;
            done += entries.len();
            if !entries.is_empty() {
                let deleted = sqs
                    .delete_message_batch()
                    .queue_url(queue)
                    .set_entries(Some(entries))
                    .send()
                    .await;
                deleted.map_err(|e| Error::refused(format!("delete: {e:?}")))?;
            }
        }
    }

    /// Takes everything that waits out of a queue, and hands it to nobody.
    ///
    /// # Errors
    /// [`Error`] if the queue can't be reached.
    pub async fn drain(&self, queue: &str) -> Result<Vec<Message>, Error> {
        let sqs = &self.services.clients.sqs;
        let mut drained = Vec::new();
        loop {
            let received = sqs.receive_message().queue_url(queue).max_number_of_messages(10);
            let received = received
                .send()
                .await
                .map_err(|e| Error::refused(format!("receive: {e:?}")))?;
            let messages = received.messages.unwrap_or_default();
            if messages.is_empty() {
                return Ok(drained);
            }
            for message in &messages {
                let receipt = message.receipt_handle().unwrap_or_default();
                let delete = sqs.delete_message().queue_url(queue).receipt_handle(receipt);
                delete
                    .send()
                    .await
                    .map_err(|e| Error::refused(format!("delete: {e:?}")))?;
            }
            drained.extend(messages);
        }
    }

    /// Delivers what Stripe has to tell. Returns how many events were taken.
    ///
    /// # Errors
    /// [`Error::Io`] if the place can't be kept.
    pub async fn deliver_events(&self) -> Result<u64, Error> {
        self.webhooks.deliver(&self.services.stand_in, self.clock.now()).await
    }

    /// Moves the clock to a time and runs what becomes due on the way, in order: the five-minute schedule wherever it finds
    /// work, Stripe's period ends with their webhooks, alerts; and at the end the daily scan, if a day has passed. Returns how often the schedule found work.
    ///
    /// # Errors
    /// [`Error`] at the first step that fails; the clock then stands there.
    pub async fn run_until(&self, target: Timestamp) -> Result<u64, Error> {
        let _one_at_a_time = self.schedule.lock().await;
        let (mut ticks, mut last) = (0, 0);
        self.send_usage().await?;
        while let Some(due) = self.control.ledger.next_due().await? {
            let now = self.clock.now().s();
            // A row that fails at one tick is tried at the next one, as the schedule would.
            let tick = (due.max(now).div_ceil(TICK_S) * TICK_S).max(last + TICK_S);
            if tick > target.s() {
                break;
            }
            last = tick;
            self.clock.set(Timestamp::from_s(tick));
            self.services.stand_in.settle();
            self.deliver_events().await?;
            self.consumer.tick().await?;
            self.deliver_alerts().await?;
            ticks += 1;
        }
        self.clock.set(target);
        self.services.stand_in.settle();
        self.deliver_events().await?;
        let today = self.clock.now().s() / DAY_S;
        if self.scanned_on.swap(today, Relaxed) < today {
            self.consumer.scan().await?;
        }
        self.deliver_alerts().await?;
        self.keep_clock()?;
        Ok(ticks)
    }

    /// Sends what waits in the authorizers and folds it.
    ///
    /// # Errors
    /// As [`System::pump`].
    pub async fn send_usage(&self) -> Result<(), Error> {
        for authorizer in self.gateway.authorizers() {
            authorizer.flush(self.clock.now(), true).await;
        }
        self.pump().await?;
        Ok(())
    }

    fn keep_clock(&self) -> Result<(), Error> {
        match &self.data {
            None => Ok(()),
            Some(directory) => write_whole(&directory.join("clock"), &self.clock.ahead_ms().to_string()),
        }
    }

    /// Customers, counters, ledger rows, alerts and Stripe's totals.
    ///
    /// # Errors
    /// [`Error`] if a table can't be read.
    pub async fn state(&self) -> Result<Value, Error> {
        let mut customers = Vec::new();
        for customer in self.control.accounts.customers().await? {
            let shards = self.control.shards(&customer).await?;
            let mut items = Vec::new();
            for shard in 0..shards {
                if let Some(item) = self.control.counters.read(&counters::key(&customer.id, shard)).await? {
                    items.push(json!({
                        "shard": shard, "generation": item.generation, "auth_epoch": item.auth_epoch,
                        "sealed": item.sealed, "units": item.units,
                    }));
                }
            }
            let mut record = serde_json::to_value(&customer).map_err(Error::refused)?;
            record["contact"]["webhook_secrets"] = json!(customer.contact.webhook_secrets.len());
            record["counters"] = Value::Array(items);
            customers.push(record);
        }
        let (rows, alerts) = self.control.ledger.scan().await?;
        let mut rows: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({
                    "customer": row.key.customer, "shard": row.key.shard, "generation": row.key.generation,
                    "meter": row.key.meter, "bucket": row.key.bucket, "state": row.state.as_str(), "units": row.units,
                    "credit": row.credit, "due": row.due, "outcome": row.outcome,
                })
            })
            .collect();
        rows.sort_by_key(|row| (row["customer"].to_string(), row["bucket"].as_u64()));
        Ok(json!({
            "now": self.clock.now().s(),
            "customers": customers,
            "ledger": rows,
            "alerts": alerts,
            "outbox": self.services.outbox.entries().len(),
            "stripe": self.services.stand_in.snapshot(),
        }))
    }
}

/// What `farebox dev` agrees with the customer of a tier that leaves things `custom`.
fn agreed() -> Overrides {
    Overrides {
        price: Some(BasePrice {
            amount: Money(99_900),
            interval: Interval::Month,
        }),
        included: Some(BTreeMap::from([(
            farebox_core::tiers::DEFAULT_METER.to_owned(),
            Some(1_000_000),
        )])),
        limits: Some(vec![Limit {
            units: 10_000,
            window_ms: 60_000,
        }]),
        ..Overrides::default()
    }
}

/// The function that a queue feeds.
#[derive(Clone, Copy)]
enum To {
    Consumer,
    Notifier,
}

/// The notifier with the outbox in place of SES, SNS and whatever customers call theirs.
fn notifier_deps(services: &Services, tables: &Tables, queues: &Queues, clock: &VirtualClock) -> NotifierDeps {
    let outbox = format!("http://{}", services.outbox_address);
    let config = farebox_notifier::Config {
        accounts_table: tables.accounts.clone(),
        alert_queue_url: queues.alerts.clone(),
        alert_topic_arn: Some(OPERATOR_TOPIC.to_owned()),
        mail_from: Some(format!("Farebox <{MAIL_FROM}>")),
        ses_endpoint: Some(outbox.clone()),
        sns_endpoint: Some(outbox),
        ..farebox_notifier::Config::default()
    };
    let time = clock.clone();
    NotifierDeps {
        http: Http::new(AddressPolicy::LoopbackToo),
        ..NotifierDeps::connect(config, &services.settings, Arc::new(move || time.now()))
    }
}

struct Parts {
    accounts: AccountTable,
    counters: CounterTable,
    ledger: LedgerTable,
}

impl Parts {
    fn new(clients: &Clients, tables: &Tables) -> Self {
        Self {
            accounts: AccountTable::new(clients.clone(), tables.accounts.clone()),
            counters: CounterTable::new(clients.clone(), tables.counters.clone()),
            ledger: LedgerTable::new(clients.clone(), tables.ledger.clone()),
        }
    }
}

/// The catalog that is sold from this start on, and what that changed: the newest in the table if it is to stay, else the one
/// that was given.
async fn sold(
    accounts: &AccountTable,
    given: Catalog,
    keeps_newest: bool,
) -> Result<(u64, Catalog, Vec<String>), Error> {
    let newest = accounts.newest_catalog().await?;
    let before = match newest {
        0 => None,
        version => accounts.catalog(version).await?,
    };
    match before {
        Some(before) if keeps_newest => Ok((newest, before, Vec::new())),
        before => {
            let version = accounts.put_catalog(&given).await?;
            let changes = before.map(|before| before.diff(&given)).unwrap_or_default();
            let sentences = changes.into_iter().flat_map(|change| change.sentences).collect();
            Ok((version, given, sentences))
        }
    }
}

/// Locks a data directory for as long as the file is open.
fn locked(directory: &Path) -> Result<File, Error> {
    let path = directory.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(Error::io(format!("open {}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Refused(format!(
            "{} is in use by another farebox: stop that one first, or give another directory",
            directory.display()
        ))),
        Err(TryLockError::Error(cause)) => Err(Error::io(format!("lock {}", path.display()))(cause)),
    }
}

/// How far ahead the clock of a data directory was, in milliseconds.
fn read_ahead(directory: &Path) -> Result<u64, Error> {
    let file = directory.join("clock");
    match std::fs::read_to_string(&file) {
        Ok(text) => text
            .trim()
            .parse()
            .map_err(|e| Error::refused(format!("{}: {e}", file.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(Error::io(format!("read {}", file.display()))(e)),
    }
}

/// Writes a file so that a kill leaves the old one or the new one.
pub(crate) fn write_whole(file: &Path, text: &str) -> Result<(), Error> {
    let new = file.with_extension("new");
    std::fs::write(&new, text).map_err(Error::io(format!("write {}", new.display())))?;
    std::fs::rename(&new, file).map_err(Error::io(format!("write {}", file.display())))
}
