//! Messages that are refused.

use farebox_core::{
    id::Generation,
    message::{BadMessage, UNITS_MAX, UsageMessage},
};

/// 2023-11-14T23:00:00Z.
const HOUR: u64 = 1_700_002_800;

fn message() -> UsageMessage {
    UsageMessage {
        v: 1,
        customer: "acme".to_owned().try_into().expect("an id"),
        shard: 0,
        generation: Generation::new([7; 8], 0),
        meter: "api_calls".to_owned(),
        bucket: HOUR,
        bucket_end: HOUR + 3_600,
        units: 5,
        period: HOUR,
        plan: "pro-00000000".parse().expect("a plan's name"),
        period_units: 5,
        included: Some(100),
        cap: None,
        alert_percents: vec![80, 100],
        at: HOUR * 1_000,
    }
}

/// Whether it is taken, and if not, which field is out of range.
fn refused(change: impl FnOnce(&mut UsageMessage)) -> Option<&'static str> {
    let mut message = message();
    change(&mut message);
    match UsageMessage::parse(&message.to_body()) {
        Ok(read) => {
            assert_eq!(read, message);
            None
        }
        Err(BadMessage::Range(field)) => Some(field),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_message_is_within_bounds_to_the_last_unit() {
    assert_eq!(refused(|_| {}), None);
    assert_eq!(refused(|m| m.meter = "API".to_owned()), Some("meter"));
    assert_eq!(refused(|m| m.shard = 999), None);
    assert_eq!(refused(|m| m.shard = 1_000), Some("shard"));
    assert_eq!(refused(|m| m.units = UNITS_MAX), None);
    assert_eq!(refused(|m| m.units = UNITS_MAX + 1), Some("units"));
    assert_eq!(refused(|m| m.period_units = UNITS_MAX), None);
    assert_eq!(refused(|m| m.period_units = UNITS_MAX + 1), Some("period_units"));
    assert_eq!(
        refused(|m| m.period = HOUR + 1),
        Some("period"),
        "a bucket lies in its period"
    );
    assert_eq!(refused(|m| m.alert_percents = vec![80; 16]), None);
    assert_eq!(refused(|m| m.alert_percents = vec![80; 17]), Some("alert_percents"));
}

#[test]
fn a_bucket_lies_in_one_hour() {
    let ends = |start: u64, end: u64| refused(|m| (m.bucket, m.bucket_end) = (start, end));
    assert_eq!(ends(HOUR, HOUR + 1), None);
    assert_eq!(ends(HOUR, HOUR), Some("bucket_end"));
    assert_eq!(ends(HOUR, HOUR + 3_601), Some("bucket_end"));
    assert_eq!(ends(HOUR + 600, HOUR + 3_600), None, "cut");
    assert_eq!(ends(HOUR + 600, HOUR + 3_601), Some("bucket_end"));
    assert_eq!(
        ends(253_402_297_200, 253_402_300_800),
        None,
        "the last hour of the year 9999"
    );
    assert_eq!(ends(253_402_300_800, 253_402_300_801), Some("bucket"));
}

#[test]
fn another_version_is_not_guessed_at_and_no_text_is_quoted() {
    let newer = message().to_body().replacen("\"v\":1", "\"v\":2", 1);
    assert_eq!(UsageMessage::parse(&newer), Err(BadMessage::Version(2)));
    let cut = UsageMessage::parse("{\"v\":1,\"customer\":\"planted#secret\"}").expect_err("no message");
    assert!(matches!(cut, BadMessage::Shape(_)));
    assert!(!cut.to_string().contains("planted"), "{cut}");
}

#[test]
fn a_bucket_at_the_end_of_all_numbers_is_refused() {
    for bucket in [u64::MAX, u64::MAX - 1, u64::MAX - 7_200, 253_402_300_800] {
        let body = format!(
            r#"{{"v":1,"customer":"acme","shard":0,"generation":"0123456789abcdef-0","meter":"api_calls","bucket":{bucket},
            "bucket_end":{},"units":5,"period":0,"plan":"pro-00000000","period_units":5,"alert_percents":[80],"at":0}}"#,
            u64::MAX
        );
        assert_eq!(UsageMessage::parse(&body), Err(BadMessage::Range("bucket")), "{bucket}");
    }
}
