//! Subscriptions: what they are, and how they are made, changed and canceled.
//!
//! Source: <https://docs.stripe.com/api/subscriptions>.

mod changes;
mod items;
mod periods;
mod preview;

use serde_json::{Value, json};

use self::{
    changes::{Change, Restart, check_proration_date, take_changes},
    periods::End,
};
use crate::{
    calendar::{DAY, Interval},
    catalog::{Metadata, Price, merge},
    events::Cause,
    ids::Kind,
    invoices::{Entry, Line, Reason},
    pauses::{MissingMethod, Pause, take_missing_method, take_pause},
    payments::{INCOMPLETE_S, PaymentBehavior, take_method},
    state::{Due, State},
    table::Object,
    wire::{error::ApiError, form::Params, list::Page},
};

/// Where a subscription is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// The first invoice waits for its payment.
    Incomplete,
    /// It waited too long.
    IncompleteExpired,
    Trialing,
    Active,
    /// The latest invoice could not be paid.
    PastDue,
    /// Nor could it after all retries: further invoices stay drafts.
    Unpaid,
    /// The trial ended without a payment method.
    Paused,
    Canceled,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::IncompleteExpired => "incomplete_expired",
            Self::Trialing => "trialing",
            Self::Active => "active",
            Self::PastDue => "past_due",
            Self::Unpaid => "unpaid",
            Self::Paused => "paused",
            Self::Canceled => "canceled",
        }
    }
}

/// What happens to the part of a period that a change cuts off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proration {
    /// Credits and charges wait for the next invoice.
    Create,
    /// Credits and charges are invoiced at once.
    Invoice,
    None,
}

impl Proration {
    const WORDS: [(&'static str, Self); 3] = [
        ("always_invoice", Self::Invoice),
        ("create_prorations", Self::Create),
        ("none", Self::None),
    ];

    fn take(params: &mut Params) -> Result<Self, ApiError> {
        Ok(params
            .choice("proration_behavior", &Self::WORDS)?
            .unwrap_or(Self::Create))
    }
}

/// One price of a subscription.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) id: String,
    pub(crate) price: String,
    /// Absent for a metered price.
    quantity: Option<i64>,
    created: i64,
    metadata: Metadata,
    /// From when on usage is billed at this price: later than the period's start if the price came during the period.
    usage_from: i64,
}

/// A customer's subscription.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    pub(crate) id: String,
    pub(crate) customer: String,
    pub(crate) currency: String,
    pub(crate) status: Status,
    created: i64,
    /// Every period ends a whole number of intervals after this.
    anchor: i64,
    /// The present period. All items share it; it is shown on the items, since 2025-03-31.basil.
    period: (i64, i64),
    pub(crate) items: Vec<Item>,
    /// Lines that wait for the next invoice.
    pending: Vec<Line>,
    pub(crate) trial: Option<(i64, i64)>,
    cancel_at: Option<i64>,
    cancel_at_period_end: bool,
    canceled_at: Option<i64>,
    pub(crate) ended_at: Option<i64>,
    pub(crate) latest_invoice: Option<String>,
    /// Whether usage at a metered price that is removed is billed: yes in the `flexible` billing mode, no in `classic`.
    flexible: bool,
    pub(crate) send_invoice: bool,
    days_until_due: Option<i64>,
    description: Option<String>,
    pub(crate) default_payment_method: Option<String>,
    /// What a trial's end does without a payment method. Once it is set, the subscription's payments need one.
    pub(crate) missing_method: Option<MissingMethod>,
    pub(crate) pause: Option<Pause>,
    cancellation: Cancellation,
    metadata: Metadata,
}

/// Why a subscription ends.
#[derive(Debug, Clone, Default)]
struct Cancellation {
    comment: Option<String>,
    feedback: Option<String>,
    reason: Option<&'static str>,
}

impl Object for Subscription {
    const NOUN: &'static str = "subscription";

    fn id(&self) -> &str {
        &self.id
    }

    fn customer(&self) -> Option<&str> {
        Some(&self.customer)
    }
}

impl Subscription {
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    pub(crate) fn is_live(&self) -> bool {
        !matches!(self.status, Status::Canceled | Status::IncompleteExpired)
    }

    /// A line of the stand-in's snapshot.
    pub(crate) fn snapshot(&self) -> Value {
        json!({
            "id": self.id,
            "customer": self.customer,
            "status": self.status.word(),
            "period_start": self.period.0,
            "period_end": self.period.1,
            "pending_lines": self.pending.len(),
            "items": self.items.iter().map(|item| json!({
                "id": item.id, "price": item.price, "quantity": item.quantity, "usage_from": item.usage_from,
            })).collect::<Vec<_>>(),
        })
    }
}

impl State {
    pub(crate) fn create_subscription(
        &mut self,
        mut params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        let customer = params.required("customer")?;
        let items = params.levels("items")?.ok_or_else(|| ApiError::missing("items"))?;
        let currency = params.text("currency")?.map(|currency| currency.to_lowercase());
        let trial_days = params.natural("trial_period_days")?;
        let trial_end = take_trial_end(&mut params, at)?;
        let anchor = params.natural("billing_cycle_anchor")?;
        let proration = Proration::take(&mut params)?;
        let cancel_at_period_end = params.boolean("cancel_at_period_end")?.unwrap_or(false);
        let cancel_at = params.natural("cancel_at")?;
        let flexible = take_billing_mode(&mut params)?;
        let send_invoice = take_collection_method(&mut params)?.unwrap_or(false);
        let days_until_due = params.natural("days_until_due")?;
        let description = params.text("description")?;
        let default_payment_method = take_method(&mut params, "default_payment_method")?.flatten();
        let behavior = PaymentBehavior::take(&mut params)?;
        let missing_method = take_missing_method(&mut params)?;
        let pairs = params.pairs("metadata")?;
        params.ignore(&IGNORED);
        params.finish()?;
        if trial_days.is_some() && trial_end.is_some() {
            return Err(ApiError::invalid(
                "trial_end",
                "You may only specify one of these parameters: trial_end, trial_period_days.",
            ));
        }
        self.live_customer(&customer, "customer")?;
        let saved = self.ids.clone();
        let built = self.new_subscription(&customer, items, at);
        let (mut subscription, interval) = match built {
            Ok(built) => built,
            Err(error) => {
                self.ids = saved;
                return Err(error);
            }
        };
        let checked = subscription
            .start(
                interval,
                trial_end.or(trial_days.map(|days| at + days * DAY)),
                anchor,
                at,
            )
            .and_then(|()| match currency {
                Some(currency) if currency != subscription.currency => Err(ApiError::invalid(
                    "currency",
                    format!("The prices of this subscription are not available in {currency}."),
                )),
                _ => Ok(()),
            });
        if let Err(error) = checked {
            self.ids = saved;
            return Err(error);
        }
        merge(&mut subscription.metadata, pairs);
        subscription.flexible = flexible;
        subscription.send_invoice = send_invoice;
        subscription.days_until_due = days_until_due;
        subscription.description = description;
        subscription.default_payment_method = default_payment_method;
        subscription.missing_method = missing_method;
        subscription.schedule_cancel(cancel_at_period_end.then_some(true), cancel_at.map(Some), at);

        let entries = self.first_entries(&subscription, interval, proration);
        let refusal = self.refusal_of(&subscription, &entries);
        if let Err(error) = behavior.check(refusal.as_ref()) {
            self.ids = saved;
            return Err(error);
        }
        if refusal.is_some() {
            subscription.status = Status::Incomplete;
            let expires = at + INCOMPLETE_S;
            self.due
                .insert((expires, Due::ExpireIncomplete(subscription.id.clone())));
        }
        self.schedule(&subscription);
        for item in &subscription.items {
            self.item_owners.insert(item.id.clone(), subscription.id.clone());
        }
        if let Some(mut customer) = self.customers.find(&customer).cloned()
            && customer.currency.is_none()
        {
            customer.currency = Some(subscription.currency.clone());
            self.customers.put(customer);
        }
        self.subscriptions.put(subscription.clone());
        let invoice = self.draft_invoice(&subscription, Reason::Create, (at, at), entries, at, cause);
        subscription.latest_invoice = Some(invoice.clone());
        let id = subscription.id.clone();
        let rendered = self.render_subscription(&subscription);
        self.subscriptions.put(subscription);
        self.emit(at, cause, "customer.subscription.created", rendered, None);
        self.announce_trial_end(&id, at, cause);
        // Where it fails, the draft says so.
        let _ = self.finalize_invoice(&invoice, true, at, cause);
        Ok(self.render_subscription(self.subscriptions.get(&id, "id")?))
    }

    /// A subscription with its items, not started.
    pub(crate) fn new_subscription(
        &mut self,
        customer: &str,
        items: Vec<Params>,
        at: i64,
    ) -> Result<(Subscription, Interval), ApiError> {
        let mut subscription = Subscription {
            id: self.ids.mint(Kind::Subscription),
            customer: customer.to_owned(),
            currency: String::new(),
            status: Status::Active,
            created: at,
            anchor: at,
            period: (at, at),
            items: Vec::new(),
            pending: Vec::new(),
            trial: None,
            cancel_at: None,
            cancel_at_period_end: false,
            canceled_at: None,
            ended_at: None,
            latest_invoice: None,
            flexible: true,
            send_invoice: false,
            days_until_due: None,
            description: None,
            default_payment_method: None,
            missing_method: None,
            pause: None,
            cancellation: Cancellation::default(),
            metadata: Metadata::new(),
        };
        for level in items {
            let (change, param) = Change::take(level)?;
            if !matches!(change, Change::Add { .. }) {
                return Err(ApiError::unknown_parameters(&["items[id]".to_owned()]));
            }
            self.change_items(&mut subscription, change, &param, at)?;
        }
        let interval = self.check_items(&subscription)?;
        subscription.currency = self.price_of(&subscription.items[0]).currency.clone();
        Ok((subscription, interval))
    }

    /// The price of an item. An item can't be made without one, and prices are never removed.
    fn price_of(&self, item: &Item) -> &Price {
        self.catalog.prices.find(&item.price).expect("an item's price exists")
    }

    /// `DELETE /v1/subscriptions/:id`: at once.
    pub(crate) fn cancel_subscription(
        &mut self,
        id: &str,
        mut params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        let mut subscription = self.live_subscription(id, "id")?.clone();
        let invoice_now = params.boolean("invoice_now")?.unwrap_or(false);
        let credits = params.boolean("prorate")?.unwrap_or(false);
        take_cancellation(&mut params, &mut subscription.cancellation)?;
        params.finish()?;
        if credits && let Some(interval) = self.interval_of(&subscription) {
            let items = subscription.items.clone();
            for item in &items {
                let credit = self.unused_time(&subscription, item, interval, at);
                subscription.pending.extend(credit);
            }
        }
        let end = if invoice_now {
            End::BillingUsage
        } else {
            End::DiscardingUsage
        };
        Ok(self.end(subscription, at, end, Reason::Update, cause))
    }

    pub(crate) fn live_subscription(&self, id: &str, param: &str) -> Result<&Subscription, ApiError> {
        let subscription = self.subscriptions.get(id, param)?;
        if subscription.is_live() {
            Ok(subscription)
        } else {
            Err(ApiError::no_such(Subscription::NOUN, id, param))
        }
    }

    pub(crate) fn update_subscription(
        &mut self,
        id: &str,
        mut params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        let found = self.live_subscription(id, "id")?;
        let before = self.render_subscription(found);
        let mut subscription = found.clone();
        let changes = take_changes(&mut params)?;
        let proration = Proration::take(&mut params)?;
        let proration_date = params.natural("proration_date")?;
        let cancel_at_period_end = params.boolean("cancel_at_period_end")?;
        let cancel_at = take_cancel_at(&mut params)?;
        let trial_end = take_trial_end_update(&mut params)?;
        // An object since 2026-09-30.endive: <https://docs.stripe.com/changelog/endive>.
        let anchor_now = match params.level("billing_cycle_anchor")? {
            Some(mut level) => {
                let anchor_now = level.choice("type", &[("now", true), ("unchanged", false)])?;
                level.finish()?;
                anchor_now
            }
            None => None,
        };
        take_cancellation(&mut params, &mut subscription.cancellation)?;
        if let Some(send_invoice) = take_collection_method(&mut params)? {
            subscription.send_invoice = send_invoice;
        }
        if let Some(days) = params.natural("days_until_due")? {
            subscription.days_until_due = Some(days);
        }
        if let Some(description) = params.settable("description")? {
            subscription.description = description;
        }
        if let Some(method) = take_method(&mut params, "default_payment_method")? {
            subscription.default_payment_method = method;
        }
        if let Some(missing_method) = take_missing_method(&mut params)? {
            subscription.missing_method = Some(missing_method);
        }
        if let Some(pause) = take_pause(&mut params, at)? {
            subscription.pause = pause;
        }
        let behavior = PaymentBehavior::take(&mut params)?;
        merge(&mut subscription.metadata, params.pairs("metadata")?);
        params.ignore(&IGNORED);
        params.finish()?;
        let when = check_proration_date(&subscription, proration_date, at)?;
        let mut restart = if anchor_now == Some(true) {
            Restart::Now
        } else {
            Restart::No
        };
        let trial_moves = trial_end.is_some() && subscription.status == Status::Trialing;
        match trial_end {
            Some(TrialEnd::Now) if subscription.status == Status::Trialing => restart = Restart::Now,
            Some(TrialEnd::Now) | None => {}
            Some(TrialEnd::At(end)) => subscription.extend_trial(end, at)?,
        }
        subscription.schedule_cancel(cancel_at_period_end, cancel_at, at);

        let saved = self.ids.clone();
        let applied = self.apply(&mut subscription, changes, proration, restart, when, at);
        let immediate = match applied {
            Ok(immediate) => immediate,
            Err(error) => {
                self.ids = saved;
                return Err(error);
            }
        };
        if let Some(entries) = &immediate {
            let refusal = self.refusal_of(&subscription, entries);
            if let Err(error) = behavior.check(refusal.as_ref()) {
                self.ids = saved;
                return Err(error);
            }
        }
        let rendered = self.commit_update(subscription, immediate, before, at, cause);
        if trial_moves {
            self.announce_trial_end(id, at, cause);
        }
        Ok(rendered)
    }

    /// Stores an updated subscription, and invoices what the update bills at once.
    pub(crate) fn commit_update(
        &mut self,
        mut subscription: Subscription,
        immediate: Option<Vec<Entry>>,
        mut before: Value,
        at: i64,
        cause: &Cause,
    ) -> Value {
        for item in &subscription.items {
            self.item_owners.insert(item.id.clone(), subscription.id.clone());
        }
        self.schedule(&subscription);
        self.subscriptions.put(subscription.clone());
        if let Some(entries) = immediate {
            let invoice = self.draft_invoice(&subscription, Reason::Update, (at, at), entries, at, cause);
            subscription.latest_invoice = Some(invoice.clone());
            self.subscriptions.put(subscription.clone());
            self.finalize_unless_held(&invoice, at, cause);
            if let Some(paid_for) = self.subscriptions.find(&subscription.id).cloned() {
                if paid_for.status != subscription.status {
                    // The payment told it already.
                    before["status"] = paid_for.status.word().into();
                }
                subscription = paid_for;
            }
        }
        let rendered = self.render_subscription(&subscription);
        self.emit(
            at,
            cause,
            "customer.subscription.updated",
            rendered.clone(),
            Some(&before),
        );
        rendered
    }

    /// Without `status`, all that are not canceled.
    pub(crate) fn list_subscriptions(&self, mut params: Params) -> Result<Value, ApiError> {
        let page = Page::take(&mut params)?;
        let customer = params.text("customer")?;
        let price = params.text("price")?;
        let words = [
            "active",
            "all",
            "canceled",
            "ended",
            "incomplete",
            "incomplete_expired",
            "past_due",
            "paused",
            "trialing",
            "unpaid",
        ];
        let status = params.choice("status", &words.map(|word| (word, word)))?;
        params.finish()?;
        let rows = self
            .subscriptions
            .newest_first(customer.as_deref())
            .filter(|subscription| {
                let of_status = match status {
                    None => subscription.is_live(),
                    Some("all") => true,
                    Some("ended") => !subscription.is_live(),
                    Some(word) => subscription.status.word() == word,
                };
                of_status
                    && price
                        .as_ref()
                        .is_none_or(|price| subscription.items.iter().any(|item| item.price == *price))
            });
        page.cut(
            rows,
            |subscription| subscription.id(),
            |subscription| self.render_subscription(subscription),
            Subscription::NOUN,
            "/v1/subscriptions",
        )
    }

    pub(crate) fn render_subscription(&self, subscription: &Subscription) -> Value {
        let items: Vec<Value> = subscription
            .items
            .iter()
            .map(|item| self.render_item(subscription, item))
            .collect();
        json!({
            "id": subscription.id,
            "object": "subscription",
            "application": null,
            "application_fee_percent": null,
            "automatic_tax": { "disabled_reason": null, "enabled": false, "liability": null },
            "billing_cycle_anchor": subscription.anchor,
            "billing_cycle_anchor_config": null,
            "billing_mode": { "flexible": null, "type": if subscription.flexible { "flexible" } else { "classic" } },
            "billing_schedules": [],
            "billing_thresholds": null,
            "cancel_at": subscription.cancel_at,
            "cancel_at_period_end": subscription.cancel_at_period_end,
            "canceled_at": subscription.canceled_at,
            "cancellation_details": {
                "comment": subscription.cancellation.comment,
                "feedback": subscription.cancellation.feedback,
                "feedback_option": null,
                "reason": subscription
                    .cancellation
                    .reason
                    .or(subscription.canceled_at.map(|_| "cancellation_requested")),
            },
            "collection_method": if subscription.send_invoice { "send_invoice" } else { "charge_automatically" },
            "created": subscription.created,
            "currency": subscription.currency,
            "customer": subscription.customer,
            "customer_account": null,
            "days_until_due": subscription.days_until_due,
            "default_payment_method": subscription.default_payment_method,
            "default_source": null,
            "default_tax_rates": [],
            "description": subscription.description,
            "discounts": [],
            "ended_at": subscription.ended_at,
            "invoice_settings": {
                "account_tax_ids": null,
                "custom_fields": null,
                "description": null,
                "footer": null,
                "issuer": { "type": "self" },
            },
            "items": {
                "object": "list",
                "data": items,
                "has_more": false,
                "url": format!("/v1/subscription_items?subscription={}", subscription.id),
            },
            "latest_invoice": subscription.latest_invoice,
            "livemode": false,
            "managed_payments": null,
            "metadata": subscription.metadata,
            "next_pending_invoice_item_invoice": null,
            "on_behalf_of": null,
            "pause_collection": subscription.pause.map(Pause::render),
            "payment_settings": null,
            "pending_invoice_item_interval": null,
            "pending_setup_intent": null,
            "pending_update": null,
            "schedule": null,
            "start_date": subscription.created,
            "status": subscription.status.word(),
            "test_clock": null,
            "transfer_data": null,
            "trial_end": subscription.trial.map(|(_, end)| end),
            "trial_settings": {
                "end_behavior": {
                    "billing_cycle_anchor": null,
                    "missing_payment_method": subscription.missing_method.unwrap_or(MissingMethod::CreateInvoice).word(),
                },
            },
            "trial_start": subscription.trial.map(|(start, _)| start),
        })
    }
}

/// Parameters that have no effect here.
const IGNORED: [&str; 4] = ["automatic_tax", "off_session", "payment_settings", "trial_from_plan"];

#[derive(Debug, Clone, Copy)]
enum TrialEnd {
    Now,
    At(i64),
}

fn take_trial_end_update(params: &mut Params) -> Result<Option<TrialEnd>, ApiError> {
    match params.text("trial_end")?.as_deref() {
        None => Ok(None),
        Some("now") => Ok(Some(TrialEnd::Now)),
        Some(text) => match text.parse() {
            Ok(end) => Ok(Some(TrialEnd::At(end))),
            Err(_) => Err(ApiError::invalid(
                "trial_end",
                "Invalid timestamp: must be an integer Unix timestamp in the future.",
            )),
        },
    }
}

fn take_trial_end(params: &mut Params, at: i64) -> Result<Option<i64>, ApiError> {
    match take_trial_end_update(params)? {
        Some(TrialEnd::At(end)) if end <= at => Err(ApiError::invalid(
            "trial_end",
            "Invalid timestamp: must be an integer Unix timestamp in the future.",
        )),
        Some(TrialEnd::At(end)) => Ok(Some(end)),
        Some(TrialEnd::Now) | None => Ok(None),
    }
}

/// An empty string unsets.
fn take_cancel_at(params: &mut Params) -> Result<Option<Option<i64>>, ApiError> {
    match params.settable("cancel_at")? {
        None => Ok(None),
        Some(None) => Ok(Some(None)),
        Some(Some(text)) => {
            match text.parse() {
                Ok(at) => Ok(Some(Some(at))),
                Err(_) => Err(ApiError::invalid("cancel_at", format!("Invalid integer: {text}"))
                    .code("parameter_invalid_integer")),
            }
        }
    }
}

/// `flexible` is the default since 2025-09-30.clover.
/// <https://docs.stripe.com/billing/subscriptions/billing-mode>
fn take_billing_mode(params: &mut Params) -> Result<bool, ApiError> {
    let Some(mut level) = params.level("billing_mode")? else {
        return Ok(true);
    };
    let flexible = level.choice("type", &[("classic", false), ("flexible", true)])?;
    level.ignore(&["flexible"]);
    level.finish()?;
    flexible.ok_or_else(|| ApiError::missing("billing_mode[type]"))
}

fn take_collection_method(params: &mut Params) -> Result<Option<bool>, ApiError> {
    params.choice(
        "collection_method",
        &[("charge_automatically", false), ("send_invoice", true)],
    )
}

fn take_cancellation(params: &mut Params, cancellation: &mut Cancellation) -> Result<(), ApiError> {
    if let Some(mut level) = params.level("cancellation_details")? {
        if let Some(comment) = level.settable("comment")? {
            cancellation.comment = comment;
        }
        if let Some(feedback) = level.settable("feedback")? {
            cancellation.feedback = feedback;
        }
        level.finish()?;
    }
    Ok(())
}
