//! The ledger table: rows on their way from open to reported, units that were given, and the alerts that were noticed.

use std::{collections::HashMap, time::Duration};

use aws_sdk_dynamodb::{
    operation::{transact_write_items::TransactWriteItemsError, update_item::UpdateItemError},
    types::{
        AttributeValue, Put, ReturnValue, ReturnValuesOnConditionCheckFailure as OnFailure, TransactWriteItem, Update,
    },
};
use farebox_core::{
    expression::Expression,
    id::CustomerId,
    ledger::{self, Balance, Row, RowKey, WORK_PARTITIONS, work_partition},
    tiers::PlanId,
};

use crate::{
    Error,
    connect::Clients,
    counters::bind,
    item::{self, Item},
    schema::WORK_INDEX,
};

/// How often a transaction is tried that was canceled for a reason which passes: another one on the same item, a busy table.
const TRIES_MAX: u32 = 5;
/// The pause before the second try; each further one is as much longer.
const PAUSE: Duration = Duration::from_millis(20);

/// The ledger table.
#[derive(Clone, Debug)]
pub struct LedgerTable {
    clients: Clients,
    table: String,
}

/// What was given under a grant's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// Units.
    pub units: u64,
    /// The start of the billing period that they were given in; marks that are older than this field have none.
    pub period: Option<u64>,
}

/// How a write to a row ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowWrite {
    /// Applied; the row after it.
    Applied(Row),
    /// The condition failed; the row as it is.
    Refused(Option<Row>),
}

/// A threshold of a quota or a spend cap that a customer reached.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Alert {
    /// Who.
    pub customer: String,
    /// `quota` or `spend_cap`.
    pub of: String,
    /// What the customer paid then.
    pub plan: String,
    /// The meter.
    pub meter: String,
    /// The threshold, percent of the included units, or of those that the cap leaves room for.
    pub percent: u64,
    /// The billing period's start, unix seconds.
    pub period: u64,
    /// Units when it was noticed.
    pub units: u64,
    /// What the percentage is of.
    pub included: u64,
}

impl Alert {
    /// Names the occasion: whoever notices it again names it the same. The same share of another amount is another occasion.
    #[must_use]
    pub fn id(&self) -> String {
        format!(
            "{}-{}-{}-{}-{}-{}-{}",
            self.of, self.customer, self.meter, self.plan, self.period, self.percent, self.included
        )
    }
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

    /// Units given to a customer and not yet taken off its reports.
    ///
    /// # Errors
    /// [`Error`] if it can't be read.
    pub async fn balance(&self, customer: &CustomerId, meter: &str) -> Result<Balance, Error> {
        let answer = self
            .clients
            .dynamodb
            .get_item()
            .table_name(&self.table)
            .set_key(Some(credit_key(customer, meter)))
            .consistent_read(true)
            .send()
            .await
            .map_err(|e| Error::call(format!("read {} credit", self.table), &e))?;
        let item = answer.item.unwrap_or_default();
        let number = |name| item::number(&item, name).unwrap_or(0);
        Ok(Balance {
            granted: number("granted"),
            taken: number("taken"),
        })
    }

    /// Gives units to a customer for the billing period that begins then, once per grant id. Returns what was given under that
    /// id: now, or before.
    ///
    /// # Errors
    /// [`Error`] if it can't be written, [`Error::Contended`] if others kept changing the balance. Repeating is safe.
    pub async fn grant(
        &self,
        customer: &CustomerId,
        meter: &str,
        id: &str,
        units: u64,
        period: u64,
    ) -> Result<Given, Error> {
        let key = Item::from([
            (
                "pk".to_owned(),
                AttributeValue::S(format!("{customer}#grant#{meter}#{id}")),
            ),
            ("sk".to_owned(), AttributeValue::N("0".to_owned())),
        ]);
        let mark = Put::builder()
            .table_name(&self.table)
            .set_item(Some(key.clone()))
            .item("kind", AttributeValue::S("grant".to_owned()))
            .item("granted_units", AttributeValue::N(units.to_string()))
            .item("period", AttributeValue::N(period.to_string()))
            .condition_expression("attribute_not_exists(pk)")
            .build()
            .map_err(|e| Error::item("grant", e.to_string()))?;
        let add = self.transact(credit_key(customer, meter), ledger::grant(units))?;
        let items = vec![TransactWriteItem::builder().put(mark).build(), add];
        // Only the mark, which stands first, says that it was given before.
        if self.transaction("grant", items, |refused| refused == 0).await? {
            return Ok(Given {
                units,
                period: Some(period),
            });
        }
        let operation = || format!("read {} grant", self.table);
        let read = self.clients.dynamodb.get_item().table_name(&self.table);
        let answer = read.set_key(Some(key)).consistent_read(true).send().await;
        let mark = answer
            .map_err(|e| Error::call(operation(), &e))?
            .item
            .unwrap_or_default();
        let units = item::number(&mark, "granted_units");
        Ok(Given {
            units: units.ok_or_else(|| Error::item(operation(), "granted_units is missing"))?,
            period: item::number(&mark, "period"),
        })
    }

    /// A row's transition together with the units that it takes off the customer's balance: both or none. Says whether it was
    /// applied; if not, the row or the balance is not what it was any more.
    ///
    /// # Errors
    /// [`Error`] if the outcome is not known, [`Error::Contended`] if others kept changing them and nothing was applied.
    pub async fn write_and_take(
        &self,
        key: &RowKey,
        write: Expression,
        seen: Balance,
        credit: u64,
    ) -> Result<bool, Error> {
        let row = Item::from([
            ("pk".to_owned(), AttributeValue::S(key.partition())),
            ("sk".to_owned(), AttributeValue::N(key.bucket.to_string())),
        ]);
        let row = self.transact(row, write)?;
        let take = self.transact(credit_key(&key.customer, &key.meter), ledger::take(seen, credit))?;
        self.transaction(&format!("freeze {key}"), vec![row, take], |_| true)
            .await
    }

    fn transact(&self, key: Item, write: Expression) -> Result<TransactWriteItem, Error> {
        let names = write.names.into_iter().collect::<HashMap<String, String>>();
        let values = write.values.into_iter().map(|(name, value)| (name, item::value(value)));
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(key))
            .update_expression(write.update)
            .condition_expression(write.condition)
            .set_expression_attribute_names((!names.is_empty()).then_some(names))
            .set_expression_attribute_values(Some(values.collect()))
            .build()
            .map_err(|e| Error::item(format!("update {}", self.table), e.to_string()))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    /// Says whether it was applied; if not, the condition of an item that `decides` failed. Nothing of a canceled transaction
    /// is applied, so it may be tried again.
    async fn transaction(
        &self,
        what: &str,
        items: Vec<TransactWriteItem>,
        decides: impl Fn(usize) -> bool,
    ) -> Result<bool, Error> {
        for pause in 1..=TRIES_MAX {
            let request = self
                .clients
                .dynamodb
                .transact_write_items()
                .set_transact_items(Some(items.clone()));
            let error = match request.send().await {
                Ok(_) => return Ok(true),
                Err(error) => error,
            };
            let Some(TransactWriteItemsError::TransactionCanceledException(canceled)) = error.as_service_error() else {
                return Err(Error::call(format!("{what} in {}", self.table), &error));
            };
            let codes: Vec<&str> = canceled
                .cancellation_reasons()
                .iter()
                .map(|reason| reason.code().unwrap_or_default())
                .collect();
            if is_refused(&codes, &decides) {
                return Ok(false);
            }
            tracing::warn!(table = self.table, what, ?codes, "a transaction was canceled");
            if pause < TRIES_MAX {
                tokio::time::sleep(PAUSE * pause).await;
            }
        }
        Err(Error::Contended(format!("{what} in {}", self.table)))
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

    /// The keys of a customer's rows that something is left to do for, due or not. The index may lag.
    ///
    /// # Errors
    /// [`Error`] if the index can't be read.
    pub async fn waiting(&self, customer: &CustomerId) -> Result<Vec<RowKey>, Error> {
        let mut pages = self
            .clients
            .dynamodb
            .query()
            .table_name(&self.table)
            .index_name(WORK_INDEX)
            .key_condition_expression("#work = :work")
            .expression_attribute_names("#work", "work")
            .expression_attribute_values(":work", AttributeValue::S(ledger::work_of(customer)))
            .into_paginator()
            .items()
            .send();
        let mut keys = Vec::new();
        while let Some(item) = pages.next().await {
            let item = item.map_err(|e| Error::call(format!("query {} {WORK_INDEX}", self.table), &e))?;
            let key = item::text(&item, "pk")
                .zip(item::number(&item, "sk"))
                .and_then(|(partition, bucket)| RowKey::parse(partition, bucket));
            keys.extend(key.filter(|key| key.customer == *customer));
        }
        Ok(keys)
    }

    /// Every row of a customer whose bucket began in the span, in no order. It reads the whole table: for the operator's
    /// questions and for a subscription's end, not for every day.
    ///
    /// # Errors
    /// [`Error`] if a page can't be read.
    pub async fn rows_of(&self, customer: &CustomerId, from: u64, until: u64) -> Result<Vec<Row>, Error> {
        let operation = || format!("scan {}", self.table);
        let mut rows = Vec::new();
        let mut pages = self
            .clients
            .dynamodb
            .scan()
            .table_name(&self.table)
            .filter_expression(
                "begins_with(pk, :customer) AND sk >= :from AND sk < :until AND attribute_not_exists(kind)",
            )
            // A subscription must not end before a row that was opened just now is in Stripe.
            .consistent_read(true)
            .expression_attribute_values(":customer", AttributeValue::S(format!("{customer}#")))
            .expression_attribute_values(":from", AttributeValue::N(from.to_string()))
            .expression_attribute_values(":until", AttributeValue::N(until.to_string()))
            .into_paginator()
            .items()
            .send();
        while let Some(item) = pages.next().await {
            let item = item.map_err(|e| Error::call(operation(), &e))?;
            rows.push(item::row(&item).map_err(|problem| Error::item(operation(), problem))?);
        }
        Ok(rows)
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

    /// The start of the oldest bucket that something is left to do for, unix seconds. Not by when a row is due next: every
    /// attempt that fails moves that on.
    ///
    /// # Errors
    /// [`Error`] if the index can't be read.
    pub async fn oldest_bucket(&self) -> Result<Option<u64>, Error> {
        let operation = || format!("query {} {WORK_INDEX}", self.table);
        let mut oldest = None;
        for n in 0..WORK_PARTITIONS {
            let mut pages = self
                .clients
                .dynamodb
                .query()
                .table_name(&self.table)
                .index_name(WORK_INDEX)
                .key_condition_expression("#work = :work")
                .projection_expression("sk")
                .expression_attribute_names("#work", "work")
                .expression_attribute_values(":work", AttributeValue::S(work_partition(n)))
                .into_paginator()
                .items()
                .send();
            while let Some(item) = pages.next().await {
                let item = item.map_err(|e| Error::call(operation(), &e))?;
                oldest = oldest.into_iter().chain(item::number(&item, "sk")).min();
            }
        }
        Ok(oldest)
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

    /// Whether a threshold was noticed before.
    ///
    /// # Errors
    /// [`Error`] if it can't be read.
    pub async fn is_noted(&self, alert: &Alert) -> Result<bool, Error> {
        let pk = AttributeValue::S(alert_partition(alert));
        let answer = self
            .clients
            .dynamodb
            .get_item()
            .table_name(&self.table)
            .key("pk", pk)
            .key("sk", AttributeValue::N(alert.period.to_string()))
            .consistent_read(true)
            .send()
            .await
            .map_err(|e| Error::call(format!("read alert of {}", self.table), &e))?;
        Ok(answer.item.is_some())
    }

    /// Stores an alert once per customer, meter, plan, period and threshold. Says whether it was new.
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
            .item("pk", text(&alert_partition(alert)))
            .item("sk", number(alert.period))
            .item("kind", text("alert"))
            .item("customer", text(&alert.customer))
            .item("meter", text(&alert.meter))
            .item("of", text(&alert.of))
            .item("plan", text(&alert.plan))
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

    /// Raises what one counter item has of a customer's period under a plan, and returns the sum over all of the customer's
    /// counter items.
    ///
    /// # Errors
    /// [`Error`] if it can't be written.
    pub async fn period_units(
        &self,
        customer: &str,
        meter: &str,
        plan: &PlanId,
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
            .key("pk", AttributeValue::S(format!("{customer}#period#{meter}#{plan}")))
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

/// Whether a transaction was canceled because the condition of an item that `decides` failed. `codes` are the reasons by item
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_CancellationReason.html>): every other one passes.
fn is_refused(codes: &[&str], decides: impl Fn(usize) -> bool) -> bool {
    codes
        .iter()
        .enumerate()
        .any(|(item, code)| *code == "ConditionalCheckFailed" && decides(item))
}

fn credit_key(customer: &CustomerId, meter: &str) -> Item {
    Item::from([
        ("pk".to_owned(), AttributeValue::S(format!("{customer}#credit#{meter}"))),
        ("sk".to_owned(), AttributeValue::N("0".to_owned())),
    ])
}

fn alert_partition(alert: &Alert) -> String {
    format!(
        "{}#alert#{}#{}#{}#{}#{}",
        alert.customer, alert.of, alert.meter, alert.plan, alert.percent, alert.included
    )
}

fn alert(item: &item::Item) -> Option<Alert> {
    Some(Alert {
        customer: item::text(item, "customer")?.to_owned(),
        meter: item::text(item, "meter")?.to_owned(),
        of: item::text(item, "of")?.to_owned(),
        plan: item::text(item, "plan")?.to_owned(),
        percent: item::number(item, "percent")?,
        period: item::number(item, "sk")?,
        units: item::number(item, "units")?,
        included: item::number(item, "included")?,
    })
}

#[cfg(test)]
mod tests {
    use super::is_refused;

    /// A transaction that met another one was taken for units that were given before: they never were.
    #[test]
    fn only_a_failed_condition_says_that_it_was_done_before() {
        for (codes, by_any, by_first) in [
            (&["ConditionalCheckFailed", "None"][..], true, true),
            (&["None", "ConditionalCheckFailed"], true, false),
            (&["ConditionalCheckFailed", "TransactionConflict"], true, true),
            (&["None", "TransactionConflict"], false, false),
            (&["TransactionConflict", "None"], false, false),
            (&["ThrottlingError", "None"], false, false),
            (&["None", "ProvisionedThroughputExceeded"], false, false),
            (&["", ""], false, false),
            (&[], false, false),
        ] {
            assert_eq!(is_refused(codes, |_| true), by_any, "{codes:?}");
            assert_eq!(is_refused(codes, |item| item == 0), by_first, "{codes:?}");
        }
    }
}
