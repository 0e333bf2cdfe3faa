//! The rules of counter items and ledger rows as code, one beside each write.

use farebox_core::{
    admission::Counters,
    counter,
    expression::{Expression, Value},
    id::Generation,
    ledger::{self, Balance, CLAIM_LIFE_MS, Claim, Report, RowKey, RowState},
    time::Timestamp,
};
use fastrand::Rng;

use super::Item;

/// What a write makes of an item; `None` if it is refused.
pub type Rule = Box<dyn Fn(&Item) -> Option<Item>>;

/// A write, and what must come of it.
pub struct Case {
    /// What the write is called.
    pub name: &'static str,
    /// As it is sent to the table.
    pub write: Expression,
    /// As code.
    pub rule: Rule,
}

/// Attributes that count units: of two buckets, a window and a quota.
pub const BUCKETS: [&str; 4] = [
    "u7200.api_calls",
    "u10800.api_calls",
    "w60000.5",
    "q0.api_calls.pro-00000000",
];

/// Moments that meet each other: seconds of a few hours, or the same as milliseconds.
pub fn moment(rng: &mut Rng) -> u64 {
    [3_600, 7_200, 10_800, 14_400, 3_600_000, 7_200_000][rng.usize(..6)]
}

fn n(item: &Item, name: &str) -> Option<u64> {
    match item.get(name) {
        Some(Value::N(n)) => Some(*n),
        _ => None,
    }
}

fn s<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    match item.get(name) {
        Some(Value::S(s)) => Some(s),
        _ => None,
    }
}

/// The item after a change, if it may be made.
fn when(item: &Item, may: bool, change: impl FnOnce(&mut Item)) -> Option<Item> {
    may.then(|| {
        let mut after = item.clone();
        change(&mut after);
        after
    })
}

fn set(item: &mut Item, name: &str, value: impl Into<Value>) {
    item.insert(name.to_owned(), value.into());
}

fn set_if_missing(item: &mut Item, name: &str, value: impl Into<Value>) {
    item.entry(name.to_owned()).or_insert_with(|| value.into());
}

/// One of the generations that items have.
fn generation(rng: &mut Rng) -> Generation {
    Generation::new([rng.u8(..2); 8], 0)
}

/// A random write with its rule. `item` is what it will meet: a restore is planned from what was read.
pub fn case(rng: &mut Rng, item: Option<&Item>) -> Case {
    match rng.u64(..20) {
        0 => create(rng),
        1 => bump(rng),
        2 => seal(rng),
        3 => prune(rng),
        4 => restore(rng, item),
        5 => fold(rng),
        6 => freeze(rng, None),
        7 => {
            let own = rng.bool();
            freeze(rng, Some(own))
        }
        8 => put_off(rng),
        9 => close(rng),
        10 => take(rng),
        11 => grant(rng),
        12 => claim(rng),
        13 => delivered(rng),
        14 => retry_later(rng),
        15 => park(rng),
        16 => reopen(rng),
        17 => unpark_or_settle(rng),
        18 => shut(rng),
        _ => finish(),
    }
}

fn create(rng: &mut Rng) -> Case {
    let (generation, epoch, sealed) = (generation(rng), rng.u64(..6), moment(rng));
    Case {
        name: "create",
        write: counter::create(&generation, epoch, sealed),
        rule: Box::new(move |item| {
            let may = n(item, "auth_epoch").is_none_or(|known| known <= epoch);
            when(item, may, |after| {
                set_if_missing(after, "generation", generation.as_str());
                set_if_missing(after, "sealed", sealed);
                set_if_missing(after, "auth_epoch", epoch);
            })
        }),
    }
}

fn bump(rng: &mut Rng) -> Case {
    let epoch = rng.u64(..6);
    Case {
        name: "bump",
        write: counter::bump(epoch),
        rule: Box::new(move |item| {
            let may = n(item, "auth_epoch").is_some_and(|known| known < epoch);
            when(item, may, |after| set(after, "auth_epoch", epoch))
        }),
    }
}

fn seal(rng: &mut Rng) -> Case {
    let (known, bucket) = (life(rng), moment(rng));
    Case {
        name: "seal",
        write: of_life(counter::seal(&generation(rng), bucket), known),
        rule: Box::new(move |item| {
            let may = s(item, "generation") == Some(known) && n(item, "sealed").is_some_and(|sealed| sealed < bucket);
            when(item, may, |after| set(after, "sealed", bucket))
        }),
    }
}

fn prune(rng: &mut Rng) -> Case {
    let (known, bucket) = (life(rng), [7_200, 10_800][rng.usize(..2)]);
    Case {
        name: "prune",
        write: of_life(counter::prune(&generation(rng), bucket, "api_calls"), known),
        rule: Box::new(move |item| {
            let may = s(item, "generation") == Some(known) && n(item, "sealed").is_some_and(|sealed| sealed >= bucket);
            when(item, may, |after| {
                after.remove(&format!("u{bucket}.api_calls"));
            })
        }),
    }
}

/// The names of the lives in random items are short.
fn life(rng: &mut Rng) -> &'static str {
    ["g1", "g2"][rng.usize(..2)]
}

fn of_life(mut write: Expression, life: &'static str) -> Expression {
    for (placeholder, value) in &mut write.values {
        if placeholder == ":generation" {
            *value = life.into();
        }
    }
    write
}

fn shut(rng: &mut Rng) -> Case {
    let known = life(rng);
    Case {
        name: "shut",
        write: of_life(counter::shut(&generation(rng)), known),
        rule: Box::new(move |item| {
            when(item, s(item, "generation") == Some(known), |after| {
                set(after, "auth_epoch", counter::SHUT);
            })
        }),
    }
}

fn restore(rng: &mut Rng, item: Option<&Item>) -> Case {
    let mut read = Counters::default();
    for (name, value) in item.into_iter().flatten() {
        if let (Value::N(units), true) = (value, BUCKETS.contains(&name.as_str())) {
            read.units.insert(name.clone(), *units);
        }
    }
    read.sealed = item.and_then(|item| n(item, "sealed")).unwrap_or(0);
    // Now and then somebody was faster.
    let seen = item.and_then(|item| s(item, "generation")).unwrap_or("g1").to_owned();
    read.generation = if rng.u64(..4) == 0 { "g3".to_owned() } else { seen };
    let (new, sealed, epoch) = (generation(rng), moment(rng), rng.u64(..6));
    let write = counter::restore(&read, &new, sealed, epoch);
    Case {
        name: "restore",
        write,
        rule: Box::new(move |item| {
            let is_shut = n(item, "auth_epoch") == Some(counter::SHUT);
            when(
                item,
                is_shut && s(item, "generation") == Some(&read.generation),
                |after| {
                    after.retain(|name, _| !(name.starts_with('u') && BUCKETS.contains(&name.as_str())));
                    set(after, "generation", new.as_str());
                    set(after, "sealed", sealed.max(read.sealed));
                    set(after, "auth_epoch", epoch);
                },
            )
        }),
    }
}

fn row() -> RowKey {
    RowKey {
        customer: "acme".to_owned().try_into().expect("an id"),
        shard: 0,
        generation: Generation::new([7; 8], 0),
        meter: "api_calls".to_owned(),
        bucket: 7_200,
    }
}

fn fold(rng: &mut Rng) -> Case {
    let (units, end, key) = (rng.u64(..6), moment(rng), row());
    Case {
        name: "fold",
        write: ledger::fold(&key, end, units),
        rule: Box::new(move |item| {
            let may = match s(item, "state") {
                None => true,
                Some(state) => state == "open" && n(item, "units").is_some_and(|known| known < units),
            };
            when(item, may, |after| {
                set(after, "state", "open");
                set(after, "units", units);
                set_if_missing(after, "bucket_end", end);
                set_if_missing(after, "due", end + ledger::SEAL_DELAY_S);
                set_if_missing(after, "work", row().work());
            })
        }),
    }
}

/// Whether the row is open and no message has brought more than these units.
fn is_open_with_at_most(item: &Item, units: u64) -> bool {
    s(item, "state") == Some("open") && n(item, "units").is_some_and(|known| known <= units)
}

fn freeze(rng: &mut Rng, own: Option<bool>) -> Case {
    let (units, credit, now) = (rng.u64(1..9), rng.u64(..3), Timestamp::from_s(moment(rng)));
    let report = Report {
        value: units,
        stripe_customer: "cus_2".to_owned(),
        event_name: "other".to_owned(),
        timestamp: moment(rng),
        identifier: "i3".to_owned(),
    };
    let write = ledger::freeze(&report, units, credit, now);
    Case {
        name: if own.is_some() {
            "freeze with its minute"
        } else {
            "freeze"
        },
        write: match own {
            Some(own) => ledger::with_own_minute(write, own),
            None => write,
        },
        rule: Box::new(move |item| {
            when(item, is_open_with_at_most(item, units), |after| {
                set(after, "state", "sealed");
                set(after, "units", units);
                set(after, "credit", credit);
                set(after, "value", report.value);
                set(after, "stripe_customer", report.stripe_customer.as_str());
                set(after, "event_name", report.event_name.as_str());
                set(after, "timestamp", report.timestamp);
                set(after, "identifier", report.identifier.as_str());
                set(after, "due", now.s());
                if let Some(own) = own {
                    set(after, "own_minute", u64::from(own));
                }
            })
        }),
    }
}

fn put_off(rng: &mut Rng) -> Case {
    let (due, state) = (
        moment(rng),
        [None, Some(RowState::Open), Some(RowState::Sending)][rng.usize(..3)],
    );
    Case {
        name: "put off",
        write: ledger::put_off(state, due),
        rule: Box::new(move |item| {
            let is_state = state.is_none_or(|state| s(item, "state") == Some(state.as_str()));
            let may = is_state && n(item, "due").is_some_and(|known| known < due);
            when(item, may, |after| set(after, "due", due))
        }),
    }
}

fn close(rng: &mut Rng) -> Case {
    let (units, credit, now) = (rng.u64(..6), rng.u64(..6), Timestamp::from_s(moment(rng)));
    Case {
        name: "close",
        write: ledger::close(units, credit, "nothing to report", now),
        rule: Box::new(move |item| {
            when(item, is_open_with_at_most(item, units), |after| {
                set(after, "state", "reported");
                set(after, "units", units);
                set(after, "credit", credit);
                set(after, "outcome", "nothing to report");
                set(after, "due", now.s());
            })
        }),
    }
}

fn take(rng: &mut Rng) -> Case {
    let (granted, taken, credit) = (rng.u64(..6), rng.u64(..6), rng.u64(..4));
    Case {
        name: "take",
        write: ledger::take(Balance { granted, taken }, credit),
        rule: Box::new(move |item| {
            let may =
                n(item, "taken") == Some(taken) && n(item, "granted").is_some_and(|granted| granted >= taken + credit);
            when(item, may, |after| set(after, "taken", taken + credit))
        }),
    }
}

fn grant(rng: &mut Rng) -> Case {
    let units = rng.u64(1..9);
    Case {
        name: "grant",
        write: ledger::grant(units),
        rule: Box::new(move |item| {
            when(item, true, |after| {
                set(after, "granted", n(item, "granted").unwrap_or(0) + units);
                set_if_missing(after, "taken", 0);
                set(after, "kind", "credit");
            })
        }),
    }
}

fn claim(rng: &mut Rng) -> Case {
    let at = Timestamp::from_ms([300_000, 3_900_000, 7_500_000, 7_499_999][rng.usize(..4)]);
    let claim = Claim {
        token: "t3".to_owned(),
        at,
    };
    Case {
        name: "claim",
        write: ledger::claim(&claim),
        rule: Box::new(move |item| {
            let is_dead = n(item, "claimed_at").is_some_and(|since| since + CLAIM_LIFE_MS <= at.ms());
            let may = match s(item, "state") {
                Some("sealed") => true,
                Some("sending") => s(item, "claim").is_none() || is_dead,
                _ => false,
            };
            when(item, may, |after| {
                set(after, "state", "sending");
                set(after, "claim", claim.token.as_str());
                set(after, "claimed_at", at.ms());
            })
        }),
    }
}

fn delivered(rng: &mut Rng) -> Case {
    let now = Timestamp::from_s(moment(rng));
    Case {
        name: "delivered",
        write: ledger::delivered("already there", now),
        rule: Box::new(move |item| {
            when(item, s(item, "state") == Some("sending"), |after| {
                set(after, "state", "reported");
                set(after, "outcome", "already there");
                set(after, "due", now.s());
                after.remove("claim");
            })
        }),
    }
}

/// Whether the row is being sent under a claim.
fn is_held(item: &Item, token: &str) -> bool {
    s(item, "state") == Some("sending") && s(item, "claim") == Some(token)
}

fn retry_later(rng: &mut Rng) -> Case {
    let (tries, fault, now) = (rng.u64(..9), rng.bool(), Timestamp::from_s(moment(rng)));
    Case {
        name: "retry later",
        write: ledger::retry_later("t1", tries, fault, now),
        rule: Box::new(move |item| {
            when(item, is_held(item, "t1"), |after| {
                set(after, "due", now.s() + ledger::backoff_s(tries));
                set(after, "tries", tries + 1);
                set(after, "faults", n(item, "faults").unwrap_or(0) + u64::from(fault));
                after.remove("claim");
            })
        }),
    }
}

fn park(rng: &mut Rng) -> Case {
    let token = ["t1", "t2"][rng.usize(..2)];
    Case {
        name: "park",
        write: ledger::park(token, "too old"),
        rule: Box::new(move |item| {
            when(item, is_held(item, token), |after| {
                set(after, "state", "parked");
                set(after, "outcome", "too old");
                after.remove("claim");
                after.remove("work");
            })
        }),
    }
}

fn reopen(rng: &mut Rng) -> Case {
    let identifier = ["i1", "i2"][rng.usize(..2)];
    Case {
        name: "reopen",
        write: ledger::reopen(identifier, "no meter"),
        rule: Box::new(move |item| {
            let may = s(item, "state") == Some("reported") && s(item, "identifier") == Some(identifier);
            when(item, may, |after| {
                set(after, "state", "parked");
                set(after, "outcome", "no meter");
                set(after, "identifier", format!("{identifier}.1"));
                after.remove("work");
            })
        }),
    }
}

fn unpark_or_settle(rng: &mut Rng) -> Case {
    let now = Timestamp::from_s(moment(rng));
    if rng.bool() {
        return Case {
            name: "unpark",
            write: ledger::unpark(&row(), now),
            rule: Box::new(move |item| {
                when(item, s(item, "state") == Some("parked"), |after| {
                    set(after, "state", "sealed");
                    set(after, "due", now.s());
                    set(after, "work", row().work());
                    set(after, "tries", 0);
                    set(after, "faults", n(item, "faults").unwrap_or(0) + 1);
                    after.remove("outcome");
                })
            }),
        };
    }
    Case {
        name: "settle",
        write: ledger::settle(&row(), "found", now),
        rule: Box::new(move |item| {
            when(item, s(item, "state") == Some("parked"), |after| {
                set(after, "state", "reported");
                set(after, "outcome", "found");
                set(after, "due", now.s());
                set(after, "work", row().work());
            })
        }),
    }
}

fn finish() -> Case {
    Case {
        name: "finish",
        write: ledger::finish(),
        rule: Box::new(|item| {
            when(item, s(item, "state") == Some("reported"), |after| {
                after.remove("work");
            })
        }),
    }
}
