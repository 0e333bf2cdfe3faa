//! The ladder: a batch, a message, a channel, an attempt.

use std::{sync::Arc, time::Duration};

use farebox_aws::{
    alerts::{Channel, Claim, How},
    telemetry::count,
};
use farebox_core::{
    alert::{AlertMessage, BadAlert, Recipient},
    time::Timestamp,
};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    Deps, Outcome,
    event::Record,
    mail,
    operator::{self, Notice},
    templates::Templates,
    webhook::{Call, payload},
    words::Values,
};

/// What one attempt on one channel may take. A worker that is slower has been stopped, and its claim may be taken over.
const ATTEMPT_MAX: Duration = Duration::from_secs(20);
/// How long a claim holds: well beyond the attempt and the note of its outcome.
const LEASE_S: u64 = 60;
/// A claim that took longer to get leaves too little of its lease for the attempt and the note.
const CLAIM_MS_MAX: u64 = 30_000;
/// How many messages of a batch are worked on at a time.
const PARALLEL_MAX: usize = 10;
/// The first and the longest pause between two attempts.
const BACKOFF_S: (u64, u64) = (30, 900);
/// Longer ids name no alert; DynamoDB's keys and the receiver's headers have room for these.
const ID_BYTES_MAX: usize = 512;
/// How the ids of alerts start that the operator sends as a test.
const TEST_ID: &str = "test-";
/// A reason is a line in a log and in the table.
const REASON_CHARS_MAX: usize = 500;

/// What everything below works with.
pub(crate) struct Kit {
    pub(crate) deps: Deps,
    pub(crate) templates: Templates,
}

/// Why a message is to be delivered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// It is nothing that can be delivered: it goes to the dead-letter queue as fast as the queue lets it.
    Poison,
    /// A channel failed: after a pause that grows.
    Later,
    /// Another worker has the last open channel: when its lease is over.
    After(Timestamp),
}

/// Delivers the messages of a batch; returns the ids of those that are to come again.
pub(crate) async fn batch(kit: &Arc<Kit>, records: Vec<Record>) -> Vec<String> {
    let mut failed = Vec::new();
    let mut running = JoinSet::new();
    for record in records {
        if running.len() >= PARALLEL_MAX {
            failed.extend(running.join_next().await.and_then(unwrap));
        }
        let kit = Arc::clone(kit);
        running.spawn(async move { one(&kit, &record).await.err().map(|_| record.message_id) });
    }
    while let Some(result) = running.join_next().await {
        failed.extend(unwrap(result));
    }
    failed
}

/// A panic must fail the invocation: passed over, a message would be acknowledged that nobody delivered.
fn unwrap<R>(result: Result<R, tokio::task::JoinError>) -> R {
    match result {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("nobody aborts these tasks: {error}"),
        },
    }
}

/// Delivers one message, or sees to it that it comes again at the right time.
async fn one(kit: &Kit, record: &Record) -> Result<(), Again> {
    let delivered = match read(&record.body) {
        Ok(message) => deliver(kit, &message).await,
        Err(problem) => {
            tracing::error!(message_id = record.message_id, %problem, "a message that is no alert");
            count("alerts_poison", 1);
            Err(Again::Poison)
        }
    };
    if let (Err(again), Some(receipt)) = (delivered, &record.receipt)
        && let Some(seconds) = pause_s(again, record.receives, kit.deps.now())
        && let Err(error) = kit.deps.queue.postpone(receipt, seconds).await
    {
        // It then comes again when the queue's own visibility time-out ends.
        tracing::info!(message_id = record.message_id, %error, "the message could not be postponed");
    }
    delivered
}

fn read(body: &str) -> Result<AlertMessage, BadAlert> {
    let message = AlertMessage::parse(body)?;
    if message.id.is_empty() || message.id.len() > ID_BYTES_MAX {
        return Err(BadAlert::Shape(format!(
            "its id is empty or longer than {ID_BYTES_MAX} bytes"
        )));
    }
    Ok(message)
}

fn pause_s(again: Again, receives: u32, now: Timestamp) -> Option<u64> {
    let (first, longest) = BACKOFF_S;
    match again {
        Again::Poison => None,
        Again::Later => {
            let doublings = receives.saturating_sub(1).min(16);
            Some((first << doublings).min(longest))
        }
        Again::After(until) => Some(until.ms_since(now).div_ceil(1_000).clamp(1, longest)),
    }
}

/// Brings an alert to everybody it is for. What is settled already is not touched again.
async fn deliver(kit: &Kit, message: &AlertMessage) -> Result<(), Again> {
    let channel = async |is_wanted: bool, channel: Channel| {
        if is_wanted {
            once(kit, message, channel).await
        } else {
            Ok(())
        }
    };
    let for_operator = message.occasion.is_for_operator();
    let customer = message.customer.as_ref().filter(|_| !for_operator);
    let has_email = customer.is_some_and(|customer| customer.email.is_some());
    let has_webhook = customer.is_some_and(|customer| customer.webhook.is_some());
    if for_operator && kit.deps.config.alert_topic_arn.is_none() {
        shout(message);
    }
    let results = tokio::join!(
        channel(has_email && kit.deps.config.mail_from.is_some(), Channel::Email),
        channel(has_webhook, Channel::Webhook),
        channel(
            for_operator && kit.deps.config.alert_topic_arn.is_some(),
            Channel::Operator
        ),
    );
    worst([results.0, results.1, results.2])
}

/// A failed channel sets the pace; one that is busy elsewhere is looked at again by the way.
fn worst(results: [Result<(), Again>; 3]) -> Result<(), Again> {
    let again = results.into_iter().filter_map(Result::err);
    let rank = |again: &Again| match again {
        Again::After(until) => (0, *until),
        Again::Later | Again::Poison => (1, Timestamp::default()),
    };
    again.max_by_key(rank).map_or(Ok(()), Err)
}

/// Without a topic the log is all that reaches the operator.
fn shout(message: &AlertMessage) {
    if let Some(notice) = Notice::of(message) {
        tracing::error!(alert = message.id, text = notice.text, "{}", notice.subject);
    }
}

/// Decides on one channel of one alert, if nobody else did or does.
async fn once(kit: &Kit, message: &AlertMessage, channel: Channel) -> Result<(), Again> {
    let (alert, deliveries) = (message.id.as_str(), &kit.deps.deliveries);
    let later = |error: farebox_aws::Error| {
        tracing::warn!(alert, %channel, %error, "the delivery can't be noted");
        Again::Later
    };
    let asked = kit.deps.now();
    let claim = deliveries.claim(alert, channel, asked, LEASE_S).await.map_err(later)?;
    let (token, attempt) = match claim {
        Claim::Done { .. } => return Ok(()),
        Claim::Busy { until } => return Err(Again::After(until)),
        Claim::Claimed { token, attempt } => (token, attempt),
    };
    let outcome = if kit.deps.now().ms_since(asked) > CLAIM_MS_MAX {
        Outcome::Retry("the claim came too late".to_owned())
    } else {
        let attempt = timeout(ATTEMPT_MAX, attempt_on(kit, message, channel)).await;
        attempt.unwrap_or_else(|_| Outcome::Retry(format!("no outcome within {} s", ATTEMPT_MAX.as_secs())))
    };
    let outcome = outcome.shortened();
    let kind = message.occasion.kind();
    let (still_held, result) = match &outcome {
        Outcome::Sent => {
            tracing::info!(alert, %channel, kind, attempt, "delivered");
            count("alerts_sent", 1);
            let finished = deliveries
                .finish(alert, channel, &token, &How::Sent, kit.deps.now())
                .await;
            (finished.map_err(later)?, Ok(()))
        }
        Outcome::GaveUp(reason) => {
            tracing::warn!(alert, %channel, kind, attempt, reason, "given up");
            count("alerts_given_up", 1);
            let how = How::GaveUp(reason.clone());
            let finished = deliveries.finish(alert, channel, &token, &how, kit.deps.now()).await;
            (finished.map_err(later)?, Ok(()))
        }
        Outcome::Retry(reason) => {
            tracing::warn!(alert, %channel, kind, attempt, reason, "not delivered, to be tried again");
            count("alerts_retried", 1);
            let given_back = deliveries.retry(alert, channel, &token, reason, kit.deps.now()).await;
            (given_back.map_err(later)?, Err(Again::Later))
        }
    };
    if !still_held {
        // Somebody else decides now, so this worker must not acknowledge the message on its own account.
        tracing::warn!(alert, %channel, attempt, "the claim was lost meanwhile");
        return Err(Again::Later);
    }
    result
}

async fn attempt_on(kit: &Kit, message: &AlertMessage, channel: Channel) -> Outcome {
    let nobody = || Outcome::GaveUp("the message names nobody to tell".to_owned());
    match (channel, &message.customer) {
        (Channel::Email, Some(customer)) => by_mail(kit, message, customer).await.unwrap_or_else(nobody),
        (Channel::Webhook, Some(customer)) => by_webhook(kit, message, customer).await.unwrap_or_else(nobody),
        (Channel::Operator, _) => by_topic(kit, message).await.unwrap_or_else(nobody),
        (_, None) => nobody(),
    }
}

async fn by_mail(kit: &Kit, message: &AlertMessage, customer: &Recipient) -> Option<Outcome> {
    let config = &kit.deps.config;
    let (from, to) = (config.mail_from.as_deref()?, customer.email.as_deref()?);
    let values = Values::of(message, customer, config.portal_url.as_deref());
    let mut mail = kit.templates.render(message.occasion.kind(), &values)?;
    mail.subject = subject(&message.id, mail.subject);
    Some(mail::send(&kit.deps.mail, from, config.mail_configuration_set.as_deref(), to, mail).await)
}

/// Whoever gets a test must not take it for news: the subject says so, whatever the template is.
fn subject(id: &str, subject: String) -> String {
    if id.starts_with(TEST_ID) {
        format!("[Test] {subject}")
    } else {
        subject
    }
}

/// Everything comes from the message but the secrets, which a message must not carry.
async fn by_webhook(kit: &Kit, message: &AlertMessage, customer: &Recipient) -> Option<Outcome> {
    let (url, body) = (customer.webhook.as_deref()?, payload::body(message, customer)?);
    let secrets = match kit.deps.accounts.customer(&customer.id).await {
        Ok(record) => record.map(|record| record.contact.webhook_secrets).unwrap_or_default(),
        Err(error) => return Some(Outcome::Retry(error.to_string())),
    };
    let call = Call {
        url,
        id: &message.id,
        secrets: &secrets,
        body,
        now: kit.deps.now(),
    };
    Some(kit.deps.http.deliver(call).await)
}

async fn by_topic(kit: &Kit, message: &AlertMessage) -> Option<Outcome> {
    let topic = kit.deps.config.alert_topic_arn.as_deref()?;
    Some(operator::publish(&kit.deps.sns, topic, Notice::of(message)?).await)
}

impl Outcome {
    fn shortened(self) -> Self {
        let short = |reason: String| reason.chars().take(REASON_CHARS_MAX).collect();
        match self {
            Self::Sent => Self::Sent,
            Self::GaveUp(reason) => Self::GaveUp(short(reason)),
            Self::Retry(reason) => Self::Retry(short(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use farebox_core::time::Timestamp;

    use super::{Again, pause_s, subject, worst};

    #[test]
    fn pauses_double_from_half_a_minute_to_a_quarter_of_an_hour() {
        let now = Timestamp::from_s(1_000);
        let pauses: Vec<u64> = (0..9).filter_map(|n| pause_s(Again::Later, n, now)).collect();
        assert_eq!(pauses, [30, 30, 60, 120, 240, 480, 900, 900, 900]);
        assert_eq!(pause_s(Again::Later, u32::MAX, now), Some(900));
    }

    #[test]
    fn a_lease_is_waited_for_and_poison_is_not() {
        let now = Timestamp::from_s(1_000);
        assert_eq!(pause_s(Again::After(Timestamp::from_ms(1_059_001)), 5, now), Some(60));
        assert_eq!(pause_s(Again::After(Timestamp::from_s(1)), 5, now), Some(1));
        assert_eq!(pause_s(Again::After(Timestamp::from_s(10_000)), 5, now), Some(900));
        assert_eq!(pause_s(Again::Poison, 1, now), None);
    }

    #[test]
    fn a_test_mail_says_that_it_is_one() {
        let of = |id| subject(id, "You have used 80%".to_owned());
        assert_eq!(of("test-0123"), "[Test] You have used 80%");
        assert_eq!(of("quota-test-1"), "You have used 80%");
    }

    #[test]
    fn a_failed_channel_sets_the_pace() {
        let after = |s| Err(Again::After(Timestamp::from_s(s)));
        assert_eq!(worst([Ok(()), Ok(()), Ok(())]), Ok(()));
        assert_eq!(worst([after(9), Err(Again::Later), Ok(())]), Err(Again::Later));
        assert_eq!(worst([after(9), after(3), Ok(())]), after(9));
    }
}
