//! The store that everybody works on, and what is in it.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use axum::body::Bytes;
use farebox_core::tiers::Overrides;
use farebox_local::{Options, Sold, System};

/// One limit, billed beyond the included units: the write of the most common tier. The limit is as high as a tier without
/// shards may be, so that nothing is denied here.
const TIERS: &str = "tiers:\n  bench: {price: 49/month, included_calls: 50000/month, rate_limit: 45000/min, \
                     endpoints: [/v1/*], support: email, overage: $0.002/call}\n";
/// A REST API's event, as the functions' own examples have it.
const EVENT: &str = include_str!("../../../events/authorizer-rest.json");

/// The running store with one customer.
pub(crate) struct Store {
    pub(crate) system: Arc<System>,
    pub(crate) sold: Sold,
    pub(crate) event: Bytes,
}

impl Store {
    pub(crate) async fn start() -> Result<Self, String> {
        let options = Options {
            tiers: TIERS.to_owned(),
            ..Options::new()
        };
        let system = System::start(options).await.map_err(|e| e.to_string())?;
        let sold = system
            .sell("bench", "bench", Overrides::default())
            .await
            .map_err(|e| e.to_string())?;
        let event = event(&sold.key)?;
        let store = Self { system, sold, event };
        for item in ["bare#0", "node#0"] {
            store.put_counter(item).await?;
        }
        Ok(store)
    }

    /// Where it listens: DynamoDB and SQS.
    pub(crate) fn addresses(&self) -> [std::net::SocketAddr; 2] {
        let [dynamodb, sqs, _] = self.system.services.addresses;
        [dynamodb, sqs]
    }

    /// Units of the customer's period, as the counter has them.
    pub(crate) async fn counted(&self) -> Result<u64, String> {
        let key = farebox_core_key(&self.sold);
        let counters = self.system.books.counters.read(&key).await.map_err(|e| e.to_string())?;
        let units = counters.map(|counters| counters.units).unwrap_or_default();
        Ok(units
            .iter()
            .filter(|(name, _)| name.starts_with('q'))
            .map(|(_, units)| units)
            .sum())
    }

    async fn put_counter(&self, pk: &str) -> Result<(), String> {
        let n = |n: &str| AttributeValue::N(n.to_owned());
        let request = self
            .system
            .services
            .clients
            .dynamodb
            .put_item()
            .table_name(&self.system.tables().counters)
            .item("pk", AttributeValue::S(pk.to_owned()))
            .item("generation", AttributeValue::S("0123456789abcdef-0".to_owned()))
            .item("auth_epoch", n("1"))
            .item("sealed", n("0"));
        request.send().await.map(|_| ()).map_err(|e| format!("{e:?}"))
    }
}

fn farebox_core_key(sold: &Sold) -> String {
    format!("{}#0", sold.customer.id)
}

fn event(key: &str) -> Result<Bytes, String> {
    let event: serde_json::Value = serde_json::from_str(EVENT).map_err(|e| e.to_string())?;
    let example = event["headers"]["x-api-key"].as_str().ok_or("the event has no key")?;
    Ok(EVENT.replace(example, key).into())
}
