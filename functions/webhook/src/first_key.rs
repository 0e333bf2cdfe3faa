//! The first key of a customer who came by Checkout: derived, so that every delivery of the event stores the same one and no
//! table ever holds it.

use farebox_core::key::{ApiKey, MalformedKey, Mode};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A shorter secret could be guessed.
const BYTES_MIN: usize = 32;

/// What first keys are made from. Whoever knows it and a session's id knows the key; it has no `Debug`, `Display` or
/// `Serialize`, so it can't reach a log.
#[derive(Clone)]
pub struct FirstKeySecret(String);

/// Why a text can't be a [`FirstKeySecret`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it must be at least {BYTES_MIN} visible ASCII characters")]
pub struct BadSecret;

impl FirstKeySecret {
    /// Takes a secret.
    ///
    /// # Errors
    /// [`BadSecret`] if it is shorter than 32 characters or holds anything but visible ASCII.
    pub fn new(secret: impl Into<String>) -> Result<Self, BadSecret> {
        let secret = secret.into();
        if secret.len() < BYTES_MIN || !secret.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(BadSecret);
        }
        Ok(Self(secret))
    }

    /// The key of a Checkout session: always the same one, and as random as the secret.
    pub(crate) fn key(&self, session: &str, brand: &str, mode: Mode) -> Result<ApiKey, MalformedKey> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).expect("HMAC takes a key of any length");
        mac.update(session.as_bytes());
        ApiKey::new(brand, mode, mac.finalize().into_bytes().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_one_key_and_every_other_another() {
        let secret = |text: &str| FirstKeySecret::new(text.repeat(32)).unwrap_or_else(|e| panic!("{e}"));
        let key = |secret: &FirstKeySecret, session: &str| {
            let key = secret.key(session, "fb", Mode::Test);
            key.unwrap_or_else(|e| panic!("{e}")).reveal().to_owned()
        };
        let (a, b) = (secret("a"), secret("b"));
        assert_eq!(key(&a, "cs_test_1"), key(&a, "cs_test_1"));
        assert_ne!(key(&a, "cs_test_1"), key(&a, "cs_test_2"));
        assert_ne!(key(&a, "cs_test_1"), key(&b, "cs_test_1"));
        // It must never change: a key that was shown must be the one that is stored.
        assert_eq!(
            key(&a, "cs_test_1"),
            "fb_test_XrwljvJIbr5gpqWmYrBh1hZiMtBDcBXytQJGjyPpQi30DqYk4"
        );
    }

    #[test]
    fn a_secret_that_could_be_guessed_is_refused() {
        for bad in ["", "short", &"x".repeat(31), &format!("{}\n", "x".repeat(40))] {
            assert!(FirstKeySecret::new(bad).is_err(), "{bad:?}");
        }
    }
}
