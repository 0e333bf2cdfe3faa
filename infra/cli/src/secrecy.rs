//! A secret that was typed, or pasted into a file, where it does not belong is not repeated: not on the terminal, and not in the
//! logs of whatever called this command.

use std::{
    borrow::Cow,
    io::{self, Write},
};

/// Parts of secrets that nothing else has: <https://docs.stripe.com/keys>, <https://docs.stripe.com/webhooks/signature>, and the
/// keys that Farebox issues.
const MARKS: [&str; 3] = ["_live_", "_test_", "whsec_"];
/// So many characters after the mark are a key of Farebox's, or half of one. A customer's id that holds a mark and this much after it
/// is taken for one, too.
const KEY_LENGTH_MIN: usize = 24;
/// The same of Stripe's, where its mark begins a word.
const STRIPE_LENGTH_MIN: usize = 8;
/// And where it does not, as after an escaped line break or `%20`.
const STRIPE_LENGTH_INSIDE_MIN: usize = 16;
/// So much stays, to recognise it by.
const SHOWN: usize = 4;

/// A text without the secrets in it, apart from those that are meant to be shown.
pub(crate) fn masked<'a>(text: &'a str, shown: &[&str]) -> Cow<'a, str> {
    let mut clean = String::new();
    let (mut copied, mut at) = (0, 0);
    while let Some((start, mark)) = next(text, at) {
        let body = start + mark.len();
        let length = text[body..].bytes().take_while(|&byte| is_part(byte, mark)).count();
        let end = body + length;
        at = body;
        if length < least(&text[..start], mark) {
            continue;
        }
        at = end;
        if shown.iter().any(|secret| text[..end].ends_with(secret)) {
            continue;
        }
        clean.push_str(&text[copied..body + SHOWN]);
        clean.push('…');
        copied = end;
    }
    match copied {
        0 => Cow::Borrowed(text),
        _ => Cow::Owned(clean + &text[copied..]),
    }
}

/// Whether a text is a secret, or holds one.
pub(crate) fn is_secret(text: &str) -> bool {
    matches!(masked(text, &[]), Cow::Owned(_))
}

/// Where the log goes: at its most talkative, the SDK quotes what it reads from the tables, customers' secrets among it.
pub(crate) struct Log;

impl Write for Log {
    /// An event is written at once.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        io::stderr().write_all(masked(&text, &[]).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The next mark from a place on.
fn next(text: &str, from: usize) -> Option<(usize, &'static str)> {
    let found = MARKS
        .into_iter()
        .filter_map(|mark| Some((from + text[from..].find(mark)?, mark)));
    found.min()
}

/// Whether a secret of this kind may hold this.
fn is_part(byte: u8, mark: &str) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || (mark == "whsec_" && b"+/=".contains(&byte))
}

/// How much must follow a mark for a secret.
fn least(before: &str, mark: &str) -> usize {
    if mark == "whsec_" {
        return STRIPE_LENGTH_MIN;
    }
    match ["sk", "rk"].iter().find_map(|kind| before.strip_suffix(kind)) {
        Some(rest) if rest.ends_with(|c: char| c.is_ascii_alphanumeric()) => STRIPE_LENGTH_INSIDE_MIN,
        Some(_) => STRIPE_LENGTH_MIN,
        None => KEY_LENGTH_MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "acme_live_Zq8Lw3Xn6Vb1Cm4Kj7Hg2Fd5Sa9Po0Iu3Yt6Re8Wq1ZxNc4Vb";

    #[test]
    fn secrets_are_cut_wherever_they_stand() {
        for (text, expected) in [
            (
                "no customer sk_test_51Hq2v8XkD4mZ7 here",
                "no customer sk_test_51Hq… here",
            ),
            ("http://rk_live_51Hq2v8XkD4mZ7@host:1/", "http://rk_live_51Hq…@host:1/"),
            (
                "\"whsec_a+b/c1234==\", \"whsec_abcdefgh\"",
                "\"whsec_a+b/…\", \"whsec_abcd…\"",
            ),
            (&format!("'{KEY}'"), "'acme_live_Zq8L…'"),
            (&KEY[..55], "acme_live_Zq8L…"),
            (&format!("{KEY}x"), "acme_live_Zq8L…"),
            ("ä sk_live_12345678 ö", "ä sk_live_1234… ö"),
            // After an escaped line break, and as a part of an address.
            ("\\nsk_live_51RefusedH5gK8pL2xV9bN4", "\\nsk_live_51Re…"),
            ("Bearer%20sk_test_4eC39HqLyjWDarjtT1zdp7dc", "Bearer%20sk_test_4eC3…"),
            ("key%3Drk_live_51Hq2v8XkD4mZ7sR", "key%3Drk_live_51Hq…"),
            (&KEY[..35], "acme_live_Zq8L…"),
        ] {
            assert_eq!(masked(text, &[]), expected);
            assert!(is_secret(text) && !is_secret(expected), "{text}");
        }
    }

    #[test]
    fn names_stay() {
        for text in [
            "fb_test_8WFV…598F",
            "fb_live_Zq8L",
            "desk_live_customer01",
            "STRIPE_SECRET_KEY is no sk_test_ key",
            "sk_test_local",
            "whsec_…",
            "cus_KSfloL67Fz8Xet",
        ] {
            assert_eq!(masked(text, &[]), text);
            assert!(!is_secret(text), "{text}");
        }
    }

    #[test]
    fn what_is_to_be_shown_is_shown_and_nothing_else() {
        let text = format!("{KEY} {KEY}x whsec_abcdefghij");
        assert_eq!(masked(&text, &[KEY]), format!("{KEY} acme_live_Zq8L… whsec_abcd…"));
    }
}
