//! Whole files: what loads, which route is open to whom, and what each mistake is told.

use farebox_core::money::{Currency, MONEY_MAX, Money};
use farebox_core::tiers::{
    Access, AtQuota, BasePrice, Catalog, Custom, Interval, Limit, Overrides, PastDue, PastDuePolicy, Step, TermsError,
    UsagePrice, parse_amount,
};

const EXAMPLE: &str = include_str!("fixtures/tiers.yaml");
const FULL: &str = include_str!("fixtures/full.yaml");

fn load(text: &str) -> Catalog {
    Catalog::from_yaml(text, "tiers.yaml").unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors(text: &str) -> String {
    match Catalog::from_yaml(text, "tiers.yaml") {
        Ok(_) => panic!("should not load:\n{text}"),
        Err(errors) => errors.to_string(),
    }
}

fn open(cost: u64) -> Access<'static> {
    Access::Open {
        meter: "api_calls",
        cost,
        group: None,
    }
}

#[test]
fn the_example_opens_each_route_to_its_tiers() {
    let catalog = load(EXAMPLE);
    assert_eq!(
        catalog.tiers.iter().map(|tier| tier.name.as_str()).collect::<Vec<_>>(),
        ["free", "pro", "enterprise"]
    );
    let from = |from| Access::NotInTier { from };
    for (path, free, pro, enterprise) in [
        ("/v1/basic/a", open(1), open(1), open(1)),
        ("/v1/basic/a/b/", open(1), open(1), open(1)),
        ("/v1/basic", from("pro"), open(1), open(1)),
        ("/v1/items", from("pro"), open(1), open(1)),
        ("/v1/items/7", from("pro"), open(1), open(1)),
        ("/v1/admin", from("pro"), open(1), open(1)),
        ("/v1/admin/keys", from("enterprise"), from("enterprise"), open(1)),
        ("/v1/%61dmin/keys", from("enterprise"), from("enterprise"), open(1)),
        ("/v1", Access::NoSuchRoute, Access::NoSuchRoute, Access::NoSuchRoute),
        (
            "/v2/items",
            Access::NoSuchRoute,
            Access::NoSuchRoute,
            Access::NoSuchRoute,
        ),
        ("/", Access::NoSuchRoute, Access::NoSuchRoute, Access::NoSuchRoute),
        (
            "/v1/basic/../admin",
            Access::NoSuchRoute,
            Access::NoSuchRoute,
            Access::NoSuchRoute,
        ),
        (
            "/v1//admin",
            Access::NoSuchRoute,
            Access::NoSuchRoute,
            Access::NoSuchRoute,
        ),
        (
            "/v1/basic%2fa",
            Access::NoSuchRoute,
            Access::NoSuchRoute,
            Access::NoSuchRoute,
        ),
    ] {
        assert_eq!(catalog.access("free", "GET", path), free, "free {path}");
        assert_eq!(catalog.access("pro", "POST", path), pro, "pro {path}");
        assert_eq!(
            catalog.access("enterprise", "DELETE", path),
            enterprise,
            "enterprise {path}"
        );
    }
    assert_eq!(catalog.access("gone", "GET", "/v1/basic/a"), from("free"));
    assert_eq!(catalog.access("gone", "GET", "/v2"), Access::NoSuchRoute);
    assert_eq!(catalog.access("pro", "get", "/v1/items"), Access::NoSuchRoute);
}

#[test]
fn the_example_says_what_is_sold() {
    let catalog = load(EXAMPLE);
    let pro = catalog.tier("pro").unwrap();
    assert_eq!(
        pro.price,
        Custom::Fixed(BasePrice {
            amount: Money(4900),
            interval: Interval::Month
        })
    );
    assert_eq!(
        pro.limits,
        Custom::Fixed(vec![Limit {
            units: 100,
            window_ms: 60_000
        }])
    );
    assert_eq!(pro.at_quota, AtQuota::Overage);
    assert_eq!((pro.warn_percent, pro.shards, pro.trial_days), (80, 1, 0));
    let free = catalog.tier("free").unwrap();
    assert_eq!(
        free.price,
        Custom::Fixed(BasePrice {
            amount: Money(0),
            interval: Interval::Month
        })
    );
    assert_eq!(free.at_quota, AtQuota::Block);
    assert_eq!(free.support.as_deref(), Some("community"));
    assert_eq!(catalog.tier("enterprise").unwrap().sla.as_deref(), Some("99.9%"));
    let terms = catalog.terms("pro", &Overrides::default()).unwrap();
    assert_eq!(terms.usage_amount("api_calls", 50_000), Ok(Money(0)));
    assert_eq!(terms.usage_amount("api_calls", 50_003), Ok(Money(1)));
    assert_eq!(terms.usage_amount("api_calls", 150_000), Ok(Money(20_000)));
    assert_eq!(terms.usage_amount("other", 150_000), Ok(Money(0)));
}

#[test]
fn every_field_is_read() {
    let catalog = load(FULL);
    let [start, team, big] = catalog.tiers.as_slice() else {
        panic!()
    };
    assert_eq!(catalog.weights.len(), 2);
    assert_eq!(catalog.meters.len(), 2);
    assert_eq!(
        start.at_quota,
        AtQuota::Throttle(Limit {
            units: 5,
            window_ms: 60_000
        })
    );
    assert_eq!(
        start.limits,
        Custom::Fixed(vec![
            Limit {
                units: 60,
                window_ms: 60_000
            },
            Limit {
                units: 5,
                window_ms: 10_000
            }
        ])
    );
    let Custom::Fixed(included) = &start.included else {
        panic!()
    };
    assert_eq!(
        included
            .iter()
            .map(|(meter, units)| (meter.as_str(), *units))
            .collect::<Vec<_>>(),
        [("api_calls", Some(1_000)), ("tokens", Some(5_000))]
    );
    assert_eq!(
        team.price,
        Custom::Fixed(BasePrice {
            amount: Money(4950),
            interval: Interval::Month
        })
    );
    assert_eq!((team.trial_days, team.shards, team.warn_percent), (14, 2, 75));
    assert_eq!(team.alert_percents, [50, 90, 1000]);
    assert_eq!(start.alert_percents, [80, 100, 120]);
    assert_eq!(
        (start.past_due.grace_s, start.past_due.policy),
        (0, PastDuePolicy::Block)
    );
    assert_eq!(team.past_due.to_string(), "throttle(20/h) after 14d");
    assert_eq!(big.past_due.to_string(), "throttle(10/min) after 7d");
    assert!(matches!(team.overage["tokens"], UsagePrice::Volume(_)));
    let UsagePrice::Graduated(steps) = &team.overage["api_calls"] else {
        panic!()
    };
    assert_eq!((steps[0].up_to, steps[1].flat), (Some(100_000), Money(500)));
    assert_eq!(team.spend_cap["tokens"], Money(100_000));
    let names = team
        .groups
        .iter()
        .map(|group| (group.name.as_str(), group.included, group.at_quota));
    assert_eq!(
        names.collect::<Vec<_>>(),
        [
            ("search", Some(100), AtQuota::Block),
            (
                "slow",
                Some(10),
                AtQuota::Throttle(Limit {
                    units: 2,
                    window_ms: 60_000
                })
            )
        ]
    );
    assert_eq!(big.at_quota, AtQuota::Overage);

    let open = |meter, cost, group| Access::Open { meter, cost, group };
    for (tier, method, path, access) in [
        ("team", "POST", "/v1/generate", open("tokens", 20, None)),
        ("big", "POST", "/v1/generate", open("tokens", 50, None)),
        ("team", "POST", "/v1/generate/short", open("tokens", 5, None)),
        ("team", "GET", "/v1/generate", open("api_calls", 1, None)),
        ("team", "GET", "/v1/search/a/b", open("api_calls", 1, Some(0))),
        ("team", "GET", "/v1/find/a", open("api_calls", 1, Some(0))),
        ("team", "POST", "/v1/find/a", open("api_calls", 1, None)),
        ("team", "GET", "/v1/reports/2026", open("api_calls", 1, Some(1))),
        ("start", "GET", "/v1/items/7", open("api_calls", 1, None)),
        ("start", "POST", "/v1/items/7", Access::NotInTier { from: "team" }),
        ("start", "POST", "/v1/items/7/notes", open("api_calls", 1, None)),
        ("team", "GET", "/v1/admin/x", Access::NotInTier { from: "big" }),
    ] {
        assert_eq!(catalog.access(tier, method, path), access, "{tier} {method} {path}");
    }
}

#[test]
fn anchors_are_resolved() {
    let catalog = load(
        "tiers:\n  a: &a {price: 0, included_calls: 1000, rate_limit: &l 10/s, endpoints: &e [/a/*]}\n  \
         b:\n    price: 5/month\n    included_calls: 5000\n    rate_limit: *l\n    endpoints: *e\n  c: *a\n",
    );
    assert_eq!(catalog.tiers[0].limits, catalog.tiers[1].limits);
    assert_eq!(catalog.tiers[0].endpoints, catalog.tiers[2].endpoints);
    assert!(
        errors("tiers:\n  a: {price: &p 0.5, included_calls: 1, rate_limit: 1/s, endpoints: /a, spend_cap: *p}")
            .contains("is an alias of a number: write the number itself, or quote it at its anchor")
    );
}

#[test]
fn other_currencies_have_other_minor_units() {
    let tier = |currency: &str, price: &str, overage: &str| {
        format!(
            "currency: {currency}\ntiers:\n  a: {{price: {price}, included_calls: 10/year, rate_limit: 1/s, \
             endpoints: [/a], overage: {overage}}}\n"
        )
    };
    let catalog = load(&tier("JPY", "¥4900/year", "0.5 jpy/call"));
    assert_eq!(catalog.currency, "jpy".parse().unwrap());
    assert_eq!(
        catalog.tiers[0].price,
        Custom::Fixed(BasePrice {
            amount: Money(4900),
            interval: Interval::Year
        })
    );
    assert_eq!(
        catalog.tiers[0].overage["api_calls"],
        UsagePrice::PerUnit("0.5".parse().unwrap())
    );
    let catalog = load(&tier("eur", "€49.50", "0.002 eur/call"));
    assert_eq!(
        catalog.tiers[0].price,
        Custom::Fixed(BasePrice {
            amount: Money(4950),
            interval: Interval::Year
        })
    );
    assert_eq!(
        load(&tier("cad", "$49", "EUR 1").replace("EUR", "CAD")).tiers[0]
            .overage
            .len(),
        1
    );
    assert_eq!(
        errors(&tier("eur", "$49", "0.002 usd")),
        "tiers.yaml:3: tiers.a.price: \"$49\" is in $, but the file's currency is eur\n\
         tiers.yaml:3: tiers.a.overage: \"0.002 usd\" is in usd, but the file's currency is eur"
    );
    assert_eq!(
        errors(&tier("jpy", "49.5", "1")),
        "tiers.yaml:3: tiers.a.price: \"49.5\" is finer than the minor unit of jpy"
    );
    assert_eq!(
        errors(&tier("kwd", "49", "1")),
        "tiers.yaml:1: currency: \"kwd\" cannot be used: Stripe charges it in rounded steps only, so usage could not be \
         billed exactly"
    );
    assert_eq!(load(EXAMPLE).currency, Currency::USD);
}

/// A valid file with one line of the tier replaced or added.
fn with(field: &str, line: &str) -> String {
    let fields = [
        "price: 49/month",
        "included_calls: 1000/month",
        "rate_limit: 100/min",
        "endpoints: [/v1/*]",
    ];
    let mut text = "tiers:\n  pro:\n".to_owned();
    for own in fields.into_iter().filter(|own| own.split(':').next() != Some(field)) {
        text.push_str(&format!("    {own}\n"));
    }
    text + &format!("    {line}\n")
}

/// One mistake of the tier in line 6 or 7, as it is told.
fn told(line: &str) -> String {
    let field = line.split(':').next().unwrap();
    let errors = errors(&with(field, line));
    let prefix = format!(
        "tiers.yaml:{}: tiers.pro.",
        if with(field, line).lines().count() == 6 { 6 } else { 7 }
    );
    errors
        .strip_prefix(&prefix)
        .unwrap_or_else(|| panic!("{line}: {errors}"))
        .to_owned()
}

#[test]
fn good_values() {
    for line in [
        "rate_limit: 100/10s",
        "rate_limit: 100 / min",
        "rate_limit: 1_000/hour",
        "rate_limit: 1,000/day",
        "rate_limit: unlimited",
        "rate_limit: custom",
        "rate_limit: [100/min, 20/s, 1000/h, 5000/day]",
        "rate_limit: 48000/min",
        "rate_limit: 800/s",
        "included_calls: 50_000",
        "included_calls: 50,000/month",
        "included_calls: unlimited",
        "included_calls: custom",
        "included_calls: {api_calls: 10}",
        "included_calls: \"10/month\"",
        "price: 0",
        "price: $49.50/month",
        "price: 49 usd/month",
        "price: USD 49/month",
        "price: custom",
        "price: 49",
        "overage: 0.002",
        "overage: $0.002/unit",
        "overage: $0.000000000000010/api_calls",
        "overage: {api_calls: 0.1/call}",
        "overage: {graduated: [{unit: 1}]}",
        "overage: {graduated: [{up_to: 1001, flat: 5}, {up_to: inf, unit: 1}]}",
        "at_quota: block",
        "at_quota: throttle(5/min)",
        "trial_days: 730",
        "shards: 30",
        "warn_at: 80",
        "warn_at: 1 %",
        "alerts_at: 100%",
        "alerts_at: []",
        "alerts_at: [1, 2, 3, 4, 5, 6, 7, 1000]",
        "past_due: keep",
        "past_due: block",
        "past_due: keep after 60d",
        "past_due: throttle ( 5/min )  after  3 d",
        "past_due: throttle(48000/min) after 0d",
        "sla: 99.9",
        "support: 24",
        "endpoints: /v1/*",
        "endpoints: ['/v1/{id}', POST /v1/a]",
        "weights: {/v1/a: 100}",
        "groups: {g: {endpoints: [/v1/s/*], rate_limit: 5/s}}",
    ] {
        load(&with(line.split(':').next().unwrap(), line));
    }
}

#[test]
fn bad_values_are_told_with_their_line_and_what_to_write() {
    for (line, problem) in [
        (
            "rate_limit: 100/fortnight",
            r#"rate_limit: "100/fortnight" is not a rate limit: write a number per s, min, h or day, like 100/min"#,
        ),
        (
            "rate_limit: 100",
            r#"rate_limit: "100" is not a rate limit: write a number per s, min, h or day, like 100/min"#,
        ),
        ("rate_limit: -1/s", r#"rate_limit: "-1/s" is negative"#),
        (
            "rate_limit: 0/s",
            r#"rate_limit: "0/s" admits nothing: a rate limit is at least 1"#,
        ),
        (
            "rate_limit: 5/0s",
            r#"rate_limit: "5/0s" has a window that is not between a second and a day"#,
        ),
        (
            "rate_limit: 5/2days",
            r#"rate_limit: "5/2days" has a window that is not between a second and a day"#,
        ),
        (
            "rate_limit: 5/99999999999999999999s",
            r#"rate_limit: "5/99999999999999999999s" is not a rate limit: write a number per s, min, h or day, like 100/min"#,
        ),
        (
            "rate_limit: 9999999999999999/s",
            r#"rate_limit: "9999999999999999/s" is too large: a count has at most 15 digits"#,
        ),
        (
            "rate_limit: 1e3/s",
            r#"rate_limit: "1e3/s" is not a rate limit: write a number per s, min, h or day, like 100/min"#,
        ),
        (
            "rate_limit: []",
            "rate_limit is empty: write a limit like 100/min, or unlimited",
        ),
        (
            "rate_limit: {a: 1}",
            "rate_limit is a mapping: write a rate limit like 100/min, or a list of them",
        ),
        (
            "rate_limit: [custom]",
            r#"rate_limit: "custom" is not a rate limit: write a number per s, min, h or day, like 100/min"#,
        ),
        (
            "rate_limit: [1/s, 2/s]",
            r#"rate_limit: "2/s" has the same window as another limit: keep the lower one"#,
        ),
        (
            "rate_limit: [1/s, 1/2s, 1/3s, 1/4s, 1/5s]",
            "rate_limit has 5 limits: at most 4",
        ),
        (
            "rate_limit: 48001/min",
            r#"rate_limit: "48001/min" is more than 48000 a minute for each counter item: the tier needs shards: 2"#,
        ),
        (
            "rate_limit: 801/s",
            r#"rate_limit: "801/s" is more than 48000 a minute for each counter item: the tier needs shards: 2"#,
        ),
        (
            "rate_limit: 1440001/min",
            r#"rate_limit: "1440001/min" is more than 30 shards can carry, which is 1440000 a minute"#,
        ),
        (
            "included_calls: lots",
            r#"included_calls: "lots" is not a quota: write a number like 50000/month, unlimited or custom"#,
        ),
        (
            "included_calls: 5/week",
            r#"included_calls: "5/week" has a period that is neither month nor year"#,
        ),
        ("included_calls: -5", r#"included_calls: "-5" is negative"#),
        (
            "included_calls: 1.5",
            r#"included_calls: "1.5" is not a quota: write a number like 50000/month, unlimited or custom"#,
        ),
        (
            "included_calls: 0x10",
            r#"included_calls: "0x10" is not a quota: write a number like 50000/month, unlimited or custom"#,
        ),
        (
            "included_calls: 1,00",
            r#"included_calls: "1,00" is not a quota: write a number like 50000/month, unlimited or custom"#,
        ),
        (
            "included_calls: 1000000000000000",
            r#"included_calls: "1000000000000000" is too large: a count has at most 15 digits"#,
        ),
        (
            "included_calls: 5/year",
            r#"included_calls: "5/year" is per year, but price is per month: they must agree"#,
        ),
        (
            "included_calls: 0",
            r#"included_calls: "0" is 0 and at_quota is block, so /v1/* could never be admitted"#,
        ),
        (
            "included_calls: {tokens: 5}",
            "included_calls.tokens is not a meter: the file has api_calls",
        ),
        (
            "included_calls: {}",
            "included_calls is empty: give it a value or leave it out",
        ),
        (
            "included_calls: [1]",
            "included_calls is a list: write a quota like 50000/month, unlimited or custom",
        ),
        (
            "included_calls:",
            "included_calls is empty: give it a value or leave it out",
        ),
        (
            "price: ten",
            r#"price: "ten" is not an amount: write a number like $49.50"#,
        ),
        ("price: -5", r#"price: "-5" is negative"#),
        (
            "price: 49.999",
            r#"price: "49.999" is finer than the minor unit of usd"#,
        ),
        (
            "price: 10000000000.00",
            r#"price: "10000000000.00" is too large: at most 12 digits of the minor unit"#,
        ),
        (
            "price: 4.9e1",
            r#"price: "4.9e1" is not an amount: write a number like $49.50"#,
        ),
        ("price: €5", r#"price: "€5" is in €, but the file's currency is usd"#),
        (
            "price: 5/week",
            r#"price: "5/week" has a period that is neither month nor year"#,
        ),
        ("price: ~", "price is empty: give it a value or leave it out"),
        ("price: !!int ten", "price is not what its tag says"),
        ("price: !eur {}", "price has a tag (!name): leave it out"),
        (
            "overage: free",
            r#"overage: "free" is not a unit price: write an amount like $0.002/call"#,
        ),
        (
            "overage: 0.000000000000001",
            r#"overage: "0.000000000000001" has more than 12 decimal places of the minor unit"#,
        ),
        (
            "overage: 0.1/token",
            r#"overage: "0.1/token" is per token: write /call, or a meter of the file (api_calls)"#,
        ),
        (
            "overage: {tokens: 1}",
            "overage.tokens is not a meter: the file has api_calls",
        ),
        ("overage: {graduated: []}", "overage has no steps"),
        (
            "overage: {graduated: [{unit: 1}], volume: [{unit: 1}]}",
            "overage needs exactly one of graduated and volume",
        ),
        (
            "overage: {graduated: [{up_to: 5000, unit: 1}]}",
            "overage ends with a bound: the last step must have no up_to",
        ),
        (
            "overage: {graduated: [{unit: 2}, {unit: 1}]}",
            "overage has no up_to in step 1: only the last step may leave it out",
        ),
        (
            "overage: {graduated: [{up_to: 5000, unit: 2}, {up_to: 5000, unit: 2}, {unit: 1}]}",
            "overage has steps out of order: up_to 5000 must be more than 5000",
        ),
        (
            "overage: {graduated: [{up_to: 5000}, {unit: 1}]}",
            "overage.graduated has a step without a price: give it unit, flat or both",
        ),
        (
            "overage: {graduated: [{up_to: 1000, unit: 1}, {unit: 1}]}",
            "overage has a step up to 1000 within the 1000 included units: bounds count the included units too",
        ),
        (
            "overage: {volume: [{unit: 1}]}",
            "overage prices every unit by volume, so 1000 units can't be included for free: include 0, or use graduated",
        ),
        (
            "at_quota: explode",
            r#"at_quota: "explode" is not a policy: write overage, block or throttle(5/min)"#,
        ),
        (
            "at_quota: throttle",
            r#"at_quota: "throttle" is not a policy: write overage, block or throttle(5/min)"#,
        ),
        (
            "at_quota: throttle(5)",
            r#"at_quota: "throttle(5)" is not a throttle: write it with a slower limit, like throttle(5/min)"#,
        ),
        (
            "at_quota: throttle(60000/min)",
            r#"at_quota: "throttle(60000/min)" is more than 48000 a minute for each counter item: the tier needs shards: 2"#,
        ),
        (
            "at_quota: overage",
            r#"at_quota: "overage" bills what exceeds the quota, but no overage price is given"#,
        ),
        (
            "spend_cap: $100",
            r#"spend_cap: "$100" caps nothing: the tier has no overage price"#,
        ),
        (
            "spend_cap: {api_calls: 100}",
            r#"spend_cap.api_calls: "100" caps the meter api_calls, which has no overage price"#,
        ),
        (
            "trial_days: 731",
            r#"trial_days: "731" is not a number of days from 0 to 730"#,
        ),
        (
            "shards: 0",
            r#"shards: "0" is not a number of counter items from 1 to 30"#,
        ),
        (
            "shards: 31",
            r#"shards: "31" is not a number of counter items from 1 to 30"#,
        ),
        (
            "warn_at: 0%",
            r#"warn_at: "0%" is not a percentage: write a whole number from 1% to 100%"#,
        ),
        (
            "warn_at: 101",
            r#"warn_at: "101" is not a percentage: write a whole number from 1% to 100%"#,
        ),
        (
            "alerts_at: [80, 0]",
            r#"alerts_at: "0" is not a percentage to alert at: write a whole number from 1% to 1000%"#,
        ),
        (
            "alerts_at: 1001%",
            r#"alerts_at: "1001%" is not a percentage to alert at: write a whole number from 1% to 1000%"#,
        ),
        (
            "alerts_at: often",
            r#"alerts_at: "often" is not a percentage to alert at: write a whole number from 1% to 1000%"#,
        ),
        (
            "alerts_at: [100, 80, 100%]",
            r#"alerts_at: "100%" names the same percentage twice: leave one out"#,
        ),
        (
            "alerts_at: [1, 2, 3, 4, 5, 6, 7, 8, 9]",
            "alerts_at has 9 percentages: at most 8",
        ),
        (
            "alerts_at: {a: 1}",
            "alerts_at is a mapping: write a percentage like 80%, or a list of them",
        ),
        (
            "past_due: cancel",
            r#"past_due: "cancel" is not a policy: write keep, throttle(5/min) or block, and maybe the grace, as in block after 7d"#,
        ),
        (
            "past_due: after 7d",
            r#"past_due: "after 7d" is not a policy: write keep, throttle(5/min) or block, and maybe the grace, as in block after 7d"#,
        ),
        (
            "past_due: throttle(5) after 7d",
            r#"past_due: "throttle(5) after 7d" is not a throttle: write it with a slower limit, like throttle(5/min)"#,
        ),
        (
            "past_due: throttle(48001/min)",
            r#"past_due: "throttle(48001/min)" is more than 48000 a minute for each counter item: the tier needs shards: 2"#,
        ),
        (
            "past_due: block after 61d",
            r#"past_due: "block after 61d" has a grace that is not 0 to 60 days: write it like after 7d"#,
        ),
        (
            "past_due: block after 2w",
            r#"past_due: "block after 2w" has a grace that is not 0 to 60 days: write it like after 7d"#,
        ),
        (
            "past_due: [keep]",
            "past_due is a list: write keep, throttle(5/min) or block",
        ),
        ("support: []", "support is a list: write a short text"),
        ("endpoints: []", "endpoints is empty: name at least one route"),
        (
            "endpoints: [v1]",
            r#"endpoints: "v1" is not a route: write a path like /v1/items/*, or POST /v1/items"#,
        ),
        (
            "endpoints: [/v1/a*]",
            r#"endpoints: "/v1/a*" is not a route: a wildcard stands for a whole segment, as in /v1/*/items"#,
        ),
        (
            "endpoints: [FETCH /v1]",
            r#"endpoints: "FETCH /v1" is not a route: the method must be GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS, or left out"#,
        ),
        (
            "endpoints: [/a/b, /a/b/]",
            r#"endpoints: "/a/b/" is the same route as one on line 6"#,
        ),
        (
            "endpoints: [/a/*/c, /a/b/*]",
            r#"endpoints: "/a/b/*" and /a/*/c on line 6 match some route both, and neither is the more specific one: write them so that one contains the other, or so that they do not meet"#,
        ),
        (
            "endpoints: [POST /a/*, /a/b]",
            r#"endpoints: "/a/b" and POST /a/* on line 6 match some route both, and neither is the more specific one: write them so that one contains the other, or so that they do not meet"#,
        ),
        (
            "weights: {/v1/a: 0}",
            r#"weights: /v1/a: "0" is not a number of units from 1 to 1000000"#,
        ),
        (
            "weights: {a: 1}",
            r#"weights: "a" is not a route: write a path like /v1/items/*, or POST /v1/items"#,
        ),
        (
            "weights: {/v1/a: 101}",
            r#"weights: "/v1/a" takes 101 units, but tiers.pro.rate_limit admits 100 at most, so the request could never be admitted"#,
        ),
        ("rate_limt: 5/s", "rate_limt is not a field: did you mean rate_limit?"),
        ("included: 5", "included is not a field: did you mean included_calls?"),
        (
            "color: red",
            "color is not a field: there are price, included_calls, rate_limit, endpoints, support, overage, sla, at_quota, spend_cap, trial_days, shards, weights, warn_at, alerts_at, past_due, groups",
        ),
        (
            "groups: {g: {endpoints: [/v1/s]}}",
            "groups.g limits nothing: give it rate_limit, included_calls or both",
        ),
        (
            "groups: {G: {endpoints: [/v1/s], rate_limit: 1/s}}",
            "groups.G is not a group's name: use a-z, 0-9 and _, at most 16",
        ),
        (
            "groups: {g: {rate_limit: 1/s}}",
            "groups.g.endpoints is missing: name at least one route, like [/v1/*]",
        ),
        (
            "groups: {g: {endpoints: [/v1/s], rate_limit: custom}}",
            r#"groups.g.rate_limit: "custom" is not for a group: write a rate limit like 5/s"#,
        ),
        (
            "groups: {g: {endpoints: [/v1/s], rate_limit: [1/s, 1/2s, 1/3s]}}",
            "groups.g.rate_limit has 3 limits: at most 2",
        ),
        (
            "groups: {g: {endpoints: [/v1/s], rate_limit: 900/s}}",
            r#"groups.g.rate_limit: "900/s" is more than 48000 a minute for each counter item: the tier needs shards: 2"#,
        ),
        (
            "groups: {g: {endpoints: [/v1/s], included_calls: 5, at_quota: overage}}",
            r#"groups.g.at_quota: "overage" is not for a group: what exceeds a group's quota is not billed"#,
        ),
        (
            "groups: {g: {endpoints: [/v2/s], rate_limit: 1/s}}",
            r#"groups.g.endpoints: "/v2/s" is a route that no tier names"#,
        ),
        (
            "groups: {g: {endpoints: [/v1/s], rate_limit: 1/s}, h: {endpoints: [/v1/s], rate_limit: 1/s}}",
            r#"groups.h.endpoints: "/v1/s" is the same route as one on line 7"#,
        ),
    ] {
        assert_eq!(told(line), problem, "{line}");
    }
}

#[test]
fn the_file_as_a_whole() {
    for (text, problem) in [
        ("", "tiers.yaml:1: the file is empty: it needs `tiers:`"),
        ("# nothing\n", "tiers.yaml:1: the file is empty: it needs `tiers:`"),
        ("---\n", "tiers.yaml:1: the file is empty: it needs `tiers:`"),
        (
            "tiers:\n",
            "tiers.yaml:1: tiers is empty: give it a value or leave it out",
        ),
        (
            "tiers: {}\n",
            "tiers.yaml:1: tiers is empty: the file needs at least one tier",
        ),
        (
            "tiers: []\n",
            "tiers.yaml:1: tiers is a list: write a mapping from each tier's name to its fields",
        ),
        ("[]\n", "tiers.yaml:1: is a list: write a mapping with the field tiers"),
        (
            "tiers\n",
            "tiers.yaml:1: \"tiers\" is not a mapping with the field tiers",
        ),
        (
            "currency: usd\n",
            "tiers.yaml:1: tiers is missing: the file needs at least one tier",
        ),
        (
            "tiers: {a: 5}\n",
            "tiers.yaml:1: tiers.a: \"5\" is not a mapping with the tier's fields",
        ),
        (
            "a: [\n",
            "tiers.yaml:2: is not YAML that can be read: while parsing a node, did not find expected node content",
        ),
        (
            "tiers:\n\ta: 1\n",
            "tiers.yaml:2: is not YAML that can be read: tabs disallowed within this context (block indentation)",
        ),
    ] {
        assert_eq!(errors(text), problem, "{text:?}");
    }
    let two = format!("{EXAMPLE}---\n{EXAMPLE}");
    assert!(
        errors(&two).starts_with("tiers.yaml:6: a second YAML document begins here"),
        "{}",
        errors(&two)
    );
    let twice = EXAMPLE.replace("  pro:", "  free:");
    assert_eq!(
        errors(&twice),
        "tiers.yaml:3: tiers.free is here a second time, first on line 2"
    );
    let twice = EXAMPLE.replace("price: 49/month", "price: 49/month, \"price\": 5");
    assert_eq!(
        errors(&twice),
        "tiers.yaml:3: tiers.pro.price is here a second time, first on line 3"
    );
    let name = EXAMPLE.replace("  pro:", "  Pro Plus:");
    assert_eq!(
        errors(&name),
        "tiers.yaml:3: tiers.Pro Plus is not a tier's name: use a-z, 0-9, _ and -, at most 32"
    );
    let near = format!("curency: usd\n{EXAMPLE}");
    assert_eq!(
        errors(&near),
        "tiers.yaml:1: curency is not a field: did you mean currency?"
    );
    assert_eq!(
        load(&format!("\u{feff}{}", EXAMPLE.replace('\n', "\r\n"))),
        load(EXAMPLE)
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_lines() {
    let text = "\
tiers:
  free:
    price: free
    included_calls: 1000/fortnight
    rate_limit: 10/min
    rate_limit: 20/min
    endpoints: [/v1/basic/*, v2]
    suport: none
  pro:
    price:

    rate_limit: [100/min, 5/parsec]
    endpoints: [/v1/*]
    shards: many
currency: dollars
meters: {Tokens: [/v1/x]}
";
    assert_eq!(
        errors(text),
        "\
tiers.yaml:3: tiers.free.price: \"free\" is not an amount: write a number like $49.50
tiers.yaml:4: tiers.free.included_calls: \"1000/fortnight\" has a period that is neither month nor year
tiers.yaml:6: tiers.free.rate_limit is here a second time, first on line 5
tiers.yaml:7: tiers.free.endpoints: \"v2\" is not a route: write a path like /v1/items/*, or POST /v1/items
tiers.yaml:8: tiers.free.suport is not a field: did you mean support?
tiers.yaml:9: tiers.pro.included_calls is missing: write a quota like 50000/month, unlimited or custom
tiers.yaml:10: tiers.pro.price is empty: give it a value or leave it out
tiers.yaml:12: tiers.pro.rate_limit: \"5/parsec\" is not a rate limit: write a number per s, min, h or day, like 100/min
tiers.yaml:14: tiers.pro.shards: \"many\" is not a number of counter items from 1 to 30
tiers.yaml:15: currency: \"dollars\" is not a currency that Stripe charges in: write an ISO code like usd
tiers.yaml:16: meters.Tokens is not a meter's name: use a-z, 0-9 and _, at most 20"
    );
    let errors = Catalog::from_yaml(text, "tiers.yaml").unwrap_err();
    let limit = &errors.as_slice()[7];
    assert_eq!(
        (limit.line, limit.column, limit.field.as_str(), limit.value.as_str()),
        (12, 27, "tiers.pro.rate_limit", "5/parsec")
    );
}

#[test]
fn patterns_of_different_tiers_must_be_ordered() {
    let text = "\
tiers:
  a: {price: 0, included_calls: 10, rate_limit: 1/s, endpoints: [/v1/*/public]}
  b: {price: 0, included_calls: 10, rate_limit: 1/s, endpoints: [/v1/admin/*]}
meters:
  tokens: [POST /v1/*]
  bytes: [/v1/admin/public]
weights: {POST /v1/*: 2, /v1/admin/public: 3}
";
    let both = "match some route both, and neither is the more specific one: \
                write them so that one contains the other, or so that they do not meet";
    assert_eq!(
        errors(text),
        format!(
            "\
tiers.yaml:3: tiers.b.endpoints: \"/v1/admin/*\" and /v1/*/public on line 2 {both}
tiers.yaml:6: meters.bytes: \"/v1/admin/public\" and POST /v1/* on line 5 {both}
tiers.yaml:7: weights: \"/v1/admin/public\" and POST /v1/* on line 7 {both}"
        )
    );
}

/// A file of one tier `a` and one `b` above it, with more for `a` and for the file.
fn ladder(a: &str, b: &str, file: &str) -> String {
    format!(
        "tiers:\n  a: {{price: 0, included_calls: 1000, rate_limit: 10/min, {a}}}\n  \
        b: {{price: 0, included_calls: unlimited, rate_limit: unlimited, {b}}}\n{file}"
    )
}

#[test]
fn a_weight_must_fit_where_its_route_is_open() {
    // Only b has the route that weighs 50, so a's limit of 10 does not matter.
    load(&ladder(
        "endpoints: [/v1/*]",
        "endpoints: [/v1/*, POST /v1/generate]",
        "weights: {POST /v1/generate: 50}",
    ));
    // A lighter weight decides over all that a has.
    load(&ladder(
        "endpoints: [/v1/a]",
        "endpoints: [/v1/*]",
        "weights: {/v1/*: 50, /v1/a: 2}",
    ));
    // Each weight is judged where it decides.
    let told = errors(&ladder(
        "endpoints: [/v1/x]",
        "endpoints: [/v1/*]",
        "weights: {/v1/*: 50, /v1/x: 60}",
    ));
    assert_eq!(
        told,
        "tiers.yaml:4: weights: \"/v1/x\" takes 60 units, but tiers.a.rate_limit admits 10 at most, so the request \
         could never be admitted"
    );
    // The tier says other than the file.
    load(&ladder(
        "endpoints: [/v1/*], weights: {/v1/*: 1}",
        "endpoints: [/v1/*]",
        "weights: {/v1/generate: 50}",
    ));
    for (a, file) in [
        ("endpoints: [/v1/*]", "weights: {/v1/generate: 50}"),
        ("endpoints: [/v1/*]", "weights: {/v1/*: 1, DELETE /v1/generate: 50}"),
        ("endpoints: [/v1/generate]", "weights: {/*: 50}"),
        ("endpoints: [/*]", "weights: {/*: 50, '/{x}': 1}"),
        ("endpoints: ['/v1/*/{x}', '/v1/{x}']", "weights: {/v1/*/*: 50}"),
    ] {
        let told = errors(&ladder(a, "endpoints: [/v1/*]", file));
        assert!(told.starts_with("tiers.yaml:4: weights: \""), "{told}");
        assert!(
            told.ends_with(
                "takes 50 units, but tiers.a.rate_limit admits 10 at most, so the request could never be admitted"
            ),
            "{told}"
        );
    }
    for (a, what) in [
        (
            "endpoints: [/v1/*], groups: {g: {endpoints: [/v1/x], rate_limit: 5/s}}",
            "groups.g.rate_limit admits 5",
        ),
        (
            "endpoints: [/v1/*], groups: {g: {endpoints: [/v1/x], included_calls: 6}}",
            "groups.g.included_calls admits 6",
        ),
        ("endpoints: [/v1/*], at_quota: throttle(3/min)", "at_quota admits 3"),
        ("endpoints: [/v1/*], shards: 2", "rate_limit admits 5"),
    ] {
        let told = errors(&ladder(a, "endpoints: [/v1/*]", "weights: {/v1/*: 1, /v1/x: 7}"));
        assert!(
            told.contains(&format!("takes 7 units, but tiers.a.{what} at most")),
            "{told}"
        );
    }
    let small = ladder("endpoints: [/v1/*]", "endpoints: [/v1/*]", "weights: {/v1/x: 7}").replace("1000", "5");
    assert!(errors(&small).contains("takes 7 units, but tiers.a.included_calls admits 5 at most"));
}

#[test]
fn a_group_is_within_its_tier() {
    for narrower in ["POST /v1/search/*", "/v1/search/{x}"] {
        load(&ladder(
            "endpoints: [/v1/*], groups: {g: {endpoints: [/v1/search/*], rate_limit: 5/s}}",
            &format!("endpoints: ['{narrower}']"),
            "",
        ));
    }
    load(&ladder(
        "endpoints: [/v1/*], groups: {g: {endpoints: [/v1/search/*], rate_limit: 5/s}}",
        "endpoints: [/v1/search/deep]",
        "",
    ));
    assert_eq!(
        errors(&ladder(
            "endpoints: [/v1/*], groups: {g: {endpoints: [/v1/search/*], rate_limit: 5/s}}",
            "endpoints: [/v1/search/*]",
            ""
        )),
        "tiers.yaml:2: tiers.a.groups.g.endpoints: \"/v1/search/*\" is not open to the tier a, only from b on"
    );
    assert_eq!(
        errors(&ladder(
            "endpoints: [/v1/search/*], groups: {g: {endpoints: [/v1/*], rate_limit: 5/s}}",
            "endpoints: [/v1/*]",
            ""
        )),
        "tiers.yaml:2: tiers.a.groups.g.endpoints: \"/v1/*\" is not open to the tier a, only from b on"
    );
    let five: String = (0..5)
        .map(|n| format!("g{n}: {{endpoints: [/v1/{n}], rate_limit: 1/s}}, "))
        .collect();
    assert_eq!(
        errors(&ladder(
            &format!("endpoints: [/v1/*], groups: {{{five}}}"),
            "endpoints: [/v1/*]",
            ""
        )),
        "tiers.yaml:2: tiers.a.groups has 5 groups: at most 4"
    );
}

#[test]
fn a_meter_that_counts_must_have_a_quota_or_a_price() {
    let tokens = "meters: {tokens: [/v1/generate]}";
    assert_eq!(
        errors(&ladder("endpoints: [/v1/*]", "endpoints: [/v2/*]", tokens)),
        "tiers.yaml:2: tiers.a.included_calls: \"1000\" says nothing of the meter tokens, which counts /v1/generate: \
         add it, maybe as unlimited"
    );
    load(&ladder("endpoints: [/v1/basic]", "endpoints: [/v2/*]", tokens));
    load(&ladder(
        "endpoints: [/v1/*], overage: $0.1/call",
        "endpoints: [/v2/*]",
        "",
    ));
    load(&ladder(
        "endpoints: [/v1/*], overage: {tokens: 1, api_calls: 1}",
        "endpoints: [/v2/*]",
        tokens,
    ));
    assert_eq!(
        errors(&ladder(
            "endpoints: [/v1/*], overage: $0.1/tokens",
            "endpoints: [/v2/*]",
            tokens
        )),
        "tiers.yaml:2: tiers.a.at_quota bills what exceeds the quota, but api_calls has a quota and no overage price"
    );
    assert_eq!(
        errors(&ladder("endpoints: [/v1/*]", "endpoints: [/v1/*], overage: 1", "")),
        "tiers.yaml:3: tiers.b.overage: \"1\" would never be charged: the included units are unlimited"
    );
    let caps = ladder(
        "endpoints: [/v1/*], overage: {tokens: 1, api_calls: 1}, spend_cap: 5",
        "endpoints: [/v2/*]",
        tokens,
    );
    assert_eq!(
        errors(&caps),
        "tiers.yaml:2: tiers.a.spend_cap: \"5\" does not say which meter: write a mapping from each \
        priced meter to its cap"
    );
    let flat = ladder(
        "endpoints: [/v1/*], overage: {tokens: {volume: [{flat: 6}]}, api_calls: 1}, spend_cap: {tokens: 5}",
        "endpoints: [/v2/*]",
        tokens,
    );
    assert_eq!(
        errors(&flat),
        "tiers.yaml:2: tiers.a.spend_cap.tokens: \"5\" is below the flat amount that is due without any usage"
    );
}

#[test]
fn terms_close_what_is_custom() {
    let catalog = load(EXAMPLE);
    assert_eq!(
        catalog.terms("gold", &Overrides::default()).unwrap_err().to_string(),
        "no tier \"gold\": there are free, pro, enterprise"
    );
    let open = catalog.terms("enterprise", &Overrides::default()).unwrap_err();
    assert_eq!(
        open,
        TermsError::Open {
            tier: "enterprise".into(),
            fields: vec!["price", "included", "limits"]
        }
    );
    assert_eq!(
        open.to_string(),
        "tier enterprise needs an agreement on price, included, limits"
    );
    let mut overrides: Overrides = serde_json::from_str(
        r#"{"price":{"amount":1000000,"interval":"month"},"included":{"api_calls":1000000},
            "limits":[{"units":1000,"window_ms":60000}]}"#,
    )
    .unwrap();
    let terms = catalog.terms("enterprise", &overrides).unwrap();
    assert_eq!(terms.at_quota, AtQuota::Block);
    assert_eq!(terms.included_units("api_calls"), Some(1_000_000));

    // Prices bring their policy with them.
    overrides.overage = Some([("api_calls".to_owned(), UsagePrice::PerUnit("0.1".parse().unwrap()))].into());
    overrides.spend_cap = Some([("api_calls".to_owned(), Money(100))].into());
    let terms = catalog.terms("enterprise", &overrides).unwrap();
    assert_eq!(terms.at_quota, AtQuota::Overage);
    assert_eq!(terms.cap_units["api_calls"], 1_001_004);
    assert_eq!(terms.usage_amount("api_calls", 1_001_004), Ok(Money(100)));
    assert_eq!(terms.usage_amount("api_calls", 1_001_005), Ok(Money(101)));
}

#[test]
fn overrides_keep_the_rules_of_the_file() {
    let catalog = load(EXAMPLE);
    for (overrides, problem) in [
        (
            r#"{"limits":[{"units":60000,"window_ms":60000}]}"#,
            "tier pro with its overrides: rate_limit is more than 48000 a minute for each counter item: the tier needs shards: 2",
        ),
        (
            r#"{"limits":[{"units":0,"window_ms":60000}]}"#,
            "tier pro with its overrides: rate_limit admits nothing: a rate limit is at least 1",
        ),
        (
            r#"{"overage":{}}"#,
            "tier pro with its overrides: at_quota bills what exceeds the quota, but no overage price is given",
        ),
        (
            r#"{"overage":{},"at_quota":"block","spend_cap":{"api_calls":5}}"#,
            "tier pro with its overrides: spend_cap.api_calls caps the meter api_calls, which has no overage price",
        ),
        (
            r#"{"included":{"api_calls":null}}"#,
            "tier pro with its overrides: overage.api_calls would never be charged: the included units are unlimited",
        ),
        (
            r#"{"included":{"api_calls":1000000000000000}}"#,
            "tier pro with its overrides: included_calls.api_calls is too large: a count has at most 15 digits",
        ),
        (
            r#"{"included":{"tokens":5}}"#,
            "tier pro with its overrides: included_calls.tokens names the meter tokens, which the file does not have; \
             at_quota bills what exceeds the quota, but tokens has a quota and no overage price",
        ),
        (
            r#"{"overage":{"api_calls":{"graduated":[]}}}"#,
            "tier pro with its overrides: overage.api_calls has no steps",
        ),
        (
            r#"{"price":{"amount":5,"interval":"year"}}"#,
            "tier pro with its overrides: price is per year, but the tier's quota is per month: agree on included too",
        ),
        (
            r#"{"alert_percents":[100,1001,100,2000,100]}"#,
            "tier pro with its overrides: alerts_at: \"100%\" names the same percentage twice: leave one out; \
             alerts_at: \"1001%\" is not a percentage from 1% to 1000%; \
             alerts_at: \"2000%\" is not a percentage from 1% to 1000%",
        ),
        (
            r#"{"past_due":{"grace_s":5184001,"policy":{"throttle":{"units":0,"window_ms":1000}}}}"#,
            "tier pro with its overrides: past_due admits nothing: a rate limit is at least 1; \
             past_due has a grace of more than 60 days",
        ),
    ] {
        let overrides: Overrides = serde_json::from_str(overrides).unwrap();
        assert_eq!(catalog.terms("pro", &overrides).unwrap_err().to_string(), problem);
    }
    assert!(serde_json::from_str::<Overrides>(r#"{"limit":[]}"#).is_err());
}

#[test]
fn terms_hold_what_a_customer_agreed_on() {
    let catalog = load(FULL);
    let terms = catalog.terms("team", &Overrides::default()).unwrap();
    assert_eq!((terms.currency, terms.trial_days), (Currency::USD, 14));
    assert_eq!(terms.spend_cap["api_calls"], Money(10_000));
    assert_eq!((terms.support, terms.sla.as_deref()), (None, Some("99.9%")));
    assert_eq!(terms.alert_percents, [50, 90, 1000]);
    let overrides = Overrides {
        alert_percents: Some(vec![100, 50]),
        past_due: Some("keep".parse().unwrap()),
        ..Overrides::default()
    };
    let terms = catalog.terms("team", &overrides).unwrap();
    assert_eq!(terms.alert_percents, [50, 100]);
    assert_eq!(terms.past_due.policy, PastDuePolicy::Keep);
}

#[test]
fn only_a_tier_that_blocks_bills_because_prices_were_agreed_on() {
    let price = || UsagePrice::PerUnit("0.1".parse().unwrap());
    let agreed = |text: &str, tier: &str, prices: &[&str]| {
        let overrides = Overrides {
            overage: Some(prices.iter().map(|meter| ((*meter).to_owned(), price())).collect()),
            ..Overrides::default()
        };
        load(text).terms(tier, &overrides).map(|terms| terms.at_quota)
    };
    assert_eq!(agreed(EXAMPLE, "free", &["api_calls"]), Ok(AtQuota::Overage));
    assert_eq!(
        agreed(EXAMPLE, "free", &[]),
        Ok(AtQuota::Block),
        "no price, nothing to bill"
    );
    // Who slows down goes on to do so: then the price would never be charged, which is said.
    let slow = agreed(FULL, "start", &["api_calls"]);
    assert!(!matches!(slow, Ok(AtQuota::Overage)), "{slow:?}");
}

#[test]
fn a_price_is_agreed_on_up_to_twelve_digits() {
    let agreed = |amount| {
        let overrides = Overrides {
            price: Some(BasePrice {
                amount,
                interval: Interval::Month,
            }),
            ..Overrides::default()
        };
        load(EXAMPLE).terms("pro", &overrides)
    };
    assert_eq!(agreed(MONEY_MAX).unwrap().price.amount, MONEY_MAX);
    let problem = agreed(Money(MONEY_MAX.0 + 1)).unwrap_err().to_string();
    assert!(problem.contains("price is too large"), "{problem}");
}

#[test]
fn another_period_needs_another_quota() {
    let yearly = |tier: &str, included: Option<u64>| {
        let overrides = Overrides {
            price: Some(BasePrice {
                amount: Money(50_000),
                interval: Interval::Year,
            }),
            included: included.map(|units| [("api_calls".to_owned(), Some(units))].into()),
            limits: Some(vec![Limit {
                units: 100,
                window_ms: 60_000,
            }]),
            ..Overrides::default()
        };
        load(EXAMPLE).terms(tier, &overrides).map(|terms| terms.price.interval)
    };
    assert_eq!(yearly("pro", Some(600_000)), Ok(Interval::Year));
    let problem = yearly("pro", None).unwrap_err().to_string();
    assert!(problem.contains("agree on included too"), "{problem}");
    assert_eq!(
        yearly("enterprise", Some(600_000)),
        Ok(Interval::Year),
        "nothing was listed"
    );
}

#[test]
fn what_the_file_writes_per_month_is_not_sold_per_year() {
    let file = |tier: &str| {
        load(&format!(
            "tiers:\n  t: {{{tier}, rate_limit: unlimited, endpoints: [/v1/*]}}\n"
        ))
    };
    let agreed = |tier: &str, overrides: Overrides| file(tier).terms("t", &overrides).map(|terms| terms.price.interval);
    let yearly = || Overrides {
        price: Some(BasePrice {
            amount: Money(9_990_000),
            interval: Interval::Year,
        }),
        ..Overrides::default()
    };
    let quota = || Some([("api_calls".to_owned(), Some(12_000_000))].into());
    let custom = "price: custom, included_calls: 1000000/month, overage: $0.001/call";
    let problem = agreed(custom, yearly()).unwrap_err().to_string();
    assert!(
        problem.contains("price is per year, but the tier's quota is per month: agree on included too"),
        "{problem}"
    );
    let with_quota = Overrides {
        included: quota(),
        ..yearly()
    };
    assert_eq!(agreed(custom, with_quota.clone()), Ok(Interval::Year));

    for price in ["custom", "49/month"] {
        let capped =
            format!("price: {price}, included_calls: 1000000/month, overage: $0.001/call, spend_cap: $500/month");
        let problem = agreed(&capped, with_quota.clone()).unwrap_err().to_string();
        assert!(
            problem.contains("the tier's spend cap is per month: agree on spend_cap too"),
            "{problem}"
        );
        let all = Overrides {
            spend_cap: Some([("api_calls".to_owned(), Money(600_000))].into()),
            ..with_quota.clone()
        };
        assert_eq!(agreed(&capped, all), Ok(Interval::Year));
    }
    let grouped = format!("{custom}, groups: {{search: {{endpoints: [/v1/search/*], included_calls: 500/month}}}}");
    let problem = agreed(&grouped, with_quota.clone()).unwrap_err().to_string();
    assert!(
        problem.contains("the tier's quota of the group search is per month"),
        "{problem}"
    );
    // What names no period is of the one that is agreed on.
    let open = "price: custom, included_calls: 1000000, overage: $0.001/call";
    assert_eq!(agreed(open, yearly()), Ok(Interval::Year));
}

#[test]
fn a_tier_that_admits_nothing_is_refused_though_it_has_a_price() {
    let text = "tiers:\n  t: {price: 0, included_calls: 0/month, overage: $0.01/call, at_quota: block, rate_limit: 5/s, endpoints: [/v1/*]}\n";
    let problem = Catalog::from_yaml(text, "tiers.yaml").unwrap_err().to_string();
    assert!(problem.contains("could never be admitted"), "{problem}");
}

#[test]
fn an_amount_is_of_the_files_currency() {
    let euro: Currency = "eur".parse().unwrap();
    assert_eq!(parse_amount("€99.50", euro), Ok(Money(9_950)));
    assert_eq!(parse_amount("99.50 EUR", euro), Ok(Money(9_950)));
    assert_eq!(
        parse_amount("$100", euro).unwrap_err(),
        "is in $, but the file's currency is eur"
    );
}

#[test]
fn usage_costs_what_stripes_invoice_shows() {
    let step = |up_to, unit: &str, flat| Step {
        up_to,
        unit: unit.parse().unwrap(),
        flat: Money(flat),
    };
    let amount = |price: &UsagePrice, units| price.amount(Some(0), units).unwrap().0;
    // The first flat amount is due without any unit, the second with the first unit beyond the first step.
    let graduated = UsagePrice::Graduated(vec![step(Some(10), "1", 500), step(None, "0.5", 70)]);
    assert_eq!(
        [0, 1, 10, 11, 12].map(|units| amount(&graduated, units)),
        [500, 501, 510, 581, 581]
    );
    let volume = UsagePrice::Volume(vec![step(Some(10), "1", 0), step(None, "0.5", 3)]);
    assert_eq!([0, 1, 10, 11, 12].map(|units| amount(&volume, units)), [0, 1, 10, 9, 9]);
}

#[test]
fn a_catalog_stored_before_a_field_was_there_gets_its_default() {
    let catalog = load(EXAMPLE);
    let mut stored = serde_json::to_value(&catalog).unwrap();
    for tier in stored["tiers"].as_array_mut().unwrap() {
        let tier = tier.as_object_mut().unwrap();
        assert!(tier.remove("alert_percents").is_some());
        assert!(tier.remove("past_due").is_some());
    }
    assert_eq!(serde_json::from_value::<Catalog>(stored).unwrap(), catalog);
}

#[test]
fn nothing_changes_before_the_grace_is_over() {
    let past_due: PastDue = "block after 7d".parse().unwrap();
    let since = 1_000_000;
    let end = since + 7 * 86_400;
    for (now, policy) in [
        (0, PastDuePolicy::Keep),
        (since, PastDuePolicy::Keep),
        (end - 1, PastDuePolicy::Keep),
        (end, PastDuePolicy::Block),
        (u64::MAX, PastDuePolicy::Block),
    ] {
        assert_eq!(past_due.at(since, now), policy, "{now}");
    }
    let at_once: PastDue = "block after 0d".parse().unwrap();
    assert_eq!(at_once.at(since, since), PastDuePolicy::Block);
}

#[test]
fn past_due_is_shown_as_it_is_written() {
    for text in ["keep", "block after 0d", "throttle(5/min) after 60d"] {
        assert_eq!(text.parse::<PastDue>().unwrap().to_string(), text);
    }
    assert_eq!("block".parse::<PastDue>().unwrap().to_string(), "block after 7d");
    assert_eq!("throttle(10/min)".parse(), Ok(PastDue::default()));
}

/// What holds by default must fit every tier that is valid without it: one of many shards, one of heavy requests.
#[test]
fn the_default_throttle_leaves_every_shard_a_unit() {
    let catalog = load(&with("shards", "shards: 30"));
    let terms = catalog.terms("pro", &Overrides::default()).unwrap();
    assert_eq!(terms.past_due.to_string(), "throttle(30/min) after 7d");
    load(&with("weights", "weights: {/v1/a: 100}"));
    let own = "shards: 30\n    past_due: throttle(5/min)";
    assert_eq!(
        errors(&with("shards", own)),
        "tiers.yaml:8: tiers.pro.past_due: \"throttle(5/min)\" cannot be split over 30 shards: each needs at least 1"
    );
}

#[test]
fn limits_are_shown_as_they_are_written() {
    for text in ["100/min", "20/s", "5/10s", "1000/h", "5/day", "7/90s", "9/2h"] {
        assert_eq!(text.parse::<Limit>().unwrap().to_string(), text);
    }
    assert_eq!("60/60s".parse::<Limit>().unwrap().to_string(), "60/min");
}
