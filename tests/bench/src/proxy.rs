//! What stands between a function and the store when something is to be counted or encrypted.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// Every call names its operation in this header.
const TARGET: &[u8] = b"x-amz-target:";

/// Operations by name.
#[derive(Clone, Default)]
pub(crate) struct Counts(Arc<Mutex<BTreeMap<String, u64>>>);

impl Counts {
    /// Takes what was counted.
    pub(crate) fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, operation: &[u8]) {
        let name = String::from_utf8_lossy(operation);
        let name = name.trim().rsplit('.').next().unwrap_or_default().to_owned();
        *self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name)
            .or_default() += 1;
    }
}

/// What is done to the calls that go by, and what is seen of them.
#[derive(Clone, Default)]
pub(crate) struct Tap {
    /// Operations by name.
    pub(crate) counts: Counts,
    /// How many of a thousand calls are dropped, half of them before they arrive and half after they were done.
    per_mille: u32,
    /// The state of the generator that draws them (xorshift: any number but 0).
    draws: Arc<Mutex<u64>>,
    /// How long answers took, since this was last asked for.
    spent: Arc<Mutex<Duration>>,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    DroppedBefore,
    DroppedAfter,
}

impl Tap {
    /// Drops so many of a thousand calls; the same ones, as far as calls come in the same order, for the same seed.
    pub(crate) fn failing(per_mille: u32, seed: u64) -> Self {
        Self {
            per_mille,
            draws: Arc::new(Mutex::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)),
            ..Self::default()
        }
    }

    /// How long the answers took since this was last asked for.
    pub(crate) fn take_spent(&self) -> Duration {
        std::mem::take(&mut self.spent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn draw(&self) -> Fate {
        let mut state = self.draws.lock().unwrap_or_else(PoisonError::into_inner);
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        match u32::try_from(*state % 1_000).unwrap_or(u32::MAX) {
            n if n >= self.per_mille => Fate::Answered,
            n if n % 2 == 0 => Fate::DroppedBefore,
            _ => Fate::DroppedAfter,
        }
    }
}

/// Passes on what the tap lets through.
pub(crate) async fn between(to: SocketAddr, tap: Tap) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass(client, to, tap.clone()));
        }
    });
    Ok(address)
}

/// One connection. Calls follow each other on it: a request begins only after the last answer.
async fn pass(client: TcpStream, to: SocketAddr, tap: Tap) -> std::io::Result<()> {
    let server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let (mut request, mut answer) = ([0; 16_384], [0; 16_384]);
    let mut seen: Vec<u8> = Vec::new();
    let mut fate = Fate::Answered;
    let mut asked: Option<Instant> = None;
    loop {
        tokio::select! {
            read = from_client.read(&mut request) => {
                let n = read?;
                if n == 0 {
                    return Ok(());
                }
                // Whole lines are looked at; the last one may go on in the next packet.
                seen.extend(request[..n].iter().map(u8::to_ascii_lowercase));
                while let Some(end) = seen.iter().position(|&b| b == b'\n') {
                    let line: Vec<u8> = seen.drain(..=end).collect();
                    if let Some(operation) = line.strip_prefix(TARGET) {
                        tap.counts.add(operation);
                        fate = tap.draw();
                    }
                }
                if fate == Fate::DroppedBefore {
                    return Ok(());
                }
                asked.get_or_insert_with(Instant::now);
                to_server.write_all(&request[..n]).await?;
            }
            read = from_server.read(&mut answer) => {
                let n = read?;
                if let Some(asked) = asked.take() {
                    *tap.spent.lock().unwrap_or_else(PoisonError::into_inner) += asked.elapsed();
                }
                if n == 0 || fate == Fate::DroppedAfter {
                    return Ok(());
                }
                to_client.write_all(&answer[..n]).await?;
            }
        }
    }
}

/// Speaks TLS, with a certificate that it makes for itself; returns where, and the certificate.
pub(crate) async fn encrypting(to: SocketAddr) -> Result<(SocketAddr, String), String> {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).map_err(|e| e.to_string())?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(str::to_owned)?;
    let config = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .and_then(|config| {
            config
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
        })
        .map_err(|e| e.to_string())?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|e| e.to_string())?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let _ = client.set_nodelay(true);
                let (Ok(mut client), Ok(mut server)) = (acceptor.accept(client).await, TcpStream::connect(to).await)
                else {
                    return;
                };
                let _ = server.set_nodelay(true);
                let _ = join(&mut client, &mut server).await;
            });
        }
    });
    Ok((address, made.cert.pem()))
}

async fn join<A, B>(a: &mut A, b: &mut B) -> std::io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    copy_bidirectional(a, b).await
}
