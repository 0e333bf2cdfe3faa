//! SQS as far as it is spoken to: queues take messages. Delivering them is the run's.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::store::Answer;

/// The queues by name.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    waiting: BTreeMap<String, Vec<Message>>,
    sent: u64,
}

/// A message that waits.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) body: String,
}

impl Queues {
    pub(crate) fn answer(&mut self, operation: &str, request: &Value) -> Answer {
        let name = |url: &Value| {
            url.as_str()
                .and_then(|url| url.rsplit('/').next())
                .unwrap_or_default()
                .to_owned()
        };
        let queue = name(&request["QueueUrl"]);
        let body = match operation {
            "CreateQueue" => json!({ "QueueUrl": format!("http://sqs.simulation/{}", name(&request["QueueName"])) }),
            "GetQueueAttributes" => {
                json!({ "Attributes": { "QueueArn": format!("arn:aws:sqs:simulation:0:{queue}") } })
            }
            "SendMessage" => self.take(&queue, request),
            "SendMessageBatch" => {
                let entries = request["Entries"].as_array().cloned().unwrap_or_default();
                let taken = entries.iter().map(|entry| {
                    let mut taken = self.take(&queue, entry);
                    taken["Id"] = entry["Id"].clone();
                    taken
                });
                json!({ "Successful": taken.collect::<Vec<Value>>(), "Failed": [] })
            }
            _ => return Answer::error(400, "InvalidAction"),
        };
        Answer {
            status: 200,
            body: body.to_string(),
        }
    }

    fn take(&mut self, queue: &str, message: &Value) -> Value {
        self.sent += 1;
        let id = format!("m-{}", self.sent);
        self.waiting.entry(queue.to_owned()).or_default().push(Message {
            id: id.clone(),
            body: message["MessageBody"].as_str().unwrap_or_default().to_owned(),
        });
        json!({ "MessageId": id, "MD5OfMessageBody": "" })
    }

    /// What waits in a queue; the queue is empty afterwards.
    pub(crate) fn drain(&mut self, queue: &str) -> Vec<Message> {
        self.waiting.get_mut(queue).map(std::mem::take).unwrap_or_default()
    }
}
