//! No command shows a secret, whatever it is given and whoever refuses it; only what makes a key shows it, and once.

#[path = "support/commands.rs"]
mod commands;
#[path = "support/deployed.rs"]
mod deployed;
mod support;

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{extract::Request, response::IntoResponse};
use farebox_core::key::ApiKey;
use farebox_local::DEV_TIERS;
use farebox_stripe_standin::{Options as StripeOptions, StandIn};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    commands::commands,
    deployed::{AWS_SECRET, Directory, FUNCTIONS_KEY, operator, stack},
    support::{farebox, run, serve},
};

/// Stripe's keys: one that it takes, and one that it does not (any more).
const STRIPE_KEY: &str = "rk_test_51PlantedQ2v8XkD4mZ7sR1tY9wB3nC6hJ0";
const REFUSED_KEY: &str = "sk_live_51RefusedH5gK8pL2xV9bN4cM7qW1eT3yU6";
/// What Stripe signs its events with.
const EVENT_SECRET: &str = "whsec_PlantedEvents7Kp2Zx9Qw4Rt6Yu8Io1";
/// An API key of nobody's here, and the same mistyped.
const STRANGERS: [&str; 2] = [
    "fb_live_Zq8Lw3Xn6Vb1Cm4Kj7Hg2Fd5Sa9Po0Iu3Yt6Re8Wq1ZxNc4Vb",
    "fb_test_Zq8Lw3Xn6Vb1Cm4Kj7Hg2Fd5Sa9Po0Iu3Yt6Re8Wq1ZxNc4V",
];
/// Where nobody answers.
const NOBODY: &str = "http://127.0.0.1:1";
/// The places where all is well; their customers are called the same.
const LOCAL: &str = "local";
const DEPLOYED: &str = "deployed";
/// So many commands run at once.
const AT_ONCE: usize = 6;
/// So many characters in a row of a secret are a part of it.
const PART: usize = 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shows {
    Nothing,
    /// What it makes: an API key, a webhook's secret, or both.
    New(&'static [&'static str]),
    /// What `farebox dev` is for: it has a test of its own, and here its mistakes are made.
    Stays,
}

const KEY: &[&str] = &["fb_"];
const SIGNING: &[&str] = &["whsec_"];
const BOTH: &[&str] = &["fb_", "whsec_"];

/// A command, its arguments, and what it may show.
type Case = (&'static str, &'static str, Shows);

/// Every command, with arguments that do something. `ACME` is a customer, `NEW` another one each time, `HASH` that of the newest key,
/// `FILE` a file with tiers.
const COMMANDS: [Case; 35] = [
    ("dev", "--port 0 --tiers FILE", Shows::Stays),
    ("demo", "", Shows::Stays),
    ("doctor", "--tiers FILE", Shows::Nothing),
    (
        "deploy",
        "--dry-run --tiers FILE --parameter StripeKeySecretArn=arn",
        Shows::Nothing,
    ),
    ("destroy", "--yes farebox", Shows::Nothing),
    ("tiers check", "FILE", Shows::Nothing),
    ("tiers diff", "FILE", Shows::Nothing),
    ("tiers apply", "FILE --yes", Shows::Nothing),
    (
        "customers add",
        "NEW --tier pro --name Acme --email a@acme.example --webhook https://acme.example/hook --key",
        Shows::New(BOTH),
    ),
    ("customers show", "ACME", Shows::Nothing),
    ("customers list", "", Shows::Nothing),
    (
        "customers grant",
        "ACME 100 --meter api_calls --id gift",
        Shows::Nothing,
    ),
    ("customers cap", "ACME 100", Shows::Nothing),
    (
        "customers contact",
        "ACME --email new@acme.example --rotate-webhook-secret",
        Shows::New(SIGNING),
    ),
    ("customers follow", "", Shows::Nothing),
    ("customers suspend", "ACME", Shows::Nothing),
    ("customers resume", "ACME", Shows::Nothing),
    ("customers set-tier", "ACME pro --at-period-end", Shows::Nothing),
    (
        "keys issue",
        "ACME --name ci --scope /v1/* --expires 90d",
        Shows::New(KEY),
    ),
    ("keys rotate", "HASH --grace 24h", Shows::New(KEY)),
    ("keys list", "ACME", Shows::Nothing),
    ("keys revoke", "HASH", Shows::Nothing),
    ("usage show", "ACME --period current", Shows::Nothing),
    ("usage top", "-n 3", Shows::Nothing),
    ("usage tail", "ACME --looks 1", Shows::Nothing),
    ("alerts test", "ACME", Shows::Nothing),
    ("alerts list", "ACME", Shows::Nothing),
    ("reconcile", "ACME --period current --rows", Shows::Nothing),
    ("stripe repair", "", Shows::Nothing),
    ("events replay", "--queue usage", Shows::Nothing),
    ("counters restore", "ACME 0", Shows::Nothing),
    ("period close", "ACME --now", Shows::Nothing),
    ("cost", "--calls 10M", Shows::Nothing),
    ("completions", "bash", Shows::Nothing),
    ("customers cancel", "ACME --yes", Shows::Nothing),
];

/// How a command is started, and what it may not say.
struct Place {
    name: &'static str,
    variables: Vec<(&'static str, String)>,
    /// What stands for `ACME` and `HASH`.
    customer: String,
    hash: String,
}

/// What must not be seen. Grows with every key that is made.
struct Planted(Vec<String>);

impl Planted {
    /// Looks for every secret, whole, in part and in hexadecimal digits.
    #[track_caller]
    fn nowhere(&self, what: &str, said: &str) {
        for secret in &self.0 {
            // The beginning says what it is: `sk_test_`, and of an API key the four characters that `keys list` shows.
            let hidden = match ApiKey::parse(secret) {
                Ok(key) => &secret[key.display_prefix().len()..],
                Err(_) => secret.rsplit('_').next().unwrap_or(secret),
            };
            let hex: String = hidden.bytes().map(|byte| format!("{byte:02x}")).collect();
            let parts = (0..=hidden.len().saturating_sub(PART)).map(|at| &hidden[at..hidden.len().min(at + PART)]);
            for part in parts.chain([secret.as_str(), &hex]) {
                let Some(at) = said.find(part) else { continue };
                let line = said[..at].lines().count().saturating_sub(1);
                panic!(
                    "{what} shows {part} of {secret}: {}",
                    said.lines().nth(line).unwrap_or(said)
                );
            }
        }
    }
}

/// The secrets that stand in a text: those that begin so.
fn secrets(text: &str, kind: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_+/=".contains(c)));
    let long = words.filter(|word| word.starts_with(kind) && word.len() > 30);
    long.map(str::to_owned).collect()
}

impl Place {
    fn words(&self, path: &str, arguments: &str, file: &str) -> Vec<String> {
        static NEW: AtomicUsize = AtomicUsize::new(0);
        let fill = |word: &str| match word {
            "ACME" => self.customer.clone(),
            "HASH" => self.hash.clone(),
            "FILE" => file.to_owned(),
            "NEW" => format!("new-{}", NEW.fetch_add(1, Ordering::Relaxed)),
            word => word.to_owned(),
        };
        path.split(' ').chain(arguments.split_whitespace()).map(fill).collect()
    }

    async fn said(&self, words: &[String], tools: &Directory, more: &[(&str, &str)]) -> (i32, String, String) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let own = self.variables.iter().map(|(name, value)| (*name, value.as_str()));
        let variables: Vec<(&str, &str)> = own.chain(more.iter().copied()).collect();
        let said = run(operator(&words, tools, &variables)).await;
        assert!(!said.2.contains("panicked"), "{}: {words:?}: {}", self.name, said.2);
        said
    }
}

/// A Stripe that takes one key only.
async fn strict_stripe() -> String {
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
    };
    let mut options = StripeOptions::new(Arc::new(move || i64::try_from(now()).unwrap_or_default()));
    options.secret_keys = vec![STRIPE_KEY.to_owned()];
    let stand_in = StandIn::open(options).expect("a stand-in");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(stand_in.serve(listener, std::future::pending::<()>()));
    url
}

/// A Stripe that says in its refusals everything that it was told.
async fn talkative_stripe(status: u16) -> String {
    let answer = move |request: Request| async move {
        let headers = format!("{:?}", request.headers());
        // A key at the end of what is quoted, and one where it is cut.
        let message = format!("{} {headers} {}", request.uri(), headers.repeat(9));
        let code = axum::http::StatusCode::from_u16(status).expect("a status");
        let error = json!({ "error": { "type": headers, "code": headers, "param": headers, "message": message } });
        (code, axum::Json(error)).into_response()
    };
    serve(axum::Router::new().fallback(answer)).await
}

/// The places, and what may not be said in any of them.
struct World {
    tools: Directory,
    /// Tiers, and as they are sold.
    file: String,
    places: Vec<Place>,
    planted: Planted,
}

impl World {
    /// Two places that work, and those where something is wrong. The first customer of each that works is sold by its command.
    async fn start(name: &str) -> Self {
        let tools = Directory::with_sam(name, "1.170.0");
        let file = tools.0.join("tiers.yaml");
        std::fs::write(&file, DEV_TIERS).expect("a file");
        let (system, mut deployed) = stack().await;
        let gateway = serve(system.gateway.router(system.clone())).await;
        deployed.push(("STRIPE_WEBHOOK_SECRETS", EVENT_SECRET.to_owned()));
        let with = |key: &str, url: &str| {
            let stripe = [("STRIPE_SECRET_KEY", key), ("STRIPE_BASE_URL", url)];
            let stripe = stripe.map(|(name, value)| (name, value.to_owned()));
            deployed.iter().cloned().chain(stripe).collect::<Vec<_>>()
        };
        let strict = strict_stripe().await;
        let at = |gateway: &str| {
            let mut variables = with(STRIPE_KEY, &strict);
            variables.push(("FAREBOX_LOCAL", gateway.to_owned()));
            variables
        };
        let mut no_aws = with(STRIPE_KEY, NOBODY);
        for (name, value) in &mut no_aws {
            if name.starts_with("AWS_ENDPOINT_URL") {
                *value = NOBODY.to_owned();
            }
        }
        let all = [
            (LOCAL, at(&gateway)),
            (DEPLOYED, with(STRIPE_KEY, &strict)),
            ("a key that Stripe refuses", with(REFUSED_KEY, &strict)),
            (
                "a Stripe that quotes in a 401",
                with(STRIPE_KEY, &talkative_stripe(401).await),
            ),
            (
                "a Stripe that quotes in a 400",
                with(STRIPE_KEY, &talkative_stripe(400).await),
            ),
            ("no Stripe", with(STRIPE_KEY, NOBODY)),
            ("no AWS", no_aws),
            ("no local system", at(NOBODY)),
        ];
        let mut world = Self {
            tools,
            file: file.to_str().expect("a path").to_owned(),
            places: Vec::new(),
            planted: planted(),
        };
        for (name, variables) in all {
            let works = matches!(name, LOCAL | DEPLOYED);
            let mut place = Place {
                name,
                variables,
                customer: if works { name } else { DEPLOYED }.to_owned(),
                hash: String::new(),
            };
            if works {
                let sold = "NAME --tier pro --key --webhook https://acme.example/hook".replace("NAME", name);
                for (path, arguments) in [("tiers apply", "FILE --yes"), ("customers add", &sold)] {
                    let words = place.words(path, arguments, &world.file);
                    let (code, stdout, stderr) = place.said(&words, &world.tools, &[]).await;
                    assert_eq!(code, 0, "{words:?}: {stdout}{stderr}");
                    world
                        .planted
                        .0
                        .extend(BOTH.iter().flat_map(|kind| secrets(&stdout, kind)));
                }
            }
            let key = world
                .planted
                .0
                .iter()
                .rev()
                .find_map(|secret| ApiKey::parse(secret).ok());
            place.hash = key.expect("a key was sold").hash().to_string();
            world.places.push(place);
        }
        assert_eq!(
            world.planted.0.len(),
            planted().0.len() + 4,
            "a key and a secret of each customer"
        );
        world
    }
}

/// Waits for all, a few at a time.
async fn all(jobs: impl IntoIterator<Item: Future<Output = ()> + Send + 'static>) {
    let mut running = JoinSet::new();
    for job in jobs {
        if running.len() >= AT_ONCE {
            running.join_next().await.expect("one runs").expect("no panic");
        }
        running.spawn(job);
    }
    running.join_all().await;
}

fn planted() -> Planted {
    let secrets = [STRIPE_KEY, REFUSED_KEY, EVENT_SECRET, FUNCTIONS_KEY, AWS_SECRET];
    Planted(secrets.into_iter().chain(STRANGERS).map(str::to_owned).collect())
}

#[tokio::test]
async fn no_command_is_left_out() {
    let listed: BTreeSet<String> = COMMANDS.iter().map(|(path, ..)| (*path).to_owned()).collect();
    assert_eq!(commands().await, listed, "add a new command to COMMANDS");
}

/// The code that a command ends with where all is well.
fn ends(place: &Place, path: &str) -> i32 {
    match (place.name, path) {
        (LOCAL, "deploy" | "destroy") => 64,
        // The stack is set as badly as doctor can find it, and something waits in its queues.
        (DEPLOYED, "doctor" | "destroy") => 1,
        // A trial that says what would change.
        (DEPLOYED, "deploy") => 2,
        _ => 0,
    }
}

/// Runs a command as it is meant to be; returns the secrets that it made.
async fn meant(world: &World, place: &Place, case: Case, json: bool, log: &str) -> Vec<String> {
    let (path, arguments, shows) = case;
    let works = matches!(place.name, LOCAL | DEPLOYED);
    let mut words = place.words(path, arguments, &world.file);
    words.extend(json.then(|| "--json".to_owned()));
    let (code, stdout, stderr) = place.said(&words, &world.tools, &[("FAREBOX_LOG", log)]).await;
    let what = format!("{}: {words:?}", place.name);
    assert!(
        !works || code == ends(place, path),
        "{what} ended with {code}: {stdout}{stderr}"
    );
    let is_of_aws = ["deploy", "destroy"].contains(&path);
    assert!(code != 64 || is_of_aws, "{what} is understood: {stderr}");
    world.planted.nowhere(&what, &format!("{stdout}\n{stderr}"));
    let mut made = Vec::new();
    for kind in BOTH {
        let new = secrets(&stdout, kind);
        let may = matches!(shows, Shows::New(kinds) if kinds.contains(kind));
        // Where something is wrong it may come to that, or not.
        let fits = if works {
            new.len() == usize::from(may)
        } else {
            new.len() <= usize::from(may)
        };
        assert!(fits, "{what}: {} of {kind}: {stdout}{stderr}", new.len());
        assert_eq!(secrets(&stderr, kind), [""; 0], "{what}: keys stand on stdout alone");
        made.extend(new);
    }
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_shows_a_secret_where_all_is_well() {
    let mut world = World::start("secrets-well").await;
    for place in [0, 1] {
        for case in COMMANDS.into_iter().filter(|(.., shows)| *shows != Shows::Stays) {
            for (json, log) in [(false, "off"), (true, "off"), (false, "trace")] {
                let made = meant(&world, &world.places[place], case, json, log).await;
                // A key is replaced once: what took its place is next.
                if let Some(key) = made.iter().find_map(|secret| ApiKey::parse(secret).ok()) {
                    world.places[place].hash = key.hash().to_string();
                }
                world.planted.0.extend(made);
            }
        }
    }
    assert_eq!(
        world.planted.0.len(),
        planted().0.len() + 4 + 2 * 3 * 5,
        "what was made is looked for from then on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_shows_a_secret_where_it_fails() {
    let world = Arc::new(World::start("secrets-fails").await);
    let cases = COMMANDS.into_iter().filter(|(.., shows)| *shows != Shows::Stays);
    let runs = cases.flat_map(|case| (2..world.places.len()).map(move |place| (case, place)));
    all(runs.flat_map(|(case, place)| {
        [(false, "trace"), (true, "off")].map(|(json, log)| {
            let world = world.clone();
            async move {
                meant(&world, &world.places[place], case, json, log).await;
            }
        })
    }))
    .await;
}

/// A command with a secret in every place in turn, and in those where any command has one.
fn mistakes(world: &World, place: &Place, (path, arguments, shows): Case, typed: &[String]) -> Vec<Vec<String>> {
    let sound = place.words(path, arguments, &world.file);
    let mut mistakes = Vec::new();
    for at in path.split(' ').count()..sound.len() {
        for secret in typed {
            let mut words = sound.clone();
            words[at] = match sound[at].split_once('=') {
                _ if sound[at] == world.file => file_with(secret, world),
                _ if sound[at].starts_with('-') => continue,
                Some((name, _)) => format!("{name}={secret}"),
                None => secret.clone(),
            };
            mistakes.push(words);
        }
    }
    let everywhere = [
        "SECRET",
        "--SECRET",
        "--local=SECRET",
        "--local=http://SECRET@127.0.0.1:1",
    ];
    let of_options = ["--stack SECRET", "--region SECRET", "--profile SECRET"];
    // With these alone nothing is wrong for what begins a system of its own, and it would stay.
    let of_options = of_options.into_iter().filter(|_| shows != Shows::Stays);
    let everywhere = everywhere
        .into_iter()
        .filter(|more| shows != Shows::Stays || !more.contains("local"));
    for (more, secret) in everywhere
        .chain(of_options)
        .zip(typed.iter().cycle().skip(path.len() % typed.len()))
    {
        let more = more.replace("SECRET", secret);
        mistakes.push(
            sound
                .iter()
                .cloned()
                .chain(more.split(' ').map(str::to_owned))
                .collect(),
        );
    }
    mistakes
}

/// A file that holds a secret where tiers were expected.
fn file_with(secret: &str, world: &World) -> String {
    let file = world.tools.0.join(format!("secret-{}", &secret[..12]));
    std::fs::write(&file, format!("{secret}\n")).expect("a file");
    file.to_str().expect("a path").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_typed_where_it_does_not_belong_is_not_repeated() {
    let world = Arc::new(World::start("secrets-typed").await);
    let typed = [STRIPE_KEY, REFUSED_KEY, EVENT_SECRET].into_iter().chain(STRANGERS);
    let sold = world.planted.0.iter().filter(|secret| ApiKey::parse(secret).is_ok());
    let typed: Vec<String> = typed.map(str::to_owned).chain(sold.take(1).cloned()).collect();
    let mut runs = Vec::new();
    for case in COMMANDS {
        let place = usize::from(["doctor", "deploy", "destroy"].contains(&case.0));
        let mistakes = mistakes(&world, &world.places[place], case, &typed);
        runs.extend(mistakes.into_iter().map(|words| (place, words)));
    }
    assert!(runs.len() > 500, "{}", runs.len());
    all(runs.into_iter().enumerate().map(|(i, (place, mut words))| {
        let world = world.clone();
        async move {
            words.extend((i % 2 == 1).then(|| "--json".to_owned()));
            let (_, stdout, stderr) = world.places[place].said(&words, &world.tools, &[]).await;
            world
                .planted
                .nowhere(&format!("{words:?}"), &format!("{stdout}\n{stderr}"));
        }
    }))
    .await;
    world
        .planted
        .nowhere("what sam is given", &world.tools.calls().join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_is_given_no_secret_as_a_parameter() {
    let tools = Directory::with_sam("secrets-parameter", "1.170.0");
    let parameter = format!("StripeKeySecretArn={STRIPE_KEY}");
    let (code, stdout, stderr) = run(operator(&["deploy", "--yes", "--parameter", &parameter], &tools, &[])).await;
    assert_eq!(code, 64, "{stdout}{stderr}");
    assert!(
        stderr.contains("the value of StripeKeySecretArn is a key or a secret"),
        "{stderr}"
    );
    assert_eq!(tools.calls(), [""; 0]);
}

/// A process that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_local_system_shows_each_ready_key_once_and_nothing_else() {
    let variables = [("STRIPE_SECRET_KEY", STRIPE_KEY), ("AWS_SECRET_ACCESS_KEY", AWS_SECRET)];
    let directory = Directory::new("secrets-dev");
    let environment = directory.0.join("env");
    let environment = environment.to_str().expect("a path");
    let mut command = farebox(&["dev", "--port", "0", "--env-file", environment], &variables);
    let mut dev = Running(command.stdout(Stdio::piped()).spawn().expect("farebox starts"));
    let stdout = BufReader::new(dev.0.stdout.take().expect("stdout is piped"));
    let mut said = String::new();
    for line in stdout.lines() {
        let line = line.expect("text");
        said.push_str(&line);
        said.push('\n');
        if line.starts_with("Stop with") {
            break;
        }
    }
    planted().nowhere("dev", &said);
    let keys = secrets(&said, "fb_");
    assert_eq!(
        (keys.len(), keys.iter().collect::<BTreeSet<_>>().len()),
        (3, 3),
        "one for each tier: {said}"
    );
    let written = std::fs::read_to_string(environment).expect("the functions' environment");
    for name in ["STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRETS", "FIRST_KEY_SECRET"] {
        let line = written
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let value = line.expect("a variable of the functions");
        assert!(!said.contains(value), "dev shows {name}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_no_key() {
    let (code, stdout, stderr) = run(farebox(&["demo"], &[("STRIPE_SECRET_KEY", STRIPE_KEY)])).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    let said = stdout + &stderr;
    planted().nowhere("demo", &said);
    for kind in BOTH {
        assert_eq!(secrets(&said, kind), [""; 0], "the demo");
    }
    assert!(!said.contains("sk_test_"), "{said}");
}
