//! `farebox events replay`: dead letters go back to their queue. Each is sent before it is deleted: killed in between, it is
//! there twice, which changes nothing, as usage is cumulative and an alert is delivered once per id.

use std::collections::BTreeMap;

use farebox_core::{alert::AlertMessage, message::UsageMessage};
use serde::Serialize;

use crate::{
    arguments::{Events, QueueName},
    failure::{Done, Failure},
    reach::Reach,
    show::{Out, count},
};

/// What was received is hidden from others for so long, seconds.
const HIDDEN_S: i32 = 60;

/// What became of a queue's dead letters.
#[derive(Default, Serialize)]
struct Replay {
    queue: &'static str,
    /// Sent back, or to be sent in a dry run.
    replayed: usize,
    /// Those that can't be read, by reason. They stay.
    unreadable: BTreeMap<String, usize>,
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
            line
        });
        lines.collect::<Vec<_>>().join("\n")
    })?;
    let is_any_left = replays.iter().any(|replay| !replay.unreadable.is_empty());
    let is_any_pending = trial.dry_run && replays.iter().any(|replay| replay.replayed > 0);
    Ok(match (is_any_pending, is_any_left) {
        (true, _) => Done::Pending,
        (false, true) => Done::Differs,
        (false, false) => Done::Well,
    })
}

async fn replay(queue: QueueName, is_trial: bool, reach: &Reach) -> Result<Replay, Failure> {
    let (live, dead) = match queue {
        QueueName::Usage => ("usage", "usage-dead"),
        QueueName::Alerts => ("alerts", "alerts-dead"),
    };
    let to = reach.queue(live).await?;
    let from = reach.queue(dead).await?;
    let sqs = &reach.clients.sqs;
    let failed = |what: &str, e: &dyn std::fmt::Debug| Failure::Failed(format!("{what} {from}: {e:?}"));
    let mut replay = Replay {
        queue: live,
        ..Replay::default()
    };
    let mut kept = Vec::new();
    loop {
        let request = sqs.receive_message().queue_url(&from).max_number_of_messages(10);
        let received = request.visibility_timeout(HIDDEN_S).send().await;
        let messages = received
            .map_err(|e| failed("receive from", &e))?
            .messages
            .unwrap_or_default();
        if messages.is_empty() {
            break;
        }
        for message in messages {
            let (body, receipt) = (
                message.body.unwrap_or_default(),
                message.receipt_handle.unwrap_or_default(),
            );
            match problem(queue, &body) {
                Some(problem) => {
                    *replay.unreadable.entry(problem).or_default() += 1;
                    kept.push(receipt);
                }
                None if is_trial => {
                    replay.replayed += 1;
                    kept.push(receipt);
                }
                None => {
                    let sent = sqs.send_message().queue_url(&to).message_body(body).send().await;
                    sent.map_err(|e| failed("send back from", &e))?;
                    let deleted = sqs
                        .delete_message()
                        .queue_url(&from)
                        .receipt_handle(receipt)
                        .send()
                        .await;
                    deleted.map_err(|e| failed("delete from", &e))?;
                    replay.replayed += 1;
                }
            }
        }
    }
    // What stays is seen again at once.
    for receipt in kept {
        let request = sqs.change_message_visibility().queue_url(&from).receipt_handle(receipt);
        let _ = request.visibility_timeout(0).send().await;
    }
    Ok(replay)
}

/// Why a message can't be read. Nothing of it is quoted.
fn problem(queue: QueueName, body: &str) -> Option<String> {
    match queue {
        QueueName::Usage => UsageMessage::parse(body).err().map(|e| e.to_string()),
        QueueName::Alerts => AlertMessage::parse(body).err().map(|e| e.to_string()),
    }
}
