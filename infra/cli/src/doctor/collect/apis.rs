//! The APIs that the authorizer is attached to.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Look;
use crate::{
    aws::{Service, encoded},
    doctor::facts::{Authorizer, GatewayResponse, HttpApi, Method, RestApi, Stage},
    stack::Stack,
};

impl Look<'_> {
    pub(super) async fn apis(&mut self, stack: &Stack) {
        let Some(authorizer) = stack.outputs.get("AuthorizerArn") else {
            return;
        };
        let key = stack.outputs.get("GatewayKeyId");
        let rest = self.rest_apis(authorizer, key.map(String::as_str)).await;
        self.facts.rest_apis = self.keep("the REST APIs", "allow apigateway:GET to whoever runs this", rest);
        let http = self.http_apis(authorizer).await;
        self.facts.http_apis = self.keep("the HTTP APIs", "allow apigateway:GET to whoever runs this", http);
    }

    async fn rest_apis(&self, function: &str, key: Option<&str>) -> Result<Vec<RestApi>, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Api {
            id: String,
            name: String,
            api_key_source: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ReadAuthorizer {
            id: String,
            name: String,
            #[serde(rename = "type")]
            kind: String,
            authorizer_uri: Option<String>,
            identity_source: Option<String>,
            authorizer_result_ttl_in_seconds: Option<u64>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ReadResponse {
            response_type: String,
            status_code: Option<String>,
            #[serde(default)]
            response_parameters: BTreeMap<String, String>,
            #[serde(default)]
            response_templates: BTreeMap<String, String>,
            #[serde(default)]
            default_response: bool,
        }
        let mut attached = Vec::new();
        for api in self
            .reader
            .list::<Api>(Service::ApiGateway, "/restapis?limit=500")
            .await?
        {
            let path = |rest: &str| format!("/restapis/{}/{rest}", api.id);
            let authorizers: Vec<ReadAuthorizer> = self
                .reader
                .list(Service::ApiGateway, &path("authorizers?limit=500"))
                .await?;
            let authorizers: Vec<Authorizer> = authorizers
                .into_iter()
                .filter(|one| one.authorizer_uri.as_deref().is_some_and(|uri| calls(uri, function)))
                .map(|one| Authorizer {
                    id: one.id,
                    name: one.name,
                    kind: one.kind,
                    ttl_s: one.authorizer_result_ttl_in_seconds,
                    identity_sources: sources(one.identity_source.as_deref().unwrap_or_default()),
                })
                .collect();
            if authorizers.is_empty() {
                continue;
            }
            let responses: Vec<ReadResponse> = self
                .reader
                .list(Service::ApiGateway, &path("gatewayresponses?limit=500"))
                .await?;
            let own = responses.into_iter().filter(|response| !response.default_response);
            let stages = self.stages(&api.id).await?;
            attached.push(RestApi {
                takes_key_from_authorizer: api.api_key_source.as_deref() == Some("AUTHORIZER"),
                authorizers,
                methods: self.methods(&api.id).await?,
                gateway_responses: own
                    .map(|response| {
                        let headers = response.response_parameters.into_iter();
                        let read = GatewayResponse {
                            status: response.status_code,
                            headers: headers
                                .filter_map(|(name, from)| {
                                    Some((name.strip_prefix("gatewayresponse.header.")?.to_owned(), from))
                                })
                                .collect(),
                            has_json_body: response.response_templates.contains_key("application/json"),
                        };
                        (response.response_type, read)
                    })
                    .collect(),
                stages_with_key: match key {
                    Some(key) => Some(self.stages_with_key(&api.id, key).await?),
                    None => None,
                },
                stages,
                name: api.name,
                id: api.id,
            });
        }
        Ok(attached)
    }

    async fn methods(&self, api: &str) -> Result<Vec<Method>, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Resource {
            path: String,
            #[serde(default)]
            resource_methods: BTreeMap<String, ReadMethod>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ReadMethod {
            authorizer_id: Option<String>,
            #[serde(default)]
            api_key_required: bool,
        }
        let path = format!("/restapis/{api}/resources?embed=methods&limit=500");
        let resources: Vec<Resource> = self.reader.list(Service::ApiGateway, &path).await?;
        let methods = resources.into_iter().flat_map(|resource| {
            let path = resource.path;
            resource.resource_methods.into_iter().map(move |(verb, method)| Method {
                route: format!("{verb} {path}"),
                authorizer: method.authorizer_id,
                needs_key: method.api_key_required,
            })
        });
        Ok(methods.collect())
    }

    async fn stages(&self, api: &str) -> Result<Vec<Stage>, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ReadStage {
            stage_name: String,
            deployment_id: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Deployment {
            #[serde(default)]
            api_summary: BTreeMap<String, BTreeMap<String, Summary>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Summary {
            authorization_type: Option<String>,
        }
        let mut stages = Vec::new();
        let read: Vec<ReadStage> = self
            .reader
            .list(Service::ApiGateway, &format!("/restapis/{api}/stages"))
            .await?;
        for stage in read {
            let mut open_routes = None;
            if let Some(id) = stage.deployment_id {
                let path = format!("/restapis/{api}/deployments/{id}?embed=apisummary");
                let deployment: Option<Deployment> = self.reader.read(Service::ApiGateway, &path).await?;
                // A summary that names no kind of authorization says nothing about it.
                open_routes = deployment.map(|deployment| {
                    let methods = deployment.api_summary.into_iter().flat_map(|(path, methods)| {
                        methods
                            .into_iter()
                            .map(move |(verb, summary)| (format!("{verb} {path}"), summary))
                    });
                    methods
                        .filter(|(_, summary)| summary.authorization_type.as_deref() == Some("NONE"))
                        .map(|(route, _)| route)
                        .collect()
                });
            }
            stages.push(Stage {
                name: stage.stage_name,
                open_routes,
            });
        }
        Ok(stages)
    }

    async fn stages_with_key(&self, api: &str, key: &str) -> Result<Vec<String>, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Plan {
            #[serde(default)]
            api_stages: Vec<ApiStage>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ApiStage {
            api_id: String,
            stage: String,
        }
        let path = format!("/usageplans?keyId={}&limit=500", encoded(key));
        let plans: Vec<Plan> = self.reader.list(Service::ApiGateway, &path).await?;
        let stages = plans.into_iter().flat_map(|plan| plan.api_stages);
        Ok(stages.filter(|one| one.api_id == api).map(|one| one.stage).collect())
    }

    async fn http_apis(&self, function: &str) -> Result<Vec<HttpApi>, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Api {
            api_id: String,
            name: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ReadAuthorizer {
            authorizer_id: String,
            name: String,
            authorizer_type: String,
            authorizer_uri: Option<String>,
            #[serde(default)]
            identity_source: Vec<String>,
            authorizer_result_ttl_in_seconds: Option<u64>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Route {
            route_key: String,
            authorizer_id: Option<String>,
        }
        let mut attached = Vec::new();
        for api in self.reader.list::<Api>(Service::ApiGateway, "/v2/apis").await? {
            let path = format!("/v2/apis/{}/authorizers", api.api_id);
            let authorizers: Vec<ReadAuthorizer> = self.reader.list(Service::ApiGateway, &path).await?;
            let authorizers: Vec<Authorizer> = authorizers
                .into_iter()
                .filter(|one| one.authorizer_uri.as_deref().is_some_and(|uri| calls(uri, function)))
                .map(|one| Authorizer {
                    id: one.authorizer_id,
                    name: one.name,
                    kind: one.authorizer_type,
                    // An HTTP API keeps nothing unless it is told to:
                    // https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html
                    ttl_s: Some(one.authorizer_result_ttl_in_seconds.unwrap_or(0)),
                    identity_sources: one.identity_source,
                })
                .collect();
            if authorizers.is_empty() {
                continue;
            }
            let path = format!("/v2/apis/{}/routes", api.api_id);
            let routes: Vec<Route> = self.reader.list(Service::ApiGateway, &path).await?;
            attached.push(HttpApi {
                authorizers,
                methods: routes
                    .into_iter()
                    .map(|route| Method {
                        route: route.route_key,
                        authorizer: route.authorizer_id,
                        needs_key: false,
                    })
                    .collect(),
                name: api.name,
                id: api.api_id,
            });
        }
        Ok(attached)
    }
}

/// Whether an authorizer's URI calls a function, or an alias or version of it.
fn calls(uri: &str, function: &str) -> bool {
    let after = uri.split_once(function).map(|(_, after)| after);
    after.is_some_and(|after| after.starts_with('/') || after.starts_with(':'))
}

fn sources(text: &str) -> Vec<String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authorizer_is_ours_also_by_an_alias() {
        let function = "arn:aws:lambda:us-east-1:1:function:farebox-authorizer";
        let uri = |end: &str| format!("arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{function}{end}");
        assert!(calls(&uri("/invocations"), function));
        assert!(calls(&uri(":live/invocations"), function));
        assert!(!calls(&uri("-2/invocations"), function));
        assert!(!calls("arn:aws:lambda:other", function));
    }

    #[test]
    fn identity_sources_are_a_list_with_commas() {
        assert_eq!(
            sources("method.request.header.A, context.x"),
            ["method.request.header.A", "context.x"]
        );
        assert!(sources("").is_empty());
    }
}
