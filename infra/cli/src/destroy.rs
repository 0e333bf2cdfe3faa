//! `farebox destroy`: takes a stack down. It says first what would be lost, refuses while something counted is not in Stripe, and
//! leaves the tables unless it is told twice.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    time::Duration,
};

use aws_sdk_dynamodb::types::BackupStatus;
use aws_sdk_sqs::types::QueueAttributeName;
use farebox_core::{
    account::Customer,
    admission::{Counters, parse_bucket_attribute},
    id::CustomerId,
    ledger::{Row, RowState},
};
use serde::Serialize;
use serde_json::json;

use crate::{
    arguments::{Destroy, Where},
    deploy::target,
    failure::{Done, Failure},
    reach::{Reach, cause},
    sam::{self, Sam, Target},
    show::{Out, count, plain},
    stack::{self, Stack},
    tiers::can_ask,
};

/// How often a backup, and a table's change, is looked after, and how long apart.
const BACKUP_LOOKS: u32 = 150;
const CHANGE_LOOKS: u32 = 30;
const PAUSE: Duration = Duration::from_secs(2);

/// What a stack holds.
#[derive(Clone, Debug, Default, Serialize)]
struct Holdings {
    stack: String,
    /// Whether there is a stack, and not only what an earlier one left.
    is_deployed: bool,
    /// Of the tables, those that exist, with their items as of some hours ago.
    tables: BTreeMap<String, i64>,
    /// Messages in each queue.
    messages: BTreeMap<String, u64>,
    unreported: Unreported,
    customers: usize,
    /// Customers with a subscription that Stripe goes on to bill.
    subscriptions: usize,
    secrets: Vec<String>,
}

/// Usage that Stripe has not been told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Unreported {
    units: u64,
    /// Rows, and buckets without one yet.
    rows: usize,
}

pub(crate) async fn run(options: Destroy, place: &Where, out: Out) -> Result<Done, Failure> {
    let target = target(place)?;
    // Where nobody can be asked, that is said before anything else.
    let questions = match options.trial.dry_run {
        true => Vec::new(),
        false => open_questions(&options, &target.stack, can_ask())?,
    };
    let reach = Reach::of(place).await?;
    let holdings = holdings(&reach, &options).await?;
    let refusals = refusals(&holdings, options.force);
    if options.trial.dry_run {
        let steps = plan(&holdings, &target, options.delete_tables);
        let value = json!({ "holds": holdings, "refused": refusals, "would": steps });
        out.show(&value, || {
            let list = |title: &str, lines: &[String]| match lines.is_empty() {
                true => String::new(),
                false => format!("\n{title}\n  {}", lines.join("\n  ")),
            };
            let would = list("Would be done:", &steps);
            format!("{}{would}{}", spoken(&holdings), list("But refused, since:", &refusals))
        })?;
        return Ok(if refusals.is_empty() {
            Done::Pending
        } else {
            Done::Differs
        });
    }
    out.say(&spoken(&holdings))?;
    if !refusals.is_empty() {
        return Err(Failure::Failed(refusals.join("; ")));
    }
    for question in &questions {
        question.ask()?;
    }
    let backups = take_down(&holdings, &target, &options, &reach, out).await?;
    let left: Vec<&str> = match options.delete_tables {
        true => Vec::new(),
        false => holdings.tables.keys().map(String::as_str).collect(),
    };
    out.show(&json!({ "holds": holdings, "backups": backups, "left": left }), || {
        if options.delete_tables {
            return "Taken down. The backups stay until you delete them.".to_owned();
        }
        format!(
            "Taken down. The tables stay, protected: {}. To bring the stack back under its name, import them; to be rid of them: \
             farebox destroy --stack {} --delete-tables",
            left.join(", "),
            target.stack
        )
    })?;
    Ok(Done::Well)
}

/// Takes the stack down; then, with nobody left who writes to them, backs the tables up and deletes them if that is wanted.
async fn take_down(
    holdings: &Holdings,
    target: &Target,
    options: &Destroy,
    reach: &Reach,
    out: Out,
) -> Result<Vec<String>, Failure> {
    if holdings.is_deployed {
        sam::check()?;
        let call = Sam::delete(target);
        out.say(&format!("$ {call}"))?;
        call.run(out)?;
    }
    if !options.delete_tables {
        return Ok(Vec::new());
    }
    // Calls were counted until just now.
    let Unreported { units, .. } = books(reach, &holdings.tables).await?.0;
    if units > 0 && !options.force {
        return Err(Failure::Failed(format!(
            "{units} units that Stripe has not been told of came in meanwhile: the stack is down, its tables stay; deploy it again \
             to report them, or give them up with --force"
        )));
    }
    let mut backups = Vec::new();
    for table in holdings.tables.keys() {
        let backup = back_up(table, reach).await?;
        out.say(&format!("Backed up {table}: {backup}"))?;
        backups.push(backup);
    }
    for table in holdings.tables.keys() {
        delete(table, reach).await?;
        out.say(&format!("Deleted {table}"))?;
    }
    Ok(backups)
}

async fn holdings(reach: &Reach, options: &Destroy) -> Result<Holdings, Failure> {
    let stack = match stack::describe(reach).await {
        Ok(stack) => Some(stack),
        // What an earlier stack left can be deleted without one.
        Err(Failure::NotFound(_)) if options.delete_tables => None,
        Err(failure) => return Err(failure),
    };
    let mut holdings = Holdings {
        stack: reach.stack.clone(),
        is_deployed: stack.is_some(),
        secrets: secrets(stack.as_ref()),
        ..Holdings::default()
    };
    let names = &reach.tables;
    for name in [&names.accounts, &names.counters, &names.ledger] {
        match reach.clients.dynamodb.describe_table().table_name(name).send().await {
            Ok(answer) => {
                let items = answer.table.and_then(|table| table.item_count).unwrap_or(0);
                holdings.tables.insert(name.clone(), items);
            }
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_resource_not_found_exception()) => {}
            Err(error) => return Err(Failure::Failed(format!("describe table {name}: {}", cause(&error)))),
        }
    }
    for part in ["usage", "usage-dead", "alerts", "alerts-dead"] {
        let Some(url) = reach.find_queue(part).await? else {
            continue;
        };
        let request = reach.clients.sqs.get_queue_attributes().queue_url(url);
        let answer = request.attribute_names(QueueAttributeName::All).send().await;
        let answer = answer.map_err(|e| Failure::Failed(format!("read queue {part}: {}", cause(&e))))?;
        let depth = crate::doctor::depth(&answer.attributes.unwrap_or_default())
            .map_err(|e| Failure::Failed(format!("read queue {part}: {e}")))?;
        holdings.messages.insert(format!("{}-{part}", reach.stack), depth);
    }
    let customers;
    (holdings.unreported, customers) = books(reach, &holdings.tables).await?;
    let now = reach.now().s();
    holdings.subscriptions = customers
        .iter()
        .filter(|customer| customer.stripe_subscription.is_some() && crate::ended_in(customer, now).is_none())
        .count();
    holdings.customers = customers.len();
    Ok(holdings)
}

/// What the tables that exist say of usage and customers.
async fn books(reach: &Reach, tables: &BTreeMap<String, i64>) -> Result<(Unreported, Vec<Customer>), Failure> {
    let (control, names) = (&reach.control, &reach.tables);
    let has = |name: &String| tables.contains_key(name);
    let rows = match has(&names.ledger) {
        true => control.ledger.scan().await?.0,
        false => Vec::new(),
    };
    let items = match has(&names.counters) {
        true => control.counters.scan().await?.items,
        false => Vec::new(),
    };
    let customers = match has(&names.accounts) {
        true => control.accounts.customers().await?,
        false => Vec::new(),
    };
    Ok((unreported(&items, &rows), customers))
}

/// The stack's own secrets: that of Stripe's key is yours, and stays.
fn secrets(stack: Option<&Stack>) -> Vec<String> {
    let all = stack.and_then(|stack| stack.resources.get("AWS::SecretsManager::Secret"));
    all.cloned().unwrap_or_default()
}

/// What counters and rows hold that is not reported. A bucket stands in its counter until its row is done; what a counter no
/// longer holds is in its row alone.
fn unreported(items: &[(CustomerId, u32, Counters)], rows: &[Row]) -> Unreported {
    let mut open: HashMap<(&str, u32, &str, &str, u64), u64> = HashMap::new();
    for (customer, shard, item) in items {
        for (name, units) in &item.units {
            if let Some((bucket, meter)) = parse_bucket_attribute(name) {
                open.insert((customer.as_str(), *shard, &item.generation, meter, bucket), *units);
            }
        }
    }
    for row in rows {
        let key = &row.key;
        let place = (
            key.customer.as_str(),
            key.shard,
            key.generation.as_str(),
            key.meter.as_str(),
            key.bucket,
        );
        match row.state {
            RowState::Reported => {
                open.remove(&place);
            }
            // Once sealed the row knows best, and before the counter does.
            RowState::Open => {
                open.entry(place).or_insert(row.units);
            }
            RowState::Sealed | RowState::Sending | RowState::Parked => {
                open.insert(place, row.units);
            }
        }
    }
    open.retain(|_, units| *units > 0);
    Unreported {
        rows: open.len(),
        units: open.values().fold(0, |sum: u64, units| sum.saturating_add(*units)),
    }
}

/// Why the stack is not taken down.
fn refusals(holdings: &Holdings, is_forced: bool) -> Vec<String> {
    let mut refusals = Vec::new();
    if is_forced {
        return refusals;
    }
    let Unreported { units, rows } = holdings.unreported;
    if rows > 0 {
        refusals.push(format!(
            "{} in {} not in Stripe yet would never be billed: farebox period close CUSTOMER --now reports them, farebox \
             reconcile shows them; --force gives them up",
            count(usize::try_from(units).unwrap_or(usize::MAX), "unit"),
            count(rows, "bucket")
        ));
    }
    let waiting: Vec<String> = holdings
        .messages
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(queue, n)| format!("{n} in {queue}"))
        .collect();
    if !waiting.is_empty() {
        refusals.push(format!(
            "messages that wait would be lost: {}: let them be worked off, farebox events replay for dead letters; --force gives \
             them up",
            waiting.join(", ")
        ));
    }
    refusals
}

/// What would be done, in this order.
fn plan(holdings: &Holdings, target: &Target, deletes_tables: bool) -> Vec<String> {
    let mut steps = Vec::new();
    if holdings.is_deployed {
        steps.push(Sam::delete(target).to_string());
    }
    if deletes_tables {
        steps.extend(holdings.tables.keys().map(|table| format!("back up {table}")));
        steps.extend(
            holdings
                .tables
                .keys()
                .map(|table| format!("unprotect and delete {table}")),
        );
    }
    steps
}

fn spoken(holdings: &Holdings) -> String {
    let mut text = match holdings.is_deployed {
        true => format!("Stack {} holds:", holdings.stack),
        false => format!("There is no stack {}; what it left holds:", holdings.stack),
    };
    for (table, items) in &holdings.tables {
        text.push_str(&format!(
            "\n  table {table}, about {items} items; it is retained unless --delete-tables is given"
        ));
    }
    for (queue, n) in &holdings.messages {
        let messages = count(usize::try_from(*n).unwrap_or(usize::MAX), "message");
        text.push_str(&format!("\n  queue {queue} with {messages}; it goes with the stack"));
    }
    for secret in &holdings.secrets {
        text.push_str(&format!("\n  secret {}; it goes with the stack", plain(secret)));
    }
    let Unreported { units, rows } = holdings.unreported;
    text.push_str(&format!(
        "\n  {units} units in {} that Stripe has not been told of",
        count(rows, "bucket")
    ));
    text.push_str(&format!(
        "\n  {}, {} of them with a subscription that Stripe goes on to bill: cancel these first, or at Stripe",
        count(holdings.customers, "customer"),
        holdings.subscriptions
    ));
    text
}

/// Something that is done only if its name is typed.
struct Question {
    asks: String,
    expects: String,
    option: &'static str,
}

impl Question {
    fn stack(name: &str) -> Self {
        Self {
            asks: format!("Type the stack's name, {name}, to take it down: "),
            expects: name.to_owned(),
            option: "--yes",
        }
    }

    fn tables(name: &str) -> Self {
        Self {
            asks: format!(
                "The tables hold every customer, key and count. Type `delete {name}` to delete them, after a backup: "
            ),
            expects: format!("delete {name}"),
            option: "--yes-tables",
        }
    }

    /// Asks on the terminal.
    fn ask(&self) -> Result<(), Failure> {
        eprint!("{}", self.asks);
        std::io::stderr().flush().map_err(Failure::failed)?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map_err(Failure::failed)?;
        match answer.trim() == self.expects {
            true => Ok(()),
            false => Err(Failure::failed("nothing was done")),
        }
    }

    /// Whether what was given by an option agrees; `None` if somebody must be asked.
    fn is_answered(&self, given: Option<&str>, can_ask: bool) -> Result<Option<()>, Failure> {
        match given {
            Some(given) if given == self.expects => Ok(Some(())),
            Some(given) => Err(Failure::usage(format!(
                "{} {given:?} is not what must be confirmed: {:?}",
                self.option, self.expects
            ))),
            None if can_ask => Ok(None),
            None => Err(Failure::usage(format!(
                "nobody can be asked here: give {} '{}', or --dry-run to see what would be done",
                self.option, self.expects
            ))),
        }
    }
}

/// What must still be typed.
fn open_questions(options: &Destroy, stack: &str, can_ask: bool) -> Result<Vec<Question>, Failure> {
    let mut open = Vec::new();
    let mut all = vec![(Question::stack(stack), &options.yes)];
    if options.delete_tables {
        all.push((Question::tables(stack), &options.yes_tables));
    }
    for (question, given) in all {
        if question.is_answered(given.as_deref(), can_ask)?.is_none() {
            open.push(question);
        }
    }
    Ok(open)
}

/// Makes a backup and waits until it can be restored from. Only then may the first table go.
async fn back_up(table: &str, reach: &Reach) -> Result<String, Failure> {
    let dynamodb = &reach.clients.dynamodb;
    let failed = |cause: String| Failure::Failed(format!("back up {table}: {cause}; no table was deleted"));
    let name = format!("{table}-{}", reach.now().s());
    let made = dynamodb
        .create_backup()
        .table_name(table)
        .backup_name(name)
        .send()
        .await;
    let details = made.map_err(|e| failed(cause(&e)))?.backup_details;
    let arn = details.ok_or_else(|| failed("there is none".to_owned()))?.backup_arn;
    for _ in 0..BACKUP_LOOKS {
        let answer = dynamodb.describe_backup().backup_arn(&arn).send().await;
        let answer = answer.map_err(|e| failed(cause(&e)))?;
        let details = answer.backup_description.and_then(|backup| backup.backup_details);
        match details.map(|details| details.backup_status) {
            Some(BackupStatus::Available) => return Ok(arn),
            Some(BackupStatus::Creating) => tokio::time::sleep(PAUSE).await,
            _ => return Err(failed("it is not available".to_owned())),
        }
    }
    Err(failed(
        "it takes longer than five minutes; run this again later".to_owned(),
    ))
}

async fn delete(table: &str, reach: &Reach) -> Result<(), Failure> {
    let dynamodb = &reach.clients.dynamodb;
    let unprotected = dynamodb
        .update_table()
        .table_name(table)
        .deletion_protection_enabled(false)
        .send()
        .await;
    unprotected.map_err(|e| Failure::Failed(format!("unprotect {table}: {}", cause(&e))))?;
    for _ in 0..CHANGE_LOOKS {
        match dynamodb.delete_table().table_name(table).send().await {
            Ok(_) => return Ok(()),
            // Unprotecting is a change that takes its time.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_resource_in_use_exception()) =>
            {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(Failure::Failed(format!("delete {table}: {}", cause(&error)))),
        }
    }
    Err(Failure::Failed(format!(
        "delete {table}: it is still being changed; run this again later"
    )))
}

#[cfg(test)]
mod tests {
    use farebox_core::ledger::RowKey;

    use super::*;

    const FIRST: &str = "00000000000000aa-0";

    fn item(generation: &str, units: &[(&str, u64)]) -> (CustomerId, u32, Counters) {
        let counters = Counters {
            generation: generation.to_owned(),
            auth_epoch: 1,
            sealed: 0,
            units: units.iter().map(|(name, units)| ((*name).to_owned(), *units)).collect(),
        };
        ("acme".to_owned().try_into().unwrap(), 0, counters)
    }

    fn row(bucket: u64, state: RowState, units: u64) -> Row {
        Row {
            key: RowKey {
                customer: "acme".to_owned().try_into().unwrap(),
                shard: 0,
                generation: FIRST.to_owned().try_into().unwrap(),
                meter: "api_calls".to_owned(),
                bucket,
            },
            state,
            units,
            credit: 0,
            bucket_end: bucket + 3_600,
            due: 0,
            report: None,
            own_minute: None,
            claim: None,
            faults: 0,
            tries: 0,
            outcome: None,
        }
    }

    #[test]
    fn a_bucket_is_unreported_until_its_row_is_and_counted_once() {
        let one = |rows, units| Unreported { units, rows };
        let counter = [item(
            FIRST,
            &[("u3600.api_calls", 7), ("w60000.1", 9), ("q0.api_calls.p", 9)],
        )];
        assert_eq!(unreported(&counter, &[]), one(1, 7)); // every message was lost
        assert_eq!(unreported(&counter, &[row(3600, RowState::Open, 5)]), one(1, 7)); // the counter is the truth
        assert_eq!(unreported(&counter, &[row(3600, RowState::Sealed, 7)]), one(1, 7));
        assert_eq!(unreported(&counter, &[row(3600, RowState::Sending, 7)]), one(1, 7));
        assert_eq!(unreported(&counter, &[row(3600, RowState::Parked, 7)]), one(1, 7));
        assert_eq!(unreported(&counter, &[row(3600, RowState::Reported, 7)]), one(0, 0)); // not pruned yet
        assert_eq!(unreported(&[], &[row(3600, RowState::Sealed, 7)]), one(1, 7)); // pruned early
        assert_eq!(unreported(&[], &[row(3600, RowState::Open, 3)]), one(1, 3)); // of a lost item
        assert_eq!(unreported(&[item(FIRST, &[("u3600.api_calls", 0)])], &[]), one(0, 0));
        let replaced = [item("00000000000000bb-0", &[("u3600.api_calls", 2)])];
        assert_eq!(unreported(&replaced, &[row(3600, RowState::Reported, 7)]), one(1, 2)); // another life
    }

    #[test]
    fn what_is_counted_and_not_billed_is_not_destroyed() {
        let mut holdings = Holdings::default();
        assert!(refusals(&holdings, false).is_empty());
        holdings.unreported = Unreported { units: 1, rows: 1 };
        let [refusal] = refusals(&holdings, false).try_into().unwrap();
        assert!(
            refusal.starts_with("1 unit in 1 bucket") && refusal.contains("--force"),
            "{refusal}"
        );
        holdings.messages = [("farebox-usage".to_owned(), 3), ("farebox-alerts".to_owned(), 0)].into();
        let both = refusals(&holdings, false);
        assert!(
            both[1].contains("3 in farebox-usage:") && !both[1].contains("farebox-alerts"),
            "{both:?}"
        );
        assert!(refusals(&holdings, true).is_empty());
    }

    #[test]
    fn consent_is_the_name_and_nothing_else() {
        let stack = Question::stack("farebox");
        assert!(matches!(stack.is_answered(Some("farebox"), false), Ok(Some(()))));
        assert!(matches!(
            stack.is_answered(Some("farebox-2"), true),
            Err(Failure::Usage(_))
        ));
        assert!(matches!(stack.is_answered(Some(""), true), Err(Failure::Usage(_))));
        assert!(matches!(stack.is_answered(None, true), Ok(None)));
        assert!(matches!(stack.is_answered(None, false), Err(Failure::Usage(_))));
        let tables = Question::tables("farebox");
        assert!(matches!(
            tables.is_answered(Some("farebox"), false),
            Err(Failure::Usage(_))
        ));
        assert!(matches!(
            tables.is_answered(Some("delete farebox"), false),
            Ok(Some(()))
        ));
    }

    #[test]
    fn tables_are_backed_up_and_deleted_once_nobody_writes_to_them() {
        let target = Target {
            stack: "farebox".to_owned(),
            region: None,
            profile: None,
        };
        let holdings = Holdings {
            is_deployed: true,
            tables: [("farebox-ledger".to_owned(), 1)].into(),
            ..Holdings::default()
        };
        let delete = "sam delete --no-prompts --stack-name farebox";
        assert_eq!(plan(&holdings, &target, false), [delete]);
        assert_eq!(
            plan(&holdings, &target, true),
            [delete, "back up farebox-ledger", "unprotect and delete farebox-ledger"]
        );
    }
}
