//! One `UpdateItem` per event with the authorizer's own client, runtime and profile, of the very shape that the authorizer
//! writes for a tier with one limit. No key, no tier, no usage, no metrics: the least that a Lambda authorizer on this SDK can do.

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure as OnFailure};
use farebox_aws::connect::{Clients, Need, Settings};
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
    let clients = &Clients::new(&Settings::from_env(read)?);
    let table = &read("COUNTERS_TABLE").ok_or("COUNTERS_TABLE is not set")?;
    clients.check(&[Need::Counters(table)]).await?;
    let answer: &RawValue = serde_json::from_str(ANSWER)?;
    lambda_runtime::run(service_fn(|_: LambdaEvent<IgnoredAny>| async move {
        update(clients, table).await?;
        Ok::<_, Error>(answer.to_owned())
    }))
    .await
}

async fn update(clients: &Clients, table: &str) -> Result<(), Error> {
    let mut request = clients
        .dynamodb_once
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
