//! Subscription items as objects of their own.
//!
//! Source: <https://docs.stripe.com/api/subscription_items>.

use serde_json::{Value, json};

use super::{Item, Proration, Subscription};
use crate::{
    events::Cause,
    state::State,
    subscriptions::changes::{Change, Restart, check_proration_date},
    wire::{error::ApiError, form::Params, list::Page},
};

impl State {
    pub(crate) fn create_item(&mut self, mut params: Params, at: i64, cause: &Cause) -> Result<Value, ApiError> {
        let subscription = params.required("subscription")?;
        let proration = Proration::take(&mut params)?;
        let proration_date = params.natural("proration_date")?;
        params.ignore(&["payment_behavior"]);
        let (change, param) = Change::take(params)?;
        if !matches!(change, Change::Add { .. }) {
            return Err(ApiError::unknown_parameters(&["id".to_owned()]));
        }
        let subscription = self.change_one(&subscription, change, param, (proration, proration_date), at, cause)?;
        match subscription.items.last() {
            Some(item) => Ok(self.render_item(&subscription, item)),
            None => Err(ApiError::internal()),
        }
    }

    pub(crate) fn update_item(
        &mut self,
        id: &str,
        mut params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        let owner = self.owner_of(id)?;
        let proration = Proration::take(&mut params)?;
        let proration_date = params.natural("proration_date")?;
        let price = params.text("price")?;
        let quantity = params.natural("quantity")?;
        let metadata = params.pairs("metadata")?;
        params.ignore(&[
            "billing_thresholds",
            "discounts",
            "off_session",
            "payment_behavior",
            "tax_rates",
        ]);
        params.finish()?;
        let change = Change::Update {
            id: id.to_owned(),
            price,
            quantity,
            metadata,
        };
        self.change_one(
            &owner,
            change,
            "quantity".to_owned(),
            (proration, proration_date),
            at,
            cause,
        )?;
        self.retrieve_item(id)
    }

    pub(crate) fn delete_item(
        &mut self,
        id: &str,
        mut params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        let owner = self.owner_of(id)?;
        let proration = Proration::take(&mut params)?;
        let proration_date = params.natural("proration_date")?;
        params.ignore(&["clear_usage", "payment_behavior"]);
        params.finish()?;
        let change = Change::Remove { id: id.to_owned() };
        self.change_one(&owner, change, "id".to_owned(), (proration, proration_date), at, cause)?;
        Ok(json!({ "id": id, "object": "subscription_item", "deleted": true }))
    }

    pub(super) fn change_one(
        &mut self,
        id: &str,
        change: Change,
        param: String,
        (proration, proration_date): (Proration, Option<i64>),
        at: i64,
        cause: &Cause,
    ) -> Result<Subscription, ApiError> {
        let found = self.live_subscription(id, "subscription")?;
        let before = self.render_subscription(found);
        let mut subscription = found.clone();
        let when = check_proration_date(&subscription, proration_date, at)?;
        let saved = self.ids.clone();
        let applied = self.apply(
            &mut subscription,
            vec![(change, param)],
            proration,
            Restart::No,
            when,
            at,
        );
        let immediate = match applied {
            Ok(immediate) => immediate,
            Err(error) => {
                self.ids = saved;
                return Err(error);
            }
        };
        self.commit_update(subscription.clone(), immediate, before, at, cause);
        Ok(subscription)
    }

    /// The subscription that has an item.
    pub(super) fn owner_of(&self, item: &str) -> Result<String, ApiError> {
        let missing = || ApiError::no_such("subscription_item", item, "id");
        let owner = self.item_owners.get(item).ok_or_else(missing)?;
        let subscription = self.subscriptions.get(owner, "id")?;
        let has = subscription.items.iter().any(|other| other.id == item);
        has.then(|| owner.clone()).ok_or_else(missing)
    }

    pub(crate) fn retrieve_item(&self, id: &str) -> Result<Value, ApiError> {
        let owner = self.owner_of(id)?;
        let subscription = self.subscriptions.get(&owner, "id")?;
        let item = subscription.items.iter().find(|item| item.id == id);
        item.map(|item| self.render_item(subscription, item))
            .ok_or_else(|| ApiError::no_such("subscription_item", id, "id"))
    }

    pub(crate) fn list_items(&self, mut params: Params) -> Result<Value, ApiError> {
        let page = Page::take(&mut params)?;
        let subscription = params.required("subscription")?;
        params.finish()?;
        let subscription = self.subscriptions.get(&subscription, "subscription")?;
        page.cut(
            subscription.items.iter(),
            |item| &item.id,
            |item| self.render_item(subscription, item),
            "subscription_item",
            "/v1/subscription_items",
        )
    }

    pub(super) fn render_item(&self, subscription: &Subscription, item: &Item) -> Value {
        let price = self.price_of(item);
        let mut rendered = json!({
            "id": item.id,
            "object": "subscription_item",
            "billing_thresholds": null,
            "current_trial": null,
            "created": item.created,
            "current_period_end": subscription.period.1,
            "current_period_start": subscription.period.0,
            "discounts": [],
            "metadata": item.metadata,
            "plan": price.render_plan(),
            "price": price.render(),
            "subscription": subscription.id,
            "tax_rates": [],
        });
        if let (Some(quantity), Some(fields)) = (item.quantity, rendered.as_object_mut()) {
            fields.insert("quantity".into(), quantity.into());
        }
        rendered
    }
}
