//! What API Gateway asks and what it is answered.
//!
//! Both events are read leniently and narrowly: of a dozen fields four are needed, and a header that is no valid header must
//! end in 401, not in an error of ours.

use std::{borrow::Cow, fmt};

use farebox_core::{answer::Context, key};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

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
    /// An IAM policy: REST APIs.
    Policy,
    /// An IAM policy of an HTTP API with payload format 1.0, which knows neither a 401 of ours nor keys of usage plans.
    HttpPolicy,
    /// `isAuthorized`: HTTP APIs with payload format 2.0 and simple responses.
    Simple,
}

/// An authorizer event of a REST API (`REQUEST`) or an HTTP API
/// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-input.html>,
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html>).
///
/// It borrows from the text that it was read from.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event<'a> {
    #[serde(borrow)]
    version: Option<Text<'a>>,
    #[serde(rename = "type", borrow)]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    method_arn: Option<Text<'a>>,
    #[serde(borrow)]
    route_arn: Option<Text<'a>>,
    #[serde(borrow)]
    http_method: Option<Text<'a>>,
    #[serde(borrow)]
    path: Option<Text<'a>>,
    #[serde(borrow)]
    raw_path: Option<Text<'a>>,
    #[serde(borrow)]
    headers: Option<Headers<'a>>,
    #[serde(borrow)]
    request_context: RequestContext<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RequestContext<'a> {
    #[serde(borrow)]
    http: Option<Http<'a>>,
    #[serde(borrow)]
    stage: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Http<'a> {
    #[serde(borrow)]
    method: Option<Text<'a>>,
    #[serde(borrow)]
    path: Option<Text<'a>>,
}

/// A text: borrowed, unless it had to be unescaped.
#[derive(Debug, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// The headers that carry a key; all others are passed over.
#[derive(Debug, Default)]
struct Headers<'a> {
    x_api_key: Option<Text<'a>>,
    authorization: Option<Text<'a>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Headers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names<'a>(Headers<'a>);
        impl<'de: 'a, 'a> Visitor<'de> for Names<'a> {
            type Value = Headers<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("headers")
            }

            fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Headers<'a>, A::Error> {
                while let Some(name) = map.next_key::<Text<'de>>()? {
                    if name.eq_ignore_ascii_case("x-api-key") {
                        self.0.x_api_key = map.next_value()?;
                    } else if name.eq_ignore_ascii_case("authorization") {
                        self.0.authorization = map.next_value()?;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(self.0)
            }
        }
        deserializer.deserialize_map(Names(Headers::default()))
    }
}

impl Event<'_> {
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
            // A REST API names no version.
            format: match self.version {
                None => Format::Policy,
                Some(_) => Format::HttpPolicy,
            },
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

    /// What an HTTP API is told of a key that opens nothing. It has no 401 for us: it answers this with 403, and the failure that
    /// makes a REST API answer 401 with 500.
    pub(crate) fn refusal(&self) -> Option<Response> {
        let request = self.request().filter(|request| request.format != Format::Policy)?;
        Some(Response::new(
            &request,
            Effect::Deny,
            "unknown".to_owned(),
            Context::new(),
            None,
        ))
    }

    /// The API key as the caller sent it.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        let headers = self.headers.as_ref()?;
        key::from_headers(headers.x_api_key.as_deref(), headers.authorization.as_deref())
    }
}

/// The answer. Keys that do not apply are absent, never `null`
/// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-output.html>).
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Response {
    /// For [`Format::Policy`] and [`Format::HttpPolicy`].
    #[serde(rename_all = "camelCase")]
    Policy {
        /// Who calls.
        principal_id: String,
        /// What they may do.
        policy_document: PolicyDocument,
        /// For the back end and the gateway's responses.
        #[serde(serialize_with = "as_map")]
        context: Context,
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
        #[serde(serialize_with = "as_map")]
        context: Context,
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

fn as_map<S: Serializer>(context: &Context, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(context.iter().map(|(name, value)| (name, value)))
}

impl Response {
    /// The word for the decision; every context begins with it.
    #[must_use]
    pub fn code(&self) -> &str {
        let (Self::Policy { context, .. } | Self::Simple { context, .. }) = self;
        match context.first() {
            Some(("code", code)) => code,
            _ => "",
        }
    }

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
        match request.format {
            Format::Simple => Response::Simple {
                is_authorized: is_allowed,
                context,
            },
            Format::Policy | Format::HttpPolicy => Response::Policy {
                principal_id: principal,
                policy_document: PolicyDocument {
                    version: "2012-10-17",
                    statement: [Statement {
                        action: "execute-api:Invoke",
                        effect: match effect {
                            Effect::Allow => "Allow",
                            // Without keys of usage plans nothing would stop it behind us.
                            Effect::Forbid if request.format == Format::Policy => "Allow",
                            Effect::Forbid | Effect::Deny => "Deny",
                        },
                        resource: request.resource.to_owned(),
                    }],
                },
                context,
                usage_identifier_key: match effect {
                    _ if request.format == Format::HttpPolicy => None,
                    Effect::Allow => usage_identifier_key.map(str::to_owned),
                    Effect::Forbid => Some("farebox-forbidden".to_owned()),
                    Effect::Deny => None,
                },
            },
        }
    }
}
