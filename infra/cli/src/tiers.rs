//! `farebox tiers`: the file is checked, compared with what is sold, and sold.

use std::{
    io::{IsTerminal, Write},
    path::Path,
};

use farebox_billing::{CataloguePlan, Making, Staying};
use farebox_core::{id::CustomerId, tiers::Catalog};
use serde_json::{Value, json};

use crate::{
    arguments::Tiers,
    failure::{Done, Failure},
    reach::Reach,
    show::{Out, count},
};

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Customers named in a sentence; the rest are counted.
const NAMED_MAX: usize = 5;

pub(crate) fn check(file: &Path, out: Out) -> Result<Done, Failure> {
    let text = read(file)?;
    match Catalog::from_yaml(&text, &file.display().to_string()) {
        Ok(catalog) => {
            let tiers: Vec<&str> = catalog.tiers.iter().map(|tier| tier.name.as_str()).collect();
            out.show(&json!({ "tiers": tiers, "errors": [] }), || {
                format!(
                    "{}: {}: {}",
                    file.display(),
                    count(tiers.len(), "tier"),
                    tiers.join(", ")
                )
            })?;
            Ok(Done::Well)
        }
        Err(errors) => {
            let list: Vec<Value> = errors
                .iter()
                .map(|error| {
                    json!({ "line": error.line, "column": error.column, "field": error.field, "value": error.value,
                            "problem": error.problem })
                })
                .collect();
            out.show(&json!({ "tiers": [], "errors": list }), || {
                format!("{errors}\n{}", out.bad(&count(list.len(), "mistake")))
            })?;
            Ok(Done::Differs)
        }
    }
}

pub(crate) async fn run(command: Tiers, reach: &Reach, out: Out) -> Result<Done, Failure> {
    match command {
        Tiers::Check(file) => check(&file.file, out),
        Tiers::Diff(file) => {
            let plan = plan(&file.file, reach).await?;
            out.show(&as_json(&plan), || as_text(&plan, out))?;
            pending(&plan)
        }
        Tiers::Apply { file, yes, trial } => {
            let plan = plan(&file.file, reach).await?;
            if trial.dry_run {
                out.show(&as_json(&plan), || as_text(&plan, out))?;
                return pending(&plan);
            }
            apply(&plan, yes, reach, out).await
        }
    }
}

async fn plan(file: &Path, reach: &Reach) -> Result<CataloguePlan, Failure> {
    let catalog = catalog(file)?;
    Ok(reach.books().await?.catalogue_plan(&catalog).await?)
}

/// What a file sells.
pub(crate) fn catalog(file: &Path) -> Result<Catalog, Failure> {
    Catalog::from_yaml(&read(file)?, &file.display().to_string()).map_err(Failure::failed)
}

fn pending(plan: &CataloguePlan) -> Result<Done, Failure> {
    if !plan.mismatches.is_empty() {
        return Ok(Done::Differs);
    }
    Ok(if plan.steps().is_empty() {
        Done::Well
    } else {
        Done::Pending
    })
}

async fn apply(plan: &CataloguePlan, yes: bool, reach: &Reach, out: Out) -> Result<Done, Failure> {
    out.say(as_text(plan, out).trim_end())?;
    let steps = plan.steps();
    if plan.mismatches.is_empty() && !steps.is_empty() && !yes {
        ask(&format!("Make {}?", count(steps.len(), "change")))?;
    }
    let mut done: Vec<String> = Vec::new();
    let version = reach
        .books()
        .await?
        .apply(plan, |step| {
            let _ = out.say(&format!("made {step}"));
            done.push(step.to_string());
        })
        .await
        .map_err(|error| {
            let made = match done.len() {
                0 => "nothing was made".to_owned(),
                n => format!("{n} of {} were made", count(steps.len(), "change")),
            };
            Failure::Failed(format!(
                "{}; {made}. Apply again to go on from there",
                Failure::from(error)
            ))
        })?;
    let mut answer = as_json(plan);
    answer["made"] = json!(done);
    answer["version"] = json!(version);
    if out.is_json {
        out.show(&answer, String::new)?;
    } else if !steps.is_empty() {
        out.say(&format!("Catalog {version} holds for whoever is sold to from now on."))?;
    }
    Ok(Done::Well)
}

/// Asks on a terminal; elsewhere nobody could answer.
pub(crate) fn ask(question: &str) -> Result<(), Failure> {
    if !can_ask() {
        return Err(Failure::usage(
            "nobody can be asked here: give --yes, or --dry-run to see what would be done",
        ));
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush().map_err(Failure::failed)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(Failure::failed)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::failed("nothing was done")),
    }
}

/// Whether somebody sits at a terminal.
pub(crate) fn can_ask() -> bool {
    std::io::stdin().is_terminal()
}

pub(crate) fn read(file: &Path) -> Result<String, Failure> {
    let problem = |cause: std::io::Error| Failure::Failed(format!("read {}: {cause}", file.display()));
    if std::fs::metadata(file).map_err(problem)?.len() > FILE_BYTES_MAX {
        return Err(Failure::Failed(format!(
            "read {}: it is larger than 4 MiB",
            file.display()
        )));
    }
    std::fs::read_to_string(file).map_err(problem)
}

fn as_text(plan: &CataloguePlan, out: Out) -> String {
    let mut text = String::new();
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text.push_str(&format!("{title}\n  {}\n", lines.join("\n  ")));
        }
    };
    let changes = plan.changes.iter().flat_map(|change| change.sentences.clone());
    section("In the catalog:", changes.collect());
    let wrong: Vec<String> = plan
        .mismatches
        .iter()
        .map(|mismatch| out.bad(&mismatch.to_string()))
        .collect();
    section("Prices in Stripe that are not what they are called:", wrong);
    section("To be made:", plan.steps().iter().map(Making::to_string).collect());
    let open = plan.tiers.iter().filter(|tier| tier.plan.is_none()).map(|tier| {
        format!(
            "{}: {} agreed with each customer; its prices are made when it is sold",
            tier.tier,
            tier.open.join(", ")
        )
    });
    section("Without prices of their own:", open.collect());
    section(
        "Stay on what they were sold:",
        plan.staying.iter().map(staying).collect(),
    );
    if plan.steps().is_empty() && plan.mismatches.is_empty() {
        text.push_str(&format!(
            "Nothing is pending: catalog {} is sold as it is.\n",
            plan.version
        ));
    }
    text
}

fn named(customers: &[CustomerId]) -> String {
    let named = customers.iter().take(NAMED_MAX).map(|id| id.to_string());
    let mut names: Vec<String> = named.collect();
    if customers.len() > NAMED_MAX {
        names.push(format!("{} more", customers.len() - NAMED_MAX));
    }
    names.join(", ")
}

fn staying(group: &Staying) -> String {
    let (who, tier) = (named(&group.customers), &group.tier);
    let fate = match &group.becomes {
        Some(plan) if *plan == group.plan => format!("the price stays; move: farebox customers set-tier ID {tier}"),
        Some(plan) => format!("would pay {plan}; move: farebox customers set-tier ID {tier}"),
        None => "the new catalog needs another tier or agreement; move: farebox customers set-tier ID TIER".to_owned(),
    };
    let leaving = match group.leaving.as_slice() {
        [] => String::new(),
        leaving => format!("; to leave, which moving takes back: {}", named(leaving)),
    };
    format!(
        "{} on {} (catalog {}): {who}; {fate}{leaving}",
        count(group.customers.len(), "customer"),
        group.plan,
        group.catalog
    )
}

fn as_json(plan: &CataloguePlan) -> Value {
    let tiers: Vec<Value> = plan
        .tiers
        .iter()
        .map(|tier| {
            json!({ "tier": tier.tier, "plan": tier.plan, "agreed_with_each_customer": tier.open,
                    "to_make": tier.steps.iter().map(Making::to_string).collect::<Vec<_>>() })
        })
        .collect();
    let staying: Vec<Value> = plan
        .staying
        .iter()
        .map(|group| {
            json!({ "tier": group.tier, "catalog": group.catalog, "plan": group.plan, "becomes": group.becomes,
                    "customers": group.customers, "leaving": group.leaving, "changes": group.changes })
        })
        .collect();
    json!({
        "version": plan.version,
        "is_stored": plan.is_stored,
        "changes": plan.changes.iter().flat_map(|change| change.sentences.clone()).collect::<Vec<_>>(),
        "tiers": tiers,
        "mismatches": plan.mismatches.iter().map(|m| json!({
            "price": m.price, "lookup_key": m.lookup_key, "problems": m.problems })).collect::<Vec<_>>(),
        "to_make": plan.steps().iter().map(Making::to_string).collect::<Vec<_>>(),
        "staying": staying,
    })
}
