//! The v1 idempotency layer: the first result of a key is the result.
//!
//! Source: <https://docs.stripe.com/api/idempotent_requests>.

use std::collections::{HashMap, VecDeque};

use crate::{calendar::DAY, wire::error::ApiError};

/// A key's result is kept this long.
const RESULT_KEPT_S: i64 = DAY;

/// "Idempotency keys are up to 255 characters long."
pub(crate) const KEY_LENGTH_MAX: usize = 255;

/// The status and the exact bytes of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) status: u16,
    pub(crate) body: String,
}

#[derive(Debug)]
struct Record {
    path: String,
    parameters: String,
    result: Kept,
}

/// The results of the last 24 hours by key.
#[derive(Debug, Default)]
pub(crate) struct IdempotencyKeys {
    records: HashMap<String, Record>,
    /// Keys in the order in which they are forgotten.
    forget: VecDeque<(i64, String)>,
}

impl IdempotencyKeys {
    /// The kept result of a key, or an error if the key was first used for something else. `parameters` is the canonical form.
    pub(crate) fn replay(&self, key: &str, path: &str, parameters: &str) -> Result<Option<&Kept>, ApiError> {
        let Some(record) = self.records.get(key) else {
            return Ok(None);
        };
        if record.path != path {
            return Err(ApiError::key_for_other_endpoint(key, &record.path, path));
        }
        if record.parameters != parameters {
            return Err(ApiError::key_with_other_parameters(key));
        }
        Ok(Some(&record.result))
    }

    pub(crate) fn keep(&mut self, key: &str, path: &str, parameters: String, result: Kept, at: i64) {
        self.forget.push_back((at + RESULT_KEPT_S, key.to_owned()));
        let record = Record {
            path: path.to_owned(),
            parameters,
            result,
        };
        self.records.insert(key.to_owned(), record);
    }

    /// Forgets results that are 24 hours old.
    pub(crate) fn prune(&mut self, now: i64) {
        while self.forget.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.forget.pop_front() {
                self.records.remove(&key);
            }
        }
    }
}
