//! The call sites: every kind of request that goes to a table, a queue or Stripe, and whose it is. A request that is not in this
//! list fails the test, so that a new call can't be forgotten.

use std::fmt;

use serde_json::Value;

use crate::proxy::Message;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Actor {
    Authorizer,
    Consumer,
    Webhook,
    Notifier,
    /// The control plane and billing, as the command line has them.
    Operator,
}

use Actor::{Authorizer, Consumer, Notifier, Operator, Webhook};

impl Actor {
    pub(crate) const ALL: [Self; 5] = [Authorizer, Consumer, Webhook, Notifier, Operator];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Authorizer => "authorizer",
            Consumer => "consumer",
            Webhook => "webhook",
            Notifier => "notifier",
            Operator => "operator",
        }
    }
}

/// Who is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Table,
    Queue,
    Stripe,
}

impl Service {
    pub(crate) const ALL: [Self; 3] = [Self::Table, Self::Queue, Self::Stripe];
}

/// A kind of request.
struct Site {
    name: &'static str,
    service: Service,
    /// The operation; of Stripe's the method and the path, where `*` is one segment.
    operation: &'static str,
    /// What its body holds and no other's of the same operation that stands below it.
    marks: &'static [&'static str],
    /// Who may make it.
    actors: &'static [Actor],
}

/// The write that admits and meters.
pub(crate) const ADMIT: &str = "admit";
/// What fills the queue of the consumer.
pub(crate) const SEND_USAGE: &str = "send usage";
/// What fills the queue of the notifier.
pub(crate) const SEND_ALERT: &str = "send alert";

const fn table(
    name: &'static str,
    operation: &'static str,
    marks: &'static [&'static str],
    actors: &'static [Actor],
) -> Site {
    Site {
        name,
        service: Service::Table,
        operation,
        marks,
        actors,
    }
}

const fn queue(name: &'static str, operation: &'static str, actors: &'static [Actor]) -> Site {
    Site {
        name,
        service: Service::Queue,
        operation,
        marks: &[],
        actors,
    }
}

const fn stripe(operation: &'static str, actors: &'static [Actor]) -> Site {
    Site {
        name: operation,
        service: Service::Stripe,
        operation,
        marks: &[],
        actors,
    }
}

const ACCOUNTS: &str = r#""farebox-accounts""#;
const COUNTERS: &str = r#""farebox-counters""#;
const LEDGER: &str = r#""farebox-ledger""#;

/// The first that fits names the request.
#[rustfmt::skip]
const SITES: &[Site] = &[
    table("read key", "GetItem", &[ACCOUNTS, r#""S":"k#"#], &[Authorizer, Webhook, Operator]),
    table("read customer", "GetItem", &[ACCOUNTS, r#""S":"c#"#], &[Authorizer, Consumer, Webhook, Operator]),
    table("read catalog", "GetItem", &[ACCOUNTS, r#""S":"t#"#], &[Authorizer, Consumer, Webhook, Operator]),
    table("read newest catalog", "GetItem", &[ACCOUNTS, r#""S":"t""#], &[Webhook, Operator]),
    table("read event's mark", "GetItem", &[ACCOUNTS, r#""S":"e#"#], &[Webhook]),
    table("read Stripe's customer", "GetItem", &[ACCOUNTS, r#""S":"s#"#], &[Webhook]),
    table("put key", "PutItem", &[ACCOUNTS, r#""S":"k#"#], &[Webhook, Operator]),
    table("put key's owner", "PutItem", &[ACCOUNTS, r#""S":"c#"#], &[Webhook, Operator]),
    table("put catalog", "PutItem", &[ACCOUNTS, r#""S":"t#"#], &[Operator]),
    table("make catalog the newest", "PutItem", &[ACCOUNTS, r#""S":"t""#], &[Operator]),
    table("mark key as shown", "PutItem", &[ACCOUNTS, r#""S":"e#shown-"#], &[Webhook]),
    table("put event's mark", "PutItem", &[ACCOUNTS, r#""S":"e#"#], &[Webhook]),
    table("store customer", "TransactWriteItems", &[ACCOUNTS, r#""S":"c#"#], &[Webhook, Operator]),
    table("scan keys", "Scan", &[ACCOUNTS, "begins_with(pk, :k)"], &[Consumer]),
    table("scan customers", "Scan", &[ACCOUNTS, "sk = :customer"], &[Operator]),
    table("claim delivery", "UpdateItem", &[ACCOUNTS, "attempts = if_not_exists(attempts"], &[Notifier]),
    table("settle delivery", "UpdateItem", &[ACCOUNTS, "settled = :now"], &[Notifier]),
    table(ADMIT, "UpdateItem", &[COUNTERS, "#n0 = if_not_exists(#n0, :zero) + :cost"], &[Authorizer]),
    table("create counter", "UpdateItem", &[COUNTERS, "SET generation = if_not_exists("], &[Webhook, Operator]),
    table("seal", "UpdateItem", &[COUNTERS, r#""SET sealed = :bucket""#], &[Consumer, Webhook, Operator]),
    table("prune", "UpdateItem", &[COUNTERS, r#""REMOVE #units""#], &[Consumer, Webhook, Operator]),
    table("bump epoch", "UpdateItem", &[COUNTERS, r#""SET auth_epoch = :epoch""#], &[Webhook, Operator]),
    table("shut counter", "UpdateItem", &[COUNTERS, r#""SET auth_epoch = :shut""#], &[Operator]),
    table("restore counter", "UpdateItem", &[COUNTERS, "SET generation = :new"], &[Operator]),
    table("read counter", "GetItem", &[COUNTERS], &[Authorizer, Webhook, Operator]),
    table("scan counters", "Scan", &[COUNTERS], &[Consumer]),
    table("fold", "UpdateItem", &[LEDGER, "bucket_end = if_not_exists(bucket_end"], &[Consumer, Webhook, Operator]),
    table("freeze", "UpdateItem", &[LEDGER, "event_name = :event"], &[Consumer, Webhook, Operator]),
    table("close", "UpdateItem", &[LEDGER, "credit = :credit, outcome = :why"], &[Consumer]),
    table("freeze with credit", "TransactWriteItems", &[LEDGER, "SET taken = :taken"], &[Consumer]),
    table("grant", "TransactWriteItems", &[LEDGER, "SET granted = "], &[Operator]),
    table("claim", "UpdateItem", &[LEDGER, "claimed_at = :now"], &[Consumer, Webhook, Operator]),
    table("delivered", "UpdateItem", &[LEDGER, "outcome = :how, #due = :now REMOVE claim"], &[Consumer, Webhook, Operator]),
    table("retry later", "UpdateItem", &[LEDGER, "faults = if_not_exists(faults, :zero) + :fault"], &[Consumer]),
    table("park", "UpdateItem", &[LEDGER, "outcome = :why REMOVE claim, #work"], &[Consumer]),
    table("reopen", "UpdateItem", &[LEDGER, "#identifier = :next REMOVE #work"], &[Webhook]),
    table("finish", "UpdateItem", &[LEDGER, r#""REMOVE #work""#], &[Consumer, Webhook, Operator]),
    table("put off", "UpdateItem", &[LEDGER, r#""SET #due = :due""#], &[Operator]),
    table("store period's units", "UpdateItem", &[LEDGER, "SET #shard = :units"], &[Consumer]),
    table("note alert", "PutItem", &[LEDGER, r#""S":"alert""#], &[Consumer]),
    table("read balance", "GetItem", &[LEDGER, "#credit#"], &[Consumer, Webhook, Operator]),
    table("read grant", "GetItem", &[LEDGER, "#grant#"], &[]),
    table("read alert", "GetItem", &[LEDGER, "#alert#"], &[Consumer]),
    table("read row", "GetItem", &[LEDGER, r#"#api_calls""#], &[Consumer, Webhook, Operator]),
    table("query due rows", "Query", &[LEDGER, "#due <= :now"], &[Consumer]),
    table("query oldest bucket", "Query", &[LEDGER, r#""ProjectionExpression":"sk""#], &[Consumer]),
    table("query waiting rows", "Query", &[LEDGER, r##""#work = :work""##], &[Webhook, Operator]),
    table("scan customer's rows", "Scan", &[LEDGER, "begins_with(pk, :customer)"], &[Operator]),
    table("scan ledger", "Scan", &[LEDGER], &[Webhook]),
    queue(SEND_USAGE, "SendMessageBatch", &[Authorizer]),
    queue(SEND_ALERT, "SendMessage", &[Consumer, Webhook]),
    queue("postpone alert", "ChangeMessageVisibility", &[]),
    stripe("POST /v1/billing/meter_events", &[Consumer, Webhook, Operator]),
    stripe("GET /v1/billing/meters", &[Consumer, Operator]),
    stripe("GET /v1/billing/meters/*/event_summaries", &[Consumer, Operator]),
    stripe("POST /v1/billing/meters", &[Operator]),
    stripe("POST /v1/customers", &[Operator]),
    stripe("GET /v1/customers/*", &[Webhook]),
    stripe("POST /v1/checkout/sessions", &[Operator]),
    stripe("GET /v1/checkout/sessions/*", &[Webhook]),
    stripe("GET /v2/core/events/*", &[Webhook]),
    stripe("GET /v1/products/*", &[Operator]),
    stripe("POST /v1/products", &[Operator]),
    stripe("POST /v1/products/*", &[Operator]),
    stripe("GET /v1/prices", &[Operator]),
    stripe("POST /v1/prices", &[Operator]),
    stripe("POST /v1/subscriptions", &[Operator]),
    stripe("GET /v1/subscriptions", &[Webhook]),
    stripe("GET /v1/subscriptions/*", &[Webhook, Operator]),
    stripe("POST /v1/subscriptions/*", &[Webhook, Operator]),
    stripe("DELETE /v1/subscriptions/*", &[Operator]),
    stripe("GET /v1/invoices", &[Webhook]),
    stripe("GET /v1/invoices/*", &[Webhook]),
];

/// Calls that are made only when another one has failed or a message was lost: faults elsewhere lead to them.
#[rustfmt::skip]
const AFTER_FAILURES: &[(Actor, &str)] = &[
    (Consumer, "put off"),
    (Webhook, "put off"),
    (Webhook, "retry later"),
    (Webhook, "GET /v1/billing/meters"),
    (Webhook, "GET /v1/billing/meters/*/event_summaries"),
    (Operator, "retry later"),
    (Operator, "read grant"),
    (Operator, "GET /v1/subscriptions"),
    (Notifier, "postpone alert"),
];

/// What a function asks for when it starts, before anything is to be done.
#[rustfmt::skip]
const AT_START: &[Site] = &[
    table("check accounts", "GetItem", &[ACCOUNTS, r#""S":"c#""#], &[Consumer]),
    table("check counters", "UpdateItem", &[COUNTERS, r#""SET sealed = :zero""#], &[Consumer]),
    table("check ledger", "GetItem", &[LEDGER, r##""S":"#""##], &[Consumer]),
    queue("check queue", "GetQueueAttributes", &[Consumer]),
];

/// A call site: who makes which kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) actor: Actor,
    pub(crate) site: &'static str,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.actor.name(), self.site)
    }
}

impl Place {
    /// Every call site that is reached without any failure.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::of(SITES)
    }

    fn of(sites: &'static [Site]) -> impl Iterator<Item = Self> {
        sites
            .iter()
            .flat_map(|site| site.actors.iter().map(|&actor| Self { actor, site: site.name }))
    }

    /// Whether it is in the list.
    pub(crate) fn is_listed(self) -> bool {
        let mut listed = Self::all().chain(Self::of(AT_START));
        listed.any(|place| place == self) || AFTER_FAILURES.contains(&(self.actor, self.site))
    }
}

/// A request's operation; of Stripe's the method and the path.
pub(crate) fn operation(service: Service, request: &Message) -> String {
    match service {
        Service::Stripe => {
            let mut words = request.first_line().split(' ');
            let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            format!("{method} {}", target.split('?').next().unwrap_or_default())
        }
        Service::Table | Service::Queue => {
            let target = request.header("x-amz-target").unwrap_or_default();
            target.rsplit('.').next().unwrap_or_default().to_owned()
        }
    }
}

/// Names a request's kind, or tells what nobody has named.
pub(crate) fn identify(service: Service, request: &Message) -> Result<&'static str, String> {
    let operation = operation(service, request);
    let body = String::from_utf8_lossy(&request.body);
    let is_it = |site: &&Site| {
        site.service == service
            && is_operation(site.operation, &operation)
            && site.marks.iter().all(|mark| body.contains(mark))
    };
    let site = AT_START.iter().chain(SITES).find(is_it).map(|site| site.name);
    site.ok_or_else(|| format!("{operation} {}", telling(&request.body)))
}

/// What tells an unnamed request from others: its table, expression and key.
fn telling(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let told = [
        "TableName",
        "UpdateExpression",
        "FilterExpression",
        "KeyConditionExpression",
        "Key",
        "QueueUrl",
    ];
    told.map(|name| body[name].to_string()).join(" ").replace("null", "")
}

/// Whether an operation is the one of the list: segment by segment, where `*` is any one.
fn is_operation(listed: &str, operation: &str) -> bool {
    let (mut listed, mut operation) = (listed.split('/'), operation.split('/'));
    loop {
        match (listed.next(), operation.next()) {
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == found || wanted == "*" => {}
            _ => return false,
        }
    }
}
