//! Counter items: the write that admits, and what seals, prunes and bumps.

use aws_sdk_dynamodb::{
    operation::update_item::{UpdateItemError, builders::UpdateItemFluentBuilder},
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure as OnFailure},
};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use farebox_core::{admission::Counters, expression::Expression, id::CustomerId};

use crate::{
    Error,
    connect::Clients,
    item::{self, Item},
};

/// The counters table.
#[derive(Clone, Debug)]
pub struct CounterTable {
    clients: Clients,
    table: String,
}

/// How the write that counts ended. Only `Throttled` and `NotApplied` may be tried again.
#[derive(Debug)]
pub enum Outcome {
    /// It was applied; this is the item after it.
    Applied(Counters),
    /// The condition failed; this is the item, `None` if there is none.
    ConditionFailed(Option<Counters>),
    /// The table answered that it is busy, or that a transaction holds the item: it was certainly not applied.
    Throttled {
        /// What happened.
        cause: String,
    },
    /// It was certainly not applied: refused, or never sent.
    NotApplied {
        /// Whether a retry can help.
        retryable: bool,
        /// What happened.
        cause: String,
    },
    /// Nobody knows: it was sent and no readable answer came.
    Unknown {
        /// What happened.
        cause: String,
    },
}

/// How a control-plane write to an item ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Updated {
    /// Applied; the item after it.
    Applied(Counters),
    /// The condition failed; the item as it is.
    Refused(Option<Counters>),
}

/// What a scan of the table found.
#[derive(Debug, Default)]
pub struct Scanned {
    /// Each item with its customer and shard.
    pub items: Vec<(CustomerId, u32, Counters)>,
    /// Items that nobody can read.
    pub unreadable: u64,
}

fn scanned(item: &Item) -> Result<(CustomerId, u32, Counters), String> {
    let key = item::text(item, "pk").and_then(|key| key.split_once('#'));
    let (customer, shard) = key.ok_or("the key is not a counter's")?;
    let customer = CustomerId::try_from(customer.to_owned()).map_err(|e| e.to_string())?;
    let shard = shard.parse().map_err(|_| "the key names no shard".to_owned())?;
    Ok((customer, shard, item::counters(item)?))
}

/// The key of a counter item.
#[must_use]
pub fn key(customer: &CustomerId, shard: u32) -> String {
    format!("{customer}#{shard}")
}

impl CounterTable {
    /// The table of this name.
    #[must_use]
    pub fn new(clients: Clients, table: String) -> Self {
        Self { clients, table }
    }

    /// The write that admits and meters: one attempt, no retry, and an exact account of how it ended.
    pub async fn admit(&self, key: &str, write: Expression) -> Outcome {
        let request = self.update(&self.clients.dynamodb_once, key, write);
        match request.send().await {
            Ok(answer) => match answer.attributes.as_ref().map(item::counters) {
                Some(Ok(counters)) => Outcome::Applied(counters),
                // It was applied: only the figures are missing. Denying it would count what was not served.
                _ => Outcome::Unknown {
                    cause: "the item after the write is not readable".to_owned(),
                },
            },
            Err(error) => classify(&error),
        }
    }

    /// A write that may be repeated: seal, prune, bump, create, restore.
    ///
    /// # Errors
    /// [`Error::Call`] if the outcome is not known.
    pub async fn write(&self, key: &str, write: Expression) -> Result<Updated, Error> {
        let operation = || format!("update {} {key}", self.table);
        let readable = |item: &Item| item::counters(item).map_err(|problem| Error::item(operation(), problem));
        match self.update(&self.clients.dynamodb, key, write).send().await {
            Ok(answer) => match answer.attributes.as_ref() {
                Some(item) => Ok(Updated::Applied(readable(item)?)),
                None => Err(Error::item(operation(), "the answer carries no item")),
            },
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                    Ok(Updated::Refused(failed.item.as_ref().map(readable).transpose()?))
                }
                _ => Err(Error::call(operation(), &error)),
            },
        }
    }

    /// Reads an item, consistently.
    ///
    /// # Errors
    /// [`Error`] if it can't be read.
    pub async fn read(&self, key: &str) -> Result<Option<Counters>, Error> {
        let operation = || format!("read {} {key}", self.table);
        let answer = self
            .clients
            .dynamodb
            .get_item()
            .table_name(&self.table)
            .key("pk", AttributeValue::S(key.to_owned()))
            .consistent_read(true)
            .send()
            .await
            .map_err(|e| Error::call(operation(), &e))?;
        answer
            .item
            .as_ref()
            .map(item::counters)
            .transpose()
            .map_err(|problem| Error::item(operation(), problem))
    }

    /// Reads every item of the table, page by page: the daily scan. One that can't be read is logged and counted: it must not
    /// keep the others from being billed.
    ///
    /// # Errors
    /// [`Error`] if a page can't be read.
    pub async fn scan(&self) -> Result<Scanned, Error> {
        let mut found = Scanned::default();
        let mut pages = self
            .clients
            .dynamodb
            .scan()
            .table_name(&self.table)
            .into_paginator()
            .items()
            .send();
        while let Some(item) = pages.next().await {
            let item = item.map_err(|e| Error::call(format!("scan {}", self.table), &e))?;
            match scanned(&item) {
                Ok(item) => found.items.push(item),
                Err(problem) => {
                    let key = item::text(&item, "pk").unwrap_or_default();
                    tracing::error!(
                        table = self.table,
                        key,
                        problem,
                        "a counter item is not readable; look at it"
                    );
                    found.unreadable += 1;
                }
            }
        }
        Ok(found)
    }

    fn update(&self, client: &aws_sdk_dynamodb::Client, key: &str, write: Expression) -> UpdateItemFluentBuilder {
        bind(client.update_item(), write)
            .table_name(&self.table)
            .key("pk", AttributeValue::S(key.to_owned()))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(OnFailure::AllOld)
    }
}

pub(crate) fn bind(mut request: UpdateItemFluentBuilder, write: Expression) -> UpdateItemFluentBuilder {
    request = request
        .update_expression(write.update)
        .condition_expression(write.condition);
    for (placeholder, name) in write.names {
        request = request.expression_attribute_names(placeholder, name);
    }
    for (placeholder, value) in write.values {
        request = request.expression_attribute_values(placeholder, item::value(value));
    }
    request
}

/// Classifies a failed write. Whatever is not certainly something else is unknown.
fn classify<R>(error: &SdkError<UpdateItemError, R>) -> Outcome
where
    R: std::fmt::Debug,
{
    let cause = Error::call("admit", error).to_string();
    match error {
        SdkError::ConstructionFailure(_) => Outcome::NotApplied {
            retryable: false,
            cause,
        },
        SdkError::DispatchFailure(failure) if failure.as_connector_error().is_some_and(|e| was_refused(e)) => {
            Outcome::NotApplied { retryable: true, cause }
        }
        SdkError::ServiceError(service) => match service.err() {
            UpdateItemError::ConditionalCheckFailedException(failed) => {
                match failed.item.as_ref().map(item::counters).transpose() {
                    Ok(counters) => Outcome::ConditionFailed(counters),
                    Err(problem) => Outcome::NotApplied {
                        retryable: false,
                        cause: problem,
                    },
                }
            }
            other => match other.code() {
                // https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
                Some(
                    "ProvisionedThroughputExceededException"
                    | "ThrottlingException"
                    | "RequestLimitExceeded"
                    | "TransactionConflictException",
                ) => Outcome::Throttled { cause },
                Some("InternalServerError" | "ServiceUnavailable") | None => Outcome::Unknown { cause },
                Some(
                    "ResourceNotFoundException"
                    | "ValidationException"
                    | "AccessDeniedException"
                    | "UnrecognizedClientException"
                    | "ExpiredTokenException"
                    | "MissingAuthenticationTokenException"
                    | "IncompleteSignatureException"
                    | "ItemCollectionSizeLimitExceededException",
                ) => Outcome::NotApplied {
                    retryable: false,
                    cause,
                },
                Some(_) => Outcome::Unknown { cause },
            },
        },
        _ => Outcome::Unknown { cause },
    }
}

/// Whether the connection was refused: then not a byte of the request was sent.
fn was_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return true;
        }
        cause = error.source();
    }
    false
}
