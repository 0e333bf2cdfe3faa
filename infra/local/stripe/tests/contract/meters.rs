//! Meter events: what is taken, what is refused, and what the summaries say.

use std::time::Duration;

use farebox_stripe_standin::FaultKind;

use crate::api::{Api, DAY, HOUR, START, id};

async fn summary(api: &Api, meter: &str, customer: &str, rest: &str) -> serde_json::Value {
    api.get(&format!(
        "/v1/billing/meters/{meter}/event_summaries?customer={customer}&{rest}"
    ))
    .await
    .ok()["data"]
        .clone()
}

/// The whole minute that `at` is in.
fn minute(at: i64) -> i64 {
    at - at % 60
}

#[tokio::test]
async fn an_identifier_is_remembered_for_exactly_24_hours() {
    let api = Api::start().await;
    api.meter().await;
    let customer = api.customer().await;
    let timestamp = format!("&identifier=usage-1&timestamp={START}");
    api.report(&customer, 5, &timestamp).await.ok();
    for at in [START, START + 1, START + DAY - 1] {
        api.set_clock(at);
        let error = api.report(&customer, 5, &timestamp).await.error(400);
        assert_eq!(error["message"], "An event already exists with identifier usage-1.");
        assert_eq!(error["type"], "invalid_request_error");
    }
    assert_eq!(api.standin.snapshot()["customers"][0]["meters"]["api_calls"], 5);
    api.set_clock(START + DAY);
    api.report(&customer, 5, &timestamp).await.ok();
    assert_eq!(api.standin.snapshot()["customers"][0]["meters"]["api_calls"], 10);
}

#[tokio::test]
async fn a_timestamp_is_at_most_35_days_past_and_5_minutes_ahead() {
    let api = Api::start().await;
    api.meter().await;
    let customer = api.customer().await;
    let report = async |at: i64| api.report(&customer, 1, &format!("&timestamp={at}")).await;
    report(START - 35 * DAY).await.ok();
    report(START + 300).await.ok();
    assert_eq!(
        report(START - 35 * DAY - 1).await.error(400)["code"],
        "timestamp_too_far_in_past"
    );
    assert_eq!(report(START + 301).await.error(400)["code"], "timestamp_in_future");
}

#[tokio::test]
async fn the_answer_repeats_the_event() {
    let api = Api::start().await;
    api.meter().await;
    let customer = api.customer().await;
    let event = api.report(&customer, 5, "").await.ok();
    assert_eq!(event["object"], "billing.meter_event");
    assert_eq!(event["timestamp"], START);
    assert_eq!(event["payload"]["value"], "5");
    let generated = event["identifier"].as_str().expect("an identifier");
    assert_eq!(generated.len(), 36);
    assert_ne!(api.report(&customer, 5, "").await.ok()["identifier"], generated);
}

#[tokio::test]
async fn bad_events_are_refused() {
    let api = Api::start().await;
    let meter = api.meter().await;
    let customer = api.customer().await;
    let refused = async |form: &str| api.post("/v1/billing/meter_events", form).await.error(400)["param"].clone();
    let payload = format!("payload[stripe_customer_id]={customer}&payload[value]");
    assert_eq!(refused(&format!("event_name=other&{payload}=1")).await, "event_name");
    assert_eq!(refused(&format!("{payload}=1")).await, "event_name");
    assert_eq!(refused("event_name=api_calls").await, "payload");
    assert_eq!(
        refused("event_name=api_calls&payload[value]=1").await,
        "payload[stripe_customer_id]"
    );
    assert_eq!(
        refused(&format!("event_name=api_calls&payload[stripe_customer_id]={customer}")).await,
        "payload[value]"
    );
    for value in ["1.5", "many", "1000000000000000"] {
        assert_eq!(
            refused(&format!("event_name=api_calls&{payload}={value}")).await,
            "payload[value]"
        );
    }
    api.post(&format!("/v1/billing/meters/{meter}/deactivate"), "")
        .await
        .ok();
    assert_eq!(
        refused(&format!("event_name=api_calls&{payload}=1")).await,
        "event_name"
    );
    api.post(&format!("/v1/billing/meters/{meter}/reactivate"), "")
        .await
        .ok();
    api.report(&customer, 1, "").await.ok();
}

#[tokio::test]
async fn an_unknown_customer_is_found_out_afterwards() {
    let api = Api::start().await;
    let meter = api.meter().await;
    api.report("cus_gone", 5, "&identifier=u1").await.ok();
    let event = api.standin.events_after(0).events.pop().expect("an event");
    assert_eq!(event["type"], "v1.billing.meter.error_report_triggered");
    assert_eq!(event["related_object"]["id"], meter.as_str());
    let reason = &event["data"]["reason"]["error_types"][0];
    assert_eq!(reason["code"], "meter_event_customer_not_found");
    assert_eq!(reason["sample_errors"][0]["request"]["identifier"], "u1");
    let fetched = api.get(&format!("/v2/core/events/{}", id(&event))).await.ok();
    assert_eq!(fetched, event);
    let tally = &api.standin.snapshot()["meter_events"];
    assert_eq!((&tally["accepted"], &tally["rejected"]), (&1.into(), &1.into()));
    assert_eq!(api.report("cus_gone", 5, "&identifier=u1").await.status, 400);
}

#[tokio::test]
async fn a_meter_has_its_own_keys_and_its_name_is_unique_while_active() {
    let api = Api::start().await;
    let meter = api.meter().await;
    let again = "display_name=B&event_name=api_calls&default_aggregation[formula]=count
                 &customer_mapping[type]=by_id&customer_mapping[event_payload_key]=who&value_settings[event_payload_key]=n";
    assert_eq!(
        api.post("/v1/billing/meters", again).await.error(400)["param"],
        "event_name"
    );
    api.post(&format!("/v1/billing/meters/{meter}/deactivate"), "")
        .await
        .ok();
    let second = api.post("/v1/billing/meters", again).await.ok();
    assert_eq!(second["customer_mapping"]["event_payload_key"], "who");
    assert_eq!(
        api.post(&format!("/v1/billing/meters/{meter}/reactivate"), "")
            .await
            .status,
        400
    );
    let customer = api.customer().await;
    let event = format!("event_name=api_calls&payload[who]={customer}&payload[n]=7");
    api.post("/v1/billing/meter_events", &event).await.ok();
    api.post("/v1/billing/meter_events", &event).await.ok();
    let day = START - START % DAY;
    let rows = summary(
        &api,
        &id(&second),
        &customer,
        &format!("start_time={day}&end_time={}", day + DAY),
    )
    .await;
    assert_eq!(rows[0]["aggregated_value"], 2);
    assert_eq!(
        api.get("/v1/billing/meters?status=inactive").await.ok()["data"][0]["id"],
        meter.as_str()
    );
}

#[tokio::test]
async fn summaries_are_aligned_and_sum_half_open_spans() {
    let api = Api::start().await;
    let meter = api.meter().await;
    let customer = api.customer().await;
    let from = minute(START);
    for (offset, value) in [(0, 1), (59, 2), (60, 4), (119, 8), (120, 16)] {
        api.report(&customer, value, &format!("&timestamp={}", from - 600 + offset))
            .await
            .ok();
    }
    let span = |start: i64, end: i64| format!("start_time={start}&end_time={end}");
    let rows = summary(&api, &meter, &customer, &span(from - 540, from - 480)).await;
    assert_eq!(rows.as_array().expect("rows").len(), 1);
    assert_eq!(rows[0]["aggregated_value"], 12);
    assert_eq!(rows[0]["object"], "billing.meter_event_summary");
    assert_eq!(
        (&rows[0]["start_time"], &rows[0]["meter"]),
        (&(from - 540).into(), &meter.as_str().into())
    );
    let nothing = summary(&api, &meter, &customer, &span(from - 6000, from - 5940)).await;
    assert_eq!(nothing, serde_json::json!([]));

    let path = format!("/v1/billing/meters/{meter}/event_summaries?customer={customer}&");
    assert_eq!(
        api.get(&format!("{path}{}", span(from + 1, from + 60)))
            .await
            .error(400)["param"],
        "start_time"
    );
    assert_eq!(
        api.get(&format!("{path}{}", span(from, from + 61))).await.error(400)["param"],
        "end_time"
    );
    assert_eq!(
        api.get(&format!("{path}{}", span(from, from))).await.error(400)["param"],
        "end_time"
    );
    assert_eq!(
        api.get(&format!("{path}{}&value_grouping_window=hour", span(from, from + HOUR)))
            .await
            .error(400)["param"],
        "start_time"
    );
}

#[tokio::test]
async fn groups_come_newest_first() {
    let api = Api::start().await;
    let meter = api.meter().await;
    let customer = api.customer().await;
    let day = START - START % DAY;
    for (timestamp, value) in [(day + 10, 1), (day + HOUR + 10, 2), (day + HOUR + 20, 3), (day - 10, 7)] {
        api.report(&customer, value, &format!("&timestamp={timestamp}"))
            .await
            .ok();
    }
    let of = |rows: serde_json::Value| -> Vec<(i64, i64)> {
        let row = |row: &serde_json::Value| {
            (
                row["start_time"].as_i64().expect("time"),
                row["aggregated_value"].as_i64().expect("value"),
            )
        };
        rows.as_array().expect("rows").iter().map(row).collect()
    };
    let span = format!("start_time={}&end_time={}", day - DAY, day + DAY);
    let hours = summary(&api, &meter, &customer, &format!("{span}&value_grouping_window=hour")).await;
    assert_eq!(of(hours), [(day + HOUR, 5), (day, 1), (day - HOUR, 7)]);
    let days = summary(&api, &meter, &customer, &format!("{span}&value_grouping_window=day")).await;
    assert_eq!(of(days), [(day, 6), (day - DAY, 7)]);
}

#[tokio::test]
async fn summaries_lag() {
    let api = Api::with(|options| options.summary_lag_s = 600).await;
    let meter = api.meter().await;
    let customer = api.customer().await;
    api.report(&customer, 3, "").await.ok();
    let span = format!("start_time={}&end_time={}", minute(START), minute(START) + 60);
    assert_eq!(summary(&api, &meter, &customer, &span).await, serde_json::json!([]));
    api.set_clock(START + 599);
    assert_eq!(summary(&api, &meter, &customer, &span).await, serde_json::json!([]));
    api.set_clock(START + 600);
    assert_eq!(summary(&api, &meter, &customer, &span).await[0]["aggregated_value"], 3);
}

#[tokio::test]
async fn thin_events_are_listed_by_pages() {
    let api = Api::start().await;
    let meter = api.meter().await;
    for _ in 0..3 {
        api.report("cus_nobody", 1, "").await.ok();
    }
    let first = api
        .get(&format!("/v2/core/events?object_id={meter}&limit=2"))
        .await
        .ok();
    assert!(first["previous_page_url"].is_null());
    let second = api
        .get(first["next_page_url"].as_str().expect("a next page"))
        .await
        .ok();
    assert!(second["next_page_url"].is_null());
    assert_eq!(
        api.get(second["previous_page_url"].as_str().expect("a page before"))
            .await
            .ok()["data"],
        first["data"]
    );
    let ids = |page: &serde_json::Value| -> Vec<String> {
        let events = page["data"].as_array().expect("events").iter();
        events
            .map(|event| event["id"].as_str().expect("an id").to_owned())
            .collect()
    };
    let listed = [ids(&first), ids(&second)].concat();
    let newest_first: Vec<String> = api
        .standin
        .events_after(0)
        .events
        .iter()
        .rev()
        .filter(|event| event["object"] == "v2.core.event")
        .map(|event| event["id"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!((listed.len(), &listed), (3, &newest_first));
    assert!(
        first["data"][0].get("data").is_none(),
        "only the event itself has its data"
    );
    let none = api.get("/v2/core/events?object_id=mtr_other").await.ok();
    assert_eq!(none["data"], serde_json::json!([]));
}

#[tokio::test]
async fn an_event_is_canceled_within_24_hours() {
    let api = Api::start().await;
    api.meter().await;
    let customer = api.customer().await;
    api.report(&customer, 3, "&identifier=a").await.ok();
    api.report(&customer, 4, "&identifier=b").await.ok();
    let cancel = async |identifier: &str| {
        let form = format!("event_name=api_calls&type=cancel&cancel[identifier]={identifier}");
        api.post("/v1/billing/meter_event_adjustments", &form).await
    };
    assert_eq!(cancel("a").await.ok()["cancel"]["identifier"], "a");
    assert_eq!(cancel("a").await.status, 400);
    assert_eq!(cancel("never").await.status, 400);
    assert_eq!(api.standin.snapshot()["customers"][0]["meters"]["api_calls"], 4);
    assert_eq!(api.report(&customer, 3, "&identifier=a").await.status, 400);
    api.set_clock(START + DAY);
    assert_eq!(cancel("b").await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_is_in_flight_per_customer_and_meter() {
    let api = Api::start().await;
    api.meter().await;
    let (customer, other) = (api.customer().await, api.customer().await);
    api.misbehave("/v1/billing/meter_events", FaultKind::Delay(400));
    let slow = api.report(&customer, 1, "");
    let during = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let refused = api.report(&customer, 1, "").await;
        assert_eq!(refused.header("stripe-should-retry"), Some("true"));
        let error = refused.error(429);
        assert_eq!(
            (&error["code"], &error["type"]),
            (&"lock_timeout".into(), &"invalid_request_error".into())
        );
        api.report(&other, 1, "").await.ok();
    };
    let (slow, ()) = tokio::join!(slow, during);
    slow.ok();
    api.report(&customer, 1, "").await.ok();
    assert_eq!(api.standin.snapshot()["customers"][0]["meters"]["api_calls"], 2);
}
