//! Meters, meter events, their cancellation and their summaries.
//!
//! Source: <https://docs.stripe.com/api/billing/meter>, <https://docs.stripe.com/api/billing/meter-event> and
//! <https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api>.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Range,
};

use serde_json::{Value, json};

use crate::{
    calendar::DAY,
    events::Cause,
    ids::Kind,
    state::State,
    table::{Object, Table},
    wire::{error::ApiError, form::Params, list::Page},
};

/// An identifier is remembered this long: "a rolling period of at least 24 hours", and here exactly that.
const IDENTIFIER_KEPT_S: i64 = DAY;
/// "Must be within the past 35 calendar days …"
const PAST_MAX_S: i64 = 35 * DAY;
/// "… or up to 5 minutes in the future."
const AHEAD_MAX_S: i64 = 300;
/// Digits of a value.
const DIGITS_MAX: usize = 15;
/// Length of an identifier and of an event name.
const NAME_MAX: usize = 100;

/// How a meter aggregates the values of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Formula {
    Sum,
    Count,
    Last,
}

impl Formula {
    const WORDS: [(&'static str, Self); 3] = [("count", Self::Count), ("last", Self::Last), ("sum", Self::Sum)];

    fn word(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Count => "count",
            Self::Last => "last",
        }
    }
}

/// What is counted.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    id: String,
    display_name: String,
    pub(crate) event_name: String,
    formula: Formula,
    customer_key: String,
    value_key: String,
    created: i64,
    updated: i64,
    deactivated_at: Option<i64>,
}

impl Object for Meter {
    const NOUN: &'static str = "billing meter";

    fn id(&self) -> &str {
        &self.id
    }
}

impl Meter {
    fn is_active(&self) -> bool {
        self.deactivated_at.is_none()
    }

    pub(crate) fn require_active(&self, param: &str) -> Result<(), ApiError> {
        if self.is_active() {
            Ok(())
        } else {
            Err(ApiError::refused(format!("The meter {} is inactive.", self.id)).param(param))
        }
    }

    pub(crate) fn render(&self) -> Value {
        json!({
            "id": self.id,
            "object": "billing.meter",
            "created": self.created,
            "customer_mapping": { "event_payload_key": self.customer_key, "type": "by_id" },
            "default_aggregation": { "formula": self.formula.word() },
            "display_name": self.display_name,
            "event_name": self.event_name,
            "event_time_window": null,
            "livemode": false,
            "status": if self.is_active() { "active" } else { "inactive" },
            "status_transitions": { "deactivated_at": self.deactivated_at },
            "updated": self.updated,
            "value_settings": { "event_payload_key": self.value_key },
        })
    }
}

/// A counted event: its value, and when it was received (summaries lag behind that).
#[derive(Debug, Clone, Copy)]
struct Counted {
    value: i64,
    received: i64,
}

/// One customer's events of one meter, by timestamp and then by arrival.
#[derive(Debug, Default)]
struct Usage {
    events: BTreeMap<(i64, u64), Counted>,
    total: i128,
}

/// The aggregate of some events.
#[derive(Debug, Default, Clone, Copy)]
struct Aggregate {
    sum: i128,
    count: i128,
    last: i128,
}

impl Aggregate {
    fn add(&mut self, event: Counted) {
        self.sum += i128::from(event.value);
        self.count += 1;
        self.last = i128::from(event.value);
    }

    fn value(self, formula: Formula) -> i64 {
        let value = match formula {
            Formula::Sum => self.sum,
            Formula::Count => self.count,
            Formula::Last => self.last,
        };
        i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
    }
}

impl Usage {
    /// The events with a timestamp in `span`, received at or before `received_by`.
    fn within(&self, span: Range<i64>, received_by: i64) -> impl Iterator<Item = (i64, Counted)> {
        let span = if span.start < span.end {
            span
        } else {
            span.start..span.start
        };
        self.events
            .range((span.start, 0)..(span.end, 0))
            .filter(move |(_, event)| event.received <= received_by)
            .map(|((timestamp, _), event)| (*timestamp, *event))
    }
}

/// Where the event of a remembered identifier was counted; `None` if it was rejected afterwards or canceled.
#[derive(Debug)]
struct Remembered {
    event_name: String,
    counted: Option<(String, String, (i64, u64))>,
}

/// All meters and what was reported to them.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    table: Table<Meter>,
    /// Active meters by event name.
    active: HashMap<String, String>,
    /// By meter and then by customer.
    usage: HashMap<String, HashMap<String, Usage>>,
    identifiers: HashMap<String, Remembered>,
    /// Identifiers in the order in which they are forgotten.
    forget: VecDeque<(i64, String)>,
    received: u64,
    rejected: u64,
    canceled: u64,
}

impl Meters {
    pub(crate) fn get(&self, id: &str, param: &str) -> Result<&Meter, ApiError> {
        self.table.get(id, param)
    }

    fn active(&self, event_name: &str) -> Option<&Meter> {
        self.active.get(event_name).and_then(|id| self.table.find(id))
    }

    /// The meter and customer that a meter event is about: Stripe takes one call at a time for each pair.
    pub(crate) fn subject(&self, mut params: Params) -> Option<(String, String)> {
        let event_name = params.text("event_name").ok()??;
        let meter = self.active(&event_name)?;
        let customer = params.level("payload").ok()??.text(&meter.customer_key).ok()??;
        Some((meter.id.clone(), customer))
    }

    /// Forgets identifiers that are 24 hours old.
    pub(crate) fn prune(&mut self, now: i64) {
        while self.forget.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, identifier)) = self.forget.pop_front() {
                self.identifiers.remove(&identifier);
            }
        }
    }

    /// The billable quantity of a customer in `span`, from what was received at or before `received_by`. "If the overall cycle
    /// usage is negative, Stripe reports the invoice line item usage quantity as 0."
    pub(crate) fn quantity(&self, meter: &str, customer: &str, span: Range<i64>, received_by: i64) -> i64 {
        let Some(formula) = self.table.find(meter).map(|meter| meter.formula) else {
            return 0;
        };
        let mut aggregate = Aggregate::default();
        if let Some(usage) = self.usage_of(meter, customer) {
            usage
                .within(span, received_by)
                .for_each(|(_, event)| aggregate.add(event));
        }
        aggregate.value(formula).max(0)
    }

    fn usage_of(&self, meter: &str, customer: &str) -> Option<&Usage> {
        self.usage.get(meter)?.get(customer)
    }

    /// Totals by event name for one customer.
    pub(crate) fn totals(&self, customer: &str) -> BTreeMap<String, i64> {
        let mut totals = BTreeMap::new();
        for meter in self.table.iter() {
            if let Some(usage) = self.usage_of(&meter.id, customer) {
                let total: &mut i64 = totals.entry(meter.event_name.clone()).or_default();
                *total = total.saturating_add(i64::try_from(usage.total).unwrap_or(i64::MAX));
            }
        }
        totals
    }

    /// Counts of meter events for the snapshot.
    pub(crate) fn tally(&self) -> Value {
        json!({ "accepted": self.received, "rejected": self.rejected, "canceled": self.canceled })
    }

    fn remember(&mut self, identifier: String, at: i64, remembered: Remembered) {
        self.identifiers.insert(identifier.clone(), remembered);
        self.forget.push_back((at + IDENTIFIER_KEPT_S, identifier));
    }
}

impl State {
    pub(crate) fn create_meter(&mut self, mut params: Params, at: i64, cause: &Cause) -> Result<Value, ApiError> {
        let display_name = params.required("display_name")?;
        let event_name = take_name(&mut params, "event_name")?.ok_or_else(|| ApiError::missing("event_name"))?;
        let formula = match params.level("default_aggregation")? {
            None => return Err(ApiError::missing("default_aggregation")),
            Some(mut level) => {
                let formula = level.choice("formula", &Formula::WORDS)?;
                level.finish()?;
                formula.ok_or_else(|| ApiError::missing("default_aggregation[formula]"))?
            }
        };
        let customer_key = match params.level("customer_mapping")? {
            None => "stripe_customer_id".to_owned(),
            Some(mut level) => {
                level
                    .choice("type", &[("by_id", ())])?
                    .ok_or_else(|| ApiError::missing("customer_mapping[type]"))?;
                let key = level.required("event_payload_key")?;
                level.finish()?;
                key
            }
        };
        let value_key = match params.level("value_settings")? {
            None => "value".to_owned(),
            Some(mut level) => {
                let key = level.required("event_payload_key")?;
                level.finish()?;
                key
            }
        };
        let windowed = params
            .choice("event_time_window", &[("day", ()), ("hour", ())])?
            .is_some();
        params.finish()?;
        if windowed {
            return Err(ApiError::unsupported("a meter's event_time_window"));
        }
        self.claim_event_name(&event_name)?;
        let meter = Meter {
            id: self.ids.mint(Kind::Meter),
            display_name,
            event_name,
            formula,
            customer_key,
            value_key,
            created: at,
            updated: at,
            deactivated_at: None,
        };
        Ok(self.put_meter(meter, at, cause, "billing.meter.created", None))
    }

    /// An event name belongs to one active meter.
    fn claim_event_name(&self, event_name: &str) -> Result<(), ApiError> {
        match self.meters.active(event_name) {
            None => Ok(()),
            Some(holder) => Err(ApiError::refused(format!(
                "There is already an active meter ({}) with the event name {event_name}.",
                holder.id
            ))
            .code("resource_already_exists")
            .param("event_name")),
        }
    }

    fn put_meter(&mut self, meter: Meter, at: i64, cause: &Cause, kind: &str, before: Option<&Value>) -> Value {
        if meter.is_active() {
            self.meters.active.insert(meter.event_name.clone(), meter.id.clone());
        } else {
            self.meters.active.remove(&meter.event_name);
        }
        let rendered = meter.render();
        self.meters.table.put(meter);
        self.emit(at, cause, kind, rendered.clone(), before);
        rendered
    }

    pub(crate) fn update_meter(
        &mut self,
        id: &str,
        mut params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        let mut meter = self.meters.get(id, "id")?.clone();
        let before = meter.render();
        if let Some(name) = params.text("display_name")? {
            meter.display_name = name;
        }
        params.finish()?;
        meter.updated = at;
        Ok(self.put_meter(meter, at, cause, "billing.meter.updated", Some(&before)))
    }

    /// "You can't report usage to an inactive meter, nor attach it to a price."
    /// <https://docs.stripe.com/api/billing/meter/deactivate>
    pub(crate) fn deactivate_meter(
        &mut self,
        id: &str,
        params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        params.finish()?;
        let mut meter = self.meters.get(id, "id")?.clone();
        meter.require_active("id")?;
        let before = meter.render();
        meter.updated = at;
        meter.deactivated_at = Some(at);
        Ok(self.put_meter(meter, at, cause, "billing.meter.deactivated", Some(&before)))
    }

    pub(crate) fn reactivate_meter(
        &mut self,
        id: &str,
        params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        params.finish()?;
        let mut meter = self.meters.get(id, "id")?.clone();
        if meter.is_active() {
            return Err(ApiError::refused(format!("The meter {id} is already active.")).param("id"));
        }
        self.claim_event_name(&meter.event_name)?;
        let before = meter.render();
        meter.updated = at;
        meter.deactivated_at = None;
        Ok(self.put_meter(meter, at, cause, "billing.meter.reactivated", Some(&before)))
    }

    pub(crate) fn list_meters(&self, mut params: Params) -> Result<Value, ApiError> {
        let page = Page::take(&mut params)?;
        let active = params.choice("status", &[("active", true), ("inactive", false)])?;
        params.finish()?;
        let rows = self
            .meters
            .table
            .newest_first(None)
            .filter(|meter| active.is_none_or(|active| meter.is_active() == active));
        page.cut(
            rows,
            |meter| meter.id(),
            |meter| meter.render(),
            Meter::NOUN,
            "/v1/billing/meters",
        )
    }

    /// Takes a meter event. What the event says is checked at once; whether its customer exists is found out afterwards,
    /// as Stripe processes meter events asynchronously, and reported by a thin event.
    pub(crate) fn create_meter_event(&mut self, mut params: Params, at: i64) -> Result<Value, ApiError> {
        let event_name = take_name(&mut params, "event_name")?.ok_or_else(|| ApiError::missing("event_name"))?;
        let identifier = take_name(&mut params, "identifier")?;
        let timestamp = params.integer("timestamp")?.unwrap_or(at);
        let payload = params.pairs("payload")?;
        params.finish()?;
        if payload.is_empty() {
            return Err(ApiError::missing("payload"));
        }
        let Some(meter) = self.meters.active(&event_name) else {
            return Err(
                ApiError::refused(format!("No active meter found for event name \"{event_name}\"."))
                    .param("event_name"),
            );
        };
        let field = |key: &str| {
            payload
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value.as_str())
        };
        let Some(customer) = field(&meter.customer_key).filter(|customer| !customer.is_empty()) else {
            return Err(ApiError::invalid(
                format!("payload[{}]", meter.customer_key),
                format!("Customer mapping key {} not found in payload.", meter.customer_key),
            ));
        };
        let value = match (field(&meter.value_key), meter.formula) {
            (None, Formula::Count) => 1,
            (None, _) => {
                return Err(ApiError::invalid(
                    format!("payload[{}]", meter.value_key),
                    format!("Value key {} not found in payload.", meter.value_key),
                ));
            }
            (Some(text), _) => whole_number(text).ok_or_else(|| {
                ApiError::invalid(
                    format!("payload[{}]", meter.value_key),
                    format!(
                        "Invalid value {text}: the usage value must be a whole number of at most {DIGITS_MAX} digits."
                    ),
                )
            })?,
        };
        check_timestamp(timestamp, at)?;
        if let Some(identifier) = identifier
            .as_deref()
            .filter(|identifier| self.meters.identifiers.contains_key(*identifier))
        {
            return Err(
                ApiError::refused(format!("An event already exists with identifier {identifier}.")).param("identifier"),
            );
        }

        let (meter, customer) = (meter.id.clone(), customer.to_owned());
        let identifier = identifier.unwrap_or_else(|| generated_identifier(self.meters.received));
        self.meters.received += 1;
        let known = self.live_customer(&customer, "customer").is_ok();
        let counted = known.then(|| (meter.clone(), customer.clone(), (timestamp, self.meters.received)));
        if let Some((meter, customer, place)) = counted.clone() {
            let usage = self.meters.usage.entry(meter).or_default().entry(customer).or_default();
            usage.total += i128::from(value);
            usage.events.insert(place, Counted { value, received: at });
        } else {
            self.meters.rejected += 1;
            let message = format!("No customer was found with id {customer}.");
            self.events.meter_error(
                &mut self.ids,
                at,
                &meter,
                "meter_event_customer_not_found",
                &message,
                &identifier,
            );
        }
        let remembered = Remembered {
            event_name: event_name.clone(),
            counted,
        };
        self.meters.remember(identifier.clone(), at, remembered);
        let payload: serde_json::Map<String, Value> =
            payload.into_iter().map(|(key, value)| (key, value.into())).collect();
        Ok(json!({
            "object": "billing.meter_event",
            "created": at,
            "event_name": event_name,
            "identifier": identifier,
            "livemode": false,
            "payload": payload,
            "timestamp": timestamp,
        }))
    }

    /// Cancels an event that was received within the last 24 hours.
    /// <https://docs.stripe.com/api/billing/meter-event-adjustment/create>
    pub(crate) fn create_meter_event_adjustment(&mut self, mut params: Params) -> Result<Value, ApiError> {
        let event_name = params.required("event_name")?;
        params
            .choice("type", &[("cancel", ())])?
            .ok_or_else(|| ApiError::missing("type"))?;
        let identifier = match params.level("cancel")? {
            None => return Err(ApiError::missing("cancel")),
            Some(mut level) => {
                let identifier = level.required("identifier")?;
                level.finish()?;
                identifier
            }
        };
        params.finish()?;
        let remembered = self
            .meters
            .identifiers
            .get_mut(&identifier)
            .filter(|remembered| remembered.event_name == event_name);
        let Some(remembered) = remembered else {
            return Err(ApiError::refused(format!(
                "No event with identifier {identifier} was received for event name {event_name} within the past 24 hours."
            ))
            .param("cancel[identifier]"));
        };
        let Some((meter, customer, place)) = remembered.counted.take() else {
            return Err(
                ApiError::refused(format!("The event with identifier {identifier} can't be canceled."))
                    .param("cancel[identifier]"),
            );
        };
        let usage = self
            .meters
            .usage
            .get_mut(&meter)
            .and_then(|usage| usage.get_mut(&customer));
        if let Some(usage) = usage
            && let Some(event) = usage.events.remove(&place)
        {
            usage.total -= i128::from(event.value);
        }
        self.meters.canceled += 1;
        Ok(json!({
            "object": "billing.meter_event_adjustment",
            "cancel": { "identifier": identifier },
            "event_name": event_name,
            "livemode": false,
            "status": "complete",
            "type": "cancel",
        }))
    }

    /// Summaries lag: they know only what was received at least the configured lag ago. Windows without an event have no row.
    /// <https://docs.stripe.com/api/billing/meter-event-summary/list>
    pub(crate) fn list_event_summaries(&self, meter: &str, mut params: Params, at: i64) -> Result<Value, ApiError> {
        let page = Page::take(&mut params)?;
        let customer = params.required("customer")?;
        let start = params.required_time("start_time")?;
        let end = params.required_time("end_time")?;
        let window = params.choice("value_grouping_window", &[("hour", 3600), ("day", DAY)])?;
        params.finish()?;
        let meter = self.meters.get(meter, "id")?;
        for (name, time) in [("start_time", start), ("end_time", end)] {
            let (grain, word) = match window {
                Some(DAY) => (DAY, "day"),
                Some(_) => (3600, "hour"),
                None => (60, "minute"),
            };
            if time % grain != 0 {
                return Err(ApiError::invalid(
                    name,
                    format!("`{name}` must be aligned with {word} boundaries."),
                ));
            }
        }
        if start >= end {
            return Err(ApiError::invalid("end_time", "`end_time` must be after `start_time`."));
        }
        self.customers.get(&customer, "customer")?;
        let rows = self.summaries(meter, &customer, start..end, window, at);
        let url = format!("/v1/billing/meters/{}/event_summaries", meter.id);
        page.cut(
            rows.iter(),
            |row| row["id"].as_str().unwrap_or_default(),
            |row| (*row).clone(),
            "meter event summary",
            &url,
        )
    }

    /// Newest first.
    fn summaries(&self, meter: &Meter, customer: &str, span: Range<i64>, window: Option<i64>, at: i64) -> Vec<Value> {
        let mut groups: BTreeMap<i64, Aggregate> = BTreeMap::new();
        if let Some(usage) = self.meters.usage_of(&meter.id, customer) {
            for (timestamp, event) in usage.within(span.clone(), at - self.settings.summary_lag_s) {
                let start = window.map_or(span.start, |window| timestamp - timestamp.rem_euclid(window));
                groups.entry(start).or_default().add(event);
            }
        }
        let summary = |(start, aggregate): (i64, Aggregate)| {
            let end = window.map_or(span.end, |window| start + window);
            let seed = format!("{}/{customer}/{start}/{end}", meter.id);
            json!({
                "id": Kind::Summary.shape(seed.as_bytes()),
                "object": "billing.meter_event_summary",
                "aggregated_value": aggregate.value(meter.formula),
                "end_time": end,
                "livemode": false,
                "meter": meter.id,
                "start_time": start,
            })
        };
        groups.into_iter().rev().map(summary).collect()
    }
}

fn take_name(params: &mut Params, name: &str) -> Result<Option<String>, ApiError> {
    match params.text(name)? {
        Some(long) if long.chars().count() > NAME_MAX => Err(ApiError::invalid(
            name,
            format!("Invalid string: must be at most {NAME_MAX} characters"),
        )
        .code("parameter_invalid_string_length")),
        text => Ok(text),
    }
}

/// "The numerical usage value in the payload only accepts whole number values"; it may be negative.
fn whole_number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_whole = (1..=DIGITS_MAX).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_whole.then(|| text.parse().ok()).flatten()
}

fn check_timestamp(timestamp: i64, at: i64) -> Result<(), ApiError> {
    if timestamp < at - PAST_MAX_S {
        return Err(ApiError::refused(
            "The timestamp is too far in the past: it must be within the past 35 calendar days.",
        )
        .code("timestamp_too_far_in_past")
        .param("timestamp"));
    }
    if timestamp > at + AHEAD_MAX_S {
        return Err(
            ApiError::refused("The timestamp is in the future: it must be at most 5 minutes ahead.")
                .code("timestamp_in_future")
                .param("timestamp"),
        );
    }
    Ok(())
}

/// UUID-like, as Stripe's own are.
fn generated_identifier(number: u64) -> String {
    let hash = Kind::Summary.shape(&number.to_be_bytes());
    let hex: String = hash
        .bytes()
        .rev()
        .map(|byte| char::from(b"0123456789abcdef"[usize::from(byte % 16)]))
        .collect();
    format!(
        "{}-{}-4{}-8{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..32]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_whole_and_short() {
        assert_eq!(whole_number("25"), Some(25));
        assert_eq!(whole_number("-3"), Some(-3));
        assert_eq!(whole_number("999999999999999"), Some(999_999_999_999_999));
        for bad in ["", "-", "1.5", "1e3", "+1", "1000000000000000", " 1"] {
            assert_eq!(whole_number(bad), None, "{bad}");
        }
    }
}
