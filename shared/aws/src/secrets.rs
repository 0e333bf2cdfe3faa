//! Secrets by ARN: the environment says where a secret lies, never what it is.
//!
//! A variable whose value begins with `arn:` is replaced, once at init, by what AWS Secrets Manager holds there
//! (<https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>). Any other value is taken as it
//! stands: the local system has no Secrets Manager.

use std::{collections::HashMap, time::Duration};

use aws_sdk_secretsmanager::{
    config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig},
    error::ProvideErrorMetadata,
    operation::get_secret_value::GetSecretValueError,
};

use crate::connect::{Settings, http_client};

/// The version of a secret in use, and the one before it: while a secret is rotated both are taken.
const STAGES: [&str; 2] = ["AWSCURRENT", "AWSPREVIOUS"];

/// A variable that may name a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Its present value.
    One(&'static str),
    /// Its present value and the one before it, with a comma between them.
    WithPrevious(&'static str),
}

/// The environment with every wanted secret in place of its ARN.
pub struct Environment {
    fetched: HashMap<&'static str, String>,
}

impl Environment {
    /// Fetches the secrets. `AWS_ENDPOINT_URL_SECRETSMANAGER` is another endpoint than AWS's.
    ///
    /// # Errors
    /// A sentence that names the variable whose secret can't be had, and why; never a value.
    pub async fn fetch(settings: &Settings, wanted: &[Wanted]) -> Result<Self, String> {
        let read = |name: &str| std::env::var(name).ok();
        Self::fetch_from(settings, read("AWS_ENDPOINT_URL_SECRETSMANAGER"), read, wanted).await
    }

    /// As [`Self::fetch`], from an environment that is given.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub async fn fetch_from(
        settings: &Settings,
        endpoint: Option<String>,
        read: impl Fn(&str) -> Option<String>,
        wanted: &[Wanted],
    ) -> Result<Self, String> {
        let client = client(settings, endpoint);
        let mut fetched = HashMap::new();
        for wanted in wanted {
            let (name, stages) = match wanted {
                Wanted::One(name) => (*name, &STAGES[..1]),
                Wanted::WithPrevious(name) => (*name, &STAGES[..]),
            };
            let Some(arn) = read(name).filter(|value| value.starts_with("arn:")) else {
                continue;
            };
            let mut values = Vec::new();
            for stage in stages {
                values.extend(value(&client, name, &arn, stage).await?);
            }
            fetched.insert(name, values.join(","));
        }
        Ok(Self { fetched })
    }

    /// A variable's value.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<String> {
        self.fetched.get(name).cloned().or_else(|| std::env::var(name).ok())
    }
}

/// One version of a secret; `None` if there is no version before the present one.
async fn value(
    client: &aws_sdk_secretsmanager::Client,
    name: &str,
    arn: &str,
    stage: &str,
) -> Result<Option<String>, String> {
    let answer = client
        .get_secret_value()
        .secret_id(arn)
        .version_stage(stage)
        .send()
        .await;
    match answer {
        Ok(answer) => match answer.secret_string().map(str::trim).filter(|value| !value.is_empty()) {
            Some(value) => Ok(Some(value.to_owned())),
            None => Err(format!("{name}: the secret {arn} holds no text")),
        },
        Err(error) => match error.as_service_error() {
            Some(GetSecretValueError::ResourceNotFoundException(_)) if stage != STAGES[0] => Ok(None),
            Some(error) => {
                let code = error.code().unwrap_or("an error without a code");
                Err(format!("{name}: the secret {arn} can't be read: {code}"))
            }
            None => Err(format!("{name}: Secrets Manager does not answer for {arn}")),
        },
    }
}

fn client(settings: &Settings, endpoint: Option<String>) -> aws_sdk_secretsmanager::Client {
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(Duration::from_secs(3))
        .build();
    let mut config = aws_sdk_secretsmanager::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(settings.region.clone()))
        .credentials_provider(settings.credentials.clone())
        .http_client(http_client([&endpoint]))
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard());
    config.set_endpoint_url(endpoint);
    aws_sdk_secretsmanager::Client::from_conf(config.build())
}
