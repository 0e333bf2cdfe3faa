//! Invoices: what the customer was billed in the end, and whether it was paid.

use serde::Deserialize;
use stripe_billing::invoice::{FinalizeInvoiceInvoice, ListInvoice, PayInvoice, RetrieveInvoice};
use stripe_client_core::StripeRequest;

use crate::answer::Accepted;
use crate::client::path_id;
use crate::list::{Listed, PAGE, Page, page_of};
use crate::{Client, Error, reference};

/// What a customer was billed: <https://docs.stripe.com/api/invoices/object>. Amounts are in the currency's minor unit and can
/// be negative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// `in_…`
    pub id: String,
    /// `draft`, `open`, `paid`, `void`, `uncollectible`.
    pub status: Option<String>,
    /// `subscription_cycle`, `subscription_create`, …
    pub billing_reason: Option<String>,
    /// `sub_…`, if a subscription made it.
    pub subscription: Option<String>,
    /// `cus_…`
    pub customer: Option<String>,
    /// After discounts and taxes.
    pub total: i64,
    /// What the customer shall pay: the total, less what the customer's balance pays.
    pub amount_due: i64,
    /// What is still to be paid of it.
    pub amount_remaining: i64,
    /// How often Stripe tried to collect it by itself.
    pub attempt_count: u64,
    /// When Stripe will try again, in unix seconds; `None` if it won't.
    pub next_payment_attempt: Option<i64>,
    /// When it was finalized, in unix seconds; until then it is a draft and can change.
    pub finalized_at: Option<i64>,
    /// Where the customer can look at it and pay, once it is finalized.
    pub hosted_invoice_url: Option<String>,
    /// In lower case: `usd`.
    pub currency: String,
    /// Unix seconds. These look back one period; what a line bills is in the line.
    pub period_start: i64,
    /// Unix seconds.
    pub period_end: i64,
    /// All of them.
    pub lines: Vec<InvoiceLine>,
}

/// How long an invoice stays a draft, which is all that Stripe's API shows of the account's grace period:
/// <https://docs.stripe.com/billing/subscriptions/usage-based/configure-grace-period>.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "ReadTimes")]
pub struct InvoiceTimes {
    /// `in_…`
    pub id: String,
    /// `subscription_cycle`, `subscription_create`, …
    pub billing_reason: Option<String>,
    /// Unix seconds.
    pub created: i64,
    /// When it becomes final by itself, in unix seconds; `None` once it is, or if it won't.
    pub automatically_finalizes_at: Option<i64>,
    /// When it was finalized, in unix seconds.
    pub finalized_at: Option<i64>,
}

/// One line; a graduated price makes one per step: <https://docs.stripe.com/api/invoice-line-item/object>.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "ReadLine")]
pub struct InvoiceLine {
    /// `il_…`
    pub id: String,
    /// Before discounts and taxes.
    pub amount: i64,
    /// Units billed; absent on some lines.
    pub quantity: Option<u64>,
    /// What the customer reads.
    pub description: Option<String>,
    /// Unix seconds.
    pub period_start: i64,
    /// Unix seconds.
    pub period_end: i64,
    /// `price_…`
    pub price: Option<String>,
    /// `si_…`
    pub subscription_item: Option<String>,
}

impl Client {
    /// Every invoice of a customer, newest first.
    ///
    /// # Errors
    /// As every call.
    pub async fn invoices(&self, customer: &str) -> Result<Vec<Invoice>, Error> {
        let read: Vec<Read> = self
            .list(|after| {
                let mut request = ListInvoice::new().customer(customer).limit(PAGE);
                if let Some(after) = after {
                    request = request.starting_after(after);
                }
                request.build()
            })
            .await?;
        let mut invoices = Vec::with_capacity(read.len());
        for invoice in read {
            invoices.push(self.with_lines(invoice).await?);
        }
        Ok(invoices)
    }

    /// An invoice as it is now: <https://docs.stripe.com/api/invoices/retrieve>.
    ///
    /// # Errors
    /// [`Error::Rejected`] with 404 if there is none.
    pub async fn invoice(&self, id: &str) -> Result<Invoice, Error> {
        let accepted = self.get(RetrieveInvoice::new(path_id(id)?).build()).await?;
        self.read_invoice(&accepted).await
    }

    /// Tries to collect an invoice now, out of the schedule: <https://docs.stripe.com/api/invoices/pay>.
    ///
    /// # Errors
    /// [`Error::Rejected`] with 402 if the payment fails, with 400 if the invoice is not open; one that was paid in the meantime
    /// has no code of its own, so ask for its status.
    pub async fn pay_invoice(&self, id: &str, idempotency_key: &str) -> Result<Invoice, Error> {
        let accepted = self.create(&PayInvoice::new(path_id(id)?), idempotency_key).await?;
        self.read_invoice(&accepted).await
    }

    /// Makes a draft final, an hour before Stripe would do it: <https://docs.stripe.com/api/invoices/finalize>. If nothing is
    /// due, it is paid with that.
    ///
    /// # Errors
    /// [`Error::Rejected`] if it is no draft.
    pub async fn finalize_invoice(&self, id: &str, idempotency_key: &str) -> Result<Invoice, Error> {
        let accepted = self
            .create(&FinalizeInvoiceInvoice::new(path_id(id)?), idempotency_key)
            .await?;
        self.read_invoice(&accepted).await
    }

    /// When the newest hundred invoices of the account were and will be finalized, newest first.
    ///
    /// # Errors
    /// As every call.
    pub async fn invoice_times(&self) -> Result<Vec<InvoiceTimes>, Error> {
        let page: Page<InvoiceTimes> = self.get(ListInvoice::new().limit(PAGE).build()).await?.read()?;
        Ok(page.data)
    }

    async fn read_invoice(&self, accepted: &Accepted) -> Result<Invoice, Error> {
        self.with_lines(accepted.read()?).await
    }

    /// An invoice shows only its first lines.
    async fn with_lines(&self, read: Read) -> Result<Invoice, Error> {
        let path = format!("/invoices/{}/lines", path_id(&read.id)?);
        let lines = self.rest(read.lines, |after| page_of(&path, &(), after)).await?;
        Ok(Invoice {
            lines,
            subscription: read
                .parent
                .and_then(|parent| parent.subscription_details)
                .map(|of| of.subscription),
            id: read.id,
            status: read.status,
            billing_reason: read.billing_reason,
            customer: read.customer,
            total: read.total,
            amount_due: read.amount_due,
            amount_remaining: read.amount_remaining,
            attempt_count: read.attempt_count,
            next_payment_attempt: read.next_payment_attempt,
            finalized_at: read.status_transitions.finalized_at,
            hosted_invoice_url: read.hosted_invoice_url,
            currency: read.currency,
            period_start: read.period_start,
            period_end: read.period_end,
        })
    }
}

/// The answer, whose lines are a first page.
#[derive(Deserialize)]
struct Read {
    id: String,
    status: Option<String>,
    billing_reason: Option<String>,
    parent: Option<Parent>,
    #[serde(default, deserialize_with = "reference::optional")]
    customer: Option<String>,
    total: i64,
    amount_due: i64,
    amount_remaining: i64,
    attempt_count: u64,
    next_payment_attempt: Option<i64>,
    #[serde(default)]
    status_transitions: StatusTransitions,
    hosted_invoice_url: Option<String>,
    currency: String,
    period_start: i64,
    period_end: i64,
    lines: Page<InvoiceLine>,
}

#[derive(Deserialize)]
struct ReadTimes {
    id: String,
    billing_reason: Option<String>,
    created: i64,
    automatically_finalizes_at: Option<i64>,
    #[serde(default)]
    status_transitions: StatusTransitions,
}

impl From<ReadTimes> for InvoiceTimes {
    fn from(read: ReadTimes) -> Self {
        Self {
            id: read.id,
            billing_reason: read.billing_reason,
            created: read.created,
            automatically_finalizes_at: read.automatically_finalizes_at,
            finalized_at: read.status_transitions.finalized_at,
        }
    }
}

#[derive(Default, Deserialize)]
struct StatusTransitions {
    finalized_at: Option<i64>,
}

/// <https://docs.stripe.com/changelog/basil/2025-03-31/adds-new-parent-field-to-invoicing-objects>
#[derive(Deserialize)]
struct Parent {
    subscription_details: Option<SubscriptionDetails>,
}

#[derive(Deserialize)]
struct SubscriptionDetails {
    #[serde(deserialize_with = "reference::id")]
    subscription: String,
}

#[derive(Deserialize)]
struct ReadLine {
    id: String,
    amount: i64,
    quantity: Option<u64>,
    description: Option<String>,
    period: Period,
    pricing: Option<Pricing>,
    parent: Option<LineParent>,
}

#[derive(Deserialize)]
struct Period {
    start: i64,
    end: i64,
}

/// <https://docs.stripe.com/changelog/basil/2025-03-31/invoice-pricing-configurations>
#[derive(Deserialize)]
struct Pricing {
    price_details: Option<PriceDetails>,
}

#[derive(Deserialize)]
struct PriceDetails {
    #[serde(deserialize_with = "reference::id")]
    price: String,
}

#[derive(Deserialize)]
struct LineParent {
    subscription_item_details: Option<ItemDetails>,
}

#[derive(Deserialize)]
struct ItemDetails {
    subscription_item: String,
}

impl From<ReadLine> for InvoiceLine {
    fn from(read: ReadLine) -> Self {
        Self {
            id: read.id,
            amount: read.amount,
            quantity: read.quantity,
            description: read.description,
            period_start: read.period.start,
            period_end: read.period.end,
            price: read
                .pricing
                .and_then(|pricing| pricing.price_details)
                .map(|details| details.price),
            subscription_item: read
                .parent
                .and_then(|parent| parent.subscription_item_details)
                .map(|details| details.subscription_item),
        }
    }
}

impl Listed for Read {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Listed for InvoiceLine {
    fn id(&self) -> &str {
        &self.id
    }
}
