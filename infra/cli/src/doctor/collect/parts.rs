//! The parts of a stack: tables, queues and what reads them, functions, schedules, secrets, alarms.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{BillingMode, KeySchemaElement, TableDescription, TimeToLiveStatus};
use aws_sdk_secretsmanager::operation::describe_secret::DescribeSecretError;
use aws_sdk_sqs::types::QueueAttributeName;
use farebox_aws::connect::http_client;
use serde::Deserialize;

use super::Look;
use crate::{
    aws::{Service, encoded},
    doctor::facts::{
        Alarm, Function, Mapping, Queue, QueueSettings, Schedule, Secret, SecretKind, Subscription, Table, TableKind,
        TableSafety, TableSettings,
    },
    reach::cause,
    stack::Stack,
};

const FUNCTIONS: [&str; 4] = ["authorizer", "consumer", "webhook", "notifier"];
const SCHEDULES: [&str; 2] = ["tick", "scan"];

impl Look<'_> {
    pub(super) async fn tables(&mut self) {
        let tables = &self.reach.tables;
        for (kind, name) in [
            (TableKind::Accounts, &tables.accounts),
            (TableKind::Counters, &tables.counters),
            (TableKind::Ledger, &tables.ledger),
        ] {
            let fix =
                "allow dynamodb:DescribeTable, DescribeContinuousBackups and DescribeTimeToLive to whoever runs this";
            let seen = self.table(kind, name).await;
            let seen = self.keep(&format!("table {name}"), fix, seen);
            self.facts.tables.extend(seen);
        }
    }

    async fn table(&self, kind: TableKind, name: &str) -> Result<Table, String> {
        let dynamodb = &self.reach.clients.dynamodb;
        let described = match dynamodb.describe_table().table_name(name).send().await {
            Ok(answer) => answer.table,
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_resource_not_found_exception()) =>
            {
                None
            }
            Err(error) => return Err(cause(&error)),
        };
        let safety = match &described {
            Some(table) if !self.reach.is_local => Some(self.safety(name, table).await?),
            _ => None,
        };
        Ok(Table {
            kind,
            name: name.to_owned(),
            settings: described.map(|table| table_settings(&table)),
            safety,
        })
    }

    async fn safety(&self, name: &str, table: &TableDescription) -> Result<TableSafety, String> {
        let dynamodb = &self.reach.clients.dynamodb;
        let backups = dynamodb.describe_continuous_backups().table_name(name).send().await;
        let recovery = backups
            .map_err(|e| cause(&e))?
            .continuous_backups_description
            .and_then(|backups| backups.point_in_time_recovery_description)
            .and_then(|recovery| recovery.point_in_time_recovery_status);
        let expiry = dynamodb.describe_time_to_live().table_name(name).send().await;
        let expiry = expiry.map_err(|e| cause(&e))?.time_to_live_description;
        let is_on = |status: &Option<TimeToLiveStatus>| {
            matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling))
        };
        Ok(TableSafety {
            is_deletion_protected: table.deletion_protection_enabled == Some(true),
            has_point_in_time_recovery: recovery.is_some_and(|status| status.as_str() == "ENABLED"),
            expires_by: expiry
                .filter(|expiry| is_on(&expiry.time_to_live_status))
                .and_then(|expiry| expiry.attribute_name),
        })
    }

    pub(super) async fn queues(&mut self) {
        for part in ["usage", "alerts"] {
            let seen = self.queue(part).await.map(|settings| Queue { part, settings });
            let seen = self.keep(
                &format!("the {part} queue"),
                "allow sqs:GetQueueUrl and GetQueueAttributes to whoever runs this",
                seen,
            );
            self.facts.queues.extend(seen);
        }
    }

    async fn queue(&self, part: &str) -> Result<Option<QueueSettings>, String> {
        let Some(url) = self.reach.find_queue(part).await.map_err(|e| e.to_string())? else {
            return Ok(None);
        };
        let attributes = self.attributes(&url).await?;
        let dead_letter_depth = match self.reach.find_queue(&format!("{part}-dead")).await {
            Ok(Some(dead)) => depth(&self.attributes(&dead).await?).map_err(|e| format!("dead letters: {e}"))?,
            Ok(None) => 0,
            Err(failure) => return Err(failure.to_string()),
        };
        Ok(Some(queue_settings(url, &attributes, dead_letter_depth)?))
    }

    async fn attributes(&self, url: &str) -> Result<Attributes, String> {
        let request = self.reach.clients.sqs.get_queue_attributes().queue_url(url);
        let answer = request.attribute_names(QueueAttributeName::All).send().await;
        Ok(answer.map_err(|e| cause(&e))?.attributes.unwrap_or_default())
    }

    /// What only a stack has.
    pub(super) async fn deployed(&mut self, stack: &Stack) {
        for part in FUNCTIONS {
            let name = format!("{}-{part}", stack.name);
            let path = format!("/2015-03-31/functions/{}/configuration", encoded(&name));
            let seen = self.reader.read(Service::Lambda, &path).await;
            let seen = self.keep(
                &format!("function {name}"),
                "allow lambda:GetFunctionConfiguration to whoever runs this",
                seen,
            );
            self.facts
                .functions
                .extend(seen.map(|settings| Function { part, name, settings }));
        }
        let mappings = self.mappings(&stack.name).await;
        self.facts.mappings = self.keep(
            "what reads the queues",
            "allow lambda:ListEventSourceMappings to whoever runs this",
            mappings,
        );
        for part in SCHEDULES {
            let name = format!("{}-{part}", stack.name);
            let seen = self.schedule(&name).await;
            let seen = self.keep(
                &format!("schedule {name}"),
                "allow scheduler:GetSchedule to whoever runs this",
                seen,
            );
            self.facts
                .schedules
                .extend(seen.map(|state| Schedule { part, name, state }));
        }
        for (kind, arn) in [
            (SecretKind::StripeKey, stack.parameters.get("StripeKeySecretArn")),
            (SecretKind::Webhook, stack.outputs.get("WebhookSecretArn")),
        ] {
            let Some(arn) = arn.cloned() else { continue };
            let seen = self.versions(&arn).await;
            let seen = self.keep(
                &format!("secret {arn}"),
                "allow secretsmanager:DescribeSecret to whoever runs this",
                seen,
            );
            self.facts.secrets.extend(seen.map(|versions| Secret {
                kind,
                arn,
                versions,
                fault: None,
            }));
        }
        let alarms = self.reader.alarms::<Alarm>(&format!("{}-", stack.name)).await;
        let alarms = self.keep(
            "the alarms",
            "allow cloudwatch:DescribeAlarms to whoever runs this",
            alarms,
        );
        self.facts.alarms = alarms.map(|alarms| {
            alarms
                .into_iter()
                .map(|alarm| (alarm.alarm_name.clone(), alarm))
                .collect()
        });
        if let Some(topic) = stack.outputs.get("OperatorTopicArn") {
            let seen = self.subscriptions(topic).await;
            self.facts.subscriptions = self.keep(
                "who is told",
                "allow sns:ListSubscriptionsByTopic to whoever runs this",
                seen,
            );
        }
    }

    async fn mappings(&self, stack: &str) -> Result<Vec<Mapping>, String> {
        let mut mappings = Vec::new();
        for function in ["consumer", "notifier"] {
            let path = format!("/2015-03-31/event-source-mappings?FunctionName={stack}-{function}");
            mappings.extend(self.reader.list(Service::Lambda, &path).await?);
        }
        Ok(mappings)
    }

    async fn schedule(&self, name: &str) -> Result<Option<String>, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Found {
            state: String,
        }
        let path = format!("/schedules/{}", encoded(name));
        let found: Option<Found> = self.reader.read(Service::Scheduler, &path).await?;
        Ok(found.map(|found| found.state))
    }

    pub(super) fn secrets_manager(&self) -> aws_sdk_secretsmanager::Client {
        let settings = &self.reach.settings;
        let mut config = aws_sdk_secretsmanager::Config::builder()
            .behavior_version(aws_sdk_secretsmanager::config::BehaviorVersion::latest())
            .region(aws_sdk_secretsmanager::config::Region::new(settings.region.clone()))
            .credentials_provider(settings.credentials.clone())
            .http_client(http_client([&self.reach.endpoint]));
        config.set_endpoint_url(self.reach.endpoint.clone());
        aws_sdk_secretsmanager::Client::from_conf(config.build())
    }

    /// How many versions of a secret carry a name, `AWSCURRENT` or `AWSPREVIOUS`.
    async fn versions(&self, arn: &str) -> Result<Option<usize>, String> {
        match self.secrets_manager().describe_secret().secret_id(arn).send().await {
            Ok(secret) if secret.deleted_date.is_some() => Ok(None),
            Ok(secret) => {
                let versions = secret.version_ids_to_stages.unwrap_or_default();
                Ok(Some(versions.values().filter(|names| !names.is_empty()).count()))
            }
            Err(error) => match error.as_service_error() {
                Some(DescribeSecretError::ResourceNotFoundException(_)) => Ok(None),
                _ => Err(cause(&error)),
            },
        }
    }

    async fn subscriptions(&self, topic: &str) -> Result<Vec<Subscription>, String> {
        let settings = &self.reach.settings;
        let mut config = aws_sdk_sns::Config::builder()
            .behavior_version(aws_sdk_sns::config::BehaviorVersion::latest())
            .region(aws_sdk_sns::config::Region::new(settings.region.clone()))
            .credentials_provider(settings.credentials.clone())
            .http_client(http_client([&self.reach.endpoint]));
        config.set_endpoint_url(self.reach.endpoint.clone());
        let sns = aws_sdk_sns::Client::from_conf(config.build());
        let mut pages = sns
            .list_subscriptions_by_topic()
            .topic_arn(topic)
            .into_paginator()
            .items()
            .send();
        let mut subscriptions = Vec::new();
        while let Some(one) = pages.next().await {
            let one = one.map_err(|e| cause(&e))?;
            subscriptions.push(Subscription {
                endpoint: one.endpoint.unwrap_or_default(),
                is_confirmed: one.subscription_arn.is_some_and(|arn| arn.starts_with("arn:")),
            });
        }
        Ok(subscriptions)
    }
}

type Attributes = HashMap<QueueAttributeName, String>;

/// Messages in a queue, visible or not.
///
/// # Errors
/// A text if SQS does not say: a queue of which nothing is known is not an empty one.
pub(crate) fn depth(attributes: &Attributes) -> Result<u64, String> {
    let count = |name: QueueAttributeName| {
        let count = attributes.get(&name).and_then(|count| count.parse::<u64>().ok());
        count.ok_or_else(|| format!("its {name} can't be read"))
    };
    let visible = count(QueueAttributeName::ApproximateNumberOfMessages)?;
    let taken = count(QueueAttributeName::ApproximateNumberOfMessagesNotVisible)?;
    let delayed = count(QueueAttributeName::ApproximateNumberOfMessagesDelayed)?;
    Ok(visible.saturating_add(taken).saturating_add(delayed))
}

fn queue_settings(url: String, attributes: &Attributes, dead_letter_depth: u64) -> Result<QueueSettings, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Redrive {
        dead_letter_target_arn: String,
    }
    let visibility = attributes.get(&QueueAttributeName::VisibilityTimeout);
    // A queue whose messages go nowhere has no such policy.
    let redrive = attributes.get(&QueueAttributeName::RedrivePolicy);
    let redrive: Option<Redrive> = redrive
        .map(|policy| serde_json::from_str(policy))
        .transpose()
        .map_err(|e| format!("its redrive policy can't be read: {e}"))?;
    Ok(QueueSettings {
        visibility_s: visibility
            .and_then(|seconds| seconds.parse().ok())
            .ok_or("its visibility timeout can't be read")?,
        dead_letters: redrive.map(|redrive| redrive.dead_letter_target_arn),
        dead_letter_depth,
        url,
    })
}

fn table_settings(table: &TableDescription) -> TableSettings {
    let key = |schema: &[KeySchemaElement]| {
        let parts = schema.iter().map(|element| {
            let mut attributes = table.attribute_definitions().iter();
            let kind = attributes.find(|attribute| attribute.attribute_name == element.attribute_name);
            let kind = kind.map_or("?", |attribute| attribute.attribute_type.as_str());
            format!("{} {kind}", element.attribute_name)
        });
        parts.collect::<Vec<_>>().join(", ")
    };
    let indexes = table.global_secondary_indexes().iter();
    TableSettings {
        key: key(table.key_schema()),
        indexes: indexes
            .map(|index| {
                format!(
                    "{}: {}",
                    index.index_name().unwrap_or_default(),
                    key(index.key_schema())
                )
            })
            .collect(),
        // A table that never had another mode has no summary of it, and then it is provisioned.
        is_on_demand: table
            .billing_mode_summary()
            .and_then(|summary| summary.billing_mode())
            .is_some_and(|mode| *mode == BillingMode::PayPerRequest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_does_not_say_its_settings_is_not_judged_by_others() {
        let read = |pairs: &[(QueueAttributeName, &str)]| {
            let attributes = pairs.iter().map(|(name, value)| (name.clone(), (*value).to_owned()));
            queue_settings("https://q".to_owned(), &attributes.collect(), 0)
        };
        let visibility = (QueueAttributeName::VisibilityTimeout, "30");
        let policy = |text| (QueueAttributeName::RedrivePolicy, text);
        let settings = read(&[
            visibility.clone(),
            policy(r#"{"deadLetterTargetArn":"arn:dead","maxReceiveCount":5}"#),
        ]);
        let settings = settings.unwrap();
        assert_eq!(
            (settings.visibility_s, settings.dead_letters.as_deref()),
            (30, Some("arn:dead"))
        );
        assert_eq!(read(std::slice::from_ref(&visibility)).unwrap().dead_letters, None);
        for (attributes, word) in [
            (vec![], "visibility"),
            (vec![(QueueAttributeName::VisibilityTimeout, "soon")], "visibility"),
            (vec![visibility.clone(), policy("{}")], "redrive"),
        ] {
            assert!(read(&attributes).unwrap_err().contains(word));
        }
    }

    #[test]
    fn a_queue_that_does_not_say_what_it_holds_is_not_taken_for_empty() {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let all: Attributes = names.iter().cloned().zip(["4", "2", "1"].map(str::to_owned)).collect();
        assert_eq!(depth(&all).unwrap(), 7);
        for name in names {
            for unread in [None, Some(""), Some("-1"), Some("many")] {
                let mut some = all.clone();
                some.remove(&name);
                some.extend(unread.map(|text| (name.clone(), text.to_owned())));
                assert_eq!(depth(&some).unwrap_err(), format!("its {name} can't be read"));
            }
        }
    }
}
