//! API keys: `<brand>_<live or test>_<43 base62 random><6 base62 CRC32>`.
//!
//! The checksum lets a made-up or mistyped key be refused without a look at the table. Only the SHA-256 of a key is ever
//! stored; a 256-bit random secret needs no slow hash.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM_LENGTH: usize = 43; // 62^43 > 2^256
const CHECKSUM_LENGTH: usize = 6; // 62^6 > 2^32
const BRAND_LENGTH_MAX: usize = 16;
const SECRET_LENGTH: usize = RANDOM_LENGTH + CHECKSUM_LENGTH;

/// Whether a key opens the live product or a test of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Calls count and are billed.
    Live,
    /// Calls count against a test customer.
    Test,
}

impl Mode {
    /// The word inside the key.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Live => "live",
            Mode::Test => "test",
        }
    }
}

/// A well-formed API key. It has no `Debug` and no `Display`: a secret must not reach a log by accident.
pub struct ApiKey(String);

/// Why a text is not an API key. Carries nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedKey {
    /// Not `<brand>_<live|test>_<49 base62>`.
    #[error("a key looks like <brand>_<live or test>_<49 letters and digits>")]
    Shape,
    /// The last six characters are not the checksum of the rest.
    #[error("the key's checksum does not match: it was mistyped or cut")]
    Checksum,
    /// The brand is not a lower-case letter followed by up to 15 lower-case letters or digits.
    #[error("a key's brand is a lower-case letter followed by up to 15 lower-case letters or digits")]
    Brand,
}

impl ApiKey {
    /// Makes a key from 32 random bytes.
    ///
    /// # Errors
    /// [`MalformedKey::Brand`] if the brand is not `[a-z][a-z0-9]{0,15}`.
    pub fn new(brand: &str, mode: Mode, random: [u8; 32]) -> Result<Self, MalformedKey> {
        check_brand(brand)?;
        let mut text = format!("{brand}_{}_{}", mode.as_str(), base62(&random, RANDOM_LENGTH));
        text.push_str(&checksum(&text));
        Ok(Self(text))
    }

    /// Checks shape and checksum, without any table: nearly every made-up key ends here.
    ///
    /// # Errors
    /// [`MalformedKey`], which never carries the text.
    pub fn parse(text: &str) -> Result<Self, MalformedKey> {
        let mut parts = text.splitn(3, '_');
        let (Some(brand), Some(mode), Some(secret)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(MalformedKey::Shape);
        };
        if !is_brand(brand)
            || !matches!(mode, "live" | "test")
            || secret.len() != SECRET_LENGTH
            || !secret.bytes().all(|b| b.is_ascii_alphanumeric())
        {
            return Err(MalformedKey::Shape);
        }
        let (body, given) = text.split_at(text.len() - CHECKSUM_LENGTH);
        if checksum(body) != given {
            return Err(MalformedKey::Checksum);
        }
        Ok(Self(text.to_owned()))
    }

    /// What the table knows the key by.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash(Sha256::digest(self.0.as_bytes()).into())
    }

    /// Brand, mode and four characters: enough to recognise a key, far too little to use it.
    #[must_use]
    pub fn display_prefix(&self) -> &str {
        &self.0[..self.0.len() - SECRET_LENGTH + 4]
    }

    /// The last four characters. They belong to the checksum.
    #[must_use]
    pub fn last_four(&self) -> &str {
        &self.0[self.0.len() - 4..]
    }

    /// The key itself, for the one moment in which its owner is shown it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// The SHA-256 of an API key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyHash([u8; 32]);

/// A text is not the 64 hexadecimal digits of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key's hash is 64 hexadecimal digits")]
pub struct MalformedHash;

impl TryFrom<String> for KeyHash {
    type Error = MalformedHash;

    fn try_from(text: String) -> Result<Self, MalformedHash> {
        Self::from_hex(&text).ok_or(MalformedHash)
    }
}

impl From<KeyHash> for String {
    fn from(hash: KeyHash) -> Self {
        hash.to_string()
    }
}

impl KeyHash {
    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        // `from_str_radix` would take a sign, too.
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Finds the key in a request: `x-api-key` first, then `Authorization: Bearer`. The query string is never looked at: URLs
/// end up in logs.
#[must_use]
pub fn from_headers<'a>(api_key: Option<&'a str>, authorization: Option<&'a str>) -> Option<&'a str> {
    if let Some(key) = api_key {
        return Some(key.trim_matches(' '));
    }
    let (scheme, token) = authorization?.trim_matches(' ').split_once(' ')?;
    // RFC 9110, section 11.1: the scheme is case-insensitive.
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

fn is_brand(brand: &str) -> bool {
    brand.len() <= BRAND_LENGTH_MAX
        && brand.starts_with(|c: char| c.is_ascii_lowercase())
        && brand.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Whether a text can be a key's brand.
///
/// # Errors
/// [`MalformedKey::Brand`] if it is not `[a-z][a-z0-9]{0,15}`.
pub fn check_brand(brand: &str) -> Result<(), MalformedKey> {
    if is_brand(brand) {
        Ok(())
    } else {
        Err(MalformedKey::Brand)
    }
}

fn checksum(body: &str) -> String {
    base62(&crc32fast::hash(body.as_bytes()).to_be_bytes(), CHECKSUM_LENGTH)
}

/// The big-endian number in exactly `length` digits, by long division.
fn base62(number: &[u8], length: usize) -> String {
    let mut number = number.to_vec();
    let mut digits = vec![BASE62[0]; length];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0u32;
        for byte in &mut number {
            let value = remainder * 256 + u32::from(*byte);
            *byte = (value / 62) as u8; // remainder < 62, so the quotient is below 256
            remainder = value % 62;
        }
        *digit = BASE62[remainder as usize];
    }
    digits.into_iter().map(char::from).collect()
}
