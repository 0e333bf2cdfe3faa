//! The notifier with everything around it, on free ports of this machine.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use farebox_aws::{
    accounts::AccountTable,
    alerts::{AlertQueue, DeliveryTable},
    connect::{Clients, Settings},
};
use farebox_core::{
    alert::{AlertMessage, Occasion, Recipient, VERSION},
    time::{Period, Timestamp},
};
use farebox_notifier::{AddressPolicy, Config, Deps, Http, Notifier, connect};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::outbox::{Entry, Outbox};

pub(crate) const NOW_S: u64 = 1_796_200_000;
pub(crate) const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:farebox-alerts";
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A clock that stands until it is told to go on.
#[derive(Clone)]
pub(crate) struct HandClock(Arc<AtomicU64>);

impl HandClock {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(NOW_S * 1_000)))
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0.load(Ordering::SeqCst))
    }

    pub(crate) fn advance_s(&self, s: u64) {
        self.0.fetch_add(s * 1_000, Ordering::SeqCst);
    }
}

pub(crate) struct System {
    pub(crate) clock: HandClock,
    pub(crate) settings: Settings,
    pub(crate) clients: Clients,
    pub(crate) outbox: Outbox,
    pub(crate) deps: Deps,
    /// Where the webhooks are, `http://127.0.0.1:<port>/hooks`.
    pub(crate) hooks: String,
    /// The alert queue's dead-letter queue.
    pub(crate) dead: String,
    _tasks: JoinSet<()>,
}

impl System {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With another configuration than the usual one.
    pub(crate) async fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let (clock, mut tasks) = (HandClock::new(), JoinSet::new());
        let (listener, dynamodb) = listen().await;
        let database = dynoxide::Database::memory().unwrap_or_else(|e| panic!("{e}"));
        tasks.spawn(async move {
            let _ = dynoxide::server::serve_on(listener, database).await;
        });
        let (listener, sqs) = listen().await;
        tasks.spawn(serve_sqs(listener, sqs.clone()));
        let (listener, outside) = listen().await;
        let time = clock.clone();
        let outbox = Outbox::new(move || time.now());
        let server = outbox.clone();
        tasks.spawn(async move {
            let _ = server.serve(listener).await;
        });

        let settings = Settings {
            region: "us-east-1".to_owned(),
            credentials: aws_sdk_dynamodb::config::Credentials::new("local", "local", None, None, "local"),
            dynamodb_endpoint: Some(dynamodb),
            sqs_endpoint: Some(sqs),
        };
        let clients = Clients::new(&settings);
        create_table(&clients, "accounts").await;
        let (alert_queue_url, dead) = create_queues(&clients).await;
        let mut config = Config {
            accounts_table: "accounts".to_owned(),
            alert_queue_url,
            alert_topic_arn: Some(TOPIC.to_owned()),
            mail_from: Some("Acme API <billing@acme.example>".to_owned()),
            ses_endpoint: Some(outside.clone()),
            sns_endpoint: Some(outside.clone()),
            ..Config::default()
        };
        configure(&mut config);
        let (mail, sns) = connect(&settings, &config);
        let time = clock.clone();
        let deps = Deps {
            deliveries: DeliveryTable::new(clients.clone(), config.accounts_table.clone()),
            accounts: AccountTable::new(clients.clone(), config.accounts_table.clone()),
            queue: AlertQueue::new(clients.clone(), config.alert_queue_url.clone()),
            mail,
            sns,
            http: Http::new(AddressPolicy::LoopbackToo),
            clock: Arc::new(move || time.now()),
            config,
        };
        let hooks = format!("{outside}/hooks");
        Self {
            clock,
            settings,
            clients,
            outbox,
            deps,
            hooks,
            dead,
            _tasks: tasks,
        }
    }

    pub(crate) fn notifier(&self) -> Notifier {
        Notifier::new(self.deps.clone()).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Delivers messages once; returns the ids, `0`, `1` and so on, of those that are to come again.
    pub(crate) async fn deliver(&self, messages: &[&AlertMessage]) -> Vec<String> {
        let bodies: Vec<String> = messages.iter().map(|message| message.to_body()).collect();
        self.handle(&bodies.iter().map(String::as_str).collect::<Vec<&str>>())
            .await
    }

    pub(crate) async fn handle(&self, bodies: &[&str]) -> Vec<String> {
        let answer = self.notifier().handle(batch(bodies)).await;
        failed(&answer.unwrap_or_else(|e| panic!("{e}")))
    }

    /// What was sent on a channel.
    pub(crate) fn sent(&self, channel: &str) -> Vec<Entry> {
        self.outbox
            .entries()
            .into_iter()
            .filter(|entry| entry.channel == channel)
            .collect()
    }

    /// Stores a customer as the table holds it, with these secrets for its webhook.
    pub(crate) async fn put_customer(&self, id: &str, contact: Value) {
        let document = json!({
            "id": id, "name": id, "phases": [{ "from": 0, "tier": "pro", "catalog": 1, "plan": "pro" }], "auth_epoch": 1, "next_slot": 1, "contact": contact,
            "cycle": { "anchor": 0, "interval": "month", "current": { "start": 0, "end": 2_678_400 } },
        });
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let put = self.clients.dynamodb.put_item().table_name("accounts");
        let put = put.item("pk", text(&format!("c#{id}"))).item("sk", text("customer"));
        let put = put
            .item("epoch", AttributeValue::N("1".to_owned()))
            .item("doc", text(&document.to_string()));
        put.send().await.unwrap_or_else(|e| panic!("{e:?}"));
        let read = self.deps.accounts.customer(&id.to_owned().try_into().unwrap()).await;
        assert!(
            read.is_ok_and(|customer| customer.is_some()),
            "the record is no customer any more"
        );
    }

    /// The customer that the messages are about: with mail and a webhook.
    pub(crate) fn acme(&self) -> Recipient {
        Recipient {
            id: "acme".to_owned().try_into().unwrap(),
            name: "Acme Ltd".to_owned(),
            email: Some("dev@acme.example".to_owned()),
            webhook: Some(format!("{}/acme", self.hooks)),
        }
    }
}

/// The event of an SQS batch, first delivery.
pub(crate) fn batch(bodies: &[&str]) -> Value {
    let record = |(i, body): (usize, &&str)| {
        json!({
            "messageId": i.to_string(), "receiptHandle": format!("receipt-{i}"), "body": body,
            "attributes": { "ApproximateReceiveCount": "1" }, "eventSource": "aws:sqs", "messageAttributes": {},
        })
    };
    json!({ "Records": bodies.iter().enumerate().map(record).collect::<Vec<Value>>() })
}

pub(crate) fn failed(answer: &Value) -> Vec<String> {
    let failures = answer["batchItemFailures"]
        .as_array()
        .unwrap_or_else(|| panic!("{answer}"));
    let id = |failure: &Value| failure["itemIdentifier"].as_str().unwrap_or_default().to_owned();
    let mut ids: Vec<String> = failures.iter().map(id).collect();
    ids.sort_unstable();
    ids
}

pub(crate) fn message(id: &str, customer: Option<Recipient>, occasion: Occasion) -> AlertMessage {
    AlertMessage {
        v: VERSION,
        id: id.to_owned(),
        at: Timestamp::from_s(NOW_S - 60),
        customer,
        occasion,
    }
}

pub(crate) fn quota(percent: u64) -> Occasion {
    Occasion::QuotaThreshold {
        tier: "pro".to_owned(),
        meter: "api_calls".to_owned(),
        percent,
        units: 40_000,
        included: 50_000,
        period: Period {
            start: 1_796_083_200,
            end: 1_798_761_600,
        },
        at_quota: "overage".to_owned(),
    }
}

pub(crate) fn operator() -> Occasion {
    Occasion::Operator {
        problem: "row_parked".to_owned(),
        text: "A row was parked.".to_owned(),
        details: [("row".to_owned(), "acme#0".to_owned())].into(),
    }
}

pub(crate) async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap_or_else(|e| panic!("{e}"));
    let address = listener.local_addr().unwrap_or_else(|e| panic!("{e}"));
    (listener, format!("http://{address}"))
}

async fn create_table(clients: &Clients, name: &str) {
    let attribute = |name: &str| {
        let built = AttributeDefinition::builder()
            .attribute_name(name)
            .attribute_type(ScalarAttributeType::S)
            .build();
        built.unwrap_or_else(|e| panic!("{e}"))
    };
    let element = |name: &str, kind: KeyType| {
        let built = KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
        built.unwrap_or_else(|e| panic!("{e}"))
    };
    let create = clients
        .dynamodb
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest);
    let create = create
        .attribute_definitions(attribute("pk"))
        .attribute_definitions(attribute("sk"));
    let create = create
        .key_schema(element("pk", KeyType::Hash))
        .key_schema(element("sk", KeyType::Range));
    create.send().await.unwrap_or_else(|e| panic!("{e:?}"));
}

/// The URLs of the alert queue, whose messages may be received three times, and of its dead-letter queue.
async fn create_queues(clients: &Clients) -> (String, String) {
    use aws_sdk_sqs::types::QueueAttributeName as Name;
    let dead = clients.sqs.create_queue().queue_name("alerts-dead").send().await;
    let dead = dead.unwrap_or_else(|e| panic!("{e:?}")).queue_url.unwrap_or_default();
    let arn = clients
        .sqs
        .get_queue_attributes()
        .queue_url(&dead)
        .attribute_names(Name::QueueArn)
        .send()
        .await;
    let arn = arn.unwrap_or_else(|e| panic!("{e:?}")).attributes.unwrap_or_default()[&Name::QueueArn].clone();
    let redrive = json!({ "deadLetterTargetArn": arn, "maxReceiveCount": 3 }).to_string();
    let queue = clients
        .sqs
        .create_queue()
        .queue_name("alerts")
        .attributes(Name::RedrivePolicy, redrive);
    let queue = queue.attributes(Name::VisibilityTimeout, "360").send().await;
    (
        queue.unwrap_or_else(|e| panic!("{e:?}")).queue_url.unwrap_or_default(),
        dead,
    )
}

async fn serve_sqs(listener: TcpListener, url: String) {
    use rustack_sqs_core::{config::SqsConfig, handler::RustackSqsHandler, provider::RustackSqs};
    let config = SqsConfig {
        host: "127.0.0.1".to_owned(),
        port: url
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
            .unwrap_or_default(),
        ..SqsConfig::default()
    };
    let handler = Arc::new(RustackSqsHandler::new(Arc::new(RustackSqs::new(config))));
    let service = rustack_sqs_http::service::SqsHttpService::new(handler, Default::default());
    while let Ok((stream, _)) = listener.accept().await {
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(hyper_util::rt::TokioIo::new(stream), service.clone());
        tokio::spawn(connection);
    }
}
