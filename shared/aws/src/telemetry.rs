//! Logs and metrics as Lambda wants them: one JSON object a line, on standard output.
//!
//! **Logs.** `timestamp`, `level` and `message` stand at the top
//! (<https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html>), beside the `requestId` of the
//! invocation and the event's own fields. Spans are not recorded at all: the SDK opens half a dozen for every call, and nobody
//! reads them in a function that answers in a millisecond. A subscriber with a registry of spans would cost more than our own
//! part of a decision.
//!
//! **Metrics** are the embedded metric format
//! (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>):
//! CloudWatch reads them from the log, so that no layer, agent or call is needed. A line is written after a batch or a
//! response, never during it. Each metric has the one dimension `FunctionName`, because each further one is paid for; `service`
//! is a property of the line, to be searched for. The crate `metrics_cloudwatch_embedded` does the same over the `metrics`
//! facade: a global recorder that is asked, with a hash of name and labels, at every single count. Our counters are fields.

use std::{
    collections::BTreeMap,
    fmt::{Debug, Write as _},
    io::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use aws_smithy_types::{DateTime, date_time::Format};
use farebox_core::time::Timestamp;
use serde_json::{Value, json};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::Interest,
};

/// The namespace of every metric.
pub const NAMESPACE: &str = "Farebox";
/// The most metrics that one directive may hold.
const METRICS_MAX: usize = 100;

/// Begins to log. What Lambda puts into `AWS_LAMBDA_LOG_LEVEL` is the least severe level that is written, `INFO` without it.
/// Below `INFO` only Farebox speaks: the SDK and the runtime quote requests and answers there, keys and secrets among them.
pub fn start(read: impl Fn(&str) -> Option<String>) {
    start_without(read, None);
}

/// As [`start`], without the lines of one target.
pub fn start_without(read: impl Fn(&str) -> Option<String>, silent: Option<&'static str>) {
    let level = read("AWS_LAMBDA_LOG_LEVEL").and_then(|level| level_of(&level));
    let log = Log {
        level: level.unwrap_or(LevelFilter::INFO),
        silent,
    };
    // It fails only where somebody else logs already.
    let _ = tracing::subscriber::set_global_default(log);
}

/// Ends a function that can't start: what is missing is logged, and Lambda is told by the exit code.
pub fn give_up(problem: &dyn std::fmt::Display) -> ! {
    tracing::error!(%problem, "the function can't start");
    std::process::exit(1)
}

/// From now on, what is logged is about this invocation.
pub fn begin(request_id: &str) {
    let mut present = lock(&REQUEST);
    present.clear();
    present.push_str(request_id);
}

static REQUEST: Mutex<String> = Mutex::new(String::new());
static COUNTS: Mutex<BTreeMap<&'static str, f64>> = Mutex::new(BTreeMap::new());

/// Adds to a count that the next [`flush`] writes. For what happens a few times a second at most; what happens with every
/// request is counted in a field. Nothing is no metric: one that is written is paid for.
pub fn count(metric: &'static str, n: u64) {
    if n == 0 {
        return;
    }
    *lock(&COUNTS).entry(metric).or_insert(0.0) += as_number(n);
}

/// Says how much something is now: the next [`flush`] writes the last value.
pub fn gauge(metric: &'static str, value: f64) {
    lock(&COUNTS).insert(metric, value);
}

/// Writes everything counted since the last flush as one line. Without anything there is no line.
pub fn flush(service: &str, now: Timestamp) {
    let function = std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default();
    let counted = std::mem::take(&mut *lock(&COUNTS));
    if !counted.is_empty() {
        let metrics: Vec<(&str, f64)> = counted.into_iter().collect();
        write_metrics(service, &function, now, &metrics);
    }
}

/// Writes metrics as one line.
pub fn write_metrics(service: &str, function: &str, now: Timestamp, metrics: &[(&str, f64)]) {
    for metrics in metrics.chunks(METRICS_MAX) {
        print(&line(service, function, now, metrics));
    }
}

/// A count as a metric's value.
#[must_use]
pub fn as_number(n: u64) -> f64 {
    n as f64
}

fn line(service: &str, function: &str, now: Timestamp, metrics: &[(&str, f64)]) -> String {
    let defined: Vec<Value> = metrics
        .iter()
        .map(|(name, _)| json!({ "Name": name, "Unit": unit(name) }))
        .collect();
    let mut line = json!({
        "_aws": {
            "Timestamp": now.ms(),
            "CloudWatchMetrics": [{ "Namespace": NAMESPACE, "Dimensions": [["FunctionName"]], "Metrics": defined }],
        },
        "FunctionName": function,
        "service": service,
    });
    for (name, value) in metrics {
        line[*name] = json!(value);
    }
    line.to_string()
}

fn unit(metric: &str) -> &'static str {
    if metric.ends_with("_hours") { "None" } else { "Count" }
}

fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    // One call, so that no other line comes in between. Where the log can't be written there is nobody to tell.
    let _ = out.write_all(format!("{line}\n").as_bytes());
    let _ = out.flush();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn level_of(level: &str) -> Option<LevelFilter> {
    match level.to_ascii_uppercase().as_str() {
        "TRACE" => Some(LevelFilter::TRACE),
        "DEBUG" => Some(LevelFilter::DEBUG),
        "INFO" => Some(LevelFilter::INFO),
        "WARN" => Some(LevelFilter::WARN),
        "ERROR" | "FATAL" => Some(LevelFilter::ERROR),
        _ => None,
    }
}

struct Log {
    level: LevelFilter,
    silent: Option<&'static str>,
}

impl Log {
    fn writes(&self, level: Level, target: &str) -> bool {
        let is_harmless = level <= Level::INFO || target.starts_with("farebox");
        level <= self.level && is_harmless && self.silent != Some(target)
    }
}

impl Subscriber for Log {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && self.writes(*metadata.level(), metadata.target())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let now = DateTime::from(SystemTime::now());
        print(&entry(event, now, &lock(&REQUEST)));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn entry(event: &Event<'_>, now: DateTime, request_id: &str) -> String {
    let mut fields = Fields {
        message: String::new(),
        others: String::new(),
    };
    event.record(&mut fields);
    let level = match *event.metadata().level() {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    };
    let timestamp = now.fmt(Format::DateTime).unwrap_or_default();
    let mut entry = format!(r#"{{"timestamp":"{timestamp}","level":"{level}""#);
    push(&mut entry, "message", &Value::from(fields.message));
    if !request_id.is_empty() {
        push(&mut entry, "requestId", &Value::from(request_id));
    }
    push(&mut entry, "target", &Value::from(event.metadata().target()));
    entry + &fields.others + "}"
}

struct Fields {
    message: String,
    others: String,
}

fn push(text: &mut String, name: &str, value: &Value) {
    // Writing into a string does not fail.
    let _ = write!(text, ",{}:{value}", Value::from(name));
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            // Our own names come first, whatever an event calls its fields.
            (name @ ("message" | "timestamp" | "level" | "requestId" | "target"), value) => {
                push(&mut self.others, &format!("{name}_"), &value);
            }
            (name, value) => push(&mut self.others, name, &value),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use aws_smithy_types::DateTime;
    use farebox_core::time::Timestamp;
    use serde_json::{Map, Value, json};
    use tracing::{Event, Level, Metadata, Subscriber, level_filters::LevelFilter, span};

    use super::{Log, METRICS_MAX, entry, line, lock};

    /// What the specification demands, member by member.
    fn check(document: &Map<String, Value>) {
        let aws = document["_aws"].as_object().unwrap();
        assert_eq!(aws.keys().collect::<Vec<_>>(), ["CloudWatchMetrics", "Timestamp"]);
        assert!(aws["Timestamp"].is_u64(), "milliseconds, a whole number");
        for directive in aws["CloudWatchMetrics"].as_array().unwrap() {
            let directive = directive.as_object().unwrap();
            let members: Vec<&String> = directive.keys().collect();
            assert_eq!(members, ["Dimensions", "Metrics", "Namespace"]);
            assert!((1..=1_024).contains(&directive["Namespace"].as_str().unwrap().len()));
            for set in directive["Dimensions"].as_array().unwrap() {
                let set = set.as_array().unwrap();
                assert!(set.len() <= 30);
                for dimension in set {
                    let value = &document[dimension.as_str().unwrap()];
                    assert!(
                        (1..=1_024).contains(&value.as_str().unwrap().len()),
                        "a dimension is a text"
                    );
                }
            }
            let metrics = directive["Metrics"].as_array().unwrap();
            assert!(metrics.len() <= METRICS_MAX);
            for metric in metrics {
                let metric = metric.as_object().unwrap();
                assert_eq!(metric.keys().collect::<Vec<_>>(), ["Name", "Unit"]);
                assert!(["Count", "None"].contains(&metric["Unit"].as_str().unwrap()));
                assert!(
                    document[metric["Name"].as_str().unwrap()].is_number(),
                    "a value is a number"
                );
            }
        }
    }

    #[test]
    fn below_info_only_farebox_speaks() {
        let log = Log {
            level: LevelFilter::TRACE,
            silent: Some("lambda_runtime::errors"),
        };
        assert!(log.writes(Level::TRACE, "farebox_consumer::fold"));
        assert!(log.writes(Level::INFO, "aws_smithy_runtime::client"));
        assert!(!log.writes(Level::DEBUG, "aws_smithy_runtime::client"));
        assert!(!log.writes(Level::TRACE, "lambda_runtime"));
        assert!(!log.writes(Level::ERROR, "lambda_runtime::errors"));
        let quiet = Log {
            level: LevelFilter::INFO,
            silent: None,
        };
        assert!(!quiet.writes(Level::DEBUG, "farebox_consumer::fold"));
    }

    #[test]
    fn metrics_are_of_the_embedded_format() {
        let line = line(
            "authorizer",
            "acme-authorizer",
            Timestamp::from_ms(1_700_000_000_123),
            &[("decisions", 3.0), ("unreported_age_hours", 0.25)],
        );
        let document: Map<String, Value> = serde_json::from_str(&line).unwrap();
        check(&document);
        assert_eq!(
            Value::from(document),
            json!({
                "_aws": {
                    "Timestamp": 1_700_000_000_123_u64,
                    "CloudWatchMetrics": [{
                        "Namespace": "Farebox",
                        "Dimensions": [["FunctionName"]],
                        "Metrics": [
                            { "Name": "decisions", "Unit": "Count" },
                            { "Name": "unreported_age_hours", "Unit": "None" },
                        ],
                    }],
                },
                "FunctionName": "acme-authorizer",
                "service": "authorizer",
                "decisions": 3.0,
                "unreported_age_hours": 0.25,
            })
        );
        assert!(!line.contains('\n'));
    }

    struct Heard(Arc<Mutex<Vec<String>>>);

    impl Subscriber for Heard {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn event(&self, event: &Event<'_>) {
            lock(&self.0).push(entry(event, DateTime::from_secs(1_700_000_000), "r-1"));
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn a_log_line_is_one_object_with_lambdas_names() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        tracing::subscriber::with_default(Heard(heard.clone()), || {
            tracing::warn!(
                count = 2,
                level = "x",
                reason = "a \"quoted\"\nline",
                "usage {}",
                "late"
            );
        });
        let lines = lock(&heard);
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(
            line,
            json!({
                "timestamp": "2023-11-14T22:13:20Z", "level": "WARN", "message": "usage late", "requestId": "r-1",
                "target": "farebox_aws::telemetry::tests", "count": 2, "level_": "x", "reason": "a \"quoted\"\nline",
            })
        );
        assert!(!lines[0].contains('\n'));
    }
}
