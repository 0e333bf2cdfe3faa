//! The key stays where it is.

use farebox_stripe::{Client, Config, Error, SecretKey};

use crate::requests::event;
use crate::server::{KEY, Script, Server, config};

#[tokio::test]
async fn no_text_shows_the_key() {
    let echo =
        format!(r#"{{"error":{{"code":"{KEY}","param":"{KEY}","type":"{KEY}","message":"Invalid API Key: {KEY}"}}}}"#);
    let mut texts = Vec::new();
    for status in [200, 302, 400, 401, 409, 429, 500] {
        let server = Server::start([Script::Answer(status, vec![("request-id", KEY)], echo.clone())]).await;
        let client = server.client();
        let error = client.report_meter_event(&event(), "k1").await.unwrap_err();
        texts.push(format!("{error} {error:?} {client:?}"));
    }
    // The key as a value where another type belongs: serde quotes what it found.
    let body = format!(r#"{{"data":[{{"id":"a","aggregated_value":"{KEY}"}}]}}"#);
    let server = Server::start([Script::Answer(200, vec![], body)]).await;
    let error = server
        .client()
        .event_summary("mtr_1", "cus_1", 0, 60)
        .await
        .unwrap_err();
    texts.push(format!("{error} {error:?}"));
    let refused = Client::new(config("http://127.0.0.1:1"))
        .unwrap()
        .report_meter_event(&event(), "k1")
        .await
        .unwrap_err();
    texts.push(format!("{refused} {refused:?} {:?}", config("http://127.0.0.1:1")));
    for text in texts {
        assert!(!text.contains(KEY), "{text}");
    }
}

#[test]
fn a_long_text_is_cut() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let body = format!(r#"{{"error":{{"message":"{}"}}}}"#, "é".repeat(5_000));
        let server = Server::start([Script::Answer(400, vec![], body)]).await;
        let error = server.client().report_meter_event(&event(), "k1").await.unwrap_err();
        assert!(matches!(error, Error::Rejected { message, .. } if message.chars().count() == 500));
    });
}

#[test]
fn a_key_is_visible_ascii() {
    for key in ["", "sk_test_1\n", "sk test", "sk_é"] {
        assert!(matches!(SecretKey::new(key), Err(Error::Invalid(_))), "{key}");
    }
}

#[test]
fn a_live_key_never_travels_in_the_clear() {
    for key in ["sk_live_1", "rk_live_1"] {
        let live = Config::new(SecretKey::new(key).unwrap());
        assert!(Client::new(live.clone()).is_ok());
        let clear = Config {
            base_url: "http://127.0.0.1:12111".to_owned(),
            ..live
        };
        assert!(matches!(Client::new(clear), Err(Error::Invalid(_))));
    }
}

#[test]
fn an_address_is_checked_at_the_start() {
    for url in [
        "",
        "api.stripe.com",
        "ftp://api.stripe.com",
        "https://",
        "https://api.stripe.com?x",
        "/v1",
    ] {
        let error = Client::new(config(url)).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{url}");
    }
    assert!(Client::new(config("https://api.stripe.com/")).is_ok());
}
