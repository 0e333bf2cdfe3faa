//! What a new catalog changes, as people read it before they let it hold.

use std::sync::LazyLock;

use farebox_core::tiers::{Catalog, Custom, Overrides, Tier, TierChange, TierChangeKind};
use proptest::prelude::*;
use proptest::sample::{Index, select};

const EXAMPLE: &str = include_str!("fixtures/tiers.yaml");
const FULL: &str = include_str!("fixtures/full.yaml");

fn load(text: &str) -> Catalog {
    Catalog::from_yaml(text, "tiers.yaml").unwrap_or_else(|errors| panic!("{errors}"))
}

fn diff(old: &str, new: &str) -> Vec<TierChange> {
    load(old).diff(&load(new))
}

fn told(changes: &[TierChange]) -> String {
    let lines: Vec<String> = changes
        .iter()
        .flat_map(|change| {
            let mark = if change.is_money { "$ " } else { "  " };
            change.sentences.iter().map(move |sentence| format!("{mark}{sentence}"))
        })
        .collect();
    lines.join("\n")
}

#[test]
fn the_same_file_changes_nothing() {
    assert_eq!(diff(EXAMPLE, EXAMPLE), []);
    assert_eq!(diff(FULL, FULL), []);
    // Spelled differently.
    let respelled = FULL
        .replace("$49.50/month", "49.5")
        .replace("60/min", "60/60s")
        .replace("[90%, 50, 1000]", "[50, 90, 1000%]")
        .replace("$0.002", "0.0020");
    assert_ne!(respelled, FULL);
    assert_eq!(diff(FULL, &respelled), []);
}

#[test]
fn each_field_has_its_sentence() {
    for (old, new, sentence) in [
        // Money: the plan is another one.
        (
            "price: $49.50/month",
            "price: 59/month",
            "$ team: price 49.50/month → 59/month",
        ),
        (
            "api_calls: 50000/month",
            "api_calls: 60000/month",
            "$ team: included.api_calls 50000 → 60000",
        ),
        (
            "{unit: $0.001, flat: $5}",
            "{unit: $0.001, flat: $6.50}",
            "$ team: overage.api_calls {graduated: [{up_to: 100000, unit: 0.002}, {unit: 0.001, flat: 5}]} → \
             {graduated: [{up_to: 100000, unit: 0.002}, {unit: 0.001, flat: 6.50}]}",
        ),
        (
            "{volume: [{up_to: 1000000, unit: 0.0001}, {unit: 0.00005}]}",
            "0.0001",
            "$ team: overage.tokens {volume: [{up_to: 1000000, unit: 0.0001}, {unit: 0.00005}]} → 0.0001/unit",
        ),
        (
            "currency: usd",
            "currency: cad",
            "$ start: currency usd → cad\n$ team: currency usd → cad\n$ big: currency usd → cad",
        ),
        // Not money.
        (
            "tokens: \"5,000/month\"",
            "tokens: unlimited",
            "  start: included.tokens 5000 → unlimited",
        ),
        (
            "[60/min, 5/10s]",
            "100/min",
            "  start: limits [60/min, 5/10s] → 100/min",
        ),
        (
            "[60/min, 5/10s]",
            "unlimited",
            "  start: limits [60/min, 5/10s] → unlimited",
        ),
        (
            "- GET /v1/items/{id}/notes",
            "- GET /v1/notes",
            "  start: endpoints + GET /v1/notes\n  start: endpoints - GET /v1/items/*/notes",
        ),
        (
            "at_quota: throttle(5/min)",
            "at_quota: block",
            "  start: at_quota throttle(5/min) → block",
        ),
        (
            "past_due: block after 0d",
            "past_due: throttle(1/s)",
            "  start: past_due block after 0d → throttle(1/s) after 7d",
        ),
        (
            "past_due: block after 0d",
            "past_due: keep",
            "  start: past_due block after 0d → keep",
        ),
        (
            "support: community",
            "support: email",
            "  start: support community → email",
        ),
        (
            "sla: 99.9%",
            "support: email",
            "  team: support none → email\n  team: sla 99.9% → none",
        ),
        (
            "spend_cap: {api_calls: $100/month, tokens: \"$1,000\"}",
            "spend_cap: {tokens: $10.50}",
            "  team: spend_cap.api_calls 100 → none\n  team: spend_cap.tokens 1000 → 10.50",
        ),
        ("trial_days: 14", "trial_days: 0", "  team: trial_days 14 → 0"),
        (
            "trial_days: 14\n    shards: 2",
            "trial_days: 14\n    shards: 1",
            "  team: shards 2 → 1",
        ),
        (
            "weights: {POST /v1/generate: 20}",
            "weights: {POST /v1/generate: 30, POST /v1/x: 3}",
            "  team: weights POST /v1/generate: 20 → 30\n  team: weights + POST /v1/x: 3",
        ),
        ("warn_at: 75%", "warn_at: 90", "  team: warn_at 75% → 90%"),
        (
            "alerts_at: [90%, 50, 1000]",
            "alerts_at: []",
            "  team: alerts_at [50, 90, 1000] → []",
        ),
        (
            "rate_limit: 5/s\n        included_calls: 100/month",
            "rate_limit: 6/s",
            "  team: groups.search.limits 5/s → 6/s\n  team: groups.search.included 100 → unlimited",
        ),
        (
            "endpoints: /v1/reports/*\n",
            "endpoints: [/v1/reports/*, /v1/logs]\n",
            "  team: groups.slow.endpoints + /v1/logs",
        ),
        (
            "throttle( 2/min )",
            "block",
            "  team: groups.slow.at_quota throttle(2/min) → block",
        ),
        (
            "      slow:\n",
            "      slower:\n",
            "  team: groups + slower: included 10, limits unlimited, endpoints [/v1/reports/*], at_quota throttle(2/min)\n  \
             team: groups - slow",
        ),
        // The file as a whole.
        (
            "  POST /v1/generate/short: 5",
            "  POST /v1/generate/short: 6",
            "  weights POST /v1/generate/short: 5 → 6",
        ),
        (
            "  POST /v1/generate/short: 5\n",
            "",
            "  weights - POST /v1/generate/short: 5",
        ),
        (
            "    - POST /v1/generate/*\n",
            "",
            "  meters - POST /v1/generate/*: tokens",
        ),
    ] {
        assert_eq!(FULL.matches(old).count(), 1, "{old}");
        let edited = FULL.replace(old, new);
        assert_eq!(told(&diff(FULL, &edited)), sentence, "{new}");
        assert_ne!(diff(&edited, FULL), [], "{new}");
    }
}

#[test]
fn the_example_grows() {
    let new = "\
tiers:
  free: {price: 0, included_calls: 1000/month, rate_limit: 10/min, endpoints: [/v1/basic/*, GET /v1/x], support: community}
  enterprise: {price: custom, included_calls: {api_calls: 1000000}, rate_limit: custom, endpoints: [/v1/*, /v1/admin/*], support: dedicated, sla: 99.9%}
  max: {price: 490/year, included_calls: unlimited, rate_limit: [100/min, 5/s], endpoints: [/v1/*]}
";
    let changes = diff(EXAMPLE, new);
    assert_eq!(
        told(&changes),
        "  free: endpoints + GET /v1/x
  enterprise: included custom → 1000000
$ max: added: price 490/year, included unlimited, limits [100/min, 5/s], endpoints [/v1/*]
$ pro: removed"
    );
    let kinds: Vec<_> = changes
        .iter()
        .map(|change| (change.tier.as_str(), change.kind))
        .collect();
    assert_eq!(
        kinds,
        [
            ("free", TierChangeKind::Changed),
            ("enterprise", TierChangeKind::Changed),
            ("max", TierChangeKind::Added),
            ("pro", TierChangeKind::Removed)
        ]
    );
    assert_eq!(changes[0].to_string(), "free: endpoints + GET /v1/x");
    let dearer = EXAMPLE.replace("49/month", "59/month").replace("100/min", "200/min");
    assert_eq!(
        told(&diff(EXAMPLE, &dearer)),
        "$ pro: price 49/month → 59/month\n$ pro: limits 100/min → 200/min"
    );
    let usage = EXAMPLE.replace("$0.002/call", "$0.0015/call, spend_cap: $100");
    assert_eq!(
        told(&diff(EXAMPLE, &usage)),
        "$ pro: overage 0.002/call → 0.0015/call\n$ pro: spend_cap none → 100"
    );
}

#[test]
fn the_order_of_tiers_is_a_change_of_the_file() {
    let mut swapped = load(EXAMPLE);
    swapped.tiers.swap(0, 1);
    let changes = load(EXAMPLE).diff(&swapped);
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].tier.as_str(), changes[0].kind), ("", TierChangeKind::File));
    assert_eq!(
        told(&changes),
        "  order of tiers free, pro, enterprise → pro, free, enterprise"
    );
}

static CATALOGS: LazyLock<[Catalog; 2]> = LazyLock::new(|| [load(EXAMPLE), load(FULL)]);

/// One field of the tier taken from another tier.
fn take(tier: &mut Tier, from: &Tier, field: u8) {
    match field {
        0 => tier.price = from.price.clone(),
        1 => tier.included = from.included.clone(),
        2 => tier.limits = from.limits.clone(),
        3 => tier.endpoints = from.endpoints.clone(),
        4 => tier.overage = from.overage.clone(),
        5 => tier.at_quota = from.at_quota,
        6 => tier.spend_cap = from.spend_cap.clone(),
        7 => tier.trial_days = from.trial_days,
        8 => tier.shards = from.shards,
        9 => tier.weights = from.weights.clone(),
        10 => tier.warn_percent = from.warn_percent,
        11 => tier.alert_percents = from.alert_percents.clone(),
        12 => tier.past_due = from.past_due,
        13 => tier.groups = from.groups.clone(),
        14 => tier.support = from.support.clone(),
        _ => tier.sla = from.sla.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_change_is_told_exactly_where_something_changed(
        old in select(vec![0usize, 1]),
        takes in prop::collection::vec((any::<Index>(), select(vec![0usize, 1]), any::<Index>(), 0u8..16), 0..6),
    ) {
        let old = &CATALOGS[old];
        let mut new = old.clone();
        for (to, from, index, field) in takes {
            let from = &CATALOGS[from];
            let to = to.index(new.tiers.len());
            take(&mut new.tiers[to], &from.tiers[index.index(from.tiers.len())], field);
        }
        let changes = old.diff(&new);
        for (before, after) in old.tiers.iter().zip(&new.tiers) {
            let change = changes.iter().find(|change| change.tier == before.name);
            prop_assert_eq!(change.is_some(), before != after);
            if let Some(change) = change {
                let own = format!("{}: ", before.name);
                prop_assert!(change.sentences.iter().all(|sentence| sentence.starts_with(&own)));
            }
            // Where both have terms, money is what changes the plan.
            let plan = |catalog: &Catalog| Some(catalog.terms(&before.name, &Overrides::default()).ok()?.plan());
            if let (Some(one), Some(other)) = (plan(old), plan(&new)) {
                prop_assert_eq!(change.is_some_and(|change| change.is_money), one != other);
            }
            if matches!((&before.price, &after.price), (Custom::Fixed(one), Custom::Fixed(other)) if one != other) {
                prop_assert!(change.is_some_and(|change| change.is_money));
            }
        }
    }
}
