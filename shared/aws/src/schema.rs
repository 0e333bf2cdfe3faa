//! The three tables and the two queues, as the template deploys them and as the local system creates them.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType,
};

use crate::{Error, connect::Clients};

/// The index of the ledger that holds rows with work left to do.
pub const WORK_INDEX: &str = "work";

/// How a queue hands out a message that was not deleted.
struct Redelivery {
    /// How long it stays hidden after it was received.
    hidden_s: u32,
    /// How often it is received before it goes to the dead letters.
    receives_max: u32,
}

/// What these follow from stands beside them in the template.
const USAGE: Redelivery = Redelivery {
    hidden_s: 780,
    receives_max: 5,
};
const ALERTS: Redelivery = Redelivery {
    hidden_s: 360,
    receives_max: 12,
};

/// The names of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Customers, keys and catalogs.
    pub accounts: String,
    /// Counter items.
    pub counters: String,
    /// Ledger rows and alerts.
    pub ledger: String,
}

impl Default for Tables {
    fn default() -> Self {
        let name = |part: &str| format!("farebox-{part}");
        Self {
            accounts: name("accounts"),
            counters: name("counters"),
            ledger: name("ledger"),
        }
    }
}

/// The URLs of the queues. Each has a dead-letter queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Usage messages, to the consumer.
    pub usage: String,
    /// What the consumer could not take.
    pub usage_dead: String,
    /// Alerts, to the notifier.
    pub alerts: String,
    /// What the notifier could not deliver.
    pub alerts_dead: String,
}

/// Creates what is missing: the tables, and the queues with their dead-letter queues.
///
/// # Errors
/// [`Error::Call`] if the service refuses.
pub async fn create(clients: &Clients, tables: &Tables) -> Result<Queues, Error> {
    let existing = clients
        .dynamodb
        .list_tables()
        .send()
        .await
        .map_err(|e| Error::call("list tables", &e))?
        .table_names
        .unwrap_or_default();
    for (name, has_sort_key) in [
        (&tables.accounts, Some("S")),
        (&tables.counters, None),
        (&tables.ledger, Some("N")),
    ] {
        if !existing.contains(name) {
            create_table(clients, name, has_sort_key, *name == tables.ledger).await?;
        }
    }
    let (usage, usage_dead) = create_queue(clients, "farebox-usage", &USAGE).await?;
    let (alerts, alerts_dead) = create_queue(clients, "farebox-alerts", &ALERTS).await?;
    Ok(Queues {
        usage,
        usage_dead,
        alerts,
        alerts_dead,
    })
}

async fn create_table(clients: &Clients, name: &str, sort: Option<&str>, has_work: bool) -> Result<(), Error> {
    let attribute = |name: &str, kind: ScalarAttributeType| {
        AttributeDefinition::builder()
            .attribute_name(name)
            .attribute_type(kind)
            .build()
    };
    let element = |name: &str, kind: KeyType| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
    let built = |e: aws_smithy_types::error::operation::BuildError| Error::Refused(e.to_string());

    let mut request = clients
        .dynamodb
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute("pk", ScalarAttributeType::S).map_err(built)?)
        .key_schema(element("pk", KeyType::Hash).map_err(built)?);
    if let Some(kind) = sort {
        let kind = if kind == "N" {
            ScalarAttributeType::N
        } else {
            ScalarAttributeType::S
        };
        request = request
            .attribute_definitions(attribute("sk", kind).map_err(built)?)
            .key_schema(element("sk", KeyType::Range).map_err(built)?);
    }
    if has_work {
        request = request
            .attribute_definitions(attribute("work", ScalarAttributeType::S).map_err(built)?)
            .attribute_definitions(attribute("due", ScalarAttributeType::N).map_err(built)?)
            .global_secondary_indexes(
                GlobalSecondaryIndex::builder()
                    .index_name(WORK_INDEX)
                    .key_schema(element("work", KeyType::Hash).map_err(built)?)
                    .key_schema(element("due", KeyType::Range).map_err(built)?)
                    .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
                    .build()
                    .map_err(built)?,
            );
    }
    request
        .send()
        .await
        .map_err(|e| Error::call(format!("create table {name}"), &e))?;
    Ok(())
}

/// The URLs of the queue and of its dead-letter queue.
async fn create_queue(clients: &Clients, name: &str, rule: &Redelivery) -> Result<(String, String), Error> {
    use aws_sdk_sqs::types::QueueAttributeName as Name;
    let no_url = || Error::Refused("the queue has no URL".to_owned());
    let dead = clients
        .sqs
        .create_queue()
        .queue_name(format!("{name}-dead"))
        .send()
        .await;
    let dead = dead
        .map_err(|e| Error::call("create dead-letter queue", &e))?
        .queue_url
        .ok_or_else(no_url)?;
    let attributes = clients
        .sqs
        .get_queue_attributes()
        .queue_url(&dead)
        .attribute_names(Name::QueueArn)
        .send()
        .await;
    let attributes = attributes
        .map_err(|e| Error::call("read dead-letter queue", &e))?
        .attributes
        .unwrap_or_default();
    let arn = attributes.get(&Name::QueueArn).cloned().unwrap_or_default();
    let receives_max = rule.receives_max;
    let redrive = format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":{receives_max}}}"#);
    let queue = clients
        .sqs
        .create_queue()
        .queue_name(name)
        .attributes(Name::RedrivePolicy, redrive)
        .attributes(Name::VisibilityTimeout, rule.hidden_s.to_string())
        .send()
        .await;
    let queue = queue
        .map_err(|e| Error::call(format!("create queue {name}"), &e))?
        .queue_url
        .ok_or_else(no_url)?;
    Ok((queue, dead))
}
