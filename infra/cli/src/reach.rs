//! How the command reaches a system: the tables, queues and Stripe of a deployed stack, or those of `farebox dev`. From here on
//! both are the same.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::{
    config::ProvideCredentials,
    error::{ProvideErrorMetadata, SdkError},
};
use aws_sdk_sqs::operation::get_queue_url::GetQueueUrlError;
use farebox_aws::{
    accounts::AccountTable,
    alerts::AlertQueue,
    connect::{Clients, Settings, http_client},
    control::Control,
    counters::CounterTable,
    ledger::LedgerTable,
    schema::{Queues, Tables},
};
use farebox_billing::{Books, Clock};
use farebox_core::{account::Customer, id::CustomerId, key::Mode, time::Timestamp};
use farebox_stripe::SecretKey;
use http_body_util::{BodyExt, Empty};
use serde::Deserialize;

use crate::{arguments::Where, failure::Failure};

/// Where `farebox dev` listens unless told otherwise.
pub(crate) const LOCAL: &str = "http://127.0.0.1:8787";

/// A system within reach.
pub(crate) struct Reach {
    /// Customers, keys and catalogs; counters; the ledger.
    pub(crate) control: Control,
    /// Their names.
    pub(crate) tables: Tables,
    /// The clients of both services.
    pub(crate) clients: Clients,
    /// Where AWS is, and who asks.
    pub(crate) settings: Settings,
    /// What takes the place of every service's own address, as `AWS_ENDPOINT_URL` says.
    pub(crate) endpoint: Option<String>,
    /// Another address of Stripe, if one was named.
    pub(crate) stripe_url: Option<String>,
    clock: Clock,
    queues: Option<Queues>,
    /// The stack's name.
    pub(crate) stack: String,
    stripe: Result<farebox_stripe::Client, String>,
    /// Nothing there moves real money.
    is_test: bool,
    /// It is `farebox dev`.
    pub(crate) is_local: bool,
}

/// What `GET /_farebox/endpoints` answers.
#[derive(Deserialize)]
struct Endpoints {
    now_ms: u64,
    region: String,
    dynamodb: String,
    sqs: String,
    stripe: String,
    stripe_secret_key: String,
    tables: TableNames,
    queues: QueueUrls,
}

#[derive(Deserialize)]
struct TableNames {
    accounts: String,
    counters: String,
    ledger: String,
}

#[derive(Deserialize)]
struct QueueUrls {
    usage: String,
    usage_dead: String,
    alerts: String,
    alerts_dead: String,
}

impl Reach {
    /// Reaches for the system that the options name.
    pub(crate) async fn of(options: &Where) -> Result<Self, Failure> {
        match &options.local {
            Some(url) => Self::local(url).await,
            None => Self::deployed(options).await,
        }
    }

    async fn local(url: &str) -> Result<Self, Failure> {
        let endpoints = ask_local(url).await.map_err(|problem| {
            Failure::Failed(format!(
                "no local system answers at {url}: {problem}. Start one with `farebox dev`, or say where it is with \
                 --local=http://127.0.0.1:PORT; without --local a deployed stack is meant"
            ))
        })?;
        let settings = Settings {
            region: endpoints.region,
            credentials: aws_sdk_dynamodb::config::Credentials::new("local", "local", None, None, "local"),
            dynamodb_endpoint: Some(endpoints.dynamodb),
            sqs_endpoint: Some(endpoints.sqs),
        };
        let TableNames {
            accounts,
            counters,
            ledger,
        } = endpoints.tables;
        let QueueUrls {
            usage,
            usage_dead,
            alerts,
            alerts_dead,
        } = endpoints.queues;
        // The local system's time, at which everything that this command does happens.
        let now = Timestamp::from_ms(endpoints.now_ms);
        Ok(Self::new(
            (settings, None),
            Tables {
                accounts,
                counters,
                ledger,
            },
            Some(Queues {
                usage,
                usage_dead,
                alerts,
                alerts_dead,
            }),
            String::new(),
            (Some(endpoints.stripe_secret_key), Some(endpoints.stripe)),
            Arc::new(move || now),
            (true, true),
        ))
    }

    async fn deployed(options: &Where) -> Result<Self, Failure> {
        let (settings, endpoint) = settings(options).await?;
        let named = |given: &Option<String>, part: &str| match given {
            Some(name) => name.clone(),
            None => format!("{}-{part}", options.stack),
        };
        let tables = Tables {
            accounts: named(&options.accounts_table, "accounts"),
            counters: named(&options.counters_table, "counters"),
            ledger: named(&options.ledger_table, "ledger"),
        };
        let key = std::env::var("STRIPE_SECRET_KEY").ok();
        // https://docs.stripe.com/keys
        let is_test = key
            .as_deref()
            .is_some_and(|key| key.starts_with("sk_test_") || key.starts_with("rk_test_"));
        Ok(Self::new(
            (settings, endpoint),
            tables,
            None,
            options.stack.clone(),
            (key, options.stripe_url.clone()),
            Arc::new(machine_time),
            (is_test, false),
        ))
    }

    fn new(
        (settings, endpoint): (Settings, Option<String>),
        tables: Tables,
        queues: Option<Queues>,
        stack: String,
        (stripe_key, stripe_url): (Option<String>, Option<String>),
        clock: Clock,
        (is_test, is_local): (bool, bool),
    ) -> Self {
        let clients = Clients::new(&settings);
        let control = Control {
            accounts: AccountTable::new(clients.clone(), tables.accounts.clone()),
            counters: CounterTable::new(clients.clone(), tables.counters.clone()),
            ledger: LedgerTable::new(clients.clone(), tables.ledger.clone()),
        };
        Self {
            control,
            tables,
            clients,
            settings,
            endpoint,
            clock,
            queues,
            stack,
            stripe: stripe(stripe_key, stripe_url.clone()),
            stripe_url,
            is_test,
            is_local,
        }
    }

    /// Which keys are issued here.
    pub(crate) fn key_mode(&self, asks_for_test: bool) -> Mode {
        if asks_for_test || self.is_test {
            Mode::Test
        } else {
            Mode::Live
        }
    }

    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The tables and Stripe. Commands that leave Stripe alone need no key.
    pub(crate) async fn books(&self) -> Result<Books, Failure> {
        self.books_with(self.stripe()?).await
    }

    /// Stripe, with the key that the environment names.
    pub(crate) fn stripe(&self) -> Result<farebox_stripe::Client, Failure> {
        self.stripe.clone().map_err(Failure::Failed)
    }

    /// As [`Self::books`], with Stripe by another key.
    pub(crate) async fn books_with(&self, stripe: farebox_stripe::Client) -> Result<Books, Failure> {
        Ok(Books {
            accounts: self.control.accounts.clone(),
            counters: self.control.counters.clone(),
            ledger: self.control.ledger.clone(),
            alerts: AlertQueue::new(self.clients.clone(), self.queue("alerts").await?),
            stripe,
            clock: Arc::clone(&self.clock),
        })
    }

    /// A queue's URL by the part of its name after the stack's: `usage`, `usage-dead`, `alerts`, `alerts-dead`.
    pub(crate) async fn queue(&self, part: &str) -> Result<String, Failure> {
        let missing = || {
            Failure::Failed(format!(
                "there is no queue {}-{part} in {}: is the stack deployed in this region? Name it with --stack, or its queue's \
                 address in {}",
                self.stack,
                self.settings.region,
                variable(part)
            ))
        };
        self.find_queue(part).await?.ok_or_else(missing)
    }

    /// The same; `None` if there is no such queue.
    pub(crate) async fn find_queue(&self, part: &str) -> Result<Option<String>, Failure> {
        if let Some(queues) = &self.queues {
            let url = match part {
                "usage" => &queues.usage,
                "usage-dead" => &queues.usage_dead,
                "alerts" => &queues.alerts,
                _ => &queues.alerts_dead,
            };
            return Ok(Some(url.clone()));
        }
        if let Some(url) = std::env::var(variable(part)).ok().filter(|url| !url.is_empty()) {
            return Ok(Some(url));
        }
        let name = format!("{}-{part}", self.stack);
        match self.clients.sqs.get_queue_url().queue_name(&name).send().await {
            Ok(answer) => Ok(answer.queue_url),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(GetQueueUrlError::is_queue_does_not_exist) =>
            {
                Ok(None)
            }
            Err(error) => Err(Failure::Failed(format!("find queue {name}: {}", cause(&error)))),
        }
    }

    /// Whether a catalog has a tier.
    pub(crate) async fn knows_tier(&self, version: u64, tier: &str) -> Result<(), Failure> {
        let Some(catalog) = self.control.accounts.catalog(version).await? else {
            return Err(Failure::NotFound(format!("there is no catalog {version}")));
        };
        if catalog.tier(tier).is_some() {
            return Ok(());
        }
        let known: Vec<&str> = catalog.tiers.iter().map(|tier| tier.name.as_str()).collect();
        Err(Failure::NotFound(format!(
            "no tier {tier:?}: there are {}",
            known.join(", ")
        )))
    }

    /// A customer's record.
    pub(crate) async fn customer(&self, id: &CustomerId) -> Result<Customer, Failure> {
        let found = self.control.accounts.customer(id).await?;
        found.ok_or_else(|| Failure::NotFound(format!("there is no customer {id}")))
    }
}

/// The variable that names a queue; the functions know theirs by the same ones.
fn variable(part: &str) -> &'static str {
    match part {
        "usage" => "USAGE_QUEUE_URL",
        "usage-dead" => "USAGE_DEAD_QUEUE_URL",
        "alerts" => "ALERT_QUEUE_URL",
        _ => "ALERT_DEAD_QUEUE_URL",
    }
}

/// What a service said, else what the network did.
pub(crate) fn cause<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    match error.as_service_error() {
        Some(service) => format!(
            "{}: {}",
            service.code().unwrap_or("no error code"),
            service.message().unwrap_or("no message")
        ),
        None => source(error),
    }
}

/// The machine's clock: beside `farebox dev` the only place that reads it.
pub(crate) fn machine_time() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

async fn settings(options: &Where) -> Result<(Settings, Option<String>), Failure> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client([&None]));
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(region) = &options.region {
        loader = loader.region(Region::new(region.clone()));
    }
    let config = loader.load().await;
    let region = config.region().ok_or_else(|| {
        Failure::usage(
            "no region: give --region, set AWS_REGION, or write one into the profile; --local means `farebox dev` on this machine",
        )
    })?;
    let provider = config.credentials_provider();
    let found = match &provider {
        Some(provider) => provider.provide_credentials().await.map_err(|e| source(&e)),
        None => Err("nothing provides any".to_owned()),
    };
    let credentials = found.map_err(|problem| {
        Failure::Failed(format!(
            "no AWS credentials: {problem}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of \
             ~/.aws/config with --profile; --local means `farebox dev` on this machine"
        ))
    })?;
    // AWS_ENDPOINT_URL or the profile's endpoint_url: https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
    let endpoint = config.endpoint_url().map(str::to_owned);
    let own = |given: &Option<String>| given.clone().or_else(|| endpoint.clone());
    let settings = Settings {
        region: region.to_string(),
        credentials,
        dynamodb_endpoint: own(&options.endpoint_url_dynamodb),
        sqs_endpoint: own(&options.endpoint_url_sqs),
    };
    Ok((settings, endpoint))
}

/// An error with what caused it.
pub(crate) fn source(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

pub(crate) fn stripe(key: Option<String>, url: Option<String>) -> Result<farebox_stripe::Client, String> {
    let missing = "STRIPE_SECRET_KEY is not set: export a secret or restricted key of the Stripe account";
    let key = key.filter(|key| !key.is_empty()).ok_or(missing)?;
    let of_no_use = |e: farebox_stripe::Error| format!("STRIPE_SECRET_KEY is of no use: {e}");
    let mut config = farebox_stripe::Config::new(SecretKey::new(key).map_err(of_no_use)?);
    if let Some(url) = url {
        config.base_url = url;
    }
    farebox_stripe::Client::new(config).map_err(|e| format!("stripe can't be reached: {e}"))
}

async fn ask_local(url: &str) -> Result<Endpoints, String> {
    let address = format!("{}/_farebox/endpoints", url.trim_end_matches('/'));
    let address: http::Uri = address.parse().map_err(|_| "that is not an address".to_owned())?;
    if address.scheme_str() != Some("http") {
        return Err("its address must begin with http://".to_owned());
    }
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let ask = async {
        let request: hyper_util::client::legacy::ResponseFuture = {
            let client: &hyper_util::client::legacy::Client<_, Empty<axum::body::Bytes>> = &client;
            client.get(address)
        };
        let answer = request.await.map_err(|e| source(&e))?;
        if !answer.status().is_success() {
            return Err(format!("it answers {}, as no `farebox dev` does", answer.status()));
        }
        let body = answer.into_body().collect().await.map_err(|e| source(&e))?;
        serde_json::from_slice(&body.to_bytes()).map_err(|_| "its answer is not that of `farebox dev`".to_owned())
    };
    match tokio::time::timeout(std::time::Duration::from_secs(5), ask).await {
        Ok(answer) => answer,
        Err(_) => Err("no answer within 5 s".to_owned()),
    }
}
