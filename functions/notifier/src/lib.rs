#![doc = include_str!("../README.md")]

mod config;
mod deliver;
mod event;
mod mail;
mod operator;
mod templates;
mod webhook;
mod words;

use std::{fmt, sync::Arc, time::Duration};

use aws_sdk_sesv2::config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use farebox_aws::{
    accounts::AccountTable,
    alerts::{AlertQueue, DeliveryTable},
    connect::{Clients, Settings, http_client},
};
use farebox_core::time::Timestamp;
use serde_json::{Value, json};

pub use config::Config;
pub use event::{Record, records};
pub use templates::TemplateError;
pub use webhook::{AddressPolicy, Http, Resolved};

use crate::{deliver::Kit, templates::Templates};

/// Where the time comes from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Everything that the notifier works with.
#[derive(Clone)]
pub struct Deps {
    /// What became of each alert on each channel.
    pub deliveries: DeliveryTable,
    /// Customers, for the secrets of their webhooks.
    pub accounts: AccountTable,
    /// The queue that the messages come from.
    pub queue: AlertQueue,
    /// SES.
    pub mail: aws_sdk_sesv2::Client,
    /// SNS.
    pub sns: aws_sdk_sns::Client,
    /// What calls webhooks, and where they may be.
    pub http: Http,
    /// The time.
    pub clock: Clock,
    /// What the function is told from outside.
    pub config: Config,
}

impl Deps {
    /// Wires what the configuration names; webhooks only where anybody could reach them. Nothing is opened yet.
    #[must_use]
    pub fn connect(config: Config, settings: &Settings, clock: Clock) -> Self {
        let clients = Clients::new(settings);
        let (mail, sns) = connect(settings, &config);
        Self {
            deliveries: DeliveryTable::new(clients.clone(), config.accounts_table.clone()),
            accounts: AccountTable::new(clients.clone(), config.accounts_table.clone()),
            queue: AlertQueue::new(clients, config.alert_queue_url.clone()),
            mail,
            sns,
            http: Http::new(AddressPolicy::PublicOnly),
            clock,
            config,
        }
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deps")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Clients of SES and SNS, at the endpoints that the configuration names. They are made here and not with the other clients
/// so that no other function carries them. The region and the credentials are the settings'.
///
/// They never try twice on their own: neither service knows a repetition from a second mail. The queue tries again, later.
#[must_use]
pub fn connect(settings: &Settings, config: &Config) -> (aws_sdk_sesv2::Client, aws_sdk_sns::Client) {
    let http = http_client([&config.ses_endpoint, &config.sns_endpoint]);
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(2))
        .operation_timeout(Duration::from_secs(10))
        .build();
    let mut mail = aws_sdk_sesv2::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(settings.region.clone()))
        .credentials_provider(settings.credentials.clone())
        .http_client(http.clone())
        .timeout_config(timeouts.clone())
        .retry_config(RetryConfig::disabled());
    mail.set_endpoint_url(config.ses_endpoint.clone());
    let mut sns = aws_sdk_sns::Config::builder()
        .behavior_version(aws_sdk_sns::config::BehaviorVersion::latest())
        .region(aws_sdk_sns::config::Region::new(settings.region.clone()))
        .credentials_provider(settings.credentials.clone())
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::disabled());
    sns.set_endpoint_url(config.sns_endpoint.clone());
    (
        aws_sdk_sesv2::Client::from_conf(mail.build()),
        aws_sdk_sns::Client::from_conf(sns.build()),
    )
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was taken.
    Sent,
    /// It never will be: nothing that we can wait for changes that.
    GaveUp(String),
    /// It may be the next time.
    Retry(String),
}

/// What kept the notifier from its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The event is not what the function is for.
    #[error("unknown event: {0}; expected an SQS batch {{\"Records\": [..]}}")]
    Event(String),
    /// A template can't be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// The notifier. It keeps nothing that can't be lost.
pub struct Notifier {
    kit: Arc<Kit>,
}

impl Notifier {
    /// A notifier that works with these. Says in the log what it will not do for want of configuration.
    ///
    /// # Errors
    /// [`Error::Template`] if a template can't be used.
    pub fn new(deps: Deps) -> Result<Self, Error> {
        let templates = Templates::load(deps.config.mail_templates.as_deref())?;
        if deps.config.mail_from.is_none() {
            tracing::warn!("MAIL_FROM is not set: no mails are sent");
        }
        if deps.config.alert_topic_arn.is_none() {
            tracing::warn!("ALERT_TOPIC_ARN is not set: what the operator must know is only logged");
        }
        Ok(Self {
            kit: Arc::new(Kit { deps, templates }),
        })
    }

    /// Answers one invocation: an SQS batch with the ids of the messages that are to be delivered again.
    ///
    /// # Errors
    /// [`Error::Event`] for any other event.
    pub async fn handle(&self, event: Value) -> Result<Value, Error> {
        let failed = deliver::batch(&self.kit, records(event)?).await;
        let failures = failed.into_iter().map(|id| json!({ "itemIdentifier": id }));
        Ok(json!({ "batchItemFailures": failures.collect::<Vec<Value>>() }))
    }
}
