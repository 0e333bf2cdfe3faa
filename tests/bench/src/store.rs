//! The store that everybody works on, and what is in it.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use axum::body::Bytes;
use farebox_aws::counters;
use farebox_core::tiers::Overrides;
use farebox_local::{Options, Sold, System};

/// One limit, billed beyond the included units: the write of the most common tier. The limit is as high as a tier without
/// shards may be, so that nothing is denied here.
pub(crate) const TIERS: &str = "tiers:\n  bench: {price: 49/month, included_calls: 50000/month, rate_limit: 45000/min, \
                     endpoints: [/v1/*], support: email, overage: $0.002/call}\n";
/// What the soak sells: a tier that bills and two that block, none with a limit that a second of it could reach. Of the two that block
/// one is used up in the first minute, and the other one in the first hour.
pub(crate) const SOAK_TIERS: &str = "tiers:\n  \
    small: {price: 1/month, included_calls: 50/month, rate_limit: 40000/min, endpoints: [/v1/*], support: email}\n  \
    blocked: {price: 9/month, included_calls: 5000/month, rate_limit: 40000/min, endpoints: [/v1/*], support: email}\n  \
    billed: {price: 49/month, included_calls: 50000/month, rate_limit: 40000/min, endpoints: [/v1/*], support: email, \
             overage: $0.002/call}\n";
/// What `small` and `blocked` include.
pub(crate) const SOAK_QUOTAS: [(&str, u64); 2] = [("small", 50), ("blocked", 5_000)];
/// A REST API's event, as the functions' own examples have it.
const EVENT: &str = include_str!("../../../events/authorizer-rest.json");

/// The running store with one customer.
pub(crate) struct Store {
    pub(crate) system: Arc<System>,
    pub(crate) sold: Sold,
    pub(crate) event: Bytes,
}

impl Store {
    /// Sells these tiers, on the machine's clock, and one of them to the first customer.
    pub(crate) async fn start(tiers: &str, tier: &str) -> Result<Self, String> {
        let options = Options {
            tiers: tiers.to_owned(),
            ..Options::new()
        };
        let system = System::start(options).await.map_err(|e| e.to_string())?;
        let sold = system
            .sell("bench", tier, Overrides::default())
            .await
            .map_err(|e| e.to_string())?;
        let event = event(&sold.key)?;
        Ok(Self { system, sold, event })
    }

    /// The items that the other contestants write to.
    pub(crate) async fn add_others(&self) -> Result<(), String> {
        for item in ["bare#0", "node#0"] {
            self.put_counter(item).await?;
        }
        Ok(())
    }

    pub(crate) async fn sell(&self, id: &str, tier: &str) -> Result<Sold, String> {
        let sold = self.system.sell(id, tier, Overrides::default()).await;
        sold.map_err(|e| e.to_string())
    }

    /// Where it listens: DynamoDB and SQS.
    pub(crate) fn addresses(&self) -> [std::net::SocketAddr; 2] {
        let [dynamodb, sqs, _] = self.system.services.addresses;
        [dynamodb, sqs]
    }

    /// Units of a customer's period, as the counter has them.
    pub(crate) async fn counted(&self, sold: &Sold) -> Result<u64, String> {
        let key = counters::key(&sold.customer.id, 0);
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

/// The event with this key.
pub(crate) fn event(key: &str) -> Result<Bytes, String> {
    let event: serde_json::Value = serde_json::from_str(EVENT).map_err(|e| e.to_string())?;
    let example = event["headers"]["x-api-key"].as_str().ok_or("the event has no key")?;
    Ok(EVENT.replace(example, key).into())
}
