//! What the function is invoked with.

use serde::Deserialize;
use serde_json::Value;

use crate::Error;

/// A message of the alert queue, as far as it could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// SQS's id of the message.
    pub message_id: String,
    /// The message.
    pub body: String,
    /// Names this very delivery of the message to SQS.
    pub receipt: Option<String>,
    /// How often it was delivered, this time included.
    pub receives: u32,
}

/// Fields of <https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html>. One odd record must fail alone, so none is
/// required: a record without an id fails its whole batch, which is what Lambda makes of an empty `itemIdentifier`; one
/// without a body is a poison message.
#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "messageId")]
    message_id: Option<String>,
    body: Option<String>,
    #[serde(rename = "receiptHandle")]
    receipt_handle: Option<String>,
    attributes: Option<Value>,
}

impl From<Raw> for Record {
    fn from(raw: Raw) -> Self {
        let count = raw
            .attributes
            .as_ref()
            .and_then(|all| all.get("ApproximateReceiveCount"));
        Self {
            message_id: raw.message_id.unwrap_or_default(),
            body: raw.body.unwrap_or_default(),
            receipt: raw.receipt_handle.filter(|handle| !handle.is_empty()),
            receives: count.and_then(Value::as_str).and_then(|n| n.parse().ok()).unwrap_or(1),
        }
    }
}

/// The messages of a batch.
///
/// # Errors
/// [`Error::Event`] if the event is no batch.
pub fn records(mut event: Value) -> Result<Vec<Record>, Error> {
    let Some(records) = event.get_mut("Records") else {
        return Err(Error::Event("it has no \"Records\"".to_owned()));
    };
    let records: Vec<Raw> = serde_json::from_value(records.take())
        .map_err(|e| Error::Event(format!("\"Records\" holds no messages ({:?} error)", e.classify())))?;
    Ok(records.into_iter().map(Record::from).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Record, records};

    #[test]
    fn one_odd_record_does_not_hide_the_others() {
        let event = json!({ "Records": [
            { "messageId": "a", "body": "{}", "receiptHandle": "r", "attributes": { "ApproximateReceiveCount": "3" } },
            { "messageId": "b", "attributes": { "ApproximateReceiveCount": "many" } },
            { "attributes": 7, "receiptHandle": "" },
        ] });
        let record = |message_id: &str, body: &str, receipt: Option<&str>, receives| Record {
            message_id: message_id.to_owned(),
            body: body.to_owned(),
            receipt: receipt.map(str::to_owned),
            receives,
        };
        let expected = vec![
            record("a", "{}", Some("r"), 3),
            record("b", "", None, 1),
            record("", "", None, 1),
        ];
        assert_eq!(records(event).unwrap(), expected);
        assert_eq!(records(json!({ "Records": [] })).unwrap(), []);
    }

    #[test]
    fn any_other_event_is_answered_with_what_is_expected() {
        for event in [
            json!({}),
            json!(null),
            json!("tick"),
            json!({ "task": "tick" }),
            json!({ "Records": 1 }),
        ] {
            let error = records(event.clone()).unwrap_err().to_string();
            assert!(
                error.contains(r#"expected an SQS batch {"Records": [..]}"#),
                "{event}: {error}"
            );
        }
    }
}
