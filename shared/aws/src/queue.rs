//! The usage queue.

use aws_sdk_sqs::types::SendMessageBatchRequestEntry as Entry;
use farebox_core::message::UsageMessage;

use crate::{Error, connect::Clients};

/// The usage queue.
#[derive(Clone, Debug)]
pub struct UsageQueue {
    clients: Clients,
    url: String,
}

impl UsageQueue {
    /// The queue at this URL.
    #[must_use]
    pub fn new(clients: Clients, url: String) -> Self {
        Self { clients, url }
    }

    /// Sends messages, ten to a call (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html>),
    /// and returns those that the queue did not take. Each call is made once, and after one that failed no other is made: these are
    /// hints, and whoever sends them sends them again.
    ///
    /// # Errors
    /// Never: a queue that can't be reached takes nothing. The first cause comes with what was not taken.
    pub async fn send(&self, messages: Vec<UsageMessage>) -> Result<(), (Vec<UsageMessage>, String)> {
        let (mut left, mut cause) = (Vec::new(), None);
        for (n, batch) in messages.chunks(10).enumerate() {
            let entry = |(i, message): (usize, &UsageMessage)| {
                Entry::builder()
                    .id(i.to_string())
                    .message_body(message.to_body())
                    .build()
            };
            let entries: Result<Vec<Entry>, _> = batch.iter().enumerate().map(entry).collect();
            let sent = match entries {
                Ok(entries) => {
                    let request = self.clients.sqs_once.send_message_batch().queue_url(&self.url);
                    request
                        .set_entries(Some(entries))
                        .send()
                        .await
                        .map_err(|e| Error::call("send usage", &e))
                }
                Err(e) => Err(Error::Refused(e.to_string())),
            };
            match sent {
                Ok(answer) => left.extend(answer.failed().iter().filter_map(|failed| {
                    cause.get_or_insert_with(|| format!("send usage: {}", failed.code()));
                    batch.get(failed.id().parse::<usize>().ok()?).cloned()
                })),
                Err(error) => {
                    cause.get_or_insert_with(|| error.to_string());
                    left.extend(messages.iter().skip(n * 10).cloned());
                    break;
                }
            }
        }
        match cause {
            None => Ok(()),
            Some(cause) => Err((left, cause)),
        }
    }
}
