//! Objects of one kind, by id and in the order of their creation.

use std::collections::HashMap;

use crate::wire::error::ApiError;

/// An API object that a [`Table`] can hold.
pub(crate) trait Object {
    /// The object's type as "No such …" spells it.
    const NOUN: &'static str;

    fn id(&self) -> &str;

    /// The customer that owns it, if the table is asked by customer.
    fn customer(&self) -> Option<&str> {
        None
    }
}

/// All objects of one kind. Nothing is ever removed: what the API deletes stays as a tombstone.
#[derive(Debug)]
pub(crate) struct Table<T> {
    rows: Vec<T>,
    by_id: HashMap<String, usize>,
    by_customer: HashMap<String, Vec<usize>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            by_id: HashMap::new(),
            by_customer: HashMap::new(),
        }
    }
}

impl<T: Object> Table<T> {
    /// The object with an id, or Stripe's 404. `param` is the parameter that carried the id.
    pub(crate) fn get(&self, id: &str, param: &str) -> Result<&T, ApiError> {
        self.find(id).ok_or_else(|| ApiError::no_such(T::NOUN, id, param))
    }

    pub(crate) fn find(&self, id: &str) -> Option<&T> {
        self.by_id.get(id).map(|at| &self.rows[*at])
    }

    /// Adds an object or replaces the one with its id.
    pub(crate) fn put(&mut self, object: T) {
        match self.by_id.get(object.id()) {
            Some(at) => self.rows[*at] = object,
            None => {
                let at = self.rows.len();
                self.by_id.insert(object.id().to_owned(), at);
                if let Some(customer) = object.customer() {
                    self.by_customer.entry(customer.to_owned()).or_default().push(at);
                }
                self.rows.push(object);
            }
        }
    }

    /// In the order of creation.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.rows.iter()
    }

    /// Newest first, as lists are; only one customer's, if one is named.
    pub(crate) fn newest_first<'a>(&'a self, customer: Option<&str>) -> Box<dyn Iterator<Item = &'a T> + 'a> {
        match customer {
            None => Box::new(self.rows.iter().rev()),
            Some(customer) => {
                let indices = self.by_customer.get(customer).map_or(&[][..], Vec::as_slice);
                Box::new(indices.iter().rev().map(|at| &self.rows[*at]))
            }
        }
    }
}
