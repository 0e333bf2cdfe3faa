//! YAML as nodes that know their line, keep numbers as they were written, and stay small.
//!
//! The parser gives numbers as floats and stops at the first duplicate key, and it goes one stack frame down per level:
//! this module gets the text of a number back from the file, lets duplicate keys pass to where they can be named, and
//! refuses what is too deep or too large before the parser sees it.

use saphyr::{LoadableYamlNode, MarkedYaml, Marker, Scalar, YamlData};

/// A larger file is refused.
const BYTES_MAX: usize = 256 * 1024;
/// Block indicators and blanks that may begin a line: a block collection only opens among them, and always further right
/// than the one around it, so this bounds how deep blocks nest. (Flow collections are bounded by the parser, to 255.)
const INDENT_MAX: usize = 100;
/// Each anchor makes the parser copy what it names: characters of the file times anchors.
const ANCHORED_CHARS_MAX: usize = 1024 * 1024;
/// Nodes after aliases are resolved.
const NODES_MAX: usize = 100_000;
/// Duplicate keys that are reported before giving up.
const DUPLICATES_MAX: usize = 32;
/// Takes the place of the first character of a duplicate key, so that the parser goes on. Of the private use area: no
/// sensible file has it.
const PLACEHOLDER: char = '\u{F8F0}';

/// Where a node begins, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// A text, number or boolean, as written.
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Valid YAML that has no meaning here, with the reason.
    Refused(&'static str),
}

/// A key and its value, in file order; a key may occur twice.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) key: String,
    pub(super) node: Node,
}

/// Why there are no nodes.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) place: Place,
    pub(super) problem: String,
}

/// The one document of a file.
pub(super) fn load(text: &str) -> Result<Node, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let start = Place { line: 1, column: 1 };
    if text.len() > BYTES_MAX {
        let problem = format!("the file has {} bytes: at most {BYTES_MAX} are read", text.len());
        return Err(SyntaxError { place: start, problem });
    }
    refuse_costly(text)?;
    let (documents, characters) = parse(text)?;
    if let Some(second) = documents.get(1) {
        let problem = "a second YAML document begins here: write all tiers in one".to_owned();
        return Err(SyntaxError {
            place: place(second.span.start),
            problem,
        });
    }
    let mut reader = Reader {
        characters: &characters,
        nodes_left: NODES_MAX,
    };
    match documents.first().map(|document| reader.node(document, 0)) {
        Some(Node { kind: Kind::Null, .. }) | None => Err(SyntaxError {
            place: start,
            problem: "the file is empty: it needs `tiers:`".to_owned(),
        }),
        Some(_) if reader.nodes_left == 0 => {
            let problem = format!("the file has more than {NODES_MAX} values, aliases resolved");
            Err(SyntaxError { place: start, problem })
        }
        Some(root) => Ok(root),
    }
}

/// Refuses what would cost the parser much stack or memory.
fn refuse_costly(text: &str) -> Result<(), SyntaxError> {
    for (index, line) in text.split(['\n', '\r']).enumerate() {
        let opening = line.len() - line.trim_start_matches([' ', '\t', '-', '?', ':']).len();
        // A rule of dashes opens nothing.
        let opens = line[..opening].contains(' ') || line[..opening].contains('\t');
        if opening > INDENT_MAX && opens && !line[opening..].starts_with('#') {
            let place = Place {
                line: index + 1,
                column: opening + 1,
            };
            return Err(SyntaxError {
                place,
                problem: format!("the line is indented by more than {INDENT_MAX}"),
            });
        }
    }
    let anchors = text
        .split('&')
        .skip(1)
        .filter(|after| after.starts_with(|next: char| !next.is_whitespace()))
        .count();
    if anchors.saturating_mul(text.len()) > ANCHORED_CHARS_MAX {
        let problem = "the file has too many anchors (&name) for its size".to_owned();
        return Err(SyntaxError {
            place: Place { line: 1, column: 1 },
            problem,
        });
    }
    Ok(())
}

/// Parses, and again with every duplicate key made unique. Also gives the file's characters as they were.
fn parse(text: &str) -> Result<(Vec<MarkedYaml<'static>>, Vec<char>), SyntaxError> {
    let characters: Vec<char> = text.chars().collect();
    let mut renamed = characters.clone();
    for _ in 0..=DUPLICATES_MAX {
        let error = match MarkedYaml::load_from_iter(renamed.iter().copied()) {
            Ok(documents) => return Ok((documents, characters)),
            Err(error) => error,
        };
        let key = if error.info() == "duplicated key in mapping" {
            error.marker().index()
        } else {
            usize::MAX
        };
        let is_quote = |at: usize| matches!(renamed.get(at), Some('"' | '\''));
        let key = if is_quote(key) { key + 1 } else { key };
        match renamed.get_mut(key) {
            Some(first) if first.is_alphanumeric() || matches!(first, '_' | '/') => *first = PLACEHOLDER,
            _ => {
                let problem = format!("is not YAML that can be read: {}", error.info());
                return Err(SyntaxError {
                    place: place(*error.marker()),
                    problem,
                });
            }
        }
    }
    let problem = format!("the file has more than {DUPLICATES_MAX} duplicate keys");
    Err(SyntaxError {
        place: Place { line: 1, column: 1 },
        problem,
    })
}

fn place(marker: Marker) -> Place {
    Place {
        line: marker.line().max(1),
        column: marker.col() + 1,
    }
}

/// Turns the parser's nodes into ours.
struct Reader<'a> {
    characters: &'a [char],
    nodes_left: usize,
}

impl Reader<'_> {
    fn node(&mut self, yaml: &MarkedYaml<'_>, depth: usize) -> Node {
        let place = place(yaml.span.start);
        self.nodes_left = self.nodes_left.saturating_sub(1);
        if self.nodes_left == 0 {
            return Node {
                place,
                kind: Kind::Null,
            };
        }
        // No field of a tier is that deep: whoever holds the node refuses it anyway.
        if depth > 16 {
            return Node {
                place,
                kind: Kind::Refused("is nested too deeply"),
            };
        }
        let kind = match &yaml.data {
            YamlData::Value(Scalar::Null) => Kind::Null,
            YamlData::Value(Scalar::String(text)) => Kind::Text(self.unrenamed(text, yaml)),
            YamlData::Value(scalar) => match self.written(scalar, yaml) {
                Some(text) => Kind::Text(text),
                None => Kind::Refused("is an alias of a number: write the number itself, or quote it at its anchor"),
            },
            YamlData::Sequence(items) => Kind::List(items.iter().map(|item| self.node(item, depth + 1)).collect()),
            YamlData::Mapping(entries) => Kind::Map(
                entries
                    .iter()
                    .map(|(key, value)| self.entry(key, value, depth))
                    .collect(),
            ),
            YamlData::Tagged(..) => Kind::Refused("has a tag (!name): leave it out"),
            YamlData::BadValue | YamlData::Alias(_) | YamlData::Representation(..) => {
                if depth == 0 {
                    Kind::Null
                } else {
                    Kind::Refused("is not what its tag says")
                }
            }
        };
        Node { place, kind }
    }

    fn entry(&mut self, key: &MarkedYaml<'_>, value: &MarkedYaml<'_>, depth: usize) -> Entry {
        let key = self.node(key, depth + 1);
        let node = self.node(value, depth + 1);
        let place = key.place;
        match key.kind {
            Kind::Text(key) => Entry { place, key, node },
            Kind::Null => Entry {
                place,
                key: "null".to_owned(),
                node,
            },
            Kind::List(_) | Kind::Map(_) | Kind::Refused(_) => Entry {
                place,
                key: "?".to_owned(),
                node: Node {
                    place,
                    kind: Kind::Refused("has a key that is no text"),
                },
            },
        }
    }

    /// The characters of the file that gave a number or boolean; `None` when an alias stands there.
    fn written(&self, scalar: &Scalar<'_>, yaml: &MarkedYaml<'_>) -> Option<String> {
        let text: String = self
            .characters
            .get(yaml.span.start.index()..yaml.span.end.index())?
            .iter()
            .collect();
        let text = text.trim();
        if Scalar::parse_from_cow(text.into()) == *scalar {
            return Some(text.to_owned());
        }
        match scalar {
            Scalar::Integer(number) => Some(number.to_string()),
            Scalar::Boolean(value) => Some(value.to_string()),
            _ => None,
        }
    }

    fn unrenamed(&self, text: &str, yaml: &MarkedYaml<'_>) -> String {
        if !text.starts_with(PLACEHOLDER) {
            return text.to_owned();
        }
        let start = yaml.span.start.index();
        let quoted = usize::from(matches!(self.characters.get(start), Some('"' | '\'')));
        match self.characters.get(start + quoted) {
            Some(first) => text.replacen(PLACEHOLDER, first.encode_utf8(&mut [0; 4]), 1),
            None => text.to_owned(),
        }
    }
}
