//! Invoices, read only: what the customer was billed in the end.

use serde::Deserialize;
use stripe_billing::invoice::ListInvoice;
use stripe_client_core::StripeRequest;

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
    /// After discounts and taxes.
    pub total: i64,
    /// In lower case: `usd`.
    pub currency: String,
    /// Unix seconds. These look back one period; what a line bills is in the line.
    pub period_start: i64,
    /// Unix seconds.
    pub period_end: i64,
    /// All of them.
    pub lines: Vec<InvoiceLine>,
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
            total: read.total,
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
    total: i64,
    currency: String,
    period_start: i64,
    period_end: i64,
    lines: Page<InvoiceLine>,
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
