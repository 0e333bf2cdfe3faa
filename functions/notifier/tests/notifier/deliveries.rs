//! Each alert is decided on once per channel.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Router, body::Body, extract::Request, http::StatusCode, response::IntoResponse};
use farebox_aws::{
    alerts::{
        Channel::{Email, Operator, Webhook},
        Claim, DeliveryTable, How,
    },
    connect::Clients,
};
use farebox_core::alert::Recipient;
use farebox_notifier::{AddressPolicy, Http};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpStream, task::JoinSet};

use crate::system::{SECRET, System, batch, listen, message, operator, quota};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_redeliveries_at_once_tell_everybody_once() {
    let system = System::start().await;
    system
        .put_customer("acme", json!({ "webhook_secrets": [SECRET] }))
        .await;
    let alert = message("acme.quota.80", Some(system.acme()), quota(80));
    let notice = message("row.1", None, operator());
    let (alert, notice) = (alert.to_body(), notice.to_body());
    let notifiers: Vec<_> = (0..4).map(|_| Arc::new(system.notifier())).collect();

    let mut running = JoinSet::new();
    for i in 0..20 {
        let (notifier, event) = (Arc::clone(&notifiers[i % 4]), batch(&[&alert, &notice]));
        running.spawn(async move { notifier.handle(event).await.map(drop) });
    }
    assert!(running.join_all().await.iter().all(Result::is_ok));

    for channel in ["email", "webhook", "operator"] {
        assert_eq!(system.sent(channel).len(), 1, "{channel}");
    }
    // Whoever found another worker at a channel did not acknowledge: that worker could still have died. When its message comes
    // again, there is nothing left to do.
    assert_eq!(system.handle(&[&alert, &notice]).await, Vec::<String>::new());
    assert_eq!(system.outbox.entries().len(), 3);
}

#[tokio::test]
async fn a_batch_may_hold_the_same_alert_twice() {
    let system = System::start().await;
    let notice = message("row.1", None, operator());
    system.deliver(&[&notice, &notice, &notice]).await;
    assert_eq!(system.sent("operator").len(), 1);
}

#[tokio::test]
async fn a_claim_of_a_worker_that_died_is_taken_over_when_its_lease_is_over() {
    let system = System::start().await;
    let deliveries = &system.deps.deliveries;
    let died = deliveries
        .claim("row.1", Operator, system.clock.now(), 60)
        .await
        .unwrap();
    let Claim::Claimed { token, attempt: 1 } = died else {
        panic!("{died:?}")
    };
    let until = system.clock.now().plus_ms(60_000);

    let notice = message("row.1", None, operator());
    system.clock.advance_s(59);
    assert_eq!(system.deliver(&[&notice]).await, ["0"]);
    let now = system.clock.now();
    assert_eq!(
        deliveries.claim("row.1", Operator, now, 60).await.unwrap(),
        Claim::Busy { until }
    );
    assert_eq!(system.sent("operator").len(), 0);

    system.clock.advance_s(1);
    assert_eq!(system.deliver(&[&notice]).await, Vec::<String>::new());
    assert_eq!(system.sent("operator").len(), 1);

    // The one that was taken for dead changes nothing any more, whatever it believes.
    let now = system.clock.now();
    assert!(
        !deliveries
            .finish("row.1", Operator, &token, &How::Sent, now)
            .await
            .unwrap()
    );
    assert!(!deliveries.retry("row.1", Operator, &token, "late", now).await.unwrap());
    system.clock.advance_s(1_000_000);
    assert_eq!(system.deliver(&[&notice]).await, Vec::<String>::new());
    assert_eq!(system.sent("operator").len(), 1);
}

#[tokio::test]
async fn the_life_of_a_delivery() {
    let system = System::start().await;
    let (deliveries, now) = (&system.deps.deliveries, system.clock.now());
    let claim = async |channel| deliveries.claim("a", channel, now, 60).await.unwrap();

    let Claim::Claimed {
        token: first,
        attempt: 1,
    } = claim(Email).await
    else {
        panic!()
    };
    assert!(matches!(claim(Email).await, Claim::Busy { .. }));
    assert!(!deliveries.finish("a", Email, "another", &How::Sent, now).await.unwrap());
    assert!(deliveries.retry("a", Email, &first, "busy", now).await.unwrap());
    // Saying it again is the same write, repeated.
    assert!(deliveries.retry("a", Email, &first, "busy", now).await.unwrap());

    let Claim::Claimed {
        token: second,
        attempt: 2,
    } = claim(Email).await
    else {
        panic!()
    };
    assert!(!deliveries.retry("a", Email, &first, "late", now).await.unwrap());
    let how = How::GaveUp("no such address".to_owned());
    assert!(deliveries.finish("a", Email, &second, &how, now).await.unwrap());
    assert!(deliveries.finish("a", Email, &second, &how, now).await.unwrap());
    assert!(!deliveries.finish("a", Email, &second, &How::Sent, now).await.unwrap());
    assert!(!deliveries.retry("a", Email, &second, "again", now).await.unwrap());
    assert_eq!(claim(Email).await, Claim::Done { how });

    // The other channels of the alert, and other alerts, are not concerned.
    let Claim::Claimed { token, attempt: 1 } = claim(Webhook).await else {
        panic!()
    };
    assert!(deliveries.finish("a", Webhook, &token, &How::Sent, now).await.unwrap());
    assert_eq!(claim(Webhook).await, Claim::Done { how: How::Sent });
    assert!(matches!(
        deliveries.claim("b", Email, now, 60).await.unwrap(),
        Claim::Claimed { .. }
    ));

    let items = system
        .clients
        .dynamodb
        .scan()
        .table_name("accounts")
        .send()
        .await
        .unwrap();
    for item in items.items() {
        let ttl: u64 = item["ttl"].as_n().unwrap().parse().unwrap();
        assert_eq!(ttl, now.s() + 400 * 86_400);
    }
    assert_eq!(items.count(), 3);
}

#[tokio::test]
async fn a_redelivery_says_what_the_message_says_whatever_changed_since() {
    let system = System::start().await;
    system
        .put_customer("acme", json!({ "webhook_secrets": [SECRET] }))
        .await;
    let mut old = system.acme();
    let alert = message("acme.quota.80", Some(old.clone()), quota(80));
    system.outbox.fail_next("webhook", 1, 500);
    system.outbox.fail_next("email", 1, 500);
    assert_eq!(system.deliver(&[&alert]).await, ["0"]);

    // The customer moves, and renews its secret.
    let contact = json!({
        "email": "new@acme.example", "webhook": format!("{}/new", system.hooks), "webhook_secrets": ["whsec_bmV3"],
    });
    system.put_customer("acme", contact).await;
    system.clock.advance_s(3_600);
    assert_eq!(system.deliver(&[&alert]).await, Vec::<String>::new());
    let (mail, hook) = (&system.sent("email")[0], &system.sent("webhook")[0]);
    assert_eq!((mail.to.as_str(), hook.to.as_str()), ("dev@acme.example", "acme"));

    // Had nothing failed, the same would have been said.
    old.id = "acme2".to_owned().try_into().unwrap();
    system
        .put_customer("acme2", json!({ "webhook_secrets": [SECRET] }))
        .await;
    system
        .deliver(&[&message("acme2.quota.80", Some(old), quota(80))])
        .await;
    let (mails, hooks) = (system.sent("email"), system.sent("webhook"));
    assert_eq!((&mails[0].subject, &mails[0].text), (&mails[1].subject, &mails[1].text));
    assert_eq!(hooks[0].body.replace("acme", "acme2"), hooks[1].body);
    // The id names the alert, the timestamp the attempt.
    assert_eq!(hooks[0].headers["webhook-id"], "acme~2equota~2e80");
    assert_eq!(
        hooks[0].headers["webhook-timestamp"],
        system.clock.now().s().to_string()
    );
}

#[tokio::test]
async fn one_channel_that_fails_does_not_repeat_the_others() {
    let system = System::start().await;
    system
        .put_customer("acme", json!({ "webhook_secrets": [SECRET] }))
        .await;
    let alert = message("acme.quota.80", Some(system.acme()), quota(80));
    system.outbox.fail_next("webhook", 3, 503);
    for _ in 0..3 {
        assert_eq!(system.deliver(&[&alert]).await, ["0"]);
    }
    assert_eq!((system.sent("email").len(), system.sent("webhook").len()), (1, 0));
    assert_eq!(system.deliver(&[&alert]).await, Vec::<String>::new());
    assert_eq!((system.sent("email").len(), system.sent("webhook").len()), (1, 1));
}

/// A process that was stopped between its claim and the attempt must not send on a lease that somebody else may have by then.
#[tokio::test]
async fn a_claim_that_came_too_late_is_not_used() {
    let mut system = System::start().await;
    let clock = system.clock.clone();
    system.deps.clock = Arc::new(move || {
        clock.advance_s(31);
        clock.now()
    });
    let notice = message("row.1", None, operator());
    assert_eq!(system.deliver(&[&notice]).await, ["0"]);
    assert_eq!(system.sent("operator").len(), 0);
}

/// It took longer than its lease, and another worker has the delivery: the message must stay for that one.
#[tokio::test]
async fn a_worker_that_lost_its_claim_does_not_acknowledge() {
    let mut system = System::start().await;
    system
        .put_customer("acme", json!({ "webhook_secrets": [SECRET] }))
        .await;
    let (clock, deliveries) = (system.clock.clone(), system.deps.deliveries.clone());
    let outbox: SocketAddr = system.hooks["http://".len()..system.hooks.len() - "/hooks".len()]
        .parse()
        .unwrap();
    system.deps.http = Http::new(AddressPolicy::LoopbackToo).resolving(move |_, _| {
        clock.advance_s(61);
        let (clock, deliveries) = (clock.clone(), deliveries.clone());
        Box::pin(async move {
            let other = deliveries.claim("a", Webhook, clock.now(), 60).await.unwrap();
            assert!(matches!(other, Claim::Claimed { attempt: 2, .. }));
            Ok(vec![outbox])
        })
    });
    let customer = Recipient {
        email: None,
        webhook: Some("http://hooks.example/hooks/acme".to_owned()),
        ..system.acme()
    };
    let alert = message("a", Some(customer), quota(80));
    assert_eq!(system.deliver(&[&alert]).await, ["0"]);
    assert_eq!(system.sent("webhook").len(), 1);
    let claim = system
        .deps
        .deliveries
        .claim("a", Webhook, system.clock.now(), 60)
        .await
        .unwrap();
    assert!(matches!(claim, Claim::Busy { .. }), "{claim:?}");
}

/// A DynamoDB whose first answer is lost: the write is done, and the client is told 500.
async fn forgetful(dynamodb: String) -> String {
    let (listener, url) = listen().await;
    let is_first = Arc::new(AtomicBool::new(true));
    let forward = move |request: Request| {
        let (dynamodb, is_first) = (dynamodb.clone(), Arc::clone(&is_first));
        async move {
            let stream = TcpStream::connect(&dynamodb).await.unwrap();
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .unwrap();
            tokio::spawn(connection);
            let answer = sender.send_request(request).await.unwrap();
            if is_first.swap(false, Ordering::SeqCst) {
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            } else {
                answer.map(Body::new)
            }
        }
    };
    let router = Router::new().fallback(forward);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn a_claim_whose_answer_got_lost_is_the_workers_all_the_same() {
    let system = System::start().await;
    let mut settings = system.settings.clone();
    let dynamodb = settings.dynamodb_endpoint.take().unwrap_or_default();
    settings.dynamodb_endpoint = Some(forgetful(dynamodb.trim_start_matches("http://").to_owned()).await);
    let deliveries = DeliveryTable::new(Clients::new(&settings), "accounts".to_owned());
    let claim = deliveries.claim("a", Email, system.clock.now(), 60).await.unwrap();
    assert!(matches!(claim, Claim::Claimed { attempt: 1, .. }), "{claim:?}");
}
