//! The estimate: totals worked out by hand, and what must hold for every input.

use farebox_core::cost::{Amount, BadInput, Estimate, Input, Line, Part, Price, Quantity, estimate};
use proptest::prelude::*;

fn bill(change: impl FnOnce(&mut Input)) -> Estimate {
    let mut input = Input::default();
    change(&mut input);
    estimate(&input).unwrap()
}

fn line(bill: &Estimate, item: &str) -> (u64, u64) {
    let line = bill.lines.iter().find(|line| line.item == item);
    let line = line.unwrap_or_else(|| panic!("no line {item}"));
    (line.quantity.milli, line.amount.nano)
}

/// Each figure worked out by hand from the price list and the model in the comments.
#[test]
fn ten_million_calls_cost_what_they_cost_by_hand() {
    let bill = bill(|_| ());
    let by_hand = [
        // 10 M × $3.50/M; 10 M × 2,048 B = 20,480,000,000 B = 19.0735 GB, rounded up to a thousandth, × $0.09
        (
            Part::Gateway,
            "REST API, first 333 million requests",
            10_000_000_000,
            35_000_000_000,
        ),
        (Part::Gateway, "answers to the internet", 19_074, 1_716_660_000),
        // 10 M × $0.20/M; 10 M × 8 ms × 1/4 GB = 20,000 GB-s × $0.0000133334
        (Part::Use, "authorizer, requests", 10_000_000_000, 2_000_000_000),
        (Part::Use, "authorizer, deciding", 20_000_000, 266_668_000),
        // 100 customers × 200 h = 20,000 rows; × 600 s × 2 environments = 24 M seconds: 10 M × 24 M / 34 M = 7,058,823.5
        // messages; × 8 ms × 1/4 GB = 14,117.648 GB-s
        (Part::Use, "authorizer, sending usage", 14_117_648, 188_236_248),
        // 10 M × 400 B + 20,000 × 1,500 B = 4,030,000,000 B = 3.7532 GB
        (Part::Use, "headers of Farebox, reports to Stripe", 3_754, 337_860_000),
        // 10 M × $0.625/M
        (Part::Use, "decisions, one write each", 10_000_000_000, 6_250_000_000),
        // 20,000 rows × (120 folds + 12)
        (Part::Use, "ledger and sealing, writes", 2_640_000_000, 1_650_000_000),
        // 2 × 730 starts × (2 × 100 + 2) + 3 × 20,000 rows
        (Part::Use, "keys, customers and rows, reads", 354_920_000, 44_365_000),
        // 18 × 20,000 KiB = 0.3433 GB
        (Part::Use, "18 months of ledger, storage", 344, 86_000_000),
        (
            Part::Use,
            "18 months of ledger, point-in-time recovery",
            344,
            68_800_000,
        ),
        // 2 × 7,058,824 + 705,883
        (
            Part::Use,
            "usage messages, sent, received and deleted",
            14_823_531_000,
            5_929_412_400,
        ),
        // 2 × 43,800 minutes + 7,058,824 / 5,000
        (Part::Use, "consumer, requests", 89_011_000, 17_802_200),
        // (89,011 × 50 + 2,400,000 + 20,000 × 100) ms × 1/2 GB = 4,425.275 GB-s
        (Part::Use, "consumer, folding and reporting", 4_425_275, 59_003_962),
        // 2 × 2,628,000 s / 10 s × 700 B + 89,011 × 1,000 B = 456,931,000 B = 0.42555 GB
        (Part::Use, "logs of calls, taken in", 426, 213_000_000),
        (Part::Use, "logs of calls, kept for a month", 426, 12_780_000),
        // 12 of the authorizer and 4 of the consumer
        (Part::Use, "metrics of calls", 16_000, 4_800_000_000),
        (Part::Fixed, "alarms", 23_000, 2_300_000_000),
        (Part::Fixed, "dashboard", 1_000, 3_000_000_000),
        (Part::Fixed, "metrics of ticks and customers", 4_000, 1_200_000_000),
        // (8,760 ticks + 31 scans) × 1,000 B = 0.00819 GB
        (Part::Fixed, "logs of ticks, taken in", 9, 4_500_000),
        (Part::Fixed, "secrets", 3_000, 1_200_000_000),
        // 3 × 730 × $0.05 / 10,000
        (Part::Fixed, "looking them up", 2_190_000, 10_950_000),
        // 2 queues × 5 × 2,628,000 s / 20 s
        (Part::Fixed, "polling of two empty queues", 1_314_000_000, 525_600_000),
        (Part::Fixed, "ticks and scans", 8_791_000, 8_791_000),
        (Part::Fixed, "ticks and scans, requests", 8_791_000, 1_758_200),
        // (8,760 × 100 + 31 × 100 × 5) ms × 1/2 GB = 445.75 GB-s
        (Part::Fixed, "ticks and scans, duration", 445_750, 5_943_363),
        // 8,760 × 4 + 31 × 500 KiB / 8 KiB
        (Part::Fixed, "ticks and scans, reads", 36_993_000, 4_624_125),
        // 100 × 5 KiB: the smallest step
        (Part::Fixed, "customers, storage", 1, 250_000),
        (Part::Fixed, "customers, point-in-time recovery", 1, 200_000),
        (Part::Fixed, "HTTP API, Stripe's events", 1_200_000, 1_200_000),
        // 1,200 events × 6 + 400 alerts × 5
        (Part::Fixed, "Stripe's events and alerts, writes", 9_200_000, 5_750_000),
        (Part::Fixed, "webhook and notifier, requests", 1_600_000, 320_000),
        // 1,600 × 200 ms × 1/2 GB = 160 GB-s
        (Part::Fixed, "webhook and notifier, duration", 160_000, 2_133_344),
    ];
    let lines: Vec<_> = bill
        .lines
        .iter()
        .map(|line| (line.part, line.item, line.quantity.milli, line.amount.nano))
        .collect();
    assert_eq!(lines, by_hand);

    assert_eq!(bill.month.gateway.to_string(), "$36.72");
    assert_eq!(bill.month.farebox_use.to_string(), "$21.92");
    assert_eq!(bill.month.farebox_fixed.to_string(), "$8.27");
    assert_eq!(bill.month.farebox.to_string(), "$30.20");
    assert_eq!(bill.month.all.to_string(), "$66.91");
    let million = bill.per_million.unwrap();
    assert_eq!(million.gateway.to_string(), "$3.67");
    assert_eq!(million.farebox_use.to_string(), "$2.19");
    assert_eq!(million.farebox.to_string(), "$3.02");
}

#[test]
fn without_a_call_only_what_is_deployed_costs() {
    let idle = bill(|input| input.calls = 0);

    assert!(idle.lines.iter().all(|line| line.part == Part::Fixed));
    assert_eq!(idle.per_million, None);
    assert_eq!(idle.month.all, idle.month.farebox_fixed);
    assert_eq!(idle.month.all.to_string(), "$8.27");
    // Nothing runs: compute is what ticks, scans and Stripe's events take, and less than two cents.
    let compute: u64 = idle
        .lines
        .iter()
        .filter(|line| line.service == "Lambda")
        .map(|line| line.amount.nano)
        .sum();
    assert!(compute < 20_000_000);
    // The rest has a monthly price, or is asked for by Lambda's own pollers.
    let monthly = [
        "alarms",
        "dashboard",
        "metrics of ticks and customers",
        "secrets",
        "polling of two empty queues",
    ];
    let monthly: u64 = monthly.iter().map(|item| line(&idle, item).1).sum();
    assert_eq!(Amount { nano: monthly }.to_string(), "$8.23");
    // And it is what a busy month has too.
    assert_eq!(idle.month.farebox_fixed, bill(|_| ()).month.farebox_fixed);

    let empty = bill(|input| (input.calls, input.customers) = (0, 0));
    assert!(empty.month.all < idle.month.all);
}

#[test]
fn coalescing_saves_messages_where_calls_come_close_together() {
    let messages = |coalescing: bool, active_seconds: u16| {
        let bill = bill(|input| (input.coalescing, input.active_seconds) = (coalescing, active_seconds));
        line(&bill, "usage messages, sent, received and deleted")
    };
    // 10 M sent, 10 M received, 1 M deletions
    assert_eq!(messages(false, 600), (21_000_000_000, 8_400_000_000));
    assert_eq!(messages(false, 1), messages(false, 3_600));
    // A row and second has one message from each environment at most.
    let (requests, _) = messages(true, 1);
    assert!(requests <= 40_000 * 2_100);
    assert!(messages(true, 60) < messages(true, 600));
    assert!(messages(true, 3_600) < messages(false, 3_600));
}

#[test]
fn denials_from_memory_cost_no_write() {
    let abused = bill(|input| input.remembered_percent = 90);
    assert_eq!(line(&abused, "decisions, one write each").0, 1_000_000_000);
    // One call for each of them is still an invocation, and a read.
    assert_eq!(line(&abused, "authorizer, requests").0, 10_000_000_000);
    assert_eq!(
        line(&abused, "keys, customers and rows, reads").0,
        (9_000_000 + 354_920) * 1_000
    );
    // At most twenty reads a second and environment, however many calls: 2 × 20 × 2,628,000 s.
    let flooded = bill(|input| (input.calls, input.remembered_percent) = (1_000_000_000, 100));
    assert_eq!(
        line(&flooded, "keys, customers and rows, reads").0,
        (105_120_000 + 294_920) * 1_000
    );
    assert!(
        flooded
            .lines
            .iter()
            .all(|line| line.item != "decisions, one write each")
    );
}

#[test]
fn api_gateways_tiers_begin_where_they_say() {
    let tiers = |calls: u64| -> Vec<u64> {
        let bill = bill(|input| input.calls = calls);
        let of_tier = |line: &&Line| line.item.starts_with("REST API");
        bill.lines
            .iter()
            .filter(of_tier)
            .map(|line| line.quantity.milli / 1_000)
            .collect()
    };
    assert_eq!(tiers(333_000_000), [333_000_000]);
    assert_eq!(tiers(333_000_001), [333_000_000, 1]);
    assert_eq!(tiers(1_000_000_001), [333_000_000, 667_000_000, 1]);
    assert_eq!(tiers(20_000_000_001), [333_000_000, 667_000_000, 19_000_000_000, 1]);
    // $1,165.50 + $1,867.60 + $45,220 + 80,000 × $1.51
    let bill = bill(|input| (input.calls, input.response_bytes) = (100_000_000_000, 0));
    assert_eq!(bill.month.gateway.to_string(), "$169,053.10");
}

#[test]
fn metrics_may_be_written_with_every_answer() {
    let often = bill(|input| input.metrics_every_s = 0);
    // 10 M × 700 B + 89,011 × 1,000 B = 7,089,011,000 B = 6.6022 GB
    assert_eq!(line(&often, "logs of calls, taken in"), (6_603, 3_301_500_000));
}

#[test]
fn a_field_out_of_range_is_named() {
    let refused = |change: fn(&mut Input)| {
        let mut input = Input::default();
        change(&mut input);
        estimate(&input).unwrap_err()
    };
    let field = |change| refused(change).field;
    assert_eq!(field(|input| input.calls = 1_000_000_000_001), "calls");
    assert_eq!(field(|input| input.remembered_percent = 101), "remembered_percent");
    assert_eq!(field(|input| input.decision_ms = 0), "decision_ms");
    assert_eq!(field(|input| input.send_ms = 10_001), "send_ms");
    assert_eq!(field(|input| input.memory_mb = 127), "memory_mb");
    assert_eq!(field(|input| input.environments = 0), "environments");
    assert_eq!(field(|input| input.customers = 10_000_001), "customers");
    assert_eq!(field(|input| input.customers = 0), "customers");
    assert_eq!(field(|input| input.buckets = 0), "buckets");
    assert_eq!(field(|input| input.active_seconds = 3_601), "active_seconds");
    assert_eq!(field(|input| input.response_bytes = 10_485_761), "response_bytes");
    assert_eq!(field(|input| input.call_metrics = 1_001), "call_metrics");
    let error: BadInput = refused(|input| input.memory_mb = 4_000);
    assert_eq!(error.to_string(), "memory_mb must be 128 to 3,008");
}

#[test]
fn the_largest_input_has_an_amount() {
    let largest = bill(|input| {
        *input = Input {
            calls: 1_000_000_000_000,
            remembered_percent: 0,
            coalescing: false,
            decision_ms: 10_000,
            send_ms: 10_000,
            memory_mb: 3_008,
            environments: 100_000,
            customers: 10_000_000,
            buckets: 800,
            active_seconds: 3_600,
            response_bytes: 10_485_760,
            metrics_every_s: 0,
            call_metrics: 1_000,
            ..Input::default()
        };
    });
    let sum: u128 = largest.lines.iter().map(|line| u128::from(line.amount.nano)).sum();
    assert_eq!(u128::from(largest.month.all.nano), sum);
    assert!(sum < u128::from(u64::MAX) / 2);
}

#[test]
fn it_reads_as_people_say_it() {
    let quantity = |milli| Quantity { milli }.to_string();
    assert_eq!(quantity(10_000_000_000), "10,000,000");
    assert_eq!(quantity(344), "0.344");
    assert_eq!(quantity(1_250_500), "1,250.5");
    assert_eq!(quantity(0), "0");
    let amount = |nano| Amount { nano }.to_string();
    assert_eq!(amount(0), "$0.00");
    assert_eq!(amount(1), "<$0.01");
    assert_eq!(amount(4_999_999), "<$0.01");
    assert_eq!(amount(5_000_000), "$0.01");
    assert_eq!(amount(1_234_567_895_000_000), "$1,234,567.90");
    assert_eq!(format!("{:>8}|", Amount { nano: 1_000_000_000 }), "   $1.00|");

    let bill = bill(|input| input.calls = 400_000_000);
    let price = |item: &str| -> Price { bill.lines.iter().find(|line| line.item == item).unwrap().price };
    assert_eq!(
        price("REST API, next 667 million requests").to_string(),
        "$2.80 per million requests"
    );
    assert_eq!(
        price("decisions, one write each").to_string(),
        "$0.625 per million write units"
    );
    assert_eq!(price("authorizer, deciding").to_string(), "$0.0000133334 per GB-second");
    assert_eq!(price("looking them up").to_string(), "$0.05 per 10,000 calls");
    assert_eq!(price("dashboard").to_string(), "$3.00 per dashboard");
    assert!(
        bill.lines
            .iter()
            .all(|line| line.price.source.starts_with("https://aws.amazon.com/"))
    );
    assert_eq!(Part::Fixed.to_string(), "Farebox, without a call");
}

#[test]
fn it_is_read_and_written_as_json() {
    let input: Input = serde_json::from_str(r#"{"calls": 5, "region": "us-east-1"}"#).unwrap();
    assert_eq!(
        input,
        Input {
            calls: 5,
            ..Input::default()
        }
    );
    assert!(serde_json::from_str::<Input>(r#"{"call": 5}"#).is_err());
    assert!(serde_json::from_str::<Input>(r#"{"region": "mars-1"}"#).is_err());

    let json = serde_json::to_value(bill(|_| ())).unwrap();
    assert_eq!(json["input"]["calls"], 10_000_000);
    assert_eq!(json["lines"][0]["part"], "gateway");
    assert_eq!(json["lines"][0]["amount"]["nano"], 35_000_000_000_u64);
    assert_eq!(json["lines"][0]["price"]["per"], 1_000_000);
    assert!(json["per_million"]["farebox"]["nano"].is_u64());
}

#[test]
fn the_metrics_are_those_of_the_functions() {
    use farebox_core::cost::{METRICS_OF_CALLS, METRICS_OF_CUSTOMERS, METRICS_OF_TICKS, METRICS_OF_USAGE};
    let authorizer = include_str!("../../../../functions/authorizer/src/metrics.rs");
    let consumer = include_str!("../../../../functions/consumer/src/metrics.rs");
    let webhook = include_str!("../../../../functions/webhook/src/answer.rs");
    let notifier = include_str!("../../../../functions/notifier/src/deliver.rs");
    let of_customers = [webhook, notifier].concat();
    let of_consumer = [&METRICS_OF_USAGE[..], &METRICS_OF_TICKS].concat();
    for (metrics, source) in [
        (&METRICS_OF_CALLS[..], authorizer),
        (&of_consumer, consumer),
        (&METRICS_OF_CUSTOMERS, &of_customers),
    ] {
        for metric in metrics {
            assert!(source.contains(&format!("\"{metric}\"")), "nothing writes {metric}");
        }
    }
}

/// An alarm, a secret or a dashboard more in the template is one more here.
#[test]
fn the_template_has_as_many_alarms_secrets_and_dashboards() {
    let template = include_str!("../../../../template.yaml");
    let mut alarm_metrics = 0;
    for resource in template.split("\n\n") {
        if resource.contains("Type: AWS::CloudWatch::Alarm") {
            alarm_metrics += resource.matches("MetricStat:").count().max(1);
        }
    }
    let of = |kind: &str| template.matches(&format!("Type: {kind}\n")).count();
    let bill = bill(|_| ());
    let counted = |item: &str| line(&bill, item).0 / 1_000;
    assert_eq!(counted("alarms"), alarm_metrics as u64, "ALARM_METRICS");
    // And the one with the restricted key of Stripe, which the operator makes.
    assert_eq!(
        counted("secrets"),
        of("AWS::SecretsManager::Secret") as u64 + 1,
        "SECRETS"
    );
    assert_eq!(counted("dashboard"), of("AWS::CloudWatch::Dashboard") as u64);
}

prop_compose! {
    fn inputs()(
        calls in 0..1_000_000_000_000_u64,
        shift in 0..40_u32,
        remembered_percent in 0..=100_u8,
        coalescing in any::<bool>(),
        decision_ms in 1..=10_000_u32,
        send_ms in 0..=10_000_u32,
        memory_mb in 128..=3_008_u16,
        environments in 1..=100_000_u32,
        customers in 1..=10_000_000_u32,
        buckets in 1..=800_u16,
        active_seconds in 1..=3_600_u16,
        metrics_every_s in 0..600_u32,
    ) -> Input {
        Input {
            calls: calls >> shift, // as often few as many
            customers: (customers >> (shift / 2)).max(1),
            remembered_percent, coalescing, decision_ms, send_ms, memory_mb, environments, buckets, active_seconds,
            metrics_every_s,
            ..Input::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn more_calls_never_cost_less(input in inputs(), more in 0..1_000_000_u64) {
        let dearer = Input { calls: (input.calls + more).min(1_000_000_000_000), ..input.clone() };
        let (few, many) = (estimate(&input).unwrap(), estimate(&dearer).unwrap());
        for line in &few.lines {
            let same = many.lines.iter().find(|other| (other.part, other.item) == (line.part, line.item));
            prop_assert!(same.is_some_and(|same| same.quantity >= line.quantity), "{line:?} {same:?}");
        }
        prop_assert!(many.month.all >= few.month.all);
        prop_assert_eq!(many.month.farebox_fixed, few.month.farebox_fixed);
    }

    #[test]
    fn coalescing_never_costs_more_and_never_loses_a_row(input in inputs()) {
        let with = estimate(&Input { coalescing: true, ..input.clone() }).unwrap();
        let without = estimate(&Input { coalescing: false, ..input.clone() }).unwrap();
        prop_assert!(with.month.all <= without.month.all);
        // A row is opened by a message: its folds are at least one each.
        let rows = |bill: &Estimate| {
            let of = |item: &str| bill.lines.iter().find(|line| line.item == item).map_or(0, |line| line.quantity.milli);
            (of("ledger and sealing, writes"), of("usage messages, sent, received and deleted"))
        };
        let (writes, requests) = rows(&with);
        prop_assert_eq!(writes == 0, requests == 0);
    }

    #[test]
    fn the_lines_add_up(input in inputs()) {
        let bill = estimate(&input).unwrap();
        let sum = |part: Part| -> u64 {
            bill.lines.iter().filter(|line| line.part == part).map(|line| line.amount.nano).sum()
        };
        prop_assert_eq!(bill.month.gateway.nano, sum(Part::Gateway));
        prop_assert_eq!(bill.month.farebox.nano, sum(Part::Use) + sum(Part::Fixed));
        prop_assert_eq!(bill.month.all.nano, bill.month.gateway.nano + bill.month.farebox.nano);
        for line in &bill.lines {
            // Half up at the last place.
            let exact = u128::from(line.quantity.milli) * u128::from(line.price.pico);
            prop_assert!((u128::from(line.amount.nano) * 1_000_000).abs_diff(exact) <= 500_000);
        }
        if let Some(million) = bill.per_million {
            let back = u128::from(million.all.nano) * u128::from(input.calls) / 1_000_000;
            prop_assert!(back <= u128::from(bill.month.all.nano));
        }
    }
}
