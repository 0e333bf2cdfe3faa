//! `farebox counters`: a counter item that came back from a backup, or is missing.

use farebox_aws::counters::key;
use serde_json::json;

use crate::{
    arguments::CountersCommand,
    failure::{Done, Failure},
    keys::would,
    reach::Reach,
    show::Out,
};

pub(crate) async fn run(command: CountersCommand, reach: &Reach, out: Out) -> Result<Done, Failure> {
    let CountersCommand::Restore { customer, shard, trial } = command;
    let id = customer.0;
    let known = reach.customer(&id).await?;
    let Some(item) = reach.control.counters.read(&key(&id, shard)).await? else {
        if shard >= reach.control.shards(&known).await? {
            return Err(Failure::NotFound(format!(
                "there is no counter item {shard} of customer {id}"
            )));
        }
        if trial.dry_run {
            return would(out, &format!("make item {shard} of {id}, which is missing"));
        }
        let new = reach.control.restore_counter(&id, shard, reach.now()).await?;
        let value = json!({ "customer": id, "shard": shard, "old": null, "generation": new, "folded_buckets": 0 });
        out.show(&value, || {
            format!("Item {shard} of {id} was missing; it serves as generation {new}.")
        })?;
        return Ok(Done::Well);
    };
    let buckets = item.units.keys().filter(|name| name.starts_with('u')).count();
    if trial.dry_run {
        let old = &item.generation;
        let what = format!(
            "fold {buckets} buckets of generation {old} into the ledger, then give item {shard} of {id} a new one"
        );
        return would(out, &what);
    }
    let new = reach.control.restore_counter(&id, shard, reach.now()).await?;
    let value =
        json!({ "customer": id, "shard": shard, "old": item.generation, "generation": new, "folded_buckets": buckets });
    out.show(&value, || {
        format!(
            "Item {shard} of {id} serves as generation {new}; {buckets} buckets of {} are in the ledger.",
            item.generation
        )
    })?;
    Ok(Done::Well)
}
