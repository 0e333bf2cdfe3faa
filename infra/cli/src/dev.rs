//! `farebox dev`: everything on this machine, until it is stopped.

use std::{path::Path, time::Duration};

use farebox_core::tiers::{Access, Catalog, Custom, Tier};
use farebox_local::{DEV_TIERS, Error, Options, SAMPLE_ROUTES, System, VirtualClock};

use crate::{
    arguments::Dev,
    failure::{Done, Failure},
    tiers::read,
};

/// The gateway's port unless another one is asked for.
const PORT: u16 = 8787;
/// How often waiting usage is folded and due work looked for.
const PACE: Duration = Duration::from_millis(500);

pub(crate) async fn run(
    Dev {
        port,
        data,
        tiers,
        env_file,
    }: Dev,
) -> Result<Done, Failure> {
    let port = port.unwrap_or(PORT);
    let keeps_catalog = tiers.is_none();
    let tiers = match tiers {
        None => DEV_TIERS.to_owned(),
        Some(file) => {
            let text = read(&file)?;
            // Mistakes are told with the name of the file, which the system does not know.
            Catalog::from_yaml(&text, &file.display().to_string()).map_err(Failure::failed)?;
            text
        }
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|cause| Error::Io {
            what: format!("listen on 127.0.0.1:{port} (another --port may be free)"),
            cause,
        })?;
    let address = listener.local_addr().map_err(|cause| Error::Io {
        what: "listen".to_owned(),
        cause,
    })?;
    let base = format!("http://{address}");
    let system = System::start(Options {
        data: data.clone(),
        tiers,
        keeps_catalog,
        clock: VirtualClock::running(0),
        environments: 1,
        docs_url: format!("{base}/_farebox/errors"),
    })
    .await?;
    let keys = system.ready_keys().await?;
    if let Some(file) = &env_file {
        write_environment(&system, file)?;
    }

    println!("Farebox is running: a gateway on {base} in front of a sample API.");
    println!(
        "{}",
        match &data {
            None => "Everything is in memory and gone when it stops (--data DIR keeps it).".to_owned(),
            Some(directory) => format!("Everything is kept in {}.", directory.display()),
        }
    );
    let (version, catalog) = &system.catalog;
    if keeps_catalog && *version > 1 {
        println!("Catalog {version} is sold, as it was stored (--tiers FILE stores another one).");
    }
    if !system.catalog_changes.is_empty() {
        println!("Catalog {version} is sold from now on:");
        for sentence in &system.catalog_changes {
            println!("  {sentence}");
        }
        println!("Who was sold an earlier one stays on it: farebox customers set-tier ID TIER moves.");
    }
    for (tier, key) in &keys {
        let (method, path) = open_route(catalog, tier);
        let method = match method.as_str() {
            "GET" => String::new(),
            method => format!("-X {method} "),
        };
        println!("\n{tier}:\n  curl -i {method}-H 'x-api-key: {key}' {base}{path}");
    }
    println!("\nSee what is counted:   curl {base}/_farebox/state");
    println!("Let an hour pass:      curl -X POST -d '{{\"advance_seconds\": 3600}}' {base}/_farebox/clock");
    println!(
        "See what was sent:     curl {base}/_farebox/outbox   (a webhook to try: http://{}/hooks/NAME)",
        system.services.outbox_address
    );
    if let Some(file) = &env_file {
        println!(
            "Run the functions:     cargo lambda watch --env-file {}",
            file.display()
        );
    }
    println!("Stop with Ctrl-C.");

    let schedule = system.clone();
    let pace = tokio::spawn(async move {
        loop {
            tokio::time::sleep(PACE).await;
            // Work that is due by now; the clock itself runs on its own.
            if let Err(error) = schedule.run_until(schedule.clock().now()).await {
                eprintln!("error: {error}");
            }
        }
    });
    let router = system.gateway.router(system.clone());
    let stopped = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    let served = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
    pace.abort();
    served.map_err(|cause| Error::Io {
        what: "serve".to_owned(),
        cause,
    })?;
    Ok(Done::Well)
}

/// Writes the environment of the functions, a line for each variable.
fn write_environment(system: &System, file: &Path) -> Result<(), Error> {
    let lines = system.environment().into_iter();
    let text: String = lines.map(|(name, value)| format!("{name}={value}\n")).collect();
    std::fs::write(file, text).map_err(|cause| Error::Io {
        what: format!("write {}", file.display()),
        cause,
    })
}

/// A route that is open to a tier, and that its limits have room for: one of the sample API's, else one of its own.
fn open_route(catalog: &Catalog, tier: &str) -> (String, String) {
    let Some(found) = catalog.tier(tier) else {
        return ("GET".to_owned(), "/".to_owned());
    };
    let sample = SAMPLE_ROUTES.map(|(method, path)| (method.to_owned(), path.to_owned()));
    let own = found.endpoints.iter().map(|pattern| {
        let text = pattern.to_string();
        let (method, path) = text.split_once(' ').unwrap_or(("GET", &text));
        (method.to_owned(), path.replace('*', "1"))
    });
    let own: Vec<(String, String)> = own.collect();
    let routes = || sample.iter().chain(&own);
    let is_open = |(method, path): &&(String, String)| match catalog.access(tier, method, path) {
        Access::Open { cost, .. } => fits(found, cost),
        Access::NotInTier { .. } | Access::NoSuchRoute => false,
    };
    let route = routes().find(is_open).or(own.first()).cloned();
    route.unwrap_or_else(|| ("GET".to_owned(), "/".to_owned()))
}

/// Whether every limit of a tier has room for so many units at once.
fn fits(tier: &Tier, units: u64) -> bool {
    match &tier.limits {
        Custom::Fixed(limits) => limits.iter().all(|limit| units <= limit.units),
        Custom::Custom => true,
    }
}
