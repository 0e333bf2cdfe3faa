//! Each finding appears exactly when it should: a sound system has none, and each change of it that names one.

use std::collections::BTreeMap;

use farebox_stripe::API_VERSION;

use super::{
    facts::{
        Alarm, Authorizer, Catalog, Clock, Denied, Endpoint, Facts, Function, FunctionSettings, GatewayResponse, Grace,
        HttpApi, Mapping, Method, Queue, QueueSettings, RestApi, Schedule, Secret, SecretKind, Stage, Stripe,
        Subscription, Table, TableKind, TableSafety, TableSettings, Unread,
    },
    findings::{Finding, Severity, findings, notes},
};
use crate::stack::Stack;

const URL: &str = "https://w.example/stripe/webhook";

fn text(text: &str) -> String {
    text.to_owned()
}

fn authorizer() -> Authorizer {
    Authorizer {
        id: text("au1"),
        name: text("farebox"),
        kind: text("REQUEST"),
        ttl_s: Some(0),
        identity_sources: Vec::new(),
    }
}

fn method(route: &str, is_metered: bool) -> Method {
    Method {
        route: text(route),
        authorizer: is_metered.then(|| text("au1")),
        needs_key: false,
    }
}

/// The responses as the template sets them.
fn responses() -> BTreeMap<String, GatewayResponse> {
    let file: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(include_str!("../../../gateway-responses.json")).unwrap();
    let response = |value: &serde_json::Value| GatewayResponse {
        status: Some(value["statusCode"].to_string()),
        headers: value["headers"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| *name != "Content-Type")
            .map(|(name, from)| (name.clone(), text(from.as_str().unwrap())))
            .collect(),
        has_json_body: true,
    };
    file.iter()
        .map(|(kind, value)| (kind.clone(), response(value)))
        .collect()
}

fn rest_api() -> RestApi {
    RestApi {
        id: text("api1"),
        name: text("sample"),
        takes_key_from_authorizer: false,
        authorizers: vec![authorizer()],
        methods: vec![method("GET /v1/{proxy+}", true), method("OPTIONS /v1/{proxy+}", false)],
        gateway_responses: responses(),
        stages: vec![Stage {
            name: text("live"),
            open_routes: Some(vec![text("OPTIONS /v1/{proxy+}")]),
        }],
        stages_with_key: None,
    }
}

fn table(kind: TableKind, key: &str) -> Table {
    Table {
        kind,
        name: format!("farebox-{kind:?}").to_lowercase(),
        settings: Some(TableSettings {
            key: text(key),
            indexes: match kind {
                TableKind::Ledger => vec![text("work: work S, due N")],
                _ => Vec::new(),
            },
            is_on_demand: true,
        }),
        safety: Some(TableSafety {
            is_deletion_protected: true,
            has_point_in_time_recovery: true,
            expires_by: (kind == TableKind::Accounts).then(|| text("ttl")),
        }),
    }
}

fn queue(part: &'static str, visibility_s: u64) -> Queue {
    Queue {
        part,
        settings: Some(QueueSettings {
            url: format!("https://sqs.example/1/farebox-{part}"),
            visibility_s,
            dead_letters: Some(format!("arn:aws:sqs:eu:1:farebox-{part}-dead")),
            dead_letter_depth: 0,
        }),
    }
}

fn function(part: &'static str, timeout: u64) -> Function {
    Function {
        part,
        name: format!("farebox-{part}"),
        settings: Some(FunctionSettings {
            timeout,
            state: Some(text("Active")),
            last_update_status: Some(text("Successful")),
        }),
    }
}

fn mapping(queue: &str, function: &str, batch: u64, window: u64) -> Mapping {
    Mapping {
        id: format!("uuid-{queue}"),
        event_source_arn: Some(format!("arn:aws:sqs:eu:1:farebox-{queue}")),
        function_arn: Some(format!("arn:aws:lambda:eu:1:function:farebox-{function}")),
        state: Some(text("Enabled")),
        batch_size: Some(batch),
        maximum_batching_window_in_seconds: Some(window),
        function_response_types: vec![text("ReportBatchItemFailures")],
    }
}

fn alarm(name: &str) -> (String, Alarm) {
    let alarm = Alarm {
        alarm_name: text(name),
        actions_enabled: true,
        alarm_actions: vec![text("arn:aws:sns:eu:1:farebox-operator")],
        state_value: text("OK"),
        state_reason: String::new(),
    };
    (text(name), alarm)
}

fn endpoint(id: &str, events: Vec<&str>, api_version: Option<&str>) -> Endpoint {
    Endpoint {
        id: text(id),
        url: text(URL),
        events: events.into_iter().map(text).collect(),
        api_version: api_version.map(text),
        is_enabled: true,
    }
}

/// A stack without a fault.
fn sound() -> Facts {
    let mut stack = Stack {
        name: text("farebox"),
        region: text("eu-central-1"),
        status: text("UPDATE_COMPLETE"),
        ..Stack::default()
    };
    stack.parameters.insert(text("ForbiddenStatus403"), text("false"));
    stack.outputs.insert(text("WebhookUrl"), text(URL));
    stack.resources.insert(
        text("AWS::CloudWatch::Alarm"),
        vec![text("farebox-a"), text("farebox-b")],
    );
    Facts {
        stack: Some(stack),
        tables: vec![
            table(TableKind::Accounts, "pk S, sk S"),
            table(TableKind::Counters, "pk S"),
            table(TableKind::Ledger, "pk S, sk N"),
        ],
        queues: vec![queue("usage", 780), queue("alerts", 360)],
        functions: vec![
            function("authorizer", 10),
            function("consumer", 120),
            function("webhook", 28),
            function("notifier", 60),
        ],
        mappings: Some(vec![
            mapping("usage", "consumer", 10_000, 60),
            mapping("alerts", "notifier", 10, 0),
        ]),
        schedules: ["tick", "scan"]
            .map(|part| Schedule {
                part,
                name: format!("farebox-{part}"),
                state: Some(text("ENABLED")),
            })
            .to_vec(),
        secrets: [(SecretKind::StripeKey, 1), (SecretKind::Webhook, 2)]
            .map(|(kind, versions)| Secret {
                kind,
                arn: format!("arn:{kind:?}"),
                versions: Some(versions),
                fault: None,
            })
            .to_vec(),
        alarms: Some([alarm("farebox-a"), alarm("farebox-b")].into()),
        subscriptions: Some(vec![Subscription {
            endpoint: text("op@example.com"),
            is_confirmed: true,
        }]),
        rest_apis: Some(vec![rest_api()]),
        http_apis: Some(vec![HttpApi {
            id: text("h1"),
            name: text("paid"),
            authorizers: vec![authorizer()],
            methods: vec![method("GET /v1/items", true)],
        }]),
        clocks: vec![Clock {
            of: "DynamoDB",
            ahead_s: -2,
        }],
        stripe: Some(Stripe {
            key_from: text("STRIPE_SECRET_KEY"),
            is_restricted: true,
            is_live: true,
            functions_key_is_live: Some(true),
            is_key_unknown: false,
            denied: Vec::new(),
            has_read_invoices: true,
            snapshot_endpoints: Some(vec![endpoint(
                "we_1",
                farebox_webhook::snapshot_events(),
                Some(API_VERSION),
            )]),
            thin_endpoints: Some(vec![endpoint("ed_1", farebox_webhook::thin_events(), None)]),
            grace: Some(Grace {
                invoice: text("in_1"),
                seconds: 86_400,
                is_announced: true,
            }),
        }),
        catalog: Some(Catalog {
            version: Some(3),
            ..Catalog::default()
        }),
        unread: Vec::new(),
        notes: Vec::new(),
    }
}

/// What is found once a sound system is changed so.
fn after(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = sound();
    change(&mut facts);
    findings(&facts).unwrap()
}

/// The one finding of a change: its check, its weight, and that it says these words.
#[track_caller]
fn one(check: &str, severity: Severity, words: &[&str], change: impl FnOnce(&mut Facts)) {
    let found = after(change);
    let [finding] = &found[..] else {
        panic!("one finding was expected: {found:#?}");
    };
    assert_eq!((finding.check, finding.severity), (check, severity), "{finding:#?}");
    for word in words {
        let everything = format!("{}\n{}\n{}", finding.what, finding.why, finding.fix);
        assert!(everything.contains(word), "{word:?} in {finding:#?}");
    }
    assert!(!finding.why.is_empty() && !finding.fix.is_empty(), "{finding:#?}");
}

fn api(facts: &mut Facts) -> &mut RestApi {
    &mut facts.rest_apis.as_mut().unwrap()[0]
}

fn stripe(facts: &mut Facts) -> &mut Stripe {
    facts.stripe.as_mut().unwrap()
}

fn safety(facts: &mut Facts, i: usize) -> &mut TableSafety {
    facts.tables[i].safety.as_mut().unwrap()
}

fn settings(facts: &mut Facts, i: usize) -> &mut TableSettings {
    facts.tables[i].settings.as_mut().unwrap()
}

fn usage(facts: &mut Facts) -> &mut QueueSettings {
    facts.queues[0].settings.as_mut().unwrap()
}

const ERROR: Severity = Severity::Error;
const WARNING: Severity = Severity::Warning;

#[test]
fn a_sound_system_has_nothing_to_mend() {
    assert_eq!(findings(&sound()).unwrap(), []);
    assert_eq!(notes(&sound()).len(), 1, "only that writing is not tried");
}

#[test]
fn nothing_seen_is_nothing_found() {
    assert_eq!(findings(&Facts::default()).unwrap(), []);
}

#[test]
fn the_worst_comes_first() {
    let found = after(|facts| {
        usage(facts).dead_letter_depth = 1;
        facts.schedules[0].state = None;
    });
    assert_eq!(
        found.iter().map(|finding| finding.severity).collect::<Vec<_>>(),
        [ERROR, WARNING]
    );
}

#[test]
fn a_stack_that_was_rolled_back_or_is_on_its_way() {
    for status in ["UPDATE_ROLLBACK_COMPLETE", "UPDATE_IN_PROGRESS", "DELETE_FAILED"] {
        one("stack", WARNING, &[status], |facts| {
            facts.stack.as_mut().unwrap().status = text(status)
        });
    }
}

#[test]
fn an_authorizer_whose_answers_are_kept() {
    let set = |ttl: Option<u64>| move |facts: &mut Facts| api(facts).authorizers[0].ttl_s = ttl;
    one(
        "authorizer-ttl",
        ERROR,
        &["for 300 s", "value=0", "au1", "create-deployment"],
        set(None),
    );
    one("authorizer-ttl", ERROR, &["for 5 s"], set(Some(5)));
    one("authorizer-ttl", ERROR, &["for 60 s", "apigatewayv2", "h1"], |facts| {
        facts.http_apis.as_mut().unwrap()[0].authorizers[0].ttl_s = Some(60);
    });
}

#[test]
fn an_authorizer_that_is_not_asked_or_not_told() {
    one("authorizer-kind", ERROR, &["TOKEN"], |facts| {
        api(facts).authorizers[0].kind = text("TOKEN")
    });
    one(
        "identity-source",
        WARNING,
        &["method.request.header.x-api-key"],
        |facts| {
            api(facts).authorizers[0].identity_sources = vec![text("method.request.header.x-api-key")];
        },
    );
    let always = after(|facts| {
        api(facts).authorizers[0].identity_sources = vec![text("context.identity.sourceIp")];
        facts.http_apis.as_mut().unwrap()[0].authorizers[0].identity_sources = vec![text("$context.identity.sourceIp")];
    });
    assert_eq!(always, []);
    one("attached", ERROR, &["no API"], |facts| {
        (facts.rest_apis, facts.http_apis) = (Some(Vec::new()), Some(Vec::new()));
    });
    assert_eq!(
        after(|facts| facts.rest_apis = Some(Vec::new())),
        [],
        "an HTTP API will do"
    );
}

#[test]
fn routes_without_the_authorizer() {
    one("routes", WARNING, &["2 routes", "GET /health", "POST /open"], |facts| {
        let other = Method {
            authorizer: Some(text("another")),
            ..method("POST /open", false)
        };
        api(facts).methods.extend([method("GET /health", false), other]);
    });
    one("routes", ERROR, &["no route"], |facts| {
        api(facts).methods[0].authorizer = None
    });
    one("routes", WARNING, &["1 route ", "$default"], |facts| {
        facts.http_apis.as_mut().unwrap()[0]
            .methods
            .push(method("$default", false));
    });
}

#[test]
fn a_stage_that_was_deployed_before_the_authorizer() {
    one("stage", ERROR, &["live", "GET /v1/{proxy+}"], |facts| {
        api(facts).stages[0].open_routes = Some(vec![text("GET /v1/{proxy+}")]);
    });
    assert_eq!(after(|facts| api(facts).stages[0].open_routes = None), []);
}

#[test]
fn gateway_responses_that_are_absent_or_other() {
    let response = |facts: &mut Facts, kind: &str, change: fn(&mut GatewayResponse)| {
        change(api(facts).gateway_responses.get_mut(kind).unwrap());
    };
    one("gateway-response", ERROR, &["ACCESS_DENIED", "429"], |facts| {
        api(facts).gateway_responses.remove("ACCESS_DENIED");
    });
    one("gateway-response", WARNING, &["UNAUTHORIZED"], |facts| {
        api(facts).gateway_responses.remove("UNAUTHORIZED");
    });
    one("gateway-response", ERROR, &["403 instead of 429"], |facts| {
        response(facts, "ACCESS_DENIED", |response| {
            response.status = Some("403".to_owned())
        });
    });
    one("gateway-response", WARNING, &["Retry-After"], |facts| {
        response(facts, "ACCESS_DENIED", |response| {
            response.headers.remove("Retry-After");
        });
    });
    one("gateway-response", WARNING, &["X-RateLimit-Limit"], |facts| {
        response(facts, "ACCESS_DENIED", |response| {
            response
                .headers
                .insert("X-RateLimit-Limit".to_owned(), "'100'".to_owned());
        });
    });
    one("gateway-response", WARNING, &["no body"], |facts| {
        response(facts, "UNAUTHORIZED", |response| response.has_json_body = false);
    });
    assert_eq!(
        after(|facts| drop(api(facts).gateway_responses.remove("INVALID_API_KEY"))),
        []
    );
}

/// A sound system whose refusals are 403.
fn forbids(facts: &mut Facts) {
    facts
        .stack
        .as_mut()
        .unwrap()
        .parameters
        .insert(text("ForbiddenStatus403"), text("true"));
    let api = api(facts);
    api.takes_key_from_authorizer = true;
    api.methods[0].needs_key = true;
    api.stages_with_key = Some(vec![text("live")]);
}

#[test]
fn the_pieces_of_a_403() {
    assert_eq!(after(forbids), []);
    type Change = fn(&mut Facts);
    let pieces: [(Change, &str); 4] = [
        (|facts| api(facts).takes_key_from_authorizer = false, "AUTHORIZER"),
        (|facts| api(facts).methods[0].needs_key = false, "apiKeyRequired"),
        (
            |facts| api(facts).stages_with_key = Some(vec![text("other")]),
            "stage live",
        ),
        (|facts| api(facts).stages_with_key = None, "stage live"),
    ];
    for (change, word) in pieces {
        one("forbidden-403", ERROR, &[word], |facts| {
            forbids(facts);
            change(facts);
        });
    }
    one("gateway-response", WARNING, &["INVALID_API_KEY"], |facts| {
        forbids(facts);
        api(facts).gateway_responses.remove("INVALID_API_KEY");
    });
    one("forbidden-403", ERROR, &["every call is refused"], |facts| {
        api(facts).methods[0].needs_key = true
    });
}

#[test]
fn tables() {
    one(
        "table",
        ERROR,
        &["There is no table farebox-counters", "restore"],
        |facts| {
            facts.tables[1].settings = None;
            facts.tables[1].safety = None;
        },
    );
    one("table", ERROR, &["the key pk S instead of pk S, sk N"], |facts| {
        settings(facts, 2).key = text("pk S")
    });
    one("table", ERROR, &["no index work"], |facts| {
        settings(facts, 2).indexes.clear()
    });
    one("table", WARNING, &["provisioned", "PAY_PER_REQUEST"], |facts| {
        settings(facts, 1).is_on_demand = false
    });
    one("table", ERROR, &["deletion-protection"], |facts| {
        safety(facts, 0).is_deletion_protected = false
    });
    one("table", ERROR, &["point-in-time"], |facts| {
        safety(facts, 1).has_point_in_time_recovery = false
    });
    for counted in [1, 2] {
        one("table", ERROR, &["expire by x", "Enabled=false"], |facts| {
            safety(facts, counted).expires_by = Some(text("x"));
        });
    }
    one("table", WARNING, &["instead of ttl"], |facts| {
        safety(facts, 0).expires_by = None
    });
    assert_eq!(
        after(|facts| facts.tables.iter_mut().for_each(|table| table.safety = None)),
        []
    );
}

#[test]
fn queues_and_what_reads_them() {
    one("queue", ERROR, &["no dead-letter queue"], |facts| {
        usage(facts).dead_letters = None
    });
    one(
        "dead-letters",
        WARNING,
        &["2 messages", "replay --queue usage"],
        |facts| usage(facts).dead_letter_depth = 2,
    );
    // 6 x 120 s and the window of 60 s.
    one("queue", WARNING, &["VisibilityTimeout=780"], |facts| {
        usage(facts).visibility_s = 779
    });
    one("mapping", ERROR, &["Disabled", "--enabled"], |facts| {
        facts.mappings.as_mut().unwrap()[0].state = Some(text("Disabled"));
    });
    one("mapping", ERROR, &["alerts queue to the notifier"], |facts| {
        drop(facts.mappings.as_mut().unwrap().pop())
    });
    one("mapping", WARNING, &["ReportBatchItemFailures"], |facts| {
        facts.mappings.as_mut().unwrap()[1].function_response_types.clear();
    });
    for change in [
        (|mapping| mapping.batch_size = Some(10)) as fn(&mut Mapping),
        |mapping| mapping.maximum_batching_window_in_seconds = None,
    ] {
        one("mapping", WARNING, &["--batch-size 10000"], |facts| {
            change(&mut facts.mappings.as_mut().unwrap()[0])
        });
    }
    let gone = after(|facts| facts.queues[0].settings = None);
    assert!(
        gone.iter().any(|finding| finding.what == "There is no queue usage"),
        "{gone:#?}"
    );
}

#[test]
fn functions_schedules_and_secrets() {
    one("function", ERROR, &["no function farebox-webhook"], |facts| {
        facts.functions[2].settings = None
    });
    one("function", ERROR, &["farebox-consumer"], |facts| {
        facts.functions[1].settings.as_mut().unwrap().last_update_status = Some(text("Failed"));
    });
    one("schedule", ERROR, &["farebox-tick is DISABLED", "35 days"], |facts| {
        facts.schedules[0].state = Some(text("DISABLED"));
    });
    one("schedule", ERROR, &["no schedule farebox-scan"], |facts| {
        facts.schedules[1].state = None
    });
    one(
        "secret",
        ERROR,
        &["still the random one", "put-secret-value"],
        |facts| facts.secrets[1].versions = Some(1),
    );
    one(
        "secret",
        ERROR,
        &["The secret arn:StripeKey holds no text", "can't start"],
        |facts| {
            facts.secrets[0].fault = Some(text("holds no text"));
        },
    );
    for i in [0, 1] {
        one("secret", ERROR, &["about to be deleted"], |facts| {
            facts.secrets[i].versions = None
        });
    }
}

#[test]
fn alarms_and_who_is_told() {
    fn a(facts: &mut Facts) -> &mut Alarm {
        facts.alarms.as_mut().unwrap().get_mut("farebox-a").unwrap()
    }
    one("alarms", WARNING, &["1 alarm missing: farebox-b"], |facts| {
        facts.alarms.as_mut().unwrap().remove("farebox-b");
    });
    one("alarms", WARNING, &["farebox-a tells nobody"], |facts| {
        a(facts).actions_enabled = false
    });
    one("alarms", WARNING, &["farebox-a tells nobody"], |facts| {
        a(facts).alarm_actions.clear()
    });
    one("alarms", WARNING, &["farebox-a rings: 3 datapoints"], |facts| {
        a(facts).state_value = text("ALARM");
        a(facts).state_reason = text("3 datapoints");
    });
    let mut new = sound();
    a(&mut new).state_value = text("INSUFFICIENT_DATA");
    assert_eq!(findings(&new).unwrap(), []);
    assert!(notes(&new)[0].contains("farebox-a"));
    let stranger = after(|facts| {
        let (name, mut alarm) = alarm("farebox-of-mine");
        alarm.state_value = text("ALARM");
        facts.alarms.as_mut().unwrap().insert(name, alarm);
    });
    assert_eq!(stranger, [], "an alarm that the stack does not have is somebody else's");
    one("operator", WARNING, &["Nobody"], |facts| {
        facts.subscriptions = Some(Vec::new())
    });
    one("operator", WARNING, &["op@example.com"], |facts| {
        facts.subscriptions.as_mut().unwrap()[0].is_confirmed = false;
    });
}

#[test]
fn clocks() {
    let off = |ahead_s: i64| {
        move |facts: &mut Facts| {
            facts.clocks[0].ahead_s = ahead_s;
        }
    };
    assert_eq!(after(off(2)), []);
    one("clock", WARNING, &["3 s ahead of DynamoDB"], off(3));
    one("clock", WARNING, &["60 s behind"], off(-60));
    one("clock", ERROR, &["61 s behind"], off(-61));
}

#[test]
fn the_stripe_key() {
    one("stripe-key", WARNING, &["not a restricted one"], |facts| {
        stripe(facts).is_restricted = false
    });
    one(
        "stripe-key",
        ERROR,
        &["a live key, that of the functions a test key"],
        |facts| {
            stripe(facts).functions_key_is_live = Some(false);
        },
    );
    assert_eq!(after(|facts| stripe(facts).functions_key_is_live = None), []);
    one(
        "stripe-permission",
        ERROR,
        &["Meters (rak_meter_read)", "Meters to Write"],
        |facts| {
            stripe(facts).denied.push(Denied {
                area: "Meters",
                permission: Some(text("rak_meter_read")),
                is_written: true,
            });
        },
    );
    let unknown = after(|facts| {
        stripe(facts).is_key_unknown = true;
        stripe(facts).is_restricted = false;
    });
    assert_eq!(unknown.len(), 1, "the rest does not matter: {unknown:#?}");
}

#[test]
fn where_stripe_sends_events() {
    fn snapshot(facts: &mut Facts) -> &mut Endpoint {
        &mut stripe(facts).snapshot_endpoints.as_mut().unwrap()[0]
    }
    one(
        "stripe-endpoint",
        ERROR,
        &["no snapshot events to https://w.example", API_VERSION],
        |facts| {
            snapshot(facts).url = text("https://other.example/");
        },
    );
    one(
        "stripe-endpoint",
        WARNING,
        &["no thin events", "no_meter_found"],
        |facts| {
            stripe(facts).thin_endpoints = Some(Vec::new());
        },
    );
    one("stripe-endpoint", ERROR, &["we_1", "disabled"], |facts| {
        snapshot(facts).is_enabled = false
    });
    one("stripe-events", ERROR, &["not sent invoice.created"], |facts| {
        snapshot(facts).events.retain(|event| event != "invoice.created");
    });
    one("stripe-events", WARNING, &["charge.succeeded"], |facts| {
        snapshot(facts).events.push(text("charge.succeeded"));
    });
    one("stripe-events", WARNING, &["nothing looks at: *"], |facts| {
        snapshot(facts).events = vec![text("*")]
    });
    one("stripe-version", WARNING, &["the account's default"], |facts| {
        snapshot(facts).api_version = None
    });
    one("stripe-version", WARNING, &["2024-06-20"], |facts| {
        snapshot(facts).api_version = Some(text("2024-06-20"))
    });
    let unseen = after(|facts| {
        stripe(facts).snapshot_endpoints = None;
        stripe(facts).thin_endpoints = None;
    });
    assert_eq!(unseen, []);
    let replaced = after(|facts| {
        let old = Endpoint {
            is_enabled: false,
            ..endpoint("we_0", vec![], None)
        };
        stripe(facts).snapshot_endpoints.as_mut().unwrap().insert(0, old);
    });
    assert_eq!(replaced, [], "a disabled one beside one that works is no trouble");
}

#[test]
fn how_long_invoices_wait() {
    one("invoice-grace", WARNING, &["in_1 stays a draft for 1 h"], |facts| {
        stripe(facts).grace.as_mut().unwrap().seconds = 3_600;
    });
    one("invoice-grace", WARNING, &["was a draft for 23 h"], |facts| {
        let grace = stripe(facts).grace.as_mut().unwrap();
        (grace.seconds, grace.is_announced) = (86_399, false);
    });
    let mut unknown = sound();
    stripe(&mut unknown).grace = None;
    assert_eq!(findings(&unknown).unwrap(), []);
    assert!(notes(&unknown)[0].contains("can't be read before there is one"));
    // Nobody knows whether there is one.
    stripe(&mut unknown).has_read_invoices = false;
    assert!(!notes(&unknown).iter().any(|note| note.contains("drafts")));
}

#[test]
fn what_is_sold() {
    fn catalog(facts: &mut Facts) -> &mut Catalog {
        facts.catalog.as_mut().unwrap()
    }
    one("catalog", ERROR, &["Nothing is sold"], |facts| {
        catalog(facts).version = None
    });
    one("catalog", ERROR, &["catalog 3: meter m1"], |facts| {
        catalog(facts).missing = vec![text("meter m1")]
    });
    one("catalog", ERROR, &["price_1"], |facts| {
        catalog(facts).mismatches = vec![text("price_1 is not")]
    });
    one(
        "catalog",
        WARNING,
        &["tiers.yaml says otherwise", "pro: price"],
        |facts| {
            catalog(facts).file = Some((text("tiers.yaml"), vec![text("pro: price 49 → 59")]));
        },
    );
    assert_eq!(
        after(|facts| catalog(facts).file = Some((text("tiers.yaml"), Vec::new()))),
        []
    );
}

#[test]
fn what_could_not_be_read() {
    one(
        "unread",
        WARNING,
        &["The alarms could not be read: 403: no", "cloudwatch:DescribeAlarms"],
        |facts| {
            facts.unread.push(Unread {
                what: text("the alarms"),
                cause: text("403: no"),
                fix: text("allow cloudwatch:DescribeAlarms"),
            });
        },
    );
}
