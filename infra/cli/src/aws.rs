//! Reading the settings of services that Farebox only looks at: API Gateway, Lambda, EventBridge Scheduler and CloudWatch.
//!
//! Each is asked one or two questions, whose answers are JSON. The official clients for them are five large crates, and that of
//! Lambda brings a second HTTP version along, for which the whole SDK is compiled once more; the SDK's own signer and our one
//! HTTP stack do instead. Services that answer in XML are asked by their clients.

use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::config::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4::SigningParams,
};
use axum::body::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::reach::source;

/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(10);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Pauses before a call is tried again: API Gateway answers ten questions a second, and some only five
/// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html>).
const PAUSES: [Duration; 3] = [
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];
/// More pages than this mean that a list does not end.
const PAGES_MAX: usize = 200;

/// A service with JSON answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// REST, HTTP and WebSocket APIs.
    ApiGateway,
    /// Metrics and alarms.
    CloudWatch,
    /// Tables; asked only for its clock.
    DynamoDb,
    /// Functions.
    Lambda,
    /// Schedules.
    Scheduler,
}

impl Service {
    /// Its name in addresses and in signatures.
    fn name(self) -> &'static str {
        match self {
            Self::ApiGateway => "apigateway",
            Self::CloudWatch => "monitoring",
            Self::DynamoDb => "dynamodb",
            Self::Lambda => "lambda",
            Self::Scheduler => "scheduler",
        }
    }
}

/// Who asks, and where.
pub(crate) struct Reader {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    credentials: Credentials,
    region: String,
    endpoint: Option<String>,
}

/// What a service said, or why it could not be asked.
struct Answer {
    status: StatusCode,
    date: Option<String>,
    body: Bytes,
}

impl Reader {
    /// `endpoint` takes the place of every service's own address.
    pub(crate) fn new(credentials: Credentials, region: String, endpoint: Option<String>) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(Duration::from_secs(3)));
        tcp.enforce_http(false);
        let tls = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|e| source(&e))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self {
            http: Client::builder(TokioExecutor::new()).build(tls),
            credentials,
            region,
            endpoint,
        })
    }

    /// Reads one thing; `None` if there is no such thing.
    pub(crate) async fn read<T: DeserializeOwned>(&self, service: Service, path: &str) -> Result<Option<T>, String> {
        let answer = self.call(service, Method::GET, path, None).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            _ => answer.accepted().map(Some),
        }
    }

    /// Reads a list to its end. The services name the cursor differently, in the answer and in the query.
    pub(crate) async fn list<T: DeserializeOwned>(&self, service: Service, path: &str) -> Result<Vec<T>, String> {
        #[derive(Deserialize)]
        struct Page<T> {
            #[serde(alias = "item", alias = "EventSourceMappings", default = "Vec::new")]
            items: Vec<T>,
            position: Option<String>,
            #[serde(rename = "nextToken")]
            next_token: Option<String>,
            #[serde(rename = "NextMarker")]
            next_marker: Option<String>,
        }
        let separator = if path.contains('?') { '&' } else { '?' };
        let (mut items, mut cursor) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let answer = self
                .call(service, Method::GET, &format!("{path}{cursor}"), None)
                .await?;
            let page: Page<T> = answer.accepted()?;
            items.extend(page.items);
            let next = [
                ("position", page.position),
                ("nextToken", page.next_token),
                ("Marker", page.next_marker),
            ];
            match next
                .into_iter()
                .find_map(|(name, value)| Some((name, value.filter(|v| !v.is_empty())?)))
            {
                Some((name, value)) => cursor = format!("{separator}{name}={}", encoded(&value)),
                None => return Ok(items),
            }
        }
        Err("a list does not end".to_owned())
    }

    /// Every alarm whose name begins so.
    pub(crate) async fn alarms<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Page<T> {
            #[serde(default = "Vec::new")]
            metric_alarms: Vec<T>,
            next_token: Option<String>,
        }
        let (mut alarms, mut token) = (Vec::new(), Value::Null);
        for _ in 0..PAGES_MAX {
            let mut question = json!({ "AlarmNamePrefix": prefix, "MaxRecords": 100 });
            if !token.is_null() {
                question["NextToken"] = token;
            }
            let answer = self
                .call(Service::CloudWatch, Method::POST, "/", Some(question))
                .await?;
            let page: Page<T> = answer.accepted()?;
            alarms.extend(page.metric_alarms);
            match page.next_token {
                Some(next) => token = Value::String(next),
                None => return Ok(alarms),
            }
        }
        Err("a list does not end".to_owned())
    }

    /// What time it is there, as the `Date` of an answer says, whatever else it says.
    pub(crate) async fn date(&self, service: Service) -> Result<Option<String>, String> {
        Ok(self.call(service, Method::GET, "/", None).await?.date)
    }

    async fn call(&self, service: Service, method: Method, path: &str, body: Option<Value>) -> Result<Answer, String> {
        for pause in PAUSES {
            match self.call_once(service, &method, path, body.as_ref()).await {
                Ok(answer) if !answer.may_pass() => return Ok(answer),
                Ok(_) | Err(_) => tokio::time::sleep(pause).await,
            }
        }
        self.call_once(service, &method, path, body.as_ref()).await
    }

    async fn call_once(
        &self,
        service: Service,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, String> {
        let request = self.signed(service, method, path, body, SystemTime::now())?;
        let ask = async {
            let (head, body) = self.http.request(request).await.map_err(|e| source(&e))?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let date = head.headers.get("date").and_then(|date| date.to_str().ok());
            Ok(Answer {
                status: head.status,
                date: date.map(str::to_owned),
                body: body.map_err(|e| e.to_string())?.to_bytes(),
            })
        };
        let answer = tokio::time::timeout(CALL_MAX, ask).await;
        answer.map_err(|_| format!("{} does not answer within {} s", service.name(), CALL_MAX.as_secs()))?
    }

    fn signed(
        &self,
        service: Service,
        method: &Method,
        path: &str,
        body: Option<&Value>,
        now: SystemTime,
    ) -> Result<Request<Full<Bytes>>, String> {
        let uri = format!("{}{path}", self.address(service));
        let body = body.map(Value::to_string).unwrap_or_default();
        // API Gateway answers in another form unless it is asked for this one.
        let mut headers = vec![("accept", "application/json")];
        if service == Service::CloudWatch {
            headers.push(("content-type", "application/x-amz-json-1.0"));
            headers.push(("x-amz-target", "GraniteServiceVersion20100801.DescribeAlarms"));
        }
        let identity = self.credentials.clone().into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(service.name())
            .time(now)
            .settings(SigningSettings::default())
            .build()
            .map_err(|e| source(&e))?
            .into();
        let signable = SignableRequest::new(
            method.as_str(),
            &uri,
            headers.iter().copied(),
            SignableBody::Bytes(body.as_bytes()),
        );
        let signed = sign(signable.map_err(|e| source(&e))?, &params).map_err(|e| source(&e))?;
        let (signed, _) = signed.into_parts();
        let mut request = Request::builder().method(method).uri(&uri);
        for (name, value) in headers.into_iter().chain(signed.headers()) {
            request = request.header(name, value);
        }
        request.body(Full::from(body)).map_err(|e| source(&e))
    }

    fn address(&self, service: Service) -> String {
        match &self.endpoint {
            Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
            None => {
                let suffix = if self.region.starts_with("cn-") { ".cn" } else { "" };
                format!("https://{}.{}.amazonaws.com{suffix}", service.name(), self.region)
            }
        }
    }
}

impl Answer {
    /// Whether the same question may do better a moment later.
    fn may_pass(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS || self.status.is_server_error()
    }

    /// What it holds, or what AWS said instead: the code stands in the body or not at all, the sentence in `message`.
    fn accepted<T: DeserializeOwned>(&self) -> Result<T, String> {
        if self.status.is_success() {
            return serde_json::from_slice(&self.body).map_err(|e| format!("the answer can't be read: {e}"));
        }
        #[derive(Default, Deserialize)]
        struct Refusal {
            #[serde(alias = "Message")]
            message: Option<String>,
        }
        let refusal: Refusal = serde_json::from_slice(&self.body).unwrap_or_default();
        let sentence = refusal.message.unwrap_or_else(|| "no message".to_owned());
        Err(format!("{}: {sentence}", self.status.as_u16()))
    }
}

/// A value in a query.
pub(crate) fn encoded(value: &str) -> String {
    value
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::{Duration, UNIX_EPOCH},
    };

    use super::*;

    fn reader(region: &str, endpoint: Option<&str>) -> Reader {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", Some("token".to_owned()), None, "test");
        Reader::new(credentials, region.to_owned(), endpoint.map(str::to_owned)).unwrap()
    }

    #[test]
    fn a_question_goes_to_the_services_own_address_and_is_signed_for_it() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let reader = reader("eu-central-1", None);
        let request = reader
            .signed(Service::CloudWatch, &Method::POST, "/", Some(&json!({})), now)
            .unwrap();
        assert_eq!(request.uri(), "https://monitoring.eu-central-1.amazonaws.com/");
        let authorization = request.headers()["authorization"].to_str().unwrap();
        for part in [
            "Credential=AKIDEXAMPLE/20231114/eu-central-1/monitoring/aws4_request",
            "SignedHeaders=accept;content-type;host;x-amz-date;x-amz-security-token;x-amz-target",
        ] {
            assert!(authorization.contains(part), "{authorization}");
        }
        assert_eq!(request.headers()["x-amz-security-token"], "token");
    }

    #[test]
    fn china_has_addresses_of_its_own_and_an_endpoint_takes_the_place_of_all() {
        let lambda = reader("cn-north-1", None).address(Service::Lambda);
        assert_eq!(lambda, "https://lambda.cn-north-1.amazonaws.com.cn");
        let other = reader("us-east-1", Some("http://127.0.0.1:4566/")).address(Service::Lambda);
        assert_eq!(other, "http://127.0.0.1:4566");
    }

    #[test]
    fn a_value_in_a_query_is_encoded() {
        assert_eq!(encoded("arn:aws:lambda/a+b="), "arn%3Aaws%3Alambda%2Fa%2Bb%3D");
    }

    /// A service that gives these answers, one for each call, and keeps what it was asked.
    async fn service(answers: Vec<(u16, &'static str)>) -> (Reader, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answers, log) = (Arc::new(Mutex::new(answers.into_iter())), asked.clone());
        let answer = move |request: axum::extract::Request| async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            assert!(head.headers.contains_key("authorization"), "it is signed");
            let question = format!("{} {} {}", head.method, head.uri, String::from_utf8_lossy(&body));
            log.lock().unwrap().push(question.trim().to_owned());
            let (status, text) = answers.lock().unwrap().next().unwrap();
            (StatusCode::from_u16(status).unwrap(), text)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        (reader("us-east-1", Some(&endpoint)), asked)
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Named {
        id: String,
    }

    fn named(ids: &[&str]) -> Vec<Named> {
        ids.iter().map(|id| Named { id: (*id).to_owned() }).collect()
    }

    #[tokio::test]
    async fn lists_are_read_to_their_end_whatever_the_cursor_is_called() {
        let (reader, asked) = service(vec![
            (200, r#"{"position":"a+b=","item":[{"id":"1"}]}"#),
            (200, r#"{"item":[{"id":"2"}]}"#),
            (200, r#"{"items":[{"id":"3"}],"nextToken":"t"}"#),
            (200, r#"{"items":[]}"#),
            (200, r#"{"EventSourceMappings":[{"id":"4"}],"NextMarker":"m"}"#),
            (200, r#"{"EventSourceMappings":[{"id":"5"}],"NextMarker":null}"#),
            (200, r#"{}"#),
        ])
        .await;
        let list = async |service, path| reader.list::<Named>(service, path).await.unwrap();
        assert_eq!(
            list(Service::ApiGateway, "/restapis?limit=500").await,
            named(&["1", "2"])
        );
        assert_eq!(list(Service::ApiGateway, "/v2/apis").await, named(&["3"]));
        assert_eq!(
            list(Service::Lambda, "/mappings?FunctionName=f").await,
            named(&["4", "5"])
        );
        assert_eq!(list(Service::ApiGateway, "/restapis/a/stages").await, []);
        let asked = asked.lock().unwrap().clone();
        let wanted = [
            "GET /restapis?limit=500",
            "GET /restapis?limit=500&position=a%2Bb%3D",
            "GET /v2/apis",
            "GET /v2/apis?nextToken=t",
            "GET /mappings?FunctionName=f",
            "GET /mappings?FunctionName=f&Marker=m",
            "GET /restapis/a/stages",
        ];
        assert_eq!(asked, wanted);
    }

    #[tokio::test]
    async fn alarms_are_asked_for_by_prefix_and_page() {
        let (reader, asked) = service(vec![
            (200, r#"{"MetricAlarms":[{"id":"1"}],"NextToken":"t"}"#),
            (200, r#"{"MetricAlarms":[{"id":"2"}]}"#),
        ])
        .await;
        assert_eq!(reader.alarms::<Named>("farebox-").await.unwrap(), named(&["1", "2"]));
        let asked = asked.lock().unwrap().clone();
        assert_eq!(asked[0], r#"POST / {"AlarmNamePrefix":"farebox-","MaxRecords":100}"#);
        assert_eq!(
            asked[1],
            r#"POST / {"AlarmNamePrefix":"farebox-","MaxRecords":100,"NextToken":"t"}"#
        );
    }

    #[tokio::test]
    async fn absent_is_none_busy_is_asked_again_and_a_refusal_says_why() {
        let refusal = r#"{"Message":"User: u is not authorized to perform: lambda:GetFunctionConfiguration"}"#;
        let (reader, asked) = service(vec![
            (404, "{}"),
            (429, "{}"),
            (500, ""),
            (200, r#"{"id":"1"}"#),
            (403, refusal),
            (200, "<html>"),
        ])
        .await;
        let read = async || reader.read::<Named>(Service::Lambda, "/f").await;
        assert_eq!(read().await, Ok(None));
        assert_eq!(read().await, Ok(Some(Named { id: "1".to_owned() })));
        assert_eq!(asked.lock().unwrap().len(), 4);
        let refused = read().await.unwrap_err();
        assert!(refused.starts_with("403: User: u is not authorized"), "{refused}");
        assert!(read().await.unwrap_err().contains("can't be read"));
    }
}
