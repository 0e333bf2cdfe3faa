//! What lies between an authorizer and its services: it can be watched, and cut.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use farebox_authorizer::{Authorizer, Deps};
use farebox_aws::{
    accounts::AccountTable,
    connect::{Clients, Settings},
    counters::CounterTable,
    queue::UsageQueue,
};
use farebox_local::System;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// The way to one service.
pub(crate) struct Wire {
    address: SocketAddr,
    operations: Operations,
    is_cut: watch::Sender<bool>,
}

/// How often each operation went by.
#[derive(Clone, Default)]
struct Operations(Arc<Mutex<BTreeMap<String, u32>>>);

impl Wire {
    pub(crate) async fn to(service: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, operations) = (listener.local_addr().expect("an address"), Operations::default());
        let (is_cut, cut) = watch::channel(false);
        let counted = operations.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (counted, mut cut) = (counted.clone(), cut.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = cut.wait_for(|is_cut| *is_cut) => {}
                        _ = pass_on(client, service, &counted) => {}
                    }
                });
            }
        });
        Self {
            address,
            operations,
            is_cut,
        }
    }

    /// What went by since this was last asked.
    pub(crate) fn seen(&self) -> Vec<(String, u32)> {
        let mut seen = self.operations.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *seen).into_iter().collect()
    }

    /// Closes every connection, those to come too, or lets them through again.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.is_cut.send_replace(is_cut);
    }
}

async fn pass_on(client: TcpStream, service: SocketAddr, operations: &Operations) -> std::io::Result<()> {
    let server = TcpStream::connect(service).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let there = async {
        let (mut line, mut buffer) = (Vec::new(), [0; 16_384]);
        loop {
            let n = from_client.read(&mut buffer).await?;
            if n == 0 {
                return Ok(());
            }
            for byte in &buffer[..n] {
                if *byte == b'\n' {
                    operations.line(&std::mem::take(&mut line));
                } else {
                    line.push(*byte);
                }
            }
            to_server.write_all(&buffer[..n]).await?;
        }
    };
    let back = async { copy(&mut from_server, &mut to_client).await.map(|_| ()) };
    tokio::try_join!(there, back).map(|_| ())
}

impl Operations {
    /// Every call names its operation in a header.
    fn line(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line).to_ascii_lowercase();
        if let Some(target) = line.strip_prefix("x-amz-target:") {
            let operation = target.trim().rsplit('.').next().unwrap_or_default().to_owned();
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *seen.entry(operation).or_default() += 1;
        }
    }
}

/// The ways to DynamoDB and SQS.
pub(crate) struct Wires {
    pub(crate) dynamodb: Wire,
    pub(crate) sqs: Wire,
}

impl Wires {
    pub(crate) async fn to(system: &System) -> Self {
        let [dynamodb, sqs, _] = system.services.addresses;
        Self {
            dynamodb: Wire::to(dynamodb).await,
            sqs: Wire::to(sqs).await,
        }
    }

    /// Clients at this end.
    pub(crate) fn clients(&self, system: &System) -> Clients {
        Clients::new(&Settings {
            dynamodb_endpoint: Some(format!("http://{}", self.dynamodb.address)),
            sqs_endpoint: Some(format!("http://{}", self.sqs.address)),
            ..system.services.settings.clone()
        })
    }

    /// An environment of the authorizer at this end, which remembers nothing.
    pub(crate) fn environment(&self, system: &System) -> Authorizer {
        let (clients, tables) = (self.clients(system), system.tables());
        Authorizer::new(Deps {
            accounts: AccountTable::new(clients.clone(), tables.accounts.clone()),
            counters: CounterTable::new(clients.clone(), tables.counters.clone()),
            queue: UsageQueue::new(clients, system.queues().usage.clone()),
            forbidden_403: true,
            usage_identifier_key: None,
        })
    }
}
