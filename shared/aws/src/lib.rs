//! The edges of Farebox towards AWS: tables, the usage queue, and the control plane's writes.
//!
//! Everything here is the AWS SDK over its own wire protocol. The local system differs only in the endpoint that
//! [`connect::Settings`] names.

pub mod accounts;
pub mod alerts;
pub mod connect;
pub mod control;
pub mod counters;
mod http;
mod item;
pub mod ledger;
pub mod queue;
pub mod random;
pub mod schema;
#[cfg(feature = "secrets")]
pub mod secrets;
mod sign;
pub mod telemetry;

use std::error::Error as StdError;

use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// A call to AWS that did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service refused or could not be reached.
    #[error("{operation}: {cause}")]
    Call {
        /// The operation and the table or queue.
        operation: String,
        /// The service's code and message, or what the network said.
        cause: String,
    },
    /// An item in a table is not what this build writes.
    #[error("{operation}: the item is not readable: {problem}")]
    Item {
        /// The operation and the table.
        operation: String,
        /// What is wrong.
        problem: String,
    },
    /// The request names something that does not exist or can't be.
    #[error("{0}")]
    Refused(String),
    /// Somebody else changed the same record at the same time, several times in a row.
    #[error("{0} is being changed by somebody else; try again")]
    Contended(String),
}

impl Error {
    fn call<E, R>(operation: impl Into<String>, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
        R: std::fmt::Debug,
    {
        let cause = match error.as_service_error() {
            Some(service) => format!(
                "{}: {}",
                service.code().unwrap_or("no error code"),
                service.message().unwrap_or("no message")
            ),
            None => chain(error),
        };
        Self::Call {
            operation: operation.into(),
            cause,
        }
    }

    fn item(operation: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Item {
            operation: operation.into(),
            problem: problem.into(),
        }
    }
}

/// What an error says, and what its causes say. Not how they are made (`Debug`), as the SDK would add: that may hold the raw answer.
#[must_use]
pub fn chain(error: &dyn StdError) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::operation::get_item::GetItemError;
    use aws_smithy_runtime_api::client::result::SdkError;

    use super::Error;

    #[test]
    fn a_failed_call_says_why_and_quotes_no_answer() {
        let answer = r#"{"Item":{"doc":{"S":"whsec_planted"}}}"#;
        let error = SdkError::<GetItemError, &str>::response_error("the connection closed", answer);
        assert_eq!(
            Error::call("read accounts customer", &error).to_string(),
            "read accounts customer: response error: the connection closed"
        );
    }
}
