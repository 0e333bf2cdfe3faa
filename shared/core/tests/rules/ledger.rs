//! What the steps of a row say, beside what the refinement holds them to.

use std::collections::BTreeSet;

use farebox_core::{
    admission::Counters,
    counter::{self, SealAnswer},
    expression::Value,
    id::Generation,
    ledger::{
        self, ASK_AFTER_S, Balance, CLAIM_LIFE_MS, Claim, NextStep, REPORT_WITHIN_S, Report, Row, RowKey, RowState,
        all_units, backoff_s, freeze, has_minute_of_its_own, have_minutes_of_their_own, next_step, put_off,
        report_timestamp, thresholds_reached, wait_until, with_own_minute, work_of,
    },
    time::{Bucket, Timestamp},
};

const HOUR: u64 = 1_700_002_800;

/// A claimed row of the bucket that begins with the hour.
fn row(slot: u32, end: u64, now: u64) -> Row {
    let key = RowKey {
        customer: "acme".to_owned().try_into().expect("an id"),
        shard: 0,
        generation: Generation::new([7; 8], slot),
        meter: "api_calls".to_owned(),
        bucket: HOUR,
    };
    let report = Report {
        value: 5,
        stripe_customer: "cus_1".to_owned(),
        event_name: "api_calls".to_owned(),
        timestamp: report_timestamp(Bucket { start: HOUR, end }, slot),
        identifier: key.identifier(),
    };
    Row {
        key,
        state: RowState::Sending,
        units: 5,
        credit: 0,
        bucket_end: end,
        due: 0,
        report: Some(report),
        own_minute: None,
        claim: Some(Claim {
            token: "t".to_owned(),
            at: Timestamp::from_s(now),
        }),
        faults: 0,
        tries: 0,
        outcome: None,
    }
}

#[test]
fn a_row_is_due_at_its_second_and_where_its_period_closes_unless_a_report_is_under_way() {
    let is_due = |state, is_closing, now| {
        let row = Row {
            state,
            due: HOUR,
            ..row(0, HOUR + 3_600, HOUR)
        };
        row.is_due(is_closing, Timestamp::from_s(now))
    };
    for state in [RowState::Open, RowState::Sealed, RowState::Sending, RowState::Reported] {
        assert!(!is_due(state, false, HOUR - 1));
        assert!(is_due(state, false, HOUR));
        assert!(is_due(state, true, HOUR));
        assert_eq!(is_due(state, true, HOUR - 1), state != RowState::Sending);
    }
}

#[test]
fn a_report_waits_until_its_stamp_is_four_minutes_ahead() {
    let row = row(10, HOUR + 3_600, HOUR);
    let sendable = HOUR + 600 - 240;
    let wait = |now| wait_until(&row, Timestamp::from_s(now));
    assert_eq!(wait(HOUR), Some(sendable));
    assert_eq!(wait(sendable - 1), Some(sendable));
    assert_eq!(wait(sendable), None);
    assert_eq!(wait(HOUR + 7_200), None);
}

#[test]
fn a_slot_that_others_wrap_onto_is_not_asked_for() {
    let bucket = Bucket {
        start: HOUR,
        end: HOUR + 600,
    };
    assert_eq!(report_timestamp(bucket, 0), report_timestamp(bucket, 10));
    let own = |slots, now| have_minutes_of_their_own(bucket, slots, Timestamp::from_s(now));
    assert!(own(10, bucket.end));
    assert!(!own(11, bucket.end));
    assert!(!own(10, bucket.end - 1), "another slot may come");

    let now = HOUR + ASK_AFTER_S + 1;
    let step = |own_minute| {
        let row = Row {
            own_minute,
            ..row(0, bucket.end, now)
        };
        next_step(&row, Timestamp::from_s(now))
    };
    assert!(matches!(step(Some(false)), NextStep::Park(_)));
    assert!(matches!(step(Some(true)), NextStep::Ask { .. }));
    assert!(matches!(step(None), NextStep::Ask { .. }), "a row of before");
}

#[test]
fn a_frozen_row_says_whether_its_minute_is_its_own() {
    let report = row(0, HOUR + 600, HOUR).report.expect("a report");
    let plain = freeze(&report, 5, 0, Timestamp::from_s(HOUR));
    let write = with_own_minute(plain.clone(), false);
    assert!(
        write.update.ends_with("#due = :now, own_minute = :own_minute"),
        "{}",
        write.update
    );
    assert_eq!(write.condition, plain.condition);
    assert!(write.values.contains(&(":own_minute".to_owned(), Value::N(0))));
}

#[test]
fn putting_off_moves_nothing_but_due_and_only_on() {
    for seen in [None, Some(RowState::Sealed)] {
        let write = put_off(seen, 9);
        assert_eq!(write.update, "SET #due = :due");
        assert!(write.condition.ends_with("#due < :due"));
        assert_eq!(write.condition.contains("#state = :state"), seen.is_some());
    }
}

/// Written down: rows in the table and reports in Stripe go by these for ever.
#[test]
fn the_names_of_a_row_never_change() {
    let mut key = row(10, HOUR + 3_600, HOUR).key;
    key.shard = 2;
    assert_eq!(key.partition(), "acme#2#0707070707070707-10#api_calls");
    assert_eq!(key.to_string(), "acme#2#0707070707070707-10#api_calls#1700002800");
    assert_eq!(
        key.identifier(),
        "farebox-8ac4b5623c9ef8dcf11fc9c42f20a0566d16aeab5f39a91d98fce38a9c0b81d7",
        "the SHA-256 of the whole name"
    );
    assert_eq!(RowKey::parse(&key.partition(), HOUR), Some(key.clone()));
    for bad in [
        "acme#2#0707070707070707-10",
        "acme#2#0707070707070707-10#api_calls#1",
        "acme#x#0707070707070707-10#api_calls",
        "acme#2#07-10#api_calls",
        "#2#0707070707070707-10#api_calls",
    ] {
        assert_eq!(RowKey::parse(bad, HOUR), None, "{bad}");
    }
    assert_eq!(key.work(), "work-2");
    for (customer, work) in [
        ("initech", "work-0"),
        ("b", "work-1"),
        ("globex", "work-2"),
        ("a", "work-3"),
    ] {
        assert_eq!(
            work_of(&customer.to_owned().try_into().expect("an id")),
            work,
            "{customer}"
        );
    }
    for (state, word) in [
        (RowState::Open, "open"),
        (RowState::Sealed, "sealed"),
        (RowState::Sending, "sending"),
        (RowState::Reported, "reported"),
        (RowState::Parked, "parked"),
    ] {
        assert_eq!((state.as_str(), RowState::parse(word)), (word, Some(state)));
    }
    assert_eq!(RowState::parse("closed"), None);
}

/// An identifier names the row whole: no part may be moved into its neighbour.
#[test]
fn no_two_rows_share_an_identifier() {
    let key = row(1, HOUR + 3_600, HOUR).key;
    let others = [
        RowKey {
            shard: 1,
            ..key.clone()
        },
        RowKey {
            bucket: HOUR + 3_600,
            ..key.clone()
        },
        RowKey {
            meter: "tokens".to_owned(),
            ..key.clone()
        },
        RowKey {
            generation: Generation::new([7; 8], 2),
            ..key.clone()
        },
        RowKey {
            customer: "acme.eu".to_owned().try_into().expect("an id"),
            ..key.clone()
        },
    ];
    for other in others {
        assert_ne!(other.identifier(), key.identifier(), "{other}");
    }
}

#[test]
fn an_attempt_is_another_one_only_after_a_fault() {
    let report = row(0, HOUR + 3_600, HOUR).report.expect("a report");
    assert_eq!(Row::idempotency_key(&report, 0), format!("{}-0", report.identifier));
    assert_eq!(Row::idempotency_key(&report, 3), format!("{}-3", report.identifier));
}

#[test]
fn the_constants_are_what_stripe_allows_less_a_margin() {
    assert_eq!(ASK_AFTER_S, 82_800, "of 24 hours");
    assert_eq!(REPORT_WITHIN_S, 2_937_600, "of 35 days");
    let row = row(10, HOUR + 3_600, HOUR);
    assert_eq!(
        wait_until(&row, Timestamp::from_s(HOUR)),
        Some(HOUR + 600 - 240),
        "of five minutes"
    );
}

#[test]
fn a_claim_is_acted_on_as_long_as_a_call_ends_within_it() {
    let row = row(10, HOUR + 3_600, HOUR);
    let at = |ms| next_step(&row, Timestamp::from_ms(HOUR * 1_000 + ms));
    assert_eq!(at(CLAIM_LIFE_MS - 60_000), NextStep::Send);
    assert_eq!(at(CLAIM_LIFE_MS - 59_999), NextStep::Drop);
    let now = Timestamp::from_s(HOUR);
    assert_eq!(
        next_step(
            &Row {
                claim: None,
                ..row.clone()
            },
            now
        ),
        NextStep::Drop
    );
    assert_eq!(next_step(&Row { report: None, ..row }, now), NextStep::Drop);
}

#[test]
fn an_old_report_is_asked_for_and_a_very_old_one_is_nobodys_to_send() {
    let step = |age| {
        let now = HOUR + age;
        next_step(&row(10, HOUR + 3_600, now), Timestamp::from_s(now))
    };
    let minute = NextStep::Ask {
        start: HOUR + 600,
        end: HOUR + 660,
    };
    assert_eq!(step(ASK_AFTER_S), NextStep::Send);
    assert_eq!(step(ASK_AFTER_S + 1), minute);
    assert_eq!(step(REPORT_WITHIN_S), minute);
    assert!(matches!(step(REPORT_WITHIN_S + 1), NextStep::Park(_)));

    // A bucket that was cut in the middle of a minute is stamped with its first second, and asked for by its minute.
    let now = HOUR + ASK_AFTER_S + 100;
    let mut cut = row(0, HOUR + 3_600, now);
    cut.report.as_mut().expect("a report").timestamp = HOUR + 61;
    assert_eq!(
        next_step(&cut, Timestamp::from_s(now)),
        NextStep::Ask {
            start: HOUR + 60,
            end: HOUR + 120
        }
    );
}

#[test]
fn reports_are_stamped_with_whole_minutes_of_their_bucket() {
    let stamp = |start, end, slot| report_timestamp(Bucket { start, end }, slot);
    assert_eq!(stamp(HOUR, HOUR + 3_600, 0), HOUR);
    assert_eq!(stamp(HOUR, HOUR + 3_600, 59), HOUR + 59 * 60);
    assert_eq!(stamp(HOUR, HOUR + 3_600, 60), HOUR);
    // Cut within a minute: from its first whole one on.
    assert_eq!(stamp(HOUR + 1, HOUR + 200, 0), HOUR + 60);
    assert_eq!(stamp(HOUR + 1, HOUR + 200, 1), HOUR + 120);
    assert_eq!(stamp(HOUR + 1, HOUR + 200, 2), HOUR + 60);
    assert_eq!(
        stamp(HOUR + 1, HOUR + 119, 5),
        HOUR + 1,
        "without a whole minute its first second"
    );
    let own = |start, end, slot| has_minute_of_its_own(Bucket { start, end }, slot);
    assert!(own(HOUR, HOUR + 3_600, 59) && !own(HOUR, HOUR + 3_600, 60));
    assert!(own(HOUR + 1, HOUR + 200, 1) && !own(HOUR + 1, HOUR + 200, 2));
    assert!(!own(HOUR + 1, HOUR + 119, 0));
}

#[test]
fn what_is_frozen_is_the_larger_of_both_accounts() {
    assert_eq!(all_units(SealAnswer::Final(5), 3), Some(5));
    assert_eq!(all_units(SealAnswer::Final(3), 5), Some(5));
    assert_eq!(all_units(SealAnswer::GenerationGone, 5), Some(5));
    assert_eq!(all_units(SealAnswer::NotSealed, 5), None);
}

#[test]
fn a_balance_gives_what_is_left_of_it() {
    let balance = |granted, taken| Balance { granted, taken };
    assert_eq!(balance(100, 90).left(), 10);
    assert_eq!(balance(100, 100).left(), 0);
    assert_eq!(balance(90, 100).left(), 0, "never less than nothing");
}

#[test]
fn pauses_double_up_to_the_five_minutes_of_the_schedule() {
    assert_eq!([0, 1, 2, 3, 4, u64::MAX].map(backoff_s), [60, 120, 240, 300, 300, 300]);
}

#[test]
fn thresholds_are_told_once_and_from_the_unit_on_that_reaches_them() {
    let reached = |units, of| thresholds_reached(units, of, &[100, 80, 120, 80]);
    assert_eq!(reached(79, 100), Vec::<u64>::new());
    assert_eq!(reached(80, 100), [80]);
    assert_eq!(reached(119, 100), [80, 100]);
    assert_eq!(reached(u64::MAX, 100), [80, 100, 120]);
    assert_eq!(reached(5, 0), Vec::<u64>::new(), "of nothing there is no share");
    assert_eq!(reached(7, 9), Vec::<u64>::new(), "77.8 %");
    assert_eq!(reached(8, 9), [80]);
}

/// DynamoDB refuses a placeholder that is not bound, and one that is bound and not used.
#[test]
fn every_write_binds_what_it_names_and_names_what_it_binds() {
    let now = Timestamp::from_s(HOUR);
    let whole = row(0, HOUR + 3_600, HOUR);
    let (key, report) = (&whole.key, whole.report.as_ref().expect("a report"));
    let (old, new) = (&key.generation, &Generation::new([8; 8], 1));
    let frozen = ledger::freeze(report, 9, 4, now);
    let held = whole.claim.as_ref().expect("a claim");
    let item = Counters {
        generation: old.as_str().to_owned(),
        units: [(format!("u{HOUR}.api_calls"), 1), (format!("u{HOUR}.tokens"), 2)].into(),
        ..Counters::default()
    };
    let writes = [
        counter::create(old, 1, HOUR),
        counter::bump(2),
        counter::seal(old, HOUR),
        counter::prune(old, HOUR, "api_calls"),
        counter::shut(old),
        counter::restore(&item, new, HOUR, 3),
        ledger::fold(key, HOUR + 3_600, 9),
        frozen.clone(),
        ledger::with_own_minute(frozen, true),
        ledger::put_off(None, HOUR),
        ledger::put_off(Some(RowState::Sealed), HOUR),
        ledger::close(9, 9, "given", now),
        ledger::take(Balance::default(), 4),
        ledger::grant(4),
        ledger::claim(held),
        ledger::delivered("accepted", now),
        ledger::retry_later("t", 1, true, now),
        ledger::park("t", "why"),
        ledger::reopen(&report.identifier, "why"),
        ledger::unpark(key, now),
        ledger::settle(key, "found", now),
        ledger::finish(),
    ];
    for write in writes {
        let text = format!("{} {}", write.update, write.condition);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '#' | ':' | '_'));
        let named: BTreeSet<&str> = words.filter(|word| word.starts_with(['#', ':'])).collect();
        let names = write.names.iter().map(|(placeholder, _)| placeholder.as_str());
        let bound: BTreeSet<&str> = names
            .chain(write.values.iter().map(|(name, _)| name.as_str()))
            .collect();
        assert_eq!(bound, named, "{write:?}");
    }
}

#[test]
fn a_report_says_what_is_left_after_the_credit() {
    let report = row(0, HOUR + 3_600, HOUR).report.expect("a report");
    let write = freeze(&report, 9, 4, Timestamp::from_s(HOUR));
    let value = |name: &str| {
        write
            .values
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    };
    assert_eq!(value(":units"), Some(Value::N(9)));
    assert_eq!(value(":credit"), Some(Value::N(4)));
    assert_eq!(value(":value"), Some(Value::N(5)));
}
