//! Looking at everything, changing nothing.

mod apis;
mod parts;
mod stripe;

use farebox_core::tiers;

pub(crate) use self::parts::depth;
use super::facts::{Clock, Facts, Unread};
use crate::{
    aws::{Reader, Service},
    failure::Failure,
    reach::{Reach, machine_time},
    stack,
};

/// What a deployed stack has and this machine does not.
const NEEDS_AWS: &str = "On this machine there are no functions, schedules, alarms, secrets, backups, gateway responses, \
                         authorizer settings and webhook endpoints to look at: `farebox doctor` without --local looks at a stack's";

/// What to do where nobody answers.
const REACH: &str = "see that this machine gets there: proxy, firewall, --stripe-url, AWS_ENDPOINT_URL";

/// Who is asked what.
struct Look<'a> {
    reach: &'a Reach,
    reader: Reader,
    facts: Facts,
}

/// Everything there is to see, and what a file of that name would change of what is sold.
///
/// # Errors
/// If there is no such stack, or nothing can be asked at all.
pub(crate) async fn collect(file: Option<&(String, tiers::Catalog)>, reach: &Reach) -> Result<Facts, Failure> {
    // Of the services that it asks, the local system has one.
    let endpoint = match reach.is_local {
        true => reach.settings.dynamodb_endpoint.clone(),
        false => reach.endpoint.clone(),
    };
    let settings = &reach.settings;
    let reader =
        Reader::new(settings.credentials.clone(), settings.region.clone(), endpoint).map_err(Failure::Failed)?;
    let mut look = Look {
        reach,
        reader,
        facts: Facts::default(),
    };
    match reach.is_local {
        true => look.facts.notes.push(NEEDS_AWS.to_owned()),
        false => look.facts.stack = Some(stack::describe(reach).await?),
    }
    look.tables().await;
    look.queues().await;
    if let Some(stack) = look.facts.stack.clone() {
        look.deployed(&stack).await;
        look.apis(&stack).await;
    }
    let before_s = machine_time().s();
    let date = look.reader.date(Service::DynamoDb).await;
    look.clock("DynamoDB", before_s, date);
    if let Some((client, seen)) = look.stripe_key().await {
        let before_s = machine_time().s();
        let date = client.date().await.map_err(|e| e.to_string());
        // Who does not answer to that is not asked the rest.
        if look.clock("Stripe", before_s, date) {
            look.stripe(&client, seen).await;
            if look.facts.stripe.as_ref().is_some_and(|stripe| !stripe.is_key_unknown) {
                look.catalog(file, client).await;
            }
        }
    }
    Ok(look.facts)
}

impl Look<'_> {
    /// Keeps what was seen, or that it could not be.
    fn keep<T>(&mut self, what: &str, fix: &str, seen: Result<T, String>) -> Option<T> {
        seen.map_err(|cause| {
            self.facts.unread.push(Unread {
                what: what.to_owned(),
                cause,
                fix: fix.to_owned(),
            });
        })
        .ok()
    }

    /// Whether the other clock could be asked.
    fn clock(&mut self, of: &'static str, before_s: u64, date: Result<Option<String>, String>) -> bool {
        let after_s = machine_time().s();
        let Some(date) = self.keep(of, REACH, date) else {
            return false;
        };
        match date.and_then(|date| chrono::DateTime::parse_from_rfc2822(&date).ok()) {
            Some(date) => {
                let ahead_s = ahead_s(before_s, after_s, date.timestamp());
                self.facts.clocks.push(Clock { of, ahead_s });
            }
            None => {
                let note = format!(
                    "{of} does not say what time it is there: the clock of this machine was not compared with it"
                );
                self.facts.notes.push(note);
            }
        }
        true
    }
}

/// How far our clock is ahead of one that showed a whole second at some time between two looks at ours.
fn ahead_s(before_s: u64, after_s: u64, theirs_s: i64) -> i64 {
    let second = |s: u64| i64::try_from(s).unwrap_or(i64::MAX);
    let (before, after) = (second(before_s), second(after_s));
    if before > theirs_s + 1 {
        before - theirs_s
    } else if after < theirs_s {
        after - theirs_s
    } else {
        0
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_told_apart_only_beyond_what_the_look_took() {
        assert_eq!(ahead_s(100, 100, 100), 0);
        assert_eq!(ahead_s(100, 103, 102), 0);
        assert_eq!(ahead_s(101, 101, 100), 0); // the second began before and may have ended
        assert_eq!(ahead_s(105, 106, 100), 5);
        assert_eq!(ahead_s(100, 101, 161), -60);
    }
}
