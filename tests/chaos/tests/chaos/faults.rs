//! Every fault at every call site, under many seeds: every amount is exact every time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    sync::{Arc, Mutex},
    time::Instant,
};

use crate::{
    crew::all,
    effort::{Effort, is_wanted, say},
    kills,
    proxy::Fault,
    random::Random,
    scenario::{self, Scenario},
    site::{ADMIT, Actor, Place},
    wire::{At, Plan},
    world::{START_S, Skew, Step, World},
};

/// The slice's seeds.
const SLICE_SEEDS: Range<u64> = 1..4;

/// A fault at a call site under a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    place: Place,
    fault: Fault,
    seed: u64,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.place, self.fault.name(), self.seed)
    }
}

/// How often a scenario reaches each call site under a seed, without any fault.
type Profile = BTreeMap<(&'static str, u64), BTreeMap<Place, u64>>;

/// How a run ended.
struct Ended {
    /// The call sites that were reached as long as there could be faults.
    seen: BTreeMap<Place, u64>,
    /// How many calls the fault befell.
    struck: u64,
    /// What is wrong in the end.
    problems: Vec<String>,
}

async fn run(scenario: &Scenario, seed: u64, plan: Option<Plan>) -> Ended {
    let mut world = World::start(seed, START_S, Skew::default()).await;
    let is_rehearsal = plan.is_none();
    world.wire.plan(plan);
    world.run(&scenario.steps(seed)).await;
    world.run(&[Step::Wait(2 * 3_600), Step::Scan]).await;
    let (struck, seen) = (world.wire.struck(), world.wire.seen());
    world.settle().await;
    let audit = world.audit().await;
    let mut problems = audit.problems;
    // With a fault every request may have been turned away; each answer is held to the count by the audit.
    if is_rehearsal && audit.counted == 0 {
        problems.push("nothing was counted".to_owned());
    }
    if is_rehearsal {
        problems.extend(world.doubts());
    }
    if is_rehearsal && scenario.is_invoiced {
        problems.extend(world.invoices().await);
    }
    if audit.parked > 0 && !scenario.parks {
        problems.push(format!("{} units are parked", audit.parked));
    }
    Ended { seen, struck, problems }
}

/// One case, in a scenario that reaches its call site.
async fn strike(case: Case, profile: &Profile) -> Vec<String> {
    let mut random = Random::of(case.seed, &format!("{}/{}", case.place, case.fault.name()));
    let reaching: Vec<(&'static str, u64)> = scenario::ALL
        .iter()
        .filter_map(|scenario| {
            Some((
                scenario.name,
                *profile.get(&(scenario.name, case.seed))?.get(&case.place)?,
            ))
        })
        .collect();
    let times = *random.pick(&[1, 1, 2, 4]); // once, or as long as the SDK tries and a bit longer
    let flavour = random.below(6);
    let first = random.below(reaching.len().max(1) as u64) as usize;
    for &(name, calls) in reaching.iter().cycle().skip(first).take(reaching.len()) {
        // How often something is tried again depends on which of two was first: it may be less often this time.
        for nth in [random.below(calls), 0] {
            let plan = Plan {
                at: At::Place(case.place),
                fault: case.fault,
                nth,
                times,
                flavour,
            };
            let ended = run(Scenario::named(name).expect("a scenario"), case.seed, Some(plan)).await;
            if ended.struck > 0 || !ended.problems.is_empty() {
                let told = |problem| format!("[{name}, call {nth}, {times} times, flavour {flavour}] {problem}");
                return ended.problems.into_iter().map(told).collect();
            }
        }
    }
    vec!["the fault never struck".to_owned()]
}

/// A scenario under a seed, without any fault.
#[derive(Clone, Copy)]
struct Rehearsal {
    scenario: &'static Scenario,
    seed: u64,
}

impl fmt::Display for Rehearsal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} without any fault/{}", self.scenario.name, self.seed)
    }
}

/// Runs every scenario without a fault, under every seed. Also says how many of them failed.
async fn profile(seeds: &BTreeSet<u64>) -> (Profile, usize) {
    let profile = Arc::new(Mutex::new(Profile::new()));
    let jobs = seeds
        .iter()
        .flat_map(|&seed| scenario::ALL.iter().map(move |scenario| Rehearsal { scenario, seed }));
    let failed = all("without any fault", jobs.collect(), |Rehearsal { scenario, seed }| {
        let profile = Arc::clone(&profile);
        async move {
            let ended = run(scenario, seed, None).await;
            let mut profile = profile.lock().expect("nobody panics here");
            profile.insert((scenario.name, seed), ended.seen);
            ended.problems
        }
    });
    let failed = failed.await.len();
    let profile = profile.lock().expect("nobody panics here").clone();
    (profile, failed)
}

/// The slice: every call site once and every fault in turn; and all of them where it matters most.
fn slice() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, place) in Place::all().enumerate() {
        let faults = if place.site == ADMIT || place.site == "POST /v1/billing/meter_events" {
            Fault::ALL.to_vec()
        } else {
            vec![Fault::ALL[i % Fault::ALL.len()]]
        };
        cases.extend(faults.into_iter().map(|fault| Case {
            place,
            fault,
            seed: SLICE_SEEDS.start + i as u64 % (SLICE_SEEDS.end - SLICE_SEEDS.start),
        }));
    }
    cases
}

fn everything(seeds: Range<u64>) -> Vec<Case> {
    let at = |place| {
        seeds
            .clone()
            .flat_map(move |seed| Fault::ALL.map(|fault| Case { place, fault, seed }))
    };
    Place::all().flat_map(at).collect()
}

/// Whether a run is called so.
pub(crate) fn is_run(name: &str) -> bool {
    parse(name).is_some()
}

/// Whether any run under these seeds is wanted.
pub(crate) fn is_any_wanted(seeds: Range<u64>) -> bool {
    everything(seeds).iter().any(|case| is_wanted(&case.to_string()))
}

fn parse(text: &str) -> Option<Case> {
    let (rest, seed) = text.rsplit_once('/')?;
    let (place, fault) = rest.rsplit_once('/')?;
    Some(Case {
        place: Place::all().find(|known| known.to_string() == place)?,
        fault: Fault::ALL.into_iter().find(|known| known.name() == fault)?,
        seed: seed.parse().ok()?,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_amount_is_exact_after_a_fault_at_any_call_site() {
    let effort = Effort::from_env();
    let mut cases = match &effort {
        Effort::Slice => slice(),
        Effort::Long { seeds } => everything(seeds.clone()),
        Effort::Replay(text) => match parse(text) {
            Some(case) => vec![case],
            None => {
                assert!(kills::is_run(text), "FAREBOX_CHAOS_REPLAY: there is no run {text}");
                return;
            }
        },
    };
    cases.retain(|case| is_wanted(&case.to_string()));
    if cases.is_empty() {
        let seeds = match effort {
            Effort::Long { seeds } => seeds,
            _ => SLICE_SEEDS,
        };
        assert!(
            kills::is_any_wanted(seeds),
            "FAREBOX_CHAOS_ONLY: no run has that in its name"
        );
        return;
    }
    let begin = Instant::now();
    let seeds: BTreeSet<u64> = cases.iter().map(|case| case.seed).collect();
    let (profile, rehearsals_failed) = profile(&seeds).await;
    let profile = Arc::new(profile);
    let reached: BTreeSet<Place> = profile.values().flat_map(|seen| seen.keys().copied()).collect();
    let profiled = begin.elapsed();
    let unreached: Vec<String> = Place::all()
        .filter(|place| !reached.contains(place))
        .map(|place| place.to_string())
        .collect();
    if effort == Effort::Slice {
        assert!(unreached.is_empty(), "no scenario reaches {unreached:?}");
    } else {
        // Not every seed's workload comes by every call site.
        let reaches = |case: &Case, (of, seen): (&(&str, u64), &BTreeMap<Place, u64>)| {
            of.1 == case.seed && seen.contains_key(&case.place)
        };
        cases.retain(|case| profile.iter().any(|of| reaches(case, of)));
    }
    let n = cases.len();
    assert!(n > 0, "no scenario reaches what is asked for");
    let failed = all("with faults", cases, |case| {
        let profile = Arc::clone(&profile);
        async move { strike(case, &profile).await }
    });
    let failed = failed.await;
    for (case, _) in &failed {
        say(&format!("to replay: FAREBOX_CHAOS_REPLAY='{case}'"));
    }
    say(&format!(
        "{} call sites, {n} faults under {} seeds: {} failed; {:.0} s, {:.0} s of it without faults",
        reached.len(),
        seeds.len(),
        failed.len(),
        begin.elapsed().as_secs_f64(),
        profiled.as_secs_f64(),
    ));
    assert!(failed.is_empty(), "{} of {n} runs are not exact", failed.len());
    assert_eq!(rehearsals_failed, 0, "runs without any fault are not exact");
}

/// Stripe keeps a 5xx under the name of the request and repeats it for a day: the sale must not wait for that, nor make a second
/// subscription.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_goes_on_after_a_fault_that_stripe_repeats() {
    for site in ["POST /v1/customers", "POST /v1/subscriptions"] {
        for fault in [Fault::Error500Before, Fault::Error500After] {
            let mut world = World::start(1, START_S, Skew::default()).await;
            let place = Place {
                actor: Actor::Operator,
                site,
            };
            let plan = Plan {
                at: At::Place(place),
                fault,
                nth: 0,
                times: 2,
                flavour: 0,
            };
            world.wire.plan(Some(plan));
            world.run(&[Step::Sell("acme", "pro")]).await;
            let stripe = world.system.services.stand_in.snapshot();
            let subscriptions = stripe["subscriptions"].as_array().map_or(0, Vec::len);
            assert_eq!(subscriptions, 1, "{site} {fault:?}");
            assert!(world.now_s() < START_S + 3_600, "{site} {fault:?}");
        }
    }
}

/// The key is marked as shown before the page shows it. If the table did that and its answer was lost, nobody has seen the key yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_key_is_shown_though_the_answer_to_its_mark_was_lost() {
    for (fault, times) in [
        (Fault::DropAfter, 1),
        (Fault::DropAfter, 4),
        (Fault::Error500After, 2),
        (Fault::Reset, 1),
        (Fault::Malformed, 4),
        (Fault::LateAnswer, 1),
    ] {
        let mut world = World::start(1, START_S, Skew::default()).await;
        let place = Place {
            actor: Actor::Webhook,
            site: "mark key as shown",
        };
        let plan = Plan {
            at: At::Place(place),
            fault,
            nth: 0,
            times,
            flavour: 0,
        };
        world.wire.plan(Some(plan));
        world.run(&[Step::CheckOut("acme", "pro"), Step::Visit("acme")]).await;
        assert!(world.wire.struck() > 0, "{fault:?}");
        assert_eq!(world.bought["acme"].shown.len(), 1, "{fault:?} {times} times");
    }
}
