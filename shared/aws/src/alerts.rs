//! The alert queue, and what became of each alert on each channel.
//!
//! Deliveries lie in the accounts table, one item per alert and channel:
//!
//! | pk | sk | what |
//! | --- | --- | --- |
//! | `a#<alert id>` | `<channel>` | how the delivery stands |
//!
//! ```text
//!             ╭──────────────── retry ────────────────╮
//!             ▼                                       │
//!   absent / waiting ── claim (a lease begins) ──▶ claimed ── finish ──▶ sent | gave_up
//!                                                  ▲  │
//!                                                  ╰──╯ the lease is over: another worker claims
//! ```
//!
//! At most one worker holds a lease at a time, and nothing leads away from `sent` and `gave_up`. A worker that dies after the
//! mail was taken and before it could say so leaves a claim that is taken over: that one case delivers twice, none loses.

use std::fmt;

use aws_sdk_dynamodb::{
    operation::update_item::UpdateItemError,
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure as OnFailure},
};
use farebox_core::{alert::AlertMessage, expression::Expression, time::Timestamp};

use crate::{Error, connect::Clients, counters::bind, item};

/// How long a delivery is remembered: far longer than SQS keeps a message (14 days) and a year's alerts can be looked up.
pub const REMEMBERED_S: u64 = 400 * 86_400;

/// The alert queue.
#[derive(Clone, Debug)]
pub struct AlertQueue {
    clients: Clients,
    url: String,
}

impl AlertQueue {
    /// The queue at this URL.
    #[must_use]
    pub fn new(clients: Clients, url: String) -> Self {
        Self { clients, url }
    }

    /// Sends an alert. Sending the same one again is harmless: each channel is decided on once per id.
    ///
    /// # Errors
    /// [`Error`] if the queue did not take it, or if that is not known.
    pub async fn send(&self, message: &AlertMessage) -> Result<(), Error> {
        self.clients
            .sqs
            .send_message()
            .queue_url(&self.url)
            .message_body(message.to_body())
            .send()
            .await
            .map_err(|e| Error::call("send alert", &e))?;
        Ok(())
    }

    /// Hides a message that was received, so that it comes back after so many seconds (at most 12 hours).
    ///
    /// # Errors
    /// [`Error`] if the queue refused; the message then comes back when its visibility time-out ends.
    pub async fn postpone(&self, receipt: &str, seconds: u64) -> Result<(), Error> {
        self.clients
            .sqs
            .change_message_visibility()
            .queue_url(&self.url)
            .receipt_handle(receipt)
            .visibility_timeout(i32::try_from(seconds.min(43_200)).unwrap_or(43_200))
            .send()
            .await
            .map_err(|e| Error::call("postpone alert", &e))?;
        Ok(())
    }
}

/// A way to tell somebody something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// Mail to the customer.
    Email,
    /// The customer's webhook.
    Webhook,
    /// The operator's topic.
    Operator,
}

impl Channel {
    /// The word in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Webhook => "webhook",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a delivery ended, for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// It was taken.
    Sent,
    /// It never will be, and why.
    GaveUp(String),
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The caller alone delivers, until the lease is over.
    Claimed {
        /// Names the claim in what follows.
        token: String,
        /// Which attempt this is, from 1.
        attempt: u64,
    },
    /// Another worker has it.
    Busy {
        /// The end of its lease.
        until: Timestamp,
    },
    /// There is nothing left to do.
    Done {
        /// How it ended.
        how: How,
    },
}

/// What became of each alert on each channel.
#[derive(Clone, Debug)]
pub struct DeliveryTable {
    clients: Clients,
    table: String,
}

impl DeliveryTable {
    /// The accounts table of this name.
    #[must_use]
    pub fn new(clients: Clients, table: String) -> Self {
        Self { clients, table }
    }

    /// Asks for the right to deliver an alert on a channel, for `lease_s` seconds.
    ///
    /// # Errors
    /// [`Error`] if the outcome is not known; a claim that was made nevertheless ends with its lease.
    pub async fn claim(&self, id: &str, channel: Channel, now: Timestamp, lease_s: u64) -> Result<Claim, Error> {
        let token = self.clients.random.token()?;
        let until = now.plus_ms(lease_s.saturating_mul(1_000));
        let operation = || format!("claim {} {channel}", self.table);
        let bad = |problem: &str| Error::item(operation(), problem);
        let (item, is_applied) = self.write(id, channel, claim(&token, now, until), operation).await?;
        let claimed_by_us = item::text(&item, "token") == Some(&token);
        match item::text(&item, "state") {
            // The SDK repeats a write whose answer got lost; the repetition is refused, but shows our own token.
            Some("claimed") if is_applied || claimed_by_us => {
                let attempt = item::number(&item, "attempts").ok_or_else(|| bad("attempts is missing"))?;
                Ok(Claim::Claimed { token, attempt })
            }
            Some("claimed") => {
                let until = item::number(&item, "until").ok_or_else(|| bad("until is missing"))?;
                Ok(Claim::Busy {
                    until: Timestamp::from_ms(until),
                })
            }
            Some("sent") => Ok(Claim::Done { how: How::Sent }),
            Some("gave_up") => {
                let reason = item::text(&item, "reason").unwrap_or_default().to_owned();
                Ok(Claim::Done {
                    how: How::GaveUp(reason),
                })
            }
            _ => Err(bad("state is not a delivery's state")),
        }
    }

    /// Settles a delivery for good. Says whether the claim still held; if not, somebody else has it or settled it.
    ///
    /// # Errors
    /// [`Error`] if the outcome is not known.
    pub async fn finish(
        &self,
        id: &str,
        channel: Channel,
        token: &str,
        how: &How,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let (state, reason) = match how {
            How::Sent => ("sent", ""),
            How::GaveUp(reason) => ("gave_up", reason.as_str()),
        };
        self.leave(id, channel, token, state, reason, now).await
    }

    /// Gives a claim back, so that the next delivery of the message tries again. Says whether it still held.
    ///
    /// # Errors
    /// [`Error`] if the outcome is not known; the claim then ends with its lease.
    pub async fn retry(
        &self,
        id: &str,
        channel: Channel,
        token: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<bool, Error> {
        self.leave(id, channel, token, "waiting", reason, now).await
    }

    async fn leave(
        &self,
        id: &str,
        channel: Channel,
        token: &str,
        state: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let operation = || format!("settle {} {channel}", self.table);
        let (item, is_applied) = self
            .write(id, channel, leave(token, state, reason, now), operation)
            .await?;
        // As in `claim`: our own write, repeated by the SDK.
        let is_ours = item::text(&item, "token") == Some(token) && item::text(&item, "state") == Some(state);
        Ok(is_applied || is_ours)
    }

    /// Writes; returns the item after it, or the item that refused it, and which of both it is.
    async fn write(
        &self,
        id: &str,
        channel: Channel,
        write: Expression,
        operation: impl Fn() -> String,
    ) -> Result<(item::Item, bool), Error> {
        let request = bind(self.clients.dynamodb.update_item(), write)
            .table_name(&self.table)
            .key("pk", AttributeValue::S(format!("a#{id}")))
            .key("sk", AttributeValue::S(channel.as_str().to_owned()))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(OnFailure::AllOld);
        match request.send().await {
            Ok(answer) => Ok((answer.attributes.unwrap_or_default(), true)),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                    Ok((failed.item.clone().unwrap_or_default(), false))
                }
                _ => Err(Error::call(operation(), &error)),
            },
        }
    }
}

/// absent, waiting, or claimed with a lease that is over → claimed.
fn claim(token: &str, now: Timestamp, until: Timestamp) -> Expression {
    Expression::new(
        "SET #state = :claimed, #token = :token, #until = :until, #ttl = :ttl, \
         attempts = if_not_exists(attempts, :none) + :one",
        "attribute_not_exists(#state) OR #state = :waiting OR (#state = :claimed AND #until <= :now)",
    )
    .name("#state", "state")
    .name("#token", "token")
    .name("#until", "until")
    .name("#ttl", "ttl")
    .value(":claimed", "claimed")
    .value(":waiting", "waiting")
    .value(":token", token)
    .value(":now", now.ms())
    .value(":until", until.ms())
    .value(":ttl", now.s().saturating_add(REMEMBERED_S))
    .value(":none", 0u64)
    .value(":one", 1u64)
}

/// claimed by this token → sent, gave_up or waiting.
fn leave(token: &str, state: &str, reason: &str, now: Timestamp) -> Expression {
    Expression::new(
        "SET #state = :state, reason = :reason, settled = :now, #ttl = :ttl REMOVE #until",
        "#state = :claimed AND #token = :token",
    )
    .name("#state", "state")
    .name("#token", "token")
    .name("#until", "until")
    .name("#ttl", "ttl")
    .value(":claimed", "claimed")
    .value(":state", state)
    .value(":reason", reason)
    .value(":token", token)
    .value(":now", now.ms())
    .value(":ttl", now.s().saturating_add(REMEMBERED_S))
}
