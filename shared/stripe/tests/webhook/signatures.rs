//! Who may speak as Stripe.

use farebox_stripe::{SIGNATURE_TOLERANCE_S, SignatureError, SigningSecret, sign, verify};
use proptest::prelude::*;

const AT: u64 = 1_795_000_000;

fn secret(text: &str) -> SigningSecret {
    SigningSecret::new(text).unwrap()
}

fn check(body: &[u8], header: &str, secrets: &[SigningSecret]) -> Result<(), SignatureError> {
    verify(body, header, secrets, AT, SIGNATURE_TOLERANCE_S)
}

/// The value of `v1`.
fn signature(header: &str) -> String {
    header.split_once(",v1=").unwrap().1.to_owned()
}

/// Computed with `openssl dgst -sha256 -hmac whsec_test`, over `1795000000.{"id":"evt_1"}`.
#[test]
fn the_signature_is_that_of_stripe() {
    assert_eq!(
        sign(br#"{"id":"evt_1"}"#, &secret("whsec_test"), AT),
        "t=1795000000,v1=9768205fbb644a6a645cdd13f225c6791ed91580e4d16c14b9a8e73cd4ba4393"
    );
}

#[test]
fn a_header_that_says_nothing() {
    let secrets = [secret("whsec_1")];
    let good = sign(b"{}", &secrets[0], AT);
    let v1 = signature(&good);
    for header in ["", "  "] {
        assert_eq!(check(b"{}", header, &secrets), Err(SignatureError::Missing));
    }
    for header in [
        "nonsense".to_owned(),
        "t=,v1=00".to_owned(),
        format!("v1={v1}"),
        format!("t={AT}"),
        format!("t={AT},v0={v1}"),
        format!("t=+{AT},v1={v1}"),
        format!("t=-1,v1={v1}"),
        format!("t=99999999999999999999,v1={v1}"),
        format!("t={AT},t={AT},v1={v1}"),
    ] {
        assert_eq!(
            check(b"{}", &header, &secrets),
            Err(SignatureError::Malformed),
            "{header}"
        );
    }
    for header in [
        format!("t={AT},v1="),
        format!("t={AT},v1=zz"),
        format!("t={AT},v1={}", &v1[..62]),
        format!("t={AT},v1={v1}00"),
        format!("t={AT},v1={}", "é".repeat(32)),
        format!("t={AT},v1={}", "+1".repeat(32)),
        format!("t=0{AT},v1={v1}"),
    ] {
        assert_eq!(
            check(b"{}", &header, &secrets),
            Err(SignatureError::NoMatch),
            "{header}"
        );
    }
    assert_eq!(check(b"{}", &good, &[]), Err(SignatureError::NoMatch));
    assert_eq!(check(b"{}", &good, &secrets), Ok(()));
    assert_eq!(check(b"{}", &format!("t={AT}, v0=x, v1={v1}, new"), &secrets), Ok(()));
}

#[test]
fn a_secret_is_visible_ascii() {
    for text in ["", "whsec_1\n", "whsec 1", "whsec_é"] {
        assert!(SigningSecret::new(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn what_is_signed_is_believed(body: Vec<u8>, text in "whsec_[a-zA-Z0-9]{1,80}", at: u64) {
        let secrets = [secret(&text)];
        prop_assert_eq!(verify(&body, &sign(&body, &secrets[0], at), &secrets, at, 0), Ok(()));
    }

    #[test]
    fn a_changed_byte_fails(body in prop::collection::vec(any::<u8>(), 1..200), place: prop::sample::Index, change in 1..=255_u8) {
        let secrets = [secret("whsec_1")];
        let header = sign(&body, &secrets[0], AT);
        let mut changed = body.clone();
        changed[place.index(body.len())] ^= change;
        prop_assert_eq!(check(&changed, &header, &secrets), Err(SignatureError::NoMatch));
        let shorter = &body[..place.index(body.len())];
        prop_assert_eq!(check(shorter, &header, &secrets), Err(SignatureError::NoMatch));
    }

    #[test]
    fn a_changed_signature_fails(place in 0..64_usize) {
        let secrets = [secret("whsec_1")];
        let mut v1 = signature(&sign(b"{}", &secrets[0], AT)).into_bytes();
        v1[place] = if v1[place] == b'0' { b'1' } else { b'0' };
        let header = format!("t={AT},v1={}", String::from_utf8(v1).unwrap());
        prop_assert_eq!(check(b"{}", &header, &secrets), Err(SignatureError::NoMatch));
    }

    #[test]
    fn a_changed_time_fails(other: u64) {
        prop_assume!(other != AT);
        let secrets = [secret("whsec_1")];
        let v1 = signature(&sign(b"{}", &secrets[0], AT));
        prop_assert_eq!(
            verify(b"{}", &format!("t={other},v1={v1}"), &secrets, other, u64::MAX),
            Err(SignatureError::NoMatch)
        );
    }

    /// While a secret is rolled, both sides hold two of them; any common one is enough, wherever it stands.
    #[test]
    fn any_common_secret_in_any_order(signers in subset(), configured in subset()) {
        let all: Vec<_> = (0..4).map(|i| secret(&format!("whsec_{i}"))).collect();
        let v1s: Vec<_> = signers.iter().map(|&i| format!("v1={}", signature(&sign(b"{}", &all[i], AT)))).collect();
        let secrets: Vec<_> = configured.iter().map(|&i| all[i].clone()).collect();
        let expected = if signers.iter().any(|i| configured.contains(i)) { Ok(()) } else { Err(SignatureError::NoMatch) };
        prop_assert_eq!(check(b"{}", &format!("t={AT},{}", v1s.join(",")), &secrets), expected);
        prop_assert_eq!(check(b"{}", &format!("{},t={AT}", v1s.join(",")), &secrets), expected);
    }

    #[test]
    fn the_edges_of_time_are_exact(off in 0..2 * SIGNATURE_TOLERANCE_S) {
        let secrets = [secret("whsec_1")];
        let within = off <= SIGNATURE_TOLERANCE_S;
        let past = check(b"{}", &sign(b"{}", &secrets[0], AT - off), &secrets);
        prop_assert_eq!(past, if within { Ok(()) } else { Err(SignatureError::TooOld) });
        let ahead = check(b"{}", &sign(b"{}", &secrets[0], AT + off), &secrets);
        prop_assert_eq!(ahead, if within { Ok(()) } else { Err(SignatureError::TooNew) });
    }
}

#[test]
fn three_hundred_seconds_and_one_more() {
    let secrets = [secret("whsec_1")];
    for (at, expected) in [
        (AT - 301, Err(SignatureError::TooOld)),
        (AT - 300, Ok(())),
        (AT + 300, Ok(())),
        (AT + 301, Err(SignatureError::TooNew)),
    ] {
        let header = sign(b"{}", &secrets[0], at);
        assert_eq!(verify(b"{}", &header, &secrets, AT, 300), expected, "{at}");
    }
}

/// Who doesn't know a secret does not learn our time either.
#[test]
fn the_signature_is_judged_before_the_time() {
    let header = sign(b"{}", &secret("whsec_theirs"), 0);
    assert_eq!(
        check(b"{}", &header, &[secret("whsec_ours")]),
        Err(SignatureError::NoMatch)
    );
}

/// One to four of four secrets, in any order.
fn subset() -> impl Strategy<Value = Vec<usize>> {
    (Just(vec![0, 1, 2, 3]).prop_shuffle(), 1..=4_usize).prop_map(|(mut order, keep)| {
        order.truncate(keep);
        order
    })
}
