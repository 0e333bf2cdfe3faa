//! `farebox deploy`: SAM with the right flags, after a look at what it needs, and then what is left to do.

use std::path::{Path, PathBuf};

use farebox_core::tiers::Catalog;
use serde_json::json;

use crate::{
    arguments::{Deploy, SECRET_FOUND, Where},
    failure::{Done, Failure},
    reach::Reach,
    sam::{self, How, Sam, Target},
    secrecy::is_secret,
    show::Out,
    stack::{self, Stack},
    tiers::{can_ask, read},
};

const TEMPLATE: &str = "template.yaml";
/// What tells Farebox's template from others of that name.
const MARK: &str = "farebox-authorizer";

/// The longest name of a stack: a function's name has at most 64 characters
/// (<https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html>), and the longest ends in `-authorizer`.
const STACK_NAME_MAX: usize = 64 - "-authorizer".len();

pub(crate) async fn run(options: Deploy, place: &Where, out: Out) -> Result<Done, Failure> {
    let target = target(place)?;
    if target.stack.len() > STACK_NAME_MAX {
        return Err(Failure::usage(format!(
            "{} is too long a name: at most {STACK_NAME_MAX} characters, as functions are called after the stack",
            target.stack
        )));
    }
    let template = match &options.template {
        Some(file) => file.clone(),
        None => find(&std::env::current_dir().map_err(Failure::failed)?)?,
    };
    let text = read(&template)?;
    let parameters = options.parameter.iter().map(|pair| parameter(pair, &text));
    let parameters: Vec<(String, String)> = parameters.collect::<Result<_, _>>()?;
    if let Some(file) = &options.tiers {
        Catalog::from_yaml(&read(file)?, &file.display().to_string()).map_err(Failure::failed)?;
    }
    let how = match (options.guided, options.yes) {
        (true, _) => How::Guided,
        (false, true) => How::Unasked,
        (false, false) => How::Asking,
    };
    let directory = directory(&template);
    let name = template
        .file_name()
        .map_or(TEMPLATE.into(), |name| name.to_string_lossy());
    let calls = [
        Sam::build(&directory, &name),
        Sam::deploy(&directory, &target, &parameters, how),
    ];
    if options.dry_run {
        let lines: Vec<String> = calls.iter().map(ToString::to_string).collect();
        out.show(&json!({ "directory": directory, "commands": lines }), || {
            format!("In {}:\n{}", directory.display(), lines.join("\n"))
        })?;
        return Ok(Done::Pending);
    }
    if how != How::Unasked && !can_ask() {
        return Err(Failure::usage(
            "nobody can be asked here: give --yes, or --dry-run to see what would be run",
        ));
    }
    sam::check()?;
    sam::check_cargo_lambda(&std::env::var_os("PATH").unwrap_or_default())?;
    for call in &calls {
        out.say(&format!("$ {call}"))?;
        if let Err(failure) = call.run(out) {
            return Err(after(failure, place).await);
        }
    }
    // It is deployed, whether its outputs can be read or not.
    let described = match Reach::of(place).await {
        Ok(reach) => stack::describe(&reach).await,
        Err(failure) => Err(failure),
    };
    let (stack, unread) = match described {
        Ok(stack) => (stack, None),
        Err(failure) => {
            let stack = Stack {
                name: target.stack,
                ..Stack::default()
            };
            (stack, Some(failure.to_string()))
        }
    };
    let steps = next_steps(&stack, options.tiers.as_deref());
    out.show(
        &json!({ "outputs": stack.outputs, "unread": unread, "next": steps }),
        || {
            let outputs = stack
                .outputs
                .iter()
                .map(|(name, value)| vec![name.clone(), value.clone()]);
            let outputs = match unread {
                None => out.table(&["output", "value"], 2, outputs.collect()),
                Some(cause) => format!("It is deployed, but its outputs could not be read: {cause}"),
            };
            let numbered = steps.iter().enumerate().map(|(i, step)| format!("{}. {step}", i + 1));
            let numbered: Vec<String> = numbered.collect();
            format!("{outputs}\n\nWhat is left to do, once:\n{}", numbered.join("\n"))
        },
    )?;
    Ok(Done::Well)
}

/// The stack that the options name; `farebox dev` is none.
/// A failure, with the way out of what it may have left: a creation that was rolled back leaves the tables, and a stack that can
/// neither be updated nor created again.
async fn after(failure: Failure, place: &Where) -> Failure {
    let described = match Reach::of(place).await {
        Ok(reach) => stack::describe(&reach).await,
        Err(failure) => Err(failure),
    };
    match (failure, described) {
        (Failure::Failed(text), Ok(stack)) if stack.status.starts_with("ROLLBACK_") => Failure::Failed(format!(
            "{text}. The stack {name} could not be created ({}): farebox destroy --stack {name} --delete-tables clears what is left, \
             then mend the cause and deploy again",
            stack.status,
            name = stack.name
        )),
        (failure, _) => failure,
    }
}

pub(crate) fn target(place: &Where) -> Result<Target, Failure> {
    if place.local.is_some() {
        return Err(Failure::usage(
            "the local system is not deployed; leave --local and FAREBOX_LOCAL away to mean a stack in AWS",
        ));
    }
    let given = [Some(&place.stack), place.region.as_ref(), place.profile.as_ref()];
    if given.into_iter().flatten().any(|name| is_secret(name)) {
        return Err(Failure::usage(SECRET_FOUND));
    }
    Ok(Target {
        stack: place.stack.clone(),
        region: place.region.clone(),
        profile: place.profile.clone(),
    })
}

/// Farebox's template, here or above.
fn find(from: &Path) -> Result<PathBuf, Failure> {
    let is_ours = |file: &PathBuf| std::fs::read_to_string(file).is_ok_and(|text| text.contains(MARK));
    let mut files = from.ancestors().map(|directory| directory.join(TEMPLATE));
    files.find(is_ours).ok_or_else(|| {
        Failure::usage(format!(
            "no {TEMPLATE} of Farebox's in {} or above it: go to its directory, or name it with --template",
            from.display()
        ))
    })
}

fn directory(template: &Path) -> PathBuf {
    match template.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// `Name=value`, of a parameter that the template has.
fn parameter(pair: &str, template: &str) -> Result<(String, String), Failure> {
    let known = parameters(template);
    let (name, value) = pair
        .split_once('=')
        .ok_or_else(|| Failure::usage(format!("{pair:?} is no parameter: write Name=value")))?;
    if is_secret(value) {
        return Err(Failure::usage(format!(
            "the value of {name} is a key or a secret, and a stack's parameters are seen by others: put it into AWS Secrets Manager and \
             give the ARN that it gets"
        )));
    }
    match known.contains(&name) {
        true => Ok((name.to_owned(), value.to_owned())),
        false => Err(Failure::usage(format!(
            "the template has no parameter {name:?}: there are {}",
            known.join(", ")
        ))),
    }
}

/// The names below `Parameters:`, which stand two spaces in.
fn parameters(template: &str) -> Vec<&str> {
    let section = template
        .lines()
        .skip_while(|line| line.trim_end() != "Parameters:")
        .skip(1);
    section
        .take_while(|line| line.is_empty() || line.starts_with([' ', '#']))
        .filter_map(|line| line.strip_prefix("  ")?.trim_end().strip_suffix(':'))
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric()))
        .collect()
}

/// What no template can do.
fn next_steps(stack: &Stack, tiers: Option<&Path>) -> Vec<String> {
    let output = |name: &str| {
        stack
            .outputs
            .get(name)
            .cloned()
            .unwrap_or_else(|| format!("the output {name}"))
    };
    let tiers = tiers.map_or("tiers.yaml".into(), |file| file.display().to_string());
    let (url, secret) = (output("WebhookUrl"), output("WebhookSecretArn"));
    let mut steps = vec![
        format!(
            "At https://dashboard.stripe.com/workbench/webhooks make two endpoints at {url}: one for snapshot events, API version \
             {}: {}; and one for thin events: {}.",
            farebox_stripe::API_VERSION,
            farebox_webhook::snapshot_events().join(", "),
            farebox_webhook::thin_events().join(", ")
        ),
        format!(
            "Put their signing secrets there, with a comma between them and no line break: aws secretsmanager put-secret-value \
             --secret-id {secret} --secret-string file:///dev/stdin"
        ),
        format!("farebox tiers apply {tiers} --stack {}", stack.name),
        format!("farebox doctor --stack {}", stack.name),
    ];
    if stack
        .parameters
        .get("OperatorEmail")
        .is_some_and(|mail| !mail.is_empty())
    {
        steps.insert(
            2,
            "Confirm the mail of AWS Notifications, so that alarms reach you.".to_owned(),
        );
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = include_str!("../../../template.yaml");

    #[test]
    fn parameters_are_those_of_the_template() {
        let known = parameters(OURS);
        for name in ["Architecture", "StripeKeySecretArn", "UnreportedAgeHours"] {
            assert!(known.contains(&name), "{known:?}");
        }
        assert!(
            !known.contains(&"Type") && !known.contains(&"AccountsTable"),
            "{known:?}"
        );
        let pair = parameter("DocsUrl=https://a.example/?b=c", OURS).unwrap();
        assert_eq!(pair, ("DocsUrl".to_owned(), "https://a.example/?b=c".to_owned()));
        assert!(
            parameter("DocsURL=x", OURS)
                .unwrap_err()
                .to_string()
                .contains("DocsUrl")
        );
        assert!(parameter("DocsUrl", OURS).is_err());
    }

    #[test]
    fn the_template_is_found_upward_and_only_ours() {
        let root = std::env::temp_dir().join(format!("farebox-find-{}", std::process::id()));
        let below = root.join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        std::fs::write(root.join("a").join(TEMPLATE), "Resources: {}").unwrap();
        assert!(matches!(find(&below), Err(Failure::Usage(_))));
        std::fs::write(root.join(TEMPLATE), OURS).unwrap();
        assert_eq!(find(&below).unwrap(), root.join(TEMPLATE));
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_is_left_names_the_stacks_own_addresses() {
        let mut stack = Stack {
            name: "paid".to_owned(),
            ..Stack::default()
        };
        stack
            .outputs
            .insert("WebhookUrl".to_owned(), "https://w.example/stripe/webhook".to_owned());
        let steps = next_steps(&stack, None);
        assert_eq!(steps.len(), 4);
        assert!(steps[0].contains("https://w.example/stripe/webhook") && steps[0].contains("invoice.created"));
        assert!(steps[3].ends_with("doctor --stack paid"));
        stack
            .parameters
            .insert("OperatorEmail".to_owned(), "a@b.example".to_owned());
        assert!(next_steps(&stack, None)[2].contains("Confirm"));
    }
}
