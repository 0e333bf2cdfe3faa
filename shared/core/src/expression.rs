//! A DynamoDB write as text: what the pure transition beside it does, said in the table's own language.

/// A value that an expression names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A whole number.
    N(u64),
    /// A text.
    S(String),
}

impl From<u64> for Value {
    fn from(n: u64) -> Self {
        Value::N(n)
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Self {
        Value::S(s.to_owned())
    }
}

/// An `UpdateItem` without its key
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_UpdateItem.html>).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expression {
    /// The update expression.
    pub update: String,
    /// The condition expression.
    pub condition: String,
    /// Attribute names by placeholder (`#x`).
    pub names: Vec<(String, String)>,
    /// Values by placeholder (`:x`).
    pub values: Vec<(String, Value)>,
}

impl Expression {
    /// An update under a condition; names and values follow.
    #[must_use]
    pub fn new(update: impl Into<String>, condition: impl Into<String>) -> Self {
        Self {
            update: update.into(),
            condition: condition.into(),
            names: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Binds a placeholder to an attribute's name.
    #[must_use]
    pub fn name(mut self, placeholder: &str, name: impl Into<String>) -> Self {
        self.names.push((placeholder.to_owned(), name.into()));
        self
    }

    /// Binds a placeholder to a value.
    #[must_use]
    pub fn value(mut self, placeholder: &str, value: impl Into<Value>) -> Self {
        self.values.push((placeholder.to_owned(), value.into()));
        self
    }
}
