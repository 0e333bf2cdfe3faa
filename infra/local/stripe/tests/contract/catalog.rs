//! Products and prices.

use crate::api::{Api, id};

#[tokio::test]
async fn a_price_shows_whole_and_decimal_amounts() {
    let api = Api::start().await;
    let whole = api
        .post(
            "/v1/prices",
            "currency=usd&product_data[name]=A&unit_amount_decimal=5.0",
        )
        .await
        .ok();
    assert_eq!(
        (&whole["unit_amount"], &whole["unit_amount_decimal"]),
        (&5.into(), &"5".into())
    );
    let decimal = api
        .post(
            "/v1/prices",
            "currency=usd&product_data[name]=A&unit_amount_decimal=0.000000000001",
        )
        .await
        .ok();
    assert!(decimal["unit_amount"].is_null());
    assert_eq!(decimal["unit_amount_decimal"], "0.000000000001");
    let long = api
        .post(
            "/v1/prices",
            "currency=usd&product_data[name]=A&unit_amount_decimal=0.0000000000001",
        )
        .await;
    assert_eq!(long.error(400)["param"], "unit_amount_decimal");
}

#[tokio::test]
async fn amounts_are_immutable() {
    let api = Api::start().await;
    let price = api.price("unit_amount=100").await;
    let error = api
        .post(&format!("/v1/prices/{price}"), "unit_amount=200")
        .await
        .error(400);
    assert_eq!(
        (&error["code"], &error["param"]),
        (&"parameter_unknown".into(), &"unit_amount".into())
    );
    assert_eq!(
        api.post(&format!("/v1/prices/{price}"), "active=false").await.ok()["active"],
        false
    );
}

#[tokio::test]
async fn a_lookup_key_is_unique_and_moves_on_request() {
    let api = Api::start().await;
    let first = api.price("unit_amount=100&lookup_key=pro").await;
    let taken = "currency=usd&product_data[name]=A&unit_amount=200&lookup_key=pro";
    assert_eq!(api.post("/v1/prices", taken).await.error(400)["param"], "lookup_key");
    let second = id(&api
        .post("/v1/prices", &format!("{taken}&transfer_lookup_key=true"))
        .await
        .ok());
    let found = api.get("/v1/prices?lookup_keys[]=pro&expand[]=data.product").await.ok();
    assert_eq!(found["data"][0]["id"], second.as_str());
    assert_eq!(found["data"][0]["product"]["object"], "product");
    assert!(api.get(&format!("/v1/prices/{first}")).await.ok()["lookup_key"].is_null());
}

#[tokio::test]
async fn tiers_are_shown_when_expanded() {
    let api = Api::start().await;
    let price = api
        .price(
            "billing_scheme=tiered&tiers_mode=graduated
             &tiers[0][up_to]=1000&tiers[0][unit_amount]=0&tiers[0][flat_amount]=900&tiers[1][up_to]=inf&tiers[1][unit_amount_decimal]=3.6",
        )
        .await;
    assert!(
        api.get(&format!("/v1/prices/{price}"))
            .await
            .ok()
            .get("tiers")
            .is_none()
    );
    let tiers = api.get(&format!("/v1/prices/{price}?expand[]=tiers")).await.ok()["tiers"].clone();
    assert_eq!(
        (&tiers[0]["up_to"], &tiers[0]["flat_amount"]),
        (&1000.into(), &900.into())
    );
    assert!(tiers[1]["up_to"].is_null() && tiers[1]["unit_amount"].is_null());
    assert_eq!(tiers[1]["unit_amount_decimal"], "3.6");
    let listed = api.get("/v1/prices?expand[]=data.tiers").await.ok();
    assert_eq!(listed["data"][0]["tiers"][0]["up_to"], 1000);
    let flat = api.price("unit_amount=2900").await;
    let shown = api.get(&format!("/v1/prices/{flat}?expand[]=tiers")).await.ok();
    assert!(shown.get("tiers").is_none(), "a price without tiers has no such field");
}

#[tokio::test]
async fn senseless_prices_are_refused() {
    let api = Api::start().await;
    let meter = api.meter().await;
    let refused = async |rest: &str| {
        let form = format!("currency=usd&product_data[name]=A&recurring[interval]=month&{rest}");
        api.post("/v1/prices", &form).await.error(400)["param"].clone()
    };
    assert_eq!(
        refused("recurring[usage_type]=metered&unit_amount=1").await,
        "recurring[meter]"
    );
    assert_eq!(
        refused(&format!("recurring[meter]={meter}&unit_amount=1")).await,
        "recurring[meter]"
    );
    assert_eq!(refused("unit_amount=-1").await, "unit_amount");
    assert_eq!(refused("").await, "unit_amount");
    assert_eq!(
        refused("unit_amount=1&unit_amount_decimal=1").await,
        "unit_amount_decimal"
    );
    let tiered = "billing_scheme=tiered&tiers_mode=volume&tiers[0][unit_amount]=1";
    assert_eq!(refused(&format!("{tiered}&tiers[0][up_to]=5")).await, "tiers");
    assert_eq!(refused(&format!("{tiered}&tiers[0][up_to]=0")).await, "tiers[0][up_to]");
    let transformed = "transform_quantity[divide_by]=10&transform_quantity[round]=up";
    assert_eq!(
        refused(&format!("{tiered}&tiers[0][up_to]=inf&{transformed}")).await,
        "transform_quantity"
    );
}

#[tokio::test]
async fn products_change_and_lists_know_what_is_active() {
    let api = Api::start().await;
    let product = api.post("/v1/products", "name=Pro&metadata[tier]=pro").await.ok();
    let path = format!("/v1/products/{}", id(&product));
    let form = format!(
        "currency=usd&unit_amount=100&recurring[interval]=month&product={}",
        id(&product)
    );
    let price = id(&api.post("/v1/prices", &form).await.ok());
    let changed = api
        .post(
            &path,
            &format!("name=Pro2&default_price={price}&metadata[tier]=&active=false"),
        )
        .await
        .ok();
    assert_eq!(
        (&changed["name"], &changed["default_price"], &changed["metadata"]),
        (&"Pro2".into(), &price.as_str().into(), &serde_json::json!({}))
    );
    assert_eq!(api.get(&path).await.ok(), changed);
    api.post(&format!("/v1/prices/{price}"), "active=false").await.ok();
    for list in ["/v1/products", "/v1/prices"] {
        for (active, count) in [("false", 1), ("true", 0)] {
            let listed = api.get(&format!("{list}?active={active}")).await.ok();
            assert_eq!(listed["data"].as_array().map(Vec::len), Some(count), "{list} {active}");
        }
    }
    let of_product = api.get(&format!("/v1/prices?product={}", id(&product))).await.ok();
    assert_eq!(of_product["data"][0]["id"], price.as_str());
}
