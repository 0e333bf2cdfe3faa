//! What API Gateway asks and what it is answered.
//!
//! Both events are read leniently and narrowly: of a dozen fields four are needed, and a header that is no valid header must
//! end in 401, not in an error of ours.

use std::collections::HashMap;

use farebox_core::{answer::Context, key};
use serde::{Deserialize, Serialize};

/// The request that is to be authorized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The path as the caller sent it, without the stage.
    pub path: &'a str,
    /// The resource that a policy speaks of.
    pub resource: &'a str,
    /// Which answer is understood.
    pub format: Format,
}

/// Which answer API Gateway understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An IAM policy: REST APIs, and HTTP APIs with payload format 1.0.
    Policy,
    /// `isAuthorized`: HTTP APIs with payload format 2.0 and simple responses.
    Simple,
}

/// An authorizer event of a REST API (`REQUEST`) or an HTTP API
/// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-input.html>,
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html>).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    version: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    method_arn: Option<String>,
    route_arn: Option<String>,
    http_method: Option<String>,
    path: Option<String>,
    raw_path: Option<String>,
    headers: Option<HashMap<String, Option<String>>>,
    request_context: RequestContext,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RequestContext {
    http: Option<Http>,
    stage: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Http {
    method: Option<String>,
    path: Option<String>,
}

impl Event {
    /// What is to be authorized; `None` if the event is of no kind that we know.
    #[must_use]
    pub fn request(&self) -> Option<Request<'_>> {
        if self.version.as_deref() == Some("2.0") {
            let http = self.request_context.http.as_ref()?;
            let path = self.raw_path.as_deref().or(http.path.as_deref())?;
            return Some(Request {
                method: http.method.as_deref()?,
                path: self.without_stage(path),
                resource: self.route_arn.as_deref()?,
                format: Format::Simple,
            });
        }
        let is_request = self.kind.as_deref().is_none_or(|kind| kind == "REQUEST");
        is_request.then_some(())?;
        Some(Request {
            method: self.http_method.as_deref()?,
            path: self.path.as_deref()?,
            resource: self.method_arn.as_deref().or(self.route_arn.as_deref())?,
            format: Format::Policy,
        })
    }

    /// An HTTP API puts a named stage in front of the path.
    fn without_stage<'a>(&self, path: &'a str) -> &'a str {
        match self.request_context.stage.as_deref() {
            None | Some("$default" | "") => path,
            Some(stage) => path
                .strip_prefix('/')
                .and_then(|rest| rest.strip_prefix(stage))
                .filter(|rest| rest.starts_with('/'))
                .unwrap_or(path),
        }
    }

    /// The API key as the caller sent it.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        key::from_headers(self.header("x-api-key"), self.header("authorization"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let headers = self.headers.as_ref()?;
        let (_, value) = headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name))?;
        value.as_deref()
    }
}

/// The answer. Keys that do not apply are absent, never `null`
/// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-output.html>).
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Response {
    /// For [`Format::Policy`].
    #[serde(rename_all = "camelCase")]
    Policy {
        /// Who calls.
        principal_id: String,
        /// What they may do.
        policy_document: PolicyDocument,
        /// For the back end and the gateway's responses.
        context: HashMap<&'static str, String>,
        /// Set to a key that does not exist where a REST API is to answer 403; and, where it may, to the one that exists
        /// where it is not.
        #[serde(skip_serializing_if = "Option::is_none")]
        usage_identifier_key: Option<String>,
    },
    /// For [`Format::Simple`].
    #[serde(rename_all = "camelCase")]
    Simple {
        /// The decision.
        is_authorized: bool,
        /// For the back end.
        context: HashMap<&'static str, String>,
    },
}

/// An IAM policy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyDocument {
    version: &'static str,
    statement: [Statement; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    action: &'static str,
    effect: &'static str,
    resource: String,
}

/// What the gateway is to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Let it through.
    Allow,
    /// Answer as the gateway's response for a denial says.
    Deny,
    /// Answer 403, by letting it through under a key that does not exist (REST APIs only; inferred from the documentation).
    Forbid,
}

impl Response {
    /// The answer to a request. Where the API takes keys from its authorizer (`apiKeySource: AUTHORIZER`), every request that is
    /// let through needs one that exists
    /// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-api-key-source.html>).
    #[must_use]
    pub fn new(
        request: &Request<'_>,
        effect: Effect,
        principal: String,
        context: Context,
        usage_identifier_key: Option<&str>,
    ) -> Self {
        let is_allowed = effect == Effect::Allow;
        let context = context.into_iter().collect();
        match request.format {
            Format::Simple => Response::Simple {
                is_authorized: is_allowed,
                context,
            },
            Format::Policy => Response::Policy {
                principal_id: principal,
                policy_document: PolicyDocument {
                    version: "2012-10-17",
                    statement: [Statement {
                        action: "execute-api:Invoke",
                        effect: if effect == Effect::Deny { "Deny" } else { "Allow" },
                        resource: request.resource.to_owned(),
                    }],
                },
                context,
                usage_identifier_key: match effect {
                    Effect::Allow => usage_identifier_key.map(str::to_owned),
                    Effect::Forbid => Some("farebox-forbidden".to_owned()),
                    Effect::Deny => None,
                },
            },
        }
    }
}
