//! The plan id, which names prices in Stripe: what is in it, what is not, and that it stays as it is.

use std::collections::{BTreeMap, BTreeSet};

use farebox_core::money::{Currency, Money, UnitAmount};
use farebox_core::tiers::{
    AtQuota, Catalog, Interval, Limit, Overrides, PastDue, PlanId, PlanIdError, PriceMode, Step, Terms, UsagePrice,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use sha2::{Digest, Sha256};

const EXAMPLE: &str = include_str!("fixtures/tiers.yaml");
const FULL: &str = include_str!("fixtures/full.yaml");

fn terms(text: &str, tier: &str) -> Terms {
    let catalog = Catalog::from_yaml(text, "tiers.yaml").unwrap_or_else(|errors| panic!("{errors}"));
    catalog.terms(tier, &Overrides::default()).unwrap()
}

/// Prices in Stripe are found by these: a change here leaves every subscription on prices that nobody finds any more.
#[test]
fn plan_ids_never_change() {
    for (text, tier, plan) in [
        (EXAMPLE, "free", "free-f6fd6c1f"),
        (EXAMPLE, "pro", "pro-e3ac5a52"),
        (FULL, "start", "start-de4d381f"),
        (FULL, "team", "team-58d53df2"),
        (FULL, "big", "big-bb1cfbd6"),
    ] {
        assert_eq!(terms(text, tier).plan().as_str(), plan);
    }
}

#[test]
fn a_plan_id_is_the_hash_of_the_documented_text() {
    let documented = "farebox plan 1\ntier pro\ncurrency usd\nbase 4900 month\n\
                      meter api_calls included 50000 graduated\nstep 50000 0 0\nstep inf 0.2 0\n";
    let hash: String = Sha256::digest(documented)
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(terms(EXAMPLE, "pro").plan().to_string(), format!("pro-{hash}"));
    let documented = "farebox plan 1\ntier team\ncurrency usd\nbase 4950 month\n\
                      meter api_calls included 50000 graduated\nstep 50000 0 0\nstep 100000 0.2 0\nstep inf 0.1 500\n\
                      meter tokens included 0 volume\nstep 1000000 0.01 0\nstep inf 0.005 0\n";
    let hash: String = Sha256::digest(documented)
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(terms(FULL, "team").plan().to_string(), format!("team-{hash}"));
}

#[test]
fn names_in_stripe_hold_the_meter_and_the_plan() {
    let plan: PlanId = "pro-0123abcd".parse().unwrap();
    assert_eq!(plan.event_name("api_calls"), "farebox_api_calls_pro-0123abcd");
    assert_eq!(plan.base_lookup_key(), "farebox_base_pro-0123abcd");
    assert_eq!(serde_json::to_string(&plan).unwrap(), r#""pro-0123abcd""#);
    assert_eq!(serde_json::from_str::<PlanId>(r#""pro-0123abcd""#).unwrap(), plan);
    for bad in ["", "Pro-1", "pro 1", "pro#1", "pro.1", "é", &"a".repeat(42)] {
        assert_eq!(bad.parse::<PlanId>(), Err(PlanIdError), "{bad:?}");
        assert!(serde_json::from_str::<PlanId>(&format!("{bad:?}")).is_err());
    }
}

/// Stripe takes at most 100 characters in an event name.
#[test]
fn the_longest_names_that_a_file_takes_fit_stripe() {
    let file = |tier: &str, meter: &str| {
        format!(
            "meters: {{{meter}: [/v1/x]}}\ntiers:\n  {tier}: {{price: 0, included_calls: {{api_calls: 1, {meter}: 1}}, \
             rate_limit: 1/s, endpoints: [/v1/*]}}\n"
        )
    };
    let (tier, meter) = ("t".repeat(32), "m".repeat(20));
    let plan = terms(&file(&tier, &meter), &tier).plan();
    assert_eq!(plan.as_str().parse::<PlanId>().as_ref(), Ok(&plan));
    assert_eq!(plan.as_str().len(), 41);
    assert_eq!(plan.event_name(&meter).len(), 70);
    assert!(plan.event_name(&meter).len() <= 100 && plan.base_lookup_key().len() <= 200);
    assert!(Catalog::from_yaml(&file(&format!("{tier}t"), &meter), "f").is_err());
    assert!(Catalog::from_yaml(&file(&tier, &format!("{meter}m")), "f").is_err());
    // A meter of this name would share the base price's lookup key.
    let errors = Catalog::from_yaml(&file("pro", "base"), "f").unwrap_err().to_string();
    assert_eq!(
        errors,
        "f:1: meters.base is not a meter's name: the tier's own price is called so in Stripe"
    );
}

/// Without the tier in the hash, `b_c` with the meter `a` would have the name of `c` with the meter `a_b`.
#[test]
fn no_two_tiers_and_meters_share_a_name() {
    let file = "meters: {a: [/v1/a], a_b: [/v1/b]}\ntiers:\n  \
        b_c: &t {price: 5, included_calls: 10/month, rate_limit: 1/s, endpoints: [/v1/x], overage: {a: 1, a_b: 1, api_calls: 1}}\n  c: *t\n";
    let (one, other) = (terms(file, "b_c").plan(), terms(file, "c").plan());
    let hash = |plan: &PlanId| plan.as_str().rsplit('-').next().unwrap().to_owned();
    assert_ne!(hash(&one), hash(&other));
    assert_ne!(one.event_name("a"), other.event_name("a_b"));
}

#[test]
fn the_metered_price_is_what_the_usage_costs() {
    let pro = terms(EXAMPLE, "pro");
    let price = pro.stripe_price("api_calls");
    assert_eq!(price.mode, PriceMode::Graduated);
    let steps = |steps: &[Step]| -> Vec<(Option<u64>, String, u64)> {
        let steps = steps.iter();
        steps
            .map(|step| (step.up_to, step.unit.to_string(), step.flat.0))
            .collect()
    };
    assert_eq!(
        steps(&price.steps),
        [(Some(50_000), "0".to_owned(), 0), (None, "0.2".to_owned(), 0)]
    );
    let team = terms(FULL, "team");
    assert_eq!(team.stripe_price("tokens").mode, PriceMode::Volume);
    assert_eq!(team.stripe_price("tokens").steps.len(), 2);
    assert_eq!(team.stripe_price("api_calls").mode, PriceMode::Graduated);
    // Nothing is billed: one price for every unit, whatever is included.
    for terms in [terms(EXAMPLE, "free"), terms(FULL, "start")] {
        let price = terms.stripe_price("api_calls");
        assert_eq!(price.mode, PriceMode::PerUnit);
        assert_eq!(steps(&price.steps), [(None, "0".to_owned(), 0)]);
    }
    // Nothing is included: every unit costs the same.
    let tokens = terms(FULL, "big").stripe_price("tokens");
    assert_eq!(tokens.mode, PriceMode::PerUnit);
    assert_eq!(steps(&tokens.steps), [(None, "0.001".to_owned(), 0)]);
}

#[test]
fn every_meter_is_named_once() {
    assert_eq!(terms(EXAMPLE, "pro").meters(), ["api_calls"]);
    assert_eq!(terms(FULL, "team").meters(), ["api_calls", "tokens"]);
    let mut terms = terms(EXAMPLE, "pro");
    terms.included = BTreeMap::from([("z".to_owned(), None)]);
    terms.overage = BTreeMap::from([("b".to_owned(), UsagePrice::PerUnit(UnitAmount::default()))]);
    terms.spend_cap = BTreeMap::from([("z".to_owned(), Money(1)), ("a".to_owned(), Money(1))]);
    assert_eq!(terms.meters(), ["a", "api_calls", "b", "z"]);
}

// ---- any terms

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((1u64..1000, any::<u64>(), 0u64..3), 1..4).prop_map(|parts| {
        let last = parts.len() - 1;
        let mut bound = 10_000;
        let steps = parts.into_iter().enumerate().map(|(index, (length, pico, flat))| {
            bound += length;
            Step {
                up_to: (index < last).then_some(bound),
                unit: UnitAmount { pico },
                flat: Money(flat),
            }
        });
        steps.collect()
    })
}

fn usage_price() -> impl Strategy<Value = UsagePrice> {
    prop_oneof![
        any::<u64>().prop_map(|pico| UsagePrice::PerUnit(UnitAmount { pico })),
        steps().prop_map(UsagePrice::Graduated),
        steps().prop_map(UsagePrice::Volume),
    ]
}

fn any_terms() -> impl Strategy<Value = Terms> {
    let meter = || select(vec!["api_calls".to_owned(), "tokens".to_owned(), "bytes".to_owned()]);
    let overage = prop::collection::btree_map(meter(), usage_price(), 0..3);
    let included = prop::collection::btree_map(meter(), 0u64..10_000, 0..3);
    let template = terms(FULL, "team");
    (any::<u64>(), any::<bool>(), included, overage).prop_map(move |(amount, is_year, included, overage)| {
        let mut terms = template.clone();
        terms.price.amount = Money(amount);
        terms.price.interval = if is_year { Interval::Year } else { Interval::Month };
        terms.included = included
            .into_iter()
            .map(|(meter, units)| (meter, Some(units)))
            .collect();
        terms.overage = overage;
        // Nothing is included in what is priced by volume.
        for (meter, price) in &terms.overage {
            if matches!(price, UsagePrice::Volume(_)) {
                terms.included.insert(meter.clone(), Some(0));
            }
        }
        terms
    })
}

#[derive(Clone, Debug)]
enum MoneyChange {
    Tier,
    Currency,
    Amount(u64),
    Interval,
    Included(Index, u64),
    Unit(Index, Index, u64),
    Flat(Index, Index),
    Bound(Index, Index),
    Mode(Index),
    AddStep(Index),
    AddMeter(u64),
    RemoveMeter(Index),
}

fn money_change() -> impl Strategy<Value = MoneyChange> {
    let at = any::<Index>;
    prop_oneof![
        Just(MoneyChange::Tier),
        Just(MoneyChange::Currency),
        (1u64..1000).prop_map(MoneyChange::Amount),
        Just(MoneyChange::Interval),
        (at(), 1u64..1000).prop_map(|(meter, more)| MoneyChange::Included(meter, more)),
        (at(), at(), 1u64..1000).prop_map(|(meter, step, more)| MoneyChange::Unit(meter, step, more)),
        (at(), at()).prop_map(|(meter, step)| MoneyChange::Flat(meter, step)),
        (at(), at()).prop_map(|(meter, step)| MoneyChange::Bound(meter, step)),
        at().prop_map(MoneyChange::Mode),
        at().prop_map(MoneyChange::AddStep),
        any::<u64>().prop_map(MoneyChange::AddMeter),
        at().prop_map(MoneyChange::RemoveMeter),
    ]
}

fn steps_of(price: &mut UsagePrice) -> Option<&mut Vec<Step>> {
    match price {
        UsagePrice::PerUnit(_) => None,
        UsagePrice::Graduated(steps) | UsagePrice::Volume(steps) => Some(steps),
    }
}

/// Changes the terms; `None` where they have nothing to change.
fn change_money(terms: &Terms, change: MoneyChange) -> Option<Terms> {
    let mut terms = terms.clone();
    let meters: Vec<String> = terms.overage.keys().cloned().collect();
    let priced = |meter: Index| (!meters.is_empty()).then(|| meters[meter.index(meters.len())].clone());
    match change {
        MoneyChange::Tier => terms.tier.push('2'),
        MoneyChange::Currency => terms.currency = "eur".parse().unwrap(),
        MoneyChange::Amount(more) => terms.price.amount.0 = terms.price.amount.0.wrapping_add(more),
        MoneyChange::Interval => {
            terms.price.interval = match terms.price.interval {
                Interval::Month => Interval::Year,
                Interval::Year => Interval::Month,
            };
        }
        MoneyChange::Included(meter, more) => {
            let units = terms.included.entry(priced(meter)?).or_insert(Some(0));
            *units = units.map(|units| units + more);
        }
        MoneyChange::Unit(meter, step, more) => {
            let unit = match terms.overage.get_mut(&priced(meter)?)? {
                UsagePrice::PerUnit(unit) => unit,
                UsagePrice::Graduated(steps) | UsagePrice::Volume(steps) => {
                    let step = step.index(steps.len());
                    &mut steps[step].unit
                }
            };
            unit.pico = unit.pico.wrapping_add(more);
        }
        MoneyChange::Flat(meter, step) => {
            let steps = steps_of(terms.overage.get_mut(&priced(meter)?)?)?;
            let step = step.index(steps.len());
            steps[step].flat.0 += 1;
        }
        MoneyChange::Bound(meter, step) => {
            let steps = steps_of(terms.overage.get_mut(&priced(meter)?)?)?;
            let step = step.index(steps.len());
            *steps[step].up_to.as_mut()? += 100_000;
        }
        MoneyChange::Mode(meter) => {
            let price = terms.overage.get_mut(&priced(meter)?)?;
            *price = match price.clone() {
                // One price for every unit is the same in every mode.
                UsagePrice::Graduated(steps) if steps.len() > 1 => UsagePrice::Volume(steps),
                UsagePrice::Volume(steps) if steps.len() > 1 => UsagePrice::Graduated(steps),
                _ => return None,
            };
        }
        MoneyChange::AddStep(meter) => {
            let steps = steps_of(terms.overage.get_mut(&priced(meter)?)?)?;
            let first = *steps.first()?;
            steps.insert(
                0,
                Step {
                    up_to: Some(10_000),
                    ..first
                },
            );
        }
        MoneyChange::AddMeter(pico) => {
            let price = UsagePrice::PerUnit(UnitAmount { pico });
            terms.overage.insert("images".to_owned(), price);
        }
        MoneyChange::RemoveMeter(meter) => {
            terms.overage.remove(&priced(meter)?)?;
        }
    }
    Some(terms)
}

/// Everything that costs nothing, changed at once or in part.
fn change_others(terms: &Terms, which: &BTreeSet<u8>, number: u32) -> Terms {
    let mut terms = terms.clone();
    for which in which {
        match which {
            0 => {
                terms.limits = vec![Limit {
                    units: number.into(),
                    window_ms: 1000,
                }]
            }
            1 => terms.at_quota = AtQuota::Block,
            2 => terms.spend_cap = BTreeMap::from([("api_calls".to_owned(), Money(number.into()))]),
            3 => terms.cap_units.clear(),
            4 => terms.shards = number,
            5 => terms.warn_percent = 1,
            6 => terms.alert_percents = vec![1],
            7 => {
                terms.past_due = PastDue {
                    grace_s: number.into(),
                    ..PastDue::default()
                }
            }
            8 => terms.groups.clear(),
            9 => terms.trial_days = number,
            10 => terms.support = Some(number.to_string()),
            11 => terms.sla = None,
            // What is included on a meter without a price costs nothing.
            _ => {
                let free = ["api_calls", "tokens", "bytes", "images"];
                for meter in free.into_iter().filter(|meter| !terms.overage.contains_key(*meter)) {
                    let units = number.is_multiple_of(2).then_some(number.into());
                    terms.included.insert(meter.to_owned(), units);
                }
            }
        }
    }
    terms
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_change_of_money_is_another_plan(terms in any_terms(), change in money_change()) {
        if let Some(changed) = change_money(&terms, change) {
            prop_assert_ne!(changed.plan(), terms.plan());
        }
    }

    #[test]
    fn a_change_of_anything_else_is_the_same_plan(
        terms in any_terms(), which in prop::collection::btree_set(0u8..=12, 1..13), number in any::<u32>()
    ) {
        prop_assert_eq!(change_others(&terms, &which, number).plan(), terms.plan());
    }

    #[test]
    fn terms_of_one_plan_cost_the_same(one in any_terms(), change in money_change(), units in 0u64..30_000) {
        let Some(other) = change_money(&one, change) else { return Ok(()) };
        let same_prices = one.meters().iter().chain(&other.meters()).all(|meter| {
            one.stripe_price(meter) == other.stripe_price(meter)
        });
        if one.plan() == other.plan() {
            prop_assert!(same_prices);
        }
        if same_prices {
            for meter in one.meters() {
                prop_assert_eq!(one.usage_amount(&meter, units), other.usage_amount(&meter, units));
            }
        }
    }

    #[test]
    fn a_plan_reads_back(terms in any_terms()) {
        let plan = terms.plan();
        prop_assert_eq!(plan.as_str().parse::<PlanId>(), Ok(plan.clone()));
        prop_assert_eq!(terms.currency, Currency::USD);
        let json = serde_json::to_string(&plan).unwrap();
        prop_assert_eq!(serde_json::from_str::<PlanId>(&json).unwrap(), plan);
    }
}

/// The mode of the price that is made in Stripe, where each is another kind of object.
#[test]
fn a_price_is_plain_only_if_it_has_one_step_without_bound_and_flat_amount() {
    let step = |up_to, flat| Step {
        up_to,
        unit: "0.2".parse().unwrap(),
        flat: Money(flat),
    };
    let mode = |price: UsagePrice, included: Option<u64>| {
        let mut terms = terms(EXAMPLE, "pro");
        terms.overage = [("api_calls".to_owned(), price)].into();
        terms.included = [("api_calls".to_owned(), included)].into();
        terms.stripe_price("api_calls").mode
    };
    assert_eq!(
        mode(UsagePrice::PerUnit("0.2".parse().unwrap()), Some(0)),
        PriceMode::PerUnit
    );
    assert_eq!(
        mode(UsagePrice::PerUnit("0.2".parse().unwrap()), Some(5)),
        PriceMode::Graduated
    );
    assert_eq!(
        mode(UsagePrice::Graduated(vec![step(None, 0)]), Some(0)),
        PriceMode::PerUnit
    );
    assert_eq!(
        mode(UsagePrice::Graduated(vec![step(None, 500)]), Some(0)),
        PriceMode::Graduated
    );
    assert_eq!(
        mode(UsagePrice::Volume(vec![step(None, 500)]), Some(0)),
        PriceMode::Volume
    );
    assert_eq!(
        mode(UsagePrice::Volume(vec![step(Some(9), 0), step(None, 0)]), Some(0)),
        PriceMode::Volume
    );
    assert_eq!(
        mode(UsagePrice::Volume(vec![step(Some(9), 0), step(None, 0)]), None),
        PriceMode::PerUnit,
        "all of it is free"
    );
}

#[test]
fn a_step_that_ends_with_the_included_units_is_left_out() {
    let unit = |text: &str| text.parse().unwrap();
    let price = UsagePrice::Graduated(vec![
        Step {
            up_to: Some(100),
            unit: unit("0.3"),
            flat: Money(0),
        },
        Step {
            up_to: None,
            unit: unit("0.2"),
            flat: Money(0),
        },
    ]);
    let ends = |included| -> Vec<Option<u64>> {
        price
            .stripe_tiers(Some(included))
            .iter()
            .map(|step| step.up_to)
            .collect()
    };
    assert_eq!(ends(99), [Some(99), Some(100), None]);
    assert_eq!(ends(100), [Some(100), None], "Stripe refuses two tiers with one bound");
    assert_eq!(ends(101), [Some(101), None]);
}
