//! The invoice that would come next.
//!
//! Source: <https://docs.stripe.com/api/invoices/create_preview>.

use serde_json::Value;

use super::{Proration, Subscription};
use crate::{
    ids::Kind,
    invoices::{Entry, Invoice, Reason},
    state::State,
    subscriptions::changes::{Restart, check_proration_date, take_changes},
    wire::{error::ApiError, form::Params},
};

impl State {
    /// The invoice that would come next, with the changes that the request names. Stores nothing.
    /// <https://docs.stripe.com/api/invoices/create_preview>
    pub(crate) fn preview_invoice(&mut self, params: Params, at: i64) -> Result<Value, ApiError> {
        let saved = self.ids.clone();
        let preview = self.preview(params, at);
        self.ids = saved;
        let invoice = preview?;
        Ok(self.render_invoice(&invoice, at))
    }

    pub(super) fn preview(&mut self, mut params: Params, at: i64) -> Result<Invoice, ApiError> {
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
    pub(super) fn previewed(
        &self,
        customer: Option<&str>,
        subscription: Option<&str>,
    ) -> Result<Option<Subscription>, ApiError> {
        if let Some(id) = subscription {
            return self.live_subscription(id, "subscription").cloned().map(Some);
        }
        let live = self
            .subscriptions
            .newest_first(customer)
            .filter(|subscription| subscription.is_live());
        Ok(customer.and_then(|_| live.last()).cloned())
    }

    pub(super) fn upcoming(
        &mut self,
        subscription: &Subscription,
        period: (i64, i64),
        entries: Vec<Entry>,
        at: i64,
    ) -> Invoice {
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
}
