//! Webhook endpoints.

use crate::api::{Api, id};

#[tokio::test]
async fn an_endpoint_shows_its_secret_once() {
    let api = Api::start().await;
    let form = "url=https://app.example/hook&enabled_events[]=invoice.paid&enabled_events[]=customer.subscription.*
                &api_version=2026-09-30.endive&metadata[for]=tests";
    let made = api.post("/v1/webhook_endpoints", form).await.ok();
    let secret = made["secret"].as_str().expect("a secret");
    assert!(secret.starts_with("whsec_"));
    assert_eq!(made["enabled_events"][1], "customer.subscription.*");
    assert_eq!(
        (&made["status"], &made["api_version"]),
        (&"enabled".into(), &"2026-09-30.endive".into())
    );
    let path = format!("/v1/webhook_endpoints/{}", id(&made));
    assert!(api.get(&path).await.ok().get("secret").is_none());
    let listed = api.get("/v1/webhook_endpoints").await.ok();
    assert_eq!(listed["data"][0]["url"], "https://app.example/hook");
    assert!(listed["data"][0].get("secret").is_none());
    // Who delivers needs it all the same.
    assert_eq!(api.standin.webhook_endpoints()[0]["secret"], secret);

    let changed = api.post(&path, "disabled=true&enabled_events[]=*").await.ok();
    assert_eq!(
        (&changed["status"], &changed["enabled_events"]),
        (&"disabled".into(), &serde_json::json!(["*"]))
    );
    assert!(api.standin.webhook_endpoints().is_empty());
    assert_eq!(api.delete(&path).await.ok()["deleted"], true);
    assert_eq!(api.get(&path).await.status, 404);
    assert_eq!(
        api.post("/v1/webhook_endpoints", "url=https://a.example")
            .await
            .error(400)["param"],
        "enabled_events"
    );
}
