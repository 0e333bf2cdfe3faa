//! `farebox keys`: the one moment in which a key can be shown is here.

use chrono::{NaiveDate, NaiveTime};
use farebox_aws::control::{IssuedKey, NewKey};
use farebox_core::{
    account::{Customer, KeyRecord},
    id::CustomerId,
    key::{ApiKey, KeyHash},
    tiers::Pattern,
    time::Timestamp,
};
use serde_json::{Value, json};

use crate::{
    arguments::{Keys, duration_s, name as checked_name},
    ended_in,
    failure::{Done, Failure},
    reach::Reach,
    show::{Out, plain, time},
};

/// So many digits of a hash name a key, if no other begins with them.
const HASH_DIGITS_MIN: usize = 8;

pub(crate) async fn run(command: Keys, reach: &Reach, out: Out) -> Result<Done, Failure> {
    match command {
        Keys::Issue {
            customer,
            name,
            scope,
            expires,
            test,
            brand,
            trial,
        } => {
            let new = NewKey {
                brand: brand.brand,
                mode: reach.key_mode(test),
                name: match &name {
                    Some(name) => checked_name(name)?.to_owned(),
                    None => String::new(),
                },
                scopes: scope,
                expires: expires.map(|text| moment(&text, reach.now())).transpose()?,
            };
            let customer = reach.customer(&customer.0).await?;
            let warnings = warnings(&customer, &new.scopes, reach).await?;
            if trial.dry_run {
                let what = format!("issue a key to {}", customer.id);
                warn(&warnings, out);
                out.show(&json!({ "would": what, "warnings": warnings }), || {
                    format!("would {what}")
                })?;
                return Ok(Done::Pending);
            }
            let issued = reach.control.issue_key(&customer.id, new, reach.now()).await?;
            show_issued(&issued, &warnings, out)
        }
        Keys::Rotate { key, grace, trial } => {
            let (hash, old) = find(&key, reach).await?;
            if old.revoked.is_some() {
                return Err(Failure::Failed(format!(
                    "the key {} is revoked: issue a new one with `farebox keys issue {}`",
                    shown(&old),
                    old.customer
                )));
            }
            if let Some(expired) = old.expires.filter(|&expires| expires <= reach.now()) {
                return Err(Failure::Failed(format!(
                    "the key {} expired on {}: issue a new one with `farebox keys issue {}`",
                    shown(&old),
                    time(expired.s()),
                    old.customer
                )));
            }
            if let Some((next, successor)) = successor(hash, reach).await? {
                return Err(Failure::Failed(format!(
                    "the key {} was replaced already, by {} (hash {next}), which is valid: rotate that one, or issue one more with \
                     `farebox keys issue {}`",
                    shown(&old),
                    shown(&successor),
                    old.customer
                )));
            }
            let brand = old.prefix.split('_').next().unwrap_or_default();
            let end = reach.now().plus_ms(grace.saturating_mul(1_000));
            if trial.dry_run {
                return would(
                    out,
                    &format!(
                        "replace {} of {}, which {}",
                        shown(&old),
                        old.customer,
                        validity(old.expires.map_or(end, |expires| expires.min(end)), reach.now())
                    ),
                );
            }
            let issued = reach.control.rotate_key(hash, brand, grace, reach.now()).await;
            let issued = issued.map_err(|error| half_rotated(error, &old))?;
            // What was stored, which an earlier expiry may have decided. The new key is shown whether that can be read or not.
            let stored = reach.control.accounts.key(hash).await.ok().flatten();
            let until = stored.and_then(|key| key.expires).unwrap_or(end);
            out.aside(&format!("{} {}.", shown(&old), validity(until, reach.now())));
            show_issued(&issued, &[], out)
        }
        Keys::Revoke { key, trial } => {
            let (hash, old) = find(&key, reach).await?;
            if trial.dry_run {
                return match old.revoked {
                    Some(at) => would_not(out, &format!("{} is revoked since {}", shown(&old), time(at.s()))),
                    None => would(out, &format!("revoke {} of {}", shown(&old), old.customer)),
                };
            }
            let revoked = reach.control.revoke_key(hash, reach.now()).await?;
            out.show(&as_json(hash, &revoked), || {
                format!("{} of {} is refused from now on.", shown(&old), old.customer)
            })?;
            Ok(Done::Well)
        }
        Keys::List { customer } => {
            reach.customer(&customer.0).await?;
            list(&customer.0, reach, out).await
        }
    }
}

/// A rotation that was refused made nothing; one that failed may have made a key that is shown to nobody.
fn half_rotated(error: farebox_aws::Error, old: &KeyRecord) -> Failure {
    match error {
        farebox_aws::Error::Refused(why) => Failure::Failed(why),
        error => Failure::Failed(format!(
            "{}; if `farebox keys list {}` shows a new key by now, nobody has seen it: revoke that one, then rotate again",
            Failure::from(error),
            old.customer
        )),
    }
}

/// Why a new key would open nothing, or less than is thought.
async fn warnings(customer: &Customer, scopes: &[Pattern], reach: &Reach) -> Result<Vec<String>, Failure> {
    let (id, now) = (&customer.id, reach.now().s());
    let mut warnings = Vec::new();
    if ended_in(customer, now).is_some() {
        warnings.push(format!(
            "the subscription of {id} has ended: the key opens nothing until `farebox customers add {id}` sells it a tier again"
        ));
    }
    if customer.is_suspended {
        warnings.push(format!(
            "{id} is suspended: the key opens nothing until `farebox customers resume {id}`"
        ));
    }
    if scopes.is_empty() {
        return Ok(warnings);
    }
    let accounts = &reach.control.accounts;
    let held = accounts.catalog(customer.phase_at(now).catalog).await?;
    let newest = accounts.catalog(accounts.newest_catalog().await?).await?;
    let tiers = held.iter().chain(&newest).flat_map(|catalog| &catalog.tiers);
    let routes: Vec<&Pattern> = tiers.flat_map(|tier| &tier.endpoints).collect();
    for scope in scopes {
        if !routes.iter().any(|route| route.overlaps(scope)) {
            warnings.push(format!("no tier has a route that {scope} names: it opens nothing"));
        }
    }
    Ok(warnings)
}

fn warn(warnings: &[String], out: Out) {
    for warning in warnings.iter().filter(|_| !out.is_json) {
        out.aside(&out.waits(&format!("warning: {warning}")));
    }
}

/// The newest key that took a replaced one's place, one after the other, and is still valid.
async fn successor(hash: KeyHash, reach: &Reach) -> Result<Option<(KeyHash, KeyRecord)>, Failure> {
    let accounts = &reach.control.accounts;
    let (mut at, mut newest) = (hash, None);
    while let Some(replaced) = accounts.replaced(at).await? {
        at = replaced.by;
        let key = accounts.key(at).await?;
        let is_valid = |key: &KeyRecord| key.revoked.is_none() && key.expires.is_none_or(|end| end > reach.now());
        newest = key.filter(is_valid).map(|key| (at, key)).or(newest);
    }
    Ok(newest)
}

/// What a write would do, in `--dry-run`.
pub(crate) fn would(out: Out, what: &str) -> Result<Done, Failure> {
    out.show(&json!({ "would": what }), || format!("would {what}"))?;
    Ok(Done::Pending)
}

/// That a write would change nothing, in `--dry-run`.
pub(crate) fn would_not(out: Out, why: &str) -> Result<Done, Failure> {
    out.show(&json!({ "would": null, "because": why }), || {
        format!("nothing would change: {why}")
    })?;
    Ok(Done::Well)
}

/// The key alone on stdout, so that it can be piped to where it is kept.
pub(crate) fn show_issued(issued: &IssuedKey, warnings: &[String], out: Out) -> Result<Done, Failure> {
    let mut value = as_json(issued.key.hash(), &issued.record);
    value["key"] = json!(issued.key.reveal());
    value["warnings"] = json!(warnings);
    warn(warnings, out);
    if !out.is_json {
        if let Some(expires) = issued.record.expires {
            out.aside(&format!("The new key expires on {}.", time(expires.s())));
        }
        out.aside(&format!(
            "The key is shown once and stored nowhere; its hash is {}.",
            issued.key.hash()
        ));
    }
    let key = issued.key.reveal();
    out.reveal(&value, || key.to_owned(), &[key])?;
    Ok(Done::Well)
}

async fn list(customer: &CustomerId, reach: &Reach, out: Out) -> Result<Done, Failure> {
    let keys = reach.control.accounts.keys(customer).await?;
    let now = reach.now();
    let value: Vec<Value> = keys.iter().map(|(hash, key)| as_json(*hash, key)).collect();
    out.show(&value, || {
        if keys.is_empty() {
            return format!("{customer} has no keys: farebox keys issue {customer}");
        }
        let row = |(hash, key): &(KeyHash, KeyRecord)| {
            let state = match (key.revoked, key.expires) {
                (Some(at), _) => format!("revoked {}", time(at.s())),
                (None, Some(at)) if at <= now => format!("expired {}", time(at.s())),
                (None, Some(at)) => format!("until {}", time(at.s())),
                (None, None) => "valid".to_owned(),
            };
            let scopes: Vec<String> = key.scopes.iter().map(ToString::to_string).collect();
            let scopes = if scopes.is_empty() {
                "all".to_owned()
            } else {
                scopes.join(", ")
            };
            let hash = hash.to_string();
            vec![
                shown(key),
                plain(&key.name),
                key.mode.as_str().to_owned(),
                state,
                scopes,
                time(key.created.s()),
                hash[..HASH_DIGITS_MIN].to_owned(),
            ]
        };
        let rows = keys.iter().map(row).collect();
        out.table(&["key", "name", "mode", "state", "routes", "issued", "hash"], 7, rows)
    })?;
    Ok(Done::Well)
}

/// How long a replaced key stays valid.
fn validity(until: Timestamp, now: Timestamp) -> String {
    match until <= now {
        true => "is refused from now on".to_owned(),
        false => format!("stays valid until {}", time(until.s())),
    }
}

fn shown(key: &KeyRecord) -> String {
    format!("{}…{}", key.prefix, key.last_four)
}

fn as_json(hash: KeyHash, key: &KeyRecord) -> Value {
    let scopes: Vec<String> = key.scopes.iter().map(ToString::to_string).collect();
    json!({
        "hash": hash.to_string(), "customer": key.customer, "name": key.name, "prefix": key.prefix,
        "last_four": key.last_four, "mode": key.mode.as_str(), "scopes": scopes, "created": key.created.s(),
        "expires": key.expires.map(Timestamp::s), "revoked": key.revoked.map(Timestamp::s),
    })
}

/// Finds a key by its hash, the beginning of it, or its display prefix.
async fn find(name: &str, reach: &Reach) -> Result<(KeyHash, KeyRecord), Failure> {
    if ApiKey::parse(name).is_ok() {
        return Err(Failure::usage(
            "that is a whole key: name it by its hash or its prefix, which `farebox keys list` shows. What stands on a command \
             line is seen by others: revoke that key",
        ));
    }
    if let Some(hash) = KeyHash::from_hex(name) {
        let key = reach.control.accounts.key(hash).await?;
        return key.map(|key| (hash, key)).ok_or_else(none);
    }
    let name = name.split('…').next().unwrap_or_default();
    let is_hash = name.len() >= HASH_DIGITS_MIN && name.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_hash && !name.contains('_') {
        return Err(Failure::usage(
            "a key is named by its hash, at least 8 digits of it, or its prefix like fb_live_Ab3d: see `farebox keys list`",
        ));
    }
    let mut found = Vec::new();
    for customer in reach.control.accounts.customers().await? {
        for (hash, key) in reach.control.accounts.keys(&customer.id).await? {
            if key.prefix == name || (is_hash && hash.to_string().starts_with(&name.to_lowercase())) {
                found.push((hash, key));
            }
        }
    }
    match found.len() {
        0 => Err(none()),
        1 => found.pop().ok_or_else(none),
        _ => {
            let list: Vec<String> = found
                .iter()
                .map(|(hash, key)| format!("{hash} of {}", key.customer))
                .collect();
            Err(Failure::usage(format!(
                "several keys are called so; name one by its hash: {}",
                list.join(", ")
            )))
        }
    }
}

fn none() -> Failure {
    Failure::NotFound("there is no such key".to_owned())
}

/// A moment from now on, `90d`, or the start of a day, `2027-01-31`.
fn moment(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    let at = match NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        Ok(date) => {
            let s = date.and_time(NaiveTime::MIN).and_utc().timestamp();
            Timestamp::from_s(u64::try_from(s).unwrap_or(0))
        }
        Err(_) => {
            let wrong = |_| Failure::usage(format!("{text:?} is no date like 2027-01-31 and no duration like 90d"));
            now.plus_ms(duration_s(text).map_err(wrong)?.saturating_mul(1_000))
        }
    };
    if at <= now {
        return Err(Failure::usage(format!("{text:?} is not in the future")));
    }
    Ok(at)
}
