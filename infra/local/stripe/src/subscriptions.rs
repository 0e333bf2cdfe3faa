//! Subscriptions and their items: periods, changes, prorations, cancellation.
//!
//! Source: <https://docs.stripe.com/api/subscriptions>, <https://docs.stripe.com/billing/subscriptions/billing-cycle>,
//! <https://docs.stripe.com/billing/subscriptions/prorations> and
//! <https://docs.stripe.com/billing/subscriptions/usage-based/manage-billing-setup>.

use serde_json::{Value, json};

use crate::{
    calendar::{DAY, Interval, day_name},
    catalog::{Metadata, Price, merge},
    events::Cause,
    ids::Kind,
    invoices::{Entry, Invoice, Line, Reason, UsageSpan},
    money::prorate,
    pauses::{MissingMethod, Pause, take_missing_method, take_pause},
    payments::{INCOMPLETE_S, PaymentBehavior, take_method},
    state::{Due, State},
    table::Object,
    wire::{error::ApiError, form::Params, list::Page},
};

/// "A subscription can have up to 20 items."
const ITEMS_MAX: usize = 20;

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

/// A change to the items.
#[derive(Debug)]
enum Change {
    Add {
        price: String,
        quantity: Option<i64>,
        metadata: Vec<(String, String)>,
    },
    Update {
        id: String,
        price: Option<String>,
        quantity: Option<i64>,
        metadata: Vec<(String, String)>,
    },
    Remove {
        id: String,
    },
}

impl Change {
    /// One element of `items`: with an `id` it changes or deletes an item, without one it adds one.
    fn take(mut level: Params) -> Result<(Self, String), ApiError> {
        let prefix = level.name("quantity");
        let id = level.text("id")?;
        let deleted = level.boolean("deleted")?.unwrap_or(false);
        let price = level.text("price")?;
        let quantity = level.natural("quantity")?;
        let metadata = level.pairs("metadata")?;
        let price_name = level.name("price");
        level.ignore(&["billing_thresholds", "clear_usage", "discounts", "tax_rates"]);
        level.finish()?;
        let change = match (id, deleted, price) {
            (Some(id), true, _) => Self::Remove { id },
            (Some(id), false, price) => Self::Update {
                id,
                price,
                quantity,
                metadata,
            },
            (None, _, Some(price)) => Self::Add {
                price,
                quantity,
                metadata,
            },
            (None, _, None) => return Err(ApiError::missing(&price_name)),
        };
        Ok((change, prefix))
    }
}

/// How an update moves the billing cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restart {
    No,
    /// The cycle begins anew now: unused time is credited, the new period is charged, used units are billed.
    Now,
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

    /// The first invoice: what is billed in advance, for the first period. A trial shows each item at nothing; a first period
    /// that is shorter than its interval is prorated.
    pub(crate) fn first_entries(
        &self,
        subscription: &Subscription,
        interval: Interval,
        proration: Proration,
    ) -> Vec<Entry> {
        let period = subscription.period;
        let whole = interval.cycle(subscription.anchor, period.0);
        let mut entries = Vec::new();
        for item in &subscription.items {
            let price = self.price_of(item);
            if price.meter().is_some() {
                continue;
            }
            let mut lines = self.advance_lines(item, period);
            if subscription.status == Status::Trialing {
                let name = &self.catalog.product_of(price).name;
                lines.truncate(1);
                for line in &mut lines {
                    line.amount = 0;
                    line.description = format!("Trial period for {name}");
                }
            } else if (whole.0, whole.1) != period {
                if proration == Proration::None {
                    continue;
                }
                for line in &mut lines {
                    line.amount = prorate(line.amount, period.1 - period.0, whole.1 - whole.0);
                    line.proration = true;
                }
            }
            entries.push(Entry::Lines(lines));
        }
        entries
    }

    /// An item with a flat price, billed in advance.
    fn advance_lines(&self, item: &Item, period: (i64, i64)) -> Vec<Line> {
        let price = self.price_of(item);
        let charges = price.charges(item.quantity.unwrap_or(1), self.catalog.product_of(price));
        Line::of(charges, price, &item.id, period)
    }

    /// Enters what happens next by itself.
    pub(crate) fn schedule(&mut self, subscription: &Subscription) {
        self.due
            .insert((subscription.period.1, Due::Cycle(subscription.id.clone())));
        if let Some(at) = subscription.cancel_at.filter(|_| !subscription.cancel_at_period_end) {
            self.due.insert((at, Due::Cancel(subscription.id.clone())));
        }
        if let Some(at) = subscription.pause.and_then(|pause| pause.resumes_at) {
            self.due.insert((at, Due::ResumeCollection(subscription.id.clone())));
        }
    }

    /// A period ends: the new one is billed in advance and the ended one's usage in arrears, on one draft.
    pub(crate) fn cycle(&mut self, id: &str, at: i64) -> bool {
        let Some(found) = self
            .subscriptions
            .find(id)
            .filter(|found| found.is_live() && found.period.1 == at)
        else {
            return false;
        };
        let mut subscription = found.clone();
        let before = self.render_subscription(found);
        if subscription.cancel_at_period_end {
            self.end(subscription, at, End::BillingUsage, Reason::Cycle, &Cause::default());
            return true;
        }
        if self.trial_ends_without_method(&subscription, at) {
            return true;
        }
        let Some(interval) = self.interval_of(&subscription) else {
            return false;
        };
        let ended = subscription.period;
        let entries = self.cycle_entries(&mut subscription, interval);
        self.schedule(&subscription);
        let reason = Reason::Cycle;
        self.subscriptions.put(subscription.clone());
        let invoice = self.draft_invoice(&subscription, reason, ended, entries, at, &Cause::default());
        subscription.latest_invoice = Some(invoice);
        let rendered = self.render_subscription(&subscription);
        self.subscriptions.put(subscription);
        self.emit(
            at,
            &Cause::default(),
            "customer.subscription.updated",
            rendered,
            Some(&before),
        );
        true
    }

    /// Moves a subscription into its next period and gives what the invoice of that moment bills.
    fn cycle_entries(&self, subscription: &mut Subscription, interval: Interval) -> Vec<Entry> {
        let end = subscription.period.1;
        let mut entries = vec![Entry::Lines(std::mem::take(&mut subscription.pending))];
        let next = (end, interval.cycle(subscription.anchor, end).1);
        for item in &subscription.items {
            if self.price_of(item).meter().is_none() {
                entries.push(Entry::Lines(self.advance_lines(item, next)));
            } else if let Some(usage) = subscription.usage(item, end) {
                entries.push(Entry::Usage(usage));
            }
        }
        subscription.period = next;
        if subscription.status == Status::Trialing {
            subscription.status = Status::Active;
        }
        for item in &mut subscription.items {
            item.usage_from = end;
        }
        entries
    }

    pub(crate) fn interval_of(&self, subscription: &Subscription) -> Option<Interval> {
        let item = subscription.items.first()?;
        self.price_of(item)
            .recurring
            .as_ref()
            .map(|recurring| recurring.interval)
    }

    /// Ends a subscription whose `cancel_at` is `at`; says whether it still waited for that.
    pub(crate) fn cancel_due(&mut self, id: &str, at: i64) -> bool {
        let due = self
            .subscriptions
            .find(id)
            .filter(|found| found.is_live() && !found.cancel_at_period_end && found.cancel_at == Some(at));
        let Some(subscription) = due.cloned() else {
            return false;
        };
        self.end(subscription, at, End::BillingUsage, Reason::Update, &Cause::default());
        true
    }

    /// Ends a subscription. "Any metered usage is charged for in a final invoice when the subscription cancels at the end of the
    /// billing period"; an immediate cancellation invoices it on request, "otherwise, all metered usage is discarded".
    /// <https://docs.stripe.com/billing/subscriptions/cancel>
    fn end(&mut self, mut subscription: Subscription, at: i64, end: End, reason: Reason, cause: &Cause) -> Value {
        let mut entries = Vec::new();
        if end == End::BillingUsage {
            entries.push(Entry::Lines(std::mem::take(&mut subscription.pending)));
            for item in &subscription.items {
                if self.price_of(item).meter().is_some() {
                    entries.extend(subscription.usage(item, at).map(Entry::Usage));
                }
            }
        }
        let bills = entries.iter().any(|entry| match entry {
            Entry::Lines(lines) => !lines.is_empty(),
            Entry::Usage(_) => true,
        });
        subscription.status = Status::Canceled;
        subscription.canceled_at.get_or_insert(at);
        subscription.ended_at = Some(at);
        self.subscriptions.put(subscription.clone());
        // "By default, upon subscription cancellation, Stripe stops automatic collection of all finalized invoices for the customer."
        self.stop_collecting(&subscription.customer, None);
        if bills {
            let period = (subscription.period.0, at);
            let invoice = self.draft_invoice(&subscription, reason, period, entries, at, cause);
            subscription.latest_invoice = Some(invoice);
        }
        let rendered = self.render_subscription(&subscription);
        self.subscriptions.put(subscription);
        self.emit(at, cause, "customer.subscription.deleted", rendered.clone(), None);
        rendered
    }

    /// Ends a subscription that could not be paid for: at once, discarding its usage.
    pub(crate) fn end_for_failed_payment(&mut self, mut subscription: Subscription, at: i64) {
        subscription.cancellation.reason = Some("payment_failed");
        let cause = Cause::default();
        self.end(subscription, at, End::DiscardingUsage, Reason::Update, &cause);
    }

    /// Ends all subscriptions of a customer that is deleted.
    pub(crate) fn end_subscriptions_of(&mut self, customer: &str, at: i64, cause: &Cause) {
        let live: Vec<Subscription> = self
            .subscriptions
            .newest_first(Some(customer))
            .filter(|subscription| subscription.is_live())
            .cloned()
            .collect();
        for subscription in live {
            self.end(subscription, at, End::DiscardingUsage, Reason::Update, cause);
        }
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

    /// Applies changes to the items of `subscription` (a copy: nothing is stored). Gives what is to be invoiced at once, if anything.
    fn apply(
        &mut self,
        subscription: &mut Subscription,
        changes: Vec<(Change, String)>,
        proration: Proration,
        mut restart: Restart,
        when: i64,
        at: i64,
    ) -> Result<Option<Vec<Entry>>, ApiError> {
        let old_interval = self.interval_of(subscription);
        let old_items = subscription.items.clone();
        let trialing = subscription.status == Status::Trialing;
        if subscription.status == Status::Incomplete && (!changes.is_empty() || restart == Restart::Now) {
            return Err(ApiError::refused(
                "A subscription with the status `incomplete` can only have its metadata and its default payment method updated.",
            ));
        }
        for (change, param) in changes {
            self.change_items(subscription, change, &param, at)?;
        }
        let interval = self.check_items(subscription)?;
        if old_interval.is_some_and(|old| old != interval) && !trialing {
            // "When you switch to a price with another interval, the billing cycle begins anew."
            restart = Restart::Now;
        }

        let unchanged = |item: &Item, others: &[Item]| {
            others
                .iter()
                .any(|other| other.id == item.id && other.price == item.price && other.quantity == item.quantity)
        };
        let old_interval = old_interval.unwrap_or(interval);
        for item in &old_items {
            if restart == Restart::No && unchanged(item, &subscription.items) {
                continue;
            }
            let metered = self.price_of(item).meter().is_some();
            if metered {
                let price_stays = subscription
                    .items
                    .iter()
                    .any(|other| other.id == item.id && other.price == item.price);
                let removed_and_billed = proration != Proration::None && subscription.flexible;
                if price_stays || removed_and_billed {
                    let lines = self.used_until_now(subscription, item, at);
                    subscription.pending.extend(lines);
                }
            } else if proration != Proration::None {
                let credit = self.unused_time(subscription, item, old_interval, when);
                subscription.pending.extend(credit);
            }
        }

        if restart == Restart::Now {
            if subscription.status == Status::Paused {
                return Err(ApiError::unsupported("a new billing cycle of a paused subscription"));
            }
            subscription.restart(interval, at);
            let mut entries = vec![Entry::Lines(std::mem::take(&mut subscription.pending))];
            entries.extend(self.first_entries(subscription, interval, Proration::Create));
            return Ok(Some(entries));
        }
        if proration != Proration::None {
            let new_items = subscription.items.clone();
            for item in new_items.iter().filter(|item| !unchanged(item, &old_items)) {
                let charge = self.remaining_time(subscription, item, interval, when);
                subscription.pending.extend(charge);
            }
        }
        Ok((proration == Proration::Invoice && !subscription.pending.is_empty())
            .then(|| vec![Entry::Lines(std::mem::take(&mut subscription.pending))]))
    }

    /// Applies one change, without any billing.
    fn change_items(
        &mut self,
        subscription: &mut Subscription,
        change: Change,
        param: &str,
        at: i64,
    ) -> Result<(), ApiError> {
        let position = |subscription: &Subscription, id: &str| {
            subscription
                .items
                .iter()
                .position(|item| item.id == id)
                .ok_or_else(|| ApiError::no_such("subscription_item", id, "items"))
        };
        match change {
            Change::Add {
                price,
                quantity,
                metadata: pairs,
            } => {
                let quantity = self.check_quantity(&price, quantity, true, param)?;
                let mut metadata = Metadata::new();
                merge(&mut metadata, pairs);
                subscription.items.push(Item {
                    id: self.ids.mint(Kind::SubscriptionItem),
                    price,
                    quantity,
                    created: at,
                    metadata,
                    usage_from: at,
                });
            }
            Change::Update {
                id,
                price,
                quantity,
                metadata,
            } => {
                let index = position(subscription, &id)?;
                let old = subscription.items[index].clone();
                let switches = price.as_ref().is_some_and(|price| *price != old.price);
                let price = price.unwrap_or(old.price);
                let quantity =
                    self.check_quantity(&price, quantity.or(old.quantity.filter(|_| !switches)), switches, param)?;
                let item = &mut subscription.items[index];
                item.price = price;
                item.quantity = quantity;
                if switches {
                    // "On future invoices, we reflect only usage that occurs after the update."
                    item.usage_from = at;
                }
                merge(&mut item.metadata, metadata);
            }
            Change::Remove { id } => {
                let index = position(subscription, &id)?;
                subscription.items.remove(index);
            }
        }
        Ok(())
    }

    /// A licensed price has a quantity, 1 if none is given; a metered price must not have one.
    fn check_quantity(
        &self,
        price: &str,
        quantity: Option<i64>,
        is_new: bool,
        param: &str,
    ) -> Result<Option<i64>, ApiError> {
        let price = self.catalog.prices.get(price, "items[0][price]")?;
        if price.recurring.is_none() {
            return Err(ApiError::refused(
                "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`.",
            )
            .param("items"));
        }
        if is_new && !price.active {
            return Err(
                ApiError::refused("The price specified is inactive. This field only accepts active prices.")
                    .param("items"),
            );
        }
        match (price.meter().is_some(), quantity) {
            (true, Some(_)) => {
                let element = param.trim_end_matches("[quantity]");
                Err(ApiError::invalid(
                    param,
                    format!(
                        "Quantity should not be specified where usage_type is `metered`. Remove quantity from `{element}`"
                    ),
                ))
            }
            (true, None) => Ok(None),
            (false, quantity) => Ok(Some(quantity.unwrap_or(1))),
        }
    }

    /// What must hold for the items together; gives their interval.
    fn check_items(&self, subscription: &Subscription) -> Result<Interval, ApiError> {
        let prices: Vec<&Price> = subscription.items.iter().map(|item| self.price_of(item)).collect();
        let Some(first) = prices.first() else {
            return Err(ApiError::refused(
                "A subscription must have at least one active plan. To cancel it, use the cancel endpoint.",
            )
            .param("items"));
        };
        if prices.len() > ITEMS_MAX {
            return Err(
                ApiError::refused(format!("A subscription can have at most {ITEMS_MAX} items.")).param("items"),
            );
        }
        for (index, price) in prices.iter().enumerate() {
            if prices[..index].iter().any(|other| other.id == price.id) {
                return Err(ApiError::refused(format!(
                    "Cannot add multiple subscription items with the same plan: {}",
                    price.id
                ))
                .param("items"));
            }
            if price.currency != first.currency {
                return Err(
                    ApiError::refused("All prices of a subscription must have the same currency.").param("items"),
                );
            }
        }
        let interval_of = |price: &Price| price.recurring.as_ref().map(|recurring| recurring.interval);
        let interval = interval_of(first);
        match interval {
            Some(interval) if prices.iter().all(|price| interval_of(price) == Some(interval)) => Ok(interval),
            _ => Err(ApiError::refused(
                "All prices on a subscription must have the same `recurring.interval` and `recurring.interval_count`. If you meant to \
                 update an existing subscription item instead of creating a new one, make sure to include the subscription item ID in your request.",
            )
            .param("items")),
        }
    }

    /// The credit for the rest of the period at an item's flat price.
    fn unused_time(&mut self, subscription: &Subscription, item: &Item, interval: Interval, when: i64) -> Option<Line> {
        self.part_of_period(subscription, item, interval, when, "Unused time on", -1)
    }

    /// The charge for the rest of the period at an item's flat price.
    fn remaining_time(
        &mut self,
        subscription: &Subscription,
        item: &Item,
        interval: Interval,
        when: i64,
    ) -> Option<Line> {
        self.part_of_period(subscription, item, interval, when, "Remaining time on", 1)
    }

    /// "We prorate to the second": the part of the item's amount that the rest of the period is of the whole interval.
    fn part_of_period(
        &mut self,
        subscription: &Subscription,
        item: &Item,
        interval: Interval,
        when: i64,
        what: &str,
        sign: i64,
    ) -> Option<Line> {
        let price = self.price_of(item);
        let rest = subscription.period.1 - when;
        if price.meter().is_some() || subscription.status == Status::Trialing || rest <= 0 {
            return None;
        }
        let lines = self.advance_lines(item, (when, subscription.period.1));
        let amount = lines.iter().fold(0i64, |sum, line| sum.saturating_add(line.amount));
        // The interval that ends with this period: a first period may be shorter than it.
        let whole = interval.cycle(subscription.anchor, subscription.period.1 - 1);
        let name = &self.catalog.product_of(price).name;
        let quantity = item.quantity.unwrap_or(1);
        let counted = if quantity == 1 {
            name.clone()
        } else {
            format!("{quantity} × {name}")
        };
        Some(Line {
            amount: sign * prorate(amount, rest, whole.1 - whole.0),
            quantity,
            description: format!("{what} {counted} after {}", day_name(when)),
            price: item.price.clone(),
            product: price.product.clone(),
            unit: None,
            period: (when, subscription.period.1),
            item: item.id.clone(),
            invoice_item: Some(self.ids.mint(Kind::InvoiceItem)),
            proration: true,
        })
    }

    /// The invoice item "that bills for previously reported metered usage when you remove a metered price". It is fixed now: usage
    /// with an earlier timestamp that is reported later is not billed.
    fn used_until_now(&mut self, subscription: &Subscription, item: &Item, at: i64) -> Vec<Line> {
        let Some(usage) = subscription.usage(item, at) else {
            return Vec::new();
        };
        let mut lines = self.usage_lines(&subscription.customer, &usage, i64::MAX);
        for line in &mut lines {
            line.invoice_item = Some(self.ids.mint(Kind::InvoiceItem));
        }
        lines
    }

    pub(crate) fn create_item(&mut self, mut params: Params, at: i64, cause: &Cause) -> Result<Value, ApiError> {
        let subscription = params.required("subscription")?;
        let proration = Proration::take(&mut params)?;
        let proration_date = params.natural("proration_date")?;
        params.ignore(&["payment_behavior"]);
        let (change, param) = Change::take(params)?;
        if !matches!(change, Change::Add { .. }) {
            return Err(ApiError::unknown_parameters(&["id".to_owned()]));
        }
        let subscription = self.change_one(&subscription, change, param, (proration, proration_date), at, cause)?;
        match subscription.items.last() {
            Some(item) => Ok(self.render_item(&subscription, item)),
            None => Err(ApiError::internal()),
        }
    }

    pub(crate) fn update_item(
        &mut self,
        id: &str,
        mut params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        let owner = self.owner_of(id)?;
        let proration = Proration::take(&mut params)?;
        let proration_date = params.natural("proration_date")?;
        let price = params.text("price")?;
        let quantity = params.natural("quantity")?;
        let metadata = params.pairs("metadata")?;
        params.ignore(&[
            "billing_thresholds",
            "discounts",
            "off_session",
            "payment_behavior",
            "tax_rates",
        ]);
        params.finish()?;
        let change = Change::Update {
            id: id.to_owned(),
            price,
            quantity,
            metadata,
        };
        self.change_one(
            &owner,
            change,
            "quantity".to_owned(),
            (proration, proration_date),
            at,
            cause,
        )?;
        self.retrieve_item(id)
    }

    pub(crate) fn delete_item(
        &mut self,
        id: &str,
        mut params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        let owner = self.owner_of(id)?;
        let proration = Proration::take(&mut params)?;
        let proration_date = params.natural("proration_date")?;
        params.ignore(&["clear_usage", "payment_behavior"]);
        params.finish()?;
        let change = Change::Remove { id: id.to_owned() };
        self.change_one(&owner, change, "id".to_owned(), (proration, proration_date), at, cause)?;
        Ok(json!({ "id": id, "object": "subscription_item", "deleted": true }))
    }

    fn change_one(
        &mut self,
        id: &str,
        change: Change,
        param: String,
        (proration, proration_date): (Proration, Option<i64>),
        at: i64,
        cause: &Cause,
    ) -> Result<Subscription, ApiError> {
        let found = self.live_subscription(id, "subscription")?;
        let before = self.render_subscription(found);
        let mut subscription = found.clone();
        let when = check_proration_date(&subscription, proration_date, at)?;
        let saved = self.ids.clone();
        let applied = self.apply(
            &mut subscription,
            vec![(change, param)],
            proration,
            Restart::No,
            when,
            at,
        );
        let immediate = match applied {
            Ok(immediate) => immediate,
            Err(error) => {
                self.ids = saved;
                return Err(error);
            }
        };
        self.commit_update(subscription.clone(), immediate, before, at, cause);
        Ok(subscription)
    }

    /// The subscription that has an item.
    fn owner_of(&self, item: &str) -> Result<String, ApiError> {
        let missing = || ApiError::no_such("subscription_item", item, "id");
        let owner = self.item_owners.get(item).ok_or_else(missing)?;
        let subscription = self.subscriptions.get(owner, "id")?;
        let has = subscription.items.iter().any(|other| other.id == item);
        has.then(|| owner.clone()).ok_or_else(missing)
    }

    pub(crate) fn retrieve_item(&self, id: &str) -> Result<Value, ApiError> {
        let owner = self.owner_of(id)?;
        let subscription = self.subscriptions.get(&owner, "id")?;
        let item = subscription.items.iter().find(|item| item.id == id);
        item.map(|item| self.render_item(subscription, item))
            .ok_or_else(|| ApiError::no_such("subscription_item", id, "id"))
    }

    pub(crate) fn list_items(&self, mut params: Params) -> Result<Value, ApiError> {
        let page = Page::take(&mut params)?;
        let subscription = params.required("subscription")?;
        params.finish()?;
        let subscription = self.subscriptions.get(&subscription, "subscription")?;
        page.cut(
            subscription.items.iter(),
            |item| &item.id,
            |item| self.render_item(subscription, item),
            "subscription_item",
            "/v1/subscription_items",
        )
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

    /// The invoice that would come next, with the changes that the request names. Stores nothing.
    /// <https://docs.stripe.com/api/invoices/create_preview>
    pub(crate) fn preview_invoice(&mut self, params: Params, at: i64) -> Result<Value, ApiError> {
        let saved = self.ids.clone();
        let preview = self.preview(params, at);
        self.ids = saved;
        let invoice = preview?;
        Ok(self.render_invoice(&invoice, at))
    }

    fn preview(&mut self, mut params: Params, at: i64) -> Result<Invoice, ApiError> {
        let customer = params.text("customer")?;
        let subscription = params.text("subscription")?;
        let mut details = params.level("subscription_details")?.unwrap_or_default();
        params.ignore(&["automatic_tax", "currency", "preview_mode"]);
        params.finish()?;
        let proration = Proration::take(&mut details)?;
        let proration_date = details.natural("proration_date")?;
        let cancel_at_period_end = details.boolean("cancel_at_period_end")?;
        let restart = match details.choice(
            "billing_cycle_anchor",
            &[("now", Restart::Now), ("unchanged", Restart::No)],
        )? {
            Some(restart) => restart,
            None => Restart::No,
        };
        details.ignore(&["billing_mode"]);

        let Some(mut previewed) = self.previewed(customer.as_deref(), subscription.as_deref())? else {
            let customer = customer.ok_or_else(|| ApiError::missing("customer"))?;
            self.live_customer(&customer, "customer")?;
            let items = details.levels("items")?;
            details.finish()?;
            let items = items.ok_or_else(|| {
                ApiError::no_such("upcoming invoices for customer", &customer, "customer").code("invoice_upcoming_none")
            })?;
            let (mut fresh, interval) = self.new_subscription(&customer, items, at)?;
            fresh.start(interval, None, None, at)?;
            let entries = self.first_entries(&fresh, interval, proration);
            return Ok(self.upcoming(&fresh, (at, at), entries, at));
        };
        let changes = take_changes(&mut details)?;
        details.finish()?;
        previewed.schedule_cancel(cancel_at_period_end, None, at);
        let when = check_proration_date(&previewed, proration_date, at)?;
        let period = previewed.period;
        if let Some(entries) = self.apply(&mut previewed, changes, proration, restart, when, at)? {
            return Ok(self.upcoming(&previewed, (at, at), entries, at));
        }
        let interval = self.check_items(&previewed)?;
        let entries = if previewed.cancel_at_period_end {
            let mut entries = vec![Entry::Lines(previewed.pending.clone())];
            let usage = previewed
                .items
                .iter()
                .filter(|item| self.price_of(item).meter().is_some());
            entries.extend(
                usage
                    .filter_map(|item| previewed.usage(item, period.1))
                    .map(Entry::Usage),
            );
            entries
        } else {
            self.cycle_entries(&mut previewed, interval)
        };
        let mut invoice = self.upcoming(&previewed, period, entries, at);
        invoice.period = period;
        Ok(invoice)
    }

    /// The subscription to preview: the one that is named, or the customer's first that lives.
    fn previewed(&self, customer: Option<&str>, subscription: Option<&str>) -> Result<Option<Subscription>, ApiError> {
        if let Some(id) = subscription {
            return self.live_subscription(id, "subscription").cloned().map(Some);
        }
        let live = self
            .subscriptions
            .newest_first(customer)
            .filter(|subscription| subscription.is_live());
        Ok(customer.and_then(|_| live.last()).cloned())
    }

    fn upcoming(&mut self, subscription: &Subscription, period: (i64, i64), entries: Vec<Entry>, at: i64) -> Invoice {
        let id = format!("upcoming_{}", self.ids.mint(Kind::Invoice));
        Invoice::draft(
            id,
            subscription,
            Reason::Upcoming,
            period,
            entries,
            at,
            self.settings.invoice_grace_s,
        )
    }

    fn render_item(&self, subscription: &Subscription, item: &Item) -> Value {
        let price = self.price_of(item);
        let mut rendered = json!({
            "id": item.id,
            "object": "subscription_item",
            "billing_thresholds": null,
            "created": item.created,
            "current_period_end": subscription.period.1,
            "current_period_start": subscription.period.0,
            "discounts": [],
            "metadata": item.metadata,
            "plan": price.render_plan(),
            "price": price.render(),
            "subscription": subscription.id,
            "tax_rates": [],
        });
        if let (Some(quantity), Some(fields)) = (item.quantity, rendered.as_object_mut()) {
            fields.insert("quantity".into(), quantity.into());
        }
        rendered
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
            "billing_mode": { "type": if subscription.flexible { "flexible" } else { "classic" } },
            "billing_schedules": [],
            "billing_thresholds": null,
            "cancel_at": subscription.cancel_at,
            "cancel_at_period_end": subscription.cancel_at_period_end,
            "canceled_at": subscription.canceled_at,
            "cancellation_details": {
                "comment": subscription.cancellation.comment,
                "feedback": subscription.cancellation.feedback,
                "reason": subscription
                    .cancellation
                    .reason
                    .or(subscription.canceled_at.map(|_| "cancellation_requested")),
            },
            "collection_method": if subscription.send_invoice { "send_invoice" } else { "charge_automatically" },
            "created": subscription.created,
            "currency": subscription.currency,
            "customer": subscription.customer,
            "days_until_due": subscription.days_until_due,
            "default_payment_method": subscription.default_payment_method,
            "default_source": null,
            "default_tax_rates": [],
            "description": subscription.description,
            "discounts": [],
            "ended_at": subscription.ended_at,
            "invoice_settings": { "account_tax_ids": null, "issuer": { "type": "self" } },
            "items": {
                "object": "list",
                "data": items,
                "has_more": false,
                "total_count": items.len(),
                "url": format!("/v1/subscription_items?subscription={}", subscription.id),
            },
            "latest_invoice": subscription.latest_invoice,
            "livemode": false,
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
                    "missing_payment_method": subscription.missing_method.unwrap_or(MissingMethod::CreateInvoice).word(),
                },
            },
            "trial_start": subscription.trial.map(|(start, _)| start),
        })
    }
}

/// What happens to usage that no invoice has billed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    BillingUsage,
    DiscardingUsage,
}

impl Subscription {
    /// Sets the first period: a trial, or up to the first boundary of the cycle.
    pub(crate) fn start(
        &mut self,
        interval: Interval,
        trial_end: Option<i64>,
        anchor: Option<i64>,
        at: i64,
    ) -> Result<(), ApiError> {
        if let Some(end) = trial_end.filter(|end| *end > at) {
            self.status = Status::Trialing;
            self.trial = Some((at, end));
            self.anchor = end;
            self.period = (at, end);
            return Ok(());
        }
        self.anchor = at;
        if let Some(anchor) = anchor {
            if anchor < at {
                return Err(ApiError::invalid(
                    "billing_cycle_anchor",
                    "`billing_cycle_anchor` cannot be in the past.",
                ));
            }
            if anchor > interval.boundary(at, 1) {
                return Err(ApiError::invalid(
                    "billing_cycle_anchor",
                    "`billing_cycle_anchor` cannot be later than next natural billing date for plan.",
                ));
            }
            self.anchor = anchor;
        }
        self.period = (at, interval.cycle(self.anchor, at).1);
        Ok(())
    }

    /// Begins a new cycle at `at`; a trial ends with that.
    pub(crate) fn restart(&mut self, interval: Interval, at: i64) {
        if let Some((_, end)) = self.trial.as_mut().filter(|_| self.status == Status::Trialing) {
            *end = at;
        }
        if matches!(self.status, Status::Trialing | Status::Paused) {
            self.status = Status::Active;
        }
        self.anchor = at;
        self.period = (at, interval.boundary(at, 1));
        for item in &mut self.items {
            item.usage_from = at;
        }
        if self.cancel_at_period_end {
            self.cancel_at = Some(self.period.1);
        }
    }

    fn extend_trial(&mut self, end: i64, at: i64) -> Result<(), ApiError> {
        let Some((start, _)) = self.trial.filter(|_| self.status == Status::Trialing) else {
            return Err(ApiError::unsupported(
                "a new trial on a subscription that is past its trial",
            ));
        };
        if end <= at {
            return Err(ApiError::invalid(
                "trial_end",
                "Invalid timestamp: must be an integer Unix timestamp in the future.",
            ));
        }
        self.trial = Some((start, end));
        self.anchor = end;
        self.period.1 = end;
        Ok(())
    }

    /// An outer `None` leaves the setting as it is.
    fn schedule_cancel(&mut self, at_period_end: Option<bool>, cancel_at: Option<Option<i64>>, at: i64) {
        match at_period_end {
            Some(true) => {
                self.cancel_at_period_end = true;
                self.cancel_at = Some(self.period.1);
                self.canceled_at = Some(at);
            }
            Some(false) => {
                self.cancel_at_period_end = false;
                self.cancel_at = None;
                self.canceled_at = None;
            }
            None => {}
        }
        if let Some(cancel_at) = cancel_at {
            self.cancel_at_period_end = false;
            self.cancel_at = cancel_at;
            self.canceled_at = cancel_at.map(|_| at);
        }
    }

    /// The usage of a metered item that ends at `end`; none during a trial, whose usage is free, nor while it is paused.
    fn usage(&self, item: &Item, end: i64) -> Option<UsageSpan> {
        (!matches!(self.status, Status::Trialing | Status::Paused)).then(|| UsageSpan {
            item: item.id.clone(),
            price: item.price.clone(),
            span: item.usage_from.max(self.period.0)..end,
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

fn take_changes(params: &mut Params) -> Result<Vec<(Change, String)>, ApiError> {
    let items = params.levels("items")?.unwrap_or_default();
    items.into_iter().map(Change::take).collect()
}

/// Prorations may be computed for another moment of the present period, such as that of a preview.
fn check_proration_date(subscription: &Subscription, date: Option<i64>, at: i64) -> Result<i64, ApiError> {
    let (start, end) = subscription.period;
    match date {
        Some(date) if !(start..=end).contains(&date) => Err(ApiError::invalid(
            "proration_date",
            "Invalid timestamp: must be within the current subscription period.",
        )),
        Some(date) => Ok(date),
        None => Ok(at),
    }
}
