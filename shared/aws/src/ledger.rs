//! The ledger table: rows on their way from open to reported, and the alerts that were noticed.

use aws_sdk_dynamodb::{
    operation::update_item::UpdateItemError,
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure as OnFailure},
};
use farebox_core::{
    expression::Expression,
    ledger::{Row, RowKey, WORK_PARTITIONS, work_partition},
};

use crate::{Error, connect::Clients, counters::bind, item, schema::WORK_INDEX};

/// The ledger table.
#[derive(Clone, Debug)]
pub struct LedgerTable {
    clients: Clients,
    table: String,
}

/// How a write to a row ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowWrite {
    /// Applied; the row after it.
    Applied(Row),
    /// The condition failed; the row as it is.
    Refused(Option<Row>),
}

/// A threshold of a quota that a customer reached.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Alert {
    /// Who.
    pub customer: String,
    /// The meter.
    pub meter: String,
    /// The threshold, percent of the included units.
    pub percent: u64,
    /// The billing period's start, unix seconds.
    pub period: u64,
    /// Units when it was noticed.
    pub units: u64,
    /// The included units.
    pub included: u64,
}

impl LedgerTable {
    /// The table of this name.
    #[must_use]
    pub fn new(clients: Clients, table: String) -> Self {
        Self { clients, table }
    }

    /// One transition of a row. Every transition may be repeated, so the SDK may retry it.
    ///
    /// # Errors
    /// [`Error`] if the outcome is not known.
    pub async fn write(&self, key: &RowKey, write: Expression) -> Result<RowWrite, Error> {
        let operation = || format!("update {} {key}", self.table);
        let readable = |item: &item::Item| item::row(item).map_err(|problem| Error::item(operation(), problem));
        let request = bind(self.clients.dynamodb.update_item(), write)
            .table_name(&self.table)
            .key("pk", AttributeValue::S(key.partition()))
            .key("sk", AttributeValue::N(key.bucket.to_string()))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(OnFailure::AllOld);
        match request.send().await {
            Ok(answer) => match answer.attributes.as_ref() {
                Some(item) => Ok(RowWrite::Applied(readable(item)?)),
                None => Err(Error::item(operation(), "the answer carries no item")),
            },
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                    Ok(RowWrite::Refused(failed.item.as_ref().map(readable).transpose()?))
                }
                _ => Err(Error::call(operation(), &error)),
            },
        }
    }

    /// Reads a row, consistently.
    ///
    /// # Errors
    /// [`Error`] if it can't be read.
    pub async fn read(&self, key: &RowKey) -> Result<Option<Row>, Error> {
        let operation = || format!("read {} {key}", self.table);
        let answer = self
            .clients
            .dynamodb
            .get_item()
            .table_name(&self.table)
            .key("pk", AttributeValue::S(key.partition()))
            .key("sk", AttributeValue::N(key.bucket.to_string()))
            .consistent_read(true)
            .send()
            .await
            .map_err(|e| Error::call(operation(), &e))?;
        answer
            .item
            .as_ref()
            .map(item::row)
            .transpose()
            .map_err(|problem| Error::item(operation(), problem))
    }

    /// The keys of at most `most` rows whose time has come, oldest first in each partition. The index may lag: what a row
    /// really is, its own write tells.
    ///
    /// # Errors
    /// [`Error`] if the index can't be read.
    pub async fn due(&self, now_s: u64, most: usize) -> Result<Vec<RowKey>, Error> {
        let operation = || format!("query {} {WORK_INDEX}", self.table);
        let mut keys = Vec::new();
        for n in 0..WORK_PARTITIONS {
            let mut pages = self
                .clients
                .dynamodb
                .query()
                .table_name(&self.table)
                .index_name(WORK_INDEX)
                .key_condition_expression("#work = :work AND #due <= :now")
                .expression_attribute_names("#work", "work")
                .expression_attribute_names("#due", "due")
                .expression_attribute_values(":work", AttributeValue::S(work_partition(n)))
                .expression_attribute_values(":now", AttributeValue::N(now_s.to_string()))
                .into_paginator()
                .items()
                .send();
            let mut found = 0;
            while let Some(item) = pages.next().await {
                let item = item.map_err(|e| Error::call(operation(), &e))?;
                let key = item::text(&item, "pk")
                    .zip(item::number(&item, "sk"))
                    .and_then(|(partition, bucket)| RowKey::parse(partition, bucket));
                match key {
                    Some(key) => keys.push(key),
                    // One row that nobody can read must not keep all others from being billed.
                    None => tracing::error!(
                        table = self.table,
                        "a due row has a key that is not a row's; look at it"
                    ),
                }
                found += 1;
                if found == most {
                    break;
                }
            }
        }
        Ok(keys)
    }

    /// When the next row is due, unix seconds; `None` if nothing is left to do.
    ///
    /// # Errors
    /// [`Error`] if the index can't be read.
    pub async fn next_due(&self) -> Result<Option<u64>, Error> {
        let mut next = None;
        for n in 0..WORK_PARTITIONS {
            let answer = self
                .clients
                .dynamodb
                .query()
                .table_name(&self.table)
                .index_name(WORK_INDEX)
                .key_condition_expression("#work = :work")
                .expression_attribute_names("#work", "work")
                .expression_attribute_values(":work", AttributeValue::S(work_partition(n)))
                .limit(1)
                .send()
                .await
                .map_err(|e| Error::call(format!("query {} {WORK_INDEX}", self.table), &e))?;
            let due = answer.items().first().and_then(|item| item::number(item, "due"));
            next = next.into_iter().chain(due).min();
        }
        Ok(next)
    }

    /// Every row, for reports and the state page. Alerts are left out.
    ///
    /// # Errors
    /// [`Error`] if a page can't be read.
    pub async fn scan(&self) -> Result<(Vec<Row>, Vec<Alert>), Error> {
        let operation = || format!("scan {}", self.table);
        let (mut rows, mut alerts) = (Vec::new(), Vec::new());
        let mut pages = self
            .clients
            .dynamodb
            .scan()
            .table_name(&self.table)
            .into_paginator()
            .items()
            .send();
        while let Some(item) = pages.next().await {
            let item = item.map_err(|e| Error::call(operation(), &e))?;
            let bad = |problem: String| Error::item(operation(), problem);
            match item::text(&item, "kind") {
                None => rows.push(item::row(&item).map_err(bad)?),
                Some("alert") => alerts.push(alert(&item).ok_or_else(|| bad("not an alert".to_owned()))?),
                Some(_) => {}
            }
        }
        Ok((rows, alerts))
    }

    /// Stores an alert once per customer, meter, period and threshold. Says whether it was new.
    ///
    /// # Errors
    /// [`Error`] if it can't be stored.
    pub async fn note_alert(&self, alert: &Alert) -> Result<bool, Error> {
        let number = |n: u64| AttributeValue::N(n.to_string());
        let text = |s: &str| AttributeValue::S(s.to_owned());
        let result = self
            .clients
            .dynamodb
            .put_item()
            .table_name(&self.table)
            .item(
                "pk",
                text(&format!("{}#alert#{}#{}", alert.customer, alert.meter, alert.percent)),
            )
            .item("sk", number(alert.period))
            .item("kind", text("alert"))
            .item("customer", text(&alert.customer))
            .item("meter", text(&alert.meter))
            .item("percent", number(alert.percent))
            .item("units", number(alert.units))
            .item("included", number(alert.included))
            .condition_expression("attribute_not_exists(pk)")
            .send()
            .await;
        match result {
            Ok(_) => Ok(true),
            Err(e)
                if e.as_service_error()
                    .is_some_and(|e| e.is_conditional_check_failed_exception()) =>
            {
                Ok(false)
            }
            Err(e) => Err(Error::call(format!("put alert into {}", self.table), &e)),
        }
    }

    /// Raises what one counter item has of a customer's period, and returns the sum over all of the customer's counter items.
    ///
    /// # Errors
    /// [`Error`] if it can't be written.
    pub async fn period_units(
        &self,
        customer: &str,
        meter: &str,
        period: u64,
        shard: u32,
        units: u64,
    ) -> Result<u64, Error> {
        let name = format!("shard{shard}");
        let operation = || format!("update {} {customer} period", self.table);
        let result = self
            .clients
            .dynamodb
            .update_item()
            .table_name(&self.table)
            .key("pk", AttributeValue::S(format!("{customer}#period#{meter}")))
            .key("sk", AttributeValue::N(period.to_string()))
            .update_expression("SET #shard = :units, kind = :kind")
            .condition_expression("attribute_not_exists(#shard) OR #shard < :units")
            .expression_attribute_names("#shard", name)
            .expression_attribute_values(":units", AttributeValue::N(units.to_string()))
            .expression_attribute_values(":kind", AttributeValue::S("period".to_owned()))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(OnFailure::AllOld)
            .send()
            .await;
        let item = match result {
            Ok(answer) => answer.attributes,
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => failed.item.clone(),
                _ => return Err(Error::call(operation(), &error)),
            },
        };
        let item = item.unwrap_or_default();
        let shards = item.keys().filter(|name| name.starts_with("shard"));
        Ok(shards
            .filter_map(|name| item::number(&item, name))
            .fold(0, u64::saturating_add))
    }
}

fn alert(item: &item::Item) -> Option<Alert> {
    Some(Alert {
        customer: item::text(item, "customer")?.to_owned(),
        meter: item::text(item, "meter")?.to_owned(),
        percent: item::number(item, "percent")?,
        period: item::number(item, "sk")?,
        units: item::number(item, "units")?,
        included: item::number(item, "included")?,
    })
}
