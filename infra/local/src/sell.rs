//! Selling a tier, as the operator would: what Stripe needs, the customer in both places, and a key.

use std::collections::HashMap;

use farebox_aws::control::{Control, NewCustomer, NewKey};
use farebox_core::{
    account::Customer,
    id::CustomerId,
    key::Mode,
    tiers::{Catalog, Interval, Overrides, Terms, UsagePrice},
    time::{Cycle, Period, Timestamp},
};
use farebox_stripe::{Client, PriceStep, TiersMode, UsagePriceSpec};

use crate::Error;

/// The brand in front of local keys.
const BRAND: &str = "fb";

/// A customer just sold to.
pub struct Sold {
    /// The customer.
    pub customer: Customer,
    /// Its key, to be shown once.
    pub key: String,
}

/// Sells a tier: meters, product and prices where they are missing, the customer, its subscription, its counter items and
/// a key. Every step names itself to Stripe, so that selling again after a crash doubles nothing.
///
/// # Errors
/// [`Error`] at the first step that fails; selling again goes on from there.
pub async fn sell(
    control: &Control,
    stripe: &Client,
    catalog: (u64, &Catalog),
    id: &CustomerId,
    tier: &str,
    overrides: Overrides,
    now: Timestamp,
) -> Result<Sold, Error> {
    let (version, catalog) = catalog;
    let terms = catalog.terms(tier, &overrides).map_err(Error::refused)?;
    let customer = match control.accounts.customer(id).await? {
        Some(customer) => customer,
        None => {
            // A tier's own prices are shared; what was agreed with one customer has prices of its own.
            let name = if overrides == Overrides::default() {
                format!("{tier}-v{version}")
            } else {
                format!("{id}-v{version}")
            };
            let prices = prices(stripe, catalog, &terms, &name).await?;
            let prices: Vec<&str> = prices.iter().map(String::as_str).collect();
            let step = |what: &str| format!("farebox-{id}-{what}");
            let metadata = HashMap::from([("farebox_customer".to_owned(), id.to_string())]);
            let in_stripe = stripe
                .create_customer(id.as_str(), None, metadata.clone(), &step("customer"))
                .await?;
            let trial = catalog.tier(tier).map(|tier| tier.trial_days).filter(|&days| days > 0);
            let subscription = stripe
                .create_subscription(&in_stripe.id, &prices, trial, metadata, &step("subscription"))
                .await?;
            let no_period = || Error::Refused("the subscription has no items".to_owned());
            let item = subscription.items.first().ok_or_else(no_period)?;
            let second = |s: i64| u64::try_from(s).unwrap_or(0);
            let new = NewCustomer {
                id: id.clone(),
                name: id.to_string(),
                tier: tier.to_owned(),
                catalog: version,
                overrides,
                cycle: Cycle {
                    anchor: second(subscription.billing_cycle_anchor),
                    interval: terms.price.interval,
                    current: Period {
                        start: second(item.current_period_start),
                        end: second(item.current_period_end),
                    },
                },
                stripe_customer: Some(in_stripe.id),
                stripe_subscription: Some(subscription.id),
            };
            control.add_customer(new, now).await?
        }
    };
    let new = NewKey {
        brand: BRAND.to_owned(),
        mode: Mode::Test,
        name: "first key".to_owned(),
        scopes: Vec::new(),
        expires: None,
    };
    let issued = control.issue_key(id, new, now).await?;
    Ok(Sold {
        customer,
        key: issued.key.reveal().to_owned(),
    })
}

/// The prices of a tier in Stripe: the base price, and one metered price for each meter that it names.
async fn prices(stripe: &Client, catalog: &Catalog, terms: &Terms, name: &str) -> Result<Vec<String>, Error> {
    let currency = catalog.currency.code();
    let interval = match terms.price.interval {
        Interval::Month => farebox_stripe::Interval::Month,
        Interval::Year => farebox_stripe::Interval::Year,
    };
    let key = |what: &str| format!("farebox-{name}-{what}");
    let base = key("base");
    if let Some(price) = stripe.find_price(&base).await? {
        // The base price is made last: it being there means that all of them are.
        let mut prices = vec![price.id];
        for meter in meters(terms) {
            prices.extend(stripe.find_price(&key(&meter)).await?.map(|price| price.id));
        }
        return Ok(prices);
    }
    let metadata = HashMap::from([("farebox_tier".to_owned(), terms.tier.clone())]);
    let product = stripe.create_product(name, metadata, &key("product")).await?;
    let mut prices = Vec::new();
    for meter in meters(terms) {
        let in_stripe = match stripe.find_meter(&meter).await? {
            Some(meter) => meter,
            None => {
                stripe
                    .create_meter(&meter, &meter, &format!("farebox-meter-{meter}"))
                    .await?
            }
        };
        let spec = price_spec(terms, &meter);
        let made = stripe
            .create_metered_price(
                &product.id,
                currency,
                interval,
                &in_stripe.id,
                &spec,
                &key(&meter),
                &key(&meter),
            )
            .await?;
        prices.push(made.id);
    }
    let flat = stripe
        .create_flat_price(&product.id, currency, terms.price.amount.0, interval, &base, &base)
        .await?;
    prices.insert(0, flat.id);
    Ok(prices)
}

fn meters(terms: &Terms) -> Vec<String> {
    let mut meters: Vec<String> = terms.included.keys().chain(terms.overage.keys()).cloned().collect();
    meters.sort();
    meters.dedup();
    meters
}

fn price_spec(terms: &Terms, meter: &str) -> UsagePriceSpec {
    let free = UsagePriceSpec::PerUnit {
        unit_amount_decimal: "0".to_owned(),
    };
    let Some(price) = terms.overage.get(meter) else {
        return free;
    };
    let mode = match price {
        UsagePrice::Volume(_) => TiersMode::Volume,
        UsagePrice::PerUnit(_) | UsagePrice::Graduated(_) => TiersMode::Graduated,
    };
    let steps: Vec<PriceStep> = price
        .stripe_tiers(terms.included_units(meter))
        .into_iter()
        .map(|step| PriceStep {
            up_to: step.up_to,
            unit_amount_decimal: step.unit.to_string(),
            flat_amount: (step.flat.0 > 0).then_some(step.flat.0),
        })
        .collect();
    UsagePriceSpec::Tiered { mode, steps }
}
