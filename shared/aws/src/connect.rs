//! Clients from settings: one HTTP client for all of them, and retries only where a retry can't count twice.

use std::time::Duration;

use aws_sdk_dynamodb::{
    config::{
        BehaviorVersion, Credentials, Region, StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig,
    },
    types::AttributeValue,
};
use aws_sdk_sqs::types::QueueAttributeName;
use aws_smithy_runtime_api::client::{http::SharedHttpClient, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

pub use crate::http::http_client;
use crate::{random::Random, sign::SigV4};

/// Where AWS is and who we are.
#[derive(Clone)]
pub struct Settings {
    /// The region, `eu-central-1`.
    pub region: String,
    /// The credentials. Lambda puts them into the environment.
    pub credentials: Credentials,
    /// Another endpoint for DynamoDB; `None` is AWS's.
    pub dynamodb_endpoint: Option<String>,
    /// Another endpoint for SQS; `None` is AWS's.
    pub sqs_endpoint: Option<String>,
}

impl Settings {
    /// Reads what Lambda puts into every environment
    /// (<https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html>): `AWS_REGION`, `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`; and optionally `AWS_ENDPOINT_URL_DYNAMODB`, `AWS_ENDPOINT_URL_SQS`.
    ///
    /// # Errors
    /// The name of the first variable that is missing.
    pub fn from_env(read: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let need = |name: &str| {
            read(name)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| format!("{name} is not set"))
        };
        Ok(Self {
            region: need("AWS_REGION")?,
            credentials: Credentials::new(
                need("AWS_ACCESS_KEY_ID")?,
                need("AWS_SECRET_ACCESS_KEY")?,
                read("AWS_SESSION_TOKEN"),
                None,
                "environment",
            ),
            dynamodb_endpoint: read("AWS_ENDPOINT_URL_DYNAMODB"),
            sqs_endpoint: read("AWS_ENDPOINT_URL_SQS"),
        })
    }
}

/// The ready clients, and what else comes from outside.
#[derive(Clone, Debug)]
pub struct Clients {
    /// DynamoDB with the SDK's retries, for what may be repeated.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// DynamoDB without any retry, for the write that counts: an unknown outcome must not be tried again.
    pub dynamodb_once: aws_sdk_dynamodb::Client,
    /// SQS.
    pub sqs: aws_sdk_sqs::Client,
    /// SQS without any retry and with little patience, for what is sent again anyway and is waited for in front of the next request.
    pub sqs_once: aws_sdk_sqs::Client,
    /// Random bytes.
    pub random: Random,
}

impl Clients {
    /// Makes the clients, over one pool of connections and with the operating system's random bytes. Nothing is opened yet.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let http = http_client([&settings.dynamodb_endpoint, &settings.sqs_endpoint]);
        Self::over(settings, http, Random::system())
    }

    /// Makes the clients over an HTTP client and a source of random bytes.
    #[must_use]
    pub fn over(settings: &Settings, http: SharedHttpClient, random: Random) -> Self {
        let timeouts = |attempt| TimeoutConfig::builder().operation_attempt_timeout(attempt).build();
        let base = |retries: RetryConfig| {
            let mut config = aws_sdk_dynamodb::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new(settings.region.clone()))
                .credentials_provider(settings.credentials.clone())
                .push_auth_scheme(SigV4::new("dynamodb", &settings.region))
                .http_client(http.clone())
                .timeout_config(timeouts(ATTEMPT))
                // Every attempt ends after 3 s: no need to watch each byte of an answer of one packet as well.
                .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
                .retry_config(retries);
            config.set_endpoint_url(settings.dynamodb_endpoint.clone());
            aws_sdk_dynamodb::Client::from_conf(config.build())
        };
        let queue = |attempt, retries| {
            let mut config = aws_sdk_sqs::Config::builder()
                .behavior_version(aws_sdk_sqs::config::BehaviorVersion::latest())
                .region(aws_sdk_sqs::config::Region::new(settings.region.clone()))
                .credentials_provider(settings.credentials.clone())
                .push_auth_scheme(SigV4::new("sqs", &settings.region))
                .http_client(http.clone())
                .timeout_config(timeouts(attempt))
                .stalled_stream_protection(aws_sdk_sqs::config::StalledStreamProtectionConfig::disabled())
                .retry_config(retries);
            config.set_endpoint_url(settings.sqs_endpoint.clone());
            aws_sdk_sqs::Client::from_conf(config.build())
        };
        Self {
            dynamodb: base(RetryConfig::standard()),
            dynamodb_once: base(RetryConfig::disabled()),
            sqs: queue(ATTEMPT, RetryConfig::standard()),
            sqs_once: queue(HINT, RetryConfig::disabled()),
            random,
        }
    }
}

/// How long an attempt may take.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How long it may take to send usage: a queue that does not answer holds up the environment's next request.
const HINT: Duration = Duration::from_millis(500);

/// Something that a function can't do without, and the variable that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need<'a> {
    /// The accounts table; read from.
    Accounts(&'a str),
    /// The counters table; written to.
    Counters(&'a str),
    /// The ledger table; read from.
    Ledger(&'a str),
    /// A queue: the variable, and its URL.
    Queue(&'a str, &'a str),
}

/// AWS said that what a variable names is not there or not for us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} names {name}, of which AWS says: {answer}")]
pub struct Missing {
    variable: String,
    name: String,
    answer: String,
}

/// A function that is not ready after this time begins all the same: Lambda gives it ten seconds.
const CHECK_MAX: Duration = Duration::from_secs(2);

impl Clients {
    /// Asks for everything that is needed, DynamoDB beside SQS, by calls that change nothing. Besides an answer this gives an
    /// open connection to each service and a warm path through the SDK, while a starting function has the CPU for it.
    ///
    /// An outage is no reason not to start: who can't be reached, is throttled or fails is not [`Missing`].
    ///
    /// # Errors
    /// The first thing that AWS definitely refuses.
    pub async fn check(&self, needs: &[Need<'_>]) -> Result<(), Missing> {
        let (tables, queues): (Vec<Need<'_>>, Vec<Need<'_>>) =
            needs.iter().partition(|need| !matches!(need, Need::Queue(..)));
        // One after the other for each service: a second connection would cost a second handshake.
        let all = async |needs: Vec<Need<'_>>| {
            for need in needs {
                self.ask(need).await?;
            }
            Ok(())
        };
        let both = async { tokio::try_join!(all(tables), all(queues)) };
        match tokio::time::timeout(CHECK_MAX, both).await {
            Ok(Err(missing)) => Err(missing),
            Ok(Ok(_)) => Ok(()),
            Err(_) => {
                tracing::warn!("what the function needs could not be asked for in time; it begins all the same");
                Ok(())
            }
        }
    }

    async fn ask(&self, need: Need<'_>) -> Result<(), Missing> {
        let (variable, name, refusal) = match need {
            Need::Accounts(table) => {
                let key = [
                    ("pk", AttributeValue::S("c#".to_owned())),
                    ("sk", AttributeValue::S("customer".to_owned())),
                ];
                ("ACCOUNTS_TABLE", table, self.ask_to_read(table, key).await)
            }
            Need::Ledger(table) => {
                let key = [
                    ("pk", AttributeValue::S("#".to_owned())),
                    ("sk", AttributeValue::N("0".to_owned())),
                ];
                ("LEDGER_TABLE", table, self.ask_to_read(table, key).await)
            }
            Need::Counters(table) => ("COUNTERS_TABLE", table, self.ask_to_count(table).await),
            Need::Queue(variable, url) => (variable, url, self.ask_queue(url).await),
        };
        match refusal {
            None => Ok(()),
            Some(answer) => Err(Missing {
                variable: variable.to_owned(),
                name: name.to_owned(),
                answer,
            }),
        }
    }

    async fn ask_to_read<const N: usize>(&self, table: &str, key: [(&str, AttributeValue); N]) -> Option<String> {
        let key = key.map(|(name, value)| (name.to_owned(), value));
        let request = self
            .dynamodb_once
            .get_item()
            .table_name(table)
            .set_key(Some(key.into()));
        refusal(&request.send().await.err()?)
    }

    /// The kind of write that all is about, on an item that can't exist, and so without effect.
    async fn ask_to_count(&self, table: &str) -> Option<String> {
        let request = self
            .dynamodb_once
            .update_item()
            .table_name(table)
            .key("pk", AttributeValue::S("#".to_owned()))
            .update_expression("SET sealed = :zero")
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_values(":zero", AttributeValue::N("0".to_owned()));
        refusal(&request.send().await.err()?)
    }

    async fn ask_queue(&self, url: &str) -> Option<String> {
        let request = self.sqs.get_queue_attributes().queue_url(url);
        refusal(
            &request
                .attribute_names(QueueAttributeName::QueueArn)
                .send()
                .await
                .err()?,
        )
    }
}

/// What AWS said, if it was a definite no that time does not mend.
pub(crate) fn refusal<E, R>(error: &SdkError<E, R>) -> Option<String>
where
    E: ProvideErrorMetadata,
{
    let service = error.as_service_error()?;
    let code = service.code()?;
    let is_definite = matches!(
        code,
        "ResourceNotFoundException"
            | "ValidationException" // the table has another key, so it is another table
            | "AccessDeniedException"
            | "AccessDenied"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "MissingAuthenticationTokenException"
            | "QueueDoesNotExist"
            | "AWS.SimpleQueueService.NonExistentQueue"
            | "InvalidAddress"
    );
    is_definite.then(|| format!("{code}: {}", service.message().unwrap_or("no message")))
}
