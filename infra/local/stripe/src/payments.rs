//! Payments: which work and which fail, retries, and what a failure means for the subscription.
//!
//! ```text
//! created ─ first payment fails ─> incomplete ─ 23 h ─> incomplete_expired
//!    │                                 │ paid
//!    └──────────────> active <─────────┘
//!                      │  ^ the latest invoice is paid
//!         payment fails v  │
//!                    past_due ─ last retry fails ─> canceled, unpaid, or past_due still
//! ```
//!
//! There are no payment intents and no charges: an attempt to pay is a step of the invoice.
//!
//! Source: <https://docs.stripe.com/billing/subscriptions/overview>,
//! <https://docs.stripe.com/billing/revenue-recovery/smart-retries> and <https://docs.stripe.com/testing#declined-payments>.

use serde_json::Value;

use crate::{
    AfterRetries,
    calendar::DAY,
    events::Cause,
    invoices::{Entry, Invoice, Status as InvoiceStatus},
    state::{Due, State},
    subscriptions::{Status, Subscription},
    wire::{error::ApiError, form::Params},
};

/// "Attaching this card to a Customer object succeeds, but attempts to charge the customer fail."
const FAILS_WHEN_CHARGED: &str = "pm_card_chargeCustomerFail";

/// How long a failed payment waits for the next attempt: after the first, the second and the third failure.
const RETRY_DAYS: [i64; 3] = [3, 5, 7];

/// How long a first invoice may stay unpaid.
pub(crate) const INCOMPLETE_S: i64 = 23 * 3600;

/// Whether a charge of this payment method fails. All but the documented test method work.
pub(crate) fn declines(method: &str) -> bool {
    method == FAILS_WHEN_CHARGED
}

/// Takes the id of a payment method that is to be attached; the test cards that decline already decline this.
pub(crate) fn take_method(params: &mut Params, name: &str) -> Result<Option<Option<String>>, ApiError> {
    let method = params.settable(name)?;
    match &method {
        Some(Some(id)) if id.starts_with("pm_card_") && id.contains("chargeDeclined") => Err(ApiError::card_declined()),
        _ => Ok(method),
    }
}

/// What a request wants if a payment fails for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PaymentBehavior {
    /// The subscription becomes `incomplete`, or `past_due`.
    Allow,
    /// A 402, and nothing is done.
    Refuse,
    /// The change waits for the payment.
    Pending,
}

impl PaymentBehavior {
    const WORDS: [(&'static str, Self); 4] = [
        ("allow_incomplete", Self::Allow),
        ("default_incomplete", Self::Allow),
        ("error_if_incomplete", Self::Refuse),
        ("pending_if_incomplete", Self::Pending),
    ];

    pub(crate) fn take(params: &mut Params) -> Result<Self, ApiError> {
        Ok(params.choice("payment_behavior", &Self::WORDS)?.unwrap_or(Self::Allow))
    }

    /// What a request with a payment that fails is answered with, if not that it was done.
    pub(crate) fn check(self, refusal: Option<&ApiError>) -> Result<(), ApiError> {
        match (self, refusal) {
            (Self::Refuse, Some(refusal)) => Err(refusal.clone()),
            (Self::Pending, Some(_)) => Err(ApiError::unsupported("updates that wait for a payment that fails")),
            _ => Ok(()),
        }
    }
}

/// Who wants to be paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt<'a> {
    /// Stripe: finalization and retries.
    Automatic,
    /// A request, with a payment method of its own if it names one.
    Manual(Option<&'a str>),
}

impl State {
    /// The payment method of a subscription's invoices, in Stripe's order. A method that is only attached comes last.
    pub(crate) fn method_of<'a>(&'a self, subscription: &'a Subscription) -> Option<&'a str> {
        let own = subscription.default_payment_method.as_deref();
        own.or_else(|| self.customers.find(&subscription.customer)?.method())
    }

    /// Why a subscription's payments fail, if they do. Without a payment method they work, unless the subscription says what is to
    /// happen without one.
    fn refusal(&self, subscription: &Subscription) -> Option<ApiError> {
        match self.method_of(subscription) {
            Some(method) => declines(method).then(ApiError::card_declined),
            None => subscription.missing_method.map(|_| ApiError::no_method()),
        }
    }

    /// Why an invoice with these lines, made and paid at once, would not be paid.
    pub(crate) fn refusal_of(&self, subscription: &Subscription, entries: &[Entry]) -> Option<ApiError> {
        let total = entries.iter().fold(0i64, |total, entry| match entry {
            Entry::Lines(lines) => lines
                .iter()
                .fold(total, |total, line| total.saturating_add(line.amount)),
            Entry::Usage(_) => total,
        });
        let balance = self
            .customers
            .find(&subscription.customer)
            .map_or(0, |customer| customer.balance);
        if subscription.send_invoice || subscription.pause.is_some() || total.saturating_add(balance) <= 0 {
            return None;
        }
        self.refusal(subscription)
    }

    /// Attempts to pay an open invoice.
    ///
    /// # Errors
    /// The reason of a failure, which is recorded: the invoice stays open, and the subscription becomes past due.
    pub(crate) fn attempt_payment(
        &mut self,
        id: &str,
        attempt: Attempt<'_>,
        at: i64,
        cause: &Cause,
    ) -> Result<(), ApiError> {
        let Some(mut invoice) = self.invoices.find(id).cloned() else {
            return Ok(());
        };
        let refusal = match attempt {
            Attempt::Manual(Some(method)) => declines(method).then(ApiError::card_declined),
            Attempt::Manual(None) | Attempt::Automatic => self
                .subscriptions
                .find(&invoice.subscription)
                .and_then(|subscription| self.refusal(subscription)),
        };
        // "Any payment attempt counts as the first attempt, and subsequently only automatic retries increment the attempt count."
        if attempt == Attempt::Automatic || invoice.attempts == 0 {
            invoice.attempts += 1;
        }
        match refusal {
            None => {
                self.pay_invoice(invoice, at, cause);
                Ok(())
            }
            Some(refusal) => {
                self.payment_failed(invoice, attempt, at, cause);
                Err(refusal)
            }
        }
    }

    /// An invoice is paid; it may be the one that its subscription waited for.
    pub(crate) fn pay_invoice(&mut self, mut invoice: Invoice, at: i64, cause: &Cause) {
        invoice.status = InvoiceStatus::Paid;
        invoice.paid_at = Some(at);
        invoice.next_attempt = None;
        let (customer, subscription) = (invoice.customer.clone(), invoice.subscription.clone());
        self.put_invoice(invoice, at, cause, &["invoice.paid", "invoice.payment_succeeded"]);
        self.set_delinquent(&customer, false, at, cause);
        self.judge(&subscription, at, cause);
    }

    fn payment_failed(&mut self, mut invoice: Invoice, attempt: Attempt<'_>, at: i64, cause: &Cause) {
        let status = self
            .subscriptions
            .find(&invoice.subscription)
            .map(|subscription| subscription.status);
        let automatic = attempt == Attempt::Automatic;
        if automatic {
            // A first invoice waits for the customer, and where a subscription is given up "payments aren't attempted".
            let retried = !matches!(status, Some(Status::Incomplete | Status::Unpaid));
            let wait = RETRY_DAYS.get(usize::try_from(invoice.attempts - 1).unwrap_or(usize::MAX));
            invoice.next_attempt = wait.filter(|_| retried).map(|days| at + days * DAY);
        }
        if let Some(next) = invoice.next_attempt {
            self.due.insert((next, Due::Retry(invoice.id.clone())));
        }
        let over = automatic && invoice.next_attempt.is_none();
        let (customer, subscription) = (invoice.customer.clone(), invoice.subscription.clone());
        self.put_invoice(invoice, at, cause, &["invoice.payment_failed"]);
        if automatic {
            self.set_delinquent(&customer, true, at, cause);
        }
        self.judge(&subscription, at, cause);
        if over {
            self.give_up(&subscription, at);
        }
    }

    /// Retries a payment whose time is `at`; says whether the invoice still waited for that.
    pub(crate) fn retry_due(&mut self, id: &str, at: i64) -> bool {
        let waits = self
            .invoices
            .find(id)
            .is_some_and(|invoice| invoice.status == InvoiceStatus::Open && invoice.next_attempt == Some(at));
        if waits {
            // A failure is in the state by now.
            let _ = self.attempt_payment(id, Attempt::Automatic, at, &Cause::default());
        }
        waits
    }

    /// The last retry failed.
    fn give_up(&mut self, id: &str, at: i64) {
        let Some(subscription) = self
            .subscriptions
            .find(id)
            .filter(|found| found.status == Status::PastDue)
        else {
            return;
        };
        match self.settings.after_retries {
            AfterRetries::Cancel => {
                let subscription = subscription.clone();
                self.end_for_failed_payment(subscription, at);
            }
            AfterRetries::MarkUnpaid => {
                let customer = subscription.customer.clone();
                self.stop_collecting(&customer, Some(id));
                self.set_status(id, Status::Unpaid, at, &Cause::default());
            }
            AfterRetries::LeavePastDue => {}
        }
    }

    /// Ends the retries of a customer's open invoices, or of one subscription's.
    pub(crate) fn stop_collecting(&mut self, customer: &str, subscription: Option<&str>) {
        let waiting: Vec<Invoice> = self
            .invoices
            .newest_first(Some(customer))
            .filter(|invoice| invoice.next_attempt.is_some())
            .filter(|invoice| subscription.is_none_or(|id| invoice.subscription == id))
            .cloned()
            .collect();
        for mut invoice in waiting {
            invoice.next_attempt = None;
            self.invoices.put(invoice);
        }
    }

    /// Brings a subscription's status in line with its invoices.
    ///
    /// "`past_due`: Payment on the latest *finalized* invoice either failed or wasn't attempted." "To reactivate the subscription, have
    /// your customer pay the most recent invoice." An `unpaid` subscription's most recent invoice may be a draft.
    pub(crate) fn judge(&mut self, id: &str, at: i64, cause: &Cause) {
        let Some(subscription) = self.subscriptions.find(id) else {
            return;
        };
        let status = subscription.status;
        let latest = self
            .invoices
            .newest_first(Some(&subscription.customer))
            .filter(|invoice| invoice.subscription == id && invoice.status != InvoiceStatus::Void)
            .find(|invoice| invoice.status != InvoiceStatus::Draft || status == Status::Unpaid);
        let settled =
            latest.is_none_or(|invoice| matches!(invoice.status, InvoiceStatus::Paid | InvoiceStatus::Uncollectible));
        let failed = latest.is_some_and(|invoice| invoice.status == InvoiceStatus::Open && invoice.attempts > 0);
        let new = match status {
            Status::Incomplete | Status::PastDue | Status::Unpaid if settled => Status::Active,
            Status::Active if failed => Status::PastDue,
            _ => return,
        };
        self.set_status(id, new, at, cause);
    }

    pub(crate) fn set_status(&mut self, id: &str, status: Status, at: i64, cause: &Cause) {
        let Some(found) = self.subscriptions.find(id) else {
            return;
        };
        let before = self.render_subscription(found);
        let mut subscription = found.clone();
        subscription.status = status;
        let rendered = self.render_subscription(&subscription);
        self.subscriptions.put(subscription);
        self.emit(at, cause, "customer.subscription.updated", rendered, Some(&before));
    }

    /// "An automatic payment failure … will set this field to `true`"; "paying or marking uncollectible any customer invoice … will
    /// always set this field to `false`".
    pub(crate) fn set_delinquent(&mut self, id: &str, delinquent: bool, at: i64, cause: &Cause) {
        let changed = self
            .customers
            .find(id)
            .filter(|customer| customer.delinquent != delinquent && !customer.deleted);
        let Some(mut customer) = changed.cloned() else {
            return;
        };
        let before = customer.render();
        customer.delinquent = delinquent;
        let rendered = customer.render();
        self.customers.put(customer);
        self.emit(at, cause, "customer.updated", rendered, Some(&before));
    }

    /// Gives up a subscription whose first invoice was not paid in time: "this is a terminal status, the open invoice will be voided".
    /// Says whether it still waited.
    pub(crate) fn expire_incomplete(&mut self, id: &str, at: i64) -> bool {
        let waits = self
            .subscriptions
            .find(id)
            .filter(|found| found.status == Status::Incomplete);
        let Some(mut subscription) = waits.cloned() else {
            return false;
        };
        let before = self.render_subscription(&subscription);
        subscription.status = Status::IncompleteExpired;
        subscription.ended_at = Some(at);
        let open: Vec<Invoice> = self
            .invoices
            .newest_first(Some(&subscription.customer))
            .filter(|invoice| invoice.subscription == id && invoice.status == InvoiceStatus::Open)
            .cloned()
            .collect();
        let rendered = self.render_subscription(&subscription);
        self.subscriptions.put(subscription);
        let cause = Cause::default();
        self.emit(at, &cause, "customer.subscription.updated", rendered, Some(&before));
        for invoice in open {
            self.void_invoice(invoice, at, &cause);
        }
        true
    }

    /// `/v1/invoices/:id/pay`
    pub(crate) fn pay_now(&mut self, id: &str, mut params: Params, at: i64, cause: &Cause) -> Result<Value, ApiError> {
        let method = take_method(&mut params, "payment_method")?.flatten();
        let out_of_band = params.boolean("paid_out_of_band")?.unwrap_or(false);
        params.ignore(&["forgive", "mandate", "off_session", "source"]);
        params.finish()?;
        match self.invoices.get(id, "invoice")?.status {
            InvoiceStatus::Paid => return Err(ApiError::refused("Invoice is already paid")),
            InvoiceStatus::Void => return Err(ApiError::refused("Voided invoices can't be paid")),
            InvoiceStatus::Draft => self.finalize_invoice(id, false, at, cause)?,
            InvoiceStatus::Open | InvoiceStatus::Uncollectible => {}
        }
        let invoice = self.invoices.get(id, "invoice")?.clone();
        if matches!(invoice.status, InvoiceStatus::Open | InvoiceStatus::Uncollectible) {
            if out_of_band {
                self.pay_invoice(invoice, at, cause);
            } else {
                let attempt = Attempt::Manual(method.as_deref());
                self.attempt_payment(id, attempt, at, cause)
                    .map_err(ApiError::recorded)?;
            }
        }
        Ok(self.render_invoice(self.invoices.get(id, "invoice")?, at))
    }
}
