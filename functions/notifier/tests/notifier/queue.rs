//! The way through the queue: as Lambda's poller walks it.

use std::time::Duration;

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName as Attribute};
use serde_json::{Value, json};

use crate::system::{System, failed, message, operator};

/// Receives what is visible, as an event for the function.
async fn receive(system: &System, url: &str) -> Vec<Message> {
    let request = system
        .clients
        .sqs
        .receive_message()
        .queue_url(url)
        .max_number_of_messages(10);
    let request = request.message_system_attribute_names(Attribute::ApproximateReceiveCount);
    request
        .send()
        .await
        .unwrap_or_else(|e| panic!("{e:?}"))
        .messages
        .unwrap_or_default()
}

fn event(messages: &[Message]) -> Value {
    let record = |message: &Message| {
        let count = message
            .attributes
            .as_ref()
            .and_then(|all| all.get(&Attribute::ApproximateReceiveCount));
        json!({
            "messageId": message.message_id, "receiptHandle": message.receipt_handle, "body": message.body,
            "attributes": { "ApproximateReceiveCount": count },
        })
    };
    json!({ "Records": messages.iter().map(record).collect::<Vec<Value>>() })
}

/// One round of the poller: receives, invokes, deletes what did not fail. The ids of what failed.
async fn poll(system: &System) -> (Vec<Message>, Vec<String>) {
    let url = &system.deps.config.alert_queue_url;
    let messages = receive(system, url).await;
    let failed = failed(&system.notifier().handle(event(&messages)).await.unwrap());
    for message in &messages {
        if !failed.iter().any(|id| Some(id.as_str()) == message.message_id()) {
            let delete = system.clients.sqs.delete_message().queue_url(url);
            let delete = delete.set_receipt_handle(message.receipt_handle.clone());
            delete.send().await.unwrap_or_else(|e| panic!("{e:?}"));
        }
    }
    (messages, failed)
}

/// Makes a message visible now, as if its pause were over.
async fn end_pause(system: &System, message: &Message) {
    let receipt = message.receipt_handle().unwrap_or_default();
    system
        .deps
        .queue
        .postpone(receipt, 0)
        .await
        .unwrap_or_else(|e| panic!("{e}"));
}

#[tokio::test]
async fn an_alert_that_was_sent_is_delivered_and_gone() {
    let system = System::start().await;
    let notice = message("row.1", None, operator());
    system.deps.queue.send(&notice).await.unwrap();
    let (messages, failed) = poll(&system).await;
    assert_eq!((messages.len(), failed.len()), (1, 0));
    assert_eq!(system.sent("operator").len(), 1);
    assert_eq!(receive(&system, &system.deps.config.alert_queue_url).await, []);
}

#[tokio::test]
async fn what_fails_again_and_again_ends_in_the_dead_letter_queue_and_can_be_redriven() {
    let system = System::start().await;
    let notice = message("row.1", None, operator());
    system.deps.queue.send(&notice).await.unwrap();
    system.outbox.fail_next("operator", 3, 500);
    for round in 1..=3 {
        let (messages, failed) = poll(&system).await;
        assert_eq!((messages.len(), failed.len()), (1, 1), "round {round}");
        // It is hidden: the pause is on.
        assert_eq!(poll(&system).await.0, [], "round {round}");
        end_pause(&system, &messages[0]).await;
    }
    assert_eq!(poll(&system).await.0, []);
    let dead = receive(&system, &system.dead).await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].body.as_deref(), Some(notice.to_body().as_str()));
    assert_eq!(system.sent("operator").len(), 0);

    // The operator mends the topic and redrives.
    assert_eq!(system.deliver(&[&notice]).await, Vec::<String>::new());
    assert_eq!(system.sent("operator").len(), 1);
}

/// The queue's own time-out is 360 s; a pause that ends after a second can only be the function's.
#[tokio::test]
async fn a_message_whose_alert_is_busy_comes_again_when_the_lease_is_over() {
    use farebox_aws::alerts::Channel::Operator;
    let system = System::start().await;
    let notice = message("row.1", None, operator());
    system
        .deps
        .deliveries
        .claim("row.1", Operator, system.clock.now(), 1)
        .await
        .unwrap();
    system.deps.queue.send(&notice).await.unwrap();
    assert_eq!(poll(&system).await.1.len(), 1);
    assert_eq!(poll(&system).await.0, []);
    system.clock.advance_s(1);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let (messages, failed) = poll(&system).await;
    assert_eq!((messages.len(), failed.len()), (1, 0));
    assert_eq!(system.sent("operator").len(), 1);
}
