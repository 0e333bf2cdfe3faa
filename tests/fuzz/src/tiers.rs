//! What the owner writes: the tiers, and what is agreed with one customer.

use std::sync::LazyLock;

use farebox_core::{
    message::UNITS_MAX,
    money::{MONEY_MAX, Money},
    tiers::{Catalog, Overrides, PlanId, Terms, UsagePrice},
};

use crate::text;

const TIERS: &str = "
tiers:
  free: {price: 0, included_calls: 1000/month, rate_limit: 10/min, endpoints: [/v1/basic/*]}
  deal: {price: custom, included_calls: custom, rate_limit: custom, endpoints: [/v1/*]}
meters: {tokens: [POST /v1/generate]}";

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| match Catalog::from_yaml(TIERS, "tiers.yaml") {
    Ok(catalog) => catalog,
    Err(errors) => panic!("{errors}"),
});

/// A file is refused with its mistakes, or read: then it survives its storage, differs in nothing from itself, and its prices
/// are prices.
pub(crate) fn file(data: &[u8]) {
    let Some(text) = text(data) else { return };
    match Catalog::from_yaml(text, "tiers.yaml") {
        Ok(catalog) => {
            survives(&catalog);
            assert!(catalog.diff(&catalog).is_empty());
            for tier in &catalog.tiers {
                if let Ok(terms) = catalog.terms(&tier.name, &Overrides::default()) {
                    sensible(&terms);
                }
            }
        }
        Err(errors) => {
            assert!((1..=200).contains(&errors.as_slice().len()));
            assert!(!errors.to_string().is_empty());
        }
    }
}

fn survives(catalog: &Catalog) {
    let stored = serde_json::to_string(catalog).unwrap_or_default();
    match serde_json::from_str::<Catalog>(&stored) {
        Ok(read) => assert_eq!(&read, catalog),
        Err(error) => panic!("{error}: {stored}"),
    }
}

/// An agreement in JSON is refused, or makes terms as a file would.
pub(crate) fn overrides(data: &[u8]) {
    let Ok(overrides) = serde_json::from_slice::<Overrides>(data) else {
        return;
    };
    for tier in &CATALOG.tiers {
        if let Ok(terms) = CATALOG.terms(&tier.name, &overrides) {
            sensible(&terms);
        }
    }
}

/// Money only grows with usage where it should, stays below a cap, and never wraps around.
fn sensible(terms: &Terms) {
    let plan = terms.plan();
    assert_eq!(plan.as_str().parse::<PlanId>(), Ok(plan.clone()));
    assert!(terms.price.amount <= MONEY_MAX);
    assert!(terms.limits.iter().all(|limit| limit.units > 0 && limit.window_ms > 0));
    for (meter, price) in &terms.overage {
        assert!(plan.event_name(meter).len() <= 100, "Stripe takes no longer name");
        let included = terms.included.get(meter).copied().unwrap_or(Some(0));
        let counts = [
            0,
            1,
            included.unwrap_or(0),
            included.unwrap_or(0).saturating_add(1),
            1_000_000,
            UNITS_MAX,
        ];
        for units in counts {
            if let (Ok(amount), Ok(more)) = (price.amount(included, units), price.amount(included, units + 1)) {
                assert!(
                    matches!(price, UsagePrice::Volume(_)) || amount <= more,
                    "{units} cost more than one more"
                );
            }
        }
        if included.is_some_and(|included| included > 0) {
            assert_eq!(
                price.amount(included, included.unwrap_or(0)),
                Ok(Money(0)),
                "what is included is free"
            );
        }
    }
    for (meter, cap) in &terms.spend_cap {
        let most = terms.cap_units.get(meter).copied();
        if let Some(most) = most.filter(|most| *most > 0 && *most < u64::MAX) {
            assert!(terms.usage_amount(meter, most).is_ok_and(|amount| amount <= *cap));
            assert!(terms.usage_amount(meter, most + 1).is_ok_and(|amount| amount > *cap) || most >= UNITS_MAX);
        }
    }
}
