#![doc = include_str!("../README.md")]
// The invoice object is one `json!` of eighty fields.
#![recursion_limit = "256"]

mod calendar;
mod catalog;
mod checkout;
mod customers;
mod events;
mod faults;
mod idempotency;
mod ids;
mod invoices;
mod journal;
mod meters;
mod money;
mod pauses;
mod payments;
mod second_api;
mod server;
mod state;
mod subscriptions;
mod table;
mod webhooks;
mod wire;

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;

pub use crate::{
    events::API_VERSION,
    faults::{Fault, FaultKind},
};
use crate::{
    faults::Faults,
    ids::Kind,
    journal::{Input, Journal},
    server::Locks,
    state::{Call, Handled, Settings, State},
};

/// How a stand-in is set up.
pub struct Options {
    /// The present, in unix seconds. It may jump forward by any amount; a step back is ignored.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// Where the journal lies. Without one the state lives as long as the process.
    pub journal: Option<PathBuf>,
    /// How many seconds meter event summaries and draft invoices are behind.
    pub summary_lag_s: i64,
    /// How many seconds a draft waits before it is finalized and paid. Stripe's default is an hour.
    pub invoice_grace_s: i64,
    /// What becomes of a subscription whose invoice is still unpaid after the last retry.
    pub after_retries: AfterRetries,
    /// The API keys that are accepted; empty accepts any.
    pub secret_keys: Vec<String>,
}

/// What becomes of a subscription whose invoice is still unpaid after the last retry: a setting of the account on Stripe.
/// <https://docs.stripe.com/billing/subscriptions/overview>
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterRetries {
    /// It is canceled. The default here; Stripe's documentation names none.
    #[default]
    Cancel,
    /// It becomes `unpaid`: its further invoices stay drafts until the most recent one is paid.
    MarkUnpaid,
    /// It stays `past_due`, and its further invoices are attempted as ever.
    LeavePastDue,
}

impl Options {
    /// No journal, no lag, an hour of grace, any key; who can't pay is canceled in the end.
    pub fn new(clock: Arc<dyn Fn() -> i64 + Send + Sync>) -> Self {
        Self {
            clock,
            journal: None,
            summary_lag_s: 0,
            invoice_grace_s: 3600,
            after_retries: AfterRetries::default(),
            secret_keys: Vec::new(),
        }
    }
}

impl fmt::Debug for Options {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("journal", &self.journal)
            .field("summary_lag_s", &self.summary_lag_s)
            .field("invoice_grace_s", &self.invoice_grace_s)
            .field("after_retries", &self.after_retries)
            .finish_non_exhaustive()
    }
}

/// Why a stand-in could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The journal can't be read or written.
    #[error("opening the journal")]
    Io(#[from] io::Error),
    /// The file is something else.
    #[error("opening the journal: its first line is no journal header")]
    NotAJournal,
    /// The journal is from another version of the stand-in.
    #[error("opening the journal: its format is version {found}, this stand-in knows version {known}")]
    Version {
        /// The version in the header.
        found: u64,
        /// The version that is understood.
        known: u32,
    },
    /// The journal was written under other settings, under which it would replay to another state.
    #[error("opening the journal: written under {journal}, asked for {asked}")]
    Settings {
        /// The settings in the header.
        journal: String,
        /// The settings in the options.
        asked: String,
    },
    /// A whole line is not an input: the file was changed by someone else.
    #[error("opening the journal: line {line} is damaged")]
    Corrupt {
        /// The number of the line, from 1.
        line: u64,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The stand-in. Clones share one state.
#[derive(Clone)]
pub struct StandIn {
    inner: Arc<Inner>,
}

impl fmt::Debug for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandIn").finish_non_exhaustive()
    }
}

struct Inner {
    clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    secret_keys: Vec<String>,
    core: Mutex<Core>,
    faults: Faults,
    locks: Locks,
}

/// The state, its journal, and the time up to which it is settled.
struct Core {
    state: State,
    journal: Option<Journal>,
    now: i64,
    requests: u64,
    /// Set when the journal could not be written: from then on every answer is a 500.
    broken: bool,
}

/// Events and the cursor behind the last of them.
#[derive(Debug, Clone, PartialEq)]
pub struct EventPage {
    /// Event objects, oldest first. Thin events have `"object": "v2.core.event"`; their webhook carries no `data`.
    pub events: Vec<Value>,
    /// Pass it to [`StandIn::events_after`] for what comes next.
    pub cursor: usize,
}

impl StandIn {
    /// Opens a stand-in and replays its journal, if it has one.
    ///
    /// # Errors
    /// When the journal can't be read or written, is damaged, or was written by another version or under other settings.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let settings = Settings {
            summary_lag_s: options.summary_lag_s,
            invoice_grace_s: options.invoice_grace_s,
            after_retries: options.after_retries,
        };
        let core = match &options.journal {
            None => Core {
                state: State::new(settings),
                journal: None,
                now: i64::MIN,
                requests: 0,
                broken: false,
            },
            Some(path) => {
                let opened = Journal::open(path, settings)?;
                Core {
                    state: opened.state,
                    journal: Some(opened.journal),
                    now: opened.at,
                    // Each request that was journaled took one number; those that only read may have taken more.
                    requests: opened.inputs << 20,
                    broken: false,
                }
            }
        };
        Ok(Self {
            inner: Arc::new(Inner {
                clock: options.clock,
                secret_keys: options.secret_keys,
                core: Mutex::new(core),
                faults: Faults::default(),
                locks: Locks::default(),
            }),
        })
    }

    /// Runs everything that became due at the clock's present: period ends, finalizations, retries, cancellations.
    pub fn settle(&self) {
        let mut core = self.core();
        self.inner.settle(&mut core);
        core.flush();
    }

    /// What the stand-in holds: totals per customer and meter, subscriptions, invoices, and counts of meter events and events.
    pub fn snapshot(&self) -> Value {
        let mut core = self.core();
        self.inner.settle(&mut core);
        core.flush();
        core.state.snapshot(core.now)
    }

    /// Queues a fault.
    pub fn misbehave(&self, fault: Fault) {
        self.inner.faults.push(fault);
    }

    /// Ends all misbehaviour that is still to come.
    pub fn behave(&self) {
        self.inner.faults.clear();
    }

    /// Makes the next finalizations of invoices fail. Journaled, unlike a fault: the state depends on it.
    pub fn fail_next_finalizations(&self, times: u32) {
        let mut core = self.core();
        let at = self.inner.settle(&mut core);
        let call = Call {
            method: "POST".to_owned(),
            path: "/_standin/finalization_failures".to_owned(),
            form: format!("times={times}"),
            key: None,
            request_id: core.next_request_id(),
            host: None,
            outage: None,
        };
        core.handle(call, at);
        core.flush();
    }

    /// The events behind a cursor up to the clock's present, oldest first; `0` is the beginning. Each stands for a webhook.
    pub fn events_after(&self, cursor: usize) -> EventPage {
        let mut core = self.core();
        self.inner.settle(&mut core);
        core.flush();
        EventPage {
            events: core.state.events.after(cursor).to_vec(),
            cursor: core.state.events.len().max(cursor),
        }
    }

    /// The enabled webhook endpoints, oldest first, with their secrets: where who embeds the stand-in may deliver the events to.
    pub fn webhook_endpoints(&self) -> Vec<Value> {
        self.core().state.destinations()
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.inner.core()
    }
}

impl Inner {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settles up to the clock's present; gives the present.
    fn settle(&self, core: &mut Core) -> i64 {
        core.now = core.now.max((self.clock)());
        let at = core.now;
        if core.state.settle(at) {
            core.record(Input { at, call: None });
        }
        at
    }
}

impl Core {
    /// Handles a request at `at`, up to which the state is settled, and hands it to the journal.
    fn handle(&mut self, call: Call, at: i64) -> Handled {
        let handled = self.state.handle(&call, at);
        if handled.changed {
            self.record(Input { at, call: Some(call) });
        }
        handled
    }

    fn record(&mut self, input: Input) {
        if let Some(journal) = &mut self.journal {
            self.broken |= journal.append(&input).is_err();
        }
    }

    fn flush(&mut self) {
        if let Some(journal) = &self.journal {
            self.broken |= journal.flushed().wait(journal.written()).is_err();
        }
    }

    fn next_request_id(&mut self) -> String {
        self.requests += 1;
        Kind::Request.shape(&self.requests.to_be_bytes())
    }
}
