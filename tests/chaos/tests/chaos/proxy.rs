//! What stands between an actor and a service: it reads whole requests, names their call site, and does to them what the
//! network and a service do on a bad day.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use farebox_stripe_standin::{FaultKind, StandIn};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    role,
    site::{Actor, Service, identify, operation},
    wire::{Strike, Wire},
};

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The connection closes; the service has never heard of the request.
    DropBefore,
    /// The service did it; the connection closes without an answer.
    DropAfter,
    /// The service gets the request twice; the caller gets one of the two answers.
    Duplicate,
    /// The service gets the request when the caller has given up.
    LateRequest,
    /// The service did it at once; the answer comes when the caller has given up.
    LateAnswer,
    /// 500, and nothing was done.
    Error500Before,
    /// 500, and it was done.
    Error500After,
    /// Too many requests; nothing was done.
    Throttle,
    /// The connection is reset in the middle of the answer.
    Reset,
    /// The answer says success and is half a document.
    Malformed,
    /// The caller is killed; the service has never heard of the request.
    KillBefore,
    /// The service did it; the caller is killed before it hears of it.
    KillAfter,
}

impl Fault {
    /// What the network and the services do; a kill is another matter.
    pub(crate) const ALL: [Self; 10] = [
        Self::DropBefore,
        Self::DropAfter,
        Self::Duplicate,
        Self::LateRequest,
        Self::LateAnswer,
        Self::Error500Before,
        Self::Error500After,
        Self::Throttle,
        Self::Reset,
        Self::Malformed,
    ];

    /// The word in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DropBefore => "drop-before",
            Self::DropAfter => "drop-after",
            Self::Duplicate => "duplicate",
            Self::LateRequest => "late-request",
            Self::LateAnswer => "late-answer",
            Self::Error500Before => "500-before",
            Self::Error500After => "500-after",
            Self::Throttle => "throttle",
            Self::Reset => "reset",
            Self::Malformed => "malformed",
            Self::KillBefore => "kill-before",
            Self::KillAfter => "kill-after",
        }
    }

    /// Whether a caller can't tell afterwards if the request was done.
    pub(crate) fn is_ambiguous(self) -> bool {
        !matches!(self, Self::Duplicate | Self::Throttle)
    }
}

/// A proxy on a port of its own. It stops when this is dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whom a proxy serves, and who serves it.
pub(crate) struct Between {
    pub(crate) actor: Actor,
    pub(crate) service: Service,
    pub(crate) upstream: SocketAddr,
    /// Stripe's own faults, which it stores under the idempotency key.
    pub(crate) stripe: StandIn,
    /// How long a caller waits, and a bit.
    pub(crate) patience: Duration,
    pub(crate) wire: Wire,
}

impl Proxy {
    pub(crate) async fn start(between: Between) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let between = Arc::new(between);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let _ = client.set_nodelay(true);
                let between = Arc::clone(&between);
                // A peer that went away is no failure of ours.
                tokio::spawn(async move { drop(between.serve(client).await) });
            }
        });
        Self { address, task }
    }
}

/// A request or an answer as it stands on the wire.
#[derive(Clone)]
pub(crate) struct Message {
    head: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    async fn read(stream: &mut TcpStream) -> io::Result<Option<Self>> {
        let (mut seen, mut buffer) = (Vec::new(), [0; 16_384]);
        let end = loop {
            if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read(&mut buffer).await? {
                0 => return Ok(None),
                n => seen.extend_from_slice(&buffer[..n]),
            }
        };
        let body = seen.split_off(end);
        let mut message = Self { head: seen, body };
        let length = match message.header("content-length") {
            Some(length) => length.parse().map_err(io::Error::other)?,
            None if message.header("transfer-encoding").is_some() => {
                return Err(io::Error::other("a body without a length"));
            }
            None => 0,
        };
        while message.body.len() < length {
            match stream.read(&mut buffer).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => message.body.extend_from_slice(&buffer[..n]),
            }
        }
        Ok(Some(message))
    }

    async fn write(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(&[self.head.as_slice(), &self.body].concat()).await
    }

    /// The request line or the status line.
    pub(crate) fn first_line(&self) -> &str {
        self.lines().next().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let of = |line: &'_ str| {
            line.split_once(':')
                .map(|(name, value)| (name.to_owned(), value.trim().len()))
        };
        let line = self
            .lines()
            .skip(1)
            .find(|line| of(line).is_some_and(|(found, _)| found.eq_ignore_ascii_case(name)))?;
        Some(line.split_once(':')?.1.trim())
    }

    fn lines(&self) -> impl Iterator<Item = &str> {
        std::str::from_utf8(&self.head).unwrap_or_default().split("\r\n")
    }

    pub(crate) fn is_success(&self) -> bool {
        self.first_line()
            .split(' ')
            .nth(1)
            .is_some_and(|status| status.starts_with('2'))
    }

    fn answer(status: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {length}\r\n\r\n"
        );
        Self {
            head: head.into_bytes(),
            body: body.as_bytes().to_vec(),
        }
    }

    /// The same answer with half of its body, and a length that fits.
    fn malformed(&self) -> Self {
        let half = String::from_utf8_lossy(&self.body[..self.body.len() / 2]).into_owned();
        let mut answer = Self::answer("200 OK", &half);
        // An empty body was nothing to cut.
        if half.is_empty() {
            answer = Self::answer("200 OK", "{");
        }
        answer
    }
}

/// A request and the call site that it comes from.
#[derive(Clone)]
struct Call {
    site: Result<&'static str, String>,
    request: Message,
}

impl Between {
    async fn serve(self: Arc<Self>, mut client: TcpStream) -> io::Result<()> {
        let mut server = None;
        while let Some(request) = Message::read(&mut client).await? {
            let site = identify(self.service, &request);
            let asked = operation(self.service, &request);
            if let Err(refused) = role::may(self.actor, self.service, &asked, &request.body) {
                self.wire.forbidden(refused);
            }
            let call = Call { site, request };
            let answer = match self.wire.arrives(self.actor, self.service, &call.site) {
                None => Some(self.forward(&mut server, &call).await?),
                Some(strike) => self.strike(strike, &mut client, &mut server, &call).await?,
            };
            match answer {
                Some(answer) => answer.write(&mut client).await?,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// What the caller hears of a call that a fault befalls; `None` ends the connection.
    async fn strike(
        self: &Arc<Self>,
        strike: Strike,
        client: &mut TcpStream,
        server: &mut Option<TcpStream>,
        call: &Call,
    ) -> io::Result<Option<Message>> {
        Ok(match strike.fault {
            Fault::DropBefore => None,
            Fault::DropAfter => {
                self.forward(server, call).await?;
                None
            }
            Fault::Duplicate => {
                let first = self.forward(server, call).await?;
                let second = self.forward(server, call).await?;
                Some(if strike.flavour.is_multiple_of(2) {
                    first
                } else {
                    second
                })
            }
            Fault::LateRequest => {
                let (between, call, late) = (Arc::clone(self), call.clone(), self.wire.late());
                tokio::spawn(async move {
                    tokio::time::sleep(between.patience).await;
                    drop(between.forward(&mut None, &call).await);
                    drop(late);
                });
                tokio::time::sleep(self.patience).await;
                None
            }
            Fault::LateAnswer => {
                let answer = self.forward(server, call).await?;
                tokio::time::sleep(self.patience).await;
                Some(answer)
            }
            Fault::Error500Before | Fault::Error500After | Fault::Throttle if self.service == Service::Stripe => {
                self.stripe.misbehave(farebox_stripe_standin::Fault {
                    method: None,
                    path_prefix: String::new(),
                    times: 1,
                    kind: match strike.fault {
                        Fault::Error500Before => FaultKind::Error500BeforeCommit,
                        Fault::Error500After => FaultKind::Error500AfterCommit,
                        _ => FaultKind::RateLimited429,
                    },
                });
                Some(self.forward(server, call).await?)
            }
            Fault::Error500Before => Some(self.service.failure()),
            Fault::Error500After => {
                self.forward(server, call).await?;
                Some(self.service.failure())
            }
            Fault::Throttle => Some(self.service.throttled(strike.flavour)),
            Fault::Reset => {
                let answer = self.forward(server, call).await?;
                let half = Message {
                    head: answer.head.clone(),
                    body: answer.body[..answer.body.len() / 2].to_vec(),
                };
                half.write(client).await?;
                client.set_zero_linger()?;
                None
            }
            Fault::Malformed => {
                let answer = self.forward(server, call).await?;
                // A refusal is left as it is: nobody takes it for a success.
                let is_success = answer.is_success();
                if !is_success {
                    self.wire.begins();
                }
                Some(if is_success { answer.malformed() } else { answer })
            }
            Fault::KillBefore => {
                self.wire.doom().await;
                None
            }
            Fault::KillAfter => {
                self.forward(server, call).await?;
                self.wire.doom().await;
                None
            }
        })
    }

    /// Passes a request on and notes what the service made of it.
    async fn forward(&self, server: &mut Option<TcpStream>, call: &Call) -> io::Result<Message> {
        if server.is_none() {
            let stream = TcpStream::connect(self.upstream).await?;
            stream.set_nodelay(true)?;
            *server = Some(stream);
        }
        let Some(stream) = server.as_mut() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        call.request.write(stream).await?;
        let answer = Message::read(stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if answer
            .header("connection")
            .is_some_and(|word| word.eq_ignore_ascii_case("close"))
        {
            *server = None;
        }
        if answer.is_success() {
            self.wire.done(&call.site, &call.request);
        }
        Ok(answer)
    }
}

impl Service {
    /// What a failing service says
    /// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>).
    fn failure(self) -> Message {
        let body = match self {
            Self::Table => r#"{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError","message":"chaos"}"#,
            Self::Queue => r#"{"__type":"com.amazonaws.sqs#InternalError","message":"chaos"}"#,
            Self::Stripe => r#"{"error":{"type":"api_error","message":"chaos"}}"#,
        };
        Message::answer("500 Internal Server Error", body)
    }

    /// What a busy service says, in one of its ways.
    fn throttled(self, flavour: u64) -> Message {
        let table = [
            "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
            "com.amazon.coral.availability#ThrottlingException",
            "com.amazonaws.dynamodb.v20120810#RequestLimitExceeded",
        ];
        let kind = match self {
            Self::Table => table[(flavour % 3) as usize],
            Self::Queue => "com.amazonaws.sqs#RequestThrottled",
            // The stand-in says it itself.
            Self::Stripe => "rate_limit",
        };
        Message::answer(
            "400 Bad Request",
            &format!(r#"{{"__type":"{kind}","message":"chaos"}}"#),
        )
    }
}
