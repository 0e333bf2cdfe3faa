//! The embedded services, each behind its real wire protocol on a free port of 127.0.0.1.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use farebox_aws::connect::{Clients, Settings};
use farebox_stripe_standin::{Options as StripeOptions, StandIn};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{Error, Outbox, VirtualClock};

/// The secret key that the Stripe stand-in takes.
pub(crate) const STRIPE_KEY: &str = "sk_test_local";

/// The running services. They stop when this is dropped.
pub struct Services {
    /// Clients of the embedded DynamoDB and SQS.
    pub clients: Clients,
    /// A client of the Stripe stand-in.
    pub stripe: farebox_stripe::Client,
    /// The Stripe stand-in itself, to look into it and to make it misbehave.
    pub stand_in: StandIn,
    /// Where each listens: DynamoDB, SQS, Stripe.
    pub addresses: [SocketAddr; 3],
    /// What takes the place of SES, SNS and the customers' webhooks.
    pub outbox: Outbox,
    /// Where the outbox listens.
    pub outbox_address: SocketAddr,
    /// How AWS is reached.
    pub settings: Settings,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Services {
    /// Starts them, with what `data` keeps over restarts, or in memory.
    ///
    /// # Errors
    /// [`Error`] if a port, file or database can't be had.
    pub async fn start(data: Option<&Path>, clock: &VirtualClock) -> Result<Self, Error> {
        let database = match data {
            None => dynoxide::Database::memory(),
            Some(directory) => dynoxide::Database::new(&directory.join("dynamodb.sqlite").to_string_lossy()),
        };
        let database = database.map_err(Error::refused)?;
        let (dynamodb_listener, dynamodb) = listen().await?;
        let mut tasks = vec![tokio::spawn(dynoxide::server::serve_on(dynamodb_listener, database))];

        let (sqs_listener, sqs) = listen().await?;
        tasks.push(tokio::spawn(serve_sqs(sqs_listener, sqs)));

        let time = clock.clone();
        let mut options = StripeOptions::new(Arc::new(move || i64::try_from(time.now().s()).unwrap_or(i64::MAX)));
        options.journal = data.map(|directory| directory.join("stripe.jsonl"));
        options.secret_keys = vec![STRIPE_KEY.to_owned()];
        let stand_in = StandIn::open(options).map_err(Error::refused)?;
        let (stripe_listener, stripe) = listen().await?;
        let server = stand_in.clone();
        tasks.push(tokio::spawn(async move {
            if let Err(error) = server.serve(stripe_listener, std::future::pending::<()>()).await {
                tracing::error!(%error, "the Stripe stand-in stopped");
            }
        }));

        let time = clock.clone();
        let outbox = Outbox::new(move || time.now());
        let (outbox_listener, outbox_address) = listen().await?;
        let server = outbox.clone();
        tasks.push(tokio::spawn(async move {
            if let Err(error) = server.serve(outbox_listener).await {
                tracing::error!(%error, "the outbox stopped");
            }
        }));

        let settings = Settings {
            region: "us-east-1".to_owned(),
            credentials: aws_sdk_dynamodb::config::Credentials::new("local", "local", None, None, "local"),
            dynamodb_endpoint: Some(format!("http://{dynamodb}")),
            sqs_endpoint: Some(format!("http://{sqs}")),
        };
        let mut config = farebox_stripe::Config::new(farebox_stripe::SecretKey::new(STRIPE_KEY)?);
        config.base_url = format!("http://{stripe}");
        Ok(Self {
            clients: Clients::new(&settings),
            stripe: farebox_stripe::Client::new(config)?,
            stand_in,
            addresses: [dynamodb, sqs, stripe],
            outbox,
            outbox_address,
            settings,
            tasks: Mutex::new(tasks),
        })
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}

async fn listen() -> Result<(TcpListener, SocketAddr), Error> {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(Error::io("listen on 127.0.0.1"))?;
    let address = listener.local_addr().map_err(Error::io("listen on 127.0.0.1"))?;
    Ok((listener, address))
}

async fn serve_sqs(listener: TcpListener, address: SocketAddr) {
    use rustack_sqs_core::{config::SqsConfig, handler::RustackSqsHandler, provider::RustackSqs};
    let config = SqsConfig {
        host: "127.0.0.1".to_owned(),
        port: address.port(),
        ..SqsConfig::default()
    };
    let handler = Arc::new(RustackSqsHandler::new(Arc::new(RustackSqs::new(config))));
    let service = rustack_sqs_http::service::SqsHttpService::new(handler, Default::default());
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(hyper_util::rt::TokioIo::new(stream), service.clone());
        tokio::spawn(connection);
    }
}
