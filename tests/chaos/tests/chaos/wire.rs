//! What went over all wires of a run: which call sites were reached, where the fault struck, and what the counters table truly
//! counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::sync::Notify;

use crate::{
    proxy::{Fault, Message},
    site::{ADMIT, Actor, Place, SEND_ALERT, SEND_USAGE, Service},
};

/// When which fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Where.
    pub(crate) at: At,
    /// What.
    pub(crate) fault: Fault,
    /// At which call there, from 0.
    pub(crate) nth: u64,
    /// How many calls in a row.
    pub(crate) times: u64,
    /// Which of its ways the fault takes.
    pub(crate) flavour: u64,
}

/// Which calls a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// Those of one call site.
    Place(Place),
    /// All of an actor's.
    Actor(Actor),
}

/// A fault that befalls a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strike {
    pub(crate) fault: Fault,
    pub(crate) flavour: u64,
}

/// A counter item and one of its bucket attributes.
pub(crate) type Counter = (String, String);

/// What all proxies of a run share.
#[derive(Clone, Default)]
pub(crate) struct Wire(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    /// A call waits for its caller's death.
    doomed: Notify,
}

#[derive(Default)]
struct State {
    plan: Option<Plan>,
    /// Calls that the plan looked at.
    looked_at: u64,
    struck: u64,
    seen: BTreeMap<Place, u64>,
    unlisted: BTreeSet<String>,
    /// What a role of the template does not allow.
    forbidden: BTreeSet<String>,
    down: BTreeSet<Service>,
    late: usize,
    /// The call sites at which a queue took something.
    sent: BTreeSet<&'static str>,
    counted: BTreeMap<Counter, u64>,
    doubled: u64,
    /// Writes that count, seen within one request after one whose outcome its caller can't know.
    after_ambiguous: Option<u64>,
    repeated: u64,
}

/// A request that is still on its way while its caller has given up.
pub(crate) struct Late(Wire);

impl Drop for Late {
    fn drop(&mut self) {
        self.0.state().late -= 1;
    }
}

impl Wire {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a fault strike, counting calls from now on.
    pub(crate) fn plan(&self, plan: Option<Plan>) {
        let mut state = self.state();
        state.plan = plan;
        state.looked_at = 0;
        state.struck = 0;
    }

    /// Begins or ends an outage.
    pub(crate) fn set_down(&self, service: Service, is_down: bool) {
        let down = &mut self.state().down;
        if is_down {
            down.insert(service)
        } else {
            down.remove(&service)
        };
    }

    /// A request came: what befalls it?
    pub(crate) fn arrives(
        &self,
        actor: Actor,
        service: Service,
        site: &Result<&'static str, String>,
    ) -> Option<Strike> {
        let mut state = self.state();
        let place = match site {
            Ok(site) => Place { actor, site },
            Err(unknown) => {
                state.unlisted.insert(format!("{}: {unknown}", actor.name()));
                return None;
            }
        };
        if !place.is_listed() {
            state.unlisted.insert(place.to_string());
        }
        // In an outage no other fault can strike.
        if !state.down.contains(&service) {
            *state.seen.entry(place).or_default() += 1;
        }
        if place.site == ADMIT
            && let Some(after) = &mut state.after_ambiguous
        {
            *after += 1;
            state.repeated += 1;
        }
        let strike = state.strike(place, service)?;
        if place.site == ADMIT {
            if strike.fault.is_ambiguous() {
                state.after_ambiguous = Some(0);
            }
            state.doubled += u64::from(strike.fault == Fault::Duplicate);
        }
        Some(strike)
    }

    /// A service did what was asked for.
    pub(crate) fn done(&self, site: &Result<&'static str, String>, request: &Message) {
        match *site {
            Ok(ADMIT) => {
                let (counter, units) = admission(&request.body).expect("an admission names its bucket and units");
                *self.state().counted.entry(counter).or_default() += units;
            }
            Ok(site @ (SEND_USAGE | SEND_ALERT)) => drop(self.state().sent.insert(site)),
            _ => {}
        }
    }

    /// Whether a queue took anything at this call site since this was asked last.
    pub(crate) fn take_sent(&self, site: &'static str) -> bool {
        self.state().sent.remove(site)
    }

    /// A request goes to the authorizer: its writes are judged together.
    pub(crate) fn begins(&self) {
        self.state().after_ambiguous = None;
    }

    /// Announces a request that its caller no longer waits for.
    pub(crate) fn late(&self) -> Late {
        self.state().late += 1;
        Late(self.clone())
    }

    /// Until no request is on its way without its caller.
    pub(crate) async fn is_quiet(&self) {
        while self.state().late > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Holds a call whose caller is to be killed.
    pub(crate) async fn doom(&self) {
        self.0.doomed.notify_one();
        std::future::pending().await
    }

    /// Until a caller is to be killed.
    pub(crate) async fn doomed(&self) {
        self.0.doomed.notified().await;
    }

    /// How many calls the plan's fault befell.
    pub(crate) fn struck(&self) -> u64 {
        self.state().struck
    }

    /// How many calls the plan looked at.
    pub(crate) fn looked_at(&self) -> u64 {
        self.state().looked_at
    }

    /// How often each call site was reached.
    pub(crate) fn seen(&self) -> BTreeMap<Place, u64> {
        self.state().seen.clone()
    }

    /// A request that its actor's role does not allow.
    pub(crate) fn forbidden(&self, refused: String) {
        self.state().forbidden.insert(refused);
    }

    /// All requests that a role does not allow.
    pub(crate) fn refused(&self) -> BTreeSet<String> {
        self.state().forbidden.clone()
    }

    /// Requests that no call site names.
    pub(crate) fn unlisted(&self) -> BTreeSet<String> {
        self.state().unlisted.clone()
    }

    /// Units by counter item and bucket attribute of every admission that the table applied, by the table's own answers.
    pub(crate) fn counted(&self) -> BTreeMap<Counter, u64> {
        self.state().counted.clone()
    }

    /// How many writes that count the network made two of.
    pub(crate) fn doubled(&self) -> u64 {
        self.state().doubled
    }

    /// How many writes that count were tried again although the outcome of the one before was not known.
    pub(crate) fn repeated(&self) -> u64 {
        self.state().repeated
    }
}

impl State {
    fn strike(&mut self, place: Place, service: Service) -> Option<Strike> {
        if self.down.contains(&service) {
            let fault = Fault::DropBefore;
            return Some(Strike { fault, flavour: 0 });
        }
        let plan = self.plan?;
        let is_meant = match plan.at {
            At::Place(planned) => planned == place,
            At::Actor(planned) => planned == place.actor,
        };
        if !is_meant {
            return None;
        }
        let n = self.looked_at;
        self.looked_at += 1;
        if !(plan.nth..plan.nth + plan.times).contains(&n) {
            return None;
        }
        self.struck += 1;
        Some(Strike {
            fault: plan.fault,
            flavour: plan.flavour,
        })
    }
}

/// What an admission counts: read from the request itself, beside the code that made it.
fn admission(body: &[u8]) -> Option<(Counter, u64)> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let item = body["Key"]["pk"]["S"].as_str()?.to_owned();
    let bucket = body["ExpressionAttributeNames"]["#n0"].as_str()?.to_owned();
    let units = body["ExpressionAttributeValues"][":cost"]["N"].as_str()?.parse().ok()?;
    Some(((item, bucket), units))
}
