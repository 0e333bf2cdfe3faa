//! DynamoDB's expressions, as far as the rules use them: the model runs the very text that is sent to the table.
//!
//! An attribute that does not exist makes every comparison false, as on AWS; a text that is not understood is a panic, never
//! a guess.

use std::collections::BTreeMap;

use farebox_core::expression::{Expression, Value};

/// An item of a table.
pub type Attributes = BTreeMap<String, Value>;

/// Runs a write: the item after it, or `None` if its condition fails. An item that does not exist has no attributes.
///
/// # Panics
/// If the text is not understood, or adds what is no number.
#[must_use]
pub fn run(write: &Expression, item: &Attributes) -> Option<Attributes> {
    let reader = |text| Reader {
        tokens: tokens(text),
        at: 0,
        write,
        item,
    };
    let mut condition = reader(&write.condition);
    let holds = condition.either();
    condition.end();
    if !holds {
        return None;
    }
    let mut update = reader(&write.update);
    let mut after = item.clone();
    while let Some(word) = update.next() {
        match word.as_str() {
            "SET" => update.sets(&mut after),
            "REMOVE" => update.removes(&mut after),
            other => panic!("an update does not begin with {other}: {}", write.update),
        }
    }
    Some(after)
}

fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut word = String::new();
    for c in text.chars() {
        let is_sign = matches!(c, '(' | ')' | ',' | '=' | '<' | '>' | '+');
        if (is_sign || c.is_whitespace()) && !word.is_empty() {
            tokens.push(std::mem::take(&mut word));
        }
        match tokens.last_mut() {
            Some(last) if c == '=' && (last == "<" || last == ">") => last.push(c),
            _ if is_sign => tokens.push(c.to_string()),
            _ if c.is_whitespace() => {}
            _ => word.push(c),
        }
    }
    if !word.is_empty() {
        tokens.push(word);
    }
    tokens
}

struct Reader<'a> {
    tokens: Vec<String>,
    at: usize,
    write: &'a Expression,
    item: &'a Attributes,
}

impl Reader<'_> {
    fn peek(&self) -> &str {
        self.tokens.get(self.at).map_or("", String::as_str)
    }

    fn next(&mut self) -> Option<String> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn takes(&mut self, token: &str) -> bool {
        let is_there = self.peek() == token;
        self.at += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, token: &str) {
        assert!(self.takes(token), "{token} expected at {} in {:?}", self.at, self.write);
    }

    fn end(&self) {
        assert_eq!(self.at, self.tokens.len(), "not understood: {:?}", self.write);
    }

    fn either(&mut self) -> bool {
        let mut holds = self.both();
        while self.takes("OR") {
            holds |= self.both();
        }
        holds
    }

    fn both(&mut self) -> bool {
        let mut holds = self.one();
        while self.takes("AND") {
            holds &= self.one();
        }
        holds
    }

    fn one(&mut self) -> bool {
        if self.takes("(") {
            let holds = self.either();
            self.expect(")");
            return holds;
        }
        for (function, is_wanted) in [("attribute_not_exists", false), ("attribute_exists", true)] {
            if self.takes(function) {
                self.expect("(");
                let name = self.name();
                self.expect(")");
                return self.item.contains_key(&name) == is_wanted;
            }
        }
        let left = self.operand(self.item);
        let sign = self.next().unwrap_or_default();
        let right = self.operand(self.item);
        let order = match (&left, &right) {
            (Some(Value::N(a)), Some(Value::N(b))) => a.cmp(b),
            (Some(Value::S(a)), Some(Value::S(b))) => a.cmp(b),
            _ => return false,
        };
        match sign.as_str() {
            "=" => order.is_eq(),
            "<" => order.is_lt(),
            "<=" => order.is_le(),
            ">" => order.is_gt(),
            ">=" => order.is_ge(),
            other => panic!("no comparison: {other} in {:?}", self.write),
        }
    }

    fn name(&mut self) -> String {
        let word = self.next().unwrap_or_default();
        if !word.starts_with('#') {
            return word;
        }
        let bound = self.write.names.iter().find(|(placeholder, _)| *placeholder == word);
        bound.map_or_else(|| panic!("{word} is not bound"), |(_, name)| name.clone())
    }

    fn operand(&mut self, item: &Attributes) -> Option<Value> {
        if self.takes("if_not_exists") {
            self.expect("(");
            let name = self.name();
            self.expect(",");
            let other = self.operand(item);
            self.expect(")");
            return item.get(&name).cloned().or(other);
        }
        if self.peek().starts_with(':') {
            let word = self.next().unwrap_or_default();
            let bound = self.write.values.iter().find(|(placeholder, _)| *placeholder == word);
            return Some(bound.map_or_else(|| panic!("{word} is not bound"), |(_, value)| value.clone()));
        }
        let name = self.name();
        item.get(&name).cloned()
    }

    /// Every operand is read from the item before the write.
    fn sets(&mut self, after: &mut Attributes) {
        loop {
            let name = self.name();
            self.expect("=");
            let mut value = self.operand(self.item);
            while self.takes("+") {
                value = match (value, self.operand(self.item)) {
                    (Some(Value::N(a)), Some(Value::N(b))) => Some(Value::N(a + b)),
                    _ => panic!("only numbers are added: {:?}", self.write),
                };
            }
            let value = value.unwrap_or_else(|| panic!("{name} is set to nothing: {:?}", self.write));
            after.insert(name, value);
            if !self.takes(",") {
                return;
            }
        }
    }

    fn removes(&mut self, after: &mut Attributes) {
        loop {
            let name = self.name();
            after.remove(&name);
            if !self.takes(",") {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_attribute_fails_every_comparison_and_or_binds_weaker_than_and() {
        let write = Expression::new(
            "SET a = if_not_exists(a, :one) + :one REMOVE b, c",
            "x < :one OR a >= :one AND b = :one",
        )
        .value(":one", 1);
        let item = |pairs: &[(&str, u64)]| -> Attributes {
            pairs.iter().map(|&(name, n)| (name.to_owned(), Value::N(n))).collect()
        };
        assert_eq!(run(&write, &item(&[])), None);
        assert_eq!(run(&write, &item(&[("a", 1)])), None);
        assert_eq!(run(&write, &item(&[("a", 3), ("b", 1)])), Some(item(&[("a", 4)])));
        assert_eq!(
            run(&write, &item(&[("x", 0), ("c", 9)])),
            Some(item(&[("x", 0), ("a", 2)]))
        );
    }
}
