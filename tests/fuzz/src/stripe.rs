//! What anybody may post to the address of Stripe's webhook.

use farebox_stripe::{Event, SIGNATURE_TOLERANCE_S, SigningSecret, sign, verify};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{is_short, text};

const SECRET: &str = "whsec_of_the_fuzzer";
const NOW_S: u64 = 1_800_000_000;

fn secret(text: &str) -> SigningSecret {
    match SigningSecret::new(text) {
        Ok(secret) => secret,
        Err(error) => panic!("{error}"),
    }
}

/// The first line is the header, the rest the body: believed only if the header has a signature of this body, made within the
/// tolerance, as worked out here once more.
pub(crate) fn signature(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (header, body) = (&data[..at], data.get(at + 1..).unwrap_or_default());
    let secrets = [secret("whsec_another"), secret(SECRET)];
    if let Some(header) = text(header)
        && verify(body, header, &secrets, NOW_S, SIGNATURE_TOLERANCE_S).is_ok()
    {
        assert!(is_signed(header, body), "{header} is no signature");
    }
    rightly_signed(body, &secrets);
}

fn is_signed(header: &str, body: &[u8]) -> bool {
    let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
    let Some((_, at)) = parts().find(|(name, _)| *name == "t") else {
        return false;
    };
    let is_near = at
        .parse::<u64>()
        .is_ok_and(|at| at.abs_diff(NOW_S) <= SIGNATURE_TOLERANCE_S);
    let mut mac = match Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()) {
        Ok(mac) => mac,
        Err(error) => panic!("{error}"),
    };
    for part in [at.as_bytes(), b".", body] {
        mac.update(part);
    }
    let expected: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    is_near && parts().any(|(name, text)| name == "v1" && text.eq_ignore_ascii_case(&expected))
}

/// Any body that Stripe signs is believed, and by the same header no other body, time or secret.
fn rightly_signed(body: &[u8], secrets: &[SigningSecret]) {
    let header = sign(body, &secret(SECRET), NOW_S);
    let believed = |body: &[u8], secrets: &[SigningSecret], now| {
        verify(body, &header, secrets, now, SIGNATURE_TOLERANCE_S).is_ok()
    };
    assert!(believed(body, secrets, NOW_S));
    assert!(!believed(body, &secrets[..1], NOW_S));
    assert!(!believed(body, &[], NOW_S));
    assert!(!believed(body, secrets, NOW_S + SIGNATURE_TOLERANCE_S + 1));
    assert!(!believed(body, secrets, NOW_S - SIGNATURE_TOLERANCE_S - 1));
    let mut changed = body.to_vec();
    match changed.first_mut() {
        Some(byte) => *byte ^= 1,
        None => changed.push(0),
    }
    assert!(!believed(&changed, secrets, NOW_S));
}

/// Any signed body is an event with a name, or refused without a word of it.
pub(crate) fn event(data: &[u8]) {
    match Event::parse(data) {
        Ok(event) => {
            let _ = (event.object_id(), event.customer_id(), event.subscription_id());
            assert_eq!(Event::parse(data), Ok(event), "reading has no memory");
        }
        Err(error) => is_short(&error),
    }
}
