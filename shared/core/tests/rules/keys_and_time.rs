//! Keys, periods and report times.

use farebox_core::{
    key::{ApiKey, KeyHash, MalformedKey, Mode, from_headers},
    ledger::{has_minute_of_its_own, report_timestamp},
    tiers::Interval,
    time::{Bucket, Cycle},
};
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_key_reads_back_and_any_changed_character_is_noticed(random: [u8; 32], at in 0usize..60, with in "[0-9A-Za-z_]") {
        let key = ApiKey::new("fb", Mode::Live, random).expect("a good brand");
        let text = key.reveal().to_owned();
        prop_assert_eq!(text.len(), "fb_live_".len() + 49);
        prop_assert!(ApiKey::parse(&text).expect("well formed").hash() == key.hash());
        let at = at % text.len();
        let changed = format!("{}{with}{}", &text[..at], &text[at + 1..]);
        prop_assert_eq!(ApiKey::parse(&changed).is_ok(), changed == text);
    }

    #[test]
    fn no_text_panics(text in ".{0,200}") {
        let _ = ApiKey::parse(&text);
        let _ = from_headers(Some(&text), Some(&text));
    }

    #[test]
    fn periods_and_buckets_have_no_gap_and_no_overlap(anchor in 0u64..4_000_000_000, s in 0u64..5_000_000_000, year: bool) {
        let cycle = Cycle::starting_at(anchor, if year { Interval::Year } else { Interval::Month });
        let period = cycle.period_at(s);
        prop_assert!(period.contains(s));
        prop_assert_eq!(cycle.period_at(period.end).start, period.end);
        let bucket = cycle.bucket_at(s);
        prop_assert!(bucket.start <= s && s < bucket.end);
        prop_assert!(period.start <= bucket.start && bucket.end <= period.end);
        prop_assert_eq!(cycle.bucket_at(bucket.end).start, bucket.end);
        if bucket.start > 0 {
            prop_assert_eq!(cycle.bucket_before(s).end, bucket.start);
        }
    }

    #[test]
    fn reports_of_a_bucket_lie_in_it_and_two_slots_never_share_a_minute(start in 0u64..4_000_000_000, length in 1u64..3_601, slots in (0u32..60, 0u32..60)) {
        let hour_end = start - start % 3_600 + 3_600;
        let bucket = Bucket { start, end: (start + length).min(hour_end) };
        let (a, b) = (report_timestamp(bucket, slots.0), report_timestamp(bucket, slots.1));
        prop_assert!(bucket.start <= a && a < bucket.end);
        if slots.0 != slots.1 && has_minute_of_its_own(bucket, slots.0) && has_minute_of_its_own(bucket, slots.1) {
            prop_assert!(a / 60 != b / 60);
        }
    }
}

#[test]
fn month_ends_clamp_from_the_anchors_day() {
    let january_31 = 1_769_853_600; // 2026-01-31T10:00:00Z
    let cycle = Cycle::starting_at(january_31, Interval::Month);
    let february_28 = 1_772_272_800; // 2026-02-28T10:00:00Z
    let march_31 = 1_774_951_200; // 2026-03-31T10:00:00Z
    assert_eq!(cycle.period_at(january_31).end, february_28);
    assert_eq!(cycle.period_at(february_28).end, march_31);
}

#[test]
fn the_key_comes_from_its_header_or_a_bearer_token() {
    assert_eq!(from_headers(Some("a"), Some("Bearer b")), Some("a"));
    assert_eq!(from_headers(None, Some("bearer  b ")), Some("b"));
    assert_eq!(from_headers(None, Some("Basic b")), None);
    assert_eq!(from_headers(None, None), None);
}

#[test]
fn refusals_name_the_cause_and_not_the_text() {
    let refusal = |text: &str| ApiKey::parse(text).err();
    assert_eq!(refusal("secret"), Some(MalformedKey::Shape));
    let text = ApiKey::new("fb", Mode::Test, [1; 32])
        .expect("a good brand")
        .reveal()
        .to_owned();
    let wrong = if text.ends_with('0') { "1" } else { "0" };
    assert_eq!(
        refusal(&format!("{}{wrong}", &text[..text.len() - 1])),
        Some(MalformedKey::Checksum)
    );
    assert_eq!(ApiKey::new("Fb", Mode::Test, [1; 32]).err(), Some(MalformedKey::Brand));
}

#[test]
fn a_hash_is_written_in_hexadecimal_digits_alone() {
    let hash = ApiKey::new("fb", Mode::Live, [7; 32]).expect("a good brand").hash();
    assert_eq!(KeyHash::from_hex(&hash.to_string()), Some(hash));
    assert_eq!(KeyHash::from_hex(&hash.to_string().to_uppercase()), Some(hash));
    for bad in [
        "+f".repeat(32),
        " f".repeat(32),
        "0".repeat(63),
        "0".repeat(65),
        "é".repeat(32),
    ] {
        assert_eq!(KeyHash::from_hex(&bad), None, "{bad}");
    }
}
