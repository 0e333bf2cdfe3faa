//! What comes in and is not as it should be.

use farebox_core::alert::Recipient;
use farebox_notifier::{Config, Error, Notifier};
use serde_json::{Value, json};

use crate::system::{SECRET, System, message, operator, quota};

#[tokio::test]
async fn poison_fails_alone() {
    let system = System::start().await;
    let good = message("row.1", None, operator());
    let mut no_id: Value = serde_json::to_value(&good).unwrap();
    no_id["id"] = json!("");
    let mut long_id = no_id.clone();
    long_id["id"] = json!("x".repeat(513));
    let mut next_version = no_id.clone();
    next_version["v"] = json!(2);
    let mut bad_customer = no_id.clone();
    bad_customer["customer"] = json!({ "id": "a#b", "name": "x" });
    let mut unknown_kind = no_id.clone();
    unknown_kind["occasion"] = json!({ "kind": "birthday" });
    let (no_id, long_id, next_version) = (no_id.to_string(), long_id.to_string(), next_version.to_string());
    let (bad_customer, unknown_kind) = (bad_customer.to_string(), unknown_kind.to_string());
    let (good, million) = (good.to_body(), "x".repeat(1_048_576));
    let bodies = [
        "",
        "{}",
        "null",
        "[1]",
        "{\"v\": 1}",
        &million,
        &no_id,
        &long_id,
        &next_version,
        &bad_customer,
        &unknown_kind,
        &good,
    ];
    let all_but_the_last: Vec<String> = (0..bodies.len() - 1).map(|i| i.to_string()).collect();
    let mut failed = system.handle(&bodies).await;
    failed.sort_by_key(|id| id.parse().unwrap_or(u32::MAX));
    assert_eq!(failed, all_but_the_last);
    assert_eq!(system.sent("operator").len(), 1);
}

#[tokio::test]
async fn an_alert_of_a_megabyte_is_delivered_in_a_few_lines() {
    let system = System::start().await;
    system
        .put_customer("acme", json!({ "webhook_secrets": [SECRET] }))
        .await;
    let customer = Recipient {
        name: "x".repeat(1_000_000),
        ..system.acme()
    };
    let alert = message("a", Some(customer.clone()), quota(80));
    let notice = message("b", Some(customer), operator());
    assert_eq!(system.deliver(&[&alert, &notice]).await, Vec::<String>::new());
    for entry in system.outbox.entries() {
        assert!(
            entry.body.len() < 64 * 1024,
            "{}: {} bytes",
            entry.channel,
            entry.body.len()
        );
    }
    assert_eq!(system.outbox.entries().len(), 3);
}

#[tokio::test]
async fn an_alert_that_nobody_wants_to_hear_is_done() {
    let system = System::start().await;
    let nobody = Recipient {
        email: None,
        webhook: None,
        ..system.acme()
    };
    let alerts = [message("a", Some(nobody), quota(80)), message("b", None, quota(80))];
    assert_eq!(system.deliver(&[&alerts[0], &alerts[1]]).await, Vec::<String>::new());
    assert_eq!(system.outbox.entries(), []);
}

#[tokio::test]
async fn an_address_that_is_none_is_given_up_without_asking_ses() {
    let system = System::start().await;
    for (i, email) in ["", "nobody", "a@b.example, c@d.example", "a@b\r\nBcc: c@d.example"]
        .into_iter()
        .enumerate()
    {
        let customer = Recipient {
            email: Some(email.to_owned()),
            webhook: None,
            ..system.acme()
        };
        let alert = message(&format!("a{i}"), Some(customer), quota(80));
        assert_eq!(system.deliver(&[&alert]).await, Vec::<String>::new(), "{email}");
    }
    assert_eq!(system.outbox.entries(), []);
}

#[tokio::test]
async fn a_record_that_is_no_customer_holds_up_the_webhook_only() {
    use aws_sdk_dynamodb::types::AttributeValue;
    let system = System::start().await;
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let put = system.clients.dynamodb.put_item().table_name("accounts");
    let put = put
        .item("pk", text("c#acme"))
        .item("sk", text("customer"))
        .item("doc", text("{}"));
    put.send().await.unwrap();
    let alert = message("a", Some(system.acme()), quota(80));
    assert_eq!(system.deliver(&[&alert]).await, ["0"]);
    assert_eq!((system.sent("email").len(), system.sent("webhook").len()), (1, 0));
}

#[tokio::test]
async fn events_and_templates_that_are_none_are_errors() {
    let system = System::start().await;
    let error = system.notifier().handle(json!({ "task": "tick" })).await.err();
    assert!(matches!(error, Some(Error::Event(_))));

    let mut deps = system.deps.clone();
    deps.config = Config {
        mail_templates: Some("/nowhere".into()),
        ..deps.config
    };
    assert!(matches!(Notifier::new(deps).err(), Some(Error::Template(_))));
}

#[tokio::test]
async fn without_its_table_the_notifier_sends_nothing_and_takes_nothing() {
    let system = System::with(|config| config.accounts_table = "absent".to_owned()).await;
    let alert = message("a", Some(system.acme()), quota(80));
    assert_eq!(system.deliver(&[&alert]).await, ["0"]);
    assert_eq!(system.outbox.entries(), []);
}
