//! The embedded DynamoDB without a socket: DynamoDB's wire requests in, its wire answers out.

use std::fmt;

use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
};
use aws_smithy_types::body::SdkBody;
use dynoxide::{Database, DynoxideError};
use serde_json::Value;

/// An empty DynamoDB in memory. Clones share it.
#[derive(Clone)]
pub struct Store(Database);

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

/// A wire answer: the status, and the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, mostly JSON.
    pub body: String,
}

impl Answer {
    /// An error as DynamoDB and SQS name theirs.
    #[must_use]
    pub fn error(status: u16, code: &str) -> Self {
        let body = serde_json::json!({ "__type": format!("com.amazonaws#{code}"), "message": "simulated" });
        Self {
            status,
            body: body.to_string(),
        }
    }
}

impl Store {
    /// Nothing in it.
    ///
    /// # Panics
    /// If SQLite can't open a database in memory.
    #[must_use]
    pub fn new() -> Self {
        Self(Database::memory().expect("a database in memory"))
    }

    /// Does what a request asks for. `operation` is what the header `x-amz-target` names.
    #[must_use]
    pub fn answer(&self, operation: &str, body: &str) -> Answer {
        match self.run(operation, body) {
            Ok(body) => Answer { status: 200, body },
            Err(error) => Answer {
                status: error.status_code(),
                body: error.to_json(),
            },
        }
    }

    fn run(&self, operation: &str, body: &str) -> Result<String, DynoxideError> {
        macro_rules! dispatch {
            ($($name:literal => $method:ident),* $(,)?) => {
                match operation {
                    $($name => text(&self.0.$method(serde_json::from_str(body).map_err(unreadable)?)?),)*
                    other => Err(DynoxideError::ValidationException(format!("not simulated: {other}"))),
                }
            };
        }
        dispatch! {
            "CreateTable" => create_table,
            "ListTables" => list_tables,
            "GetItem" => get_item,
            "PutItem" => put_item,
            "UpdateItem" => update_item,
            "DeleteItem" => delete_item,
            "Query" => query,
            "Scan" => scan,
            "TransactWriteItems" => transact_write_items,
        }
    }

    /// An item as it is, `Null` if there is none.
    #[must_use]
    pub fn item(&self, table: &Value, key: &Value) -> Value {
        let request = serde_json::json!({ "TableName": table, "Key": key, "ConsistentRead": true });
        let answer = self.answer("GetItem", &request.to_string());
        let mut answer: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        answer["Item"].take()
    }

    /// An HTTP client of the SDK's that leads here, always and at once.
    #[must_use]
    pub fn http_client(&self) -> SharedHttpClient {
        let connector = SharedHttpConnector::new(self.clone());
        http_client_fn(move |_, _| connector.clone())
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

fn text(answer: &impl serde::Serialize) -> Result<String, DynoxideError> {
    serde_json::to_string(answer).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> DynoxideError {
    DynoxideError::SerializationException(error.to_string())
}

impl HttpConnector for Store {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (operation, body) = read(&request);
        HttpConnectorFuture::ready(respond(self.answer(&operation, &body)))
    }
}

/// The operation and the body of a request of the SDK's.
pub(crate) fn read(request: &HttpRequest) -> (String, String) {
    let target = request.headers().get("x-amz-target").unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    let body = request.body().bytes().unwrap_or_default();
    (operation, String::from_utf8_lossy(body).into_owned())
}

/// An answer as the SDK reads it.
pub(crate) fn respond(answer: Answer) -> Result<HttpResponse, ConnectorError> {
    let response = http::Response::builder()
        .status(answer.status)
        .header("content-type", "application/x-amz-json-1.0")
        .body(SdkBody::from(answer.body));
    response
        .map_err(|error| ConnectorError::user(error.into()))
        .and_then(|response| HttpResponse::try_from(response).map_err(|error| ConnectorError::user(error.into())))
}
