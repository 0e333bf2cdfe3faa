//! Items of the tables as our values.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use farebox_core::{
    admission::Counters,
    expression::Value,
    ledger::{Claim, Report, Row, RowKey, RowState},
    time::Timestamp,
};

pub(crate) type Item = HashMap<String, AttributeValue>;

pub(crate) fn value(value: Value) -> AttributeValue {
    match value {
        Value::N(n) => AttributeValue::N(n.to_string()),
        Value::S(s) => AttributeValue::S(s),
    }
}

pub(crate) fn text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

pub(crate) fn number(item: &Item, name: &str) -> Option<u64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

pub(crate) fn counters(item: &Item) -> Result<Counters, String> {
    let need = |name: &str| number(item, name).ok_or_else(|| format!("{name} is missing or not a whole number"));
    let mut counters = Counters {
        generation: text(item, "generation").ok_or("generation is missing")?.to_owned(),
        auth_epoch: need("auth_epoch")?,
        sealed: need("sealed")?,
        ..Counters::default()
    };
    for name in item.keys() {
        // `u…`, `w…`, `q…` followed by a digit are counts; other names are not ours to read.
        let mut bytes = name.bytes();
        if matches!(bytes.next(), Some(b'u' | b'w' | b'q')) && bytes.next().is_some_and(|b| b.is_ascii_digit()) {
            counters.units.insert(name.clone(), need(name)?);
        }
    }
    Ok(counters)
}

pub(crate) fn row(item: &Item) -> Result<Row, String> {
    let need = |name: &str| number(item, name).ok_or_else(|| format!("{name} is missing or not a whole number"));
    let word = |name: &str| text(item, name).ok_or_else(|| format!("{name} is missing"));
    let key = RowKey::parse(word("pk")?, need("sk")?).ok_or("pk is not a row's key")?;
    let report = match text(item, "identifier") {
        None => None,
        Some(identifier) => Some(Report {
            value: need("value")?,
            stripe_customer: word("stripe_customer")?.to_owned(),
            event_name: word("event_name")?.to_owned(),
            timestamp: need("timestamp")?,
            identifier: identifier.to_owned(),
        }),
    };
    Ok(Row {
        key,
        state: RowState::parse(word("state")?).ok_or("state is not a row's state")?,
        units: need("units")?,
        credit: number(item, "credit").unwrap_or(0),
        bucket_end: need("bucket_end")?,
        due: need("due")?,
        report,
        own_minute: number(item, "own_minute").map(|n| n != 0),
        claim: match text(item, "claim") {
            None => None,
            Some(token) => Some(Claim {
                token: token.to_owned(),
                at: Timestamp::from_ms(need("claimed_at")?),
            }),
        },
        faults: number(item, "faults").unwrap_or(0),
        tries: number(item, "tries").unwrap_or(0),
        outcome: text(item, "outcome").map(str::to_owned),
    })
}
