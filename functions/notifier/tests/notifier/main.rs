//! The notifier against the real wire protocols: DynamoDB and SQS embedded, SES, SNS and webhooks as the outbox of the local
//! system.

mod bad_input;
mod deliveries;
mod mails;
#[path = "../../../../infra/local/src/outbox.rs"]
pub mod outbox;
mod queue;
mod system;
mod webhooks;
