//! The system as it runs: every actor with clients of its own, over one wire.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use farebox_authorizer::{Authorizer, Deps as AuthorizerDeps};
use farebox_aws::{
    accounts::AccountTable,
    alerts::AlertQueue,
    connect::{Clients, Settings},
    counters::CounterTable,
    ledger::LedgerTable,
    queue::UsageQueue,
    random::Random,
    schema::{self, Queues, Tables},
};
use farebox_billing::Books;
use farebox_consumer::{Consumer, Deps as ConsumerDeps};
use farebox_core::key::Mode;
use farebox_stripe::{Config, SecretKey, SigningSecret};
use farebox_stripe_standin::{Options, StandIn};
use farebox_webhook::{Deps as WebhookDeps, FirstKeySecret, Webhook};
use fastrand::Rng;

use crate::{
    sabotage::Sabotage,
    scenario::Scenario,
    trace::Trace,
    wire::{Actor, Time, Wire},
};

const STRIPE_KEY: &str = "sk_test_simulation";
const SIGNING_SECRET: &str = "whsec_simulation";
const FIRST_KEY_SECRET: &str = "first-keys-of-the-simulation-only";

/// The SDK shares its budget for retries between all clients of one service and region in a process, so that runs in other
/// threads would be felt: each run is in a region of its own.
static REGIONS: AtomicU64 = AtomicU64::new(0);

pub(crate) struct World {
    pub(crate) wire: Wire,
    pub(crate) queues: Queues,
    pub(crate) consumers: [Arc<Consumer>; 2],
    pub(crate) webhook: Arc<Webhook>,
    pub(crate) secret: SigningSecret,
    pub(crate) operator: Books,
    pub(crate) auditor: Books,
    pub(crate) sabotage: Option<Sabotage>,
    parts: Parts,
}

/// What clients are made of.
#[derive(Clone)]
struct Parts {
    wire: Wire,
    settings: Settings,
    random: Random,
    tables: Tables,
}

impl Parts {
    fn clients(&self, actor: Actor) -> Clients {
        Clients::over(&self.settings, self.wire.aws(actor), self.random.clone())
    }

    fn books(&self, actor: Actor, alerts: &str) -> Books {
        let clients = self.clients(actor);
        let mut config = Config::new(SecretKey::new(STRIPE_KEY).expect("a key"));
        config.base_url = "http://stripe.simulation".to_owned();
        let time = self.wire.time();
        Books {
            accounts: AccountTable::new(clients.clone(), self.tables.accounts.clone()),
            counters: CounterTable::new(clients.clone(), self.tables.counters.clone()),
            ledger: LedgerTable::new(clients.clone(), self.tables.ledger.clone()),
            alerts: AlertQueue::new(clients, alerts.to_owned()),
            stripe: farebox_stripe::Client::over(config, self.wire.stripe(actor)).expect("an address"),
            clock: Arc::new(move || time.now()),
        }
    }
}

impl World {
    pub(crate) async fn new(seed: u64, scenario: &Scenario, sabotage: Option<Sabotage>, trace: Trace) -> Self {
        // Whatever the SDK draws in this thread: jitter, tokens, invocation ids.
        fastrand::seed(seed);
        let time = Time::starting_at(scenario.start);
        let mut options = Options::new(Arc::new(move || i64::try_from(time.now().s()).unwrap_or(i64::MAX)));
        options.secret_keys = vec![STRIPE_KEY.to_owned()];
        let stand_in = StandIn::open(options).expect("a stand-in without a journal");
        let wire = Wire::new(seed ^ 0x5eed_0001, time, stand_in, sabotage, trace);
        let rng = Mutex::new(Rng::with_seed(seed ^ 0x5eed_0002));
        let parts = Parts {
            wire: wire.clone(),
            settings: Settings {
                region: format!("simulation-{}", REGIONS.fetch_add(1, Relaxed)),
                credentials: aws_sdk_dynamodb::config::Credentials::new("sim", "sim", None, None, "simulation"),
                dynamodb_endpoint: Some("http://dynamodb.simulation".to_owned()),
                sqs_endpoint: Some("http://sqs.simulation".to_owned()),
            },
            random: Random::new(move |bytes| {
                rng.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
                Ok(())
            }),
            tables: Tables::default(),
        };
        let queues = schema::create(&parts.clients(Actor::Auditor), &parts.tables)
            .await
            .expect("tables and queues");
        let books = |actor| parts.books(actor, &queues.alerts);
        let consumer = |n| {
            Arc::new(Consumer::new(ConsumerDeps {
                books: books(Actor::Consumer(n)),
            }))
        };
        let secret = SigningSecret::new(SIGNING_SECRET).expect("a secret");
        Self {
            consumers: [consumer(0), consumer(1)],
            webhook: Arc::new(Webhook::new(WebhookDeps {
                books: books(Actor::Webhook),
                secrets: vec![secret.clone()],
                first_key: FirstKeySecret::new(FIRST_KEY_SECRET).expect("a secret"),
                brand: "fb".to_owned(),
                mode: Mode::Test,
                portal_url: None,
                patience: farebox_webhook::PATIENCE,
            })),
            secret,
            operator: books(Actor::Operator),
            auditor: books(Actor::Auditor),
            sabotage,
            wire,
            queues,
            parts,
        }
    }

    /// A new environment of the authorizer, which remembers nothing.
    pub(crate) fn authorizer(&self, n: usize) -> Arc<Authorizer> {
        let mut clients = self.parts.clients(Actor::Authorizer(n));
        if self.sabotage == Some(Sabotage::RetriesTheCountingWrite) {
            clients.dynamodb_once = clients.dynamodb.clone();
        }
        Arc::new(Authorizer::new(AuthorizerDeps {
            accounts: AccountTable::new(clients.clone(), self.parts.tables.accounts.clone()),
            counters: CounterTable::new(clients.clone(), self.parts.tables.counters.clone()),
            queue: UsageQueue::new(clients, self.queues.usage.clone()),
            forbidden_403: true,
            usage_identifier_key: None,
        }))
    }
}
