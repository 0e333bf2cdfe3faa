//! Broken variants of what lies behind the wire: each must be caught, or the simulation proves nothing.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::store::{Answer, Store};

/// One rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The table counts requests in buckets that are sealed.
    AdmitsIntoSealedBuckets,
    /// The table does not hold requests to a quota.
    IgnoresQuotas,
    /// The table answers that the epoch was raised, and does not raise it.
    ForgetsBumps,
    /// The table folds messages into rows that are not open any more.
    FoldsIntoAnyRow,
    /// The SDK tries the write that counts again when its outcome is unknown.
    RetriesTheCountingWrite,
    /// Every attempt to report carries an identifier and an idempotency key of its own.
    NumbersTheAttempts,
}

impl Sabotage {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::AdmitsIntoSealedBuckets,
        Self::IgnoresQuotas,
        Self::ForgetsBumps,
        Self::FoldsIntoAnyRow,
        Self::RetriesTheCountingWrite,
        Self::NumbersTheAttempts,
    ];

    /// Changes a request to a table, or answers in its place.
    pub(crate) fn instead(self, operation: &str, request: &mut Value, store: &Store) -> Option<Answer> {
        if operation != "UpdateItem" {
            return None;
        }
        let condition = request["ConditionExpression"].as_str().unwrap_or_default().to_owned();
        let update = request["UpdateExpression"].as_str().unwrap_or_default().to_owned();
        match self {
            Self::AdmitsIntoSealedBuckets => {
                request["ConditionExpression"] = condition.replace(" AND sealed < :bucket AND", " AND").into();
                unused(request, ":bucket");
            }
            Self::IgnoresQuotas => {
                let is_quota = |part: &&str| !part.contains(":q");
                let kept: Vec<&str> = condition.split(" AND ").filter(is_quota).collect();
                request["ConditionExpression"] = kept.join(" AND ").into();
                for i in 0..4 {
                    unused(request, &format!(":q{i}"));
                }
            }
            Self::ForgetsBumps if update == "SET auth_epoch = :epoch" => {
                let mut item = store.item(&request["TableName"], &request["Key"]);
                item["auth_epoch"] = request["ExpressionAttributeValues"][":epoch"].clone();
                let body = serde_json::json!({ "Attributes": item }).to_string();
                return Some(Answer { status: 200, body });
            }
            Self::FoldsIntoAnyRow if condition.starts_with("attribute_not_exists(#state) OR") => {
                request["ConditionExpression"] = "attribute_exists(pk) OR attribute_not_exists(pk)".into();
            }
            _ => {}
        }
        None
    }

    /// Changes a request to Stripe.
    pub(crate) async fn reword(self, request: Request<Full<Bytes>>, attempt: u64) -> Request<Full<Bytes>> {
        if self != Self::NumbersTheAttempts || request.uri().path() != "/v1/billing/meter_events" {
            return request;
        }
        let (mut head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let form =
            String::from_utf8_lossy(&body).replace("identifier=farebox-", &format!("identifier=try{attempt:08}-"));
        if let Ok(key) = http::HeaderValue::from_str(&format!("try{attempt:08}")) {
            head.headers.insert("idempotency-key", key);
        }
        Request::from_parts(head, Full::new(Bytes::from(form)))
    }

    /// Names in Stripe's answer what was asked for.
    pub(crate) fn answer_as_asked(self, body: String) -> String {
        match body.split_once("\"identifier\":\"try") {
            Some((before, after)) if self == Self::NumbersTheAttempts => {
                let after = after.split_once('-').map_or("", |(_, rest)| rest);
                format!("{before}\"identifier\":\"farebox-{after}")
            }
            _ => body,
        }
    }
}

/// DynamoDB refuses a value that no expression names.
fn unused(request: &mut Value, name: &str) {
    let is_used = |field: &str| {
        let text = request[field].as_str().unwrap_or_default();
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == ':' || c == '_'))
            .any(|word| word == name)
    };
    if !is_used("ConditionExpression")
        && !is_used("UpdateExpression")
        && let Some(values) = request["ExpressionAttributeValues"].as_object_mut()
    {
        values.remove(name);
    }
}
