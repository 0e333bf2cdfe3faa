//! Messages of the queues, and the batches that they come in.

use farebox_consumer::Event;
use farebox_core::{
    alert::AlertMessage,
    message::{UNITS_MAX, UsageMessage},
};
use serde_json::Value;

use crate::{is_short, text};

/// A usage message is within its bounds and reads back as itself, or is refused without a word of it.
pub(crate) fn usage_message(data: &[u8]) {
    let Some(text) = text(data) else { return };
    match UsageMessage::parse(text) {
        Ok(message) => {
            assert!(message.units <= UNITS_MAX && message.period_units <= UNITS_MAX);
            assert!(message.bucket < message.bucket_end && message.bucket_end - message.bucket <= 3_600);
            assert!(message.period <= message.bucket);
            assert!(
                !message.customer.as_str().contains('#'),
                "a customer's id ends where it ends"
            );
            assert_eq!(UsageMessage::parse(&message.to_body()), Ok(message));
        }
        Err(error) => is_short(&error),
    }
}

/// The same of an alert.
pub(crate) fn alert_message(data: &[u8]) {
    let Some(text) = text(data) else { return };
    match AlertMessage::parse(text) {
        Ok(message) => assert_eq!(AlertMessage::parse(&message.to_body()), Ok(message)),
        Err(error) => is_short(&error),
    }
}

/// A batch has as many messages as it has records, odd ones included: none is lost, none hides another.
pub(crate) fn queue_batch(data: &[u8]) {
    let Ok(event) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    let count = event["Records"].as_array().map(Vec::len);
    match Event::parse(event.clone()) {
        Ok(Event::Batch(records)) => assert_eq!(Some(records.len()), count),
        Ok(Event::Tick | Event::Scan) => assert!(event.get("Records").is_none()),
        Err(error) => is_short(&error),
    }
    match farebox_notifier::records(event) {
        Ok(records) => assert_eq!(Some(records.len()), count),
        Err(error) => is_short(&error),
    }
}
