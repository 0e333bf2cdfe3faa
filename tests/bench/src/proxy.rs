//! What stands between a function and the store when something is to be counted or encrypted.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional, split},
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

/// Passes everything on, and counts the operations that go by.
pub(crate) async fn counting(to: SocketAddr, counts: Counts) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(count(client, to, counts.clone()));
        }
    });
    Ok(address)
}

async fn count(client: TcpStream, to: SocketAddr, counts: Counts) -> std::io::Result<()> {
    let server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (split(client), split(server));
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut seen: Vec<u8> = Vec::new();
    let mut buffer = [0; 16_384];
    loop {
        let n = from_client.read(&mut buffer).await?;
        if n == 0 {
            break;
        }
        to_server.write_all(&buffer[..n]).await?;
        // Whole lines are looked at; the last one may go on in the next packet.
        seen.extend(buffer[..n].iter().map(u8::to_ascii_lowercase));
        while let Some(end) = seen.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = seen.drain(..=end).collect();
            if let Some(operation) = line.strip_prefix(TARGET) {
                counts.add(operation);
            }
        }
    }
    back.abort();
    Ok(())
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
