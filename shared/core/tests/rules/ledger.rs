//! What the steps of a row say, beside what the refinement holds them to.

use farebox_core::ledger::{
    ASK_AFTER_S, Claim, NextStep, Report, Row, RowKey, RowState, freeze, have_minutes_of_their_own, next_step, put_off,
    report_timestamp, wait_until, with_own_minute,
};
use farebox_core::{
    expression::Value,
    id::Generation,
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
