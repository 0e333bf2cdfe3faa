//! Route patterns, and the paths that they match.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A segment that is longer than this is in no pattern.
const SEGMENT_BYTES_MAX: usize = 200;
/// A pattern has at most so many segments.
const SEGMENTS_MAX: usize = 24;

/// `[METHOD ]/path`, where a segment is a text, a `*` or `{name}` for exactly one segment, or at the end a `*` or
/// `{name+}` for all the rest.
///
/// - The rest is one segment or more: `/v1/*` matches `/v1/items` and `/v1/a/b`, but not `/v1` itself.
/// - `*` at the end is the rest; `{name}` is one segment there too.
/// - A trailing slash makes no difference, in the pattern and in the path.
/// - Without a method every method matches. Methods and paths are case-sensitive.
///
/// Two patterns are equal when they match the same requests, however they were spelled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    method: Option<Method>,
    segments: Vec<Segment>,
    /// Whether one or more segments follow.
    rest: bool,
    /// Grows with every condition: of two patterns that match the same route and are ordered, the narrower has the
    /// higher rank.
    rank: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Segment {
    Any,
    Exact(Box<str>),
}

/// The methods that an API Gateway route can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Method {
    Delete,
    Get,
    Head,
    Options,
    Patch,
    Post,
    Put,
}

impl Method {
    pub(super) const ALL: [Self; 7] = [
        Self::Delete,
        Self::Get,
        Self::Head,
        Self::Options,
        Self::Patch,
        Self::Post,
        Self::Put,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == text)
    }
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct PatternError(&'static str);

impl FromStr for Pattern {
    type Err = PatternError;

    /// `Err` says what to write instead.
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (method, path) = match text.split_once(' ') {
            Some((method, path)) => {
                let method = Method::parse(method).ok_or(PatternError(
                    "is not a route: the method must be GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS, or left out",
                ))?;
                (Some(method), path.trim_start_matches(' '))
            }
            None => (None, text),
        };
        let Some(path) = path.strip_prefix('/') else {
            return Err(PatternError(
                "is not a route: write a path like /v1/items/*, or POST /v1/items",
            ));
        };
        if path.is_empty() {
            return Ok(Self::new(method, Vec::new(), false));
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut segments = Vec::new();
        let mut rest = false;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            if rest {
                return Err(PatternError(
                    "is not a route: {name+} stands for all the rest, so nothing may follow it",
                ));
            }
            match part {
                "*" if parts.peek().is_none() => rest = true,
                "*" => segments.push(Segment::Any),
                _ => match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                    Some(name) => {
                        let one = name.strip_suffix('+').unwrap_or(name);
                        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
                        if one.is_empty() || !one.bytes().all(is_name) {
                            return Err(PatternError(
                                "is not a route: a placeholder is written {id} or {proxy+}",
                            ));
                        }
                        if one == name {
                            segments.push(Segment::Any);
                        } else {
                            rest = true;
                        }
                    }
                    None => segments.push(Segment::Exact(literal(part)?)),
                },
            }
        }
        if segments.len() > SEGMENTS_MAX {
            return Err(PatternError("has more than 24 segments"));
        }
        Ok(Self::new(method, segments, rest))
    }
}

/// The text that a literal segment of a pattern matches.
fn literal(part: &str) -> Result<Box<str>, PatternError> {
    if part.is_empty() {
        return Err(PatternError("is not a route: it has an empty segment"));
    }
    if part.contains(['*', '{', '}']) {
        return Err(PatternError(
            "is not a route: a wildcard stands for a whole segment, as in /v1/*/items",
        ));
    }
    if part.contains([' ', '?', '#', '"']) {
        return Err(PatternError(
            "is not a route: a path has no spaces, quotes, query or fragment",
        ));
    }
    if part.len() > SEGMENT_BYTES_MAX {
        return Err(PatternError("has a segment of more than 200 bytes"));
    }
    let text = decode(part).filter(|text| is_plain_segment(text) && !text.contains('/'));
    text.map(|text| text.into_owned().into_boxed_str()).ok_or(PatternError(
        "is not a route: no request path can match it (dot segments, encoded slashes or the like)",
    ))
}

impl Pattern {
    fn new(method: Option<Method>, segments: Vec<Segment>, rest: bool) -> Self {
        let exact = segments.iter().filter(|segment| **segment != Segment::Any).count();
        let conditions = segments.len() + exact + usize::from(method.is_some()) + usize::from(!rest);
        Self {
            method,
            segments,
            rest,
            rank: u16::try_from(conditions).unwrap_or(u16::MAX),
        }
    }

    /// Whether the pattern matches the request. A path that is ambiguous (see [`Catalog::access`](super::Catalog::access))
    /// is matched by none.
    pub fn matches(&self, method: &str, path: &str) -> bool {
        Decoded::new(path).is_some_and(|path| Route::new(method, &path).is_some_and(|route| self.matches_route(&route)))
    }

    pub(super) fn matches_route(&self, route: &Route<'_>) -> bool {
        let path = route.segments();
        let length_fits = if self.rest {
            path.len() > self.segments.len()
        } else {
            path.len() == self.segments.len()
        };
        length_fits
            && self.method.is_none_or(|method| Some(method) == route.method)
            && self
                .segments
                .iter()
                .zip(path)
                .all(|(segment, part)| segment.matches(part))
    }

    /// Whether every request that this pattern matches is matched by `other` too. A pattern is a subset of itself.
    pub fn is_subset_of(&self, other: &Self) -> bool {
        let lengths = match (self.rest, other.rest) {
            (false, false) => self.segments.len() == other.segments.len(),
            (false, true) => self.segments.len() > other.segments.len(),
            (true, true) => self.segments.len() >= other.segments.len(),
            (true, false) => false,
        };
        lengths
            && (other.method.is_none() || self.method == other.method)
            && self
                .segments
                .iter()
                .zip(&other.segments)
                .all(|(own, other)| *other == Segment::Any || own == other)
    }

    /// Whether some request is matched by both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.meet(other).is_some()
    }

    /// Whether some request is matched by both and neither is the more specific one.
    pub(super) fn is_unordered_with(&self, other: &Self) -> bool {
        self.overlaps(other) && !self.is_subset_of(other) && !other.is_subset_of(self)
    }

    /// The pattern that matches what both match.
    pub(super) fn meet(&self, other: &Self) -> Option<Self> {
        let method = match (self.method, other.method) {
            (Some(own), Some(other)) if own != other => return None,
            (own, other) => own.or(other),
        };
        let (long, short) = if self.segments.len() >= other.segments.len() {
            (self, other)
        } else {
            (other, self)
        };
        let length_fits = match (long.rest, short.rest) {
            (false, false) => long.segments.len() == short.segments.len(),
            (false, true) => long.segments.len() > short.segments.len(),
            (true, true) => true,
            (true, false) => false,
        };
        if !length_fits {
            return None;
        }
        let mut segments = long.segments.clone();
        for (segment, other) in segments.iter_mut().zip(&short.segments) {
            match (&segment, other) {
                (Segment::Exact(own), Segment::Exact(other)) if own != other => return None,
                (Segment::Any, Segment::Exact(_)) => *segment = other.clone(),
                _ => {}
            }
        }
        // Where `long` goes on, `short` does too, or the lengths would not fit.
        Some(Self::new(method, segments, long.rest))
    }

    /// How specific the pattern is; compares only patterns that match the same route.
    pub(super) fn rank(&self) -> u16 {
        self.rank
    }

    pub(super) fn segment_count(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn method_name(&self) -> Option<&'static str> {
        self.method.map(Method::name)
    }

    /// Requests that stand for all those that the pattern matches and no narrower pattern of the file does: a wildcard
    /// is a text that no pattern names, the rest has each length up to `segments_max + 1`, and each of `methods` occurs
    /// where the pattern leaves the method open.
    pub(super) fn examples<'a>(
        &'a self,
        segments_max: usize,
        methods: &'a [&'static str],
    ) -> impl Iterator<Item = (&'static str, String)> + 'a {
        let mut path = String::new();
        for segment in &self.segments {
            path.push('/');
            path.push_str(match segment {
                Segment::Any => UNNAMED,
                Segment::Exact(text) => text,
            });
        }
        if self.segments.is_empty() && !self.rest {
            path.push('/');
        }
        let longest = if self.rest {
            (segments_max + 1).saturating_sub(self.segments.len()).max(1)
        } else {
            0
        };
        (usize::from(self.rest)..=longest).flat_map(move |extra| {
            let path = format!("{path}{}", format!("/{UNNAMED}").repeat(extra));
            let own = self.method.map(Method::name).into_iter();
            let open = methods.iter().copied().filter(move |_| self.method.is_none());
            own.chain(open).map(move |method| (method, path.clone()))
        })
    }
}

/// A segment that no pattern can name: longer than any of theirs.
const UNNAMED: &str = match str::from_utf8(&[b'x'; SEGMENT_BYTES_MAX * 3 + 1]) {
    Ok(text) => text,
    Err(_) => "",
};

impl Segment {
    #[inline]
    fn matches(&self, part: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(text) => **text == *part,
        }
    }
}

impl fmt::Display for Pattern {
    /// The canonical spelling: `*` for one segment and for the rest, `{id}` for one segment at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(method) = self.method {
            write!(f, "{} ", method.name())?;
        }
        if self.segments.is_empty() && !self.rest {
            return f.write_str("/");
        }
        let last = self.segments.len().saturating_sub(1);
        for (index, segment) in self.segments.iter().enumerate() {
            match segment {
                Segment::Exact(text) => write!(f, "/{}", Spelled(text))?,
                Segment::Any if index == last && !self.rest => f.write_str("/{id}")?,
                Segment::Any => f.write_str("/*")?,
            }
        }
        if self.rest { f.write_str("/*") } else { Ok(()) }
    }
}

/// A literal segment, with those characters encoded that would mean something else in a pattern.
struct Spelled<'a>(&'a str);

impl fmt::Display for Spelled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                ' ' | '?' | '#' | '"' | '*' | '{' | '}' | '%' => write!(f, "%{:02X}", u32::from(char))?,
                _ => write!(f, "{char}")?,
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

/// A request path with its escapes resolved; borrowed, hence free, where there are none.
pub(super) struct Decoded<'a>(Cow<'a, str>);

impl<'a> Decoded<'a> {
    /// `None` for a path that two readers could take differently.
    pub(super) fn new(path: &'a str) -> Option<Self> {
        decode(path).map(Self)
    }
}

/// Resolves percent-escapes once. `None` where the result could be read in another way further on: control characters,
/// backslashes, query or fragment marks, an encoded slash, an escape that hides another, bytes that are not UTF-8.
fn decode(path: &str) -> Option<Cow<'_, str>> {
    // One pass decides for nearly all paths that there is nothing to do.
    if path.bytes().all(is_plain_byte) {
        return Some(Cow::Borrowed(path));
    }
    if !path.contains('%') {
        return path.chars().all(is_allowed).then_some(Cow::Borrowed(path));
    }
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte != b'%' {
            if matches!(byte, b'?' | b'#') {
                return None;
            }
            decoded.push(byte);
            at += 1;
            continue;
        }
        let escape = escaped_byte(bytes.get(at + 1..at + 3)?)?;
        if escape == b'/' {
            return None;
        }
        decoded.push(escape);
        at += 3;
    }
    let hides_another = decoded
        .windows(3)
        .any(|window| window[0] == b'%' && escaped_byte(&window[1..]).is_some());
    let text = String::from_utf8(decoded).ok()?;
    let fine = !hides_another && text.chars().all(|char| matches!(char, '?' | '#') || is_allowed(char));
    fine.then_some(Cow::Owned(text))
}

#[inline]
fn is_plain_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'%' | b'\\' | b'?' | b'#')
}

fn is_allowed(char: char) -> bool {
    !char.is_control() && !matches!(char, '\\' | '?' | '#')
}

fn escaped_byte(hex: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*hex.first()?)? * 16 + digit(*hex.get(1)?)?).ok()
}

/// Whether a segment names itself: not empty, no dots that walk the tree. A server that drops `;parameters` must not
/// find dots either.
#[inline]
fn is_plain_segment(segment: &str) -> bool {
    match segment.as_bytes() {
        [] => false,
        [b'.', ..] => !matches!(segment.split(';').next(), Some("." | "..")),
        [b';', ..] => false,
        _ => true,
    }
}

/// How many segments a path may have before they move to the heap.
const INLINE: usize = 16;

/// A request as the patterns see it.
pub(super) struct Route<'a> {
    method: Option<Method>,
    inline: [&'a str; INLINE],
    length: usize,
    /// All segments, where there are more than fit inline.
    spilled: Vec<&'a str>,
}

impl<'a> Route<'a> {
    /// `None` when the method or the path is ambiguous. A method that no pattern can name is fine: patterns without a
    /// method match it.
    pub(super) fn new(method: &str, path: &'a Decoded<'_>) -> Option<Self> {
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        let path = path.0.strip_prefix('/')?;
        let mut route = Self {
            method: Method::parse(method),
            inline: [""; INLINE],
            length: 0,
            spilled: Vec::new(),
        };
        if path.is_empty() {
            return Some(route);
        }
        for segment in path.strip_suffix('/').unwrap_or(path).split('/') {
            if !is_plain_segment(segment) {
                return None;
            }
            route.push(segment);
        }
        Some(route)
    }

    #[inline]
    fn push(&mut self, segment: &'a str) {
        if let Some(place) = self.inline.get_mut(self.length) {
            *place = segment;
            self.length += 1;
            return;
        }
        if self.spilled.is_empty() {
            self.spilled.extend_from_slice(&self.inline);
        }
        self.spilled.push(segment);
    }

    #[inline]
    fn segments(&self) -> &[&'a str] {
        if self.spilled.is_empty() {
            &self.inline[..self.length]
        } else {
            &self.spilled
        }
    }
}
