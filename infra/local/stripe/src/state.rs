//! The state machine: pure and deterministic. Time, request ids and faults are part of its input; a replayed journal
//! gives the identical state.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};

use crate::{
    AfterRetries,
    catalog::{Catalog, expand_tiers},
    checkout::Session,
    customers::Customer,
    events::{Cause, EventLog},
    idempotency::{IdempotencyKeys, KEY_LENGTH_MAX, Kept},
    ids::Ids,
    invoices::Invoice,
    meters::Meters,
    subscriptions::Subscription,
    table::Table,
    webhooks::WebhookEndpoint,
    wire::{
        error::ApiError,
        form::{self, Params},
        list::Page,
    },
};

/// What the state's evolution depends on besides its inputs. Part of the journal's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Settings {
    pub(crate) summary_lag_s: i64,
    pub(crate) invoice_grace_s: i64,
    pub(crate) after_retries: AfterRetries,
}

/// Something that happens by itself at a time. In this order, if several happen at the same time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// A draft invoice's grace is over.
    Finalize(String),
    /// An open invoice's next payment attempt.
    Retry(String),
    /// A first invoice waited too long for its payment.
    ExpireIncomplete(String),
    /// A subscription's `pause_collection[resumes_at]`.
    ResumeCollection(String),
    /// A trial ends in three days.
    TrialNotice(String),
    /// A checkout session's time is over.
    ExpireSession(String),
    /// A subscription's `cancel_at`.
    Cancel(String),
    /// A subscription's billing period ends.
    Cycle(String),
}

/// A 500 that the caller sees instead of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outage {
    /// Nothing was done.
    BeforeCommit,
    /// It was done all the same.
    AfterCommit,
}

/// A request, with all that its result depends on.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Query string and body, both form-encoded.
    pub(crate) form: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) key: Option<String>,
    pub(crate) request_id: String,
    /// The address that the caller knows us by, where the answer names it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) outage: Option<Outage>,
}

/// The answer to a [`Call`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handled {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// From the idempotency layer: an earlier answer, byte for byte.
    pub(crate) replayed: bool,
    /// Whether the call changed the state and so belongs in the journal.
    pub(crate) changed: bool,
}

/// Everything that the stand-in knows.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) ids: Ids,
    pub(crate) catalog: Catalog,
    pub(crate) meters: Meters,
    pub(crate) customers: Table<Customer>,
    pub(crate) subscriptions: Table<Subscription>,
    /// The subscription of an item.
    pub(crate) item_owners: HashMap<String, String>,
    pub(crate) invoices: Table<Invoice>,
    /// How many of the next finalizations fail.
    pub(crate) finalization_failures: u32,
    pub(crate) sessions: Table<Session>,
    pub(crate) webhook_endpoints: Table<WebhookEndpoint>,
    pub(crate) events: EventLog,
    pub(crate) due: BTreeSet<(i64, Due)>,
    keys: IdempotencyKeys,
}

impl State {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            ids: Ids::default(),
            catalog: Catalog::default(),
            meters: Meters::default(),
            customers: Table::default(),
            subscriptions: Table::default(),
            item_owners: HashMap::new(),
            invoices: Table::default(),
            finalization_failures: 0,
            sessions: Table::default(),
            webhook_endpoints: Table::default(),
            events: EventLog::default(),
            due: BTreeSet::new(),
            keys: IdempotencyKeys::default(),
        }
    }

    /// Runs what became due at or before `now`, each at its own time. Says whether anything did.
    pub(crate) fn settle(&mut self, now: i64) -> bool {
        self.meters.prune(now);
        self.keys.prune(now);
        let mut changed = false;
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((at, due)) = self.due.pop_first() else {
                break;
            };
            // What was overtaken by a request meanwhile does nothing.
            changed |= match due {
                Due::Finalize(invoice) => self.finalize_due(&invoice, at),
                Due::Retry(invoice) => self.retry_due(&invoice, at),
                Due::ExpireIncomplete(subscription) => self.expire_incomplete(&subscription, at),
                Due::ResumeCollection(subscription) => self.resume_collection_due(&subscription, at),
                Due::TrialNotice(subscription) => self.trial_notice_due(&subscription, at),
                Due::ExpireSession(session) => self.expire_session_due(&session, at),
                Due::Cancel(subscription) => self.cancel_due(&subscription, at),
                Due::Cycle(subscription) => self.cycle(&subscription, at),
            };
        }
        changed
    }

    /// Handles a request at `at`; the state must be settled up to there.
    pub(crate) fn handle(&mut self, call: &Call, at: i64) -> Handled {
        let key = call.key.as_deref().filter(|_| call.method == "POST");
        let parameters = key.map(|_| form::canonical(&call.form)).unwrap_or_default();
        if let Some(key) = key {
            match self.replay(key, call, &parameters) {
                Ok(None) => {}
                Ok(Some(kept)) => {
                    return Handled {
                        status: kept.status,
                        body: kept.body,
                        replayed: true,
                        changed: false,
                    };
                }
                Err(error) => return error_answer(&error, &call.request_id),
            }
        }
        let (result, wrote) = self.execute(call, at);
        let kept_by_key = result.as_ref().map_or_else(|error| error.kept, |_| true);
        let (status, body) = match result {
            Ok(value) => (200, value.to_string()),
            Err(error) => (error.status, error.body(&call.request_id).to_string()),
        };
        if let Some(key) = key.filter(|_| kept_by_key) {
            let kept = Kept {
                status,
                body: body.clone(),
            };
            self.keys.keep(key, &call.path, parameters, kept, at);
        }
        Handled {
            status,
            body,
            replayed: false,
            changed: wrote || key.is_some() && kept_by_key,
        }
    }

    fn replay(&self, key: &str, call: &Call, parameters: &str) -> Result<Option<Kept>, ApiError> {
        if key.len() > KEY_LENGTH_MAX {
            return Err(ApiError::invalid(
                "Idempotency-Key",
                format!("Idempotency keys may be at most {KEY_LENGTH_MAX} characters long."),
            ));
        }
        Ok(self.keys.replay(key, &call.path, parameters)?.cloned())
    }

    /// The result, and whether the state changed for it.
    fn execute(&mut self, call: &Call, at: i64) -> (Result<Value, ApiError>, bool) {
        if call.outage == Some(Outage::BeforeCommit) {
            return (Err(ApiError::internal()), false);
        }
        let result = self.route(call, at);
        let done = result.as_ref().map_or_else(|error| error.recorded, |_| true);
        let wrote = done && call.method != "GET" && call.path != PREVIEW_PATH;
        match call.outage {
            Some(Outage::AfterCommit) => (Err(ApiError::internal()), wrote),
            _ => (result, wrote),
        }
    }

    fn route(&mut self, call: &Call, at: i64) -> Result<Value, ApiError> {
        let mut params = Params::decode(&call.form)?;
        let expansions = take_expansions(&mut params)?;
        let cause = Cause {
            request_id: Some(call.request_id.clone()),
            idempotency_key: call.key.clone(),
        };
        let segments: Vec<&str> = call.path.trim_matches('/').split('/').collect();
        let unrecognized = || ApiError::unrecognized_url(&call.method, &call.path);
        let mut answer = match (call.method.as_str(), segments.as_slice()) {
            ("GET", ["v1", path @ ..]) => self.read(path, params, at).ok_or_else(unrecognized)?,
            ("POST", ["v1", "checkout", "sessions"]) => {
                self.create_session(params, call.host.as_deref().unwrap_or("localhost"), at)
            }
            ("POST", ["_standin", "payment_link"]) => {
                self.open_link(params, call.host.as_deref().unwrap_or("localhost"), at)
            }
            ("POST", ["_standin", "checkout", id]) => self.complete_session(id, params, at),
            ("POST", ["_standin", "finalization_failures"]) => self.fail_finalizations(params),
            ("GET", ["v2", "core", "events"]) => self.list_thin_events(params),
            ("GET", ["v2", "core", "event_destinations"]) => self.list_event_destinations(params),
            ("GET", ["v2", "core", "events", id]) => self.read_event(id, params),
            ("POST", ["v1", path @ ..]) => self.write(path, params, at, &cause).ok_or_else(unrecognized)?,
            ("DELETE", ["v1", path @ ..]) => self.delete(path, params, at, &cause).ok_or_else(unrecognized)?,
            _ => Err(unrecognized()),
        }?;
        for expansion in &expansions {
            let path: Vec<&str> = expansion.split('.').collect();
            self.expand(&mut answer, &path, at);
        }
        Ok(answer)
    }

    fn read(&mut self, path: &[&str], params: Params, at: i64) -> Option<Result<Value, ApiError>> {
        let one = |rendered: Result<Value, ApiError>| params.clone().finish().and(rendered);
        Some(match path {
            ["products"] => self.list_products(params),
            ["products", id] => one(self.catalog.products.get(id, "id").map(|product| product.render())),
            ["prices"] => self.list_prices(params),
            ["prices", id] => one(self.catalog.prices.get(id, "price").map(|price| price.render())),
            ["billing", "meters"] => self.list_meters(params),
            ["billing", "meters", id] => one(self.meters.get(id, "id").map(|meter| meter.render())),
            ["billing", "meters", id, "event_summaries"] => self.list_event_summaries(id, params, at),
            ["customers"] => self.list_customers(params),
            ["customers", id] => one(self.customers.get(id, "id").map(Customer::render)),
            ["subscriptions"] => self.list_subscriptions(params),
            ["subscriptions", id] => one(self
                .subscriptions
                .get(id, "id")
                .map(|subscription| self.render_subscription(subscription))),
            ["subscription_items"] => self.list_items(params),
            ["subscription_items", id] => one(self.retrieve_item(id)),
            ["invoices"] => self.list_invoices(params, at),
            ["invoices", id] => one(self
                .invoices
                .get(id, "invoice")
                .map(|invoice| self.render_invoice(invoice, at))),
            ["invoices", id, "lines"] => self.list_lines(id, params, at),
            ["checkout", "sessions"] => self.list_sessions(params),
            ["checkout", "sessions", id] => self.retrieve_session(id, params),
            ["checkout", "sessions", id, "line_items"] => self.list_line_items(id, params),
            ["webhook_endpoints"] => self.list_webhook_endpoints(params),
            ["webhook_endpoints", id] => self.retrieve_webhook_endpoint(id, params),
            ["events"] => self.list_events(params),
            ["events", id] => self.read_event(id, params),
            _ => return None,
        })
    }

    fn write(&mut self, path: &[&str], params: Params, at: i64, cause: &Cause) -> Option<Result<Value, ApiError>> {
        Some(match path {
            ["billing", "meter_events"] => self.create_meter_event(params, at),
            ["billing", "meter_event_adjustments"] => self.create_meter_event_adjustment(params),
            ["billing", "meters"] => self.create_meter(params, at, cause),
            ["billing", "meters", id] => self.update_meter(id, params, at, cause),
            ["billing", "meters", id, "deactivate"] => self.deactivate_meter(id, params, at, cause),
            ["billing", "meters", id, "reactivate"] => self.reactivate_meter(id, params, at, cause),
            ["products"] => self.create_product(params, at, cause),
            ["products", id] => self.update_product(id, params, at, cause),
            ["prices"] => self.create_price(params, at, cause),
            ["prices", id] => self.update_price(id, params, at, cause),
            ["customers"] => self.create_customer(params, at, cause),
            ["customers", id] => self.update_customer(id, params, at, cause),
            ["subscriptions"] => self.create_subscription(params, at, cause),
            ["subscriptions", id, "resume"] => self.resume_subscription(id, params, at, cause),
            ["subscriptions", id] => self.update_subscription(id, params, at, cause),
            ["subscription_items"] => self.create_item(params, at, cause),
            ["subscription_items", id] => self.update_item(id, params, at, cause),
            ["checkout", "sessions", id, "expire"] => self.expire_session(id, params, at, cause),
            ["webhook_endpoints"] => self.create_webhook_endpoint(params, at),
            ["webhook_endpoints", id] => self.update_webhook_endpoint(id, params),
            ["invoices", "create_preview"] => self.preview_invoice(params, at),
            ["invoices", id] => self.update_invoice(id, params, at, cause),
            ["invoices", id, "finalize"] => self.finalize_now(id, params, at, cause),
            ["invoices", id, "pay"] => self.pay_now(id, params, at, cause),
            ["invoices", id, "mark_uncollectible"] => self.mark_uncollectible_now(id, params, at, cause),
            ["invoices", id, "void"] => self.void_now(id, params, at, cause),
            _ => return None,
        })
    }

    fn delete(&mut self, path: &[&str], params: Params, at: i64, cause: &Cause) -> Option<Result<Value, ApiError>> {
        Some(match path {
            ["customers", id] => self.delete_customer(id, params, at, cause),
            ["subscriptions", id] => self.cancel_subscription(id, params, at, cause),
            ["subscription_items", id] => self.delete_item(id, params, at, cause),
            ["webhook_endpoints", id] => self.delete_webhook_endpoint(id, params),
            _ => return None,
        })
    }

    /// Asked by the stand-in's owner, through the journal like everything that the state depends on.
    fn fail_finalizations(&mut self, mut params: Params) -> Result<Value, ApiError> {
        let times = params.natural("times")?.unwrap_or(1);
        params.finish()?;
        self.finalization_failures = u32::try_from(times).unwrap_or(u32::MAX);
        Ok(json!({ "finalization_failures": self.finalization_failures }))
    }

    /// Records a change.
    pub(crate) fn emit(&mut self, at: i64, cause: &Cause, kind: &str, object: Value, before: Option<&Value>) {
        self.events.snapshot(&mut self.ids, at, cause, kind, object, before);
    }

    /// Thin events are not in this list, as on Stripe; each has its own address under `/v2/core/events`.
    fn list_events(&self, mut params: Params) -> Result<Value, ApiError> {
        let page = Page::take(&mut params)?;
        let kind = params.text("type")?;
        let kinds = params.texts("types")?;
        params.finish()?;
        let rows = self.events.newest_first().filter(|event| {
            let is = event["type"].as_str().unwrap_or_default();
            event["object"] == "event"
                && kind.as_ref().is_none_or(|kind| matches_kind(kind, is))
                && kinds
                    .as_ref()
                    .is_none_or(|kinds| kinds.iter().any(|kind| matches_kind(kind, is)))
        });
        page.cut(
            rows,
            |event| event["id"].as_str().unwrap_or_default(),
            |event| (*event).clone(),
            "event",
            "/v1/events",
        )
    }

    fn read_event(&self, id: &str, params: Params) -> Result<Value, ApiError> {
        params.finish()?;
        self.events
            .find(id)
            .cloned()
            .ok_or_else(|| ApiError::no_such("event", id, "id"))
    }

    /// Replaces the ids along a path by their objects. What can't be expanded stays an id.
    /// <https://docs.stripe.com/api/expanding_objects>
    fn expand(&self, value: &mut Value, path: &[&str], at: i64) {
        let [name, rest @ ..] = path else {
            return;
        };
        let Some(object) = value.as_object_mut() else {
            return;
        };
        if *name == "tiers" && object.get("object").is_some_and(|kind| kind == "price") {
            let id = object.get("id").and_then(Value::as_str).map(str::to_owned);
            if let Some(price) = id.and_then(|id| self.catalog.prices.find(&id)) {
                expand_tiers(price, object);
            }
            return;
        }
        if *name == "line_items" && object.get("object").is_some_and(|kind| kind == "checkout.session") {
            self.expand_line_items(object);
        }
        match object.get_mut(*name) {
            Some(Value::Array(rows)) => rows.iter_mut().for_each(|row| self.expand(row, rest, at)),
            Some(inner) => {
                if let Some(found) = inner.as_str().and_then(|id| self.render_by_id(id, at)) {
                    *inner = found;
                }
                self.expand(inner, rest, at);
            }
            None => {}
        }
    }

    fn render_by_id(&self, id: &str, at: i64) -> Option<Value> {
        let (prefix, _) = id.split_once('_')?;
        match prefix {
            "cus" => self.customers.find(id).map(Customer::render),
            "in" => self.invoices.find(id).map(|invoice| self.render_invoice(invoice, at)),
            "price" => self.catalog.prices.find(id).map(|price| price.render()),
            "prod" => self.catalog.products.find(id).map(|product| product.render()),
            "sub" => self
                .subscriptions
                .find(id)
                .map(|subscription| self.render_subscription(subscription)),
            _ => None,
        }
    }

    /// What people and tests look at: totals per customer and meter, and the invoices.
    pub(crate) fn snapshot(&self, at: i64) -> Value {
        let customers: Vec<Value> = self
            .customers
            .iter()
            .map(|customer| {
                json!({
                    "id": customer.id,
                    "name": customer.name,
                    "email": customer.email,
                    "deleted": customer.deleted,
                    "balance": customer.balance,
                    "meters": self.meters.totals(&customer.id),
                })
            })
            .collect();
        let subscriptions: Vec<Value> = self.subscriptions.iter().map(Subscription::snapshot).collect();
        let invoices: Vec<Value> = self
            .invoices
            .iter()
            .map(|invoice| {
                let sums = self.sums(invoice, at);
                json!({
                    "id": invoice.id,
                    "customer": invoice.customer,
                    "subscription": invoice.subscription,
                    "number": invoice.number,
                    "status": invoice.status.word(),
                    "currency": invoice.currency,
                    "total": sums.total,
                    "amount_due": sums.due,
                    "amount_paid": sums.paid,
                    "period_start": invoice.period.0,
                    "period_end": invoice.period.1,
                })
            })
            .collect();
        json!({
            "meter_events": self.meters.tally(),
            "customers": customers,
            "subscriptions": subscriptions,
            "invoices": invoices,
            "events": self.events.len(),
        })
    }
}

/// The one POST that only reads.
const PREVIEW_PATH: &str = "/v1/invoices/create_preview";

/// Names that may stand in an expansion. Checked before anything is done.
const EXPANDABLE: [&str; 15] = [
    "customer",
    "data",
    "default_price",
    "invoice",
    "items",
    "latest_invoice",
    "line_items",
    "lines",
    "parent",
    "price",
    "price_details",
    "pricing",
    "product",
    "subscription",
    "tiers",
];

/// Expansions go four levels deep at most.
const EXPANSION_DEPTH_MAX: usize = 4;

fn take_expansions(params: &mut Params) -> Result<Vec<String>, ApiError> {
    let expansions = params.texts("expand")?.unwrap_or_default();
    for expansion in &expansions {
        let names: Vec<&str> = expansion.split('.').collect();
        if names.len() > EXPANSION_DEPTH_MAX {
            return Err(ApiError::invalid(
                "expand",
                format!(
                    "You cannot expand more than {EXPANSION_DEPTH_MAX} levels of a property. Property: {expansion}"
                ),
            )
            .code("property_expansion_max_depth"));
        }
        if let Some(wrong) = names.iter().find(|name| !EXPANDABLE.contains(*name)) {
            return Err(ApiError::invalid(
                "expand",
                format!("This property cannot be expanded ({wrong})."),
            ));
        }
    }
    Ok(expansions)
}

/// `*` at the end of a type stands for anything.
fn matches_kind(pattern: &str, kind: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(head) => kind.starts_with(head),
        None => pattern == kind,
    }
}

fn error_answer(error: &ApiError, request_id: &str) -> Handled {
    Handled {
        status: error.status,
        body: error.body(request_id).to_string(),
        replayed: false,
        changed: false,
    }
}
