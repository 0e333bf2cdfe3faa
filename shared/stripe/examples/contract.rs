//! Performs operations of the client with fixed arguments, so that somebody else can look at the requests.
//!
//! `cargo run -p farebox-stripe --example contract -- http://127.0.0.1:12111`
//!
//! Each line of the input names an operation, `method` or `method: variant`. Each is answered with a line: `ok`, or what went
//! wrong. The arguments are those of `tests/contract/operations.mjs`, which does the same with Stripe's own SDK.

use std::collections::HashMap;
use std::error::Error;
use std::io::{Write, stdin, stdout};

use farebox_stripe::{
    Area, Buyer, CheckoutPrice, Client, Config, CustomerUpdate, CycleAnchor, Interval, ItemChange, MeterEvent,
    MissingPaymentMethod, NewCheckout, NewPrice, NewSubscription, PauseBehavior, PriceCost, PriceStep, Proration,
    SecretKey, SubscriptionUpdate, TiersMode, TrialEnd, UsagePriceSpec,
};

const KEY: &str = "k1";
const MINUTE: i64 = 1_795_000_020;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("the address of a server")?;
    let client = Client::new(Config {
        base_url: address,
        ..Config::new(SecretKey::new("sk_test_123")?)
    })?;
    for operation in stdin().lines() {
        let outcome = match perform(&client, &operation?).await {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.to_string(),
        };
        writeln!(stdout(), "{outcome}")?;
    }
    Ok(())
}

async fn perform(client: &Client, operation: &str) -> Result<(), Box<dyn Error>> {
    let (method, variant) = operation.split_once(": ").unwrap_or((operation, ""));
    match method {
        "report_meter_event" => client.report_meter_event(&meter_event(), KEY).await?,
        "event_summary" => drop(client.event_summary("mtr_1", "cus_1", MINUTE, MINUTE + 60).await?),
        "create_meter" => drop(client.create_meter("api_calls", "API calls", KEY).await?),
        "find_meter" => drop(client.find_meter("api_calls").await?),
        "meters" => drop(client.meters().await?),
        "create_product" => drop(client.create_product("Pro", metadata(), KEY).await?),
        "create_product_with_id" => {
            let id = "farebox_pro";
            drop(client.create_product_with_id(id, "Pro", metadata(), KEY).await?);
        }
        "find_product" => drop(client.find_product("prod_1").await?),
        "update_product" => drop(client.update_product("prod_1", "Pro", metadata(), KEY).await?),
        "create_flat_price" => {
            let create = client.create_flat_price("prod_1", "usd", 4_900, Interval::Year, "pro", KEY);
            drop(create.await?);
        }
        "create_metered_price" => {
            let (spec, month) = (per_unit(), Interval::Month);
            let create = client.create_metered_price("prod_1", "usd", month, "mtr_1", &spec, "calls", KEY);
            drop(create.await?);
        }
        "create_price" => drop(client.create_price(&price(variant)?, KEY).await?),
        "find_price" => drop(client.find_price("pro").await?),
        "prices_by_lookup_keys" => drop(client.prices_by_lookup_keys(&["a", "b"]).await?),
        "prices_of_product" => drop(client.prices_of_product("prod_1").await?),
        "create_customer" => {
            let create = client.create_customer("Ada", Some("ada+1@example.com"), metadata(), KEY);
            drop(create.await?);
        }
        "customer" => drop(client.customer("cus_1").await?),
        "update_customer" => drop(client.update_customer("cus_1", &customer_update(), KEY).await?),
        "create_subscription" => {
            let create = client.create_subscription("cus_1", &["price_1", "price_2"], Some(14), metadata(), KEY);
            drop(create.await?);
        }
        "subscribe" => drop(client.subscribe(&subscription(variant)?, KEY).await?),
        "subscription" => drop(client.subscription(&either("sub", variant)?).await?),
        "subscriptions_of" => drop(client.subscriptions_of("cus_1").await?),
        "update_subscription" => {
            let update = subscription_update(variant)?;
            drop(client.update_subscription("sub_1", &update, KEY).await?);
        }
        "cancel_subscription" => drop(client.cancel_subscription("sub_1", true, true, KEY).await?),
        "resume_subscription" => drop(client.resume_subscription("sub_1", KEY).await?),
        "pause_collection" => {
            let (behavior, resumes_at) = match variant {
                "as drafts" => (PauseBehavior::KeepAsDraft, None),
                "uncollectible" => (PauseBehavior::MarkUncollectible, Some(MINUTE)),
                "void" => (PauseBehavior::Void, None),
                _ => return unknown(operation),
            };
            drop(client.pause_collection("sub_1", behavior, resumes_at, KEY).await?);
        }
        "resume_collection" => drop(client.resume_collection("sub_1", KEY).await?),
        "invoices" => drop(client.invoices("cus_1").await?),
        "invoice" => drop(client.invoice(&either("in", variant)?).await?),
        "invoice_times" => drop(client.invoice_times().await?),
        "pay_invoice" => drop(client.pay_invoice("in_1", KEY).await?),
        "finalize_invoice" => drop(client.finalize_invoice("in_1", KEY).await?),
        "create_checkout_session" => drop(client.create_checkout_session(&checkout(variant)?, KEY).await?),
        "checkout_session" => drop(client.checkout_session("cs_test_1").await?),
        "event" => drop(client.event("evt_1").await?),
        "thin_event" => drop(client.thin_event("evt_test_1").await?),
        "webhook_endpoints" => drop(client.webhook_endpoints().await?),
        "event_destinations" => drop(client.event_destinations().await?),
        "access" => {
            let area = Area::ALL.into_iter().find(|area| area.name() == variant);
            drop(client.access(area.ok_or("no such area")?).await?);
        }
        "date" => drop(client.date().await?),
        _ => return unknown(operation),
    }
    Ok(())
}

fn unknown<T>(operation: &str) -> Result<T, Box<dyn Error>> {
    Err(format!("unknown operation: {operation}").into())
}

/// The id of an object, or of one whose list within has a second page.
fn either(kind: &str, variant: &str) -> Result<String, Box<dyn Error>> {
    match variant {
        "" => Ok(format!("{kind}_1")),
        "of two pages" => Ok(format!("{kind}_long")),
        _ => unknown(variant),
    }
}

fn metadata() -> HashMap<String, String> {
    HashMap::from([("tier".to_owned(), "a & b".to_owned())])
}

fn meter_event() -> MeterEvent {
    MeterEvent {
        event_name: "api_calls".to_owned(),
        stripe_customer: "cus_1".to_owned(),
        value: 25,
        identifier: "id-1".to_owned(),
        timestamp: MINUTE,
    }
}

fn per_unit() -> UsagePriceSpec {
    UsagePriceSpec::PerUnit {
        unit_amount_decimal: "0.05".to_owned(),
    }
}

fn tiered(mode: TiersMode) -> UsagePriceSpec {
    let step = |up_to, unit: &str, flat_amount| PriceStep {
        up_to,
        unit_amount_decimal: unit.to_owned(),
        flat_amount,
    };
    UsagePriceSpec::Tiered {
        mode,
        steps: vec![step(Some(10_000), "0", None), step(None, "0.05", Some(100))],
    }
}

fn price(variant: &str) -> Result<NewPrice, Box<dyn Error>> {
    let metered = |spec| PriceCost::Metered {
        meter: "mtr_1".to_owned(),
        spec,
    };
    let cost = match variant {
        "flat" => PriceCost::Flat { amount_minor: 4_900 },
        "per unit" => metered(per_unit()),
        "graduated" => metered(tiered(TiersMode::Graduated)),
        "volume" => metered(tiered(TiersMode::Volume)),
        _ => return unknown(variant),
    };
    Ok(NewPrice {
        product: "prod_1".to_owned(),
        currency: "usd".to_owned(),
        interval: Interval::Month,
        cost,
        lookup_key: Some("pro".to_owned()),
        transfer_lookup_key: true,
        nickname: Some("Pro, monthly".to_owned()),
        metadata: metadata(),
    })
}

fn customer_update() -> CustomerUpdate {
    CustomerUpdate {
        name: Some("Ada".to_owned()),
        email: Some("ada+1@example.com".to_owned()),
        default_payment_method: Some("pm_1".to_owned()),
        metadata: HashMap::from([("gone".to_owned(), String::new())]),
    }
}

fn subscription(variant: &str) -> Result<NewSubscription, Box<dyn Error>> {
    let unpayable = match variant {
        "or cancel" => MissingPaymentMethod::Cancel,
        "or invoice" => MissingPaymentMethod::CreateInvoice,
        "or pause" => MissingPaymentMethod::Pause,
        _ => return unknown(variant),
    };
    Ok(NewSubscription {
        customer: "cus_1".to_owned(),
        prices: vec!["price_1".to_owned(), "price_2".to_owned()],
        trial_days: Some(14),
        trial_end_unpayable: Some(unpayable),
        default_payment_method: Some("pm_1".to_owned()),
        metadata: metadata(),
    })
}

fn subscription_update(variant: &str) -> Result<SubscriptionUpdate, Box<dyn Error>> {
    let none = SubscriptionUpdate::default();
    Ok(match variant {
        "items" => SubscriptionUpdate {
            items: vec![
                ItemChange::Add {
                    price: "price_3".to_owned(),
                },
                ItemChange::Replace {
                    item: "si_1".to_owned(),
                    price: "price_2".to_owned(),
                },
                ItemChange::Remove {
                    item: "si_2".to_owned(),
                    clear_usage: true,
                },
                ItemChange::Remove {
                    item: "si_3".to_owned(),
                    clear_usage: false,
                },
            ],
            proration: Proration::None,
            metadata: metadata(),
            ..none
        },
        "invoiced" => SubscriptionUpdate {
            proration: Proration::AlwaysInvoice,
            proration_date: Some(MINUTE),
            ..none
        },
        "ending" => SubscriptionUpdate {
            cancel_at_period_end: Some(true),
            ..none
        },
        "staying" => SubscriptionUpdate {
            cancel_at_period_end: Some(false),
            ..none
        },
        "trial ends" => SubscriptionUpdate {
            trial_end: Some(TrialEnd::Now),
            ..none
        },
        "trial moves" => SubscriptionUpdate {
            trial_end: Some(TrialEnd::At(MINUTE)),
            ..none
        },
        "cycle begins" => SubscriptionUpdate {
            billing_cycle_anchor: Some(CycleAnchor::Now),
            ..none
        },
        "cycle stays" => SubscriptionUpdate {
            billing_cycle_anchor: Some(CycleAnchor::Unchanged),
            ..none
        },
        _ => return unknown(variant),
    })
}

fn checkout(variant: &str) -> Result<NewCheckout, Box<dyn Error>> {
    let buyer = match variant {
        "customer" => Buyer::Customer("cus_1".to_owned()),
        "email" => Buyer::Email("ada+1@example.com".to_owned()),
        "anyone" => Buyer::Anyone,
        _ => return unknown(variant),
    };
    Ok(NewCheckout {
        buyer,
        client_reference_id: Some("visit-1".to_owned()),
        prices: vec![
            CheckoutPrice::Flat("price_1".to_owned()),
            CheckoutPrice::Metered("price_2".to_owned()),
        ],
        trial_days: Some(14),
        metadata: metadata(),
        success_url: "https://app.example/done?session={CHECKOUT_SESSION_ID}".to_owned(),
        cancel_url: Some("https://app.example/back".to_owned()),
    })
}
