#![doc = include_str!("../README.md")]

mod alerts;
mod config;
mod event;
mod fold;
mod metrics;
mod scan;

use std::sync::Arc;

use farebox_aws::{
    accounts::AccountTable, alerts::AlertQueue, connect::Clients, counters::CounterTable, ledger::LedgerTable,
};
use farebox_billing::Books;
use farebox_core::time::Timestamp;
use serde_json::{Value, json};

pub use config::Config;
pub use event::Event;
pub use farebox_billing::{Clock, TickReport};
pub use fold::FoldReport;
pub use scan::ScanReport;

use crate::alerts::Memory;

/// Everything that the consumer works with.
pub struct Deps {
    /// The tables, the alert queue, Stripe and the time.
    pub books: Books,
}

impl Deps {
    /// Wires the tables, the queue and Stripe that the configuration names. Nothing is opened yet.
    ///
    /// # Errors
    /// [`farebox_stripe::Error::Invalid`] if Stripe can't be at the configured address.
    pub fn connect(config: Config, clients: &Clients, clock: Clock) -> Result<Self, farebox_stripe::Error> {
        let books = Books {
            accounts: AccountTable::new(clients.clone(), config.accounts_table),
            counters: CounterTable::new(clients.clone(), config.counters_table),
            ledger: LedgerTable::new(clients.clone(), config.ledger_table),
            alerts: AlertQueue::new(clients.clone(), config.alert_queue),
            stripe: farebox_stripe::Client::new(config.stripe)?,
            clock,
        };
        Ok(Self { books })
    }

    fn now(&self) -> Timestamp {
        self.books.now()
    }
}

/// What kept the consumer from its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The event is none of those that the function is for.
    #[error(
        "unknown event: {0}; expected an SQS batch {{\"Records\": [..]}}, {{\"task\": \"tick\"}} or {{\"task\": \"scan\"}}"
    )]
    Event(String),
    /// A table did not answer, or holds what this build does not write.
    #[error(transparent)]
    Table(#[from] farebox_aws::Error),
    /// Billing could not begin.
    #[error(transparent)]
    Billing(#[from] farebox_billing::Error),
}

/// The consumer. It keeps nothing that can't be lost.
pub struct Consumer {
    deps: Arc<Deps>,
    memory: Arc<Memory>,
}

impl Consumer {
    /// A consumer that works with these.
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        Self {
            deps: Arc::new(deps),
            memory: Arc::default(),
        }
    }

    /// Answers one invocation: an SQS batch with the ids of the messages that failed, a task with its report.
    ///
    /// # Errors
    /// [`Error::Event`] for any other event; else as [`Self::tick`] and [`Self::scan`].
    pub async fn handle(&self, event: Value) -> Result<Value, Error> {
        match Event::parse(event)? {
            Event::Batch(records) => {
                let report = self.fold(&records).await;
                metrics::folded(records.len(), &report);
                let failures = report.failed.iter().map(|id| json!({ "itemIdentifier": id }));
                Ok(json!({ "batchItemFailures": failures.collect::<Vec<Value>>() }))
            }
            Event::Tick => {
                let report = self.tick().await?;
                metrics::ticked(&report);
                let oldest = self.deps.books.ledger.oldest_bucket().await?;
                metrics::unreported(oldest, self.deps.now().s());
                Ok(json!(report))
            }
            Event::Scan => {
                let report = self.scan().await?;
                metrics::scanned(&report);
                Ok(json!(report))
            }
        }
    }

    /// Folds messages, given as (message id, body), into the ledger, and notices the thresholds that were reached.
    pub async fn fold(&self, records: &[(String, String)]) -> FoldReport {
        fold::fold(&self.deps, &self.memory, records).await
    }

    /// Brings every row that is due as far as it gets: seals, freezes, reports, prunes.
    ///
    /// # Errors
    /// [`Error::Table`] if the due rows can't be asked for. What goes wrong with a row is logged and counted in the report; it
    /// stops no other row.
    pub async fn tick(&self) -> Result<TickReport, Error> {
        Ok(self.deps.books.tick().await?)
    }

    /// Opens a row for every bucket that a counter item holds. Rows that are there already only learn more units, if they are
    /// open.
    ///
    /// # Errors
    /// [`Error::Table`] if the counter items can't be read. What goes wrong with a bucket is logged and counted in the report.
    pub async fn scan(&self) -> Result<ScanReport, Error> {
        scan::scan(&self.deps).await
    }
}
