//! Periods: the first, the next, and the end.
//!
//! Source: <https://docs.stripe.com/billing/subscriptions/billing-cycle>.

use serde_json::Value;

use super::{Item, Proration, Status, Subscription};
use crate::{
    calendar::Interval,
    events::Cause,
    invoices::{Entry, Line, Reason, UsageSpan},
    money::prorate,
    state::{Due, State},
    wire::error::ApiError,
};

/// What happens to usage that no invoice has billed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
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

    pub(super) fn extend_trial(&mut self, end: i64, at: i64) -> Result<(), ApiError> {
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
    pub(super) fn schedule_cancel(&mut self, at_period_end: Option<bool>, cancel_at: Option<Option<i64>>, at: i64) {
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
    pub(super) fn usage(&self, item: &Item, end: i64) -> Option<UsageSpan> {
        (!matches!(self.status, Status::Trialing | Status::Paused)).then(|| UsageSpan {
            item: item.id.clone(),
            price: item.price.clone(),
            span: item.usage_from.max(self.period.0)..end,
        })
    }
}

impl State {
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
    pub(super) fn advance_lines(&self, item: &Item, period: (i64, i64)) -> Vec<Line> {
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
    pub(super) fn cycle_entries(&self, subscription: &mut Subscription, interval: Interval) -> Vec<Entry> {
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
    pub(super) fn end(
        &mut self,
        mut subscription: Subscription,
        at: i64,
        end: End,
        reason: Reason,
        cause: &Cause,
    ) -> Value {
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
}
