//! The APIs that callers come through: authorizers, routes, stages and gateway responses.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Finding, Severity, TTL_DEFAULT_S, error, names, warning};
use crate::doctor::facts::{Authorizer, Facts, HttpApi, Method, RestApi};
use crate::{failure::Failure, show::count, stack::Stack};

pub(super) fn attached(facts: &Facts, found: &mut Vec<Finding>) {
    let (Some(rest), Some(http)) = (&facts.rest_apis, &facts.http_apis) else {
        return;
    };
    if rest.is_empty() && http.is_empty() {
        found.push(error(
            "attached",
            "The authorizer is attached to no API of this region",
            "No call is counted, limited or billed.",
            "attach it as infra/snippets shows, or deploy with CreateSampleApi=true",
        ));
    }
}

pub(super) fn rest_api(api: &RestApi, wanted: &Responses, stack: Option<&Stack>, found: &mut Vec<Finding>) {
    let place = format!("{} ({})", api.name, api.id);
    for authorizer in &api.authorizers {
        let update = |change: &str| {
            format!(
                "aws apigateway update-authorizer --rest-api-id {} --authorizer-id {} --patch-operations {change}, then \
                 deploy the API: aws apigateway create-deployment --rest-api-id {} --stage-name STAGE",
                api.id, authorizer.id, api.id
            )
        };
        let ttl = update("op=replace,path=/authorizerResultTtlInSeconds,value=0");
        // With a TTL of 0 any source that every request has will do.
        let source = update("op=replace,path=/identitySource,value=context.identity.sourceIp");
        self::authorizer(&place, authorizer, ttl, source, found);
    }
    routes(&place, &api.authorizers, &api.methods, found);
    stages(&place, api, found);
    gateway_responses(&place, api, wanted, is_set(stack, "ForbiddenStatus403"), found);
    forbidden(&place, api, is_set(stack, "ForbiddenStatus403"), found);
}

pub(super) fn http_api(api: &HttpApi, found: &mut Vec<Finding>) {
    let place = format!("{} ({})", api.name, api.id);
    for authorizer in &api.authorizers {
        let update = |change: &str| {
            format!(
                "aws apigatewayv2 update-authorizer --api-id {} --authorizer-id {} {change}",
                api.id, authorizer.id
            )
        };
        let ttl = update("--authorizer-result-ttl-in-seconds 0");
        let source = update("--identity-source '$context.identity.sourceIp'");
        self::authorizer(&place, authorizer, ttl, source, found);
    }
    routes(&place, &api.authorizers, &api.methods, found);
}

fn is_set(stack: Option<&Stack>, parameter: &str) -> bool {
    stack.is_some_and(|stack| stack.parameters.get(parameter).is_some_and(|value| value == "true"))
}

fn authorizer(place: &str, authorizer: &Authorizer, ttl_fix: String, source_fix: String, found: &mut Vec<Finding>) {
    let name = &authorizer.name;
    match authorizer.ttl_s {
        Some(0) => {}
        ttl => {
            let kept = ttl.unwrap_or(TTL_DEFAULT_S);
            found.push(error(
                "authorizer-ttl",
                format!("{place}: API Gateway keeps the answers of authorizer {name} for {kept} s"),
                "A kept answer is a call that is neither counted nor limited nor billed.",
                ttl_fix,
            ));
        }
    }
    if authorizer.kind != "REQUEST" {
        found.push(error(
            "authorizer-kind",
            format!("{place}: authorizer {name} is of type {}", authorizer.kind),
            "Such an authorizer is told neither method nor path, so every call is refused.",
            "make one of type REQUEST, as infra/snippets shows",
        ));
    }
    // What every request has is no condition.
    let is_condition = |source: &&String| !source.trim_start_matches('$').starts_with("context.");
    let conditions: Vec<&str> = authorizer
        .identity_sources
        .iter()
        .filter(is_condition)
        .map(String::as_str)
        .collect();
    if !conditions.is_empty() {
        found.push(warning(
            "identity-source",
            format!("{place}: authorizer {name} demands {}", names(conditions)),
            "A call without one of them is refused before the authorizer is asked; a key may come in x-api-key or in \
             Authorization, so paying customers are turned away.",
            source_fix,
        ));
    }
}

/// Routes that the authorizer is not asked for, on an API where it is attached. Preflights carry no key.
fn routes(place: &str, ours: &[Authorizer], methods: &[Method], found: &mut Vec<Finding>) {
    let is_ours = |method: &&Method| ours.iter().any(|one| method.authorizer.as_ref() == Some(&one.id));
    let (metered, open): (Vec<&Method>, Vec<&Method>) = methods
        .iter()
        .filter(|method| !method.route.starts_with("OPTIONS "))
        .partition(is_ours);
    if metered.is_empty() && !methods.is_empty() {
        found.push(error(
            "routes",
            format!("{place}: no route asks the authorizer"),
            "No call of this API is counted, limited or billed.",
            "set the authorizer on its routes, as infra/snippets shows, and deploy the API",
        ));
    } else if !open.is_empty() {
        let routes = names(open.iter().map(|method| method.route.as_str()));
        found.push(warning(
            "routes",
            format!(
                "{place}: {} without the authorizer: {routes}",
                count(open.len(), "route")
            ),
            "Calls of these are neither counted nor limited nor billed, unless that is meant.",
            "set the authorizer on them, as infra/snippets shows, and deploy the API",
        ));
    }
}

fn stages(place: &str, api: &RestApi, found: &mut Vec<Finding>) {
    let guarded: BTreeSet<&str> = api
        .methods
        .iter()
        .filter(|method| method.authorizer.is_some())
        .map(|method| method.route.as_str())
        .collect();
    for stage in &api.stages {
        let open = stage.open_routes.iter().flatten().map(String::as_str);
        let open: Vec<&str> = open.filter(|route| guarded.contains(route)).collect();
        if !open.is_empty() {
            found.push(error(
                "stage",
                format!(
                    "{place}: stage {} still serves without the authorizer: {}",
                    stage.name,
                    names(open)
                ),
                "The authorizer was set after the stage's deployment; until the next one these calls are not counted.",
                format!(
                    "aws apigateway create-deployment --rest-api-id {} --stage-name {}",
                    api.id, stage.name
                ),
            ));
        }
    }
}

/// What the API should answer, which the local gateway renders as well.
#[derive(Deserialize)]
pub(super) struct Expected {
    #[serde(rename = "statusCode")]
    status: u16,
    headers: BTreeMap<String, String>,
}

pub(super) type Responses = BTreeMap<String, Expected>;

/// Of every type that is checked.
pub(super) fn expected() -> Result<Responses, Failure> {
    serde_json::from_str(include_str!("../../../../gateway-responses.json"))
        .map_err(|e| Failure::Failed(format!("gateway-responses.json: {e}")))
}

fn gateway_responses(place: &str, api: &RestApi, wanted: &Responses, forbids: bool, found: &mut Vec<Finding>) {
    let why = |kind: &str| match kind {
        "ACCESS_DENIED" => {
            "Whoever is over a limit is told 403 instead of 429 and not when to come back; clients then give up or try at once."
        }
        "INVALID_API_KEY" => {
            "A route outside of the tier is answered with a sentence that names neither tier nor portal."
        }
        _ => "A missing or wrong key is answered with a body that is no help.",
    };
    let fix = |kind: &str| {
        format!(
            "set {kind} as infra/gateway-responses.json says (x-amazon-apigateway-gateway-responses in infra/snippets), and \
             deploy the API"
        )
    };
    for (kind, expected) in wanted {
        if kind == "INVALID_API_KEY" && !forbids {
            continue;
        }
        let severity = if kind == "ACCESS_DENIED" {
            Severity::Error
        } else {
            Severity::Warning
        };
        let Some(response) = api.gateway_responses.get(kind) else {
            found.push(Finding {
                severity,
                ..error(
                    "gateway-response",
                    format!("{place}: the gateway response {kind} is API Gateway's own"),
                    why(kind),
                    fix(kind),
                )
            });
            continue;
        };
        let status = response.status.as_deref().unwrap_or("none");
        if status != expected.status.to_string() {
            found.push(Finding {
                severity,
                ..error(
                    "gateway-response",
                    format!(
                        "{place}: {kind} is answered with {status} instead of {}",
                        expected.status
                    ),
                    why(kind),
                    fix(kind),
                )
            });
        }
        // API Gateway sets the content type from the template's.
        let wrong: Vec<&str> = expected
            .headers
            .iter()
            .filter(|(name, from)| *name != "Content-Type" && response.headers.get(*name) != Some(from))
            .map(|(name, _)| name.as_str())
            .collect();
        if !wrong.is_empty() {
            found.push(warning(
                "gateway-response",
                format!("{place}: {kind} lacks or maps otherwise {}", names(wrong)),
                "Clients don't learn their limits and when to come back.",
                fix(kind),
            ));
        }
        if !response.has_json_body {
            found.push(warning(
                "gateway-response",
                format!("{place}: {kind} has no body for application/json"),
                "Clients are not told the code and the sentence that say what to do.",
                fix(kind),
            ));
        }
    }
}

/// The pieces that a 403 for a route outside of the tier needs.
fn forbidden(place: &str, api: &RestApi, forbids: bool, found: &mut Vec<Finding>) {
    let with_key: Vec<&str> = api
        .methods
        .iter()
        .filter(|method| {
            method.needs_key
                && api
                    .authorizers
                    .iter()
                    .any(|one| method.authorizer.as_ref() == Some(&one.id))
        })
        .map(|method| method.route.as_str())
        .collect();
    if !forbids {
        if !with_key.is_empty() {
            found.push(error(
                "forbidden-403",
                format!("{place} demands an API key of API Gateway's for {}", names(with_key)),
                "With ForbiddenStatus403=false the authorizer names none: every call is refused.",
                "take apiKeyRequired away from these routes, or deploy with ForbiddenStatus403=true",
            ));
        }
        return;
    }
    if !api.takes_key_from_authorizer {
        found.push(error(
            "forbidden-403",
            format!("{place} takes its API key from the caller"),
            "ForbiddenStatus403 needs it from the authorizer; so a route outside of the tier is not refused with 403.",
            format!(
                "aws apigateway update-rest-api --rest-api-id {} --patch-operations op=replace,path=/apiKeySource,value=AUTHORIZER",
                api.id
            ),
        ));
    }
    let without: Vec<&str> = api
        .methods
        .iter()
        .filter(|method| {
            !method.needs_key
                && api
                    .authorizers
                    .iter()
                    .any(|one| method.authorizer.as_ref() == Some(&one.id))
        })
        .map(|method| method.route.as_str())
        .collect();
    if !without.is_empty() {
        found.push(error(
            "forbidden-403",
            format!("{place} demands no API key for {}", names(without)),
            "The authorizer says no by naming a key that does not exist; where none is demanded, calls outside of the tier are \
             let through unpaid.",
            "set apiKeyRequired on these routes, and deploy the API",
        ));
    }
    let with_plan = api.stages_with_key.as_deref().unwrap_or_default();
    let without: Vec<&str> = api
        .stages
        .iter()
        .map(|stage| stage.name.as_str())
        .filter(|stage| !with_plan.iter().any(|one| one == stage))
        .collect();
    if !without.is_empty() {
        found.push(error(
            "forbidden-403",
            format!(
                "{place}: no usage plan with the key of the output GatewayKeyId has stage {}",
                names(without)
            ),
            "Every call there is refused with 403.",
            "add the stage and the key to a usage plan without limits",
        ));
    }
}
