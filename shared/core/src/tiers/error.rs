//! What is wrong with a `tiers.yaml`, and where.

use std::fmt;

/// One mistake in the file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TierError {
    /// The file's name, as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The dotted path of the field, `tiers.pro.rate_limit`; empty where the file as a whole is meant.
    pub field: String,
    /// The value as written, shortened; empty where a list or mapping is meant.
    pub value: String,
    /// What is wrong and what to write instead: continues a sentence that begins with the field or the value.
    pub problem: String,
}

/// A longer value is cut in messages.
const VALUE_CHARS_MAX: usize = 60;

/// A value as messages show it.
pub(super) fn shortened(value: &str) -> String {
    if value.chars().count() <= VALUE_CHARS_MAX {
        return value.to_owned();
    }
    let mut short: String = value.chars().take(VALUE_CHARS_MAX).collect();
    short.push('…');
    short
}

impl fmt::Display for TierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        match (self.field.as_str(), self.value.as_str()) {
            ("", "") => write!(f, "{}", self.problem),
            (field, "") => write!(f, "{field} {}", self.problem),
            ("", value) => write!(f, "{value:?} {}", self.problem),
            (field, value) => write!(f, "{field}: {value:?} {}", self.problem),
        }
    }
}

impl std::error::Error for TierError {}

/// Every mistake of a file, in the order of its lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierErrors(Vec<TierError>);

impl TierErrors {
    pub(super) fn new(mut errors: Vec<TierError>) -> Self {
        errors.sort_by_key(|error| (error.line, error.column));
        errors.dedup();
        Self(errors)
    }

    /// The mistakes.
    pub fn as_slice(&self) -> &[TierError] {
        &self.0
    }

    /// The mistakes one by one.
    pub fn iter(&self) -> std::slice::Iter<'_, TierError> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a TierErrors {
    type Item = &'a TierError;
    type IntoIter = std::slice::Iter<'a, TierError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for TierErrors {
    /// One mistake per line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for TierErrors {}
