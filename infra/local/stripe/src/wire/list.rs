//! List objects and cursor pagination.
//!
//! Source: <https://docs.stripe.com/api/pagination>.

use serde_json::{Value, json};

use crate::wire::{error::ApiError, form::Params};

/// Where in a list an answer begins and how long it is.
#[derive(Debug)]
pub(crate) struct Page {
    limit: usize,
    from: From,
}

#[derive(Debug)]
enum From {
    Start,
    After(String),
    Before(String),
}

impl Page {
    /// Takes `limit` (1 to 100, 10 if absent), `starting_after` and `ending_before`.
    pub(crate) fn take(params: &mut Params) -> Result<Self, ApiError> {
        let limit = match params.integer("limit")?.unwrap_or(10) {
            small if small < 1 => {
                return Err(
                    ApiError::invalid("limit", "This value must be greater than or equal to 1.")
                        .code("parameter_invalid_integer"),
                );
            }
            large if large > 100 => {
                return Err(
                    ApiError::invalid("limit", "This value must be less than or equal to 100.")
                        .code("parameter_invalid_integer"),
                );
            }
            limit => limit as usize,
        };
        let from = match (params.text("starting_after")?, params.text("ending_before")?) {
            (None, None) => From::Start,
            (Some(id), None) => From::After(id),
            (None, Some(id)) => From::Before(id),
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid(
                    "ending_before",
                    "You may only specify one of these parameters: starting_after, ending_before.",
                ));
            }
        };
        Ok(Self { limit, from })
    }

    /// Cuts the page out of `rows`, which are in the list's order, and renders only its rows.
    pub(crate) fn cut<T>(
        &self,
        rows: impl Iterator<Item = T>,
        id: impl Fn(&T) -> &str,
        render: impl Fn(&T) -> Value,
        noun: &str,
        url: &str,
    ) -> Result<Value, ApiError> {
        let (page, has_more) = match &self.from {
            From::Start => first(rows, self.limit),
            From::After(cursor) => {
                let mut rows = rows.skip_while(|row| id(row) != cursor);
                if rows.next().is_none() {
                    return Err(ApiError::no_such(noun, cursor, "starting_after"));
                }
                first(rows, self.limit)
            }
            From::Before(cursor) => {
                let mut found = false;
                let mut before: Vec<T> = Vec::new();
                for row in rows {
                    if id(&row) == cursor {
                        found = true;
                        break;
                    }
                    before.push(row);
                }
                if !found {
                    return Err(ApiError::no_such(noun, cursor, "ending_before"));
                }
                let more = before.len() > self.limit;
                let surplus = before.len().saturating_sub(self.limit);
                (before.split_off(surplus), more)
            }
        };
        Ok(list(page.iter().map(render).collect(), has_more, url))
    }
}

fn first<T>(rows: impl Iterator<Item = T>, limit: usize) -> (Vec<T>, bool) {
    let mut rows = rows.peekable();
    let page: Vec<T> = rows.by_ref().take(limit).collect();
    let has_more = rows.peek().is_some();
    (page, has_more)
}

/// A list object.
pub(crate) fn list(data: Vec<Value>, has_more: bool, url: &str) -> Value {
    json!({ "object": "list", "data": data, "has_more": has_more, "url": url })
}
