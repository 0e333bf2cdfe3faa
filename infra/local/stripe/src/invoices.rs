//! Invoices: their lines, the draft's hour of grace, finalization and payment.
//!
//! Source: <https://docs.stripe.com/api/invoices>, <https://docs.stripe.com/billing/invoices/subscription> and
//! <https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage#grace-period>.

use std::ops::Range;

use serde_json::{Value, json};

use crate::{
    catalog::{Charge, Metadata, Price, merge},
    events::Cause,
    ids::Kind,
    money::Decimal,
    pauses::PausedInvoices,
    payments::Attempt,
    state::{Due, State},
    subscriptions::{Status as SubscriptionStatus, Subscription},
    table::Object,
    wire::{error::ApiError, form::Params, list::Page},
};

/// Lines that an invoice object carries itself; the rest is at `/v1/invoices/:id/lines`.
const LINES_EMBEDDED: usize = 10;

/// Why an invoice was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Create,
    Cycle,
    Update,
    Upcoming,
}

impl Reason {
    fn word(self) -> &'static str {
        match self {
            Self::Create => "subscription_create",
            Self::Cycle => "subscription_cycle",
            Self::Update => "subscription_update",
            Self::Upcoming => "upcoming",
        }
    }
}

/// Where an invoice is in its life. <https://docs.stripe.com/invoicing/overview#invoice-statuses>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Draft,
    Open,
    Paid,
    Uncollectible,
    Void,
}

impl Status {
    const WORDS: [(&'static str, Self); 5] = [
        ("draft", Self::Draft),
        ("open", Self::Open),
        ("paid", Self::Paid),
        ("uncollectible", Self::Uncollectible),
        ("void", Self::Void),
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Open => "open",
            Self::Paid => "paid",
            Self::Uncollectible => "uncollectible",
            Self::Void => "void",
        }
    }
}

/// A fixed line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) amount: i64,
    pub(crate) quantity: i64,
    pub(crate) description: String,
    pub(crate) price: String,
    pub(crate) product: String,
    pub(crate) unit: Option<Decimal>,
    pub(crate) period: (i64, i64),
    pub(crate) item: String,
    /// The invoice item behind a line that did not come from the subscription's cycle: a proration, or metered usage that was
    /// billed because its price was removed.
    pub(crate) invoice_item: Option<String>,
    pub(crate) proration: bool,
}

impl Line {
    /// The lines of an item that is billed for a period.
    pub(crate) fn of(charges: Vec<Charge>, price: &Price, item: &str, period: (i64, i64)) -> Vec<Self> {
        let line = |charge: Charge| Self {
            amount: charge.amount,
            quantity: charge.quantity,
            description: charge.description,
            price: price.id.clone(),
            product: price.product.clone(),
            unit: charge.unit,
            period,
            item: item.to_owned(),
            invoice_item: None,
            proration: false,
        };
        charges.into_iter().map(line).collect()
    }
}

/// Metered usage that a draft bills: it is counted anew until the invoice is finalized.
#[derive(Debug, Clone)]
pub(crate) struct UsageSpan {
    pub(crate) item: String,
    pub(crate) price: String,
    pub(crate) span: Range<i64>,
}

/// What an invoice bills.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Lines(Vec<Line>),
    Usage(UsageSpan),
}

/// An invoice of a subscription.
#[derive(Debug, Clone)]
pub(crate) struct Invoice {
    pub(crate) id: String,
    pub(crate) customer: String,
    pub(crate) subscription: String,
    pub(crate) currency: String,
    pub(crate) number: Option<String>,
    pub(crate) status: Status,
    pub(crate) reason: Reason,
    created: i64,
    pub(crate) period: (i64, i64),
    entries: Vec<Entry>,
    metadata: Metadata,
    description: Option<String>,
    auto_advance: bool,
    /// When the draft is finalized by itself.
    finalizes_at: i64,
    finalized_at: Option<i64>,
    pub(crate) paid_at: Option<i64>,
    voided_at: Option<i64>,
    uncollectible_at: Option<i64>,
    /// Payment attempts, as the schedule of retries counts them.
    pub(crate) attempts: i64,
    pub(crate) next_attempt: Option<i64>,
    /// What becomes of it because collection was paused when it was made.
    pause: Option<PausedInvoices>,
    /// Why it could not be finalized.
    finalization_error: Option<Value>,
    /// Set by finalization: the customer's balance before and after.
    balance: Option<(i64, i64)>,
    send_invoice: bool,
}

impl Object for Invoice {
    const NOUN: &'static str = "invoice";

    fn id(&self) -> &str {
        &self.id
    }

    fn customer(&self) -> Option<&str> {
        Some(&self.customer)
    }
}

/// The sums of an invoice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sums {
    pub(crate) total: i64,
    pub(crate) due: i64,
    pub(crate) paid: i64,
}

impl State {
    /// A new invoice of a subscription, as a draft; emits `invoice.created`.
    pub(crate) fn draft_invoice(
        &mut self,
        subscription: &Subscription,
        reason: Reason,
        period: (i64, i64),
        entries: Vec<Entry>,
        at: i64,
        cause: &Cause,
    ) -> String {
        let id = self.ids.mint(Kind::Invoice);
        let invoice = Invoice::draft(
            id.clone(),
            subscription,
            reason,
            period,
            entries,
            at,
            self.settings.invoice_grace_s,
        );
        if invoice.auto_advance {
            self.due.insert((invoice.finalizes_at, Due::Finalize(id.clone())));
        }
        let rendered = self.render_invoice(&invoice, at);
        self.invoices.put(invoice);
        self.emit(at, cause, "invoice.created", rendered, None);
        id
    }

    /// Finalizes a draft that is made to be paid at once, unless it has to stay a draft.
    pub(crate) fn finalize_unless_held(&mut self, id: &str, at: i64, cause: &Cause) {
        if self.invoices.find(id).is_some_and(|draft| draft.auto_advance) {
            // Where it fails, the draft says so.
            let _ = self.finalize_invoice(id, true, at, cause);
        }
    }

    /// Finalizes a draft: counts the usage for the last time, applies the customer's balance, numbers the invoice, and (if `collects`)
    /// charges the customer.
    ///
    /// # Errors
    /// When a finalization was asked to fail; the draft shows it. A payment that fails is none: the invoice stays open.
    pub(crate) fn finalize_invoice(
        &mut self,
        id: &str,
        collects: bool,
        at: i64,
        cause: &Cause,
    ) -> Result<(), ApiError> {
        let Some(draft) = self.invoices.find(id).filter(|invoice| invoice.status == Status::Draft) else {
            return Ok(());
        };
        let mut invoice = draft.clone();
        if self.finalization_failures > 0 {
            self.finalization_failures -= 1;
            return Err(self.finalization_failed(invoice, at, cause));
        }
        invoice.entries = (0..draft.entries.len())
            .map(|index| Entry::Lines(self.entry_lines(draft, index, i64::MAX)))
            .collect();
        let total = self.total(&invoice, at);
        if let Some(mut customer) = self.customers.find(&invoice.customer).cloned() {
            customer.invoices_numbered += 1;
            invoice.number = Some(format!("{}-{:04}", customer.invoice_prefix, customer.invoices_numbered));
            let before = customer.balance;
            customer.balance = (before + total).min(0);
            invoice.balance = Some((before, customer.balance));
            self.customers.put(customer);
        }
        invoice.status = Status::Open;
        invoice.finalized_at = Some(at);
        invoice.finalization_error = None;
        let due = self.sums(&invoice, at).due;
        let (send_invoice, pause) = (invoice.send_invoice, invoice.pause);
        self.put_invoice(invoice.clone(), at, cause, &["invoice.finalized"]);
        match pause {
            _ if due == 0 => self.pay_invoice(invoice, at, cause),
            Some(PausedInvoices::MarkUncollectible) => self.give_up_invoice(invoice, at, cause),
            Some(PausedInvoices::Void) => self.void_invoice(invoice, at, cause),
            Some(PausedInvoices::KeepAsDraft) | None => {
                if collects && !send_invoice {
                    // A failure is in the state by now.
                    let _ = self.attempt_payment(id, Attempt::Automatic, at, cause);
                }
            }
        }
        Ok(())
    }

    fn finalization_failed(&mut self, mut draft: Invoice, at: i64, cause: &Cause) -> ApiError {
        let error = ApiError::refused(
            "The customer's location isn't recognized. Set a valid customer address in order to automatically calculate tax.",
        )
        .code("customer_tax_location_invalid");
        draft.finalization_error = Some(error.nested());
        draft.auto_advance = false;
        self.put_invoice(draft, at, cause, &["invoice.finalization_failed"]);
        error
    }

    pub(crate) fn put_invoice(&mut self, invoice: Invoice, at: i64, cause: &Cause, kinds: &[&str]) {
        let rendered = self.render_invoice(&invoice, at);
        self.invoices.put(invoice);
        for kind in kinds {
            self.emit(at, cause, kind, rendered.clone(), None);
        }
    }

    /// The lines of one entry, from the usage received at or before `received_by`.
    fn entry_lines(&self, invoice: &Invoice, index: usize, received_by: i64) -> Vec<Line> {
        match &invoice.entries[index] {
            Entry::Lines(lines) => lines.clone(),
            Entry::Usage(usage) => self.usage_lines(&invoice.customer, usage, received_by),
        }
    }

    /// What a span of metered usage costs: "the sum of meter events whose timestamp is in [start, end)".
    pub(crate) fn usage_lines(&self, customer: &str, usage: &UsageSpan, received_by: i64) -> Vec<Line> {
        let Some(price) = self.catalog.prices.find(&usage.price) else {
            return Vec::new();
        };
        let meter = price.meter().unwrap_or_default();
        let quantity = self.meters.quantity(meter, customer, usage.span.clone(), received_by);
        let charges = price.charges(quantity, self.catalog.product_of(price));
        Line::of(charges, price, &usage.item, (usage.span.start, usage.span.end))
    }

    /// All lines with their ids. Usage on drafts lags like the summaries: "aggregated usage in meter event summaries and on
    /// upcoming invoices might not immediately reflect recently received meter events".
    fn lines(&self, invoice: &Invoice, at: i64) -> Vec<(String, Line)> {
        let received_by = at - self.settings.summary_lag_s;
        let mut lines = Vec::new();
        for entry in 0..invoice.entries.len() {
            for (index, line) in self.entry_lines(invoice, entry, received_by).into_iter().enumerate() {
                let seed = format!("{}/{entry}/{index}", invoice.id);
                lines.push((Kind::InvoiceLine.shape(seed.as_bytes()), line));
            }
        }
        lines
    }

    fn total(&self, invoice: &Invoice, at: i64) -> i64 {
        self.lines(invoice, at)
            .iter()
            .fold(0i64, |total, (_, line)| total.saturating_add(line.amount))
    }

    /// The sums, as they are (or for a draft would be) billed.
    pub(crate) fn sums(&self, invoice: &Invoice, at: i64) -> Sums {
        sums_of(invoice, self.total(invoice, at))
    }

    pub(crate) fn render_invoice(&self, invoice: &Invoice, at: i64) -> Value {
        let lines = self.lines(invoice, at);
        let total = lines
            .iter()
            .fold(0i64, |total, (_, line)| total.saturating_add(line.amount));
        let sums = sums_of(invoice, total);
        let rendered: Vec<Value> = lines
            .iter()
            .take(LINES_EMBEDDED)
            .map(|(id, line)| invoice.render_line(id, line))
            .collect();
        let customer = self.customers.find(&invoice.customer);
        let subscription = self.subscriptions.find(&invoice.subscription);
        let balance = invoice
            .balance
            .or_else(|| customer.map(|customer| (customer.balance, customer.balance)));
        let draft = invoice.status == Status::Draft;
        json!({
            "id": invoice.id,
            "object": "invoice",
            "account_country": "US",
            "account_name": "Farebox stand-in",
            "account_tax_ids": null,
            "amount_due": sums.due,
            "amount_overpaid": 0,
            "amount_paid": sums.paid,
            "amount_paid_off_stripe": 0,
            "amount_remaining": sums.due - sums.paid,
            "amount_shipping": 0,
            "application": null,
            "attempt_count": invoice.attempts,
            "attempted": invoice.attempts > 0 || invoice.paid_at.is_some(),
            "auto_advance": draft && invoice.auto_advance || invoice.next_attempt.is_some(),
            "automatic_tax": { "disabled_reason": null, "enabled": false, "liability": null, "provider": null, "status": null },
            "automatically_finalizes_at": (draft && invoice.auto_advance).then_some(invoice.finalizes_at),
            "billing_reason": invoice.reason.word(),
            "collection_method": if invoice.send_invoice { "send_invoice" } else { "charge_automatically" },
            "created": invoice.created,
            "currency": invoice.currency,
            "custom_fields": null,
            "customer": invoice.customer,
            "customer_account": null,
            "customer_address": null,
            "customer_email": customer.and_then(|customer| customer.email.as_deref()),
            "customer_name": customer.and_then(|customer| customer.name.as_deref()),
            "customer_phone": null,
            "customer_shipping": null,
            "customer_tax_exempt": "none",
            "customer_tax_ids": [],
            "default_payment_method": null,
            "default_source": null,
            "default_tax_rates": [],
            "description": invoice.description,
            "discounts": [],
            "due_date": null,
            "effective_at": invoice.finalized_at,
            "ending_balance": invoice.balance.map(|(_, after)| after),
            "footer": null,
            "from_invoice": null,
            "hosted_invoice_url": null,
            "invoice_pdf": null,
            "issuer": { "type": "self" },
            "last_finalization_error": invoice.finalization_error,
            "latest_revision": null,
            "lines": {
                "object": "list",
                "data": rendered,
                "has_more": lines.len() > LINES_EMBEDDED,
                "url": format!("/v1/invoices/{}/lines", invoice.id),
            },
            "livemode": false,
            "metadata": invoice.metadata,
            "next_payment_attempt": invoice.next_attempt,
            "number": invoice.number,
            "on_behalf_of": null,
            "parent": {
                "quote_details": null,
                "subscription_details": {
                    "metadata": subscription.map(Subscription::metadata),
                    "subscription": invoice.subscription,
                },
                "type": "subscription_details",
            },
            "payment_settings": { "default_mandate": null, "payment_method_options": null, "payment_method_types": null },
            "period_end": invoice.period.1,
            "period_start": invoice.period.0,
            "post_payment_credit_notes_amount": 0,
            "pre_payment_credit_notes_amount": 0,
            "receipt_number": null,
            "rendering": null,
            "shipping_cost": null,
            "shipping_details": null,
            "starting_balance": balance.map_or(0, |(before, _)| before),
            "statement_descriptor": null,
            "status": invoice.status.word(),
            "status_transitions": {
                "finalized_at": invoice.finalized_at,
                "marked_uncollectible_at": invoice.uncollectible_at,
                "paid_at": invoice.paid_at,
                "voided_at": invoice.voided_at,
            },
            "subtotal": sums.total,
            "subtotal_excluding_tax": sums.total,
            "test_clock": null,
            "total": sums.total,
            "total_discount_amounts": [],
            "total_excluding_tax": sums.total,
            "total_pretax_credit_amounts": [],
            "total_taxes": [],
            "webhooks_delivered_at": invoice.created,
        })
    }

    pub(crate) fn list_invoices(&self, mut params: Params, at: i64) -> Result<Value, ApiError> {
        let page = Page::take(&mut params)?;
        let customer = params.text("customer")?;
        let subscription = params.text("subscription")?;
        let status = params.choice("status", &Status::WORDS)?;
        let created = CreatedFilter::take(&mut params)?;
        params.finish()?;
        let rows = self.invoices.newest_first(customer.as_deref()).filter(|invoice| {
            subscription
                .as_ref()
                .is_none_or(|subscription| invoice.subscription == *subscription)
                && status.is_none_or(|status| invoice.status == status)
                && created.admits(invoice.created)
        });
        page.cut(
            rows,
            |invoice| invoice.id(),
            |invoice| self.render_invoice(invoice, at),
            Invoice::NOUN,
            "/v1/invoices",
        )
    }

    pub(crate) fn list_lines(&self, id: &str, mut params: Params, at: i64) -> Result<Value, ApiError> {
        let page = Page::take(&mut params)?;
        params.finish()?;
        let invoice = self.invoices.get(id, "invoice")?;
        let lines = self.lines(invoice, at);
        let url = format!("/v1/invoices/{id}/lines");
        page.cut(
            lines.iter(),
            |(id, _)| id,
            |(id, line)| invoice.render_line(id, line),
            "line item",
            &url,
        )
    }

    pub(crate) fn update_invoice(
        &mut self,
        id: &str,
        mut params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        let mut invoice = self.invoices.get(id, "invoice")?.clone();
        let before = self.render_invoice(&invoice, at);
        merge(&mut invoice.metadata, params.pairs("metadata")?);
        if let Some(description) = params.settable("description")? {
            invoice.description = description;
        }
        if let Some(auto_advance) = params.boolean("auto_advance")? {
            invoice.auto_advance = auto_advance;
            if !auto_advance {
                invoice.next_attempt = None;
            }
        }
        params.finish()?;
        if invoice.auto_advance && invoice.status == Status::Draft {
            invoice.finalizes_at = invoice.finalizes_at.max(at + 1);
            self.due
                .insert((invoice.finalizes_at, Due::Finalize(invoice.id.clone())));
        }
        let rendered = self.render_invoice(&invoice, at);
        self.invoices.put(invoice);
        self.emit(at, cause, "invoice.updated", rendered.clone(), Some(&before));
        Ok(rendered)
    }

    /// `/v1/invoices/:id/finalize`
    pub(crate) fn finalize_now(
        &mut self,
        id: &str,
        mut params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        let collects = params.boolean("auto_advance")?.unwrap_or(true);
        params.finish()?;
        if self.invoices.get(id, "invoice")?.status != Status::Draft {
            return Err(ApiError::refused(
                "This invoice is already finalized, you can't re-finalize a non-draft invoice.",
            )
            .code("invoice_not_editable"));
        }
        self.finalize_invoice(id, collects, at, cause)
            .map_err(ApiError::recorded)?;
        Ok(self.render_invoice(self.invoices.get(id, "invoice")?, at))
    }

    /// `/v1/invoices/:id/void`
    pub(crate) fn void_now(&mut self, id: &str, params: Params, at: i64, cause: &Cause) -> Result<Value, ApiError> {
        params.finish()?;
        let invoice = self.invoices.get(id, "invoice")?.clone();
        if !matches!(invoice.status, Status::Open | Status::Uncollectible) {
            return Err(ApiError::refused(
                "You can only pass in open invoices. This invoice isn't open.",
            ));
        }
        self.void_invoice(invoice, at, cause);
        Ok(self.render_invoice(self.invoices.get(id, "invoice")?, at))
    }

    pub(crate) fn void_invoice(&mut self, mut invoice: Invoice, at: i64, cause: &Cause) {
        invoice.status = Status::Void;
        invoice.voided_at = Some(at);
        invoice.next_attempt = None;
        let subscription = invoice.subscription.clone();
        self.put_invoice(invoice, at, cause, &["invoice.voided"]);
        self.judge(&subscription, at, cause);
    }

    /// `/v1/invoices/:id/mark_uncollectible`
    pub(crate) fn mark_uncollectible_now(
        &mut self,
        id: &str,
        params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        params.finish()?;
        let invoice = self.invoices.get(id, "invoice")?.clone();
        if invoice.status != Status::Open {
            return Err(ApiError::refused(
                "You can only pass in open invoices. This invoice isn't open.",
            ));
        }
        self.give_up_invoice(invoice, at, cause);
        Ok(self.render_invoice(self.invoices.get(id, "invoice")?, at))
    }

    fn give_up_invoice(&mut self, mut invoice: Invoice, at: i64, cause: &Cause) {
        invoice.status = Status::Uncollectible;
        invoice.uncollectible_at = Some(at);
        invoice.next_attempt = None;
        let (customer, subscription) = (invoice.customer.clone(), invoice.subscription.clone());
        self.put_invoice(invoice, at, cause, &["invoice.marked_uncollectible"]);
        self.set_delinquent(&customer, false, at, cause);
        self.judge(&subscription, at, cause);
    }

    /// Finalizes a draft whose grace ends at `at`; says whether it still waited for that.
    pub(crate) fn finalize_due(&mut self, id: &str, at: i64) -> bool {
        let waits = self.invoices.find(id).is_some_and(|invoice| {
            invoice.status == Status::Draft && invoice.auto_advance && invoice.finalizes_at == at
        });
        if waits {
            // Where it fails, the draft says so.
            let _ = self.finalize_invoice(id, true, at, &Cause::default());
        }
        waits
    }
}

impl Invoice {
    /// A draft that finalizes itself after the grace period. Not stored anywhere yet.
    pub(crate) fn draft(
        id: String,
        subscription: &Subscription,
        reason: Reason,
        period: (i64, i64),
        entries: Vec<Entry>,
        at: i64,
        grace_s: i64,
    ) -> Self {
        let pause = subscription.pause.map(|pause| pause.invoices);
        Self {
            id,
            customer: subscription.customer.clone(),
            subscription: subscription.id.clone(),
            currency: subscription.currency.clone(),
            number: None,
            status: Status::Draft,
            reason,
            created: at,
            period,
            entries,
            metadata: Metadata::new(),
            description: None,
            auto_advance: subscription.status != SubscriptionStatus::Unpaid
                && pause != Some(PausedInvoices::KeepAsDraft),
            finalizes_at: at + grace_s,
            finalized_at: None,
            paid_at: None,
            voided_at: None,
            uncollectible_at: None,
            attempts: 0,
            next_attempt: None,
            pause,
            finalization_error: None,
            balance: None,
            send_invoice: subscription.send_invoice,
        }
    }

    fn render_line(&self, id: &str, line: &Line) -> Value {
        let proration_details = json!({ "credited_items": null });
        let parent = match &line.invoice_item {
            None => json!({
                "invoice_item_details": null,
                "subscription_item_details": {
                    "invoice_item": null,
                    "proration": line.proration,
                    "proration_details": proration_details,
                    "subscription": self.subscription,
                    "subscription_item": line.item,
                },
                "type": "subscription_item_details",
            }),
            Some(invoice_item) => json!({
                "invoice_item_details": {
                    "invoice_item": invoice_item,
                    "proration": line.proration,
                    "proration_details": proration_details,
                    "subscription": self.subscription,
                },
                "subscription_item_details": null,
                "type": "invoice_item_details",
            }),
        };
        json!({
            "id": id,
            "object": "line_item",
            "amount": line.amount,
            "currency": self.currency,
            "description": line.description,
            "discount_amounts": [],
            "discountable": !line.proration,
            "discounts": [],
            "invoice": self.id,
            "livemode": false,
            "metadata": {},
            "parent": parent,
            "period": { "end": line.period.1, "start": line.period.0 },
            "pretax_credit_amounts": [],
            "pricing": {
                "price_details": { "price": line.price, "product": line.product },
                "type": "price_details",
                "unit_amount_decimal": line.unit.map(|unit| unit.to_string()),
            },
            "quantity": line.quantity,
            "quantity_decimal": line.quantity.to_string(),
            "subscription": self.subscription,
            "subtotal": line.amount,
            "taxes": [],
        })
    }
}

/// A draft is due in full; a finalized invoice is due less what the customer's balance covers.
fn sums_of(invoice: &Invoice, total: i64) -> Sums {
    let due = match invoice.balance {
        Some((before, _)) => total.saturating_add(before).max(0),
        None => total.max(0),
    };
    let paid = if invoice.status == Status::Paid { due } else { 0 };
    Sums { total, due, paid }
}

/// `created[gte]` and its siblings, or `created` alone.
struct CreatedFilter {
    from: i64,
    to: i64,
}

impl CreatedFilter {
    fn take(params: &mut Params) -> Result<Self, ApiError> {
        let mut filter = Self {
            from: i64::MIN,
            to: i64::MAX,
        };
        if let Some(mut level) = params.level("created")? {
            if let Some(gt) = level.integer("gt")? {
                filter.from = gt + 1;
            }
            if let Some(gte) = level.integer("gte")? {
                filter.from = gte;
            }
            if let Some(lt) = level.integer("lt")? {
                filter.to = lt - 1;
            }
            if let Some(lte) = level.integer("lte")? {
                filter.to = lte;
            }
            level.finish()?;
        }
        Ok(filter)
    }

    fn admits(&self, created: i64) -> bool {
        (self.from..=self.to).contains(&created)
    }
}
