//! Each function's role, as `template.yaml` has it: no request may ask for more. The stand-ins for AWS let everybody do everything,
//! and emulators know nothing of the conditions on attributes and keys, so that a write which names one attribute too many would
//! be refused first by AWS.
//!
//! [Conditions of DynamoDB](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html):
//! `dynamodb:Attributes` are all that a request names, `dynamodb:LeadingKeys` the partition keys.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;

use crate::site::{Actor, Service};

const TEMPLATE: &str = include_str!("../../../../template.yaml");

/// What a statement of a policy allows.
#[derive(Debug)]
struct Statement {
    actions: Vec<String>,
    /// `LedgerTable`, `LedgerTable/index/work`.
    resources: Vec<String>,
    /// Patterns by condition key; all of a request's values must fit.
    conditions: BTreeMap<String, Vec<String>>,
}

/// What a request asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    action: String,
    resource: String,
    attributes: BTreeSet<String>,
    leading_keys: BTreeSet<String>,
}

static ROLES: LazyLock<BTreeMap<String, Vec<Statement>>> = LazyLock::new(|| {
    let documents = Yaml::load_from_str(TEMPLATE).expect("the template is YAML");
    let template = plain(&documents[0]);
    let resources = template["Resources"].as_object().expect("resources").iter();
    let roles = resources.filter(|(_, resource)| resource["Type"] == "AWS::IAM::Role");
    roles
        .map(|(name, role)| {
            let policies = role["Properties"]["Policies"].as_array().into_iter().flatten();
            let statements = policies.flat_map(|policy| each(&policy["PolicyDocument"]["Statement"]));
            // An `!If` also names its condition.
            (
                name.clone(),
                statements.filter(|node| node.is_object()).map(statement).collect(),
            )
        })
        .collect()
});

/// Whether an actor's role allows a request to a table or a queue.
///
/// # Errors
/// What it does not allow.
pub(crate) fn may(actor: Actor, service: Service, operation: &str, body: &[u8]) -> Result<(), String> {
    let role = match actor {
        Actor::Authorizer => "AuthorizerRole",
        Actor::Consumer => "ConsumerRole",
        Actor::Webhook => "WebhookRole",
        Actor::Notifier => "NotifierRole",
        // The owner's own rights.
        Actor::Operator => return Ok(()),
    };
    if service == Service::Stripe {
        return Ok(());
    }
    let statements = ROLES
        .get(role)
        .ok_or_else(|| format!("{role} is not in the template"))?;
    let body: Value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    for request in requests(service, operation, &body) {
        if !statements.iter().any(|statement| statement.allows(&request)) {
            return Err(format!("{role}: {request:?}"));
        }
    }
    Ok(())
}

impl Statement {
    fn allows(&self, request: &Request) -> bool {
        let fits = |condition: &str, values: &BTreeSet<String>| {
            let patterns = self.conditions.get(condition);
            // `ForAllValues`: also if there are none.
            patterns.is_none_or(|patterns| {
                let is_one = |value: &String| patterns.iter().any(|pattern| is_like(pattern, value));
                values.iter().all(is_one)
            })
        };
        self.actions.contains(&request.action)
            && self.resources.contains(&request.resource)
            && fits("dynamodb:Attributes", &request.attributes)
            && fits("dynamodb:LeadingKeys", &request.leading_keys)
    }
}

fn statement(node: &Value) -> Statement {
    assert_eq!(node["Effect"], "Allow", "only what is allowed is understood: {node}");
    let mut conditions = BTreeMap::new();
    for (operator, keys) in node["Condition"].as_object().into_iter().flatten() {
        // Neither is about a table or a queue.
        let is_elsewhere = operator == "StringEquals" && (node["Sid"] == "Mail" || node["Sid"] == "DecryptStripeKey");
        assert!(
            operator == "ForAllValues:StringLike" || is_elsewhere,
            "not understood: {node}"
        );
        for (key, patterns) in keys.as_object().into_iter().flatten() {
            conditions.insert(key.clone(), texts(patterns));
        }
    }
    // `!GetAtt LedgerTable.Arn`, `!Sub ${LedgerTable.Arn}/index/work`.
    let resource = |text: String| text.replace("${", "").replace('}', "").replace(".Arn", "");
    Statement {
        actions: texts(&node["Action"]),
        resources: texts(&node["Resource"]).into_iter().map(resource).collect(),
        conditions,
    }
}

/// A node without its tags: what CloudFormation's short functions are given.
fn plain(node: &Yaml<'_>) -> Value {
    match node {
        Yaml::Tagged(_, inner) => plain(inner),
        Yaml::Sequence(nodes) => nodes.iter().map(plain).collect(),
        Yaml::Mapping(entries) => {
            let entry = |(key, value): (&Yaml<'_>, &Yaml<'_>)| Some((key.as_str()?.to_owned(), plain(value)));
            entries.iter().filter_map(entry).collect()
        }
        Yaml::Representation(text, ..) => Value::from(text.as_ref()),
        _ => node.as_str().map_or(Value::Null, Value::from),
    }
}

/// One or several, also those of an `!If`.
fn each(node: &Value) -> Vec<&Value> {
    match node {
        Value::Array(nodes) => nodes.iter().flat_map(each).collect(),
        Value::Null => Vec::new(),
        one => vec![one],
    }
}

fn texts(node: &Value) -> Vec<String> {
    each(node)
        .into_iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn requests(service: Service, operation: &str, body: &Value) -> Vec<Request> {
    if service == Service::Queue {
        let queue = match body["QueueUrl"].as_str().and_then(|url| url.rsplit('/').next()) {
            Some("farebox-usage") => "UsageQueue",
            Some("farebox-alerts") => "AlertQueue",
            other => other.unwrap_or_default(),
        };
        return vec![Request {
            // A batch has no permission of its own.
            action: format!("sqs:{}", operation.trim_end_matches("Batch")),
            resource: queue.to_owned(),
            ..Request::default()
        }];
    }
    let Some(items) = body["TransactItems"].as_array() else {
        return vec![of_table(operation, body)];
    };
    let parts = items.iter().filter_map(Value::as_object).flatten();
    let action = |kind: &str| match kind {
        "ConditionCheck" => "ConditionCheckItem".to_owned(),
        "Put" | "Update" | "Delete" => format!("{kind}Item"),
        other => other.to_owned(),
    };
    parts.map(|(kind, part)| of_table(&action(kind), part)).collect()
}

fn of_table(operation: &str, body: &Value) -> Request {
    let table = match body["TableName"].as_str() {
        Some("farebox-accounts") => "AccountsTable",
        Some("farebox-counters") => "CountersTable",
        Some("farebox-ledger") => "LedgerTable",
        other => other.unwrap_or_default(),
    };
    let index = body["IndexName"].as_str().map(|index| format!("/index/{index}"));
    let mut attributes = BTreeSet::new();
    let mut leading_keys = BTreeSet::new();
    for item in [&body["Key"], &body["Item"]] {
        attributes.extend(item.as_object().into_iter().flatten().map(|(name, _)| name.clone()));
        leading_keys.extend(item["pk"]["S"].as_str().map(str::to_owned));
    }
    for expression in [
        "UpdateExpression",
        "ConditionExpression",
        "ProjectionExpression",
        "KeyConditionExpression",
        "FilterExpression",
    ] {
        let text = body[expression].as_str().unwrap_or_default();
        attributes.extend(named(text, &body["ExpressionAttributeNames"]));
    }
    Request {
        action: format!("dynamodb:{operation}"),
        resource: format!("{table}{}", index.unwrap_or_default()),
        attributes,
        leading_keys,
    }
}

/// The attributes that an expression names.
fn named(expression: &str, names: &Value) -> Vec<String> {
    const WORDS: [&str; 18] = [
        "SET",
        "REMOVE",
        "ADD",
        "DELETE",
        "AND",
        "OR",
        "NOT",
        "IN",
        "BETWEEN",
        "if_not_exists",
        "list_append",
        "attribute_exists",
        "attribute_not_exists",
        "attribute_type",
        "begins_with",
        "contains",
        "size",
        "",
    ];
    expression
        .split(|c: char| !(c.is_ascii_alphanumeric() || "_#:".contains(c)))
        .filter(|word| !WORDS.contains(word) && !word.starts_with(|c: char| c == ':' || c.is_ascii_digit()))
        .map(|word| names[word].as_str().unwrap_or(word).to_owned())
        .collect()
}

/// `StringLike`: `*` is any text.
fn is_like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            let mut ends = (0..=text.len()).filter(|&at| text.is_char_boundary(at));
            ends.any(|at| is_like(rest, &text[at..]))
        }),
    }
}

#[test]
fn a_write_is_held_to_its_role() {
    let freeze = |attribute: &str| {
        serde_json::json!({
            "TableName": "farebox-ledger", "Key": {"pk": {"S": "acme#0"}, "sk": {"N": "1"}},
            "UpdateExpression": format!("SET #state = if_not_exists(#state, :open), {attribute} = :new"),
            "ConditionExpression": "units <= :units", "ExpressionAttributeNames": {"#state": "state"},
        })
    };
    let update = |actor, body: &Value| may(actor, Service::Table, "UpdateItem", body.to_string().as_bytes());
    assert_eq!(update(Actor::Consumer, &freeze("credit")), Ok(()));
    assert_eq!(update(Actor::Operator, &freeze("anything")), Ok(()));
    let refused = update(Actor::Consumer, &freeze("anything")).expect_err("an attribute of nobody's");
    let named = r#"attributes: {"anything", "pk", "sk", "state", "units"}"#;
    assert!(refused.contains(named), "{refused}");
    assert!(update(Actor::Authorizer, &freeze("credit")).is_err());
    let put = |key: &str| {
        let part = serde_json::json!({"TableName": "farebox-accounts", "Item": {"pk": {"S": key}, "doc": {"S": ""}}});
        let body = serde_json::json!({"TransactItems": [{"Put": part}]});
        may(
            Actor::Webhook,
            Service::Table,
            "TransactWriteItems",
            body.to_string().as_bytes(),
        )
    };
    assert_eq!(put("c#acme"), Ok(()));
    assert!(put("t#1").is_err(), "a catalog is the owner's");
}
