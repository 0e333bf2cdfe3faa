//! SES and SNS, over their wire protocols.

use farebox_core::alert::Recipient;
use serde_json::{Value, json};

use crate::system::{System, TOPIC, message, operator, quota};

fn only_mail(system: &System) -> Recipient {
    Recipient {
        webhook: None,
        ..system.acme()
    }
}

#[tokio::test]
async fn a_mail_goes_out_as_ses_takes_it() {
    let configure = |config: &mut farebox_notifier::Config| {
        config.mail_configuration_set = Some("alerts".to_owned());
        config.portal_url = Some("https://portal.example".to_owned());
    };
    let system = System::with(configure).await;
    let alert = message("a", Some(only_mail(&system)), quota(80));
    assert_eq!(system.deliver(&[&alert]).await, Vec::<String>::new());

    let mail = &system.sent("email")[0];
    let body: Value = serde_json::from_str(&mail.body).unwrap();
    let part = |text: &Option<String>| json!({ "Data": text, "Charset": "UTF-8" });
    let expected = json!({
        "FromEmailAddress": "Acme API <billing@acme.example>",
        "Destination": { "ToAddresses": ["dev@acme.example"] },
        "Content": { "Simple": {
            "Subject": part(&mail.subject),
            "Body": { "Text": part(&mail.text), "Html": part(&mail.html) },
        } },
        "ConfigurationSetName": "alerts",
    });
    assert_eq!(body, expected);
    assert_eq!(
        mail.subject.as_deref(),
        Some("You have used 80% of your included API calls")
    );
    assert!(
        mail.text
            .as_deref()
            .is_some_and(|text| text.contains("40,000 of the 50,000 API calls"))
    );
    assert!(
        mail.html
            .as_deref()
            .is_some_and(|html| html.contains("href=\"https://portal.example\""))
    );
    assert_eq!(mail.at, system.clock.now());
}

#[tokio::test]
async fn the_operator_is_told_through_the_topic_and_nobody_else_is() {
    let system = System::start().await;
    let notice = message("row.1", Some(system.acme()), operator());
    assert_eq!(system.deliver(&[&notice]).await, Vec::<String>::new());
    let entries = system.outbox.entries();
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (entries[0].channel.as_str(), entries[0].to.as_str()),
        ("operator", TOPIC)
    );
    insta::assert_snapshot!(
        format!("Subject: {}\n\n{}", entries[0].subject.as_deref().unwrap(), entries[0].text.as_deref().unwrap()),
        @r"
    Subject: Farebox: row parked (acme)

    A row was parked.

    customer: acme (Acme Ltd)
    row: acme#0
    noticed: 2026-12-02T08:25:40Z
    alert: row.1
    ");
}

#[tokio::test]
async fn what_ses_says_of_the_mail_is_final_and_what_it_says_of_us_is_not() {
    let system = System::start().await;
    let unverified = "Email address is not verified. The following identities failed the check in region US-EAST-1: \
                      dev@acme.example";
    for (i, (status, code, text, is_final)) in [
        (
            400,
            "MessageRejected",
            "Transaction failed: Illegal header 'Subject'.",
            true,
        ),
        (400, "BadRequestException", "Invalid domain name: 'acme.example'.", true),
        (400, "MessageRejected", unverified, false),
        (
            400,
            "MailFromDomainNotVerifiedException",
            "The MAIL FROM domain is not verified.",
            false,
        ),
        (
            400,
            "SendingPausedException",
            "Sending is paused for this account.",
            false,
        ),
        (400, "AccountSuspendedException", "This account was suspended.", false),
        (
            404,
            "NotFoundException",
            "Configuration set <alerts> does not exist.",
            false,
        ),
        (
            403,
            "AccessDeniedException",
            "not authorized to perform: ses:SendEmail",
            false,
        ),
        (429, "TooManyRequestsException", "Maximum sending rate exceeded.", false),
        (500, "InternalFailure", "oops", false),
        (503, "ServiceUnavailable", "later", false),
    ]
    .into_iter()
    .enumerate()
    {
        let alert = message(&format!("a{i}"), Some(only_mail(&system)), quota(80));
        system.outbox.fail_next_as("email", 1, status, code, text);
        let first = system.deliver(&[&alert]).await;
        assert_eq!(first.is_empty(), is_final, "{code}: {text}");
        let before = system.sent("email").len();
        assert_eq!(system.deliver(&[&alert]).await, Vec::<String>::new(), "{code}: {text}");
        let sent = system.sent("email").len() - before;
        assert_eq!(sent, usize::from(!is_final), "{code}: {text}");
    }
}

#[tokio::test]
async fn no_address_of_a_customer_stays_in_a_reason() {
    let system = System::start().await;
    let alert = message("a", Some(only_mail(&system)), quota(80));
    system.outbox.fail_next_as(
        "email",
        1,
        400,
        "MessageRejected",
        "Address is on the list: dev@acme.example",
    );
    system.deliver(&[&alert]).await;
    let items = system
        .clients
        .dynamodb
        .scan()
        .table_name("accounts")
        .send()
        .await
        .unwrap();
    let reason = items.items()[0]["reason"].as_s().unwrap();
    assert_eq!(
        reason,
        "SES: MessageRejected: Address is on the list: the customer's address"
    );
}

#[tokio::test]
async fn a_topic_that_refuses_is_asked_again() {
    let system = System::start().await;
    let notice = message("row.1", None, operator());
    for status in [400, 403, 404, 429, 500] {
        system.outbox.fail_next("operator", 1, status);
        assert_eq!(system.deliver(&[&notice]).await, ["0"], "{status}");
    }
    assert_eq!(system.deliver(&[&notice]).await, Vec::<String>::new());
    assert_eq!(system.sent("operator").len(), 1);
}

#[tokio::test]
async fn what_is_not_configured_is_not_done_and_holds_nothing_up() {
    let configure = |config: &mut farebox_notifier::Config| {
        config.mail_from = None;
        config.alert_topic_arn = None;
    };
    let system = System::with(configure).await;
    let alert = message("a", Some(only_mail(&system)), quota(80));
    let notice = message("row.1", None, operator());
    assert_eq!(system.deliver(&[&alert, &notice]).await, Vec::<String>::new());
    assert_eq!(system.outbox.entries(), []);
}
