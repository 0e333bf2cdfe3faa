//! Clients from settings: one HTTP client for all of them, and retries only where a retry can't count twice.

use std::time::Duration;

use aws_sdk_dynamodb::config::{
    BehaviorVersion, Credentials, Region, SharedHttpClient, retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_smithy_http_client::Builder;

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

/// The ready clients.
#[derive(Clone, Debug)]
pub struct Clients {
    /// DynamoDB with the SDK's retries, for what may be repeated.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// DynamoDB without any retry, for the write that counts: an unknown outcome must not be tried again.
    pub dynamodb_once: aws_sdk_dynamodb::Client,
    /// SQS.
    pub sqs: aws_sdk_sqs::Client,
}

impl Clients {
    /// Makes the clients. Nothing is opened yet.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let http = http_client([&settings.dynamodb_endpoint, &settings.sqs_endpoint]);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(1))
            .operation_attempt_timeout(Duration::from_secs(3))
            .build();
        let base = |retries: RetryConfig| {
            let mut config = aws_sdk_dynamodb::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new(settings.region.clone()))
                .credentials_provider(settings.credentials.clone())
                .http_client(http.clone())
                .timeout_config(timeouts.clone())
                .retry_config(retries);
            config.set_endpoint_url(settings.dynamodb_endpoint.clone());
            aws_sdk_dynamodb::Client::from_conf(config.build())
        };
        let mut sqs = aws_sdk_sqs::Config::builder()
            .behavior_version(aws_sdk_sqs::config::BehaviorVersion::latest())
            .region(aws_sdk_sqs::config::Region::new(settings.region.clone()))
            .credentials_provider(settings.credentials.clone())
            .http_client(http.clone())
            .timeout_config(timeouts.clone());
        sqs.set_endpoint_url(settings.sqs_endpoint.clone());
        Self {
            dynamodb: base(RetryConfig::standard()),
            dynamodb_once: base(RetryConfig::disabled()),
            sqs: aws_sdk_sqs::Client::from_conf(sqs.build()),
        }
    }
}

/// One HTTP client for clients with these endpoints: with TLS, unless every one of them is plain `http://`.
pub fn http_client<'a>(endpoints: impl IntoIterator<Item = &'a Option<String>>) -> SharedHttpClient {
    use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
    let is_plain = |url: &Option<String>| url.as_deref().is_some_and(|url| url.starts_with("http://"));
    if endpoints.into_iter().all(is_plain) {
        return Builder::new().build_http();
    }
    Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https()
}
