//! What goes on when a fault strikes: for every seed another workload of the same kind.

use farebox_billing::When;

use crate::{
    random::Random,
    site::Service,
    world::{
        NEXT_TIERS,
        Step::{self, *},
    },
};

const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 86_400;

/// A kind of workload.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    steps: fn(&mut Random) -> Vec<Step>,
    /// Whether rows may be left for the operator in the end.
    pub(crate) parks: bool,
    /// Whether a period with usage ends in it.
    pub(crate) is_invoiced: bool,
}

impl Scenario {
    /// Its steps under a seed.
    pub(crate) fn steps(&self, seed: u64) -> Vec<Step> {
        (self.steps)(&mut Random::of(seed, self.name))
    }

    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|scenario| scenario.name == name)
    }
}

const fn scenario(name: &'static str, steps: fn(&mut Random) -> Vec<Step>) -> Scenario {
    Scenario {
        name,
        steps,
        parks: false,
        is_invoiced: false,
    }
}

/// All of them. Together they reach every call site.
pub(crate) const ALL: &[Scenario] = &[
    scenario("usage", usage),
    scenario("shards", shards),
    scenario("credit", credit),
    scenario("plans", plans),
    Scenario {
        is_invoiced: true,
        ..scenario("month", month)
    },
    Scenario {
        is_invoiced: true,
        ..scenario("turn", turn)
    },
    scenario("outage", outage),
    Scenario {
        parks: true,
        ..scenario("old", old)
    },
    scenario("restore", restore),
    scenario("cancel", cancel),
    scenario("early", early),
    scenario("keys", keys),
    scenario("outside", outside),
    scenario("checkout", checkout),
    scenario("catalog", catalog),
    Scenario {
        parks: true,
        ..scenario("deleted", deleted)
    },
];

/// Some hours of one customer's usage, with whatever goes wrong on the way of a hint.
fn hours(r: &mut Random, who: &'static str, n: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..n {
        steps.push(Calls(who, 2 + r.below(4)));
        match r.below(4) {
            0 => steps.push(Crash),
            1 => steps.push(Fold),
            _ => {}
        }
        steps.push(Wait(600 + r.below(HOUR_S)));
    }
    steps
}

fn usage(r: &mut Random) -> Vec<Step> {
    let mut steps = vec![Sell("acme", "pro"), Sell("capped", "capped")];
    steps.extend(hours(r, "acme", 2));
    steps.push(Calls("capped", 3 + r.below(4)));
    steps.extend(hours(r, "acme", 1));
    steps.push(Calls("capped", 3));
    steps
}

fn shards(r: &mut Random) -> Vec<Step> {
    let mut steps = vec![Sell("acme", "wide")];
    steps.extend(hours(r, "acme", 3));
    steps
}

fn credit(r: &mut Random) -> Vec<Step> {
    let mut steps = vec![Sell("acme", "pro"), Grant("acme", 1 + r.below(9))];
    steps.extend(hours(r, "acme", 2));
    steps.push(Grant("acme", 20));
    steps.extend(hours(r, "acme", 1));
    steps
}

fn plans(r: &mut Random) -> Vec<Step> {
    let when = *r.pick(&[When::Now, When::PeriodEnd]);
    let mut steps = vec![
        Sell("acme", "pro"),
        Calls("acme", 3 + r.below(3)),
        Stall(1 + r.below(1_200)),
    ];
    steps.extend([
        Change("acme", "wide", when),
        Calls("acme", 2 + r.below(3)),
        Cap("acme", 10 + r.below(9)),
    ]);
    steps.extend([Rotate("acme"), Stall(1 + r.below(1_200)), Calls("acme", 1 + r.below(3))]);
    steps
}

fn month(r: &mut Random) -> Vec<Step> {
    let mut steps = vec![Sell("acme", "pro"), Calls("acme", 2 + r.below(3))];
    // From 10:00 on 31 January to just before 10:00 on 28 February, where the period ends. Stripe tells of that while its invoice is
    // still a draft.
    steps.extend([
        Wait(28 * DAY_S - 400 - r.below(400)),
        Calls("acme", 2 + r.below(4)),
        Wait(900),
        Wait(2 * HOUR_S - 900),
    ]);
    steps.push(Calls("acme", 1 + r.below(3)));
    steps
}

/// The end of a period in which the plan changed, or at which it does: the old one's usage is on its last invoice, and then its
/// metered price goes.
fn turn(r: &mut Random) -> Vec<Step> {
    let when = *r.pick(&[When::Now, When::PeriodEnd]);
    let mut steps = vec![
        Sell("acme", "pro"),
        Calls("acme", 2 + r.below(3)),
        Stall(1 + r.below(1_200)),
    ];
    steps.extend([Change("acme", "wide", when), Calls("acme", 2 + r.below(3))]);
    steps.extend([
        Wait(28 * DAY_S - 1_200),
        Calls("acme", 1 + r.below(3)),
        // Stripe tells of the end while the invoice is still a draft.
        Wait(1_500),
        Wait(4 * HOUR_S - 1_500),
    ]);
    steps.extend([Calls("acme", 1 + r.below(3)), Wait(HOUR_S)]);
    steps
}

fn outage(r: &mut Random) -> Vec<Step> {
    let mut steps = vec![Sell("acme", "pro"), Calls("acme", 2 + r.below(4))];
    steps.extend([
        TickEvery(3 * HOUR_S),
        Down(Service::Stripe),
        Wait(9 * HOUR_S),
        Calls("acme", 2),
    ]);
    steps.extend([
        Wait(16 * HOUR_S + r.below(HOUR_S)),
        Up(Service::Stripe),
        TickEvery(300),
        Wait(HOUR_S),
    ]);
    steps
}

fn old(r: &mut Random) -> Vec<Step> {
    let mut steps = vec![Sell("acme", "pro"), Calls("acme", 2 + r.below(4))];
    steps.extend([
        Down(Service::Stripe),
        TickEvery(5 * DAY_S),
        Wait(35 * DAY_S),
        Up(Service::Stripe),
    ]);
    steps.extend([TickEvery(300), Wait(HOUR_S), Calls("acme", 2)]);
    steps
}

fn restore(r: &mut Random) -> Vec<Step> {
    let mut steps = vec![Sell("acme", "pro"), Calls("acme", 1 + r.below(4)), Restore("acme")];
    steps.extend(hours(r, "acme", 1));
    steps.push(Restore("acme"));
    steps.extend(hours(r, "acme", 1));
    steps
}

fn cancel(r: &mut Random) -> Vec<Step> {
    let when = *r.pick(&[When::Now, When::PeriodEnd]);
    let mut steps = vec![Sell("acme", "pro")];
    steps.extend(hours(r, "acme", 2));
    steps.extend([Calls("acme", 2), Cancel("acme", when), Wait(600), Calls("acme", 1)]);
    steps
}

/// A bucket that is sealed before the minute that its report is stamped with.
fn early(r: &mut Random) -> Vec<Step> {
    let mut steps = vec![Sell("acme", "pro")];
    steps.extend((0..7).map(|_| Restore("acme")));
    steps.extend([Calls("acme", 1 + r.below(3)), Cancel("acme", When::Now)]);
    steps
}

fn keys(r: &mut Random) -> Vec<Step> {
    let mut steps = vec![
        Sell("acme", "pro"),
        ExpiringKey("acme"),
        Calls("acme", 2 + r.below(3)),
        Crash,
    ];
    steps.extend([Scan, Wait(600), Scan]);
    steps
}

fn outside(r: &mut Random) -> Vec<Step> {
    let mut steps = vec![Invite("outside", "pro")];
    steps.extend(hours(r, "outside", 2));
    steps
}

fn checkout(r: &mut Random) -> Vec<Step> {
    let mut steps = Vec::new();
    if r.below(3) == 0 {
        // Somebody who is here already, and begins to pay.
        steps.push(Invite("acme", "capped"));
    }
    steps.push(CheckOut("acme", "pro"));
    if r.below(2) == 0 {
        // The event comes before the buyer does.
        steps.push(Wait(5));
    }
    steps.push(Visit("acme"));
    steps.extend(hours(r, "acme", 2));
    steps
}

fn catalog(r: &mut Random) -> Vec<Step> {
    let mut steps = vec![Sell("acme", "pro"), Calls("acme", 2 + r.below(3)), Rename("pro")];
    steps.extend([Apply(NEXT_TIERS), Change("acme", "pro", When::Now)]);
    steps.extend(hours(r, "acme", 1));
    steps.extend([CheckOut("team", "team"), Visit("team"), Apply(NEXT_TIERS)]);
    steps.extend(hours(r, "team", 1));
    steps
}

/// Stripe takes reports of a customer whom it no longer has, and says only later that it could not count them.
fn deleted(r: &mut Random) -> Vec<Step> {
    let mut steps = vec![Sell("acme", "pro"), Sell("other", "wide")];
    steps.extend(hours(r, "acme", 1));
    steps.extend([Calls("acme", 1 + r.below(4)), Calls("other", 2), Delete("acme")]);
    steps.extend(hours(r, "other", 1));
    steps
}
