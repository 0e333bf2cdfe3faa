//! Keys, periods and report times.

use farebox_core::{
    id::{CustomerId, Generation, is_meter_name},
    key::{ApiKey, KeyHash, MalformedKey, Mode, from_headers},
    ledger::{has_minute_of_its_own, report_timestamp},
    tiers::Interval,
    time::{Bucket, Cycle, Period},
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

/// Written down, so that keys that were issued are read for ever: `openssl`'s SHA-256 and any CRC-32 say the same.
#[test]
fn a_key_is_made_as_it_is_documented() {
    let key = ApiKey::new("fb", Mode::Test, [0; 32]).expect("a good brand");
    assert_eq!(key.reveal(), format!("fb_test_{}28nDYq", "0".repeat(43)));
    assert_eq!((key.display_prefix(), key.last_four()), ("fb_test_0000", "nDYq"));
    let hash = "dbc94917447c71f3bca05f1e9d748575c401ba35f8ffd39b80f24f5d4ca69212";
    assert_eq!(key.hash().to_string(), hash);
    assert_eq!(format!("{:?}", key.hash()), hash);
    let largest = ApiKey::new("fb", Mode::Live, [255; 32]).expect("a good brand");
    assert_eq!(
        largest.reveal(),
        "fb_live_yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp13covxE"
    );
}

#[test]
fn a_brand_is_a_letter_and_up_to_fifteen_more() {
    for good in ["a", "acme", "a1", "abcdefghijklmno9"] {
        let key = ApiKey::new(good, Mode::Live, [3; 32]).expect(good);
        assert!(ApiKey::parse(key.reveal()).is_ok(), "{good}");
    }
    for bad in ["", "1a", "Acme", "aC", "a-b", "a_b", "é", "abcdefghijklmnopq"] {
        assert_eq!(
            ApiKey::new(bad, Mode::Live, [3; 32]).err(),
            Some(MalformedKey::Brand),
            "{bad}"
        );
    }
}

#[test]
fn a_key_of_another_shape_is_refused_whatever_its_checksum_says() {
    // With the right checksum of the wrong text.
    let sealed = |body: &str| {
        let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let (mut crc, mut end) = (crc32fast::hash(body.as_bytes()), Vec::new());
        for _ in 0..6 {
            end.insert(0, char::from(digits[(crc % 62) as usize]));
            crc /= 62;
        }
        format!("{body}{}", end.into_iter().collect::<String>())
    };
    let random = "z".repeat(43);
    assert!(ApiKey::parse(&sealed(&format!("fb_live_{random}"))).is_ok());
    assert!(
        ApiKey::parse(&sealed(&format!("abcdefghijklmnop_live_{random}"))).is_ok(),
        "as long as it gets"
    );
    for body in [
        format!("FB_live_{random}"),
        format!("fb_prod_{random}"),
        format!("fb_live_{random}z"),
        format!("fb_live_{}", &random[1..]),
        format!("fb_live_{}-", &random[1..]),
        format!("fb_live_{}_", &random[1..]),
        format!("abcdefghijklmnopq_live_{random}"),
        format!("fb-live-{random}"),
        format!("fb_live_{}é", &random[2..]),
    ] {
        assert_eq!(ApiKey::parse(&sealed(&body)).err(), Some(MalformedKey::Shape), "{body}");
    }
}

#[test]
fn ids_hold_nothing_that_separates_the_parts_of_a_table_key() {
    let customer = |text: &str| CustomerId::try_from(text.to_owned());
    for good in ["a", "acme", "ACME-1.eu_2", &"x".repeat(64)] {
        let id = customer(good).expect(good);
        assert_eq!((id.as_str(), id.to_string().as_str()), (good, good));
        assert_eq!(String::from(id), good);
    }
    for bad in ["", "a#b", "a b", "a/b", "é", &"x".repeat(65)] {
        assert!(customer(bad).is_err(), "{bad}");
    }

    let generation = |text: &str| Generation::try_from(text.to_owned());
    let made = Generation::new([0, 1, 2, 3, 4, 5, 6, 255], 17);
    assert_eq!(made.as_str(), "00010203040506ff-17");
    assert_eq!((made.slot(), made.to_string().as_str()), (17, made.as_str()));
    assert_eq!(generation(made.as_str()), Ok(made.clone()));
    assert_eq!(String::from(made), "00010203040506ff-17");
    for bad in [
        "",
        "00010203040506ff",
        "00010203040506ff-",
        "00010203040506ff-x",
        "00010203040506ff-01",
        "00010203040506ff-+1",
        "00010203040506FF-1",
        "00010203040506fg-1",
        "0010203040506ff-1",
        "000010203040506ff-1",
        "00010203040506ff-4294967296",
    ] {
        assert!(generation(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_meter_is_named_in_small_letters_digits_and_underscores() {
    for good in ["a", "api_calls", "tokens2", "_", &"m".repeat(20)] {
        assert!(is_meter_name(good), "{good}");
    }
    for bad in ["", "Api", "a-b", "a.b", "a#b", "é", &"m".repeat(21)] {
        assert!(!is_meter_name(bad), "{bad}");
    }
}

/// A record that nobody could have written must not hang whoever reads it.
#[test]
fn an_anchor_beyond_all_time_still_has_periods() {
    let now = 1_769_853_600;
    for anchor in [253_402_300_800, i64::MAX.unsigned_abs(), u64::MAX] {
        for interval in [Interval::Month, Interval::Year] {
            let cycle = Cycle {
                anchor,
                interval,
                current: Period { start: now, end: now },
                cuts: Vec::new(),
            };
            for s in [0, now - 1, now, now + 1] {
                let period = cycle.period_at(s);
                assert!(period.start <= s, "{anchor} {s} {period:?}");
            }
        }
    }
}
