//! Form decoding: `items[0][price]=price_1&metadata[team]=red` as a tree, read by name with Stripe's errors.
//!
//! A reader takes what it knows out of [`Params`] and then calls [`Params::finish`], which refuses what is left:
//! Stripe refuses every parameter that it does not know.

use crate::wire::error::ApiError;

/// Nesting deeper than this is refused; Stripe's deepest parameter has six levels.
const DEPTH_MAX: usize = 12;

/// One value of a form: a leaf, or a level of brackets in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Text(String),
    Level(Vec<(String, Node)>),
}

/// The parameters of a request, or of one level of its brackets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params {
    /// The brackets around this level (`items[0]`), empty at the top.
    prefix: String,
    entries: Vec<(String, Node)>,
}

impl Params {
    /// Decodes a query string or a form body.
    pub(crate) fn decode(text: &str) -> Result<Self, ApiError> {
        let mut entries = Vec::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let path = split_brackets(&name)?;
            insert(&mut entries, &path, value.into_owned());
        }
        Ok(Self {
            prefix: String::new(),
            entries,
        })
    }

    /// The name of a parameter as errors show it: with the brackets around it.
    pub(crate) fn name(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{}[{name}]", self.prefix)
        }
    }

    fn take(&mut self, name: &str) -> Option<Node> {
        let at = self.entries.iter().position(|(key, _)| key == name)?;
        Some(self.entries.remove(at).1)
    }

    /// A string; an empty one is refused, because it means "unset" and most parameters can't be.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.settable(name)? {
            None => Ok(None),
            Some(None) => Err(ApiError::empty(&self.name(name))),
            Some(text) => Ok(text),
        }
    }

    /// A string that may be unset: `Some(None)` for the empty string.
    pub(crate) fn settable(&mut self, name: &str) -> Result<Option<Option<String>>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Node::Text(text)) => Ok(Some(Some(text).filter(|text| !text.is_empty()))),
            Some(Node::Level(_)) => Err(ApiError::invalid(self.name(name), "Invalid string")),
        }
    }

    /// A string that must be there.
    pub(crate) fn required(&mut self, name: &str) -> Result<String, ApiError> {
        self.text(name)?.ok_or_else(|| ApiError::missing(&self.name(name)))
    }

    /// A whole number.
    pub(crate) fn integer(&mut self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            ApiError::invalid(self.name(name), format!("Invalid integer: {text}")).code("parameter_invalid_integer")
        })
    }

    /// A whole number that must not be negative.
    pub(crate) fn natural(&mut self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.integer(name)? {
            Some(negative) if negative < 0 => Err(ApiError::invalid(
                self.name(name),
                "This value must be greater than or equal to 0.",
            )
            .code("parameter_invalid_integer")),
            number => Ok(number),
        }
    }

    /// A point in time, in unix seconds.
    pub(crate) fn required_time(&mut self, name: &str) -> Result<i64, ApiError> {
        self.natural(name)?.ok_or_else(|| ApiError::missing(&self.name(name)))
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.text(name)?.as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(ApiError::invalid(self.name(name), format!("Invalid boolean: {other}"))),
        }
    }

    /// One of a closed set of words; gives the meaning that stands beside the word.
    pub(crate) fn choice<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => Err(ApiError::invalid(
                self.name(name),
                format!("Invalid {}: must be {}", self.name(name), one_of(words)),
            )),
        }
    }

    /// A level of brackets, `None` if it is absent. An empty string unsets: it gives an empty level.
    pub(crate) fn level(&mut self, name: &str) -> Result<Option<Params>, ApiError> {
        let prefix = self.name(name);
        match self.take(name) {
            None => Ok(None),
            Some(Node::Level(entries)) => Ok(Some(Params { prefix, entries })),
            Some(Node::Text(text)) if text.is_empty() => Ok(Some(Params {
                prefix,
                entries: Vec::new(),
            })),
            Some(Node::Text(_)) => Err(ApiError::invalid(prefix, "Invalid object")),
        }
    }

    /// An array of levels (`items[0][price]`), in the order of its indices.
    pub(crate) fn levels(&mut self, name: &str) -> Result<Option<Vec<Params>>, ApiError> {
        let Some(list) = self.level(name)? else {
            return Ok(None);
        };
        let mut levels = Vec::with_capacity(list.entries.len());
        for (index, node) in in_order_of_index(list.entries, &list.prefix)? {
            let prefix = format!("{}[{index}]", list.prefix);
            match node {
                Node::Level(entries) => levels.push(Params { prefix, entries }),
                Node::Text(_) => return Err(ApiError::invalid(prefix, "Invalid object")),
            }
        }
        Ok(Some(levels))
    }

    /// An array of strings (`lookup_keys[]`).
    pub(crate) fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, ApiError> {
        let Some(list) = self.level(name)? else {
            return Ok(None);
        };
        let mut texts = Vec::with_capacity(list.entries.len());
        for (index, node) in in_order_of_index(list.entries, &list.prefix)? {
            match node {
                Node::Text(text) => texts.push(text),
                Node::Level(_) => {
                    return Err(ApiError::invalid(format!("{}[{index}]", list.prefix), "Invalid string"));
                }
            }
        }
        Ok(Some(texts))
    }

    /// Free pairs (`metadata[team]`); an empty value unsets the key.
    pub(crate) fn pairs(&mut self, name: &str) -> Result<Vec<(String, String)>, ApiError> {
        let Some(level) = self.level(name)? else {
            return Ok(Vec::new());
        };
        level
            .entries
            .into_iter()
            .map(|(key, node)| match node {
                Node::Text(text) => Ok((key, text)),
                Node::Level(_) => Err(ApiError::invalid(
                    format!("{}[{key}]", level.prefix),
                    "Metadata values must be strings, but for one of the keys you passed a nested object.",
                )),
            })
            .collect()
    }

    /// Takes a parameter that the stand-in accepts and does not act on, of whatever shape.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.take(name);
        }
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = self.entries.iter().map(|(name, _)| self.name(name)).collect();
        Err(ApiError::unknown_parameters(&names))
    }
}

/// `day, week, month, or year`
fn one_of<T>(words: &[(&str, T)]) -> String {
    match words {
        [] => String::new(),
        [(only, _)] => (*only).to_owned(),
        [(first, _), (second, _)] => format!("one of {first} or {second}"),
        [head @ .., (last, _)] => {
            let head: Vec<&str> = head.iter().map(|(word, _)| *word).collect();
            format!("one of {}, or {last}", head.join(", "))
        }
    }
}

/// `items[0][price]` as `["items", "0", "price"]`.
fn split_brackets(name: &str) -> Result<Vec<&str>, ApiError> {
    let (head, mut rest) = match name.find('[') {
        Some(at) if at > 0 => name.split_at(at),
        _ => return Ok(vec![name]),
    };
    let mut path = vec![head];
    while let Some(inner) = rest.strip_prefix('[') {
        match inner.split_once(']') {
            Some((segment, after)) if path.len() < DEPTH_MAX => {
                path.push(segment);
                rest = after;
            }
            _ => return Err(ApiError::unknown_parameters(&[name.to_owned()])),
        }
    }
    if rest.is_empty() {
        Ok(path)
    } else {
        Err(ApiError::unknown_parameters(&[name.to_owned()]))
    }
}

/// Puts a value at its path. A repeated leaf is overwritten by the later one. An empty segment (`[]`) appends; a level
/// after it (`items[][price]`) continues the last element until a name repeats.
fn insert(entries: &mut Vec<(String, Node)>, path: &[&str], value: String) {
    let [segment, rest @ ..] = path else {
        return;
    };
    let key = if segment.is_empty() {
        match (entries.last(), rest.first()) {
            (Some((last, Node::Level(inside))), Some(next)) if !inside.iter().any(|(name, _)| name == next) => {
                last.clone()
            }
            _ => entries.len().to_string(),
        }
    } else {
        (*segment).to_owned()
    };
    let at = entries.iter().position(|(name, _)| *name == key);
    if rest.is_empty() {
        match at {
            Some(at) => entries[at].1 = Node::Text(value),
            None => entries.push((key, Node::Text(value))),
        }
        return;
    }
    let at = at.unwrap_or_else(|| {
        entries.push((key, Node::Level(Vec::new())));
        entries.len() - 1
    });
    if let Node::Text(_) = entries[at].1 {
        entries[at].1 = Node::Level(Vec::new());
    }
    if let Node::Level(inside) = &mut entries[at].1 {
        insert(inside, rest, value);
    }
}

fn in_order_of_index(entries: Vec<(String, Node)>, prefix: &str) -> Result<Vec<(usize, Node)>, ApiError> {
    let mut indexed = entries
        .into_iter()
        .map(|(key, node)| match key.parse::<usize>() {
            Ok(index) => Ok((index, node)),
            Err(_) => Err(ApiError::invalid(prefix, "Invalid array")),
        })
        .collect::<Result<Vec<_>, _>>()?;
    indexed.sort_by_key(|(index, _)| *index);
    Ok(indexed)
}

/// The pairs of a form in a fixed order, by which two requests are the same.
pub(crate) fn canonical(text: &str) -> String {
    let mut pairs: Vec<(String, String)> = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
    pairs.sort();
    let mut canonical = form_urlencoded::Serializer::new(String::new());
    canonical.extend_pairs(pairs);
    canonical.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_nest() {
        let mut form = Params::decode("items[1][price]=b&items[0][price]=a&items[0][quantity]=2&x=1").expect("decodes");
        let mut items = form.levels("items").expect("levels").expect("present");
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].text("price").expect("text").as_deref(), Some("a"));
        assert_eq!(items[0].integer("quantity").expect("integer"), Some(2));
        assert_eq!(items[1].text("price").expect("text").as_deref(), Some("b"));
        assert!(form.finish().is_err());
    }

    #[test]
    fn empty_brackets_append() {
        let mut form = Params::decode("items[][price]=a&items[][quantity]=2&items[][price]=b&expand[]=x&expand[]=y")
            .expect("decodes");
        let items = form.levels("items").expect("levels").expect("present");
        assert_eq!(items.len(), 2);
        assert_eq!(form.texts("expand").expect("texts").expect("present"), ["x", "y"]);
    }

    #[test]
    fn unknown_names_carry_their_brackets() {
        let mut form = Params::decode("recurring[foo]=1").expect("decodes");
        let level = form.level("recurring").expect("level").expect("present");
        let error = level.finish().expect_err("unknown").body("req_1");
        assert_eq!(error["error"]["param"], "recurring[foo]");
        assert_eq!(error["error"]["message"], "Received unknown parameter: recurring[foo]");
    }

    #[test]
    fn the_order_of_pairs_is_no_difference() {
        assert_eq!(canonical("a=1&b=%20x"), canonical("b=+x&a=1"));
    }
}
