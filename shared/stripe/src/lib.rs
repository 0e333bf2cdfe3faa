#![doc = include_str!("../README.md")]

mod access;
mod answer;
mod catalog;
mod checkout;
mod client;
mod config;
mod customer;
mod error;
mod events;
mod invoice;
mod list;
mod meter;
mod pace;
mod price;
mod reference;
mod subscription;
mod transport;
mod webhook;

pub use access::{Access, Area};
pub use catalog::Product;
pub use checkout::{Buyer, CheckoutPrice, CheckoutSession, NewCheckout};
pub use client::Client;
pub use config::{API_VERSION, CALLS_PER_SECOND_LIVE, Config, SecretKey};
pub use customer::{Customer, CustomerUpdate};
pub use error::Error;
pub use events::{EventDestination, WebhookEndpoint};
pub use invoice::{Invoice, InvoiceLine, InvoiceTimes};
pub use meter::{Meter, MeterEvent};
pub use price::{Interval, NewPrice, Price, PriceCost, PriceStep, Recurring, TiersMode, UsagePriceSpec};
pub use subscription::{
    CycleAnchor, ItemChange, MissingPaymentMethod, NewSubscription, PauseBehavior, Proration, Subscription,
    SubscriptionItem, SubscriptionUpdate, TrialEnd,
};
pub use transport::{Body, Sent, Transport, Unreachable};
pub use webhook::{
    Event, EventError, EventForm, MeterError, MeterErrorReport, MeterErrorSample, SIGNATURE_TOLERANCE_S,
    SignatureError, SigningSecret, sign, verify,
};
