//! What was seen, before it is judged. Names, settings and figures only: no secret's value is ever part of it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::stack::Stack;

/// Everything that was looked at. What is `None` was not: it can't be (see `notes`), or could not be (see `unread`).
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Facts {
    /// The stack, as CloudFormation knows it; `None` on this machine.
    pub(crate) stack: Option<Stack>,
    pub(crate) tables: Vec<Table>,
    pub(crate) queues: Vec<Queue>,
    pub(crate) functions: Vec<Function>,
    pub(crate) mappings: Option<Vec<Mapping>>,
    pub(crate) schedules: Vec<Schedule>,
    pub(crate) secrets: Vec<Secret>,
    /// By name.
    pub(crate) alarms: Option<BTreeMap<String, Alarm>>,
    /// Of the operator's topic.
    pub(crate) subscriptions: Option<Vec<Subscription>>,
    /// Those that the authorizer is attached to.
    pub(crate) rest_apis: Option<Vec<RestApi>>,
    /// Those that the authorizer is attached to.
    pub(crate) http_apis: Option<Vec<HttpApi>>,
    pub(crate) clocks: Vec<Clock>,
    pub(crate) stripe: Option<Stripe>,
    /// What is sold.
    pub(crate) catalog: Option<Catalog>,
    /// What could not be read.
    pub(crate) unread: Vec<Unread>,
    /// What nobody can read from here.
    pub(crate) notes: Vec<String>,
}

/// Which of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TableKind {
    Accounts,
    Counters,
    Ledger,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) kind: TableKind,
    pub(crate) name: String,
    /// `None`: there is no such table.
    pub(crate) settings: Option<TableSettings>,
    /// `None` where such settings do not exist: on this machine.
    pub(crate) safety: Option<TableSafety>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TableSettings {
    /// Attributes of the key with their types: `pk S, sk N`.
    pub(crate) key: String,
    /// The same of each index: `work: work S, due N`.
    pub(crate) indexes: Vec<String>,
    pub(crate) is_on_demand: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TableSafety {
    pub(crate) is_deletion_protected: bool,
    pub(crate) has_point_in_time_recovery: bool,
    /// The attribute after which items expire.
    pub(crate) expires_by: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Queue {
    /// `usage`, `alerts`.
    pub(crate) part: &'static str,
    /// `None`: there is no such queue.
    pub(crate) settings: Option<QueueSettings>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct QueueSettings {
    pub(crate) url: String,
    pub(crate) visibility_s: u64,
    /// The name of the queue that takes what fails for good.
    pub(crate) dead_letters: Option<String>,
    pub(crate) dead_letter_depth: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Function {
    /// `consumer`, …
    pub(crate) part: &'static str,
    pub(crate) name: String,
    /// `None`: there is no such function.
    pub(crate) settings: Option<FunctionSettings>,
}

#[derive(Clone, Debug, serde::Deserialize, Serialize)]
#[serde(rename_all(deserialize = "PascalCase"))]
pub(crate) struct FunctionSettings {
    pub(crate) timeout: u64,
    /// `Active`, `Pending`, `Inactive`, `Failed`.
    pub(crate) state: Option<String>,
    /// `Successful`, `Failed`, `InProgress`.
    pub(crate) last_update_status: Option<String>,
}

/// What brings a queue's messages to a function.
#[derive(Clone, Debug, serde::Deserialize, Serialize)]
#[serde(rename_all(deserialize = "PascalCase"))]
pub(crate) struct Mapping {
    #[serde(rename(deserialize = "UUID"))]
    pub(crate) id: String,
    pub(crate) event_source_arn: Option<String>,
    pub(crate) function_arn: Option<String>,
    pub(crate) state: Option<String>,
    pub(crate) batch_size: Option<u64>,
    pub(crate) maximum_batching_window_in_seconds: Option<u64>,
    #[serde(default)]
    pub(crate) function_response_types: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Schedule {
    /// `tick`, `scan`.
    pub(crate) part: &'static str,
    pub(crate) name: String,
    /// `ENABLED`, `DISABLED`; `None`: there is no such schedule.
    pub(crate) state: Option<String>,
}

/// Which of the secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SecretKind {
    StripeKey,
    Webhook,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Secret {
    pub(crate) kind: SecretKind,
    pub(crate) arn: String,
    /// `None`: there is no such secret, or it is to be deleted.
    pub(crate) versions: Option<usize>,
    /// Why what it holds is of no use, if that was looked at; never what it holds.
    pub(crate) fault: Option<String>,
}

#[derive(Clone, Debug, serde::Deserialize, Serialize)]
#[serde(rename_all(deserialize = "PascalCase"))]
pub(crate) struct Alarm {
    pub(crate) alarm_name: String,
    pub(crate) actions_enabled: bool,
    #[serde(default)]
    pub(crate) alarm_actions: Vec<String>,
    /// `OK`, `ALARM`, `INSUFFICIENT_DATA`.
    pub(crate) state_value: String,
    #[serde(default)]
    pub(crate) state_reason: String,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Subscription {
    pub(crate) endpoint: String,
    pub(crate) is_confirmed: bool,
}

/// An authorizer of an API that calls our function.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Authorizer {
    pub(crate) id: String,
    pub(crate) name: String,
    /// `REQUEST`, `TOKEN`.
    pub(crate) kind: String,
    /// `None`: 300 s.
    pub(crate) ttl_s: Option<u64>,
    pub(crate) identity_sources: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct RestApi {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Whether the authorizer names the API key.
    pub(crate) takes_key_from_authorizer: bool,
    pub(crate) authorizers: Vec<Authorizer>,
    pub(crate) methods: Vec<Method>,
    /// By type; those that API Gateway answers by itself are not among them.
    pub(crate) gateway_responses: BTreeMap<String, GatewayResponse>,
    pub(crate) stages: Vec<Stage>,
    /// Stages of this API in a usage plan with the stack's key; `None` where there is no such key.
    pub(crate) stages_with_key: Option<Vec<String>>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Method {
    /// `GET /v1/items`.
    pub(crate) route: String,
    /// The authorizer that it asks.
    pub(crate) authorizer: Option<String>,
    pub(crate) needs_key: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct GatewayResponse {
    pub(crate) status: Option<String>,
    /// From header to what it is mapped from.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) has_json_body: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stage {
    pub(crate) name: String,
    /// Routes that are served without asking any authorizer, as of the stage's deployment; `None` if that does not say.
    pub(crate) open_routes: Option<Vec<String>>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct HttpApi {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) authorizers: Vec<Authorizer>,
    pub(crate) methods: Vec<Method>,
}

/// How far the clock of this machine is ahead.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Clock {
    /// Of whom.
    pub(crate) of: &'static str,
    /// Seconds; behind if negative; 0 if it can't be told apart.
    pub(crate) ahead_s: i64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Stripe {
    /// Where the key is from, for sentences: `STRIPE_SECRET_KEY`.
    pub(crate) key_from: String,
    pub(crate) is_restricted: bool,
    pub(crate) is_live: bool,
    /// The same of the key that the functions use, where that is another one.
    pub(crate) functions_key_is_live: Option<bool>,
    pub(crate) is_key_unknown: bool,
    /// Areas that the key may not use, with the permission that Stripe names, and whether Farebox also writes there.
    pub(crate) denied: Vec<Denied>,
    /// Where snapshot events go; `None` where they need no endpoint: on this machine.
    pub(crate) snapshot_endpoints: Option<Vec<Endpoint>>,
    /// The same for thin events.
    pub(crate) thin_endpoints: Option<Vec<Endpoint>>,
    pub(crate) has_read_invoices: bool,
    /// How long invoices of billing periods stay drafts; `None` if none was made yet.
    pub(crate) grace: Option<Grace>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Denied {
    pub(crate) area: &'static str,
    pub(crate) permission: Option<String>,
    pub(crate) is_written: bool,
}

/// Where Stripe sends events.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Endpoint {
    pub(crate) id: String,
    pub(crate) url: String,
    pub(crate) events: Vec<String>,
    pub(crate) api_version: Option<String>,
    pub(crate) is_enabled: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Grace {
    pub(crate) invoice: String,
    pub(crate) seconds: i64,
    /// It is announced for a draft; else it is how long a finalized invoice was one.
    pub(crate) is_announced: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Catalog {
    /// The version that is sold; `None`: nothing is.
    pub(crate) version: Option<u64>,
    /// What Stripe lacks of it.
    pub(crate) missing: Vec<String>,
    /// Prices that are not what they are called.
    pub(crate) mismatches: Vec<String>,
    /// The file that was compared with it, and what it would change.
    pub(crate) file: Option<(String, Vec<String>)>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Unread {
    /// `the alarms`.
    pub(crate) what: String,
    pub(crate) cause: String,
    /// What would mend that.
    pub(crate) fix: String,
}
