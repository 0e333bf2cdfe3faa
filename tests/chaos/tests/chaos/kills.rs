//! The consumer's own program, killed at every call that it makes, before the call is done and after: whoever comes next brings
//! every amount to its end.

use std::{
    collections::BTreeSet,
    fmt,
    ops::Range,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use axum::body::Bytes;
use farebox_core::{
    ledger::RowState,
    time::{HOUR_S, Timestamp},
};
use farebox_local::{Options, System, VirtualClock};
use serde_json::{Value, json};

use crate::{
    crew::all,
    effort::{Effort, is_wanted, say},
    emulator::Emulator,
    faults,
    proxy::Fault,
    random::Random,
    site::Actor,
    wire::{At, Plan},
    world::{Skew, Step, World},
};

/// Longer than this nothing here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// More calls than this no run makes.
const CALLS_MAX: u64 = 1_000;
/// The slice's seed.
const SLICE_SEED: u64 = 1;

/// A kill: at which call of a run, before or after it was done, under which seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kill {
    seed: u64,
    nth: u64,
    fault: Fault,
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.fault.name(), self.nth, self.seed)
    }
}

/// The consumer as Lambda runs it: a process of its own, which asks for events.
struct Function {
    emulator: Emulator,
    child: Child,
}

impl Function {
    async fn start(world: &World) -> Self {
        let emulator = Emulator::start().await.expect("a free port");
        let child = Command::new(env!("CARGO_BIN_EXE_chaos-consumer"))
            .env_clear()
            .envs(world.environment(Actor::Consumer))
            .env("AWS_LAMBDA_RUNTIME_API", emulator.address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "consumer")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the consumer starts");
        let function = Self { emulator, child };
        let ready = tokio::time::timeout(PATIENCE, function.emulator.ready()).await;
        ready.expect("the consumer asks for an event");
        function
    }

    async fn invoke(&self, event: &Value) -> Value {
        let event = Bytes::from(event.to_string());
        let answer = tokio::time::timeout(PATIENCE, self.emulator.invoke(&event)).await;
        let answer = answer.expect("an answer in time").expect("an answer");
        assert!(!answer.is_error, "{:?}", answer.body);
        serde_json::from_slice(&answer.body).expect("the answer is JSON")
    }
}

impl Drop for Function {
    /// Nobody is asked to end: SIGKILL, as the kernel or a host that fails does it.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn machine_s() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    since.as_secs()
}

/// Usage of the last hours that nobody has folded, for a consumer whose clock is the machine's.
async fn world(seed: u64) -> World {
    let mut random = Random::of(seed, "kill");
    let start = Timestamp::from_s(machine_s() - 4 * HOUR_S);
    let mut world = World::on(VirtualClock::standing(start), seed, Skew::default()).await;
    world
        .run(&[Step::Sell("acme", "pro"), Step::Grant("acme", 1 + random.below(4))])
        .await;
    for _ in 0..2 {
        let steps = [
            Step::Calls("acme", 2 + random.below(5)),
            Step::Stall(1_800 + random.below(HOUR_S / 2)),
        ];
        world.run(&steps).await;
    }
    world.set(machine_s());
    world
}

/// What the function is invoked with, one after the other.
async fn events(world: &mut World) -> [Value; 4] {
    [
        world.usage_event().await,
        json!({ "task": "tick" }),
        json!({ "task": "scan" }),
        json!({ "task": "tick" }),
    ]
}

/// How many calls a whole run makes.
async fn calls(seed: u64) -> u64 {
    let mut world = world(seed).await;
    let events = events(&mut world).await;
    let function = Function::start(&world).await;
    let never = Plan {
        at: At::Actor(Actor::Consumer),
        fault: Fault::KillBefore,
        nth: u64::MAX,
        times: 0,
        flavour: 0,
    };
    world.wire.plan(Some(never));
    for event in &events {
        function.invoke(event).await;
    }
    world.wire.looked_at()
}

/// Kills the consumer once, and says what is wrong in the end.
async fn kill(kill: Kill) -> Vec<String> {
    let mut world = world(kill.seed).await;
    let events = events(&mut world).await;
    let plan = Plan {
        at: At::Actor(Actor::Consumer),
        fault: kill.fault,
        nth: kill.nth,
        times: 1,
        flavour: 0,
    };
    let function = Function::start(&world).await;
    world.wire.plan(Some(plan));
    let mut was_killed = false;
    for event in &events {
        tokio::select! {
            () = world.wire.doomed() => was_killed = true,
            _ = function.invoke(event) => {}
        }
        if was_killed {
            break;
        }
    }
    drop(function);
    world.wire.plan(None);
    let mut problems = Vec::new();
    if !was_killed {
        problems.push("there was no such call".to_owned());
    }

    // Another environment: the queue brings the batch again, and the schedule goes on.
    let function = Function::start(&world).await;
    for event in &events {
        function.invoke(event).await;
    }
    drop(function);
    let (rows, _) = world.system.books.ledger.scan().await.expect("the ledger is readable");
    for row in rows.iter().filter(|row| !matches!(row.state, RowState::Reported)) {
        // Only what the dead one had claimed may wait for its claim to end.
        if row.state != RowState::Sending || row.claim.is_none() {
            problems.push(format!("{} is {:?} after the restart", row.key, row.state));
        }
    }
    // The claim ends after five minutes.
    world.settle().await;
    let audit = world.audit().await;
    problems.extend(audit.problems);
    if audit.parked > 0 || audit.counted == 0 {
        problems.push(format!("{} of {} units are parked", audit.parked, audit.counted));
    }
    problems
}

/// Whether a run is called so.
pub(crate) fn is_run(name: &str) -> bool {
    parse(name).is_some()
}

/// Whether a kill under these seeds could be wanted. How many calls there are is known only when they were made.
pub(crate) fn is_any_wanted(seeds: Range<u64>) -> bool {
    let mut kills = seeds.flat_map(|seed| (0..CALLS_MAX).flat_map(move |nth| both(seed, nth)));
    kills.any(|kill| is_wanted(&kill.to_string()))
}

/// The two kills at a call.
fn both(seed: u64, nth: u64) -> [Kill; 2] {
    [Fault::KillBefore, Fault::KillAfter].map(|fault| Kill { seed, nth, fault })
}

/// What nobody may read in a log.
const SECRETS: [(&str, &str); 2] = [
    ("STRIPE_SECRET_KEY", "rk_test_51PlantedAtTheStart"),
    ("AWS_SECRET_ACCESS_KEY", "wJalrPlantedAtTheStart"),
];

/// Lambda is told by the exit code, and the operator by the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_lacks_a_table_or_a_queue_ends_and_names_it() {
    let system = System::start(Options::new()).await.expect("the local system starts");
    let no_queue = format!("{}-gone", system.queues().alerts);
    for (variable, value) in [
        ("ACCOUNTS_TABLE", "gone"),
        ("COUNTERS_TABLE", "gone"),
        ("LEDGER_TABLE", "gone"),
        ("ALERT_QUEUE_URL", no_queue.as_str()),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chaos-consumer"));
        command
            .env_clear()
            .envs(system.environment())
            .envs(SECRETS)
            .env(variable, value)
            // Nobody has events for it: it ends in any case.
            .env("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9")
            .stdin(Stdio::null());
        let ended = tokio::task::spawn_blocking(move || command.output()).await;
        let ended = ended.expect("no panic").expect("the consumer starts");
        let said = [ended.stdout, ended.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(ended.status.code(), Some(1), "{variable}: {said}");
        let named = format!("{variable} names {value}, of which AWS says: ");
        assert!(said.contains(&named), "{variable}: {said}");
        for (_, secret) in SECRETS {
            assert!(!said.contains(secret), "{variable}: {said}");
        }
    }
}

fn parse(text: &str) -> Option<Kill> {
    let mut parts = text.split('/');
    let fault = match parts.next()? {
        "kill-before" => Fault::KillBefore,
        "kill-after" => Fault::KillAfter,
        _ => return None,
    };
    Some(Kill {
        fault,
        nth: parts.next()?.parse().ok()?,
        seed: parts.next()?.parse().ok()?,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_killed_at_any_call_leaves_nothing_behind() {
    let begin = Instant::now();
    let mut kills = Vec::new();
    let seeds = match Effort::from_env() {
        Effort::Slice => {
            let calls = calls(SLICE_SEED).await;
            // Spread over the run: each side at every fourth call.
            kills.extend(
                (0..calls)
                    .step_by(4)
                    .zip([0, 1].into_iter().cycle())
                    .map(|(nth, side)| both(SLICE_SEED, nth)[side]),
            );
            SLICE_SEED..SLICE_SEED + 1
        }
        Effort::Long { seeds } => {
            for seed in seeds.clone() {
                let calls = calls(seed).await;
                assert!(calls < CALLS_MAX, "{calls} calls under seed {seed}");
                kills.extend((0..calls).flat_map(|nth| both(seed, nth)));
            }
            seeds
        }
        Effort::Replay(text) => match parse(&text) {
            Some(kill) => {
                kills.push(kill);
                kill.seed..kill.seed + 1
            }
            None => {
                assert!(faults::is_run(&text), "FAREBOX_CHAOS_REPLAY: there is no run {text}");
                return;
            }
        },
    };
    kills.retain(|kill| is_wanted(&kill.to_string()));
    if kills.is_empty() {
        assert!(
            faults::is_any_wanted(seeds),
            "FAREBOX_CHAOS_ONLY: no run has that in its name"
        );
        return;
    }
    let seeds: BTreeSet<u64> = kills.iter().map(|kill| kill.seed).collect();
    let n = kills.len();
    let failed = all("kills", kills, kill).await;
    for (kill, _) in &failed {
        say(&format!("to replay: FAREBOX_CHAOS_REPLAY='{kill}'"));
    }
    say(&format!(
        "{n} kills under {} seeds: {} failed; {:.0} s",
        seeds.len(),
        failed.len(),
        begin.elapsed().as_secs_f64()
    ));
    assert!(failed.is_empty(), "{} of {n} kills are not exact", failed.len());
}
