//! A deployed stack, as CloudFormation knows it.

use std::collections::BTreeMap;

use aws_sdk_cloudformation::config::{BehaviorVersion, Region};
use farebox_aws::connect::http_client;
use serde::Serialize;

use crate::{
    failure::Failure,
    reach::{Reach, cause},
};

/// What the stack is made of.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Stack {
    pub(crate) name: String,
    pub(crate) region: String,
    /// `CREATE_COMPLETE`, …
    pub(crate) status: String,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) outputs: BTreeMap<String, String>,
    /// Physical names by type.
    pub(crate) resources: BTreeMap<String, Vec<String>>,
}

/// The stack within reach.
///
/// # Errors
/// [`Failure::NotFound`] if there is none of this name.
pub(crate) async fn describe(reach: &Reach) -> Result<Stack, Failure> {
    let (name, region) = (&reach.stack, &reach.settings.region);
    let mut config = aws_sdk_cloudformation::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.clone()))
        .credentials_provider(reach.settings.credentials.clone())
        .http_client(http_client([&reach.endpoint]));
    config.set_endpoint_url(reach.endpoint.clone());
    let client = aws_sdk_cloudformation::Client::from_conf(config.build());
    let none = || {
        Failure::NotFound(format!(
            "there is no stack {name} in {region}: name it with --stack, its region with --region; --local means `farebox dev` \
             on this machine"
        ))
    };
    let answer = client.describe_stacks().stack_name(name).send().await;
    let answer = answer.map_err(|error| match cause(&error) {
        cause if cause.contains("does not exist") => none(),
        cause => Failure::Failed(format!("describe stack {name}: {cause}")),
    })?;
    let stack = answer.stacks.unwrap_or_default().into_iter().next().ok_or_else(none)?;
    let mut resources: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut pages = client
        .list_stack_resources()
        .stack_name(name)
        .into_paginator()
        .items()
        .send();
    while let Some(resource) = pages.next().await {
        let resource = resource.map_err(|e| Failure::Failed(format!("list the resources of {name}: {}", cause(&e))))?;
        if let (Some(kind), Some(id)) = (resource.resource_type, resource.physical_resource_id) {
            resources.entry(kind).or_default().push(id);
        }
    }
    let parameters = stack.parameters.unwrap_or_default().into_iter();
    let outputs = stack.outputs.unwrap_or_default().into_iter();
    Ok(Stack {
        name: name.clone(),
        region: region.clone(),
        status: stack
            .stack_status
            .map_or_else(String::new, |status| status.as_str().to_owned()),
        parameters: parameters
            .filter_map(|one| Some((one.parameter_key?, one.parameter_value?)))
            .collect(),
        outputs: outputs
            .filter_map(|one| Some((one.output_key?, one.output_value?)))
            .collect(),
        resources,
    })
}
