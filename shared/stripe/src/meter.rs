//! Meters: what is counted, what happened, and what Stripe has summed up.

use std::collections::HashMap;

use serde::Deserialize;
use stripe_billing::BillingMeterStatus;
use stripe_billing::billing_meter::{
    CreateBillingMeter, CreateBillingMeterCustomerMapping, CreateBillingMeterCustomerMappingType,
    CreateBillingMeterDefaultAggregation, CreateBillingMeterDefaultAggregationFormula, CreateBillingMeterValueSettings,
    ListBillingMeter,
};
use stripe_billing::billing_meter_event::CreateBillingMeterEvent;
use stripe_billing::billing_meter_event_summary::ListIdBillingMeterEventSummary;
use stripe_client_core::StripeRequest;

use crate::client::path_id;
use crate::list::{Listed, PAGE};
use crate::{Client, Error};

/// The payload keys that a meter of ours reads and an event of ours carries; they are Stripe's defaults.
const CUSTOMER_KEY: &str = "stripe_customer_id";
const VALUE_KEY: &str = "value";

/// 15 digits, the most that Stripe takes without rounding:
/// <https://docs.stripe.com/changelog/dahlia/2026-04-22/billing-meter-event-values-validation>.
const VALUE_MAX: u64 = 999_999_999_999_999;

/// What Stripe takes as an identifier: <https://docs.stripe.com/api/billing/meter-event/create>.
const IDENTIFIER_CHARS_MAX: usize = 100;

/// From here on a double no longer tells neighbouring integers apart.
const EXACT_BELOW: u64 = 1 << 53;

/// What is counted: <https://docs.stripe.com/api/billing/meter/object>.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Meter {
    /// `mtr_…`
    pub id: String,
    /// The name that events carry. Only one active meter of the account can have it.
    pub event_name: String,
    /// What the owner reads.
    pub display_name: String,
    /// `active` or `inactive`.
    pub status: String,
}

/// Usage of one customer in one minute: <https://docs.stripe.com/api/billing/meter-event/create>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterEvent {
    /// The meter's `event_name`.
    pub event_name: String,
    /// `cus_…`
    pub stripe_customer: String,
    /// Whole units, at most 15 digits.
    pub value: u64,
    /// What makes it one event however often it is sent: 1 to 100 characters, unique for at least 24 hours.
    pub identifier: String,
    /// Unix seconds; at most 35 days past and 5 minutes ahead.
    pub timestamp: i64,
}

impl Client {
    /// Reports usage. `Ok` says that Stripe took it; that it also counted it, only [`Self::event_summary`] tells later.
    ///
    /// # Errors
    /// [`Error::Duplicate`] if the identifier was delivered before, which is as good as `Ok`. [`Error::Busy`] while another
    /// event of the same customer and meter is on its way.
    pub async fn report_meter_event(&self, event: &MeterEvent, idempotency_key: &str) -> Result<(), Error> {
        /// <https://docs.stripe.com/api/billing/meter-event/object>
        #[derive(Deserialize)]
        struct Taken {
            identifier: String,
        }
        let answer = self.post(&event.request()?, idempotency_key).await?;
        if answer.is_duplicate_of(&event.identifier) {
            return Err(Error::Duplicate {
                request_id: answer.headers.request_id,
            });
        }
        let accepted = answer.accepted(self.secret())?;
        let taken: Taken = accepted.read()?;
        if taken.identifier == event.identifier {
            Ok(())
        } else {
            Err(accepted.doubt("it names another identifier than ours"))
        }
    }

    /// How many units Stripe has counted from `start` up to, not including, `end`. Both are whole minutes in unix seconds. The
    /// sum lags behind the events: <https://docs.stripe.com/api/billing/meter-event-summary>.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the sum is not a whole number that a double tells exactly: it is refused, never rounded.
    pub async fn event_summary(&self, meter_id: &str, customer: &str, start: i64, end: i64) -> Result<u64, Error> {
        let meter_id = path_id(meter_id)?;
        let summaries: Vec<Summary> = self
            .list(|after| {
                // The end comes first here.
                let mut request = ListIdBillingMeterEventSummary::new(meter_id, customer, end, start).limit(PAGE);
                if let Some(after) = after {
                    request = request.starting_after(after);
                }
                request.build()
            })
            .await?;
        summaries
            .iter()
            .try_fold(0, |sum, summary| add(sum, &summary.aggregated_value))
    }

    /// Creates a meter that sums `value` per customer.
    ///
    /// # Errors
    /// [`Error::Rejected`] if an active meter has this event name already.
    pub async fn create_meter(
        &self,
        event_name: &str,
        display_name: &str,
        idempotency_key: &str,
    ) -> Result<Meter, Error> {
        let sum = CreateBillingMeterDefaultAggregation::new(CreateBillingMeterDefaultAggregationFormula::Sum);
        let by_id = CreateBillingMeterCustomerMapping::new(CUSTOMER_KEY, CreateBillingMeterCustomerMappingType::ById);
        let request = CreateBillingMeter::new(sum, display_name, event_name)
            .customer_mapping(by_id)
            .value_settings(CreateBillingMeterValueSettings::new(VALUE_KEY));
        self.create(&request, idempotency_key).await?.read()
    }

    /// The active meter with this event name.
    ///
    /// # Errors
    /// As every call; a meter that is absent is `None`.
    pub async fn find_meter(&self, event_name: &str) -> Result<Option<Meter>, Error> {
        let meters = self.meters().await?;
        Ok(meters.into_iter().find(|meter| meter.event_name == event_name))
    }

    /// Every active meter: <https://docs.stripe.com/api/billing/meter/list>.
    ///
    /// # Errors
    /// As every call.
    pub async fn meters(&self) -> Result<Vec<Meter>, Error> {
        self.list(|after| {
            let mut request = ListBillingMeter::new().status(BillingMeterStatus::Active).limit(PAGE);
            if let Some(after) = after {
                request = request.starting_after(after);
            }
            request.build()
        })
        .await
    }
}

impl MeterEvent {
    /// Refuses here what Stripe would refuse only afterwards, or not at all: without an identifier it makes one up, and then
    /// a second call counts twice.
    fn request(&self) -> Result<CreateBillingMeterEvent, Error> {
        if self.value > VALUE_MAX {
            return Err(Error::Invalid("a meter event's value has at most 15 digits"));
        }
        if self.identifier.is_empty() || self.identifier.chars().count() > IDENTIFIER_CHARS_MAX {
            return Err(Error::Invalid("a meter event's identifier has 1 to 100 characters"));
        }
        let payload = HashMap::from([
            (CUSTOMER_KEY.to_owned(), self.stripe_customer.clone()),
            (VALUE_KEY.to_owned(), self.value.to_string()),
        ]);
        Ok(CreateBillingMeterEvent::new(&self.event_name, payload)
            .identifier(&self.identifier)
            .timestamp(self.timestamp))
    }
}

/// <https://docs.stripe.com/api/billing/meter-event-summary/object>
#[derive(Deserialize)]
struct Summary {
    id: String,
    aggregated_value: serde_json::Number,
}

impl Listed for Summary {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Listed for Meter {
    fn id(&self) -> &str {
        &self.id
    }
}

/// `sum` plus a number that Stripe calls a float, exactly.
fn add(sum: u64, value: &serde_json::Number) -> Result<u64, Error> {
    exact(value)
        .and_then(|value| sum.checked_add(value))
        .ok_or_else(|| Error::Malformed {
            what: format!("{value} is no exact number of units"),
            request_id: None,
        })
}

fn exact(value: &serde_json::Number) -> Option<u64> {
    let whole = match value.as_u64() {
        Some(whole) => whole,
        None => {
            let float = value.as_f64()?;
            // Below 2^53 every whole double is one integer, so the cast loses nothing.
            (float.fract() == 0.0 && (0.0..EXACT_BELOW as f64).contains(&float)).then_some(float as u64)?
        }
    };
    (whole < EXACT_BELOW).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::{EXACT_BELOW, exact};

    #[test]
    fn sums_are_exact_or_refused() {
        let read = |text: &str| exact(&serde_json::from_str(text).unwrap());
        for (text, whole) in [
            ("0", 0),
            ("25", 25),
            ("25.0", 25),
            ("1e3", 1_000),
            ("9007199254740991", EXACT_BELOW - 1),
        ] {
            assert_eq!(read(text), Some(whole), "{text}");
        }
        for text in [
            "0.5",
            "-1",
            "-1.0",
            "9007199254740992",
            "9007199254740993.0",
            "1e300",
            "18446744073709551616",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
