//! The operator's topic (<https://docs.aws.amazon.com/sns/latest/api/API_Publish.html>).

use std::collections::BTreeMap;

use aws_sdk_sns::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::publish::PublishError,
};
use farebox_aws::chain;
use farebox_core::alert::{AlertMessage, Occasion};

use crate::{Outcome, words::rfc3339};

/// A subject has fewer than 100 ASCII characters, on one line.
const SUBJECT_BYTES_MAX: usize = 99;
/// SNS takes 256 KB; people read less.
const TEXT_BYTES_MAX: usize = 32 * 1024;

/// What the operator reads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) subject: String,
    pub(crate) text: String,
}

impl Notice {
    /// The notice of a message; `None` if it is not for the operator.
    pub(crate) fn of(message: &AlertMessage) -> Option<Self> {
        let Occasion::Operator { problem, text, details } = &message.occasion else {
            return None;
        };
        Some(Self {
            subject: subject(problem, message),
            text: body(text, details, message),
        })
    }
}

fn subject(problem: &str, message: &AlertMessage) -> String {
    let about = message
        .customer
        .as_ref()
        .map(|customer| format!(" ({})", customer.id))
        .unwrap_or_default();
    let subject = format!("Farebox: {}{about}", problem.replace('_', " "));
    let ascii = |c: char| match c {
        c if c.is_control() => ' ',
        c if c.is_ascii() => c,
        _ => '?',
    };
    subject
        .chars()
        .map(ascii)
        .take(SUBJECT_BYTES_MAX)
        .collect::<String>()
        .trim_end()
        .to_owned()
}

fn body(text: &str, details: &BTreeMap<String, String>, message: &AlertMessage) -> String {
    let mut body = format!("{}\n", text.trim());
    let mut line = |name: &str, value: &str| body.push_str(&format!("\n{name}: {value}"));
    if let Some(customer) = &message.customer {
        line("customer", &format!("{} ({})", customer.id, customer.name));
    }
    for (name, value) in details {
        line(name, value);
    }
    line("noticed", &rfc3339(message.at.s()));
    line("alert", &message.id);
    if body.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|&end| body.is_char_boundary(end));
        body.truncate(end.unwrap_or(0));
        body.push('…');
    }
    body.push('\n');
    body
}

/// Publishes a notice.
pub(crate) async fn publish(sns: &Client, topic_arn: &str, notice: Notice) -> Outcome {
    let published = sns
        .publish()
        .topic_arn(topic_arn)
        .subject(notice.subject)
        .message(notice.text)
        .send()
        .await;
    match published {
        Ok(_) => Outcome::Sent,
        Err(error) => judge(&error),
    }
}

/// A refusal of the topic, its key or our rights passes when it is settled. So does one of the parameters: what varies in
/// them is cut to what SNS takes, so that the topic's name is what can be wrong.
fn judge(error: &SdkError<PublishError>) -> Outcome {
    Outcome::Retry(match error.as_service_error() {
        Some(service) => format!(
            "SNS: {}: {}",
            service.code().unwrap_or("no error code"),
            service.message().unwrap_or("no message")
        ),
        None => format!("SNS could not be asked: {}", chain(error)),
    })
}

#[cfg(test)]
mod tests {
    use farebox_core::{
        alert::{AlertMessage, Occasion, VERSION},
        time::Timestamp,
    };

    use super::Notice;

    fn notice(problem: &str, text: &str) -> Notice {
        let message = AlertMessage {
            v: VERSION,
            id: "a".to_owned(),
            at: Timestamp::from_s(1_796_083_200),
            customer: None,
            occasion: Occasion::Operator {
                problem: problem.to_owned(),
                text: text.to_owned(),
                details: [("row".to_owned(), "acme#0".to_owned())].into(),
            },
        };
        Notice::of(&message).unwrap_or_else(|| panic!("it is for the operator"))
    }

    #[test]
    fn any_problem_makes_a_subject_that_sns_takes() {
        assert_eq!(notice("row_parked", "x").subject, "Farebox: row parked");
        for problem in ["a\r\nb", &"x".repeat(1_000), "zähler", "", &"é\n".repeat(200)] {
            let subject = notice(problem, "x").subject;
            assert!(subject.len() < 100, "{subject}");
            assert!(subject.bytes().all(|b| (0x20..0x7f).contains(&b)), "{subject}");
            assert!(subject.starts_with("Farebox:"), "{subject}");
        }
    }

    #[test]
    fn a_text_of_any_length_fits() {
        let text = notice("p", &"é".repeat(1_000_000)).text;
        assert!(text.len() < 256 * 1024 && text.ends_with("…\n"));
        let text = notice("p", "Look at it.").text;
        assert_eq!(
            text,
            "Look at it.\n\nrow: acme#0\nnoticed: 2026-12-01T00:00:00Z\nalert: a\n"
        );
    }
}
