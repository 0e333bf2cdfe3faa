//! What is read out of events.

use farebox_stripe::{Event, EventForm};
use proptest::prelude::*;

/// A snapshot event about this object.
fn about(object: &str) -> Event {
    let body = format!(r#"{{"object":"event","id":"evt_1","type":"x.y","created":1,"data":{{"object":{object}}}}}"#);
    Event::parse(body.as_bytes()).unwrap()
}

#[test]
fn a_snapshot() {
    let event = Event::parse(include_bytes!("snapshot.json")).unwrap();
    assert_eq!((event.id.as_str(), event.kind.as_str()), ("evt_1", "invoice.paid"));
    assert_eq!((event.created, event.livemode), (1_795_000_000, Some(false)));
    assert_eq!((event.form, event.account.as_deref()), (EventForm::Snapshot, None));
    assert_eq!(event.object_kind.as_deref(), Some("invoice"));
    assert_eq!(event.object_id(), Some("in_1"));
    assert_eq!(event.customer_id(), Some("cus_1"));
    assert_eq!(event.subscription_id(), Some("sub_1"));
    assert_eq!(event.meter_errors, None);
}

#[test]
fn a_thin_event_as_it_is_sent() {
    let event = Event::parse(include_bytes!("thin.json")).unwrap();
    assert_eq!(event.kind, "v1.billing.meter.error_report_triggered");
    assert_eq!((event.created, event.form), (1_794_997_600, EventForm::Thin));
    assert_eq!(event.object_kind.as_deref(), Some("billing.meter"));
    assert_eq!(event.object_id(), Some("mtr_1"));
    assert_eq!((event.customer_id(), event.subscription_id()), (None, None));
    assert_eq!(event.meter_errors, None);
}

#[test]
fn a_thin_event_as_it_is_fetched() {
    let event = Event::parse(include_bytes!("thin_fetched.json")).unwrap();
    let report = event.meter_errors.unwrap();
    assert_eq!(report.summary.as_deref(), Some("There are 3 invalid events"));
    assert_eq!(report.error_count, 3);
    let errors: Vec<_> = report
        .errors
        .iter()
        .map(|error| {
            let samples: Vec<_> = error
                .samples
                .iter()
                .filter_map(|sample| sample.identifier.as_deref())
                .collect();
            (error.code.as_str(), error.error_count, samples)
        })
        .collect();
    assert_eq!(
        errors,
        [
            ("meter_event_customer_not_found", 2, vec!["b1/calls", "b2/calls"]),
            ("timestamp_too_far_in_past", 1, vec!["b3/calls"]),
        ]
    );
}

/// No meter, hence no related object; and the counts as v2 writes large integers.
#[test]
fn a_thin_event_about_no_object() {
    let body = br#"{"object":"v2.core.event","id":"evt_1","type":"v1.billing.meter.no_meter_found","created":"1970-01-01T00:00:01Z",
        "related_object":null,"data":{"reason":{"error_count":"2","error_types":[{"code":"no_meter","error_count":"2"}]}}}"#;
    let event = Event::parse(body).unwrap();
    assert_eq!((event.created, event.livemode, event.object_id()), (1, None, None));
    let report = event.meter_errors.unwrap();
    assert_eq!((report.error_count, report.errors[0].error_count), (2, 2));
    assert!(report.errors[0].samples.is_empty());
}

#[test]
fn a_subscription_and_a_customer_name_themselves() {
    let event = about(r#"{"object":"subscription","id":"sub_1","customer":{"id":"cus_1","object":"customer"}}"#);
    assert_eq!(event.subscription_id(), Some("sub_1"));
    assert_eq!(event.customer_id(), Some("cus_1"));
    let event = about(r#"{"object":"customer","id":"cus_1","email":null}"#);
    assert_eq!((event.customer_id(), event.subscription_id()), (Some("cus_1"), None));
}

/// Before 2025-03-31.basil the subscription stood in the invoice itself.
#[test]
fn an_invoice_of_an_old_api_version() {
    for invoice in [
        r#"{"object":"invoice","id":"in_1","customer":"cus_1","subscription":"sub_1"}"#,
        r#"{"object":"invoice","id":"in_1","customer":"cus_1","subscription":{"id":"sub_1"},"parent":null}"#,
        r#"{"object":"invoice","id":"in_1","customer":"cus_1","subscription":"sub_1","parent":"in_0"}"#,
    ] {
        assert_eq!(about(invoice).subscription_id(), Some("sub_1"), "{invoice}");
    }
    assert_eq!(about(r#"{"object":"invoice","customer":"cus_1"}"#).object_id(), None);
}

#[test]
fn a_checkout_session() {
    let event = about(
        r#"{"object":"checkout.session","id":"cs_test_1","customer":"cus_1","subscription":"sub_1",
            "client_reference_id":"acme","metadata":{"tier":"pro"}}"#,
    );
    assert_eq!(event.object_id(), Some("cs_test_1"));
    assert_eq!(
        (event.customer_id(), event.subscription_id()),
        (Some("cus_1"), Some("sub_1"))
    );
    assert_eq!(event.client_reference_id.as_deref(), Some("acme"));
    assert_eq!(event.metadata["tier"], "pro");
}

/// The hints may have any shape; the event is still a trigger.
#[test]
fn hints_of_an_unknown_shape_are_no_hints() {
    for object in [
        "null",
        "7",
        "[]",
        r#"{"id":7,"object":[],"customer":{"name":"x"},"subscription":[1],"parent":{"subscription_details":7},"metadata":[]}"#,
    ] {
        let event = about(object);
        assert_eq!(
            (event.object_id(), event.customer_id(), event.subscription_id()),
            (None, None, None)
        );
    }
    let bare = br#"{"object":"event","id":"evt_1","type":"x.y","created":1}"#;
    assert_eq!(Event::parse(bare).unwrap().object_id(), None);
}

#[test]
fn what_is_no_event() {
    for body in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"object":"invoice","id":"in_1","type":"x","created":1}"#,
        r#"{"object":"event","type":"x","created":1}"#,
        r#"{"object":"event","id":"evt_1","created":1}"#,
        r#"{"object":"event","id":"evt_1","type":"x","created":"secret"}"#,
        r#"{"object":"v2.core.event","id":"evt_1","type":"x","created":"secret"}"#,
        r#"{"object":"v2.core.event","id":"evt_1","type":"x","created":1}"#,
    ] {
        let error = Event::parse(body.as_bytes()).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

proptest! {
    #[test]
    fn no_body_makes_it_panic(body: Vec<u8>) {
        let _ = Event::parse(&body);
    }

    #[test]
    fn no_object_makes_it_fail(object in json()) {
        about(&object.to_string());
    }
}

/// Any JSON, whose keys are often those that we read.
fn json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z_]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let key = prop_oneof![
            prop::sample::select(vec![
                "id",
                "object",
                "customer",
                "subscription",
                "parent",
                "subscription_details",
                "metadata"
            ])
            .prop_map(str::to_owned),
            "[a-z]{1,4}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(key, inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
