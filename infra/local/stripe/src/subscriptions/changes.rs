//! Changes to the items, and the prorations that they cause.
//!
//! Source: <https://docs.stripe.com/billing/subscriptions/prorations> and
//! <https://docs.stripe.com/billing/subscriptions/usage-based/manage-billing-setup>.

use super::{Item, Proration, Status, Subscription};
use crate::{
    calendar::{Interval, day_name},
    catalog::{Metadata, Price, merge},
    ids::Kind,
    invoices::{Entry, Line},
    money::prorate,
    state::State,
    wire::{error::ApiError, form::Params},
};

/// "A subscription can have up to 20 items."
pub(super) const ITEMS_MAX: usize = 20;

/// A change to the items.
#[derive(Debug)]
pub(super) enum Change {
    Add {
        price: String,
        quantity: Option<i64>,
        metadata: Vec<(String, String)>,
    },
    Update {
        id: String,
        price: Option<String>,
        quantity: Option<i64>,
        metadata: Vec<(String, String)>,
    },
    Remove {
        id: String,
    },
}

impl Change {
    /// One element of `items`: with an `id` it changes or deletes an item, without one it adds one.
    pub(super) fn take(mut level: Params) -> Result<(Self, String), ApiError> {
        let prefix = level.name("quantity");
        let id = level.text("id")?;
        let deleted = level.boolean("deleted")?.unwrap_or(false);
        let price = level.text("price")?;
        let quantity = level.natural("quantity")?;
        let metadata = level.pairs("metadata")?;
        let price_name = level.name("price");
        level.ignore(&["billing_thresholds", "clear_usage", "discounts", "tax_rates"]);
        level.finish()?;
        let change = match (id, deleted, price) {
            (Some(id), true, _) => Self::Remove { id },
            (Some(id), false, price) => Self::Update {
                id,
                price,
                quantity,
                metadata,
            },
            (None, _, Some(price)) => Self::Add {
                price,
                quantity,
                metadata,
            },
            (None, _, None) => return Err(ApiError::missing(&price_name)),
        };
        Ok((change, prefix))
    }
}

/// How an update moves the billing cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restart {
    No,
    /// The cycle begins anew now: unused time is credited, the new period is charged, used units are billed.
    Now,
}

impl State {
    /// Applies changes to the items of `subscription` (a copy: nothing is stored). Gives what is to be invoiced at once, if anything.
    pub(super) fn apply(
        &mut self,
        subscription: &mut Subscription,
        changes: Vec<(Change, String)>,
        proration: Proration,
        mut restart: Restart,
        when: i64,
        at: i64,
    ) -> Result<Option<Vec<Entry>>, ApiError> {
        let old_interval = self.interval_of(subscription);
        let old_items = subscription.items.clone();
        let trialing = subscription.status == Status::Trialing;
        if subscription.status == Status::Incomplete && (!changes.is_empty() || restart == Restart::Now) {
            return Err(ApiError::refused(
                "A subscription with the status `incomplete` can only have its metadata and its default payment method updated.",
            ));
        }
        for (change, param) in changes {
            self.change_items(subscription, change, &param, at)?;
        }
        let interval = self.check_items(subscription)?;
        if old_interval.is_some_and(|old| old != interval) && !trialing {
            // "When you switch to a price with another interval, the billing cycle begins anew."
            restart = Restart::Now;
        }

        let unchanged = |item: &Item, others: &[Item]| {
            others
                .iter()
                .any(|other| other.id == item.id && other.price == item.price && other.quantity == item.quantity)
        };
        let old_interval = old_interval.unwrap_or(interval);
        for item in &old_items {
            if restart == Restart::No && unchanged(item, &subscription.items) {
                continue;
            }
            let metered = self.price_of(item).meter().is_some();
            if metered {
                let price_stays = subscription
                    .items
                    .iter()
                    .any(|other| other.id == item.id && other.price == item.price);
                let removed_and_billed = proration != Proration::None && subscription.flexible;
                if price_stays || removed_and_billed {
                    let lines = self.used_until_now(subscription, item, at);
                    subscription.pending.extend(lines);
                }
            } else if proration != Proration::None {
                let credit = self.unused_time(subscription, item, old_interval, when);
                subscription.pending.extend(credit);
            }
        }

        if restart == Restart::Now {
            if subscription.status == Status::Paused {
                return Err(ApiError::unsupported("a new billing cycle of a paused subscription"));
            }
            subscription.restart(interval, at);
            let mut entries = vec![Entry::Lines(std::mem::take(&mut subscription.pending))];
            entries.extend(self.first_entries(subscription, interval, Proration::Create));
            return Ok(Some(entries));
        }
        if proration != Proration::None {
            let new_items = subscription.items.clone();
            for item in new_items.iter().filter(|item| !unchanged(item, &old_items)) {
                let charge = self.remaining_time(subscription, item, interval, when);
                subscription.pending.extend(charge);
            }
        }
        Ok((proration == Proration::Invoice && !subscription.pending.is_empty())
            .then(|| vec![Entry::Lines(std::mem::take(&mut subscription.pending))]))
    }

    /// Applies one change, without any billing.
    pub(super) fn change_items(
        &mut self,
        subscription: &mut Subscription,
        change: Change,
        param: &str,
        at: i64,
    ) -> Result<(), ApiError> {
        let position = |subscription: &Subscription, id: &str| {
            subscription
                .items
                .iter()
                .position(|item| item.id == id)
                .ok_or_else(|| ApiError::no_such("subscription_item", id, "items"))
        };
        match change {
            Change::Add {
                price,
                quantity,
                metadata: pairs,
            } => {
                let quantity = self.check_quantity(&price, quantity, true, param)?;
                let mut metadata = Metadata::new();
                merge(&mut metadata, pairs);
                subscription.items.push(Item {
                    id: self.ids.mint(Kind::SubscriptionItem),
                    price,
                    quantity,
                    created: at,
                    metadata,
                    usage_from: at,
                });
            }
            Change::Update {
                id,
                price,
                quantity,
                metadata,
            } => {
                let index = position(subscription, &id)?;
                let old = subscription.items[index].clone();
                let switches = price.as_ref().is_some_and(|price| *price != old.price);
                let price = price.unwrap_or(old.price);
                let quantity =
                    self.check_quantity(&price, quantity.or(old.quantity.filter(|_| !switches)), switches, param)?;
                let item = &mut subscription.items[index];
                item.price = price;
                item.quantity = quantity;
                if switches {
                    // "On future invoices, we reflect only usage that occurs after the update."
                    item.usage_from = at;
                }
                merge(&mut item.metadata, metadata);
            }
            Change::Remove { id } => {
                let index = position(subscription, &id)?;
                subscription.items.remove(index);
            }
        }
        Ok(())
    }

    /// A licensed price has a quantity, 1 if none is given; a metered price must not have one.
    pub(super) fn check_quantity(
        &self,
        price: &str,
        quantity: Option<i64>,
        is_new: bool,
        param: &str,
    ) -> Result<Option<i64>, ApiError> {
        let price = self.catalog.prices.get(price, "items[0][price]")?;
        if price.recurring.is_none() {
            return Err(ApiError::refused(
                "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`.",
            )
            .param("items"));
        }
        if is_new && !price.active {
            return Err(
                ApiError::refused("The price specified is inactive. This field only accepts active prices.")
                    .param("items"),
            );
        }
        match (price.meter().is_some(), quantity) {
            (true, Some(_)) => {
                let element = param.trim_end_matches("[quantity]");
                Err(ApiError::invalid(
                    param,
                    format!(
                        "Quantity should not be specified where usage_type is `metered`. Remove quantity from `{element}`"
                    ),
                ))
            }
            (true, None) => Ok(None),
            (false, quantity) => Ok(Some(quantity.unwrap_or(1))),
        }
    }

    /// What must hold for the items together; gives their interval.
    pub(super) fn check_items(&self, subscription: &Subscription) -> Result<Interval, ApiError> {
        let prices: Vec<&Price> = subscription.items.iter().map(|item| self.price_of(item)).collect();
        let Some(first) = prices.first() else {
            return Err(ApiError::refused(
                "A subscription must have at least one active plan. To cancel it, use the cancel endpoint.",
            )
            .param("items"));
        };
        if prices.len() > ITEMS_MAX {
            return Err(
                ApiError::refused(format!("A subscription can have at most {ITEMS_MAX} items.")).param("items"),
            );
        }
        for (index, price) in prices.iter().enumerate() {
            if prices[..index].iter().any(|other| other.id == price.id) {
                return Err(ApiError::refused(format!(
                    "Cannot add multiple subscription items with the same plan: {}",
                    price.id
                ))
                .param("items"));
            }
            if price.currency != first.currency {
                return Err(
                    ApiError::refused("All prices of a subscription must have the same currency.").param("items"),
                );
            }
        }
        let interval_of = |price: &Price| price.recurring.as_ref().map(|recurring| recurring.interval);
        let interval = interval_of(first);
        match interval {
            Some(interval) if prices.iter().all(|price| interval_of(price) == Some(interval)) => Ok(interval),
            _ => Err(ApiError::refused(
                "All prices on a subscription must have the same `recurring.interval` and `recurring.interval_count`. If you meant to \
                 update an existing subscription item instead of creating a new one, make sure to include the subscription item ID in your request.",
            )
            .param("items")),
        }
    }

    /// The credit for the rest of the period at an item's flat price.
    pub(super) fn unused_time(
        &mut self,
        subscription: &Subscription,
        item: &Item,
        interval: Interval,
        when: i64,
    ) -> Option<Line> {
        self.part_of_period(subscription, item, interval, when, "Unused time on", -1)
    }

    /// The charge for the rest of the period at an item's flat price.
    pub(super) fn remaining_time(
        &mut self,
        subscription: &Subscription,
        item: &Item,
        interval: Interval,
        when: i64,
    ) -> Option<Line> {
        self.part_of_period(subscription, item, interval, when, "Remaining time on", 1)
    }

    /// "We prorate to the second": the part of the item's amount that the rest of the period is of the whole interval.
    pub(super) fn part_of_period(
        &mut self,
        subscription: &Subscription,
        item: &Item,
        interval: Interval,
        when: i64,
        what: &str,
        sign: i64,
    ) -> Option<Line> {
        let price = self.price_of(item);
        let rest = subscription.period.1 - when;
        if price.meter().is_some() || subscription.status == Status::Trialing || rest <= 0 {
            return None;
        }
        let lines = self.advance_lines(item, (when, subscription.period.1));
        let amount = lines.iter().fold(0i64, |sum, line| sum.saturating_add(line.amount));
        // The interval that ends with this period: a first period may be shorter than it.
        let whole = interval.cycle(subscription.anchor, subscription.period.1 - 1);
        let name = &self.catalog.product_of(price).name;
        let quantity = item.quantity.unwrap_or(1);
        let counted = if quantity == 1 {
            name.clone()
        } else {
            format!("{quantity} × {name}")
        };
        Some(Line {
            amount: sign * prorate(amount, rest, whole.1 - whole.0),
            quantity,
            description: format!("{what} {counted} after {}", day_name(when)),
            price: item.price.clone(),
            product: price.product.clone(),
            unit: None,
            period: (when, subscription.period.1),
            item: item.id.clone(),
            invoice_item: Some(self.ids.mint(Kind::InvoiceItem)),
            proration: true,
        })
    }

    /// The invoice item "that bills for previously reported metered usage when you remove a metered price". It is fixed now: usage
    /// with an earlier timestamp that is reported later is not billed.
    pub(super) fn used_until_now(&mut self, subscription: &Subscription, item: &Item, at: i64) -> Vec<Line> {
        let Some(usage) = subscription.usage(item, at) else {
            return Vec::new();
        };
        let mut lines = self.usage_lines(&subscription.customer, &usage, i64::MAX);
        for line in &mut lines {
            line.invoice_item = Some(self.ids.mint(Kind::InvoiceItem));
        }
        lines
    }
}

pub(super) fn take_changes(params: &mut Params) -> Result<Vec<(Change, String)>, ApiError> {
    let items = params.levels("items")?.unwrap_or_default();
    items.into_iter().map(Change::take).collect()
}

/// Prorations may be computed for another moment of the present period, such as that of a preview.
pub(super) fn check_proration_date(subscription: &Subscription, date: Option<i64>, at: i64) -> Result<i64, ApiError> {
    let (start, end) = subscription.period;
    match date {
        Some(date) if !(start..=end).contains(&date) => Err(ApiError::invalid(
            "proration_date",
            "Invalid timestamp: must be within the current subscription period.",
        )),
        Some(date) => Ok(date),
        None => Ok(at),
    }
}
