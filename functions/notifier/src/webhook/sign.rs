//! The Standard Webhooks form: who an event is from, and that nobody changed it
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use base64::{
    Engine,
    alphabet::STANDARD as ALPHABET,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use farebox_core::account::WebhookSecret;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Writes padding, and reads with or without it: a secret that was copied without its `=` is still the secret.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The value of `webhook-id`: the alert's id. What is no letter, digit, `_` or `-` becomes `~` and two hexadecimal digits,
/// so that two ids never become one, and no `.` can move the border between the signed parts.
pub(crate) fn id(alert: &str) -> String {
    let mut id = String::with_capacity(alert.len());
    for byte in alert.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
            id.push(char::from(byte));
        } else {
            id.push_str(&format!("~{byte:02x}"));
        }
    }
    id
}

/// The value of `webhook-signature`: one signature per secret that can sign. `None` if none can.
pub(crate) fn signatures(secrets: &[WebhookSecret], id: &str, timestamp_s: u64, body: &str) -> Option<String> {
    let signed = format!("{id}.{timestamp_s}.{body}");
    let signatures: Vec<String> = secrets.iter().filter_map(|secret| signature(secret, &signed)).collect();
    (!signatures.is_empty()).then(|| signatures.join(" "))
}

fn signature(secret: &WebhookSecret, signed: &str) -> Option<String> {
    let secret = secret.reveal();
    let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).ok()?;
    if key.is_empty() {
        return None;
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(signed.as_bytes());
    Some(format!("v1,{}", BASE64.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use farebox_core::account::WebhookSecret;

    use super::{id, signatures};

    fn secrets(all: &[&str]) -> Vec<WebhookSecret> {
        all.iter()
            .map(|&secret| WebhookSecret::new(secret.to_owned()))
            .collect()
    }

    /// The example that the libraries of the standard are tested with.
    #[test]
    fn the_published_example_is_signed_the_same() {
        let sign = |secret: &str| {
            let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", r#"{"test": 2432232314}"#);
            signatures(&secrets(&[secret]), id, 1_614_265_330, body)
        };
        let expected = Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned());
        assert_eq!(sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), expected);
        assert_eq!(sign("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), expected);
    }

    #[test]
    fn every_secret_that_can_sign_signs() {
        let sign = |all: &[&str]| signatures(&secrets(all), "a", 1, "{}");
        let (old, new) = (
            "whsec_b2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xk",
            "whsec_bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmU=",
        );
        let both = format!(
            "{} {}",
            sign(&[new]).unwrap_or_default(),
            sign(&[old]).unwrap_or_default()
        );
        assert_eq!(sign(&[new, old]), Some(both.clone()));
        assert_eq!(sign(&[new, "whsec_not base64", "whsec_", old]), Some(both));
        assert_eq!(sign(&[new]), sign(&[new.trim_end_matches('=')]));
        assert_eq!(sign(&["whsec_", "?"]), None);
        assert_eq!(sign(&[]), None);
    }

    #[test]
    fn ids_stay_apart_and_hold_no_full_stop() {
        assert_eq!(id("acme_1-api"), "acme_1-api");
        assert_eq!(id("acme.co#quota#80"), "acme~2eco~23quota~2380");
        assert_eq!(id("é\n~"), "~c3~a9~0a~7e");
        assert_ne!(id("a~2e"), id("a."));
    }
}
