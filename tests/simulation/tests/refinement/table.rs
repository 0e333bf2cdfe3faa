//! A table on the embedded DynamoDB, or on another one, and a write to it by the SDK.

use std::collections::HashMap;

use aws_sdk_dynamodb::{
    Client,
    config::Credentials,
    operation::update_item::UpdateItemError,
    types::{
        AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ReturnValue,
        ReturnValuesOnConditionCheckFailure as OnFailure, ScalarAttributeType,
    },
};
use farebox_aws::{
    connect::{Clients, Settings, http_client},
    random::Random,
};
use farebox_core::expression::{Expression, Value};
use farebox_model::refinement::Item;
use farebox_simulation::store::Store;

/// One table, keyed by `pk`.
pub(crate) struct Table {
    client: Client,
    /// The clients that the shipped code would have.
    pub(crate) clients: Clients,
    pub(crate) name: String,
}

impl Table {
    pub(crate) async fn open() -> Self {
        let endpoint = std::env::var("DYNAMODB_ENDPOINT").ok();
        let http = match &endpoint {
            Some(_) => http_client([&endpoint]),
            None => Store::new().http_client(),
        };
        let settings = Settings {
            region: "eu-central-1".to_owned(),
            credentials: Credentials::new("refinement", "refinement", None, None, "refinement"),
            dynamodb_endpoint: Some(endpoint.unwrap_or_else(|| "http://dynamodb.simulation".to_owned())),
            sqs_endpoint: Some("http://sqs.simulation".to_owned()),
        };
        let clients = Clients::over(&settings, http, Random::system());
        let name = format!("refinement-{}", Random::system().token().expect("random"));
        // A server that has just started may take longer than we wait.
        for _ in 0..20 {
            if clients.dynamodb.list_tables().send().await.is_ok() {
                break;
            }
        }
        let created = clients
            .dynamodb
            .create_table()
            .table_name(&name)
            .billing_mode(BillingMode::PayPerRequest)
            .attribute_definitions(
                AttributeDefinition::builder()
                    .attribute_name("pk")
                    .attribute_type(ScalarAttributeType::S)
                    .build()
                    .expect("an attribute"),
            )
            .key_schema(
                KeySchemaElement::builder()
                    .attribute_name("pk")
                    .key_type(KeyType::Hash)
                    .build()
                    .expect("a key"),
            );
        created.send().await.expect("a table");
        Self {
            client: clients.dynamodb.clone(),
            clients,
            name,
        }
    }

    /// Puts an item in place, if there is one.
    pub(crate) async fn put(&self, key: &str, item: Option<&Item>) {
        let Some(item) = item else { return };
        let mut request = self
            .client
            .put_item()
            .table_name(&self.name)
            .item("pk", AttributeValue::S(key.to_owned()));
        for (name, value) in item {
            request = request.item(name, attribute(value));
        }
        request.send().await.expect("put");
    }

    /// Runs a write on an item: the item after it, or if it was refused the item as it was.
    pub(crate) async fn run(&self, key: &str, before: Option<&Item>, write: &Expression) -> Result<Item, Option<Item>> {
        self.put(key, before).await;
        let mut request = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", AttributeValue::S(key.to_owned()))
            .update_expression(&write.update)
            .condition_expression(&write.condition)
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(OnFailure::AllOld);
        for (placeholder, name) in &write.names {
            request = request.expression_attribute_names(placeholder, name);
        }
        for (placeholder, value) in &write.values {
            request = request.expression_attribute_values(placeholder, attribute(value));
        }
        match request.send().await {
            Ok(answer) => Ok(read(answer.attributes.as_ref().expect("the item after the write"))),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => Err(failed.item.as_ref().map(read)),
                _ => panic!("{write:?} on {before:?}: {error:?}"),
            },
        }
    }
}

fn attribute(value: &Value) -> AttributeValue {
    match value {
        Value::N(n) => AttributeValue::N(n.to_string()),
        Value::S(s) => AttributeValue::S(s.clone()),
    }
}

fn read(item: &HashMap<String, AttributeValue>) -> Item {
    let value = |value: &AttributeValue| match value {
        AttributeValue::N(n) => Value::N(n.parse().expect("a whole number")),
        AttributeValue::S(s) => Value::S(s.clone()),
        other => panic!("nobody writes {other:?}"),
    };
    let attributes = item.iter().filter(|(name, _)| *name != "pk");
    attributes.map(|(name, known)| (name.clone(), value(known))).collect()
}
