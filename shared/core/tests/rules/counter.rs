//! What an item says of a seal, and which of its buckets make room.

use farebox_core::{
    admission::Counters,
    counter::{BUCKETS_MAX, SealAnswer, crowded_out, sealed_units},
    id::Generation,
};

const HOUR: u64 = 3_600;

fn generation(random: u8) -> Generation {
    Generation::new([random; 8], 0)
}

fn item(sealed: u64, units: &[(u64, &str, u64)]) -> Counters {
    Counters {
        generation: generation(1).as_str().to_owned(),
        auth_epoch: 0,
        sealed,
        units: units
            .iter()
            .map(|&(bucket, meter, units)| (format!("u{bucket}.{meter}"), units))
            .collect(),
    }
}

#[test]
fn a_sealed_bucket_is_final_and_a_lost_generation_never_comes_back() {
    let item = item(
        2 * HOUR,
        &[
            (2 * HOUR, "api_calls", 7),
            (HOUR, "api_calls", 5),
            (2 * HOUR, "tokens", 9),
        ],
    );
    let of = |generation: &Generation, bucket, meter| sealed_units(Some(&item), generation, bucket, meter);
    let own = generation(1);
    assert_eq!(of(&own, 2 * HOUR, "api_calls"), SealAnswer::Final(7));
    assert_eq!(of(&own, 2 * HOUR, "tokens"), SealAnswer::Final(9));
    assert_eq!(
        of(&own, HOUR, "api_calls"),
        SealAnswer::Final(5),
        "an earlier one is sealed with it"
    );
    assert_eq!(of(&own, HOUR, "tokens"), SealAnswer::Final(0), "nothing was counted");
    assert_eq!(of(&own, 3 * HOUR, "api_calls"), SealAnswer::NotSealed);
    for bucket in [HOUR, 3 * HOUR] {
        assert_eq!(of(&generation(2), bucket, "api_calls"), SealAnswer::GenerationGone);
        assert_eq!(
            sealed_units(None, &own, bucket, "api_calls"),
            SealAnswer::GenerationGone
        );
    }
}

#[test]
fn the_oldest_buckets_make_room_once_there_are_too_many() {
    let most = u64::try_from(BUCKETS_MAX).expect("a few");
    // As text, "u7200" comes after "u36000": age goes by the number.
    let units: Vec<(u64, &str, u64)> = (1..=most).map(|n| (n * HOUR, "api_calls", n)).collect();
    let mut item = item(0, &units);
    item.units.insert("w60000.1".to_owned(), 3);
    item.units.insert("q0.api_calls.pro-00000000".to_owned(), 3);
    assert_eq!(crowded_out(&item), []);
    item.units.insert(format!("u{}.api_calls", (most + 1) * HOUR), 1);
    assert_eq!(crowded_out(&item), [(HOUR, "api_calls")]);
    item.units.insert(format!("u{HOUR}.tokens"), 1);
    assert_eq!(crowded_out(&item), [(HOUR, "api_calls"), (HOUR, "tokens")]);
}
