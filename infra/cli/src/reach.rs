//! How the command reaches a system: the tables, queues and Stripe of a deployed stack, or those of `farebox dev`. From here on
//! both are the same.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::config::ProvideCredentials;
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
    clock: Clock,
    queues: Option<Queues>,
    stack: String,
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
            &settings,
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
            stripe(Some(endpoints.stripe_secret_key), Some(endpoints.stripe)),
            Arc::new(move || now),
            (true, true),
        ))
    }

    async fn deployed(options: &Where) -> Result<Self, Failure> {
        let settings = settings(options).await?;
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
            &settings,
            tables,
            None,
            options.stack.clone(),
            stripe(key, options.stripe_url.clone()),
            Arc::new(machine_time),
            (is_test, false),
        ))
    }

    fn new(
        settings: &Settings,
        tables: Tables,
        queues: Option<Queues>,
        stack: String,
        stripe: Result<farebox_stripe::Client, String>,
        clock: Clock,
        (is_test, is_local): (bool, bool),
    ) -> Self {
        let clients = Clients::new(settings);
        let control = Control {
            accounts: AccountTable::new(clients.clone(), tables.accounts.clone()),
            counters: CounterTable::new(clients.clone(), tables.counters.clone()),
            ledger: LedgerTable::new(clients.clone(), tables.ledger.clone()),
        };
        Self {
            control,
            tables,
            clients,
            clock,
            queues,
            stack,
            stripe,
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
        let stripe = self.stripe.clone().map_err(Failure::Failed)?;
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
        let known = self.queues.as_ref();
        // The functions know their queues by the same variables.
        let (url, variable) = match part {
            "usage" => (known.map(|queues| &queues.usage), "USAGE_QUEUE_URL"),
            "usage-dead" => (known.map(|queues| &queues.usage_dead), "USAGE_DEAD_QUEUE_URL"),
            "alerts" => (known.map(|queues| &queues.alerts), "ALERT_QUEUE_URL"),
            _ => (known.map(|queues| &queues.alerts_dead), "ALERT_DEAD_QUEUE_URL"),
        };
        if let Some(url) = url {
            return Ok(url.clone());
        }
        if let Some(url) = std::env::var(variable).ok().filter(|url| !url.is_empty()) {
            return Ok(url);
        }
        let name = format!("{}-{part}", self.stack);
        let answer = self.clients.sqs.get_queue_url().queue_name(&name).send().await;
        let url = answer.ok().and_then(|answer| answer.queue_url);
        url.ok_or_else(|| {
            Failure::Failed(format!(
                "there is no queue {name} within reach: is the stack deployed in this region? Name it with --stack, or its \
                 queue's address in {variable}"
            ))
        })
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

/// The machine's clock: beside `farebox dev` the only place that reads it.
fn machine_time() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

async fn settings(options: &Where) -> Result<Settings, Failure> {
    let (dynamodb, sqs) = (options.endpoint_url_dynamodb.clone(), options.endpoint_url_sqs.clone());
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
    Ok(Settings {
        region: region.to_string(),
        credentials,
        dynamodb_endpoint: dynamodb,
        sqs_endpoint: sqs,
    })
}

/// An error with what caused it.
fn source(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn stripe(key: Option<String>, url: Option<String>) -> Result<farebox_stripe::Client, String> {
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
