//! Signature Version 4 (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html>) for the two services that a
//! decision speaks to: a POST of a small JSON body without a query.
//!
//! The SDK's signer is right for every service and derives the day's signing key anew for every request; that and its canonical
//! form are a third of all instructions of a call. This one keeps the key for as long as day and secret last, signs with the
//! TLS library's SHA-256, and covers what must be covered: the host, the content type and every `x-amz-` header. A test holds
//! it to the SDK's own signatures. The SDK's correction of a wrong clock is not repeated here: Lambda's clock is right.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use aws_sdk_dynamodb::config::Credentials;
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        auth::{AuthScheme, AuthSchemeEndpointConfig, AuthSchemeId, Sign},
        identity::{Identity, SharedIdentityResolver},
        orchestrator::HttpRequest,
        runtime_components::{GetIdentityResolver, RuntimeComponents},
    },
};
use aws_smithy_types::{DateTime, config_bag::ConfigBag, date_time::Format};
use ring::{
    digest::{SHA256, digest},
    hmac,
};

/// The SDK's name for the scheme, which this takes the place of.
const SCHEME: AuthSchemeId = AuthSchemeId::new("sigv4");
/// Of no use to anybody here, and signed if it is sent.
const USER_AGENT: &str = "x-amz-user-agent";

/// The scheme for one service in one region.
pub(crate) struct SigV4 {
    service: &'static str,
    region: String,
    kept: Mutex<Option<Kept>>,
}

/// A day's signing key.
struct Kept {
    day: String,
    secret: String,
    key: hmac::Key,
}

/// What is signed.
struct Subject<'a> {
    path: &'a str,
    /// Names in lower case, sorted, and values.
    headers: &'a [(&'a str, &'a str)],
    body: &'a [u8],
    /// `20261123T120000Z`.
    time: &'a str,
}

impl fmt::Debug for SigV4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigV4({}, {})", self.service, self.region)
    }
}

impl SigV4 {
    pub(crate) fn new(service: &'static str, region: &str) -> Self {
        Self {
            service,
            region: region.to_owned(),
            kept: Mutex::new(None),
        }
    }

    /// The value of the `authorization` header.
    fn authorization(&self, subject: &Subject<'_>, access_key: &str, secret: &str) -> String {
        let (day, _) = subject.time.split_at(8);
        let names = names(subject.headers);
        let mut canonical = String::with_capacity(1_024);
        for part in ["POST\n", subject.path, "\n\n"] {
            canonical.push_str(part);
        }
        for (name, value) in subject.headers {
            for part in [name, ":", value.trim(), "\n"] {
                canonical.push_str(part);
            }
        }
        for part in ["\n", &names, "\n"] {
            canonical.push_str(part);
        }
        push_hex(&mut canonical, digest(&SHA256, subject.body).as_ref());

        let scope = [day, &self.region, self.service, "aws4_request"].join("/");
        let mut to_sign = ["AWS4-HMAC-SHA256", subject.time, &scope, ""].join("\n");
        push_hex(&mut to_sign, digest(&SHA256, canonical.as_bytes()).as_ref());

        let head = "AWS4-HMAC-SHA256 Credential=";
        let mut authorization = [
            head,
            access_key,
            "/",
            &scope,
            ", SignedHeaders=",
            &names,
            ", Signature=",
        ]
        .concat();
        push_hex(&mut authorization, self.sign(day, secret, to_sign.as_bytes()).as_ref());
        authorization
    }

    fn sign(&self, day: &str, secret: &str, to_sign: &[u8]) -> hmac::Tag {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some(kept) if kept.day == day && kept.secret == secret => hmac::sign(&kept.key, to_sign),
            _ => {
                let new = Kept {
                    day: day.to_owned(),
                    secret: secret.to_owned(),
                    key: self.derive(day, secret),
                };
                hmac::sign(&kept.insert(new).key, to_sign)
            }
        }
    }

    fn derive(&self, day: &str, secret: &str) -> hmac::Key {
        let key = |bytes: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let parts = [day, &self.region, self.service, "aws4_request"];
        parts
            .iter()
            .fold(key(format!("AWS4{secret}").as_bytes()), |parent, part| {
                key(hmac::sign(&parent, part.as_bytes()).as_ref())
            })
    }
}

fn names(headers: &[(&str, &str)]) -> String {
    let mut names = String::with_capacity(96);
    for (i, (name, _)) in headers.iter().enumerate() {
        if i > 0 {
            names.push(';');
        }
        names.push_str(name);
    }
    names
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// The host as HTTP names it: without a port that the scheme implies.
fn host(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once("://")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let implied = if scheme == "https" { ":443" } else { ":80" };
    Some((authority.strip_suffix(implied).unwrap_or(authority), path))
}

impl AuthScheme for SigV4 {
    fn scheme_id(&self) -> AuthSchemeId {
        SCHEME
    }

    fn identity_resolver(&self, resolvers: &dyn GetIdentityResolver) -> Option<SharedIdentityResolver> {
        resolvers.identity_resolver(SCHEME)
    }

    fn signer(&self) -> &dyn Sign {
        self
    }
}

impl Sign for SigV4 {
    fn sign_http_request(
        &self,
        request: &mut HttpRequest,
        identity: &Identity,
        _: AuthSchemeEndpointConfig<'_>,
        components: &RuntimeComponents,
        _: &ConfigBag,
    ) -> Result<(), BoxError> {
        let credentials = identity
            .data::<Credentials>()
            .ok_or("the identity holds no credentials")?;
        let now = DateTime::from(components.time_source().unwrap_or_default().now());
        let mut time = DateTime::from_secs(now.secs()).fmt(Format::DateTime)?;
        time.retain(|c| !matches!(c, '-' | ':'));

        request.headers_mut().remove(USER_AGENT);
        if let Some(token) = credentials.session_token() {
            request.headers_mut().insert("x-amz-security-token", token.to_owned());
        }
        request.headers_mut().insert("x-amz-date", time.clone());
        let (host, path) = host(request.uri()).ok_or("the address has no host")?;
        if request.method() != "POST" || path.contains('?') {
            return Err("only a POST without a query is signed".into());
        }
        let mut headers: Vec<(&str, &str)> = request
            .headers()
            .iter()
            .filter(|(name, _)| name.starts_with("x-amz-") || *name == "content-type")
            .chain([("host", host)])
            .collect();
        headers.sort_unstable();
        let subject = Subject {
            path,
            headers: &headers,
            body: request.body().bytes().ok_or("the body is not in memory")?,
            time: &time,
        };
        let authorization = self.authorization(&subject, credentials.access_key_id(), credentials.secret_access_key());
        request.headers_mut().insert("authorization", authorization);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use aws_sdk_dynamodb::config::Credentials;
    use aws_sigv4::{
        http_request::{SignableBody, SignableRequest, SigningSettings, sign},
        sign::v4::SigningParams,
    };

    use super::{SigV4, Subject, host};
    use crate::connect::{Clients, Settings};

    /// Our header and the SDK's, for the same request at the same time.
    fn both(scheme: &SigV4, s: u64, token: Option<&str>, uri: &str, body: &[u8]) -> (String, String) {
        let identity = Credentials::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG",
            token.map(Into::into),
            None,
            "test",
        )
        .into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&scheme.region)
            .name(scheme.service)
            .time(UNIX_EPOCH + Duration::from_secs(s))
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let own = [
            ("content-type", "application/x-amz-json-1.0"),
            ("x-amz-target", "DynamoDB_20120810.UpdateItem"),
        ];
        let request = SignableRequest::new("POST", uri, own.into_iter(), SignableBody::Bytes(body)).unwrap();
        let (signed, _) = sign(request, &params).unwrap().into_parts();
        let signed: Vec<(&str, &str)> = signed.headers().collect();
        let of = |wanted: &str| signed.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);

        let (host, path) = host(uri).unwrap();
        let time = of("x-amz-date").unwrap();
        let mut headers = own.to_vec();
        headers.extend([("host", host), ("x-amz-date", time)]);
        headers.extend(token.map(|token| ("x-amz-security-token", token)));
        headers.sort_unstable();
        let subject = Subject {
            path,
            headers: &headers,
            body,
            time,
        };
        let ours = scheme.authorization(&subject, "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG");
        (ours, of("authorization").unwrap().to_owned())
    }

    #[test]
    fn the_signature_is_the_sdks() {
        for (service, region) in [("dynamodb", "eu-central-1"), ("sqs", "us-gov-west-1")] {
            let scheme = SigV4::new(service, region);
            // The key of a day is kept, and is not that of the next one.
            for s in [1_700_000_000, 1_700_000_001, 1_700_086_400, 1_700_000_000] {
                for token in [None, Some("FwoGZXIvYXdzEBYaD=="), Some("another")] {
                    for uri in [
                        "https://dynamodb.eu-central-1.amazonaws.com/",
                        "https://dynamodb.eu-central-1.amazonaws.com",
                        "http://127.0.0.1:8000/",
                    ] {
                        for body in [&b"{}"[..], b"", "{\"TableName\":\"gr\u{fc}n\"}".as_bytes()] {
                            let (ours, theirs) = both(&scheme, s, token, uri, body);
                            assert_eq!(ours, theirs, "{service} {s} {token:?} {uri}");
                        }
                    }
                }
            }
        }
    }

    /// The SDK finds a scheme by its name: this must be ours, not its own.
    #[tokio::test]
    async fn what_is_sent_is_signed_here() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
        let clients = Clients::new(&Settings {
            region: "eu-central-1".to_owned(),
            credentials: Credentials::new("AKIDEXAMPLE", "secret", Some("token".to_owned()), None, "test"),
            dynamodb_endpoint: endpoint.clone(),
            sqs_endpoint: endpoint,
        });
        let call = tokio::spawn(async move { drop(clients.dynamodb_once.list_tables().send().await) });
        let (stream, _) = listener.accept().await.unwrap();
        let mut text = Vec::new();
        while !text.windows(4).any(|end| end == b"\r\n\r\n") {
            stream.readable().await.unwrap();
            let mut buffer = [0; 4_096];
            if let Ok(n) = stream.try_read(&mut buffer) {
                text.extend_from_slice(&buffer[..n]);
            }
        }
        call.abort();
        let text = String::from_utf8(text).unwrap();
        let signed = "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, Signature=";
        assert!(text.contains(signed), "{text}");
        assert!(!text.contains("x-amz-user-agent"), "{text}");
    }

    #[test]
    fn a_host_is_named_without_an_implied_port() {
        assert_eq!(host("https://a.b:443/c"), Some(("a.b", "/c")));
        assert_eq!(host("http://a.b:80"), Some(("a.b", "/")));
        assert_eq!(host("https://a.b:8443/"), Some(("a.b:8443", "/")));
        assert_eq!(host("nonsense"), None);
    }
}
