//! Names that become part of table keys.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A customer's id: 1 to 64 letters, digits, `_`, `-` or `.`. `#` separates the parts of a table key and is never in an id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CustomerId(String);

/// Which life of a counter item a unit was counted in: `<16 hexadecimal digits>-<slot>`.
///
/// The random part makes every ledger row of a restored item another row. The slot is the minute inside a bucket that its
/// reports are stamped with: no two generations of a customer share one, so each report can be asked for alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Generation {
    text: String,
    slot: u32,
}

/// A name that can't be part of a table key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {allowed}")]
pub struct BadId {
    what: &'static str,
    allowed: &'static str,
}

impl CustomerId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CustomerId {
    type Error = BadId;

    fn try_from(text: String) -> Result<Self, BadId> {
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if (1..=64).contains(&text.len()) && text.bytes().all(is_allowed) {
            Ok(Self(text))
        } else {
            Err(BadId {
                what: "a customer id",
                allowed: "1 to 64 letters, digits, '_', '-' or '.'",
            })
        }
    }
}

impl From<CustomerId> for String {
    fn from(id: CustomerId) -> Self {
        id.0
    }
}

impl fmt::Display for CustomerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Generation {
    /// A new generation in a slot of its own.
    #[must_use]
    pub fn new(random: [u8; 8], slot: u32) -> Self {
        Self {
            text: format!("{:016x}-{slot}", u64::from_be_bytes(random)),
            slot,
        }
    }

    /// The generation as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The minute inside a bucket that its reports are stamped with.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.slot
    }
}

impl TryFrom<String> for Generation {
    type Error = BadId;

    fn try_from(text: String) -> Result<Self, BadId> {
        let parsed = text.split_once('-').and_then(|(random, slot)| {
            let is_random = random.len() == 16 && random.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            let slot: u32 = slot.parse().ok()?;
            (is_random && text.len() == 17 + slot.to_string().len()).then_some(slot)
        });
        match parsed {
            Some(slot) => Ok(Self { text, slot }),
            None => Err(BadId {
                what: "a generation",
                allowed: "16 hexadecimal digits, '-' and a slot",
            }),
        }
    }
}

impl From<Generation> for String {
    fn from(generation: Generation) -> Self {
        generation.text
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a text can name a meter: 1 to 20 lower-case letters, digits or `_`.
#[must_use]
pub fn is_meter_name(text: &str) -> bool {
    (1..=20).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}
