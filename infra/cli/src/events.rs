//! `farebox events replay`: dead letters go back to their queue. Each is sent before it is deleted: killed in between, it is
//! there twice, which changes nothing, as usage is cumulative and an alert is delivered once per id.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use aws_sdk_sqs::types::QueueAttributeName;
use farebox_core::{alert::AlertMessage, message::UsageMessage};
use serde::Serialize;

use crate::{
    arguments::{Events, QueueName},
    failure::{Done, Failure},
    reach::{Reach, cause},
    show::{Out, count},
};

/// What was received is hidden from others for so long, seconds.
const HIDDEN_S: i32 = 60;

/// So long one question waits for messages, seconds. Any wait asks all of SQS's servers, where none asks some of them and may
/// find nothing though there is something
/// (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-short-and-long-polling.html>). Less than the
/// time that the client gives an attempt.
const WAIT_S: i32 = 1;
/// How often a queue is asked how much it holds, until that is what was kept, and how long apart: the figure follows a little
/// later.
const LOOKS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// What became of a queue's dead letters.
#[derive(Default, Serialize)]
struct Replay {
    queue: &'static str,
    /// Sent back, or to be sent in a dry run.
    replayed: usize,
    /// Those that can't be read, by reason. They stay.
    unreadable: BTreeMap<String, usize>,
    /// Those that are there and were not received: hidden since another run, or just arriving. `None` if SQS does not say.
    left: Option<u64>,
}

pub(crate) async fn run(command: Events, reach: &Reach, out: Out) -> Result<Done, Failure> {
    let Events::Replay { queue, trial } = command;
    let queues = match queue {
        Some(queue) => vec![queue],
        None => vec![QueueName::Usage, QueueName::Alerts],
    };
    let mut replays = Vec::new();
    for queue in queues {
        replays.push(replay(queue, trial.dry_run, reach).await?);
    }
    out.show(&replays, || {
        let lines = replays.iter().map(|replay| {
            let verb = if trial.dry_run {
                "would be sent back"
            } else {
                "sent back"
            };
            let mut line = format!("{}: {} {verb}", replay.queue, count(replay.replayed, "message"));
            for (reason, n) in &replay.unreadable {
                let verb = if *n == 1 { "stays" } else { "stay" };
                line.push_str(&format!("\n  {} {verb}: {reason}", count(*n, "message")));
            }
            line + &left(replay.left)
        });
        lines.collect::<Vec<_>>().join("\n")
    })?;
    let is_any_left = replays
        .iter()
        .any(|replay| !replay.unreadable.is_empty() || replay.left != Some(0));
    let is_any_pending = trial.dry_run && replays.iter().any(|replay| replay.replayed > 0);
    Ok(match (is_any_pending, is_any_left) {
        (true, _) => Done::Pending,
        (false, true) => Done::Differs,
        (false, false) => Done::Well,
    })
}

/// What is said of messages that were not received.
fn left(left: Option<u64>) -> String {
    match left {
        Some(0) => String::new(),
        Some(1) => format!("\n  1 message is still there, hidden for now or just arriving: {AGAIN}"),
        Some(n) => format!("\n  {n} messages are still there, hidden for now or just arriving: {AGAIN}"),
        None => format!("\n  whether messages are left can't be read: {AGAIN}"),
    }
}

const AGAIN: &str = "run this again in a minute";

async fn replay(queue: QueueName, is_trial: bool, reach: &Reach) -> Result<Replay, Failure> {
    let (live, dead) = match queue {
        QueueName::Usage => ("usage", "usage-dead"),
        QueueName::Alerts => ("alerts", "alerts-dead"),
    };
    let to = reach.queue(live).await?;
    let from = reach.queue(dead).await?;
    let sqs = &reach.clients.sqs;
    let failed = |what: &str, cause: String| Failure::Failed(format!("{what} {from}: {cause}"));
    let mut replay = Replay {
        queue: live,
        ..Replay::default()
    };
    // By their ids: in a long run what is hidden comes again, and SQS may hand out anything twice.
    let mut kept: HashMap<String, String> = HashMap::new();
    let mut sent_back: HashSet<String> = HashSet::new();
    let mut repeats = 0;
    // Once all that stays has come again and nothing else did, there is nothing else.
    while repeats <= kept.len() {
        let request = sqs.receive_message().queue_url(&from).max_number_of_messages(10);
        let request = request.visibility_timeout(HIDDEN_S).wait_time_seconds(WAIT_S);
        let received = request.send().await.map_err(|e| failed("receive from", cause(&e)))?;
        let messages = received.messages.unwrap_or_default();
        if messages.is_empty() {
            break;
        }
        for message in messages {
            let id = message.message_id.unwrap_or_default();
            let body = message.body.unwrap_or_default();
            let receipt = message.receipt_handle.unwrap_or_default();
            if let Some(known) = kept.get_mut(&id) {
                *known = receipt;
                repeats += 1;
                continue;
            }
            repeats = 0;
            if let Some(problem) = problem(queue, &body) {
                *replay.unreadable.entry(problem).or_default() += 1;
                kept.insert(id, receipt);
                continue;
            }
            if is_trial {
                replay.replayed += 1;
                kept.insert(id, receipt);
                continue;
            }
            if !sent_back.contains(&id) {
                let sent = sqs.send_message().queue_url(&to).message_body(body).send().await;
                sent.map_err(|e| failed("send back from", cause(&e)))?;
                sent_back.insert(id);
                replay.replayed += 1;
            }
            let delete = sqs.delete_message().queue_url(&from).receipt_handle(receipt);
            delete.send().await.map_err(|e| failed("delete from", cause(&e)))?;
        }
    }
    // What stays is seen again at once.
    for receipt in kept.values() {
        let request = sqs.change_message_visibility().queue_url(&from).receipt_handle(receipt);
        let _ = request.visibility_timeout(0).send().await;
    }
    replay.left = not_received(&from, kept.len(), reach).await;
    Ok(replay)
}

/// How many messages a queue holds besides those that were kept in it. `None` if it does not say.
async fn not_received(queue: &str, kept: usize, reach: &Reach) -> Option<u64> {
    let kept = u64::try_from(kept).unwrap_or(u64::MAX);
    let mut left = None;
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let request = reach.clients.sqs.get_queue_attributes().queue_url(queue);
        let answer = request.attribute_names(QueueAttributeName::All).send().await.ok()?;
        let depth = crate::doctor::depth(&answer.attributes.unwrap_or_default()).ok()?;
        left = Some(depth.saturating_sub(kept));
        if left == Some(0) {
            break;
        }
    }
    left
}

/// Why a message can't be read. Nothing of it is quoted.
fn problem(queue: QueueName, body: &str) -> Option<String> {
    match queue {
        QueueName::Usage => UsageMessage::parse(body).err().map(|e| e.to_string()),
        QueueName::Alerts => AlertMessage::parse(body).err().map(|e| e.to_string()),
    }
}
