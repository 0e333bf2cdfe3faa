//! What an event makes us do. None is believed about how things stand: each only says where to look.

use farebox_aws::control::Cause;
use farebox_billing::Error;
use farebox_core::{
    account::{Customer, Standing},
    alert::Occasion,
    id::CustomerId,
    tiers::PastDuePolicy,
    time::Timestamp,
};
use farebox_stripe::{Event, Invoice};

use crate::{Webhook, answer::Verdict};

pub(crate) const INVOICE_CREATED: &str = "invoice.created";
/// How often a record is read again because somebody else changed it meanwhile.
const TRIES_MAX: u32 = 8;

/// The events that concern us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Somebody subscribed on a Checkout page.
    Checkout,
    /// Something about a subscription changed.
    Subscription,
    /// A trial ends soon.
    TrialEnding,
    /// A period ended: its invoice waits an hour for what is still to be reported.
    InvoiceCreated,
    /// A payment was tried in vain.
    PaymentFailed,
    /// Stripe could not make an invoice final.
    FinalizationFailed,
    /// A customer is gone, and all its subscriptions.
    CustomerDeleted,
    /// Stripe took reports and then could not count them.
    MeterErrors,
}

/// The events that concern us, as a snapshot endpoint at Stripe sends them: <https://docs.stripe.com/api/events/types>.
const SNAPSHOT_EVENTS: [(&str, Kind); 13] = [
    ("checkout.session.completed", Kind::Checkout),
    ("customer.deleted", Kind::CustomerDeleted),
    ("customer.subscription.created", Kind::Subscription),
    ("customer.subscription.deleted", Kind::Subscription),
    ("customer.subscription.paused", Kind::Subscription),
    ("customer.subscription.resumed", Kind::Subscription),
    ("customer.subscription.trial_will_end", Kind::TrialEnding),
    ("customer.subscription.updated", Kind::Subscription),
    (INVOICE_CREATED, Kind::InvoiceCreated),
    ("invoice.finalization_failed", Kind::FinalizationFailed),
    ("invoice.finalized", Kind::Subscription),
    ("invoice.paid", Kind::Subscription),
    ("invoice.payment_failed", Kind::PaymentFailed),
];
/// Those that exist as thin events only, and so need a destination of their own:
/// <https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api#handle-meter-event-errors>.
const THIN_EVENTS: [(&str, Kind); 2] = [
    ("v1.billing.meter.error_report_triggered", Kind::MeterErrors),
    ("v1.billing.meter.no_meter_found", Kind::MeterErrors),
];

/// The types of the snapshot events that an endpoint at Stripe must send.
#[must_use]
pub fn snapshot_events() -> Vec<&'static str> {
    SNAPSHOT_EVENTS.map(|(name, _)| name).to_vec()
}

/// The types of the thin events that an event destination at Stripe must send.
#[must_use]
pub fn thin_events() -> Vec<&'static str> {
    THIN_EVENTS.map(|(name, _)| name).to_vec()
}

impl Kind {
    fn of(kind: &str) -> Option<Self> {
        let mut all = SNAPSHOT_EVENTS.into_iter().chain(THIN_EVENTS);
        all.find_map(|(name, of)| (name == kind).then_some(of))
    }
}

impl Webhook {
    /// Does what an event asks for, once. Alerts are sent before the event is marked: sending one twice is harmless, losing it
    /// is not.
    pub(crate) async fn act(&self, event: &Event, now: Timestamp) -> Result<Verdict, Error> {
        let Some(kind) = Kind::of(&event.kind) else {
            return Ok(Verdict::Ignored);
        };
        if event.account.is_some() {
            // Of an account that is connected to ours: its customers are not ours.
            return Ok(Verdict::Ignored);
        }
        let books = &self.deps.books;
        let customer = match event.customer_id() {
            Some(in_stripe) => books.accounts.customer_in_stripe(in_stripe).await?,
            None => None,
        };
        if books.accounts.is_marked(&event.id).await? {
            return self.repeated(customer.as_ref()).await;
        }
        let cause = Cause { event: &event.id, now };
        match (kind, customer) {
            (Kind::Checkout, _) => self.checked_out(event, cause).await,
            (Kind::MeterErrors, _) => self.uncounted(event, cause).await,
            (Kind::FinalizationFailed, customer) => self.not_final(event, customer.as_ref(), cause).await,
            (_, None) => Ok(Verdict::Ignored),
            (Kind::Subscription, Some(id)) => {
                if let Some(named) = event.subscription_id() {
                    books.tell_of_second(&id, named).await?;
                }
                books.follow(&id, Some(cause)).await?;
                Ok(Verdict::Done)
            }
            (Kind::InvoiceCreated, Some(id)) => self.close_period(event, &id, cause).await,
            (Kind::PaymentFailed, Some(id)) => self.not_paid(event, &id, cause).await,
            (Kind::TrialEnding, Some(id)) => self.trial_ending(event, &id, cause).await,
            (Kind::CustomerDeleted, Some(id)) => self.depart(&id, cause).await,
        }
    }

    /// Whoever stored the effect may have died before the counters were told.
    async fn repeated(&self, customer: Option<&CustomerId>) -> Result<Verdict, Error> {
        let books = &self.deps.books;
        if let Some(id) = customer
            && let Some(customer) = books.accounts.customer(id).await?
        {
            books.control().tell_counters(&customer).await?;
        }
        Ok(Verdict::Known)
    }

    pub(crate) async fn mark(&self, cause: Cause<'_>) -> Result<Verdict, Error> {
        self.deps.books.accounts.put_mark(cause.event, cause.now).await?;
        Ok(Verdict::Done)
    }

    /// A period ended: everything that was counted in it goes to Stripe before the invoice is final.
    async fn close_period(&self, event: &Event, id: &CustomerId, cause: Cause<'_>) -> Result<Verdict, Error> {
        let books = &self.deps.books;
        let customer = books.follow(id, None).await?.customer;
        let Some(invoice) = self.invoice(event).await? else {
            return self.mark(cause).await;
        };
        let is_ours = invoice.subscription.is_some() && invoice.subscription == customer.stripe_subscription;
        let ends_a_period = invoice.billing_reason.as_deref() == Some("subscription_cycle");
        let has_ended = customer.standing == Standing::Ended;
        if is_ours && (ends_a_period || has_ended) {
            let end = u64::try_from(invoice.period_end).unwrap_or(0);
            // What an ended subscription has counted belongs to its last invoice, wherever that says it ends.
            let until = if has_ended { u64::MAX } else { end };
            let report = books.close(&customer, until).await?;
            if report.retried + report.errors + report.parked > 0 {
                tracing::warn!(customer = %id, invoice = invoice.id, ?report, "not everything is reported yet");
            }
        }
        self.mark(cause).await
    }

    /// A payment failed: the customer learns what happens if it stays so, and from when on.
    async fn not_paid(&self, event: &Event, id: &CustomerId, cause: Cause<'_>) -> Result<Verdict, Error> {
        let books = &self.deps.books;
        let customer = books.follow(id, None).await?.customer;
        let invoice = self.invoice(event).await?;
        let is_open = |invoice: &Invoice| {
            invoice.status.as_deref() == Some("open") && invoice.subscription == customer.stripe_subscription
        };
        // Late as we may be, nobody is told of a payment that was made meanwhile.
        if let Some(invoice) = invoice.filter(is_open) {
            let occasion = self.payment_failed(&customer, &invoice).await?;
            let id = format!("payment-{}-{}", invoice.id, invoice.attempt_count);
            books.alert(id, Some(&customer), occasion).await?;
        }
        self.mark(cause).await
    }

    async fn payment_failed(&self, customer: &Customer, invoice: &Invoice) -> Result<Occasion, Error> {
        let books = &self.deps.books;
        let past_due = books.control().terms(customer, books.now()).await?.past_due;
        let finalized = invoice.finalized_at.and_then(|s| u64::try_from(s).ok());
        let since = match customer.standing {
            Standing::PastDue { since } => since,
            _ => finalized.unwrap_or(books.now().s()),
        };
        let policy = match past_due.policy {
            PastDuePolicy::Keep => "keep",
            PastDuePolicy::Throttle(_) => "throttle",
            PastDuePolicy::Block => "block",
        };
        Ok(Occasion::PaymentFailed {
            invoice: invoice.id.clone(),
            amount_due: invoice.amount_remaining,
            currency: invoice.currency.clone(),
            attempts: invoice.attempt_count,
            next_attempt: invoice.next_payment_attempt.and_then(|s| u64::try_from(s).ok()),
            pay_url: invoice.hosted_invoice_url.clone(),
            policy: policy.to_owned(),
            policy_from: since.saturating_add(past_due.grace_s),
        })
    }

    async fn trial_ending(&self, event: &Event, id: &CustomerId, cause: Cause<'_>) -> Result<Verdict, Error> {
        let books = &self.deps.books;
        let customer = books.follow(id, None).await?.customer;
        if let Some(subscription) = &customer.stripe_subscription
            && event.subscription_id() == Some(subscription)
        {
            let subscription = books.stripe.subscription(subscription).await?;
            // A trial that is ended at once says so with the same event, when there is nothing left to announce.
            let ends = subscription.trial_end.and_then(|s| u64::try_from(s).ok());
            if let Some(trial_end) = ends.filter(|_| subscription.status == "trialing") {
                let occasion = Occasion::TrialEnding {
                    tier: customer.phase_at(trial_end).tier.clone(),
                    trial_end,
                };
                let id = format!("trial-{}-{trial_end}", subscription.id);
                books.alert(id, Some(&customer), occasion).await?;
            }
        }
        self.mark(cause).await
    }

    /// An invoice that can't be made final is paid by nobody until somebody looks at it.
    async fn not_final(&self, event: &Event, id: Option<&CustomerId>, cause: Cause<'_>) -> Result<Verdict, Error> {
        let Some(id) = id else { return Ok(Verdict::Ignored) };
        let invoice = event.object_id().unwrap_or("an invoice");
        let text = format!(
            "Stripe could not make {invoice} of {id} final and does not try again: look at it in the dashboard, mostly at \
             addresses and taxes, and finalize it there."
        );
        let details = [("customer", id.to_string()), ("invoice", invoice.to_owned())];
        self.tell_operator(
            "invoice_not_finalized",
            format!("finalization-{}", event.id),
            text,
            &details,
        )
        .await?;
        self.mark(cause).await
    }

    /// Nobody is left to bill.
    async fn depart(&self, id: &CustomerId, cause: Cause<'_>) -> Result<Verdict, Error> {
        let books = &self.deps.books;
        books.follow(id, None).await?;
        for _ in 0..TRIES_MAX {
            let seen = books.customer(id).await?;
            if seen.standing == Standing::Ended {
                return self.mark(cause).await;
            }
            let mut changed = seen.clone();
            changed.standing = Standing::Ended;
            if books
                .control()
                .store(&seen, changed, Some(cause), cause.now)
                .await?
                .is_some()
            {
                return Ok(Verdict::Done);
            }
        }
        Err(farebox_aws::Error::Contended(format!("customer {id}")).into())
    }

    /// The invoice that an event is about, as it is now.
    async fn invoice(&self, event: &Event) -> Result<Option<Invoice>, Error> {
        let Some(id) = event.object_id() else { return Ok(None) };
        match self.deps.books.stripe.invoice(id).await {
            Ok(invoice) => Ok(Some(invoice)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn tell_operator(
        &self,
        problem: &str,
        id: String,
        text: String,
        details: &[(&str, String)],
    ) -> Result<(), Error> {
        let details = details.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let occasion = Occasion::Operator {
            problem: problem.to_owned(),
            text,
            details: details.collect(),
        };
        self.deps.books.alert(id, None, occasion).await
    }

    /// Tells the operator of an event that trying again does not help, or that is not sent again.
    pub(crate) async fn complain(&self, event: &Event, why: &str, is_passing: bool) {
        let comes_again = event.kind != INVOICE_CREATED;
        if is_passing && comes_again {
            return;
        }
        let then = if comes_again {
            "Stripe sends it again for three days."
        } else {
            "What it asks for is left to the schedule; look whether the invoice has all usage before it is final."
        };
        let text = format!(
            "{} of type {} could not be followed: {why}. {then}",
            event.id, event.kind
        );
        let details = [("event", event.id.clone()), ("type", event.kind.clone())];
        let id = format!("webhook-{}", event.id);
        if let Err(error) = self.tell_operator("event_not_followed", id, text, &details).await {
            tracing::error!(event = event.id, %error, "the operator could not be told");
        }
    }
}

/// Whether the same may do better in a while, without anybody doing anything.
pub(crate) fn is_passing(error: &Error) -> bool {
    match error {
        Error::Table(farebox_aws::Error::Call { .. } | farebox_aws::Error::Contended(_)) => true,
        Error::Table(farebox_aws::Error::Item { .. } | farebox_aws::Error::Refused(_)) => false,
        Error::Stripe(error) => error.retryable(),
        Error::Row { .. } | Error::Refused(_) => false,
    }
}
