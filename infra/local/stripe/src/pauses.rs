//! What stops billing for a while: a trial that ends without a payment method, and paused collection.
//!
//! Source: <https://docs.stripe.com/billing/subscriptions/trials/free-trials#create-free-trials-without-payment>,
//! <https://docs.stripe.com/api/subscriptions/resume> and <https://docs.stripe.com/billing/subscriptions/pause-payment>.

use serde_json::{Value, json};

use crate::{
    calendar::DAY,
    events::Cause,
    state::{Due, State},
    subscriptions::{Proration, Status, Subscription},
    wire::{error::ApiError, form::Params},
};

/// How long before a trial's end it is announced.
const TRIAL_NOTICE_S: i64 = 3 * DAY;

/// What happens at the end of a trial if there is no payment method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MissingMethod {
    Cancel,
    /// The invoice is made all the same, and its payment fails.
    CreateInvoice,
    Pause,
}

impl MissingMethod {
    const WORDS: [(&'static str, Self); 3] = [
        ("cancel", Self::Cancel),
        ("create_invoice", Self::CreateInvoice),
        ("pause", Self::Pause),
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::CreateInvoice => "create_invoice",
            Self::Pause => "pause",
        }
    }
}

/// `trial_settings[end_behavior][missing_payment_method]`
pub(crate) fn take_missing_method(params: &mut Params) -> Result<Option<MissingMethod>, ApiError> {
    let Some(mut settings) = params.level("trial_settings")? else {
        return Ok(None);
    };
    let mut behavior = settings.level("end_behavior")?.unwrap_or_default();
    settings.finish()?;
    let missing_method = behavior.choice("missing_payment_method", &MissingMethod::WORDS)?;
    behavior.finish()?;
    Ok(missing_method)
}

/// What becomes of the invoices that are made while collection is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PausedInvoices {
    KeepAsDraft,
    MarkUncollectible,
    Void,
}

impl PausedInvoices {
    const WORDS: [(&'static str, Self); 3] = [
        ("keep_as_draft", Self::KeepAsDraft),
        ("mark_uncollectible", Self::MarkUncollectible),
        ("void", Self::Void),
    ];
}

/// A subscription's `pause_collection`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) invoices: PausedInvoices,
    pub(crate) resumes_at: Option<i64>,
}

impl Pause {
    pub(crate) fn render(self) -> Value {
        let word = PausedInvoices::WORDS
            .iter()
            .find(|(_, meaning)| *meaning == self.invoices);
        json!({ "behavior": word.map(|(word, _)| word), "resumes_at": self.resumes_at })
    }
}

/// An empty string unsets; an outer `None` leaves the setting as it is.
pub(crate) fn take_pause(params: &mut Params, at: i64) -> Result<Option<Option<Pause>>, ApiError> {
    let Some(mut level) = params.level("pause_collection")? else {
        return Ok(None);
    };
    if level.is_empty() {
        return Ok(Some(None));
    }
    let invoices = level
        .choice("behavior", &PausedInvoices::WORDS)?
        .ok_or_else(|| ApiError::missing("pause_collection[behavior]"))?;
    let resumes_at = level.natural("resumes_at")?;
    level.finish()?;
    if resumes_at.is_some_and(|resumes_at| resumes_at <= at) {
        return Err(ApiError::invalid(
            "pause_collection[resumes_at]",
            "Invalid timestamp: must be an integer Unix timestamp in the future.",
        ));
    }
    Ok(Some(Some(Pause { invoices, resumes_at })))
}

impl State {
    /// Announces a trial's end three days ahead, at once if it is nearer than that: "or when a trial is ended immediately".
    pub(crate) fn announce_trial_end(&mut self, id: &str, at: i64, cause: &Cause) {
        let Some((_, end)) = self.subscriptions.find(id).and_then(|found| found.trial) else {
            return;
        };
        let notice = end - TRIAL_NOTICE_S;
        if notice > at {
            self.due.insert((notice, Due::TrialNotice(id.to_owned())));
        } else {
            self.trial_will_end(id, at, cause);
        }
    }

    fn trial_will_end(&mut self, id: &str, at: i64, cause: &Cause) {
        if let Some(subscription) = self.subscriptions.find(id) {
            let rendered = self.render_subscription(subscription);
            self.emit(at, cause, "customer.subscription.trial_will_end", rendered, None);
        }
    }

    /// Says whether the trial still ends three days after `at`.
    pub(crate) fn trial_notice_due(&mut self, id: &str, at: i64) -> bool {
        let ends = self.subscriptions.find(id).is_some_and(|found| {
            found.status == Status::Trialing && found.trial.is_some_and(|(_, end)| end == at + TRIAL_NOTICE_S)
        });
        if ends {
            self.trial_will_end(id, at, &Cause::default());
        }
        ends
    }

    /// Pauses or cancels a subscription whose trial ends, if it says so and there is no payment method. Says whether it did.
    pub(crate) fn trial_ends_without_method(&mut self, subscription: &Subscription, at: i64) -> bool {
        if subscription.status != Status::Trialing || self.method_of(subscription).is_some() {
            return false;
        }
        match subscription.missing_method {
            None | Some(MissingMethod::CreateInvoice) => false,
            Some(MissingMethod::Cancel) => {
                self.end_for_failed_payment(subscription.clone(), at);
                true
            }
            Some(MissingMethod::Pause) => {
                let cause = Cause::default();
                self.set_status(&subscription.id, Status::Paused, at, &cause);
                self.emit_subscription("customer.subscription.paused", &subscription.id, at, &cause);
                true
            }
        }
    }

    /// `/v1/subscriptions/:id/resume`: the cycle begins anew. "If payment succeeds the subscription will become `active`, and if
    /// payment fails the subscription will be `past_due`."
    pub(crate) fn resume_subscription(
        &mut self,
        id: &str,
        mut params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        let anchored_anew = params
            .choice("billing_cycle_anchor", &[("now", true), ("unchanged", false)])?
            .unwrap_or(true);
        params.ignore(&["proration_behavior", "proration_date"]);
        params.finish()?;
        let found = self.live_subscription(id, "id")?;
        if found.status != Status::Paused {
            return Err(ApiError::refused(
                "Only subscriptions with the status `paused` can be resumed.",
            ));
        }
        if !anchored_anew {
            return Err(ApiError::unsupported(
                "resuming with an unchanged `billing_cycle_anchor`",
            ));
        }
        let before = self.render_subscription(found);
        let mut subscription = found.clone();
        if let Some(interval) = self.interval_of(&subscription) {
            subscription.restart(interval, at);
            let entries = self.first_entries(&subscription, interval, Proration::Create);
            self.commit_update(subscription, Some(entries), before, at, cause);
        }
        self.emit_subscription("customer.subscription.resumed", id, at, cause);
        Ok(self.render_subscription(self.subscriptions.get(id, "id")?))
    }

    fn emit_subscription(&mut self, kind: &str, id: &str, at: i64, cause: &Cause) {
        if let Some(subscription) = self.subscriptions.find(id) {
            let rendered = self.render_subscription(subscription);
            self.emit(at, cause, kind, rendered, None);
        }
    }

    /// Collects again from `at` on; says whether that was still the plan.
    pub(crate) fn resume_collection_due(&mut self, id: &str, at: i64) -> bool {
        let due = self
            .subscriptions
            .find(id)
            .filter(|found| found.is_live() && found.pause.is_some_and(|pause| pause.resumes_at == Some(at)));
        let Some(mut subscription) = due.cloned() else {
            return false;
        };
        let before = self.render_subscription(&subscription);
        subscription.pause = None;
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
}
