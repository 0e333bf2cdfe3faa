//! Properties of the tiers: against slow but obvious versions of the same rules, and against any input at all.

use std::collections::BTreeMap;

use farebox_core::money::{Money, UnitAmount};
use farebox_core::tiers::{
    Access, AtQuota, BasePrice, Catalog, Custom, Group, Interval, Limit, Overrides, PastDue, PastDuePolicy, Pattern,
    Step, UsagePrice,
};
use proptest::prelude::*;
use proptest::sample::select;

const EXAMPLE: &str = include_str!("fixtures/tiers.yaml");
const FULL: &str = include_str!("fixtures/full.yaml");

fn catalog(text: &str) -> Catalog {
    Catalog::from_yaml(text, "tiers.yaml").unwrap()
}

// ---- patterns and access, against every request of a small world

const METHODS: [&str; 3] = ["GET", "POST", "PUT"];
const NAMES: [&str; 3] = ["a", "b", "c"];
const DEPTH: usize = 5;

/// Every method with every path of up to five segments of three names. Patterns have up to three segments and know two
/// of the names, so whatever differs between two of them differs here.
fn world() -> Vec<(&'static str, String)> {
    let mut paths = vec![String::new()];
    let mut last = paths.clone();
    for _ in 0..DEPTH {
        last = last
            .iter()
            .flat_map(|path| NAMES.map(|name| format!("{path}/{name}")))
            .collect();
        paths.extend(last.iter().cloned());
    }
    paths[0] = "/".to_owned();
    METHODS
        .into_iter()
        .flat_map(|method| paths.iter().map(move |path| (method, path.clone())))
        .collect()
}

/// Matches a pattern's text segment by segment.
fn naive_match(pattern: &str, method: &str, path: &str) -> bool {
    let (wanted, pattern) = pattern.split_once(' ').unwrap_or((method, pattern));
    let pattern: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    let path: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    fn rest(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern, path) {
            ([], []) => true,
            (["*"], [_, ..]) => true,
            (["*" | "{x}", pattern @ ..], [_, path @ ..]) => rest(pattern, path),
            ([own, pattern @ ..], [other, path @ ..]) => own == other && rest(pattern, path),
            _ => false,
        }
    }
    wanted == method && rest(&pattern, &path)
}

type Matched = Vec<bool>;

fn matched(pattern: &str, world: &[(&str, String)]) -> Matched {
    world
        .iter()
        .map(|(method, path)| naive_match(pattern, method, path))
        .collect()
}

fn within(inner: &Matched, outer: &Matched) -> bool {
    inner.iter().zip(outer).all(|(inner, outer)| !inner || *outer)
}

fn meet(one: &Matched, other: &Matched) -> bool {
    one.iter().zip(other).any(|(one, other)| *one && *other)
}

fn pattern_text() -> impl Strategy<Value = String> {
    let segments = prop::collection::vec(select(vec!["a", "b", "*", "{x}"]), 0..=3);
    (select(vec!["", "", "GET ", "POST "]), segments)
        .prop_map(|(method, parts)| format!("{method}/{}", parts.join("/")))
}

/// Patterns of which any two are nested or apart, each with its matches.
fn ordered(texts: Vec<String>, world: &[(&str, String)]) -> Vec<(String, Matched)> {
    let mut kept: Vec<(String, Matched)> = Vec::new();
    for text in texts {
        let own = matched(&text, world);
        if kept
            .iter()
            .all(|(_, other)| !meet(&own, other) || within(&own, other) || within(other, &own))
        {
            kept.push((text, own));
        }
    }
    kept
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn patterns_relate_as_the_requests_they_match(one in pattern_text(), other in pattern_text()) {
        let world = world();
        let (first, second): (Pattern, Pattern) = (one.parse().unwrap(), other.parse().unwrap());
        let (own, others) = (matched(&one, &world), matched(&other, &world));
        for ((method, path), expected) in world.iter().zip(&own) {
            prop_assert_eq!(first.matches(method, path), *expected, "{} {} {}", one, method, path);
        }
        prop_assert_eq!(first.is_subset_of(&second), within(&own, &others), "{} {}", one, other);
        prop_assert_eq!(first.overlaps(&second), meet(&own, &others), "{} {}", one, other);
        prop_assert_eq!(first == second, own == others, "{} {}", one, other);
        prop_assert_eq!(first.to_string().parse::<Pattern>(), Ok(first));
    }

    #[test]
    fn access_is_the_rule_of_the_most_specific_pattern(
        texts in prop::collection::vec(pattern_text(), 1..14),
        picks in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 1..5), 1..4),
        weights in prop::collection::vec((any::<prop::sample::Index>(), 1u64..9), 0..4),
        own_weights in prop::collection::vec((any::<prop::sample::Index>(), 10u64..19), 0..3),
        meters in prop::collection::vec((any::<prop::sample::Index>(), select(vec!["tokens", "bytes"])), 0..4),
        groups in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let world = world();
        let known = ordered(texts, &world);
        let pattern = |text: &str| text.parse::<Pattern>().unwrap();
        // The same pattern twice in one list is refused by the file, so it is not made here.
        let distinct = |picks: Vec<usize>| {
            let mut kept: Vec<usize> = Vec::new();
            for pick in picks {
                if !kept.iter().any(|other| known[*other].1 == known[pick].1) {
                    kept.push(pick);
                }
            }
            kept
        };
        let tiers: Vec<Vec<usize>> =
            picks.iter().map(|picks| distinct(picks.iter().map(|pick| pick.index(known.len())).collect())).collect();
        let listed = |list: &[(prop::sample::Index, u64)]| -> Vec<(usize, u64)> {
            let picks = distinct(list.iter().map(|(pick, _)| pick.index(known.len())).collect());
            picks.into_iter().zip(list.iter().map(|(_, weight)| *weight)).collect()
        };
        let (weights, own_weights) = (listed(&weights), listed(&own_weights));
        let meter_picks = distinct(meters.iter().map(|(pick, _)| pick.index(known.len())).collect());
        let meters: Vec<(usize, &str)> = meter_picks.into_iter().zip(meters.iter().map(|(_, name)| *name)).collect();
        let groups = distinct(groups.iter().map(|pick| pick.index(known.len())).collect());

        let mut subject = catalog(EXAMPLE);
        let template = subject.tiers[0].clone();
        let patterns = |picks: &[(usize, u64)]| {
            picks.iter().map(|(pick, weight)| (pattern(&known[*pick].0), *weight)).collect::<Vec<_>>()
        };
        subject.tiers = tiers.iter().enumerate().map(|(index, picks)| {
            let mut tier = template.clone();
            tier.name = index.to_string();
            tier.endpoints = picks.iter().map(|pick| pattern(&known[*pick].0)).collect();
            tier.weights = patterns(&own_weights);
            tier.groups = groups.iter().map(|pick| Group {
                name: "g".to_owned(),
                endpoints: vec![pattern(&known[*pick].0)],
                limits: vec![],
                included: None,
                at_quota: AtQuota::Block,
            }).collect();
            tier
        }).collect();
        subject.weights = patterns(&weights);
        subject.meters = meters.iter().map(|(pick, name)| (pattern(&known[*pick].0), (*name).to_owned())).collect();

        let narrowest = |picks: &[usize], at: usize| {
            picks.iter().copied().filter(|pick| known[*pick].1[at]).find(|pick| {
                picks.iter().all(|other| !known[*other].1[at] || within(&known[*pick].1, &known[*other].1))
            })
        };
        let all: Vec<usize> = tiers.iter().flatten().copied().collect();
        for (at, (method, path)) in world.iter().enumerate() {
            for (index, picks) in tiers.iter().enumerate() {
                let expected = match narrowest(&all, at) {
                    None => Access::NoSuchRoute,
                    Some(best) => {
                        let names = |picks: &&Vec<usize>| picks.iter().any(|pick| known[*pick].1 == known[best].1);
                        let from = tiers.iter().position(|picks| names(&picks)).unwrap();
                        if index >= from && picks.iter().any(|pick| known[*pick].1[at]) {
                            let pick = |list: &[(usize, u64)]| {
                                let picks: Vec<usize> = list.iter().map(|(pick, _)| *pick).collect();
                                let best = narrowest(&picks, at)?;
                                list.iter().find(|(pick, _)| *pick == best).map(|(_, weight)| *weight)
                            };
                            let meter_picks: Vec<usize> = meters.iter().map(|(pick, _)| *pick).collect();
                            let meter = narrowest(&meter_picks, at)
                                .and_then(|best| meters.iter().find(|(pick, _)| *pick == best));
                            Access::Open {
                                meter: meter.map_or("api_calls", |(_, name)| name),
                                cost: pick(&own_weights).or(pick(&weights)).unwrap_or(1),
                                group: narrowest(&groups, at)
                                    .and_then(|best| groups.iter().position(|pick| *pick == best)),
                            }
                        } else {
                            Access::NotInTier { from: &subject.tiers[from].name }
                        }
                    }
                };
                let got = subject.access(&index.to_string(), method, path);
                prop_assert_eq!(got, expected, "tier {} {} {}: {:?}", index, method, path, tiers);
            }
        }
    }
}

/// A file whose tiers have these routes and a limit of ten, with these weights.
fn weighted(tiers: &[Vec<String>], weights: &[(String, u64)]) -> String {
    let weights: String = weights
        .iter()
        .map(|(text, weight)| format!("  {text:?}: {weight}\n"))
        .collect();
    let tiers = tiers.iter().enumerate().map(|(index, endpoints)| {
        format!("  t{index}: {{price: 0, included_calls: unlimited, rate_limit: 10/s, endpoints: {endpoints:?}}}\n")
    });
    let weights = if weights.is_empty() {
        weights
    } else {
        format!("weights:\n{weights}")
    };
    format!("{weights}tiers:\n{}", tiers.collect::<String>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_weight_is_refused_exactly_where_a_request_could_never_be_admitted(
        texts in prop::collection::vec(pattern_text(), 1..10),
        picks in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 1..4), 1..4),
        heavy in prop::collection::vec((any::<prop::sample::Index>(), select(vec![1u64, 2, 11, 12])), 1..5),
    ) {
        let world = world();
        let known = ordered(texts, &world);
        let mut tiers: Vec<Vec<String>> = Vec::new();
        for picks in picks {
            let mut routes: Vec<usize> = Vec::new();
            for pick in picks {
                let pick = pick.index(known.len());
                if !routes.iter().any(|other| known[*other].1 == known[pick].1) {
                    routes.push(pick);
                }
            }
            tiers.push(routes.into_iter().map(|pick| known[pick].0.clone()).collect());
        }
        let mut weights: Vec<(usize, u64)> = Vec::new();
        for (pick, weight) in heavy {
            let pick = pick.index(known.len());
            if !weights.iter().any(|(other, _)| known[*other].1 == known[pick].1) {
                weights.push((pick, weight));
            }
        }
        let weights: Vec<(String, u64)> =
            weights.into_iter().map(|(pick, weight)| (known[pick].0.clone(), weight)).collect();
        // Without its weights the file loads, and then says what each request of the world would cost.
        let mut subject = catalog(&weighted(&tiers, &[]));
        subject.weights = weights.iter().map(|(text, weight)| (text.parse().unwrap(), *weight)).collect();
        let never_admitted = world.iter().any(|(method, path)| {
            subject.tiers.iter().any(|tier| {
                matches!(subject.access(&tier.name, method, path), Access::Open { cost, .. } if cost > 10)
            })
        });
        let loaded = Catalog::from_yaml(&weighted(&tiers, &weights), "f");
        prop_assert_eq!(loaded.is_err(), never_admitted, "{}\n{:?}", weighted(&tiers, &weights), loaded.err());
    }
}

// ---- prices, against counting unit by unit

const PICO: u128 = 1_000_000_000_000;

fn steps(count_max: u64) -> impl Strategy<Value = Vec<Step>> {
    let step = (1..=count_max, 0u64..4_000_000_000_000, prop_oneof![Just(0), 0u64..20]);
    prop::collection::vec(step, 1..5).prop_map(|parts| {
        let last = parts.len() - 1;
        let mut bound = 0;
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

fn price() -> impl Strategy<Value = UsagePrice> {
    prop_oneof![
        (0u64..4_000_000_000_000).prop_map(|pico| UsagePrice::PerUnit(UnitAmount { pico })),
        steps(60).prop_map(UsagePrice::Graduated),
        steps(60).prop_map(UsagePrice::Volume),
    ]
}

/// Counts every unit into the tier of the Stripe price that it falls in.
fn naive_amount(price: &UsagePrice, included: Option<u64>, units: u64) -> u64 {
    let tiers = price.stripe_tiers(included);
    let tier_of = |unit: u64| {
        tiers
            .iter()
            .position(|tier| tier.up_to.is_none_or(|up_to| unit <= up_to))
            .unwrap()
    };
    let mut lines: BTreeMap<usize, u128> = BTreeMap::new();
    // Stripe bills the flat amount of the first tier without any unit.
    if !matches!(price, UsagePrice::Volume(_)) || units == 0 {
        lines.insert(0, 0);
    }
    for unit in 1..=units {
        let tier = if matches!(price, UsagePrice::Volume(_)) {
            tier_of(units)
        } else {
            tier_of(unit)
        };
        *lines.entry(tier).or_default() += u128::from(tiers[tier].unit.pico);
    }
    let half_up = |pico: u128| u64::try_from((2 * pico + PICO) / (2 * PICO)).unwrap();
    lines
        .into_iter()
        .map(|(tier, pico)| half_up(pico) + tiers[tier].flat.0)
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_amount_is_what_counting_gives(
        price in price(), included in prop_oneof![Just(None), Just(Some(0)), (0u64..100).prop_map(Some)], units in prop_oneof![1 => Just(0u64), 4 => 0u64..300]
    ) {
        prop_assert_eq!(price.amount(included, units), Ok(Money(naive_amount(&price, included, units))));
    }

    #[test]
    fn a_cap_leaves_room_for_exactly_the_units_below_it(
        price in price(), included in (0u64..100).prop_map(Some), cap in 0u64..300
    ) {
        let within = price.units_within(included, Money(cap));
        let over = (0..400).find(|units| naive_amount(&price, included, *units) > cap);
        match over {
            None => prop_assert!(within >= 399),
            Some(0) => prop_assert_eq!(within, 0),
            Some(over) => prop_assert_eq!(within, over - 1),
        }
    }

    #[test]
    fn the_first_included_units_are_free(price in price(), included in 1u64..1000, share in 0u64..=1000) {
        let units = included * share / 1000;
        prop_assert_eq!(price.amount(Some(included), units), Ok(Money(0)));
        prop_assert_eq!(price.amount(None, units), Ok(Money(0)));
    }

    #[test]
    fn any_price_and_count_gives_an_amount_or_an_overflow(
        parts in prop::collection::vec((any::<Option<u64>>(), any::<u64>(), any::<u64>()), 0..6),
        included in any::<Option<u64>>(), units in any::<u64>(), cap in any::<u64>()
    ) {
        let steps: Vec<Step> = parts.into_iter().map(|(up_to, pico, flat)| {
            Step { up_to, unit: UnitAmount { pico }, flat: Money(flat) }
        }).collect();
        let per_unit = UsagePrice::PerUnit(UnitAmount { pico: cap });
        for price in [UsagePrice::Graduated(steps.clone()), UsagePrice::Volume(steps), per_unit] {
            let _ = price.amount(included, units);
            let _ = price.units_within(included, Money(cap));
        }
    }

    #[test]
    fn a_unit_amount_is_its_text(pico in any::<u64>()) {
        let amount = UnitAmount { pico };
        prop_assert_eq!(amount.to_string().parse::<UnitAmount>(), Ok(amount));
    }
}

// ---- any input at all

fn limit() -> impl Strategy<Value = Limit> {
    (any::<u64>(), any::<u64>()).prop_map(|(units, window_ms)| Limit { units, window_ms })
}

fn at_quota() -> impl Strategy<Value = AtQuota> {
    prop_oneof![
        Just(AtQuota::Overage),
        Just(AtQuota::Block),
        limit().prop_map(AtQuota::Throttle)
    ]
}

fn by_meter<T: std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = BTreeMap<String, T>> {
    prop::collection::btree_map(
        select(vec!["api_calls".to_owned(), "tokens".to_owned(), "x".to_owned()]),
        value,
        0..3,
    )
}

fn base_price() -> impl Strategy<Value = BasePrice> {
    (any::<u64>(), any::<bool>()).prop_map(|(amount, year)| BasePrice {
        amount: Money(amount),
        interval: if year { Interval::Year } else { Interval::Month },
    })
}

fn past_due() -> impl Strategy<Value = PastDue> {
    let policy = prop_oneof![
        Just(PastDuePolicy::Keep),
        Just(PastDuePolicy::Block),
        limit().prop_map(PastDuePolicy::Throttle)
    ];
    (any::<u64>(), policy).prop_map(|(grace_s, policy)| PastDue { grace_s, policy })
}

fn overrides() -> impl Strategy<Value = Overrides> {
    (
        prop::option::of(base_price()),
        prop::option::of(by_meter(any::<Option<u64>>())),
        prop::option::of(prop::collection::vec(limit(), 0..6)),
        prop::option::of(by_meter(price())),
        prop::option::of(at_quota()),
        prop::option::of(by_meter(any::<u64>().prop_map(Money))),
        prop::option::of(prop::collection::vec(any::<u16>(), 0..10)),
        prop::option::of(past_due()),
    )
        .prop_map(
            |(price, included, limits, overage, at_quota, spend_cap, alert_percents, past_due)| Overrides {
                price,
                included,
                limits,
                overage,
                at_quota,
                spend_cap,
                alert_percents,
                past_due,
            },
        )
}

#[derive(Clone, Debug)]
enum Edit {
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, char),
    Replace(prop::sample::Index, char),
    RepeatLine(prop::sample::Index),
    Word(prop::sample::Index, &'static str),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<prop::sample::Index>;
    let char = || {
        select(
            "{}[]:,-?&*!|>'\"#%@` \n\t/09azé$.~_\u{0}\u{85}\u{F8F0}\u{feff}"
                .chars()
                .collect::<Vec<_>>(),
        )
    };
    let word = select(vec![
        "custom",
        "unlimited",
        "1/s",
        "99999999999999999999",
        "/v1/*",
        "POST ",
        "&a ",
        "*a",
        "graduated: ",
        "volume",
        "null",
        "-1",
        "0",
        "1e9",
        "- ",
        "? ",
        "{",
        "}",
        "---\n",
        "tiers:",
        "pro:",
        "x: &x [*x]",
        "<<: *a",
    ]);
    prop_oneof![
        at().prop_map(Edit::Remove),
        (at(), char()).prop_map(|(at, char)| Edit::Insert(at, char)),
        (at(), char()).prop_map(|(at, char)| Edit::Replace(at, char)),
        at().prop_map(Edit::RepeatLine),
        (at(), word).prop_map(|(at, word)| Edit::Word(at, word)),
    ]
}

fn edited(text: &str, edits: Vec<Edit>) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for edit in edits {
        if text.is_empty() {
            break;
        }
        match edit {
            Edit::Remove(at) => {
                text.remove(at.index(text.len()));
            }
            Edit::Insert(at, char) => text.insert(at.index(text.len()), char),
            Edit::Replace(at, char) => {
                let at = at.index(text.len());
                text[at] = char;
            }
            Edit::RepeatLine(at) => {
                let mut lines: Vec<String> = text.iter().collect::<String>().split('\n').map(str::to_owned).collect();
                let at = at.index(lines.len());
                lines.insert(at, lines[at].clone());
                text = lines.join("\n").chars().collect();
            }
            Edit::Word(at, word) => {
                let at = at.index(text.len());
                text.splice(at..at, word.chars());
            }
        }
    }
    text.into_iter().collect()
}

/// Loads, and checks what must hold of any answer.
fn load_any(text: &str) -> Result<(), TestCaseError> {
    match Catalog::from_yaml(text, "f") {
        Ok(catalog) => {
            let json = serde_json::to_string(&catalog).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Catalog>(&json).unwrap(), &catalog);
            for tier in &catalog.tiers {
                // What loads has terms at once, or leaves something to be agreed.
                match catalog.terms(&tier.name, &Overrides::default()) {
                    Ok(_) | Err(farebox_core::tiers::TermsError::Open { .. }) => {}
                    Err(error) => prop_assert!(false, "{}", error),
                }
            }
        }
        Err(errors) => {
            prop_assert!(!errors.as_slice().is_empty());
            let lines = text.split('\n').count() + text.matches(['\r', '\u{85}', '\u{2028}', '\u{2029}']).count() + 1;
            for error in &errors {
                prop_assert!((1..=lines).contains(&error.line) && error.column >= 1, "{}", error);
                prop_assert!(!error.to_string().contains('\n'), "{}", error);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_loads_or_is_told_why_not(text in "\\PC*") {
        load_any(&text)?;
        load_any(&format!("tiers: {text}"))?;
    }

    #[test]
    fn any_bytes_that_are_text_too(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        load_any(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn a_damaged_file_loads_or_is_told_why_not(
        text in select(vec![EXAMPLE, FULL]), edits in prop::collection::vec(edit(), 1..8)
    ) {
        load_any(&edited(text, edits))?;
    }

    #[test]
    fn any_path_has_an_answer(method in "[A-Za-z ]{0,8}", path in prop_oneof!["\\PC*", "(/|%2|%|[a-zA-F0-9]|\\.|;){0,30}"]) {
        let catalog = catalog(EXAMPLE);
        let access = catalog.access("pro", &method, &path);
        if path.contains("//") || path.contains("/../") || path.to_ascii_lowercase().contains("%2f") {
            prop_assert_eq!(access, Access::NoSuchRoute);
        }
        if let Ok(pattern) = path.parse::<Pattern>() {
            prop_assert_eq!(pattern.to_string().parse::<Pattern>(), Ok(pattern));
        }
    }

    #[test]
    fn any_overrides_give_terms_or_a_reason(overrides in overrides(), units in any::<u64>(), fixture in select(vec![EXAMPLE, FULL])) {
        let json = serde_json::to_string(&overrides).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Overrides>(&json).unwrap(), &overrides);
        let catalog = catalog(fixture);
        for tier in &catalog.tiers {
            match catalog.terms(&tier.name, &overrides) {
                Ok(terms) => {
                    let _ = terms.usage_amount("api_calls", units);
                }
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }

    #[test]
    fn any_catalog_survives_json(
        price in base_price(), included in by_meter(any::<Option<u64>>()), limits in prop::collection::vec(limit(), 0..3),
        overage in by_meter(price()), at_quota in at_quota(), label in any::<Option<String>>(), number in any::<u32>(),
        custom in any::<bool>(), pattern in pattern_text(), weight in any::<u64>(), past_due in past_due(),
        percents in prop::collection::vec(any::<u16>(), 0..3)
    ) {
        let mut catalog = catalog(FULL);
        let pattern: Pattern = pattern.parse().unwrap();
        catalog.weights.push((pattern.clone(), weight));
        catalog.meters.push((pattern.clone(), format!("{label:?}")));
        for tier in &mut catalog.tiers {
            tier.price = if custom { Custom::Custom } else { Custom::Fixed(price) };
            tier.included = Custom::Fixed(included.clone());
            tier.limits = Custom::Fixed(limits.clone());
            tier.overage = overage.clone();
            tier.at_quota = at_quota;
            tier.support = label.clone();
            tier.trial_days = number;
            tier.past_due = past_due;
            tier.alert_percents = percents.clone();
            tier.endpoints.push(pattern.clone());
        }
        let json = serde_json::to_string(&catalog).unwrap();
        prop_assert_eq!(serde_json::from_str::<Catalog>(&json).unwrap(), catalog);
    }
}

#[test]
fn costly_files_are_refused_in_time_and_without_much_stack() {
    let texts = [
        "[".repeat(10_000_000),
        "[".repeat(250_000),
        "{".repeat(250_000),
        "{a: ".repeat(60_000),
        "- ".repeat(120_000),
        "? ".repeat(120_000),
        "- ? : ".repeat(40_000),
        "-\t".repeat(120_000),
        format!("a:{}", " -".repeat(49)),
        (0..700).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect(),
        (0..98).map(|depth| format!("{0}a:\n{0}-\n", " ".repeat(depth))).collect::<String>() + &"[".repeat(250),
        "a: [".repeat(250) + "&a [".repeat(200).as_str() + &"1,".repeat(100_000),
        "[&a ".repeat(200) + &"1,".repeat(100_000),
        format!(
            "a: &a [x,x,x,x,x,x,x,x,x]\n{}",
            ('b'..='k').map(|name| {
                let before = char::from(name as u8 - 1);
                format!("{name}: &{name} [*{before},*{before},*{before},*{before},*{before},*{before},*{before},*{before}]\n")
            }).collect::<String>()
        ),
        (0..60_000).map(|_| "a: 1\n").collect(),
        (0..30_000).map(|number| format!("a{number}: 1\n")).collect(),
        format!("tiers:\n  a:\n    endpoints: [{}]", (0..20_000).map(|number| format!("/v1/{number},")).collect::<String>()),
        format!("tiers:\n{}", (0..20_000).map(|number| format!(" t{number}: 1\n")).collect::<String>()),
        format!("tiers:\n  a:\n    weights:\n{}", (0..9_000).map(|number| format!("      /v1/*/{number}: 5\n")).collect::<String>()),
        "a".repeat(250_000),
        "\"".repeat(250_000),
        "&a ".repeat(80_000),
        "*a ".repeat(80_000),
        "!t ".repeat(80_000),
        "\n".repeat(250_000),
        "#\n".repeat(120_000),
        "a: |\n".to_owned() + &" x\n".repeat(80_000),
    ];
    for text in texts {
        let begin: String = text.chars().take(20).collect();
        let handle = std::thread::Builder::new().stack_size(1 << 20);
        let errors = handle
            .spawn(move || Catalog::from_yaml(&text, "f").unwrap_err())
            .unwrap()
            .join();
        let errors = errors.unwrap_or_else(|_| panic!("{begin:?}"));
        assert!(errors.as_slice().len() <= 200, "{begin:?}");
    }
}

#[test]
fn stripes_own_example_of_flat_amounts() {
    // https://docs.stripe.com/products-prices/pricing-models, "Flat rates".
    let step = |up_to, unit: u64, flat| Step {
        up_to,
        unit: UnitAmount {
            pico: unit * 1_000_000_000_000,
        },
        flat: Money(flat),
    };
    let steps = vec![
        step(Some(5), 500, 1000),
        step(Some(10), 400, 2000),
        step(Some(15), 300, 3000),
        step(Some(20), 200, 4000),
        step(None, 100, 5000),
    ];
    let (graduated, volume) = (UsagePrice::Graduated(steps.clone()), UsagePrice::Volume(steps));
    assert_eq!(volume.amount(Some(0), 12), Ok(Money(6600)));
    assert_eq!(graduated.amount(Some(0), 12), Ok(Money(11_100)));
    assert_eq!(volume.amount(Some(0), 0), Ok(Money(1000)));
    assert_eq!(graduated.amount(Some(0), 0), Ok(Money(1000)));
    assert_eq!(volume.units_within(Some(0), Money(999)), 0);
}
