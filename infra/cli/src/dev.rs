//! `farebox dev`: everything on this machine, until it is stopped.

use std::time::Duration;

use farebox_local::{DEV_TIERS, Error, Options, System, VirtualClock};

use crate::{arguments::Dev, failure::Done};

/// The gateway's port unless another one is asked for.
const PORT: u16 = 8787;
/// How often waiting usage is folded and due work looked for.
const PACE: Duration = Duration::from_millis(500);

pub(crate) async fn run(Dev { port, data, tiers }: Dev) -> Result<Done, Error> {
    let port = port.unwrap_or(PORT);
    let tiers = match tiers {
        None => DEV_TIERS.to_owned(),
        Some(file) => std::fs::read_to_string(&file).map_err(|cause| Error::Io {
            what: format!("read {}", file.display()),
            cause,
        })?,
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
        clock: VirtualClock::running(0),
        environments: 1,
        docs_url: format!("{base}/_farebox/errors"),
    })
    .await?;
    let keys = system.ready_keys().await?;

    println!("Farebox is running: a gateway on {base} in front of a sample API.");
    println!(
        "{}",
        match &data {
            None => "Everything is in memory and gone when it stops (--data DIR keeps it).".to_owned(),
            Some(directory) => format!("Everything is kept in {}.", directory.display()),
        }
    );
    for (tier, key) in &keys {
        let (method, path) = match tier.as_str() {
            "free" => ("", "/v1/basic/hello"),
            "enterprise" => ("", "/v1/admin/stats"),
            _ => ("-X POST ", "/v1/generate"),
        };
        println!("\n{tier}:\n  curl -i {method}-H 'x-api-key: {key}' {base}{path}");
    }
    println!("\nSee what is counted:   curl {base}/_farebox/state");
    println!("Let an hour pass:      curl -X POST -d '{{\"advance_seconds\": 3600}}' {base}/_farebox/clock");
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
