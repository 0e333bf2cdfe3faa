//! One `UpdateItem` per event with the tuned SDK, the authorizer's runtime, connections and profile, of the very shape that the
//! authorizer writes for a tier with one limit. No key, no tier, no usage, no metrics: the least that a Lambda authorizer on
//! the SDK as it is can do. It is signed by the SDK's own signer.

use std::time::Duration;

use aws_sdk_dynamodb::{
    Client,
    config::{BehaviorVersion, Region, StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig},
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure as OnFailure},
};
use farebox_aws::connect::{Settings, http_client};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

const UPDATE: &str = "SET #n0 = if_not_exists(#n0, :zero) + :cost, #n1 = if_not_exists(#n1, :zero) + :cost, \
                      #n2 = if_not_exists(#n2, :zero) + :cost";
const CONDITION: &str = "auth_epoch <= :epoch AND sealed < :bucket AND (attribute_not_exists(#p0) OR #p0 <= :p0) \
                         AND (attribute_not_exists(#n1) OR #n1 <= :w0)";
const NAMES: [(&str, &str); 4] = [
    ("#n0", "u1795435200.api_calls"),
    ("#n1", "w60000.29923920"),
    ("#n2", "q1793491200.api_calls.pro-00000000"),
    ("#p0", "w60000.29923919"),
];
const VALUES: [(&str, &str); 6] = [
    (":epoch", "1"),
    (":bucket", "1795435200"),
    (":zero", "0"),
    (":cost", "1"),
    (":p0", "22500"),
    (":w0", "999999999"),
];
const ANSWER: &str = r#"{"principalId":"bare","policyDocument":{"Version":"2012-10-17","Statement":[{"Action":"execute-api:Invoke","Effect":"Allow","Resource":"*"}]}}"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let read = |name: &str| std::env::var(name).ok();
    let client = &client(&Settings::from_env(read)?);
    let table = &read("COUNTERS_TABLE").ok_or("COUNTERS_TABLE is not set")?;
    update(client, table).await?; // opens the connection
    let answer: &RawValue = serde_json::from_str(ANSWER)?;
    lambda_runtime::run(service_fn(|_: LambdaEvent<IgnoredAny>| async move {
        update(client, table).await?;
        Ok::<_, Error>(answer.to_owned())
    }))
    .await
}

fn client(settings: &Settings) -> Client {
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_secs(3));
    let mut config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(settings.region.clone()))
        .credentials_provider(settings.credentials.clone())
        .http_client(http_client([&settings.dynamodb_endpoint]))
        .timeout_config(timeouts.build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .retry_config(RetryConfig::disabled());
    config.set_endpoint_url(settings.dynamodb_endpoint.clone());
    Client::from_conf(config.build())
}

async fn update(client: &Client, table: &str) -> Result<(), Error> {
    let mut request = client
        .update_item()
        .table_name(table)
        .key("pk", AttributeValue::S("bare#0".to_owned()))
        .update_expression(UPDATE)
        .condition_expression(CONDITION)
        .return_values(ReturnValue::AllNew)
        .return_values_on_condition_check_failure(OnFailure::AllOld);
    for (placeholder, name) in NAMES {
        request = request.expression_attribute_names(placeholder, name);
    }
    for (placeholder, value) in VALUES {
        request = request.expression_attribute_values(placeholder, AttributeValue::N(value.to_owned()));
    }
    request.send().await?;
    Ok(())
}
