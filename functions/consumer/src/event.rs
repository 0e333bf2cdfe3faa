//! What the function is invoked with.

use serde::Deserialize;
use serde_json::Value;

use crate::Error;

/// An invocation.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Messages of the usage queue: id and body.
    Batch(Vec<(String, String)>),
    /// The schedule of every 5 minutes.
    Tick,
    /// The schedule of every day.
    Scan,
}

/// Two fields of <https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html>: one odd record must fail alone, so neither is
/// required. A record without an id fails its whole batch, which is what Lambda makes of an empty `itemIdentifier`; one
/// without a body is a poison message.
#[derive(Deserialize)]
struct Record {
    #[serde(rename = "messageId")]
    message_id: Option<String>,
    body: Option<String>,
}

impl Event {
    /// Reads what the function is invoked with. One odd record does not hide the others.
    ///
    /// # Errors
    /// [`Error::Event`] if it is no batch and no task.
    pub fn parse(mut event: Value) -> Result<Self, Error> {
        if let Some(records) = event.get_mut("Records") {
            let records: Vec<Record> = serde_json::from_value(records.take())
                .map_err(|e| Error::Event(format!("\"Records\" holds no messages ({:?} error)", e.classify())))?;
            let pair = |record: Record| (record.message_id.unwrap_or_default(), record.body.unwrap_or_default());
            return Ok(Self::Batch(records.into_iter().map(pair).collect()));
        }
        match event.get("task") {
            Some(Value::String(task)) if task == "tick" => Ok(Self::Tick),
            Some(Value::String(task)) if task == "scan" => Ok(Self::Scan),
            Some(_) => Err(Error::Event("its \"task\" is not known".to_owned())),
            None => Err(Error::Event("it has neither \"Records\" nor \"task\"".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Event;

    #[test]
    fn every_event_is_told_apart() {
        let batch =
            json!({ "Records": [{ "messageId": "a", "body": "{}", "attributes": null }, { "messageId": "b" }, {}] });
        let pair = |id: &str, body: &str| (id.to_owned(), body.to_owned());
        assert_eq!(
            Event::parse(batch).unwrap(),
            Event::Batch(vec![pair("a", "{}"), pair("b", ""), pair("", "")])
        );
        assert_eq!(Event::parse(json!({ "Records": [] })).unwrap(), Event::Batch(vec![]));
        assert_eq!(Event::parse(json!({ "task": "tick" })).unwrap(), Event::Tick);
        assert_eq!(Event::parse(json!({ "task": "scan", "time": 1 })).unwrap(), Event::Scan);
    }

    #[test]
    fn any_other_event_is_answered_with_what_is_expected() {
        for event in [
            json!({}),
            json!(null),
            json!([]),
            json!("tick"),
            json!({ "task": "tock" }),
            json!({ "Records": 1 }),
        ] {
            let error = Event::parse(event.clone()).unwrap_err().to_string();
            assert!(
                error.contains(r#"expected an SQS batch {"Records": [..]}, {"task": "tick"}"#),
                "{event}: {error}"
            );
        }
    }
}
